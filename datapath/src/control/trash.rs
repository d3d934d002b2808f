//! Removed servers that are not yet forgotten, and the records that nobody uses.
//!
//! A removed server waits here with its record: its connections refer to it, and adding it again brings back its
//! counts (IPVS-REFERENCE 1.3). Invariant: a record is with a member of a service, in the trash, free, or was never
//! used; and the trash has each server of a service once.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use xvs_engine::real::{Arena, RealId};
use xvs_redirect::Key;

use super::entry::Member;
use super::protocol::ServiceId;

/// Milliseconds that a removed server without connections is kept, so that adding it again keeps its counters.
pub(super) const TRASH_MS: u64 = 120_000;

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
    removed: HashMap<(ServiceId, SocketAddr), Trashed>,
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
        self.removed.insert((id, trashed.member.spec.address), trashed);
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

    /// Forgets what has no connections and was here for long enough. Gives the keys that were steered for it.
    pub(super) fn empty(&mut self, arena: &Arena, now_ms: u64) -> Vec<Key> {
        let mut keys = Vec::new();
        self.removed.retain(|_, trashed| {
            let real = trashed.member.real;
            let over = is_idle(arena, real) && now_ms.saturating_sub(trashed.since_ms) >= TRASH_MS;
            if over {
                keys.append(&mut trashed.member.steered);
                self.free.push(real);
            }
            !over
        });
        keys
    }
}

/// No connection and no template refers to it?
pub(super) fn is_idle(arena: &Arena, real: RealId) -> bool {
    arena.get(real).is_idle()
}
