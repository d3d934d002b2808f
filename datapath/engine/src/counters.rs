//! What a worker counts: one writer, any reader.
//!
//! Invariant: only the owning worker writes, so a count is a plain load, add and store (no locked instruction), and
//! readers see each value whole. Totals of a service or of the director are sums that the reader makes.

mod at_hand;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) use self::at_hand::{AtHand, Way};
use crate::drop::{DropReason, REASONS};
use crate::lines::Lines;
use crate::real::RealId;

/// A count with a single writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only the owner may.
    #[inline]
    pub fn add(&self, value: u64) {
        bump(&self.0, value);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets a value that is measured elsewhere (a gauge).
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

#[inline(always)]
fn bump(word: &AtomicU64, value: u64) {
    word.store(word.load(Relaxed).wrapping_add(value), Relaxed);
}

/// A real server's share of traffic, as IPVS counts it: bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.conns += other.conns;
        self.in_packets += other.in_packets;
        self.out_packets += other.out_packets;
        self.in_bytes += other.in_bytes;
        self.out_bytes += other.out_bytes;
    }
}

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        /// What one worker counts.
        #[derive(Debug)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Count,)+
            drops: [Count; REASONS],
            reals: Lines,
        }

        impl Counters {
            /// Counters for an arena of this many real servers; and of nobody, behind them, which are not told.
            pub fn new(reals: usize) -> Self {
                Counters {
                    $($name: Count::default(),)+
                    drops: std::array::from_fn(|_| Count::default()),
                    reals: Lines::new(reals + 1),
                }
            }

            /// Name, value and meaning of each count.
            pub fn named(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$((stringify!($name), self.$name.get(), concat!($($doc),+).trim_ascii()),)+]
            }
        }
    };
}

counts! {
    /// Frames received from all interfaces.
    received;
    /// Frames given to the kernel for transmission.
    transmitted;
    /// Packets from clients that were forwarded to a real server.
    inbound;
    /// Packets of real servers that were forwarded to their clients (NAT).
    outbound;
    /// ICMP errors that were forwarded to the peer they concern.
    related;
    /// ICMP errors that the director sent itself.
    icmp_sent;
    /// TCP resets that the director sent to clients of no connection.
    resets_sent;
    /// Connections made.
    opened;
    /// Templates of persistence made.
    templates;
    /// Packets that were scheduled each by itself (one-packet scheduling).
    one_packet;
    /// Connections, and packets by themselves, that real servers began (`--pe sip`).
    outward;
    /// Packets from clients that were forwarded to their own destination, because no server was there (`cache_bypass`).
    bypassed;
    /// Connections that timed out.
    expired;
    /// Half-open connections that gave way in a full table.
    evicted;
    /// Packets whose partial checksum (left by a virtual sender for its hardware) was completed.
    checksums_completed;
    /// SYNs whose MSS was lowered to what fits the tunnel.
    mss_clamped;
    /// Packets that waited for the MAC of their next hop.
    held;
    /// Later fragments that waited for their first one.
    fragments_held;
    /// Frames that wait now, for a MAC or for a first fragment.
    waiting;
    /// Packets that were too large for their way and were cut into fragments.
    split;
    /// Fragments that such packets were cut into.
    fragments_made;
    /// Packets that were dropped, for any reason.
    dropped;
    /// Turns of the worker that found no packet.
    idle;
    /// Turns of the worker.
    breaths;
}

impl Counters {
    /// A packet was dropped.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.dropped.add(1);
        self.drops[reason as usize].add(1);
    }

    /// Packets dropped for a reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// What is at hand of this server.
    #[inline(always)]
    pub(crate) fn at_hand(&self, real: RealId) -> AtHand<'_> {
        AtHand(self.reals.line(real.0 as usize))
    }

    /// A server's traffic through this worker.
    pub fn real(&self, real: RealId) -> Traffic {
        let [conns, in_packets, in_bytes, out_packets, out_bytes] = self.at_hand(real).counts();
        Traffic { conns, in_packets, in_bytes, out_packets, out_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics are keyed by name, and each explains itself; a real server's words do not run into its neighbour's.
    #[test]
    fn counts_stay_apart() {
        let counters = Counters::new(3);
        counters.at_hand(RealId(1)).count_conn();
        counters.at_hand(RealId(1)).count_in(100);
        counters.at_hand(RealId(1)).count_out(40);
        counters.at_hand(RealId(1)).count_in(60);
        let expected = Traffic { conns: 1, in_packets: 2, in_bytes: 160, out_packets: 1, out_bytes: 40 };
        assert_eq!(counters.real(RealId(1)), expected);
        assert_eq!((counters.real(RealId(0)), counters.real(RealId(2))), Default::default());
        let mut sum = expected;
        sum += expected;
        assert_eq!((sum.conns, sum.in_packets, sum.in_bytes, sum.out_packets, sum.out_bytes), (2, 4, 320, 2, 80));

        let mut names: Vec<_> = counters.named().into_iter().map(|(name, _, _)| name).collect();
        assert!(counters.named().iter().all(|(_, value, help)| *value == 0 && help.ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), counters.named().len());
    }

    /// A drop counts in the sum and for its reason, and for no other.
    #[test]
    fn drops_count_by_reason() {
        let counters = Counters::new(0);
        for &reason in DropReason::ALL {
            counters.count_drop(reason);
        }
        counters.count_drop(DropReason::NoRoute);
        assert_eq!(counters.dropped.get(), REASONS as u64 + 1);
        assert_eq!((counters.drops(DropReason::NoRoute), counters.drops(DropReason::Method)), (2, 1));
    }
}
