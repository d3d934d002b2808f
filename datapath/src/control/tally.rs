//! What is told of traffic: counts since the last `-Z`, and rates.
//!
//! The workers count by server record, for ever. A [`Tally`] keeps what was there at the last zeroing and the rates
//! since. Invariant: it changes no counter, and what it tells never goes backwards but by [`Tally::zero`].

use std::sync::Arc;

use xvs_engine::counters::{Counters, Traffic};
use xvs_engine::real::RealId;

use super::estimate::{Estimator, difference};
use super::protocol::Stats;

/// The baseline and rates of one service or server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    zero: Traffic,
    rates: Estimator,
}

impl Tally {
    /// Counts and rates for a listing; `now` is all traffic ever.
    pub(super) fn stats(&self, now: Traffic) -> Stats {
        self.rates.stats(difference(now, self.zero))
    }

    /// Counting begins again.
    pub(super) fn zero(&mut self, now: Traffic) {
        *self = Tally { zero: now, rates: Estimator::starting_at(now) };
    }

    /// The rates begin again, after a time without samples.
    pub(super) fn resume(&mut self, now: Traffic) {
        self.rates = Estimator::starting_at(now);
    }

    /// All traffic at the last sample.
    pub(super) fn sampled(&self) -> Traffic {
        self.rates.last()
    }

    /// A sample for the rates.
    pub(super) fn sample(&mut self, now: Traffic) {
        self.rates.sample(now);
    }
}

/// A record's traffic through all workers.
pub(super) fn of_record(counters: &[Arc<Counters>], real: RealId) -> Traffic {
    counters.iter().fold(Traffic::default(), |mut sum, counters| {
        sum += counters.real(real);
        sum
    })
}
