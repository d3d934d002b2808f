//! Requests that need no more than the rules and the engine's tables: the same for a running director and a rehearsed
//! one.
//!
//! Invariant: a question changes nothing. What is about a running director (its status, its drops, its files) is for
//! the [`controller`](super::controller) and refused here.

use xvs_engine::time::Now;

use crate::config::rules;

use super::change::Scene;
use super::protocol::{Action, Answer, Refusal, RefusalKind, ServiceId, Services};
use super::{many, report, timeouts};

/// Carries out an action, or answers a question.
///
/// # Errors
/// It is refused, and nothing has changed.
pub fn answer(scene: &mut Scene<'_>, action: Action) -> Result<Answer, Refusal> {
    let outcome = carry_out(scene, action);
    scene.book.workshop().clear();
    outcome
}

fn carry_out(scene: &mut Scene<'_>, action: Action) -> Result<Answer, Refusal> {
    match action {
        Action::Services(id) => services(scene, id.as_ref()),
        Action::Connections => {
            Ok(Answer::Connections(report::connections(scene.shared, Now::from_millis(scene.now_ms))))
        }
        Action::StateTimeouts(id) => scene.book.timeouts(id.as_ref()).map(Answer::StateTimeouts),
        Action::Settings(names) => scene.book.settings().states(&names).map(Answer::Settings),
        Action::Set(assignments) => scene.set(assignments).map(Answer::Settings),
        Action::Scheduler(action) => Ok(scene.scheduler(action)?.map_or(Answer::Done, Answer::Scheduler)),
        Action::Many(actions) => Ok(Answer::Many(many::many(scene, actions, carry_out))),
        Action::Marks => Ok(Answer::Marks(scene.book.mark_views())),
        Action::Timeouts => Ok(Answer::Timeouts(timeouts::get(scene.shared))),
        Action::Status | Action::Workers | Action::Drops | Action::Explain { .. } | Action::Apply { .. } => {
            Err(Refusal::new(RefusalKind::Unsupported, "only a running director can tell or do that"))
        }
        change => scene.change(change).map(|()| Answer::Done),
    }
}

fn services(scene: &mut Scene<'_>, id: Option<&ServiceId>) -> Result<Answer, Refusal> {
    let Scene { book, shared, outside, .. } = scene;
    let path = |real| outside.way(real);
    let size = shared.table.capacity().into();
    let (services, totals) = match id {
        None => {
            book.begin_listing();
            book.go_on_listing(usize::MAX, path).unwrap_or_default()
        }
        Some(id) => {
            let entry = book.entry(id).ok_or_else(|| {
                let message = format!("there is no service {}", rules::describe(id));
                Refusal::new(RefusalKind::NoSuchService, message)
            })?;
            (vec![book.view(entry, path)], book.sampled_totals())
        }
    };
    Ok(Answer::Services(Services { size, services, totals }))
}
