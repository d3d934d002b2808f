//! What one worker uses of a service's plugin: the live runner, the candidate's, and its own counts.
//!
//! Invariant: only its worker and, for a moment, the control side hold it. A runner that broke stays until the control
//! side replaces it, and is not asked.

use xvs_engine::real::{Arena, RealId};
use xvs_engine::sched::guest::Advice;
use xvs_sdk::Request;

use super::compare::Tally;
use super::conduct::{Conduct, Misdeed};
use super::runner::Runner;

/// How a candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It is asked about one new connection in so many, and its answer only counted.
    Shadow {
        /// 1 is every connection.
        one_in: u32,
    },
    /// This share of new connections goes where it says.
    Canary {
        /// Of a thousand.
        per_mille: u32,
    },
}

/// A candidate in its seat.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) runner: Option<Runner>,
    pub(super) trial: Trial,
    pub(super) tally: Tally,
    /// New connections since the shadow was last asked.
    count: u32,
}

impl Candidate {
    pub(super) fn new(runner: Runner, trial: Trial) -> Self {
        let mut tally = Tally::default();
        tally.make_room(runner.list().0);
        Candidate { runner: Some(runner), trial, tally, count: 0 }
    }

    /// Does this connection go by it?
    pub(super) fn takes(&self, request: &Request) -> bool {
        match self.trial {
            Trial::Shadow { .. } => false,
            // Other bits than those that choose a bucket of a table.
            Trial::Canary { per_mille } => (request.hash >> 20) % 1000 < u64::from(per_mille),
        }
    }

    /// Is the shadow to be asked about this connection?
    pub(super) fn samples(&mut self) -> bool {
        let Trial::Shadow { one_in } = self.trial else { return false };
        self.count += 1;
        let now = self.count >= one_in;
        if now {
            self.count = 0;
        }
        now
    }
}

/// One worker's seat.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) live: Option<Runner>,
    pub(super) candidate: Option<Candidate>,
    /// New connections that a plugin chose for.
    pub(super) picks: u64,
    /// New connections that were left to the native scheduler.
    pub(super) fallback: u64,
    /// Picks that were no usable server any more.
    pub(super) overruled: u64,
}

impl Seat {
    /// Both runners.
    pub(super) fn runners(&mut self) -> impl Iterator<Item = &mut Runner> {
        let candidate = self.candidate.as_mut().and_then(|candidate| candidate.runner.as_mut());
        self.live.iter_mut().chain(candidate)
    }

    /// The candidate's runner.
    pub(super) fn candidate(&mut self) -> Option<&mut Runner> {
        self.candidate.as_mut().and_then(|candidate| candidate.runner.as_mut())
    }
}

/// Asks a runner, if it may be asked. `Err` is what it did wrong.
#[inline]
pub(super) fn ask(
    runner: &mut Option<Runner>,
    conduct: &Conduct,
    arena: &Arena,
    request: &Request,
) -> Result<Advice, Option<Box<Misdeed>>> {
    match runner {
        Some(runner) if conduct.is_live() && !runner.is_broken => runner.ask(arena, request).map_err(Some),
        _ => Err(None),
    }
}

/// The server of an advice; what is left to the native scheduler is nobody's.
pub(super) fn server(advice: Advice) -> Option<RealId> {
    match advice {
        Advice::Real(id) => Some(id),
        Advice::Nobody | Advice::Native => None,
    }
}
