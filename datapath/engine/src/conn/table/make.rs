//! Making connections, templates and notes.
//!
//! A new NAT connection has two keys, in two buckets that nobody can know before its server is chosen. The second one, of
//! the answers, may be owed for a moment ([`Table::insert4`]): until the packets of a batch are sent there is none to
//! answer, and its bucket has the time to come.
//!
//! Invariant: an entry stands in the index before it lives, but for a key that it owes; an entry that owes one is not
//! given back before the one who owes it has seen that, nor before the one who ended it is done with it; and whoever did not get all that it needs leaves nothing behind.
//! Not here: whether a connection may be made, and that nobody else makes the same one; the caller sees to both.

use std::sync::atomic::Ordering::Relaxed;

use super::{ConnId, Table};
use crate::conn::Side;
use crate::conn::entry::{Conn, Flags, OWED, Status, birth, tail};
use crate::conn::shift::Shifts;
use crate::conn::slab::Slab;
use crate::flow::{Endpoint, Family, Flow, FlowHash};
use crate::real::{Method, Path, RealId};
use crate::time::Now;

/// A connection to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewConn {
    /// The client's flow: CIP to VIP.
    pub flow: Flow,
    /// RIP and the port there.
    pub server: Endpoint,
    /// The real server.
    pub real: RealId,
    /// The service that scheduled it.
    pub service: u32,
    /// State and flags.
    pub status: Status,
    /// Seconds that it lives without a packet.
    pub timeout_s: u32,
    /// The way of the answers to the client.
    pub reply_path: Path,
    /// The class of its timeouts, below 128.
    pub class: u8,
    /// The template that led it here; the caller has [adopted](Conn::adopt) the child.
    pub parent: Option<ConnId>,
}

/// An IPv4 connection to be made, in the words that its entry has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New4 {
    /// The client's flow, as a [glance](crate::wire::Glance) has it.
    pub(crate) addresses: u64,
    pub(crate) ports: u64,
    /// RIP (of NAT) and the port there.
    pub(crate) server: End4,
    pub(crate) real: RealId,
    /// The service that scheduled it.
    pub(crate) service: u32,
    /// State and flags, as the first packet leaves them.
    pub(crate) status: Status,
    /// Seconds that it lives without another packet.
    pub(crate) timeout_s: u32,
    /// The way of the answers to the client, as a [path](Path)'s bits.
    pub(crate) reply_path: u32,
    /// What NAT does to its packets' checksums.
    pub(crate) shifts: Option<Shifts>,
    pub(crate) class: u8,
}

impl New4 {
    /// The words of the answers' flow, of which the table makes [their hash](Table::hash4).
    #[inline(always)]
    pub(crate) fn answers(addresses: u64, ports: u64, server: End4) -> (u64, u64) {
        let ports = u64::from(server.port) << 48 | ports >> 48 << 32 | ports & 0xffff;
        (u64::from(server.address) << 32 | addresses >> 32, ports)
    }
}

/// An IPv4 address and a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End4 {
    pub(crate) address: u32,
    pub(crate) port: u16,
}

/// What there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Entries, or places in the index.
    Entries,
    /// Places for Call-IDs.
    Calls,
}

