//! The timer of a connection: when its last packet came by, and how long it lives without another.
//!
//! Both stand in one word, so no reader sees one without the other. Invariant: written at most once a second for a
//! connection that talks (its line stays shared between caches). Not here: how long the timeouts are
//! ([`super::timeouts`]), and who ends what has expired ([`super::table`]).

use std::sync::atomic::Ordering::Relaxed;

use crate::time::Now;

use super::entry::{Conn, tail};

/// Bits of the time word that hold the timeout in seconds.
const TIMEOUT_BITS: u32 = 24;
const TIMEOUT_MASK: u64 = (1 << TIMEOUT_BITS) - 1;
impl Conn<'_> {
    /// Starts the timer of an entry that is being made.
    pub(super) fn set_timer(&self, now: Now, timeout_s: u32) {
        self.tail(tail::TIME).store(now.millis() << TIMEOUT_BITS | u64::from(timeout_s).min(TIMEOUT_MASK), Relaxed);
    }

    /// A packet came by: the timer starts again, with this timeout. Writes at most once a second, or sixteen times in
    /// a shorter timeout.
    #[inline]
    pub fn touch(&self, now: Now, timeout_s: u32) {
        let word = self.tail(tail::TIME);
        let old = word.load(Relaxed);
        let timeout = u64::from(timeout_s).min(TIMEOUT_MASK);
        let grain = 1000.min(timeout * 1000 / 16);
        if old & TIMEOUT_MASK != timeout || now.millis().saturating_sub(old >> TIMEOUT_BITS) >= grain {
            word.store(now.millis() << TIMEOUT_BITS | timeout, Relaxed);
        }
    }

    /// The timer starts again, with the timeout that it has.
    pub fn rearm(&self, now: Now) {
        self.touch(now, (self.tail(tail::TIME).load(Relaxed) & TIMEOUT_MASK) as u32);
    }

    /// Milliseconds until it expires; 0 if it has.
    #[inline]
    pub fn expires_in(&self, now: Now) -> u64 {
        let word = self.tail(tail::TIME).load(Relaxed);
        let end = (word >> TIMEOUT_BITS) + (word & TIMEOUT_MASK) * 1000;
        end.saturating_sub(now.millis())
    }

    /// When the last packet came by, to the second.
    pub fn last_seen(&self) -> Now {
        Now::from_millis(self.tail(tail::TIME).load(Relaxed) >> TIMEOUT_BITS)
    }
}
