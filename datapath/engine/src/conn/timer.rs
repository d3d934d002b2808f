//! The timer of a connection: when its last packet came by, how long it lives without another, and how many its client
//! has sent, as far as anybody asks.
//!
//! All stand in one word, so no reader sees one without the others, and one plain store sets them. Invariant: written at
//! most once a second for a connection that talks (its line stays shared between caches), after its first packets. Two
//! workers that write at once lose a packet's count, or a moment; nothing else is in the word. Not here: how long the
//! timeouts are ([`super::timeouts`]), and who ends what has expired ([`super::table`]).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Now;

use super::entry::{Conn, tail};

/// Bits of the time word that hold the timeout in seconds: 48 days.
const TIMEOUT_BITS: u32 = 22;
const TIMEOUT_MASK: u64 = (1 << TIMEOUT_BITS) - 1;
/// Above them a count of packets, which ends at its largest value.
const PACKETS_BITS: u32 = 4;
const PACKET: u64 = 1 << TIMEOUT_BITS;
const PACKETS: u64 = ((1 << PACKETS_BITS) - 1) << TIMEOUT_BITS;
/// Above them the milliseconds of the last packet: eight years.
const MILLIS_SHIFT: u32 = TIMEOUT_BITS + PACKETS_BITS;

/// Milliseconds until a timer with this word expires; 0 if it has.
#[inline(always)]
pub(super) fn left(word: u64, now: Now) -> u64 {
    let end = (word >> MILLIS_SHIFT) + (word & TIMEOUT_MASK) * 1000;
    end.saturating_sub(now.millis())
}

/// Starts a timer again, and counts the packet if its client has sent it. Writes at most once a second, or sixteen times in
/// a shorter timeout, and for the first packets.
#[inline(always)]
pub(super) fn restart(word: &AtomicU64, now: Now, timeout_s: u32, from_client: bool) {
    let old = word.load(Relaxed);
    let timeout = u64::from(timeout_s).min(TIMEOUT_MASK);
    let elapsed = now.millis().saturating_sub(old >> MILLIS_SHIFT);
    let counts = from_client && old & PACKETS != PACKETS;
    let is_stale = old & TIMEOUT_MASK != timeout || elapsed >= 1000 || elapsed * 16 >= timeout * 1000;
    if counts || is_stale {
        let packets = (old & PACKETS) + if counts { PACKET } else { 0 };
        word.store(now.millis() << MILLIS_SHIFT | packets | timeout, Relaxed);
    }
}

/// The word of a timer that its client's first packet has started.
#[inline(always)]
pub(super) fn after_one(now: Now, timeout_s: u32) -> u64 {
    now.millis() << MILLIS_SHIFT | PACKET | u64::from(timeout_s).min(TIMEOUT_MASK)
}

impl Conn<'_> {
    /// Starts the timer of an entry that is being made; no packet is counted yet.
    pub(super) fn set_timer(&self, now: Now, timeout_s: u32) {
        self.tail(tail::TIME).store(now.millis() << MILLIS_SHIFT | u64::from(timeout_s).min(TIMEOUT_MASK), Relaxed);
    }

    /// A packet came by: the timer starts again, with this timeout. Writes at most once a second, or sixteen times in
    /// a shorter timeout.
    #[inline]
    pub fn touch(&self, now: Now, timeout_s: u32) {
        restart(self.tail(tail::TIME), now, timeout_s, false);
    }

    /// The same for a packet from the client, which is counted.
    #[inline]
    pub fn touch_by_client(&self, now: Now, timeout_s: u32) {
        restart(self.tail(tail::TIME), now, timeout_s, true);
    }

    /// Packets from the client, as far as they were counted: up to 15; nobody asks for more.
    pub fn packets(&self) -> u32 {
        ((self.tail(tail::TIME).load(Relaxed) & PACKETS) >> TIMEOUT_BITS) as u32
    }

    /// The timer starts again, with the timeout that it has.
    pub fn rearm(&self, now: Now) {
        self.touch(now, (self.tail(tail::TIME).load(Relaxed) & TIMEOUT_MASK) as u32);
    }

    /// Milliseconds until it expires; 0 if it has.
    #[inline]
    pub fn expires_in(&self, now: Now) -> u64 {
        left(self.tail(tail::TIME).load(Relaxed), now)
    }

    /// When the last packet came by, to the second.
    pub fn last_seen(&self) -> Now {
        Now::from_millis(self.tail(tail::TIME).load(Relaxed) >> MILLIS_SHIFT)
    }
}
