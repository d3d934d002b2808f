//! The connection table: one for all workers, of fixed size, read without locks.
//!
//! A packet's flow leads to its entry in either direction: the client's flow, and with NAT the server's flow, are both
//! in the index. Lookup costs one line of the index and one (IPv6: two) of the entry.
//!
//! Invariant: an entry is in the index under its keys exactly while it lives (and for the moment of being made or
//! ended); it is ended once, by whoever wins the compare-and-swap; a free entry is on the free list exactly once.
//! The table never allocates after it was made. It knows no real servers: whoever ends a connection is told which one
//! it was and settles the counts. Connections are made in `make` and ended in `end`.

mod ahead;
mod end;
mod make;
mod owing;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub use self::make::{Full, NewConn};

use crate::flow::{Family, Flow, FlowHash, HashKey};
use crate::lines::{WORDS, prefetch};
use crate::wire::{Glance, Glance6};

use super::Side;
use super::calls::Calls;
use super::entry::{Conn, Flags};
use super::guess::Guess;
use super::index::Index;
use super::quick::{Quick, Quick6};
use super::slab::Slab;

/// Number of a connection: bit 31 tells IPv6 from IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

/// An IPv4 address and a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End4 {
    pub(crate) address: u32,
    pub(crate) port: u16,
}

/// An IPv6 address in two words, and a port.
pub(crate) type End6 = ([u64; 2], u16);

pub(super) const IPV6: u32 = 1 << 31;
/// Keeps templates and connections of one key in different buckets.
const TEMPLATE_SALT: u64 = 0x5bd1_e995_9e37_79b9;

/// The table.
#[derive(Debug)]
pub struct Table {
    pub(super) v4: Slab,
    pub(super) v6: Slab,
    index: Index,
    key: HashKey,
    live: AtomicU32,
    capacity: u32,
    rover: AtomicU32,
    pub(super) calls: Calls,
}

impl Table {
    /// The most connections that a table can be made for.
    pub const MAX_CAPACITY: u32 = 1 << 30;

    /// A table for this many connections, hashed under this key.
    pub fn new(capacity: u32, key: HashKey) -> Self {
        let capacity = capacity.clamp(1, Self::MAX_CAPACITY);
        Table {
            v4: Slab::new(capacity, Family::Inet),
            v6: Slab::new(capacity, Family::Inet6),
            // NAT connections are in the index twice.
            index: Index::new(capacity as usize * 2),
            key,
            live: AtomicU32::new(0),
            capacity,
            rover: AtomicU32::new(0),
            calls: Calls::new(capacity),
        }
    }

    /// How many connections fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of a flow in this table.
    #[inline]
    pub fn hash(&self, flow: &Flow) -> FlowHash {
        self.key.hash(flow)
    }

    /// The hash of a template's key: apart from that of the flow with the same numbers.
    pub(super) fn hash_of_key(&self, key: &Flow) -> FlowHash {
        FlowHash(self.hash(key).0.rotate_left(32) ^ TEMPLATE_SALT)
    }

    /// A hash that depends on these bytes, too.
    pub(super) fn mix(&self, hash: FlowHash, bytes: &[u8]) -> FlowHash {
        self.key.mix(hash, bytes)
    }

    /// Starts to bring the bucket of a hash into the cache.
    #[inline(always)]
    pub fn touch(&self, hash: FlowHash) {
        self.index.touch(hash);
    }

    #[inline]
    fn slab(&self, id: ConnId) -> &Slab {
        if id.0 & IPV6 == 0 { &self.v4 } else { &self.v6 }
    }

