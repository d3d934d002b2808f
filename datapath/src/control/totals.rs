//! All traffic of the director together: that of its services, and of those that are gone.
//!
//! Invariant: deleting a service or a server takes nothing away from it, and bringing one back counts nothing twice.

use xvs_engine::counters::Traffic;

use super::protocol::Stats;
use super::tally::Tally;

/// The traffic of everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Of services that are gone.
    gone: Traffic,
    tally: Tally,
}

impl Totals {
    /// A service goes, with this traffic.
    pub(super) fn retire(&mut self, service: Traffic) {
        self.gone += service;
    }

    fn sum(&self, services: impl Iterator<Item = Traffic>) -> Traffic {
        services.fold(self.gone, |mut sum, traffic| {
            sum += traffic;
            sum
        })
    }

    /// Counts and rates, with this traffic of those services that are there; if they are not `live`, as of the last
    /// sample.
    pub(super) fn stats(&self, live: bool, services: impl Iterator<Item = Traffic>) -> Stats {
        self.tally.stats(if live { self.sum(services) } else { self.tally.sampled() })
    }

    /// A sample for the rates.
    pub(super) fn sample(&mut self, services: impl Iterator<Item = Traffic>) {
        self.tally.sample(self.sum(services));
    }

    /// Counting begins again.
    pub(super) fn zero(&mut self, services: impl Iterator<Item = Traffic>) {
        self.tally.zero(self.sum(services));
    }
}