impl Table {
    /// Makes a template; its flow is its key. As for [`insert`](Table::insert).
    ///
    /// # Errors
    /// [`Full`] when no entry is free.
    pub fn insert_template(&self, new: &NewConn, now: Now) -> Result<Conn<'_>, Full> {
        self.insert(new, self.hash_of_key(&new.flow), now)
    }

    /// Makes a connection. The caller has looked it up before, and sees to it that nobody else makes the same one.
    ///
    /// # Errors
    /// [`Full`] when no entry is free; see [`evict`](Table::evict).
    pub fn insert(&self, new: &NewConn, hash: FlowHash, now: Now) -> Result<Conn<'_>, Full> {
        let flags = new.status.flags;
        let answers_pass = flags.method() == Method::Nat && !flags.has(Flags::TEMPLATE);
        let answers = answers_pass.then(|| answers_of(new));
        self.enter(new, hash, answers.as_ref(), now)
    }

    /// Makes an IPv4 connection under the hash of its client's flow. As for [`insert`](Table::insert). `owed`: the caller
    /// will soon [enter](Table::enter_answers) the answers' key.
    #[inline(always)]
    pub(crate) fn insert4(&self, new: &New4, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, Full> {
        let id = self.reserve(&self.v4)?;
        let entry = self.v4.raw(id);
        let control = birth::write4(entry, new, owed, now);
        // In the same order as any other.
        if !self.index.insert_inline(hash, id) {
            return self.abandon(&self.v4.entry(id), None);
        }
        birth::publish4(entry, control);
        Ok(ConnId(id))
    }

    /// Enters the answers' key of a NAT connection that was made without, under this hash. False if there is no room for
    /// it; the connection lives without, and the caller ends it.
    #[inline]
    pub(crate) fn enter_answers(&self, id: ConnId, hash: FlowHash) -> bool {
        let entered = self.index.insert_alone(hash, id.0) || self.enter_contested(id, hash);
        let lives = birth::pay4(self.v4.raw(id.0));
        if !lives {
            self.bury_late(id, hash);
        }
        entered || !lives
    }

    /// The same if there may be something under this hash already, or the bucket is full.
    #[cold]
    #[inline(never)]
    fn enter_contested(&self, id: ConnId, hash: FlowHash) -> bool {
        // Alive or not: as long as it is owed nobody else gets the entry.
        let conn = self.v4.entry(id.0);
        self.yield_answers(&Flow { protocol: conn.protocol(), src: conn.server(), dst: conn.client() }, hash);
        self.index.insert(hash, id.0)
    }

    /// Takes out the key of an entry that was ended while it owed it, and gives that back, unless who ended it is not yet done.
    #[cold]
    fn bury_late(&self, id: ConnId, hash: FlowHash) {
        self.index.remove(hash, id.0);
        let conn = self.v4.entry(id.0);
        if birth::let_go(conn.tail(tail::CONTROL), OWED) {
            self.free(&conn);
        }
    }

    /// Makes an entry under this hash, and under that of the answers.
    pub(in crate::conn) fn enter(
        &self,
        new: &NewConn,
        hash: FlowHash,
        answers: Option<&Flow>,
        now: Now,
    ) -> Result<Conn<'_>, Full> {
        let slab = if new.flow.family() == Family::Inet { &self.v4 } else { &self.v6 };
        let conn = slab.entry(self.reserve(slab)?).prepare(new, now);
        // Into the index first, alive second: a sweep or an eviction that met a live entry which is not yet in the
        // index would free it, and the index would keep its key for good.
        let id = conn.id().0;
        if !self.index.insert(hash, id) {
            return self.abandon(&conn, None);
        }
        if let Some(answers) = answers {
            let theirs = self.hash(answers);
            self.yield_answers(answers, theirs);
            if !self.index.insert(theirs, id) {
                return self.abandon(&conn, Some(hash));
            }
        }
        conn.publish();
        Ok(conn)
    }

    /// Takes a free entry, and counts it.
    #[inline(always)]
    fn reserve(&self, slab: &Slab) -> Result<u32, Full> {
        if self.live.fetch_add(1, Relaxed) < self.capacity
            && let Some(index) = slab.take()
        {
            return Ok(index);
        }
        self.live.fetch_sub(1, Relaxed);
        Err(Full::Entries)
    }

    /// Takes back an entry for which there was no room under all of its hashes.
    #[cold]
    fn abandon<T>(&self, conn: &Conn<'_>, entered: Option<FlowHash>) -> Result<T, Full> {
        if let Some(hash) = entered {
            self.index.remove(hash, conn.id().0);
        }
        self.free(conn);
        Err(Full::Entries)
    }

    /// Lets go of a NAT server's answers that an older connection had until now: the same port of the same client came by
    /// another address or port of ours. To the server both are one, and what it answers is for the newer one, as in IPVS.
    /// The older one lives on for its client's packets.
    #[inline(never)]
    fn yield_answers(&self, answers: &Flow, hash: FlowHash) {
        if let Some((older, Side::Out)) = self.lookup(answers, hash) {
            self.index.remove(hash, older.id().0);
        }
    }

    /// Makes a note for answers: an entry that only the server's flow leads to. As for [`insert`](Table::insert).
    ///
    /// # Errors
    /// [`Full`] when no entry is free.
    pub fn insert_note(&self, new: &NewConn, now: Now) -> Result<Conn<'_>, Full> {
        self.enter(new, self.hash(&answers_of(new)), None, now)
    }
}

/// The flow of the server's answers.
fn answers_of(new: &NewConn) -> Flow {
    Flow { protocol: new.flow.protocol, src: new.server, dst: new.flow.src }
}
