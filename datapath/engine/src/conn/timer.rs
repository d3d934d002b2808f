//! The timer of a connection: when its last packet came by, how long it lives without another, and how many its client
//! has sent, as far as anybody asks.
//!
//! All stand in one word, so no reader sees one without the others, and one plain store sets them. Invariant: written at
//! most once a second for a connection that talks (its line stays shared between caches), after its first packets. Two
//! workers that write at once lose a packet's count, or a moment; nothing else is in the word. Not here: how long the
//! timeouts are ([`super::timeouts`]), and who ends what has expired ([`super::table`]).

use std::sync::atomic::Ordering::Relaxed;

use crate::time::Now;

use super::entry::{Conn, tail};

/// Bits of the time word that hold the timeout in seconds.
const TIMEOUT_BITS: u32 = 22;
const TIMEOUT_MASK: u64 = MAX_S as u64;
/// The longest timeout in seconds: 48 days.
pub(super) const MAX_S: u32 = (1 << TIMEOUT_BITS) - 1;
/// Above them the milliseconds of the last packet: eight years.
const MILLIS_BITS: u32 = 38;
const MILLIS_MASK: u64 = (1 << MILLIS_BITS) - 1;
/// Above them how many packets were counted, plus one; or 0 if no more are counted and the timeout is not [short](SHORT_S).
const PACKETS_SHIFT: u32 = TIMEOUT_BITS + MILLIS_BITS;
/// As many are counted: one more than the last that makes a difference (`drop_entry`, IPVS's `todrop_entry`).
const COUNTED: u64 = 9;

/// A packet starts a timer again that has run for so long;
const RESTART_MS: u64 = 1000;
/// and sooner, if its timeout is shorter than so many seconds.
const SHORT_S: u64 = 16;

/// A timer as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer(pub(super) u64);

impl Timer {
    /// A timer that starts now, of so many seconds, after so many packets: at most [`COUNTED`].
    #[inline(always)]
    fn new(now: Now, packets: u64, timeout: u64) -> Self {
        let packets = if packets == COUNTED && timeout >= SHORT_S { 0 } else { packets + 1 };
        Timer(packets << PACKETS_SHIFT | (now.millis() & MILLIS_MASK) << TIMEOUT_BITS | timeout)
    }

    /// Packets that were counted.
    #[inline(always)]
    fn packets(self) -> u64 {
        (self.0 >> PACKETS_SHIFT).checked_sub(1).unwrap_or(COUNTED)
    }

    /// Milliseconds of the last packet.
    #[inline(always)]
    fn last(self) -> u64 {
        self.0 >> TIMEOUT_BITS & MILLIS_MASK
    }

    /// Milliseconds until it expires; 0 if it has.
    #[inline(always)]
    fn left(self, now: Now) -> u64 {
        let end = self.last() + (self.0 & TIMEOUT_MASK) * 1000;
        end.saturating_sub(now.millis())
    }

    /// Has it expired?
    #[inline(always)]
    pub(crate) fn is_over(self, now: Now) -> bool {
        self.left(now) == 0
    }

    /// Would a packet leave it as it is, whoever sent it? So it is within a second of its start, if that is short against its
    /// timeout and nobody counts packets any more. (A timeout that was changed meanwhile begins with the next start.)
    #[inline(always)]
    pub(crate) fn is_fresh(self, now: Now) -> bool {
        // One comparison: all bits of now's timeout are set, so that none is borrowed from its milliseconds, and a count that
        // is not 0 makes a large number.
        (now.millis() << TIMEOUT_BITS | TIMEOUT_MASK).wrapping_sub(self.0) < RESTART_MS << TIMEOUT_BITS
    }

    /// What it is after a packet, which counts if the client has sent it. It is started again once a second, or sixteen times
    /// in a shorter timeout, and by the first packets; else it is as it was. Timeouts beyond [`MAX_S`] do not come here.
    #[inline(always)]
    pub(crate) fn restarted(self, now: Now, timeout_s: u32, from_client: bool) -> Self {
        let (timeout, last) = (u64::from(timeout_s), self.last());
        let counts = from_client && self.packets() < COUNTED;
        let is_stale = || {
            let is_short = timeout < SHORT_S && last + (timeout * 1000).div_ceil(16) <= now.millis();
            last + RESTART_MS <= now.millis() || self.0 & TIMEOUT_MASK != timeout || is_short
        };
        if !counts && !is_stale() {
            return self;
        }
        Timer::new(now, self.packets() + u64::from(counts), timeout)
    }
}

/// The word of a timer that its client's first packet has started.
#[inline(always)]
pub(super) fn after_one(now: Now, timeout_s: u32) -> u64 {
    Timer::new(now, 1, u64::from(timeout_s).min(TIMEOUT_MASK)).0
}

impl Conn<'_> {
    fn timer(&self) -> Timer {
        Timer(self.tail(tail::TIME).load(Relaxed))
    }

    /// Starts the timer of an entry that is being made; no packet is counted yet.
    pub(super) fn set_timer(&self, now: Now, timeout_s: u32) {
        self.tail(tail::TIME).store(Timer::new(now, 0, timeout_s.min(MAX_S).into()).0, Relaxed);
    }

    /// A packet came by: the timer starts again, with this timeout. Writes at most once a second, or sixteen times in
    /// a shorter timeout.
    #[inline]
    pub fn touch(&self, now: Now, timeout_s: u32) {
        self.restart(now, timeout_s, false);
    }

    /// The same for a packet from the client, which is counted.
    #[inline]
    pub fn touch_by_client(&self, now: Now, timeout_s: u32) {
        self.restart(now, timeout_s, true);
    }

    #[inline(always)]
    fn restart(&self, now: Now, timeout_s: u32, from_client: bool) {
        let old = self.timer();
        let new = old.restarted(now, timeout_s.min(MAX_S), from_client);
        if new != old {
            self.tail(tail::TIME).store(new.0, Relaxed);
        }
    }

    /// Packets from the client, as far as they were counted: up to 9; nobody asks for more.
    pub fn packets(&self) -> u32 {
        self.timer().packets() as u32
    }

    /// The timer starts again, with the timeout that it has.
    pub fn rearm(&self, now: Now) {
        self.touch(now, (self.timer().0 & TIMEOUT_MASK) as u32);
    }

    /// Milliseconds until it expires; 0 if it has.
    #[inline]
    pub fn expires_in(&self, now: Now) -> u64 {
        self.timer().left(now)
    }

    /// When the last packet came by, to the second.
    pub fn last_seen(&self) -> Now {
        Now::from_millis(self.timer().last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A packet that finds a fresh timer need not look further: it has not expired, and it would stay as it is.
        #[test]
        fn a_fresh_timer_stays_as_it_is(
            last in 0..5000u64, age in prop_oneof![0..1200u64, 0..100_000u64], packets in 0..=COUNTED,
            timeout in prop_oneof![0..20u32, 0..=MAX_S], from_client: bool,
        ) {
            let timer = Timer::new(Now::from_millis(last), packets, timeout.into());
            let now = Now::from_millis(last + age);
            let stays = !timer.is_over(now) && timer.restarted(now, timeout, from_client) == timer;
            prop_assert!(stays || !timer.is_fresh(now));
            // Nor does it look further where it need not.
            prop_assert_eq!(timer.is_fresh(now), age < 1000 && packets == 9 && timeout >= 16);
            // What follows is as it was told.
            prop_assert_eq!((timer.packets(), timer.0 & TIMEOUT_MASK), (packets, timeout.into()));
            prop_assert_eq!(timer.left(now), (last + u64::from(timeout) * 1000).saturating_sub(last + age));
        }
    }
}
