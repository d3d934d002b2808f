//! Making connections, templates and notes.
//!
//! Invariant: an entry stands in the index before it lives, but for a key that it owes ([`owing`](super::owing)); and whoever
//! did not get all that it needs leaves nothing behind. Not here: whether a connection may be made, and that nobody else
//! makes the same one; the caller sees to both.

use std::sync::atomic::Ordering::Relaxed;

use super::{ConnId, Table};
use crate::conn::Side;
use crate::conn::entry::{Conn, Flags, Status};
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
        if self.count(1) { self.reserve_counted(slab) } else { Err(Full::Entries) }
    }

    /// Takes a free entry that was counted, or counts it no more.
    #[inline(always)]
    pub(super) fn reserve_counted(&self, slab: &Slab) -> Result<u32, Full> {
        slab.take().ok_or_else(|| {
            self.uncount(1);
            Full::Entries
        })
    }

    /// Counts so many entries that will be made; false, and nothing done, if there is no room for all of them.
    #[inline(always)]
    pub(crate) fn count(&self, count: u32) -> bool {
        let fits = self.live.fetch_add(count, Relaxed) + count <= self.capacity;
        if !fits {
            self.uncount(count);
        }
        fits
    }

    /// Counts so many less, which were not made.
    #[inline]
    pub(crate) fn uncount(&self, count: u32) {
        self.live.fetch_sub(count, Relaxed);
    }

    /// Takes back an entry for which there was no room under all of its hashes.
    #[cold]
    pub(super) fn abandon<T>(&self, conn: &Conn<'_>, entered: Option<FlowHash>) -> Result<T, Full> {
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
    pub(super) fn yield_answers(&self, answers: &Flow, hash: FlowHash) {
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
