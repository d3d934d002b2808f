//! What the book tells of traffic: counters since the last zeroing, and rates.
//!
//! Invariant: while no rates are made (`run_estimation`), counters are those of the last sample, as in IPVS.

use xvs_engine::counters::Traffic;
use xvs_engine::real::RealId;

use super::super::entry::Entry;
use super::super::protocol::{self, Refusal, RefusalKind, ServiceId};
use super::{Book, no_such_service, plugins};

impl Book {
    /// Zeroes the counters of one service, or of all.
    ///
    /// # Errors
    /// There is no such service.
    pub fn zero(&mut self, id: Option<&ServiceId>) -> Result<(), Refusal> {
        let Book { entries, numbers, counters, totals, .. } = self;
        match id {
            None => {
                entries.values_mut().for_each(|entry| entry.zero(counters));
                totals.zero(entries.values().map(|entry| entry.traffic(counters)));
            }
            Some(id) => {
                let entry = numbers.get(id).and_then(|number| entries.get_mut(number));
                entry.ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))?.zero(counters);
            }
        }
        Ok(())
    }

    /// Takes a sample for the rates, every [`PERIOD_S`](crate::control::estimate::PERIOD_S) seconds, if rates are made.
    pub fn sample(&mut self) {
        self.begin_sample();
        while self.go_on_sampling(usize::MAX) {}
    }

    /// Begins to take a sample, which [`go_on_sampling`](Book::go_on_sampling) carries out; unless one is still on its way.
    pub fn begin_sample(&mut self) {
        if self.settings.estimates() && self.sampling.begin() {
            self.totals.begin_sample();
        }
    }

    /// Samples services with about so many servers, and tells plugins the rates of theirs. True if there is more to do.
    pub fn go_on_sampling(&mut self, mut servers: usize) -> bool {
        let live = self.settings.estimates();
        let Book { entries, counters, totals, sampling, shared, .. } = self;
        let Some(from) = sampling.next().filter(|_| live) else { return sampling.stop(None) };
        for (number, entry) in entries.range_mut(from..) {
            if servers == 0 {
                return sampling.stop(Some(*number));
            }
            totals.pass(entry.sample(counters));
            plugins::announce(entry, &shared.arena, counters);
            servers = servers.saturating_sub(1 + entry.members.len());
        }
        totals.end_sample();
        sampling.stop(None)
    }

    /// A service as it is, for a listing. `path` tells how packets reach a server.
    pub fn view(&self, entry: &Entry, path: impl Fn(RealId) -> String) -> protocol::Service {
        entry.view(&self.shared.arena, &self.counters, self.settings.estimates(), path)
    }

    /// Counters and rates of all traffic as of the last sample, that of services that are gone included.
    pub fn sampled_totals(&self) -> protocol::Stats {
        self.totals.stats(false, Traffic::default())
    }
}
