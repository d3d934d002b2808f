//! Packets that go to their own destination, because a mark service has no usable server for them: `cache_bypass`, made
//! for transparent caches whose clients should reach the net when no cache is there (IPVS-REFERENCE 4.3, 4.5.5).
//!
//! The connection has an entry of its own method, without a server: the record of nobody stands in for it, whose counts
//! are never told. In the word where NAT keeps the way of the answers stands the way of the packets. The connection goes
//! on like that for as long as it lives, even when a server is there again, as in IPVS.
//!
//! Invariant: nothing goes out that was for the director itself or for many. Not here: states and timers, which are those
//! of any connection whose answers do not come by.

use super::open::Opening;
use super::{Bound, Engine, Route, Shared, Verdict};
use crate::conn::{Conn, Flags, NewConn, Side, Status, state};
use crate::drop::DropReason;
use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::real::{Method, Path};
use crate::service::Service;
use crate::time::Now;
use crate::wire::{Headers, Packet};

impl Engine {
    /// A new connection that no server is there for: it goes on to its own destination, if that is wanted.
    pub(super) fn go_on(
        &self,
        opening: &Opening<'_>,
        headers: &Headers,
    ) -> Result<(Bound<'_>, Side, bool), DropReason> {
        let Opening { flow, hash, service, policy, now, .. } = *opening;
        if !self.shared.may_bypass(service, flow) {
            return Err(DropReason::NoServer);
        }
        let path = self.path_to(flow.dst.address);
        if path == Path::Local {
            return Err(DropReason::NoServer);
        }
        let none = if flow.family() == Family::Inet { Address::v4([0; 4]) } else { Address::v6([0; 16]) };
        let (real, server) = (self.shared.arena.nobody(), Endpoint::new(none, 0));
        if policy.one_packet && flow.protocol == Protocol::UDP {
            return Ok((Bound::Once { real, method: Method::Bypass, server }, Side::InOnly, true));
        }
        let new = NewConn {
            flow: *flow,
            server,
            real,
            service: service.number,
            status: Status { state: state::FIRST, flags: Flags::new(Method::Bypass) },
            timeout_s: 3, // until the first packet's own state sets another
            reply_path: path,
            class: policy.class,
            parent: None,
        };
        let mut conn = self.insert(flow, |table| table.insert(&new, hash, now))?;
        self.shared.arena.get(real).bind();
        self.counters.opened.add(1);
        self.track(&mut conn, Side::InOnly, headers, now);
        Ok((Bound::Conn(conn), Side::InOnly, true))
    }

    /// A packet to its own destination.
    #[cold]
    pub(super) fn bypass(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        bound: &Bound<'_>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let conn = bound.conn();
        let path = conn.map_or_else(|| self.path_to(headers.flow.dst.address), |conn| conn.reply_path());
        let route = Route { source: None, path, conn: conn.as_ref(), counter: &self.counters.bypassed };
        self.route(packet, headers, route, now)
    }

    /// An answer to such packets that crosses the director: the connection keeps the way of the packets, not of answers.
    #[cold]
    pub(super) fn answer_bypassed(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        conn: &Conn<'_>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let path = self.path_to(conn.client().address);
        let route = Route { source: None, path, conn: Some(conn), counter: &self.counters.outbound };
        self.route(packet, headers, route, now)
    }
}

impl Shared {
    /// May a packet of this flow go to its own destination when its service has no server? It may if that is wanted, the
    /// service is one by mark, and the destination a single host; that it is none of the director's, the routes tell.
    pub(crate) fn may_bypass(&self, service: &Service, flow: &Flow) -> bool {
        self.switches.cache_bypass.is_on() && service.key.is_mark() && flow.dst.address.is_host()
    }
}
