//! Virtual services and their real servers.
//!
//! A service holds its list of servers and its scheduler behind one lock, taken for each *new* connection and for
//! changes, never for a packet of an existing one. Choosing a server and counting the new connection is one step under
//! that lock, so the sequence of choices is exact whatever the number of workers (decision record 0002).
//!
//! Invariant: the newest server stands first in the list, as in IPVS; the scheduler hears of every change of the list
//! before the next pick; what a scheduler picks is checked before it counts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use xvs_sdk::{Change, Reals, Request, Scheduler};

use crate::flow::{Endpoint, Family, Protocol};
use crate::real::{Arena, Generation, RealId};
use crate::sched::Builtin;

/// The key of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// Protocol and VIP:port; port 0 is every port.
    Address(Protocol, Endpoint),
    /// Firewall mark, by family.
    Mark(u32, Family),
}

/// A virtual service.
#[derive(Debug)]
pub struct Service {
    /// Its number, for connections and counters.
    pub number: u32,
    /// Its key.
    pub key: ServiceKey,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    scheduler: Builtin,
    flags: u8,
    members: Vec<RealId>,
}

/// The servers of a service, as its scheduler sees them.
struct View<'a> {
    arena: &'a Arena,
    members: &'a [RealId],
}

impl Reals for View<'_> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn weight(&self, index: usize) -> i32 {
        self.arena.get(self.members[index]).weight()
    }

    fn active(&self, index: usize) -> u32 {
        self.arena.get(self.members[index]).counts().active
    }

    fn total(&self, index: usize) -> u32 {
        self.arena.get(self.members[index]).counts().total
    }

    fn is_overloaded(&self, index: usize) -> bool {
        self.arena.get(self.members[index]).is_overloaded()
    }

    fn last_weight(&self, index: usize) -> i32 {
        self.arena.get(self.members[index]).last_weight()
    }

    fn address(&self, index: usize) -> ([u8; 16], u16) {
        let endpoint = self.arena.get(self.members[index]).endpoint();
        (endpoint.address.octets16(), endpoint.port)
    }

    fn is_usable(&self, index: usize) -> bool {
        let real = self.arena.get(self.members[index]);
        !real.is_overloaded() && real.weight() > 0
    }

    fn overhead(&self, index: usize) -> u64 {
        let counts = self.arena.get(self.members[index]).counts();
        let connections = match self.arena.generation() {
            Generation::New => counts.total,
            Generation::Old => counts.inactive(),
        };
        256 * u64::from(counts.active) + u64::from(connections)
    }
}

impl Service {
    /// A service without servers.
    pub fn new(number: u32, key: ServiceKey, scheduler: Builtin, flags: u8) -> Self {
        Service { number, key, pool: Mutex::new(Pool { scheduler, flags, members: Vec::new() }) }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic elsewhere leaves a list and a scheduler that are whole: every change of them is one statement.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the service's lock, to choose a server and count its new connection in one step.
    pub fn turn(&self) -> Turn<'_> {
        Turn(self.pool())
    }

    /// What the scheduler would pick now: asked of a copy, so nothing changes.
    pub fn preview(&self, arena: &Arena, request: &Request) -> Option<RealId> {
        let pool = self.pool();
        let request = Request { flags: pool.flags, ..*request };
        let index = pool.scheduler.clone().pick(&request, &View { arena, members: &pool.members })?;
        pool.members.get(index).copied()
    }

    /// The scheduler's name.
    pub fn scheduler_name(&self) -> &'static str {
        self.pool().scheduler.name()
    }

    /// The servers, newest first.
    pub fn members(&self) -> Vec<RealId> {
        self.pool().members.clone()
    }

    /// Sets scheduler and flags. A scheduler of the same name keeps its state; another one starts afresh.
    pub fn edit(&self, arena: &Arena, scheduler: Builtin, flags: u8) {
        let pool = &mut *self.pool();
        pool.flags = flags;
        if pool.scheduler.name() != scheduler.name() {
            pool.scheduler = scheduler;
            pool.tell(arena, Change::All);
        }
    }

    /// Adds a server, in front of all others.
    pub fn add(&self, arena: &Arena, real: RealId) {
        let pool = &mut *self.pool();
        pool.members.insert(0, real);
        arena.get(real).set_available(true);
        pool.tell(arena, Change::Added(0));
    }

    /// Removes a server from the list. Its connections stay.
    pub fn remove(&self, arena: &Arena, real: RealId) {
        let pool = &mut *self.pool();
        if let Some(index) = pool.members.iter().position(|&member| member == real) {
            pool.members.remove(index);
            arena.get(real).set_available(false);
            pool.tell(arena, Change::Removed(index));
        }
    }

    /// Changes a server's settings: `apply` writes them, then the scheduler hears of it.
    pub fn change(&self, arena: &Arena, real: RealId, apply: impl FnOnce()) {
        let pool = &mut *self.pool();
        apply();
        if let Some(index) = pool.members.iter().position(|&member| member == real) {
            pool.tell(arena, Change::Edited(index));
        }
    }
}

