//! Many changes in one request, each with an outcome of its own: rules that are restored.
//!
//! Invariant: the outcomes are those that the actions would have one after the other (but for who gets the last room in a
//! full map). The workers hear once of services that are added in a row, servers and all; what stands behind the row finds
//! them in force.

use std::collections::HashSet;

use super::book::is_ranged;
use super::change::{Scene, describe};
use super::protocol::schedulers::plugin;
use super::protocol::{Action, Answer, Outcome, Refusal, RefusalKind, ServiceId, ServiceSpec};

/// What carries out one action.
type One = fn(&mut Scene<'_>, Action) -> Result<Answer, Refusal>;

/// Services that were opened, and what was done to them since: the place and the action of each.
#[derive(Default)]
struct Row {
    opened: HashSet<ServiceId>,
    actions: Vec<(usize, Action)>,
}

/// Carries the actions out; `one` does what belongs to no row.
pub(super) fn many(scene: &mut Scene<'_>, actions: Vec<Action>, one: One) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(actions.len());
    let mut row = Row::default();
    for action in actions {
        let outcome = match action {
            Action::Many(_) => Err(Refusal::new(RefusalKind::Invalid, "many actions can not stand among many")),
            Action::AddService(spec) if may_wait(&spec) => row.open(scene, spec, outcomes.len()),
            action if service_of(&action).is_some() => row.serve(scene, action, outcomes.len(), one),
            action => {
                row.settle(scene, &mut outcomes, one);
                one(scene, action)
            }
        };
        outcomes.push(told(outcome));
    }
    row.settle(scene, &mut outcomes, one);
    outcomes
}

fn told(outcome: Result<Answer, Refusal>) -> Outcome {
    outcome.map_or_else(Outcome::Refused, Outcome::Ok)
}

/// Is all that can go wrong later that there is no room for its key?
fn may_wait(spec: &ServiceSpec) -> bool {
    plugin(&spec.scheduler).is_none() && !is_ranged(&spec.id)
}

/// The service whose servers an action changes.
fn service_of(action: &Action) -> Option<ServiceId> {
    match action {
        Action::AddServer { service, .. }
        | Action::EditServer { service, .. }
        | Action::DeleteServer { service, .. } => Some(*service),
        _ => None,
    }
}

impl Row {
    fn open(&mut self, scene: &mut Scene<'_>, spec: ServiceSpec, at: usize) -> Result<Answer, Refusal> {
        let (id, action) = (spec.id, Action::AddService(spec.clone()));
        let outcome = scene.book.open_service(spec);
        if outcome.is_err() {
            scene.note(&describe(&action), &outcome);
        } else {
            self.opened.insert(id);
        }
        if self.opened.contains(&id) {
            self.actions.push((at, action));
        }
        outcome.map(|()| Answer::Done)
    }

    fn serve(&mut self, scene: &mut Scene<'_>, action: Action, at: usize, one: One) -> Result<Answer, Refusal> {
        if service_of(&action).is_some_and(|id| self.opened.contains(&id)) {
            self.actions.push((at, action.clone()));
        }
        one(scene, action)
    }

    /// Brings into force what was opened. Where there is no room for a service, it and all that was done to it since are
    /// taken back, and tried one after the other.
    fn settle(&mut self, scene: &mut Scene<'_>, outcomes: &mut [Outcome], one: One) {
        let Row { actions, .. } = std::mem::take(self);
        let refused: HashSet<ServiceId> =
            scene.book.steer_opened(scene.outside).into_iter().map(|(id, _)| id).collect();
        if !refused.is_empty() {
            scene.book.withdraw(&refused, scene.now_ms, scene.outside);
        }
        for (at, action) in actions {
            let id = match &action {
                Action::AddService(spec) => Some(spec.id),
                action => service_of(action),
            };
            if id.is_some_and(|id| refused.contains(&id)) {
                outcomes[at] = told(one(scene, action));
            } else if matches!((&action, &outcomes[at]), (Action::AddService(_), Outcome::Ok(_))) {
                scene.note(&describe(&action), &Ok::<_, Refusal>(()));
            }
        }
    }
}
