//! What all workers share: the tables, and what an operator sets while packets flow.
//!
//! Invariant: made once, at the start; nothing in it is ever replaced, only written through atomics or behind a lock of
//! its own. The snapshot of the configuration is not here: each worker has its own reference to it.

use crate::conn::{Fragments, Table, Timeouts};
use crate::counters::Count;
use crate::flow::HashKey;
use crate::hop::Hops;
use crate::real::{Arena, Generation};
use crate::switches::Switches;

/// How large the shared tables are made.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Connections.
    pub connections: u32,
    /// Real servers, removed ones with connections included.
    pub reals: usize,
    /// Next hops.
    pub hops: usize,
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Connections.
    pub table: Table,
    /// Real servers.
    pub arena: Arena,
    /// Next hops.
    pub hops: Hops,
    /// Timeouts in force.
    pub timeouts: Timeouts,
    /// Switches in force.
    pub switches: Switches,
    /// Packets in fragments.
    pub fragments: Fragments,
    /// Entries that the control side ended because their server was removed (`expire_nodest_conn`).
    pub ended_nodest: Count,
    /// Entries that the control side sacrificed (`drop_entry`).
    pub sacrificed: Count,
}

impl Shared {
    /// Empty tables of these sizes, hashed under this key.
    pub fn new(sizes: Sizes, key: HashKey, generation: Generation) -> Self {
        Shared {
            table: Table::new(sizes.connections, key),
            arena: Arena::new(sizes.reals, generation),
            hops: Hops::new(sizes.hops),
            timeouts: Timeouts::default(),
            switches: Switches::default(),
            fragments: Fragments::new(key),
            ended_nodest: Count::default(),
            sacrificed: Count::default(),
        }
    }

    /// How often anything has changed that the way to a real server is made of, but for the snapshot: what was found before
    /// holds as long as this is the same.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.arena.changes() + self.hops.changes()
    }
}
