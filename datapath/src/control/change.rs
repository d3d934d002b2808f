//! One action, or many as one, carried out on the rules.
//!
//! Invariant: what is refused has changed nothing. Many actions come from a plan, which adds and edits before it
//! removes; only adding and editing can be refused, and both can be taken back. The workers hear once of all services.
//! (Servers that were taken back wait in the trash like any removed one.)

use xvs_engine::conn::Class;
use xvs_engine::engine::Shared;

use crate::config::rules;

use super::book::{Book, Outside, Placement};
use super::protocol::schedulers::{Loaded, SwapTo, plugin};
use super::protocol::{Action, Assignment, Refusal, SchedulerAction, SchedulerAnswer, SettingState};
use super::wanted::Wanted;
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
    /// Who asks, for the log.
    pub who: &'a str,
}

/// What takes an action back.
enum Undo {
    Action(Action),
    /// A plugin's name, and who had what of it.
    Placement(Placement),
}

impl Scene<'_> {
    /// Carries out one action; one that only asks does nothing.
    ///
    /// # Errors
    /// It is refused, and nothing has changed.
    pub fn change(&mut self, action: Action) -> Result<(), Refusal> {
        let told = describe(&action);
        let places = self.places(&action);
        let outcome = self.one(action);
        if outcome.is_err() {
            self.take_back(places);
        }
        self.note(&told, &outcome);
        outcome
    }

    pub(super) fn note<T>(&self, action: &str, outcome: &Result<T, Refusal>) {
        match outcome {
            Ok(_) => tracing::info!(action, who = self.who, "changed"),
            Err(refusal) => tracing::info!(action, who = self.who, refusal = refusal.message, "refused"),
        }
    }

    /// Does what is asked about plugins, or tells it.
    ///
    /// # Errors
    /// It is refused, and nothing has changed.
    pub fn scheduler(&mut self, action: SchedulerAction) -> Result<Option<SchedulerAnswer>, Refusal> {
        let asks = action.only_asks();
        let told = describe(&Action::Scheduler(action.clone()));
        let outcome = self.book.scheduler(action, self.now_ms);
        if !asks {
            self.note(&told, &outcome);
            self.audit(&told, &outcome);
        }
        outcome
    }

    /// Takes a file of the watched directory: its module becomes the newest version of its name, and all services of the
    /// name get it.
    ///
    /// # Errors
    /// It is no scheduler, or a service can not have it: what was live is.
    pub fn follow_file(&mut self, wanted: Wanted) -> Result<(), Refusal> {
        let Wanted { name, file, grants, .. } = &wanted;
        let (registry, workshop) = self.book.plugin_store();
        let sha256 = workshop.get(wanted.order(registry))?.module.sha256().to_owned();
        let action = match registry.current(name) {
            Some(current) if current.module.sha256() == sha256 => {
                self.book.forget_refused(file);
                return Ok(());
            }
            Some(_) => SchedulerAction::Swap { name: name.clone(), to: SwapTo::File(file.clone()) },
            None => SchedulerAction::Load { name: name.clone(), file: file.clone(), grants: *grants },
        };
        self.scheduler(action).map(drop)
    }

    /// Which module does what from now on.
    fn audit(&self, action: &str, outcome: &Result<Option<SchedulerAnswer>, Refusal>) {
        if let Ok(Some(SchedulerAnswer::Loaded(loaded))) = outcome {
            let Loaded { name, version, sha256, .. } = loaded;
            let services = loaded.services.len();
            tracing::info!(who = self.who, name, version, sha256, services, action, "audit: plugin scheduler");
        }
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
            Ok(()) => told.iter().for_each(|action| tracing::info!(action, who = self.who, "changed")),
            Err(refusal) => {
                tracing::info!(who = self.who, refusal = refusal.message, "refused; taking back what was done");
                self.take_back(undo);
            }
        }
        outcome
    }

    fn one(&mut self, action: Action) -> Result<(), Refusal> {
        let Scene { book, shared, outside, now_ms, .. } = self;
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
            Action::Scheduler(action) => {
                let told = describe(&Action::Scheduler(action.clone()));
                let outcome = book.scheduler(action, *now_ms);
                self.audit(&told, &outcome);
                outcome.map(drop)
            }
            _ => Ok(()),
        }
    }

    fn all(&mut self, actions: Vec<Action>, undo: &mut Vec<Undo>) -> Result<(), Refusal> {
        let mut opened = false;
        for action in actions {
            let inverse = self.inverse(&action);
            let places = self.places(&action);
            let removes = inverse.is_none() && places.is_empty();
            undo.extend(places);
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
                    if removes && std::mem::take(&mut opened) {
                        // What is new is in force before anything goes, and nothing after this is refused.
                        self.book.settle(self.outside)?;
                    }
                    self.one(action)?;
                }
            }
            undo.extend(inverse.map(Undo::Action));
        }
        self.book.settle(self.outside)
    }

    /// The plugins that an action may load, or give to services or take from them, as they are.
    fn places(&self, action: &Action) -> Vec<Undo> {
        let mut names: Vec<&str> = match action {
            Action::AddService(spec) | Action::EditService(spec) => {
                let old = self.book.entry(&spec.id).map(|entry| entry.spec.scheduler.as_str());
                old.into_iter().chain([spec.scheduler.as_str()]).filter_map(plugin).collect()
            }
            Action::Scheduler(SchedulerAction::Load { name, .. } | SchedulerAction::Swap { name, .. }) => vec![name],
            _ => Vec::new(),
        };
        names.dedup();
        names.into_iter().map(|name| Undo::Placement(self.book.placement(name))).collect()
    }

    /// What takes an action back; none for one that is never refused and comes after all those that are.
    fn inverse(&self, action: &Action) -> Option<Action> {
        match action {
            Action::AddService(spec) => Some(Action::DeleteService(spec.id)),
            Action::ReplaceMarks(_) => Some(Action::ReplaceMarks(self.book.mark_rules().to_vec())),
            Action::EditService(spec) => Some(Action::EditService(self.book.entry(&spec.id)?.spec.clone().explicit())),
            Action::AddServer { service, server } => {
                Some(Action::DeleteServer { service: *service, address: server.address })
            }
            Action::EditServer { service, server } => {
                let entry = self.book.entry(service)?;
                let old = entry.members().find(|member| member.spec.address == server.address)?.spec;
                Some(Action::EditServer { service: *service, server: old.explicit() })
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

    fn take_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            let (told, outcome) = match step {
                Undo::Action(action) => (describe(&action), self.one(action)),
                Undo::Placement(placement) => (format!("{placement:?}"), self.book.put_back(placement)),
            };
            if let Err(refusal) = outcome {
                tracing::error!(action = told, refusal = refusal.message, "it could not be taken back");
            }
        }
    }
}

/// An action as a line of the log, in the control protocol's own words.
pub(super) fn describe(action: &Action) -> String {
    serde_json::to_string(action).unwrap_or_else(|error| error.to_string())
}
