//! Virtual services and their real servers.
//!
//! A service holds its list of servers and its scheduler behind one lock, taken for each *new* connection and for
//! changes, never for a packet of an existing one. Choosing a server and counting the new connection is one step under
//! that lock, so the sequence of choices is exact whatever the number of workers (decision record 0002).
//!
//! A service may have a guest, too: a scheduler outside the engine. It is asked without the lock, which is let go for it
//! and taken again; then its word is checked, and the native scheduler serves what it did not.
//!
//! Invariant: the newest server stands first in the list, as in IPVS; the scheduler hears of every change of the list
//! before the next pick; what a scheduler picks is checked before it counts.

mod policy;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use xvs_sdk::{Change, Reals, Request, Scheduler};

pub use self::policy::{Persistence, PersistenceEngine, Policy};

use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::real::{Arena, Generation, Method, RealId};
use crate::sched::Builtin;
use crate::sched::guest::{Advice, Guest, Site};

/// The key of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// Protocol and VIP:port; port 0 is every port.
    Address(Protocol, Endpoint),
    /// Firewall mark, by family.
    Mark(u32, Family),
}

impl ServiceKey {
    /// The port of the service; 0 is every port, and what a mark service has.
    pub fn port(&self) -> u16 {
        match self {
            ServiceKey::Address(_, endpoint) => endpoint.port,
            ServiceKey::Mark(..) => 0,
        }
    }

    /// Is it a mark service?
    pub fn is_mark(&self) -> bool {
        matches!(self, ServiceKey::Mark(..))
    }

    /// The key of the template that leads a packet's connection, and whether the template keeps the server's port
    /// (IPVS-REFERENCE 3.5). All ports that a service serves share one template, but for a service of one port that is
    /// not FTP's; under a mark all protocols do, too.
    pub fn template(&self, flow: &Flow, mask: u128) -> (Flow, bool) {
        let src = Endpoint::new(Address::from_bits(flow.src.address.bits() & mask), 0);
        match *self {
            ServiceKey::Mark(mark, family) if flow.dst.port != 0 => {
                (Flow { protocol: Protocol(0), src, dst: Endpoint::new(mark_address(mark, family), 0) }, false)
            }
            _ => {
                let own = flow.dst.port == self.port() && self.port() != FTP;
                let port = if own { flow.dst.port } else { 0 };
                (Flow { protocol: flow.protocol, src, dst: Endpoint::new(flow.dst.address, port) }, own)
            }
        }
    }
}

/// FTP's control port: the client's data connections follow it to the same server, and a service on it has theirs, too
/// (IPVS-REFERENCE 4.2).
pub(crate) const FTP: u16 = 21;

/// A mark in the place of an address: its first four bytes, as IPVS lists it.
fn mark_address(mark: u32, family: Family) -> Address {
    match family {
        Family::Inet => Address::v4(mark.to_be_bytes()),
        Family::Inet6 => Address::from_bits(u128::from(mark) << 96),
    }
}

/// A virtual service.
#[derive(Debug)]
pub struct Service {
    /// Its number, for connections and counters.
    pub number: u32,
    /// Its key.
    pub key: ServiceKey,
    pool: Mutex<Pool>,
    /// Set once, and silent when it is not wanted.
    guest: OnceLock<Arc<dyn Guest>>,
    /// What most policies say, packed: a copy for those who ask a guest, which needs no lock.
    terms: AtomicU32,
    /// It has an engine: a copy of what the policy says, for those who need no lock if it has none.
    has_engine: AtomicBool,
}

#[derive(Debug)]
struct Pool {
    scheduler: Builtin,
    policy: Policy,
    members: Vec<RealId>,
    /// Counts the servers that came and went.
    version: u64,
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
    pub fn new(number: u32, key: ServiceKey, scheduler: Builtin, policy: Policy) -> Self {
        let has_engine = AtomicBool::new(policy.engine.is_some());
        let terms = AtomicU32::new(policy.packed());
        let pool = Mutex::new(Pool { scheduler, policy, members: Vec::new(), version: 0 });
        Service { number, key, pool, guest: OnceLock::new(), terms, has_engine }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic elsewhere leaves a list and a scheduler that are whole: every change of them is one statement.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the service's lock, to choose a server and count its new connection in one step. Where a guest is asked
    /// first, the lock is taken when it is needed.
    #[inline]
    pub fn turn(&self) -> Turn<'_> {
        let let_go = self.asks_guest();
        Turn { service: self, pool: if let_go { None } else { Some(self.pool()) }, let_go }
    }

    /// The guest, once there is one.
    pub fn guest(&self) -> Option<&Arc<dyn Guest>> {
        self.guest.get()
    }

