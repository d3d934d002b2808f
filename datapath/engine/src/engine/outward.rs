//! Connections that a real server begins: with the engine for SIP, a NAT server may call a client, or answer a packet
//! that was scheduled by itself.
//!
//! IPVS's `conn_out` (IPVS-REFERENCE 3.8, 4.4). A UDP packet of no connection that comes from a NAT server of a service
//! with the engine is the first of a connection from its receiver to the VIP, which this server has already. If the
//! service is persistent, the call's template leads to this server from now on, and a message without a Call-ID begins
//! nothing. With one-packet scheduling there is no entry: each packet finds its way by itself, with all its locks.
//!
//! Invariant: a client's connection that lives is not taken from its server. (IPVS makes a second entry of the same key,
//! which hides the first one; here it becomes a note for the server's packets alone.)

use super::open::{Choice, Opening};
use super::{Bound, Engine, Route, Verdict};
use crate::conn::Side;
use crate::drop::DropReason;
use crate::flow::{Endpoint, Flow, Protocol};
use crate::real::RealId;
use crate::service::ServiceKey;
use crate::time::Now;
use crate::wire::{Fragment, Headers, Packet};

impl Engine {
    /// The connection that this packet of a real server begins; `None` if it may not, or needs none.
    pub(super) fn outward(
        &self,
        headers: &Headers,
        payload: &[u8],
        now: Now,
    ) -> Option<Result<(Bound<'_>, Side, bool), DropReason>> {
        let Flow { protocol, src: server, dst: client } = headers.flow;
        if protocol != Protocol::UDP || self.snapshot.is_virtual(client.address) {
            return None;
        }
        self.snapshot.outward().find_map(|service| {
            let ServiceKey::Address(_, vip) = service.key else { return None };
            let mut turn = service.turn();
            let real = turn.nat_server(&self.shared.arena, server)?;
            let flow = Flow { protocol, src: client, dst: vip };
            let hash = self.shared.table.hash(&flow);
            let policy = turn.policy();
            let opening =
                Opening { flow: &flow, hash, service, policy, payload, quoted: false, arrival: self.arrival(), now };
            match self.begin(&opening, real, headers) {
                Err(DropReason::NoCallId) => None,
                begun => Some(begun),
            }
        })
    }

    /// Called under the service's lock. The opening is that of a client's packet, whose answer this one would be.
    fn begin(
        &self,
        opening: &Opening<'_>,
        id: RealId,
        headers: &Headers,
    ) -> Result<(Bound<'_>, Side, bool), DropReason> {
        let Opening { flow, hash, policy, now, .. } = *opening;
        let (table, server) = (&self.shared.table, headers.flow.src);
        // Another worker may have made it while this one waited for its turn.
        if let Some((conn, side)) = table.lookup(&headers.flow, table.hash(&headers.flow)) {
            return Ok((Bound::Conn(conn), side, false));
        }
        let template = policy.persistence.map(|persistence| self.persist_to(opening, persistence, id)).transpose()?;
        let parent = template.map(|template| template.id());
        let is_taken = table.lookup(flow, hash).is_some_and(|(conn, _)| conn.expires_in(now) > 0);
        let conn = if !policy.one_packet && !is_taken {
            let choice = Choice { real: id, port: server.port, parent };
            Some(self.enter(opening, choice).inspect_err(|_| self.shared.orphan(parent))?)
        } else {
            self.shared.orphan(parent);
            // Later fragments of a packet follow an entry, too.
            let needs_entry = !policy.one_packet || matches!(headers.fragment, Fragment::First(_));
            let note = needs_entry.then(|| self.note_answers(opening, id, server).ok_or(DropReason::TableFull));
            note.transpose()?
        };
        self.counters.at_hand(id).count_conn();
        self.counters.outward.add(1);
        let once = || {
            // There and gone: thresholds see it come and go.
            let real = self.shared.arena.get(id);
            real.bind();
            real.unbind(false);
            Bound::Outward { real: id, vip: flow.dst }
        };
        Ok((conn.map_or_else(once, Bound::Conn), Side::Out, true))
    }

    /// A packet of a real server that goes out without a connection.
    pub(super) fn outward_once(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        real: RealId,
        vip: Endpoint,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        self.counters.at_hand(real).count_out(headers.ip_len());
        let path = self.path_to(headers.flow.dst.address);
        let route = Route { source: Some(vip), path, conn: None, counter: &self.counters.outbound };
        self.route(packet, headers, route, now)
    }
}
