//! What is told of a post: how its plugins do, and what happened.

use std::sync::{Mutex, PoisonError};

use super::conduct::{Conduct, Trust};
use super::runner::{Recipe, Runner};
use super::{Trial, Version};

/// Events that wait to be fetched; more than these are only counted.
const WAITING: usize = 64;

/// How the plugin of a service does.
#[derive(Clone, Debug)]
pub struct PostStatus {
    /// Is the live plugin asked?
    pub trust: Trust,
    /// The live plugin; none if the service's native scheduler is the live one.
    pub live: Option<Standing>,
    /// The candidate beside it.
    pub candidate: Option<(Standing, Trial)>,
    /// New connections that a plugin chose for.
    pub picks: u64,
    /// New connections that were left to the native scheduler, whatever the reason.
    pub fallback: u64,
    /// Picks that were no usable server any more when they arrived; the native scheduler served them.
    pub overruled: u64,
}

impl PostStatus {
    pub(super) fn new(conduct: &Conduct) -> Self {
        PostStatus { trust: conduct.trust(), live: None, candidate: None, picks: 0, fallback: 0, overruled: 0 }
    }
}

/// How one version does at one service.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which one.
    pub version: std::sync::Arc<Version>,
    /// Its options.
    pub options: String,
    /// Is it asked?
    pub trust: Trust,
    /// How often it was in quarantine.
    pub quarantines: u32,
    /// Faults by reason.
    pub faults: Vec<(&'static str, u64)>,
    /// The last of them, as a sentence.
    pub last_fault: Option<String>,
    /// The most fuel that a pick took, of those that were looked at: one in 16.
    pub worst_fuel: u64,
    /// What it may take.
    pub budget: u64,
    /// Memory of all its instances, in bytes.
    pub memory_bytes: usize,
    /// Its instances: one for each worker, unless one is being replaced.
    pub instances: usize,
}

impl Standing {
    pub(super) fn new(recipe: &Recipe, conduct: &Conduct) -> Self {
        Standing {
            version: recipe.version.clone(),
            options: recipe.options.clone(),
            trust: conduct.trust(),
            quarantines: conduct.quarantines(),
            faults: conduct.faults(),
            last_fault: conduct.last(),
            worst_fuel: 0,
            budget: 0,
            memory_bytes: 0,
            instances: 0,
        }
    }

    pub(super) fn add(&mut self, runner: &Runner) {
        self.worst_fuel = self.worst_fuel.max(runner.worst_fuel());
        self.budget = self.budget.max(runner.budget());
        self.memory_bytes += runner.memory_bytes();
        self.instances += usize::from(!runner.is_broken);
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A fault that was served by the native scheduler.
    Fault,
    /// It is not asked for a while.
    Quarantined,
    /// It is not asked any more.
    Stopped,
    /// It is asked again.
    Released,
    /// It wrote a line to its log.
    Said,
}

/// Something that a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in milliseconds of the engine's time.
    pub at_ms: u64,
    /// What kind.
    pub kind: EventKind,
    /// What, as a sentence.
    pub text: String,
}

/// Events that wait.
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<Vec<Event>>);

impl Events {
    pub(super) fn push(&self, at_ms: u64, kind: EventKind, text: String) {
        let waiting = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(Event { at_ms, kind, text });
        }
    }

    /// A misdeed, and what followed from it.
    pub(super) fn misdeed(&self, at_ms: u64, text: String, trust: Option<Trust>) {
        match trust {
            None | Some(Trust::Live) => self.push(at_ms, EventKind::Fault, text),
            Some(Trust::Quarantined { until_ms }) => {
                let seconds = until_ms.saturating_sub(at_ms) / 1000;
                self.push(at_ms, EventKind::Quarantined, format!("{text}; not asked for {seconds} s"));
            }
            Some(Trust::Stopped) => {
                self.push(at_ms, EventKind::Stopped, format!("{text}; not asked any more until `xvs scheduler retry`"));
            }
        }
    }

    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
