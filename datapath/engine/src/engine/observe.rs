//! Packets of connections that are known by other packets: answers of DR and TUN servers that cross the director, and
//! IPsec that follows its key exchange.
//!
//! DR and TUN servers answer their clients by themselves. If the director is on that way (it is the servers' gateway,
//! say) and is told to watch, it sees both directions: the connection is two-way from then on, its states and timeouts
//! are those of NAT, and answers are counted (IPVS-REFERENCE 3.1, 3.4.1, 4.4). The packet is only routed.
//!
//! AH and ESP have no ports. They follow the connection of UDP port 500 between the same client and VIP, and never make
//! one (IPVS-REFERENCE 3.2).
//!
//! Invariant: nothing here makes a connection. Not here: what is steered to the workers.

use super::{Bound, Engine, Verdict};
use crate::conn::{Conn, Flags, Side, Status};
use crate::drop::DropReason;
use crate::flow::{Endpoint, Flow, Protocol};
use crate::real::{Method, Path};
use crate::time::Now;
use crate::wire::{Headers, Packet};

/// The port of the key exchange (ISAKMP).
const ISAKMP: u16 = 500;

impl Engine {
    /// The connection of an answer that a DR or TUN server sends from the VIP.
    pub(super) fn answered(&self, headers: &Headers, now: Now) -> Option<Conn<'_>> {
        let flow = headers.flow.reversed();
        if !self.snapshot.is_virtual(flow.dst.address) {
            return None;
        }
        let (mut conn, _) = self.shared.table.lookup(&flow, self.shared.table.hash(&flow))?;
        if conn.status().flags.method() == Method::Nat || conn.client() != flow.src || conn.expires_in(now) == 0 {
            return None;
        }
        conn.update(|status| Status { flags: status.flags.with(Flags::NO_OUTPUT, false), ..status })?;
        // Without a server, it is the way of the client's packets that stands there.
        if conn.reply_path() == Path::NoRoute && conn.status().flags.method() != Method::Bypass {
            conn.set_reply_path(self.path_to(flow.src.address));
        }
        Some(conn)
    }

    /// An IPsec packet: the way of its key exchange.
    #[cold]
    pub(super) fn ipsec(&self, packet: &mut Packet<'_>, headers: Headers, now: Now) -> Result<Verdict, DropReason> {
        let port = |endpoint: Endpoint| Endpoint::new(endpoint.address, ISAKMP);
        let flow = Flow { protocol: Protocol::UDP, src: port(headers.flow.src), dst: port(headers.flow.dst) };
        let found = self.shared.table.lookup(&flow, self.shared.table.hash(&flow));
        let (conn, side) = found.filter(|(conn, _)| conn.expires_in(now) > 0).ok_or(DropReason::NoConnectionIpsec)?;
        conn.rearm(now);
        if side == Side::Out {
            self.counters.at_hand(conn.real()).count_out(headers.ip_len());
            return self.outbound(packet, headers, &conn, now);
        }
        let real = self.shared.arena.get(conn.real());
        if !real.is_available() {
            return Err(DropReason::ServerGone);
        }
        self.counters.at_hand(conn.real()).count_in(headers.ip_len());
        self.inbound(packet, headers, &Bound::Conn(conn), real, now)
    }
}
