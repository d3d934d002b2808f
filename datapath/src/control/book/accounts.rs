//! What the book tells of traffic: counters since the last zeroing, and rates.
//!
//! Invariant: while no rates are made (`run_estimation`), counters are those of the last sample, as in IPVS.

use xvs_engine::real::RealId;

use super::super::entry::Entry;
use super::super::protocol::{self, Refusal, RefusalKind, ServiceId};
use super::{Book, no_such_service};

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
        if !self.settings.estimates() {
            return;
        }
        let Book { entries, counters, totals, .. } = self;
        entries.values_mut().for_each(|entry| entry.sample(counters));
        totals.sample(entries.values().map(|entry| entry.traffic(counters)));
        self.tell_rates();
    }

    /// A service as it is, for a listing. `path` tells how packets reach a server.
    pub fn view(&self, entry: &Entry, path: impl Fn(RealId) -> String) -> protocol::Service {
        entry.view(&self.shared.arena, &self.counters, self.settings.estimates(), path)
    }

    /// Counters and rates of all traffic, that of services that are gone included.
    pub fn totals(&self) -> protocol::Stats {
        let live = self.settings.estimates();
        self.totals.stats(live, self.entries().map(|entry| entry.traffic(&self.counters)))
    }
}