    /// Lets a guest in, for the service's whole life. False if there is one already.
    pub fn set_guest(&self, guest: Arc<dyn Guest>) -> bool {
        self.guest.set(guest).is_ok()
    }

    /// Is a guest asked before the native scheduler?
    pub fn asks_guest(&self) -> bool {
        self.active_guest().is_some()
    }

    fn active_guest(&self) -> Option<&dyn Guest> {
        self.guest.get().map(|guest| &**guest).filter(|guest| guest.is_active())
    }

    /// Looks at the list as it is, without the lock.
    pub fn with_site<T>(&self, arena: &Arena, look: impl FnOnce(&Site<'_>) -> T) -> T {
        let (members, version) = {
            let pool = self.pool();
            (pool.members.clone(), pool.version)
        };
        look(&Site { arena, members: &members, version })
    }

    /// What would be picked now: asked of a copy, so nothing changes.
    pub fn preview(&self, arena: &Arena, request: &Request) -> Option<RealId> {
        let request = self.named(*request, self.policy());
        let advice = self.active_guest().map(|guest| self.with_site(arena, |site| guest.preview(site, &request)));
        let pool = self.pool();
        match advice {
            Some(Advice::Nobody) => return None,
            Some(Advice::Real(real)) if pool.may_have(arena, real, None) => return Some(real),
            _ => {}
        }
        let index = pool.scheduler.clone().pick(&request, &View { arena, members: &pool.members })?;
        pool.members.get(index).copied()
    }

    /// The request with what it says of the service.
    pub fn named(&self, request: Request, policy: Policy) -> Request {
        let mark = if let ServiceKey::Mark(mark, _) = self.key { mark } else { 0 };
        Request { service: self.number, mark, flags: policy.flags, ..request }
    }

    /// Tells the guest of a change, with the lock not held: it may have to build something.
    fn tell_guest(&self, arena: &Arena, change: Change) {
        if let Some(guest) = self.guest.get() {
            self.with_site(arena, |site| guest.changed(site, change));
        }
    }

    /// The scheduler's name.
    pub fn scheduler_name(&self) -> &'static str {
        self.pool().scheduler.name()
    }

    /// The servers, newest first.
    pub fn members(&self) -> Vec<RealId> {
        self.pool().members.clone()
    }

    /// How it treats new connections.
    pub fn policy(&self) -> Policy {
        self.pool().policy
    }

    /// Has it a persistence engine?
    pub fn has_engine(&self) -> bool {
        self.has_engine.load(Relaxed)
    }

    /// Sets scheduler and policy. Templates keep what they were made with. A scheduler of the same name keeps its state; another one starts afresh.
    pub fn edit(&self, arena: &Arena, scheduler: Builtin, policy: Policy) {
        let pool = &mut *self.pool();
        pool.policy = policy;
        self.has_engine.store(policy.engine.is_some(), Relaxed);
        self.terms.store(policy.packed(), Relaxed);
        if pool.scheduler.name() != scheduler.name() {
            pool.scheduler = scheduler;
            pool.tell(arena, Change::All);
        }
    }

    /// Sets for how long its scheduler remembers, if it does.
    pub fn remember_for(&self, lblc_s: u32, lblcr_s: u32) {
        self.pool().scheduler.remember_for(lblc_s, lblcr_s);
    }

    /// Adds a server, in front of all others.
    pub fn add(&self, arena: &Arena, real: RealId) {
        {
            let pool = &mut *self.pool();
            pool.members.insert(0, real);
            pool.version += 1;
            arena.get(real).set_available(true);
            pool.tell(arena, Change::Added(0));
        }
        self.tell_guest(arena, Change::Added(0));
    }

    /// Removes a server from the list. Its connections stay.
    pub fn remove(&self, arena: &Arena, real: RealId) {
        let index = {
            let pool = &mut *self.pool();
            let Some(index) = pool.members.iter().position(|&member| member == real) else { return };
            pool.members.remove(index);
            pool.version += 1;
            arena.get(real).set_available(false);
            pool.tell(arena, Change::Removed(index));
            index
        };
        self.tell_guest(arena, Change::Removed(index));
    }

    /// Changes a server's settings: `apply` writes them, then the scheduler hears of it.
    pub fn change(&self, arena: &Arena, real: RealId, apply: impl FnOnce()) {
        let index = {
            let pool = &mut *self.pool();
            apply();
            let Some(index) = pool.members.iter().position(|&member| member == real) else { return };
            pool.tell(arena, Change::Edited(index));
            index
        };
        self.tell_guest(arena, Change::Edited(index));
    }
}

