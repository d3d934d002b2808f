//! The servers of a service, as its scheduler sees them.
//!
//! Invariant: it says what the records of the servers say at that moment; it changes nothing.

use xvs_sdk::Reals;

use crate::real::{Arena, Generation, Loads, RealId};

/// The servers.
pub(super) struct View<'a> {
    arena: &'a Arena,
    members: &'a [RealId],
    /// Counts and weights, at hand for a loop.
    loads: Loads<'a>,
}

impl<'a> View<'a> {
    #[inline(always)]
    pub(super) fn new(arena: &'a Arena, members: &'a [RealId]) -> Self {
        View { arena, members, loads: arena.loads() }
    }
}

impl Reals for View<'_> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn weight(&self, index: usize) -> i32 {
        self.arena.get(self.members[index]).weight()
    }

    fn active(&self, index: usize) -> u32 {
        (self.counts(index) >> 32) as u32
    }

    fn total(&self, index: usize) -> u32 {
        self.counts(index) as u32
    }

    #[inline(always)]
    fn counts(&self, index: usize) -> u64 {
        self.loads.counts(self.members[index])
    }

    #[inline(always)]
    fn open_weight(&self, index: usize) -> i64 {
        self.loads.open_weight(self.members[index])
    }

    #[inline(always)]
    fn surplus(&self) -> u64 {
        match self.arena.generation() {
            Generation::New => 256,
            // An active connection is none of the inactive ones, which are added.
            Generation::Old => 255,
        }
    }

    fn is_overloaded(&self, index: usize) -> bool {
        self.open_weight(index) < 0
    }

    fn last_weight(&self, index: usize) -> i32 {
        self.arena.get(self.members[index]).last_weight()
    }

    fn address(&self, index: usize) -> ([u8; 16], u16) {
        let endpoint = self.arena.get(self.members[index]).endpoint();
        (endpoint.address.octets16(), endpoint.port)
    }

    #[inline(always)]
    fn overhead(&self, index: usize) -> u64 {
        let counts = self.counts(index);
        self.surplus() * (counts >> 32) + u64::from(counts as u32)
    }

    #[inline(always)]
    fn is_usable(&self, index: usize) -> bool {
        self.open_weight(index) > 0
    }
}
