//! The contract between xvs and the authors of schedulers.
//!
//! A scheduler answers one question, once for every new connection: *which real server?* It sees the request (who asks
//! for what) and the real servers of the service (weights, connection counts, flags), and it answers with an index.
//! Everything else (persistence, checks of its answer, forwarding) is the director's work.
//!
//! The built-in schedulers of the director implement this very trait, so a scheduler can be tried natively and run as
//! WebAssembly without a change.
//!
//! Invariant: no `std`, no dependency, no unsafe code; it builds with Rust 1.63 and later.
//!
//! ```
//! use xvs_sdk::{Change, Reals, Request, Scheduler};
//!
//! /// Sends every new connection to the usable server with the fewest active connections.
//! #[derive(Default)]
//! struct Fewest;
//!
//! impl Scheduler for Fewest {
//!     fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
//!         (0..reals.len()).filter(|&index| reals.is_usable(index)).min_by_key(|&index| reals.active(index))
//!     }
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// A new connection that wants a real server.
///
/// Addresses are 16 bytes in network order; an IPv4 address stands as `::ffff:a.b.c.d`. Ports are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// CIP, the client's address.
    pub client: [u8; 16],
    /// VIP, the address that the client asked for.
    pub virtual_address: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The port that the client asked for.
    pub virtual_port: u16,
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// The three scheduler flags of the service (`-b`): bit 0 is `flag-1`, bit 1 `flag-2`, bit 2 `flag-3`.
    pub flags: u8,
    /// A keyed hash of the flow. Other directors compute another one: use addresses where they must agree.
    pub hash: u64,
    /// Seconds since some start that the director chose; never less than in the request before.
    pub now_s: u64,
}

/// The real servers of one service, in the director's order: **the most recently added first**.
///
/// An index is valid until the next [`Scheduler::reals_changed`].
pub trait Reals {
    /// How many there are.
    fn len(&self) -> usize;

    /// None at all?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Weight; 0 means quiesced: existing connections stay, new ones must go elsewhere.
    fn weight(&self, index: usize) -> i32;

    /// Connections in an active state.
    fn active(&self, index: usize) -> u32;

    /// All connections, active and inactive.
    fn total(&self, index: usize) -> u32;

    /// At its upper connection threshold: it must get no new connection.
    fn is_overloaded(&self, index: usize) -> bool;

    /// May it get a new connection? (Not overloaded, and its weight is above 0.)
    fn is_usable(&self, index: usize) -> bool {
        !self.is_overloaded(index) && self.weight(index) > 0
    }

    /// The last weight that was not 0, or the weight that the server was added with: what [`weight`](Reals::weight) was
    /// before the server was quiesced. The default knows no past.
    fn last_weight(&self, index: usize) -> i32 {
        self.weight(index)
    }

    /// RIP and port, as in [`Request`]. Together they name a server within its service for as long as it is there, and
    /// again when it comes back, whatever its index. The director always tells; the default is for tests that do not
    /// care.
    fn address(&self, index: usize) -> ([u8; 16], u16) {
        let _ = index;
        ([0; 16], 0)
    }

    /// Load as LVS's least-connection schedulers weigh it: an active connection counts 256 times an inactive one, and
    /// once more as a connection. Kernels before 2026 left out the "once more"; the director can be set to either.
    fn overhead(&self, index: usize) -> u64 {
        256 * u64::from(self.active(index)) + u64::from(self.total(index))
    }
}

/// What happened to the list of real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The list is new altogether: forget every index.
    All,
    /// A server was inserted at this index; those from there on moved up by one.
    Added(usize),
    /// The server at this index is gone; those behind it moved down by one.
    Removed(usize),
    /// Weight, thresholds or method of the server at this index were set, perhaps to what they were.
    Edited(usize),
}

/// A scheduler: state of one service.
pub trait Scheduler {
    /// The list of real servers changed; `reals` is the list after the change. Called under the same order of events
    /// that an operator typed, and never between two halves of a [`pick`](Scheduler::pick).
    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        let _ = (reals, change);
    }

    /// Chooses a real server for a new connection, or none.
    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize>;
}
