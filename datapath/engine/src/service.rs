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
#[cfg(test)]
mod tests;
mod turn;
mod view;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use xvs_sdk::{Change, Request, Scheduler};

pub(crate) use self::policy::Terms;
pub use self::policy::{Persistence, PersistenceEngine, Policy};
pub(crate) use self::turn::PlainTurn;
pub use self::turn::Turn;
use self::view::View;

use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::real::{Arena, RealId};
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

impl Service {
    /// A service without servers.
    pub fn new(number: u32, key: ServiceKey, scheduler: Builtin, policy: Policy) -> Self {
        let has_engine = AtomicBool::new(policy.engine.is_some());
        let terms = AtomicU32::new(policy.terms().0);
        let pool = Mutex::new(Pool { scheduler, policy, members: Vec::new(), version: 0 });
        Service { number, key, pool, guest: OnceLock::new(), terms, has_engine }
    }

    #[inline]
    fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic elsewhere leaves a list and a scheduler that are whole: every change of them is one statement.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn terms(&self) -> Terms {
        Terms(self.terms.load(Relaxed))
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
    #[inline]
    pub fn asks_guest(&self) -> bool {
        self.active_guest().is_some()
    }

    #[inline]
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
        let index = pool.scheduler.clone().pick(&request, &View::new(arena, &pool.members))?;
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
        self.terms.store(policy.terms().0, Relaxed);
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

impl Pool {
    /// Asks the scheduler; what it picks is checked.
    fn pick(&mut self, arena: &Arena, request: &Request) -> Option<RealId> {
        let view = View::new(arena, &self.members);
        let index = self.scheduler.pick(request, &view)?;
        self.scheduler.accepts(&view, index).then(|| self.members[index])
    }

    /// May a new connection go to this server? One who knows this version of the list named a member.
    fn may_have(&self, arena: &Arena, real: RealId, version: Option<u64>) -> bool {
        let server = arena.get(real);
        let is_usable = server.is_available() && server.open_weight() > 0;
        is_usable && (version == Some(self.version) || self.members.contains(&real))
    }

    fn tell(&mut self, arena: &Arena, change: Change) {
        self.scheduler.reals_changed(&View::new(arena, &self.members), change);
    }
}
