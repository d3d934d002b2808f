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
    /// Of those that the sample on its way has passed, and of those that were gone before it came to them.
    passed: Traffic,
    tally: Tally,
}

impl Totals {
    /// A service goes, with this traffic. `unpassed`: the sample on its way has not come to it.
    pub(super) fn retire(&mut self, service: Traffic, unpassed: bool) {
        self.gone += service;
        if unpassed {
            self.passed += service;
        }
    }

    fn sum(&self, services: impl Iterator<Item = Traffic>) -> Traffic {
        services.fold(self.gone, |mut sum, traffic| {
            sum += traffic;
            sum
        })
    }

    /// All traffic of services that are gone.
    pub(super) fn gone(&self) -> Traffic {
        self.gone
    }

    /// Counts and rates, if this is all traffic; if it is not `live`, as of the last sample.
    pub(super) fn stats(&self, live: bool, all: Traffic) -> Stats {
        self.tally.stats(if live { all } else { self.tally.sampled() })
    }

    /// A sample for the rates begins.
    pub(super) fn begin_sample(&mut self) {
        self.passed = self.gone;
    }

    /// It passes a service with this traffic.
    pub(super) fn pass(&mut self, service: Traffic) {
        self.passed += service;
    }

    /// It has passed all.
    pub(super) fn end_sample(&mut self) {
        self.tally.sample(self.passed);
    }

    /// Counting begins again.
    pub(super) fn zero(&mut self, services: impl Iterator<Item = Traffic>) {
        self.tally.zero(self.sum(services));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards rates and counts of everything: a service that goes while a sample is on its way counts once, whether the
    /// sample has come to it or not.
    #[test]
    fn a_service_that_goes_during_a_sample_counts_once() {
        let traffic = |conns| Traffic { conns, ..Traffic::default() };
        let mut totals = Totals::default();
        totals.retire(traffic(1), false);
        totals.begin_sample();
        totals.pass(traffic(10));
        totals.retire(traffic(10), false);
        totals.retire(traffic(100), true);
        totals.pass(traffic(1000));
        totals.end_sample();
        let sampled = totals.stats(false, Traffic::default());
        assert_eq!(sampled.conns, 1111);
        assert_eq!(totals.stats(true, totals.sum(std::iter::once(traffic(1000)))).conns, 1111);
    }
}
