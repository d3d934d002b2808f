//! The right to choose a server.
//!
//! Invariant: while it lasts nobody else chooses, but for the time that a guest is asked without the lock; what a scheduler
//! or a guest picks is checked before it counts.

use std::sync::MutexGuard;

use xvs_sdk::Request;

use super::view::View;
use super::{Policy, Pool, Service, Terms};
use crate::flow::Endpoint;
use crate::real::{Arena, Method, RealId};
use crate::sched::guest::{Advice, Guest};

/// The right to choose: while it lasts nobody else does, but for the time that a guest is asked.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(super) service: &'a Service,
    pub(super) pool: Option<MutexGuard<'a, Pool>>,
    pub(super) let_go: bool,
}

impl Service {
    /// Takes the service's lock, to choose a server and count the new connection in one step. Where a guest is asked
    /// first, the lock is taken when it is needed.
    #[inline]
    pub fn turn(&self) -> Turn<'_> {
        let let_go = self.asks_guest();
        Turn { service: self, pool: if let_go { None } else { Some(self.pool()) }, let_go }
    }

    /// The same with what its policy says, for a service of the plain sort: without a guest, persistence or engine. None,
    /// and nothing done, of another.
    #[inline(always)]
    pub(crate) fn plain_turn(&self) -> Option<(PlainTurn<'_>, Terms)> {
        if self.asks_guest() || !self.terms().is_all() {
            return None;
        }
        let pool = self.pool();
        // Under the lock now: they may have changed before.
        let terms = self.terms();
        terms.is_all().then_some((PlainTurn(pool), terms))
    }

    /// What its policy says, if a guest is asked first and the policy is else one of the plain sort.
    #[inline]
    pub(crate) fn guided_terms(&self) -> Option<Terms> {
        let terms = self.terms();
        (self.asks_guest() && terms.is_all()).then_some(terms)
    }
}

/// The right to choose by the native scheduler alone, or what is left of a turn when somebody was chosen.
#[derive(Debug)]
pub(crate) struct PlainTurn<'a>(MutexGuard<'a, Pool>);

impl PlainTurn<'_> {
    /// As [`Turn::pick`].
    pub(crate) fn pick(&mut self, arena: &Arena, request: &Request) -> Option<RealId> {
        self.0.pick(arena, request)
    }

    /// The same without a request. None if the scheduler has to be asked with one; it was not asked then.
    #[inline(always)]
    pub(crate) fn pick_by_servers(&mut self, arena: &Arena) -> Option<Option<RealId>> {
        self.0.pick_by_servers(arena)
    }
}

impl Pool {
    /// A function of its own, so that all it needs is in registers.
    #[inline(never)]
    fn pick_by_servers(&mut self, arena: &Arena) -> Option<Option<RealId>> {
        let Pool { scheduler, members, .. } = self;
        let view = View::new(arena, members);
        let picked = scheduler.pick_by_servers(&view)?;
        Some(picked.filter(|&index| scheduler.accepts(&view, index)).map(|index| members[index]))
    }
}

impl<'a> Turn<'a> {
    fn pool(&mut self) -> &mut Pool {
        let service = self.service;
        self.pool.get_or_insert_with(|| service.pool())
    }

    /// How the service treats new connections.
    pub fn policy(&mut self) -> Policy {
        let packed = if self.pool.is_none() { self.service.terms().policy() } else { None };
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

    /// With the lock held, now that somebody was chosen.
    pub(crate) fn into_plain(mut self) -> PlainTurn<'a> {
        let service = self.service;
        PlainTurn(self.pool.take().unwrap_or_else(|| service.pool()))
    }

    fn pick_natively(&mut self, arena: &Arena, request: &Request) -> Option<RealId> {
        self.pool().pick(arena, request)
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
