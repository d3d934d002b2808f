//! Removed servers that are not yet forgotten, and the records that nobody uses.
//!
//! A removed server waits here with its record: its connections refer to it, and adding it again brings back its
//! counts (IPVS-REFERENCE 1.3). Invariant: a record is with a member of a service, in the trash, free, or was never
//! used; and the trash has each server of a service once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use xvs_engine::real::{Arena, RealId};

use super::entry::Member;
use super::protocol::ServiceId;

/// Milliseconds that a removed server without connections is kept, so that adding it again keeps its counters.
pub(super) const TRASH_MS: u64 = 120_000;

/// A server of a service.
type Key = (ServiceId, SocketAddr);

/// A removed server.
#[derive(Debug)]
pub(super) struct Trashed {
    /// Number of its service, which tells that from a later one with the same key.
    pub(super) service: u32,
    pub(super) member: Member,
    pub(super) since_ms: u64,
}

/// Removed servers and free records.
#[derive(Debug, Default)]
pub(super) struct Trash {
    removed: HashMap<Key, Trashed>,
    /// Those that have not been here for long enough, and since when, in the order of their coming. Who was taken out again is
    /// passed over.
    waiting: VecDeque<(u64, Key)>,
    /// Those that have, and had connections when they were last looked at; how many are still to be looked at again.
    busy: VecDeque<(u64, Key)>,
    due: usize,
    free: Vec<RealId>,
    /// Records that were used at some time.
    used: u32,
}

impl Trash {
    /// A record that nobody uses; `None` if all are in use.
    pub(super) fn take_record(&mut self, arena: &Arena) -> Option<RealId> {
        let fresh = || ((self.used as usize) < arena.capacity()).then_some(RealId(self.used));
        let real = self.free.pop().or_else(fresh)?;
        self.used = self.used.max(real.0 + 1);
        Some(real)
    }

    /// The record is not used any more.
    pub(super) fn give_record(&mut self, real: RealId) {
        self.free.push(real);
    }

    /// How many records were used at some time.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Puts a removed server in.
    pub(super) fn put(&mut self, id: ServiceId, trashed: Trashed) {
        let key = (id, trashed.member.spec.address);
        self.waiting.push_back((trashed.since_ms, key));
        self.removed.insert(key, trashed);
    }

    /// Looks whether a server is here.
    pub(super) fn get(&self, id: &ServiceId, address: SocketAddr) -> Option<&Trashed> {
        self.removed.get(&(*id, address))
    }

    /// Takes a server out again.
    pub(super) fn revive(&mut self, id: &ServiceId, address: SocketAddr) -> Option<Trashed> {
        self.removed.remove(&(*id, address))
    }

    /// Everything in here.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.removed.values().map(|trashed| &trashed.member)
    }

    /// The records of the removed servers of these services.
    pub(super) fn reals_of(&self, service: impl Fn(&ServiceId) -> bool) -> impl Iterator<Item = RealId> {
        self.removed.iter().filter(move |((id, _), _)| service(id)).map(|(_, trashed)| trashed.member.real)
    }

    /// The services whose removed servers still have connections.
    pub(super) fn services_with_connections(&self, arena: &Arena) -> HashSet<ServiceId> {
        let busy = self.removed.iter().filter(|(_, trashed)| !is_idle(arena, trashed.member.real));
        busy.map(|((id, _), _)| *id).collect()
    }

    /// Begins to look again at those that had connections, which [`empty`](Trash::empty) carries out.
    pub(super) fn begin_to_empty(&mut self) {
        self.due = self.busy.len();
    }

    /// Looks at so many servers; forgets those that have no connections and were here for long enough, and gives them. True if
    /// there is more to do.
    pub(super) fn empty(&mut self, arena: &Arena, now_ms: u64, servers: usize) -> (Vec<Member>, bool) {
        let mut over = Vec::new();
        for _ in 0..servers {
            let Some((since_ms, key)) = self.next(now_ms) else { return (over, false) };
            let Some(trashed) = self.removed.get(&key).filter(|trashed| trashed.since_ms == since_ms) else { continue };
            if !is_idle(arena, trashed.member.real) {
                self.busy.push_back((since_ms, key));
            } else if let Some(trashed) = self.removed.remove(&key) {
                self.free.push(trashed.member.real);
                over.push(trashed.member);
            }
        }
        (over, true)
    }

    fn next(&mut self, now_ms: u64) -> Option<(u64, Key)> {
        let is_long_enough = |(since_ms, _): &mut (u64, Key)| now_ms.saturating_sub(*since_ms) >= TRASH_MS;
        self.waiting.pop_front_if(is_long_enough).or_else(|| {
            self.due = self.due.checked_sub(1)?;
            self.busy.pop_front()
        })
    }
}

/// No connection and no template refers to it?
pub(super) fn is_idle(arena: &Arena, real: RealId) -> bool {
    arena.get(real).is_idle()
}
