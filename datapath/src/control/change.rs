//! One action, or many as one, carried out on the rules.
//!
//! Invariant: what is refused has changed nothing. Many actions come from a plan, which adds and edits before it
//! removes; only adding and editing can be refused, and both can be taken back. The workers hear once of all services.
//! (Servers that were taken back wait in the trash like any removed one.)

use xvs_engine::conn::Class;
use xvs_engine::engine::Shared;

use crate::config::rules;

use super::book::{Book, Outside};
use super::protocol::{Action, Assignment, Refusal, SettingState};
use super::{sysctl, timeouts};

/// What an action is carried out on.
pub struct Scene<'a> {
    /// The rules.
    pub book: &'a mut Book,
    /// The timeouts.
    pub shared: &'a Shared,
    /// Workers, XDP program, network.
    pub outside: &'a mut dyn Outside,
    /// The time.
    pub now_ms: u64,
}

impl Scene<'_> {
    /// Carries out one action; one that only asks does nothing.
    ///
    /// # Errors
    /// It is refused, and nothing has changed.
    pub fn change(&mut self, action: Action) -> Result<(), Refusal> {
        let told = describe(&action);
        let outcome = self.one(action);
        match &outcome {
            Ok(()) => tracing::info!(action = told, "changed"),
            Err(refusal) => tracing::info!(action = told, refusal = refusal.message, "refused"),
        }
        outcome
    }

    /// Changes settings, and tells what they are now.
    ///
    /// # Errors
    /// One is refused, and nothing has changed.
    pub fn set(&mut self, assignments: Vec<Assignment>) -> Result<Vec<SettingState>, Refusal> {
        let names: Vec<String> = assignments.iter().map(|assignment| assignment.name.clone()).collect();
        self.change(Action::Set(assignments))?;
        // No name stands for all of them, when it is asked for.
        if names.is_empty() { Ok(Vec::new()) } else { self.book.settings().states(&names) }
    }

    /// Carries out all of a plan's actions, in their order.
    ///
    /// # Errors
    /// One is refused, and nothing has changed.
    pub fn change_all(&mut self, actions: Vec<Action>) -> Result<(), Refusal> {
        let told: Vec<String> = actions.iter().map(describe).collect();
        let mut undo = Vec::new();
        let outcome = self.all(actions, &mut undo);
        match &outcome {
            Ok(()) => told.iter().for_each(|action| tracing::info!(action, "changed")),
            Err(refusal) => {
                tracing::info!(refusal = refusal.message, "refused; taking back what was done");
                self.take_back(undo);
            }
        }
        outcome
    }

    fn one(&mut self, action: Action) -> Result<(), Refusal> {
        let Scene { book, shared, outside, now_ms } = self;
        match action {
            Action::AddService(spec) => book.add_service(spec, *outside),
            Action::EditService(spec) => book.edit_service(spec, *outside),
            Action::DeleteService(id) => book.delete_service(&id, *now_ms, *outside),
            Action::Flush => {
                book.flush(*now_ms, *outside);
                Ok(())
            }
            Action::AddServer { service, server } => book.add_server(&service, server, *outside),
            Action::EditServer { service, server } => book.edit_server(&service, server, *outside),
            Action::DeleteServer { service, address } => book.delete_server(&service, address, *now_ms),
            Action::AddMark { rule, first } => book.add_mark(rule, first, *outside),
            Action::DeleteMark(rule) => book.delete_mark(&rule, *outside),
            Action::ReplaceMarks(rules) => book.change_marks(rules, *outside),
            Action::Zero(id) => book.zero(id.as_ref()),
            Action::SetTimeouts(set) => {
                rules::check_timeouts(&set)?;
                timeouts::set(shared, set);
                Ok(())
            }
            Action::SetStateTimeouts { service: None, timeouts: set, replace } => {
                let set = timeouts::check(&set)?;
                if replace {
                    shared.timeouts.clear(Class::DIRECTOR);
                }
                timeouts::set_states(shared, Class::DIRECTOR, &set);
                Ok(())
            }
            Action::SetStateTimeouts { service: Some(id), timeouts, replace } => {
                book.set_timeouts(&id, &timeouts, replace)
            }
            Action::Set(assignments) => {
                book.set(sysctl::read_all(&assignments)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn all(&mut self, actions: Vec<Action>, undo: &mut Vec<Action>) -> Result<(), Refusal> {
        let mut opened = false;
        for action in actions {
            let inverse = self.inverse(&action);
            match action {
                Action::AddService(spec) => {
                    self.book.open_service(spec)?;
                    opened = true;
                }
                Action::ReplaceMarks(rules) => {
                    self.book.replace_marks(rules)?;
                    opened = true;
                }
                action => {
                    if inverse.is_none() && std::mem::take(&mut opened) {
                        // What is new is in force before anything goes, and nothing after this is refused.
                        self.book.settle(self.outside)?;
                    }
                    self.one(action)?;
                }
            }
            undo.extend(inverse);
        }
        self.book.settle(self.outside)
    }

    /// What takes an action back; none for one that is never refused and comes after all those that are.
    fn inverse(&self, action: &Action) -> Option<Action> {
        match action {
            Action::AddService(spec) => Some(Action::DeleteService(spec.id)),
            Action::ReplaceMarks(_) => Some(Action::ReplaceMarks(self.book.mark_rules().to_vec())),
            Action::EditService(spec) => Some(Action::EditService(self.book.entry(&spec.id)?.spec.clone())),
            Action::AddServer { service, server } => {
                Some(Action::DeleteServer { service: *service, address: server.address })
            }
            Action::EditServer { service, server } => {
                let entry = self.book.entry(service)?;
                let old = entry.members().find(|member| member.spec.address == server.address)?.spec;
                Some(Action::EditServer { service: *service, server: old })
            }
            Action::SetStateTimeouts { service, .. } => {
                let timeouts = match service {
                    Some(id) => self.book.entry(id)?.timeouts.clone(),
                    None => timeouts::own(self.shared, Class::DIRECTOR),
                };
                Some(Action::SetStateTimeouts { service: *service, timeouts, replace: true })
            }
            Action::Set(assignments) => Some(Action::Set(self.book.settings().undo(assignments))),
            _ => None,
        }
    }

    fn take_back(&mut self, undo: Vec<Action>) {
        for action in undo.into_iter().rev() {
            let told = describe(&action);
            if let Err(refusal) = self.one(action) {
                tracing::error!(action = told, refusal = refusal.message, "it could not be taken back");
            }
        }
    }
}

/// An action as a line of the log, in the control protocol's own words.
fn describe(action: &Action) -> String {
    serde_json::to_string(action).unwrap_or_else(|error| error.to_string())
}
