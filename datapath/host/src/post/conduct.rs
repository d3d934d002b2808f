//! How a plugin behaves, and what follows: strikes, quarantine, and the end of patience.
//!
//! Three strikes within a minute, or one exhausted budget, and no worker asks the plugin for a while: 1 second, then 10,
//! then 100. After the third time it stays away until a person lets it back. A clean ten minutes are forgiven.
//!
//! Invariant: a worker sees the verdict at its next pick, whichever worker's pick led to it. Counters only grow.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Fault;

/// Strikes within this many milliseconds add up.
const WINDOW_MS: u64 = 60_000;
/// So many of them are too many.
const STRIKES: usize = 3;
/// The first quarantine; each further one is ten times as long.
const FIRST_MS: u64 = 1_000;
/// After so many quarantines it is over.
const PATIENCE: u32 = 3;
/// After so long without a fault, earlier quarantines are forgiven.
const FORGIVEN_MS: u64 = 600_000;

/// What a plugin did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// It did not come to an end by itself.
    Fault(Fault),
    /// It named a slot that there is not.
    BadIndex,
    /// It named a server that it was told is not usable.
    Unusable,
    /// It found nobody although a server is usable, and never said that it may.
    Denied,
}

impl Misdeed {
    /// Its name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Misdeed::Fault(fault) => fault.reason(),
            Misdeed::BadIndex => "bad_index",
            Misdeed::Unusable => "unusable",
            Misdeed::Denied => "denied",
        }
    }
}

impl std::fmt::Display for Misdeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misdeed::Fault(fault) => fault.fmt(f),
            Misdeed::BadIndex => f.write_str("it named a slot beyond the list of servers"),
            Misdeed::Unusable => f.write_str("it named a server that is quiesced or at its threshold"),
            Misdeed::Denied => {
                f.write_str("it found no server although one is usable, and does not declare NEEDS_DENY")
            }
        }
    }
}

/// Is it asked?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Yes.
    Live,
    /// Not before this moment.
    Quarantined {
        /// In milliseconds of the engine's time.
        until_ms: u64,
    },
    /// Not before a person says so.
    Stopped,
}

const LIVE: u8 = 0;
const QUARANTINED: u8 = 1;
const STOPPED: u8 = 2;

/// One plugin's conduct at one service, in the eyes of all workers.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    state: AtomicU8,
    until_ms: AtomicU64,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    strikes: Vec<u64>,
    quarantines: u32,
    last_ms: u64,
    last: Option<String>,
    faults: Vec<(&'static str, u64)>,
}

impl Conduct {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it asked now? One load.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.state.load(Relaxed) == LIVE
    }

    pub(super) fn trust(&self) -> Trust {
        match self.state.load(Relaxed) {
            LIVE => Trust::Live,
            QUARANTINED => Trust::Quarantined { until_ms: self.until_ms.load(Relaxed) },
            _ => Trust::Stopped,
        }
    }

    /// Notes a misdeed. Gives what it led to, if it changed anything.
    pub(super) fn note(&self, misdeed: &Misdeed, now_ms: u64) -> Option<Trust> {
        let mut record = self.record();
        let reason = misdeed.reason();
        match record.faults.iter_mut().find(|(name, _)| *name == reason) {
            Some((_, count)) => *count += 1,
            None => record.faults.push((reason, 1)),
        }
        record.last = Some(misdeed.to_string());
        if now_ms.saturating_sub(record.last_ms) > FORGIVEN_MS {
            record.quarantines = 0;
        }
        record.last_ms = now_ms;
        record.strikes.retain(|&then| now_ms.saturating_sub(then) < WINDOW_MS);
        record.strikes.push(now_ms);
        let is_enough = record.strikes.len() >= STRIKES || *misdeed == Misdeed::Fault(Fault::Budget);
        if !is_enough || !self.is_live() {
            return None;
        }
        record.strikes.clear();
        record.quarantines += 1;
        if record.quarantines > PATIENCE {
            self.state.store(STOPPED, Relaxed);
        } else {
            let until_ms = now_ms + FIRST_MS * 10u64.pow(record.quarantines - 1);
            self.until_ms.store(until_ms, Relaxed);
            self.state.store(QUARANTINED, Relaxed);
        }
        Some(self.trust())
    }

    /// It could not be made, or does not fit: not asked, tried again as after a misdeed.
    pub(super) fn fail(&self, fault: Fault, now_ms: u64) -> Option<Trust> {
        self.record().strikes.extend([now_ms; STRIKES - 1]);
        self.note(&Misdeed::Fault(fault), now_ms)
    }

    /// Is its time out over?
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        matches!(self.trust(), Trust::Quarantined { until_ms } if until_ms <= now_ms)
    }

    /// It is asked again.
    pub(super) fn release(&self) {
        self.state.store(LIVE, Relaxed);
    }

    /// Everything is forgiven.
    pub(super) fn pardon(&self) {
        let mut record = self.record();
        record.quarantines = 0;
        record.strikes.clear();
        self.release();
    }

    pub(super) fn quarantines(&self) -> u32 {
        self.record().quarantines
    }

    pub(super) fn faults(&self) -> Vec<(&'static str, u64)> {
        self.record().faults.clone()
    }

    pub(super) fn last(&self) -> Option<String> {
        self.record().last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two strikes are none, three within a minute are one quarantine, and strikes a minute apart never add up.
    #[test]
    fn strikes_add_up_within_a_minute() {
        let conduct = Conduct::default();
        for now_ms in [0, 59_999, 60_001, 120_100, 185_000] {
            assert_eq!(conduct.note(&Misdeed::BadIndex, now_ms), None, "at {now_ms}");
        }
        assert_eq!(conduct.note(&Misdeed::Unusable, 185_001), None);
        assert_eq!(conduct.note(&Misdeed::Denied, 185_002), Some(Trust::Quarantined { until_ms: 186_002 }));
        assert_eq!(conduct.faults(), [("bad_index", 5), ("unusable", 1), ("denied", 1)]);
    }

    /// One exhausted budget is enough; each quarantine is ten times as long; the fourth has no end but a person's word.
    #[test]
    fn patience_ends() {
        let conduct = Conduct::default();
        let budget = Misdeed::Fault(Fault::Budget);
        let mut now_ms = 0;
        for length in [1_000, 10_000, 100_000] {
            assert_eq!(conduct.note(&budget, now_ms), Some(Trust::Quarantined { until_ms: now_ms + length }));
            assert_eq!(conduct.note(&budget, now_ms), None, "another worker was still at it");
            assert!(!conduct.is_due(now_ms + length - 1));
            now_ms += length;
            assert!(conduct.is_due(now_ms));
            conduct.release();
        }
        assert_eq!(conduct.note(&budget, now_ms), Some(Trust::Stopped));
        assert!(!conduct.is_due(u64::MAX));
        conduct.pardon();
        assert!(conduct.is_live());
        assert_eq!(conduct.note(&budget, now_ms), Some(Trust::Quarantined { until_ms: now_ms + 1_000 }));
    }

    /// After ten clean minutes the next quarantine is a short one again.
    #[test]
    fn a_clean_time_is_forgiven() {
        let conduct = Conduct::default();
        let budget = Misdeed::Fault(Fault::Budget);
        for now_ms in [0, 20_000] {
            conduct.note(&budget, now_ms);
            conduct.release();
        }
        assert_eq!(conduct.note(&budget, 700_000), Some(Trust::Quarantined { until_ms: 701_000 }));
    }
}