/// The right to choose: while it lasts nobody else does.
#[derive(Debug)]
pub struct Turn<'a>(MutexGuard<'a, Pool>);

impl Turn<'_> {
    /// Asks the scheduler for a server; `None` when there is no usable one. The caller binds the connection before it
    /// lets the turn go.
    pub fn pick(&mut self, arena: &Arena, request: &Request) -> Option<RealId> {
        let pool = &mut *self.0;
        let request = Request { flags: pool.flags, ..*request };
        let view = View { arena, members: &pool.members };
        let index = pool.scheduler.pick(&request, &view)?;
        pool.scheduler.accepts(&view, index).then(|| pool.members[index])
    }
}

impl Pool {
    fn tell(&mut self, arena: &Arena, change: Change) {
        self.scheduler.reals_changed(&View { arena, members: &self.members }, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Address;
    use crate::real::{Method, Settings};

    fn bench(scheduler: &str, servers: u32) -> (Arena, Service) {
        let arena = Arena::new(8, Generation::New);
        let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
        let service = Service::new(0, key, Builtin::from_name(scheduler).unwrap(), 0);
        for id in (0..servers).map(RealId) {
            let endpoint = Endpoint::new(Address::v4([10, 0, 0, id.0 as u8]), 80);
            arena.get(id).reset(&Settings { endpoint, method: Method::Dr, weight: 1, upper: 0, lower: 0 });
            service.add(&arena, id);
        }
        (arena, service)
    }

    fn picks(arena: &Arena, service: &Service, count: usize) -> Vec<Option<u32>> {
        let pick = || service.turn().pick(arena, &Request::default()).map(|id| id.0);
        (0..count).map(|_| pick()).collect()
    }

    /// The newest server stands first, and a removed one is out of the list and not available.
    #[test]
    fn the_newest_stands_first() {
        let (arena, service) = bench("rr", 3);
        assert_eq!(service.members(), [2, 1, 0].map(RealId));
        assert_eq!(picks(&arena, &service, 4), [2, 1, 0, 2].map(Some));
        service.remove(&arena, RealId(1));
        assert!(!arena.get(RealId(1)).is_available());
        assert_eq!(picks(&arena, &service, 3), [0, 2, 0].map(Some));
        service.remove(&arena, RealId(1));
        assert_eq!(service.members(), [2, 0].map(RealId), "removing twice is removing once");
    }

    /// A preview tells what the next pick will be, and changes nothing.
    #[test]
    fn a_preview_changes_nothing() {
        for scheduler in Builtin::NAMES {
            let (arena, service) = bench(scheduler, 3);
            for _ in 0..7 {
                let preview = service.preview(&arena, &Request::default());
                assert_eq!(preview, service.preview(&arena, &Request::default()));
                let picked = service.turn().pick(&arena, &Request::default());
                assert_eq!(preview, picked);
                arena.get(picked.unwrap()).bind();
            }
        }
    }

    /// Editing a service keeps its scheduler's state if the name is the same, and starts afresh if not.
    #[test]
    fn an_edit_keeps_the_state_of_the_same_scheduler() {
        let (arena, service) = bench("rr", 3);
        assert_eq!(picks(&arena, &service, 2), [2, 1].map(Some));
        service.edit(&arena, Builtin::from_name("rr").unwrap(), 1);
        assert_eq!(picks(&arena, &service, 1), [Some(0)]);
        service.edit(&arena, Builtin::from_name("wrr").unwrap(), 0);
        assert_eq!(service.scheduler_name(), "wrr");
        assert_eq!(picks(&arena, &service, 3), [2, 1, 0].map(Some));
    }

    /// A scheduler hears of a changed weight before it picks again.
    #[test]
    fn a_quiesced_server_is_not_picked() {
        for scheduler in Builtin::NAMES {
            let (arena, service) = bench(scheduler, 2);
            let real = arena.get(RealId(1));
            let mut settings =
                Settings { endpoint: real.endpoint(), method: Method::Dr, weight: 0, upper: 0, lower: 0 };
            service.change(&arena, RealId(1), || real.set(&settings));
            // A hash may lead to the quiesced server, and then there is none.
            let other = if matches!(*scheduler, "dh" | "sh" | "mh") { None } else { Some(0) };
            assert_eq!(picks(&arena, &service, 3), [other; 3], "{scheduler}");
            service.remove(&arena, RealId(0));
            assert_eq!(picks(&arena, &service, 2), [None; 2], "{scheduler}");
            settings.weight = 2;
            service.change(&arena, RealId(1), || real.set(&settings));
            assert_eq!(picks(&arena, &service, 2), [Some(1); 2], "{scheduler}");
        }
    }
}
