//! The servers of a service, as its scheduler sees them.
//!
//! Invariant: it says what the records of the servers say at that moment; it changes nothing.

use xvs_sdk::Reals;

use crate::real::{Arena, Generation, Real, RealId};

/// The servers.
pub(super) struct View<'a> {
    pub(super) arena: &'a Arena,
    pub(super) members: &'a [RealId],
}

impl Reals for View<'_> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn weight(&self, index: usize) -> i32 {
        self.arena.get(self.members[index]).weight()
    }

    fn active(&self, index: usize) -> u32 {
        self.arena.get(self.members[index]).counts().active
    }

    fn total(&self, index: usize) -> u32 {
        self.arena.get(self.members[index]).counts().total
    }

    fn is_overloaded(&self, index: usize) -> bool {
        self.arena.get(self.members[index]).is_overloaded()
    }

    fn last_weight(&self, index: usize) -> i32 {
        self.arena.get(self.members[index]).last_weight()
    }

    fn address(&self, index: usize) -> ([u8; 16], u16) {
        let endpoint = self.arena.get(self.members[index]).endpoint();
        (endpoint.address.octets16(), endpoint.port)
    }

    fn is_usable(&self, index: usize) -> bool {
        let real = self.arena.get(self.members[index]);
        !real.is_overloaded() && real.weight() > 0
    }

    #[inline(always)]
    fn overhead(&self, index: usize) -> u64 {
        self.overhead_of(&self.arena.get(self.members[index]))
    }

    #[inline(always)]
    fn burden(&self, index: usize) -> Option<(u64, i32)> {
        let real = self.arena.get(self.members[index]);
        (!real.is_overloaded()).then(|| (self.overhead_of(&real), real.weight()))
    }
}

impl View<'_> {
    #[inline(always)]
    fn overhead_of(&self, real: &Real<'_>) -> u64 {
        let counts = real.counts();
        let connections = match self.arena.generation() {
            Generation::New => counts.total,
            Generation::Old => counts.inactive(),
        };
        256 * u64::from(counts.active) + u64::from(connections)
    }
}