/// The right to choose: while it lasts nobody else does, but for the time that a guest is asked.
#[derive(Debug)]
pub struct Turn<'a> {
    service: &'a Service,
    pool: Option<MutexGuard<'a, Pool>>,
    let_go: bool,
}

impl<'a> Turn<'a> {
    fn pool(&mut self) -> &mut Pool {
        let service = self.service;
        self.pool.get_or_insert_with(|| service.pool())
    }

    /// How the service treats new connections.
    pub fn policy(&mut self) -> Policy {
        let packed = if self.pool.is_none() { Policy::unpacked(self.service.terms.load(Relaxed)) } else { None };
        packed.unwrap_or_else(|| self.pool().policy)
    }

    /// The server of this endpoint, if it is one by NAT.
    pub fn nat_server(&mut self, arena: &Arena, endpoint: Endpoint) -> Option<RealId> {
        let is = |id: &&RealId| arena.get(**id).endpoint() == endpoint && arena.get(**id).method() == Method::Nat;
        self.pool().members.iter().find(is).copied()
    }

    /// Was the lock not held all the time, for a guest's sake? Then others may have done what the caller is about to do.
    pub fn was_let_go(&self) -> bool {
        self.let_go
    }

    /// Asks the scheduler for a server; `None` when there is no usable one. The request names the service and its flags
    /// ([`Service::named`]). The caller binds the connection before it lets the turn go.
    #[inline]
    pub fn pick(&mut self, arena: &Arena, request: &Request) -> Option<RealId> {
        match self.service.active_guest() {
            None => self.pick_natively(arena, request),
            Some(guest) => self.pick_by(guest, arena, request),
        }
    }

    fn pick_natively(&mut self, arena: &Arena, request: &Request) -> Option<RealId> {
        let pool = self.pool();
        let view = View { arena, members: &pool.members };
        let index = pool.scheduler.pick(request, &view)?;
        pool.scheduler.accepts(&view, index).then(|| pool.members[index])
    }

    #[inline(never)]
    fn pick_by(&mut self, guest: &'a dyn Guest, arena: &Arena, request: &Request) -> Option<RealId> {
        self.pool = None;
        self.let_go = true;
        let opinion = guest.advise(arena, request);
        let chosen = match opinion.advice {
            Advice::Real(real) if self.pool().may_have(arena, real, Some(opinion.version)) => Some(real),
            Advice::Real(_) => {
                guest.overruled(request);
                self.pick_natively(arena, request)
            }
            Advice::Nobody => None,
            Advice::Native => self.pick_natively(arena, request),
        };
        if opinion.listens {
            guest.hear(arena, request, chosen);
        }
        // Others are kept out again until the caller has bound what was chosen.
        self.pool();
        chosen
    }
}

impl Pool {
    /// May a new connection go to this server? One who knows this version of the list named a member.
    fn may_have(&self, arena: &Arena, real: RealId, version: Option<u64>) -> bool {
        let server = arena.get(real);
        let is_usable = server.is_available() && !server.is_overloaded() && server.weight() > 0;
        is_usable && (version == Some(self.version) || self.members.contains(&real))
    }

    fn tell(&mut self, arena: &Arena, change: Change) {
        self.scheduler.reals_changed(&View { arena, members: &self.members }, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Address;
    use crate::real::Settings;

    fn bench(scheduler: &str, servers: u32) -> (Arena, Service) {
        let arena = Arena::new(8, Generation::New);
        let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
        let service = Service::new(0, key, Builtin::from_name(scheduler).unwrap(), Policy::default());
        for id in (0..servers).map(RealId) {
            let endpoint = Endpoint::new(Address::v4([10, 0, 0, id.0 as u8]), 80);
            arena.get(id).reset(&Settings {
                endpoint,
                method: Method::Dr,
                tunnel: Default::default(),
                weight: 1,
                upper: 0,
                lower: 0,
            });
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
        service.edit(&arena, Builtin::from_name("rr").unwrap(), Policy { flags: 1, ..Policy::default() });
        assert_eq!(picks(&arena, &service, 1), [Some(0)]);
        service.edit(&arena, Builtin::from_name("wrr").unwrap(), Policy::default());
        assert_eq!(service.scheduler_name(), "wrr");
        assert_eq!(picks(&arena, &service, 3), [2, 1, 0].map(Some));
    }

    /// A scheduler hears of a changed weight before it picks again.
    #[test]
    fn a_quiesced_server_is_not_picked() {
        for scheduler in Builtin::NAMES {
            let (arena, service) = bench(scheduler, 2);
            let real = arena.get(RealId(1));
            let mut settings = Settings {
                endpoint: real.endpoint(),
                method: Method::Dr,
                tunnel: Default::default(),
                weight: 0,
                upper: 0,
                lower: 0,
            };
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
