//! What a scheduler does.

use crate::{Reals, Request};

/// What happened to the list of real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The list is new altogether: forget every index.
    All,
    /// A server was inserted at this index; those from there on moved up by one.
    Added(usize),
    /// The server at this index is gone; those behind it moved down by one.
    Removed(usize),
    /// Weight, thresholds, method or tags of the server at this index were set, perhaps to what they were.
    Edited(usize),
}

/// What a scheduler asks of the director. Less is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs(u32);

impl Needs {
    /// Nothing but weights and who is usable.
    pub const NOTHING: Needs = Needs(0);
    /// Numbers of connections, fresh at the first pick of each of a worker's breaths.
    pub const COUNTS: Needs = Needs(crate::abi::NEEDS_COUNTS);
    /// Addresses, thresholds, rates, tags and metrics.
    pub const FACTS: Needs = Needs(crate::abi::NEEDS_FACTS);
    /// A change of the list is dear (a table is filled anew, say): the director makes a new instance off the workers,
    /// with the state of the old one if it is [saved](Scheduler::save), instead of telling a running one.
    pub const REBUILD: Needs = Needs(crate::abi::NEEDS_REBUILD);
    /// It may find no server although one is usable, as `sh` does for a client whose server is down. Without this, the
    /// director's own scheduler serves such a request.
    pub const DENY: Needs = Needs(crate::abi::NEEDS_DENY);

    /// Both.
    pub const fn and(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }

    /// Are all of `other` among them?
    pub const fn has(self, other: Needs) -> bool {
        self.0 & other.0 == other.0
    }

    /// As `xvs_needs` tells them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From what `xvs_needs` told; unknown bits are kept.
    pub const fn from_bits(bits: u32) -> Needs {
        Needs(bits)
    }
}

/// A scheduler: state of one service.
pub trait Scheduler {
    /// What it needs of the director, if it runs as a plugin.
    const NEEDS: Needs = Needs::COUNTS.and(Needs::FACTS);

    /// Takes in the service's options: lines `name=value` in the order of their names (see `Options`). Called before
    /// anything else, and only once.
    ///
    /// # Errors
    /// They are wrong; the sentence says what would be right. The scheduler is not used then.
    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let _ = options;
        Ok(())
    }

    /// The list of real servers changed; `reals` is the list after the change. Called under the same order of events
    /// that an operator typed, and never between two halves of a [`pick`](Scheduler::pick).
    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        let _ = (reals, change);
    }

    /// A server's [health](Reals::health) changed: it was quiesced, reached its threshold, or came back. A plugin hears
    /// of it before the next pick.
    fn health_changed<R: Reals + ?Sized>(&mut self, reals: &R, index: usize) {
        let _ = (reals, index);
    }

    /// So many connections more (or fewer, if negative) are at this server than when it was told last, by whatever
    /// worker. A plugin that needs counts hears of it before the first pick of a breath.
    fn connections_changed<R: Reals + ?Sized>(&mut self, reals: &R, index: usize, delta: i32) {
        let _ = (reals, index, delta);
    }

    /// Chooses a real server for a new connection, or none.
    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize>;

    /// Writes what a later version of it needs to go on, at most 4096 bytes, and says how many; none if there is
    /// nothing to hand over.
    fn save(&self, into: &mut [u8]) -> Option<usize> {
        let _ = into;
        None
    }

    /// Goes on with what an earlier version [saved](Scheduler::save), after it heard of the servers. False if it can not
    /// read it, and then it is as it was.
    fn restore<R: Reals + ?Sized>(&mut self, reals: &R, from: &[u8]) -> bool {
        let _ = (reals, from);
        false
    }
}
