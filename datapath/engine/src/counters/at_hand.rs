//! What a worker has at hand of a real server, in one line of its own: what it counts of it, and the way there as it was when it
//! last looked.
//!
//! Invariant: one writer. A way holds as long as nothing has changed that ways are made of, which its stamp tells
//! ([`Shared::changes`](crate::engine::Shared::changes)): who asks for it under another stamp gets none. Not here: where ways
//! come from.

use std::sync::atomic::Ordering::Relaxed;

use super::bump;
use crate::hop::{Exit, Port, Resolved};
use crate::lines::Line;

/// The words of a line.
mod word {
    pub(super) const CONNS: usize = 0;
    pub(super) const IN_PACKETS: usize = 1;
    pub(super) const IN_BYTES: usize = 2;
    pub(super) const OUT_PACKETS: usize = 3;
    pub(super) const OUT_BYTES: usize = 4;
    pub(super) const HEAD: usize = 5;
    pub(super) const REST: usize = 6; // mtu << 48 | port << 32 | tail
    pub(super) const STAMP: usize = 7;
}

/// The way of an untagged frame to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The first eight bytes of its MACs, as they stand in memory.
    head: u64,
    /// The largest IP packet << 48 | the device << 32 | the last four bytes.
    rest: u64,
}

impl Way {
    /// By a hop and out of an interface, for IP packets of at most so many bytes.
    pub(crate) fn new(hop: Resolved, exit: &Exit, mtu: usize) -> Self {
        let mut macs = [0; 12];
        hop.address(exit, &mut macs);
        let [head @ .., a, b, c, d] = macs;
        let tail = u32::from_ne_bytes([a, b, c, d]);
        // No IP packet is longer than its length can tell.
        let mtu = mtu.min(0xffff) as u64;
        Way { head: u64::from_ne_bytes(head), rest: mtu << 48 | u64::from(exit.port.0) << 32 | u64::from(tail) }
    }

    /// The device that frames leave by.
    #[inline(always)]
    pub(crate) fn port(self) -> Port {
        Port((self.rest >> 32) as u8)
    }

    /// The largest IP packet, in bytes.
    #[inline(always)]
    pub(crate) fn mtu(self) -> usize {
        usize::from((self.rest >> 48) as u16)
    }

    /// The MACs of a frame, receiver first: two stores.
    #[inline(always)]
    pub(crate) fn address(self, macs: &mut [u8; 12]) {
        let (first, second) = macs.split_at_mut(8);
        first.copy_from_slice(&self.head.to_ne_bytes());
        second.copy_from_slice(&(self.rest as u32).to_ne_bytes());
    }
}

/// The line of a real server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtHand<'c>(pub(super) &'c Line);

impl AtHand<'_> {
    /// A connection went to it.
    #[inline(always)]
    pub(crate) fn count_conn(self) {
        bump(&self.0[word::CONNS], 1);
    }

    /// A client's packet went to it.
    #[inline(always)]
    pub(crate) fn count_in(self, bytes: usize) {
        bump(&self.0[word::IN_PACKETS], 1);
        bump(&self.0[word::IN_BYTES], bytes as u64);
    }

    /// A packet of it went to a client.
    #[inline(always)]
    pub(crate) fn count_out(self, bytes: usize) {
        bump(&self.0[word::OUT_PACKETS], 1);
        bump(&self.0[word::OUT_BYTES], bytes as u64);
    }

    /// What was counted: connections, packets and bytes in, packets and bytes out.
    pub(crate) fn counts(self) -> [u64; 5] {
        let indexes = [word::CONNS, word::IN_PACKETS, word::IN_BYTES, word::OUT_PACKETS, word::OUT_BYTES];
        indexes.map(|index| self.0[index].load(Relaxed))
    }

    /// The way there, if it was noted under this stamp, which is not 0.
    #[inline(always)]
    pub(crate) fn way(self, stamp: u64) -> Option<Way> {
        let (head, rest) = (self.0[word::HEAD].load(Relaxed), self.0[word::REST].load(Relaxed));
        (self.0[word::STAMP].load(Relaxed) == stamp).then_some(Way { head, rest })
    }

    /// Notes the way there.
    pub(crate) fn note_way(self, way: Way, stamp: u64) {
        for (index, value) in [(word::HEAD, way.head), (word::REST, way.rest), (word::STAMP, stamp)] {
            self.0[index].store(value, Relaxed);
        }
    }
}