    #[inline]
    fn entry(&self, id: ConnId) -> Conn<'_> {
        self.slab(id).entry(id.0 & !IPV6)
    }

    /// The connection of a packet, and which way the packet goes.
    #[inline]
    pub fn lookup(&self, flow: &Flow, hash: FlowHash) -> Option<(Conn<'_>, Side)> {
        self.index.find(hash, |id| {
            let conn = self.entry(ConnId(id));
            (conn.family() == flow.family()).then(|| conn.side_of(flow)).flatten().map(|side| (conn, side))
        })
    }

    /// Tells of a hash what is probably its IPv4 connection, with the entry on the way into the cache.
    #[inline(always)]
    pub(crate) fn guesser(&self) -> impl Fn(FlowHash) -> Guess {
        let (guess, entries) = (self.index.guesser(), self.v4.all().as_ptr());
        move |hash| {
            let guess = guess(hash);
            // Of none it is an address that hardly can be one, which costs less than to ask.
            prefetch(entries.wrapping_add(guess.place()));
            guess
        }
    }

    /// The IPv4 entry of a [guess](Table::guesser), if there is one of that number.
    #[inline(always)]
    pub(crate) fn quick(&self, guess: Guess) -> Option<Quick<'_>> {
        self.v4.all().get(guess.place()).map(Quick::load)
    }

    /// What is probably the IPv6 connection of a hash, with the entry on the way into the cache.
    #[inline(always)]
    pub(crate) fn guess6(&self, hash: FlowHash) -> Guess {
        let guess = self.index.guesser()(hash);
        if let Some(lines) = guess.place6().and_then(|place| self.v6.lines_of(place)) {
            prefetch(&lines[0]);
            prefetch(&lines[WORDS]);
        }
        guess
    }

    /// The IPv6 entry of a [guess](Table::guess6), if there is one of that number.
    #[inline(always)]
    pub(crate) fn quick6(&self, guess: Guess) -> Option<Quick6<'_>> {
        self.v6.lines_of(guess.place6()?).map(Quick6::load)
    }

    /// The hash of an IPv6 packet by [its words](crate::wire::Glance6).
    #[inline(always)]
    pub(crate) fn hash_of_6(&self, glance: &Glance6) -> FlowHash {
        self.key.hash6(glance.addresses, glance.ports())
    }

    /// The hash of an IPv4 packet by [its words](crate::wire::Glance).
    #[inline(always)]
    pub(crate) fn hash_of(&self, glance: &Glance) -> FlowHash {
        self.hash4(glance.addresses, glance.ports())
    }

    /// The same by the words themselves.
    #[inline(always)]
    pub(crate) fn hash4(&self, addresses: u64, ports: u64) -> FlowHash {
        self.key.hash4(addresses, ports)
    }

    /// Is there nothing at all under this hash? No says nothing; a [look-up](Table::lookup) tells.
    #[inline(always)]
    pub(crate) fn lacks(&self, hash: FlowHash) -> bool {
        self.index.lacks(hash)
    }

    /// The template under a key: client network and port 0, to VIP (or mark) and port. One that expired is found, too.
    pub fn template(&self, key: &Flow) -> Option<Conn<'_>> {
        self.find_template(key, self.hash_of_key(key), |conn| !conn.status().flags.has(Flags::CALL))
    }

    /// The template under a key that the caller accepts, of those under this hash.
    pub(super) fn find_template(
        &self,
        key: &Flow,
        hash: FlowHash,
        accepts: impl Fn(&Conn<'_>) -> bool,
    ) -> Option<Conn<'_>> {
        self.index.find(hash, |id| {
            let conn = self.entry(ConnId(id));
            (conn.family() == key.family() && conn.is_template_of(key) && accepts(&conn)).then_some(conn)
        })
    }

    /// The connection of this number, if it lives.
    #[inline]
    pub fn get(&self, id: ConnId) -> Option<Conn<'_>> {
        let slab = self.slab(id);
        let index = id.0 & !IPV6;
        (index < slab.used.load(Relaxed)).then(|| slab.entry(index)).filter(Conn::is_live)
    }

    /// Entries that were used at some time, for walks by [`at`](Table::at).
    pub fn used(&self) -> u32 {
        self.v4.used.load(Relaxed) + self.v6.used.load(Relaxed)
    }

    /// The connection at a place of a walk, if one lives there.
    pub fn at(&self, place: u32) -> Option<Conn<'_>> {
        let v4 = self.v4.used.load(Relaxed);
        let (slab, index) = if place < v4 { (&self.v4, place) } else { (&self.v6, place - v4) };
        (index < slab.used.load(Relaxed)).then(|| slab.entry(index)).filter(Conn::is_live)
    }

    /// Every connection, for listings and for the control side's sweeps.
    pub fn iter(&self) -> impl Iterator<Item = Conn<'_>> {
        let of = |slab: &'_ Slab| 0..slab.used.load(Relaxed);
        let v4 = of(&self.v4).map(|index| self.v4.entry(index));
        let v6 = of(&self.v6).map(|index| self.v6.entry(index));
        v4.chain(v6).filter(Conn::is_live)
    }
}
