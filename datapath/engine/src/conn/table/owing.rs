//! Making connections by the short way: in the words that their entries have, and with a key that they owe.
//!
//! A new NAT connection has two keys, in two buckets that nobody can know before its server is chosen. The second one, of
//! the answers, may be owed for a moment: until the packets of a batch are sent there is none to answer, and its bucket has
//! the time to come.
//!
//! Invariant: an entry that owes a key is not given back before the one who owes it has seen that, nor before the one who
//! ended it is done with it. Not here: who remembers what is owed (`engine::debts`), and how the words are written
//! ([`birth`]).

use std::sync::atomic::AtomicU64;

use super::make::Full;
use super::{ConnId, IPV6, Table};
use crate::conn::entry::birth::{self, Key, Key4, Key6, New};
use crate::conn::entry::{KEY4, KEY6, OWED, tail};
use crate::conn::slab::Slab;
use crate::flow::{Flow, FlowHash};
use crate::lines::WORDS;
use crate::time::Now;

impl Key4 {
    /// The hash of the answers' flow.
    #[inline(always)]
    pub(crate) fn answers(&self, table: &Table) -> FlowHash {
        let addresses = u64::from(self.server.address) << 32 | self.addresses >> 32;
        table.key.hash4(addresses, answered(self.ports, self.server.port))
    }
}

impl Key6 {
    /// The hash of the answers' flow.
    #[inline(always)]
    pub(crate) fn answers(&self, table: &Table) -> FlowHash {
        let ([client_high, client_low, ..], ([high, low], port)) = (self.addresses, self.server);
        table.key.hash6([high, low, client_high, client_low], answered(self.ports, port))
    }
}

/// The ports of an answer from this port, by those of a client's packet.
#[inline(always)]
fn answered(ports: u64, port: u16) -> u64 {
    u64::from(port) << 24 | ports >> 24 << 8 | ports & 0xff
}

impl Table {
    /// Makes an IPv4 connection under the hash of its client's flow. As for [`insert`](Table::insert), but that the caller has
    /// [counted](Table::count) it; it is not counted any more if there is no place for it. `owed`: the caller will soon
    /// [enter](Table::enter_answers) the answers' key.
    #[inline(always)]
    pub(crate) fn insert4(&self, new: &New<Key4>, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, Full> {
        self.insert_as(&self.v4, |index| self.v4.raw(index), new, hash, owed, now)
    }

    /// The same for IPv6.
    #[inline(always)]
    pub(crate) fn insert6(&self, new: &New<Key6>, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, Full> {
        self.insert_as(&self.v6, |index| self.v6.raw_pair(index), new, hash, owed, now)
    }

    #[inline(always)]
    fn insert_as<'t, K: Key<N>, const N: usize>(
        &'t self,
        slab: &'t Slab,
        words_of: impl Fn(u32) -> &'t [AtomicU64; N],
        new: &New<K>,
        hash: FlowHash,
        owed: bool,
        now: Now,
    ) -> Result<ConnId, Full> {
        let index = self.reserve_counted(slab)?;
        let id = index | if N == WORDS { 0 } else { IPV6 };
        let words = words_of(index);
        let control = birth::write(words, new, owed, now);
        // In the same order as any other.
        if !self.index.insert_inline(hash, id) {
            return self.abandon(&slab.entry(index), None);
        }
        birth::publish(words, new, control);
        Ok(ConnId(id))
    }

    /// Enters the answers' key of a NAT connection that was made without, under this hash. False if there is no room for
    /// it; the connection lives without, and the caller ends it.
    #[inline]
    pub(crate) fn enter_answers(&self, id: ConnId, hash: FlowHash) -> bool {
        let entered = self.index.insert_alone(hash, id.0) || self.enter_contested(id, hash);
        let lives = birth::pay(self.control_of(id));
        if !lives {
            self.bury_late(id, hash);
        }
        entered || !lives
    }

    /// The control word of an entry.
    #[inline(always)]
    fn control_of(&self, id: ConnId) -> &AtomicU64 {
        match id.0 & IPV6 {
            0 => &self.v4.raw(id.0)[KEY4 + tail::CONTROL],
            _ => &self.v6.raw_pair(id.0 & !IPV6)[KEY6 + tail::CONTROL],
        }
    }

    /// The same if there may be something under this hash already, or the bucket is full.
    #[cold]
    #[inline(never)]
    fn enter_contested(&self, id: ConnId, hash: FlowHash) -> bool {
        // Alive or not: as long as it is owed nobody else gets the entry.
        let conn = self.entry(id);
        self.yield_answers(&Flow { protocol: conn.protocol(), src: conn.server(), dst: conn.client() }, hash);
        self.index.insert(hash, id.0)
    }

    /// Takes out the key of an entry that was ended while it owed it, and gives that back, unless who ended it is not yet done.
    #[cold]
    fn bury_late(&self, id: ConnId, hash: FlowHash) {
        self.index.remove(hash, id.0);
        if birth::let_go(self.control_of(id), OWED) {
            self.free(&self.entry(id));
        }
    }
}
