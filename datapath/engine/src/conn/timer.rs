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
/// Above them a count of packets, which ends at its largest value.
const PACKETS_BITS: u32 = 4;
const PACKET: u64 = 1 << TIMEOUT_BITS;
const PACKETS: u64 = ((1 << PACKETS_BITS) - 1) << TIMEOUT_BITS;
/// That value: one more than the last that makes a difference (`drop_entry`, IPVS's `todrop_entry`).
const COUNTED: u64 = 9 << TIMEOUT_BITS;
/// Above them the milliseconds of the last packet: eight years.
const MILLIS_SHIFT: u32 = TIMEOUT_BITS + PACKETS_BITS;

/// A timer as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer(pub(super) u64);

impl Timer {
    /// Milliseconds until it expires; 0 if it has.
    #[inline(always)]
    fn left(self, now: Now) -> u64 {
        let end = (self.0 >> MILLIS_SHIFT) + (self.0 & TIMEOUT_MASK) * 1000;
        end.saturating_sub(now.millis())
    }

    /// Has it expired?
    #[inline(always)]
    pub(crate) fn is_over(self, now: Now) -> bool {
        self.left(now) == 0
    }

    /// What it is after a packet, which counts if the client has sent it. It is started again once a second, or sixteen times
    /// in a shorter timeout, and by the first packets; else it is as it was. Timeouts beyond [`MAX_S`] do not come here.
    #[inline(always)]
    pub(crate) fn restarted(self, now: Now, timeout_s: u32, from_client: bool) -> Self {
        let Timer(old) = self;
        let (timeout, last) = (u64::from(timeout_s), old >> MILLIS_SHIFT);
        let counts = from_client && old & PACKETS < COUNTED;
        let is_stale = || {
            let is_short = timeout < 16 && last + (timeout * 1000).div_ceil(16) <= now.millis();
            last + 1000 <= now.millis() || old & TIMEOUT_MASK != timeout || is_short
        };
        if !counts && !is_stale() {
            return self;
        }
        let packets = (old & PACKETS) + if counts { PACKET } else { 0 };
        Timer(now.millis() << MILLIS_SHIFT | packets | timeout)
    }
}

/// The word of a timer that its client's first packet has started.
#[inline(always)]
pub(super) fn after_one(now: Now, timeout_s: u32) -> u64 {
    now.millis() << MILLIS_SHIFT | PACKET | u64::from(timeout_s).min(TIMEOUT_MASK)
}

impl Conn<'_> {
    fn timer(&self) -> Timer {
        Timer(self.tail(tail::TIME).load(Relaxed))
    }

    /// Starts the timer of an entry that is being made; no packet is counted yet.
    pub(super) fn set_timer(&self, now: Now, timeout_s: u32) {
        self.tail(tail::TIME).store(now.millis() << MILLIS_SHIFT | u64::from(timeout_s.min(MAX_S)), Relaxed);
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
        ((self.timer().0 & PACKETS) >> TIMEOUT_BITS) as u32
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
        Now::from_millis(self.timer().0 >> MILLIS_SHIFT)
    }
}
