//! Ends of entries: what becomes of the index, and who gives way when the table is full.
//!
//! Invariant: an entry is ended once, by whoever wins the compare-and-swap of its control word; it is out of the index
//! before it is free. Not here: the counts of real servers, which the caller settles, and who looks for expired entries
//! ([`Sweep`](crate::conn::Sweep)).

use std::sync::atomic::Ordering::Relaxed;

use super::Table;
use crate::conn::entry::birth::let_go;
use crate::conn::entry::{BURIAL, Conn, tail};
use crate::conn::slab::Slab;
use crate::flow::Family;
use crate::time::Now;

/// Entries that are looked at for one that can give way when the table is full.
const EVICT_PROBE: u32 = 64;
/// Seconds that a template lives on when it expires while it has children.
const WITH_CHILDREN_S: u32 = 60;

impl Table {
    /// Ends a connection, or a template without children. `true` for the one caller that ended it, who then settles the
    /// counts by its [`status`](Conn::status), [`real`](Conn::real) and [`parent`](Conn::parent).
    pub fn remove(&self, conn: &mut Conn<'_>) -> bool {
        let ended = if conn.is_template() { conn.end_childless() } else { conn.end() };
        if ended {
            self.bury(conn);
        }
        ended
    }

    /// Ends what has expired, and shows it to the caller, who settles the counts. A template with children lives on, and
    /// from now on a minute at a time, whatever its timeout was: so does IPVS (IPVS-REFERENCE 3.4 and 3.5).
    pub fn lapse(&self, conn: &mut Conn<'_>, now: Now) -> bool {
        if conn.is_template() && conn.children() > 0 {
            conn.touch(now, WITH_CHILDREN_S);
            return false;
        }
        self.remove(conn)
    }

    /// Takes an ended entry from the index and gives it back.
    fn bury(&self, conn: &Conn<'_>) {
        let flow = conn.flow();
        if !conn.is_note() {
            let hash = if conn.is_template() { self.hash_of_template(conn) } else { self.hash(&flow) };
            self.index.remove(hash, conn.id().0);
            self.forget_call(conn);
        }
        if conn.is_owed() {
            // Who owes the answers' key takes it out again, if it came to that. It may have been here before.
            if !let_go(conn.tail(tail::CONTROL), BURIAL) {
                return;
            }
        } else if let Some(reply) = conn.reply_flow() {
            self.index.remove(self.hash(&reply), conn.id().0);
        }
        self.free(conn);
    }

    pub(super) fn free(&self, conn: &Conn<'_>) {
        // In this order, so that whoever is let in by the count finds a free entry.
        self.slab(conn.id()).give_back(conn);
        self.live.fetch_sub(1, Relaxed);
    }

    /// Ends the half-open connection that was quiet for longest, of a few that it looks at, to make room; one of the
    /// other family if this one has none, because both share the capacity. Established ones never give way to new
    /// ones. The caller settles the counts.
    pub fn evict(&self, family: Family, ended: impl FnOnce(&Conn<'_>)) -> bool {
        let slabs = if family == Family::Inet { [&self.v4, &self.v6] } else { [&self.v6, &self.v4] };
        let Some(mut conn) = slabs.into_iter().find_map(|slab| self.oldest_half_open(slab)) else { return false };
        let won = self.remove(&mut conn);
        if won {
            ended(&conn);
        }
        won
    }

    fn oldest_half_open<'t>(&self, slab: &'t Slab) -> Option<Conn<'t>> {
        let used = slab.used.load(Relaxed);
        let start = self.rover.fetch_add(EVICT_PROBE, Relaxed);
        let candidates = (0..EVICT_PROBE.min(used)).map(|step| slab.entry(start.wrapping_add(step) % used));
        candidates
            .filter(|conn| conn.is_live() && !conn.is_template() && conn.is_half_open())
            .min_by_key(Conn::last_seen)
    }
}
