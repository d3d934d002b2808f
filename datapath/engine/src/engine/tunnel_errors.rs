//! ICMP errors about the director's own tunnels: a router on the way to a TUN real server tells the director, and the
//! director tells the client that the packet inside came from (IPVS-REFERENCE 4.6).
//!
//! A path MTU is taken in first: it counts for all packets to that server for a while, so that the next one that is too
//! large is refused here. Then the error is made anew, about the packet inside, as if the VIP had sent it.
//!
//! Invariant: an error is believed only if it quotes a packet that a living connection may have sent, through the
//! tunnel that its server has now; and a path MTU only within bounds. What is for nobody (IPv6 on either side, or a
//! packet that might have been fragmented) is taken in, and counted as dropped by a name of its own.

use super::{Engine, Verdict, hop_of, room_to};
use crate::conn::Side;
use crate::drop::DropReason;
use crate::flow::Family;
use crate::forward::icmp::{self, Error};
use crate::forward::quoted::Opened;
use crate::real::Method;
use crate::time::Now;
use crate::wire::{Fragment, Headers, Packet};

/// Nobody is believed who tells of less: the kernel's `ip_rt_min_pmtu`, and what IPv6 guarantees.
const LEAST4: u32 = 552;
const LEAST6: u32 = 1280;

impl Engine {
    /// Takes in an error about a tunnel, and passes it on to the client that it concerns.
    #[cold]
    pub(super) fn tunnel_error(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        opened: Opened,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let inner = &opened.inner;
        if matches!(inner.fragment, Fragment::Later(_)) {
            return Err(DropReason::IcmpUnrelated);
        }
        let found = self.shared.table.lookup(&inner.flow, self.shared.table.hash(&inner.flow));
        let (conn, _) = found
            .filter(|(conn, side)| *side != Side::Out && conn.status().flags.method() == Method::Tun)
            .ok_or(DropReason::IcmpUnrelated)?;
        let real = self.shared.arena.get(conn.real());
        let is_ours = real.endpoint().address == opened.server
            && real.source() == Some(opened.source)
            && headers.flow.dst.address == opened.source
            && opened.is_by(real.tunnel());
        if !is_ours {
            return Err(DropReason::IcmpUnrelated);
        }
        let mut error = Error::read(packet.bytes(), headers.l4).ok_or(DropReason::Truncated)?;
        let told = error.too_big(headers.family);
        if let Some(mtu) = told {
            let least = if headers.family == Family::Inet { LEAST4 } else { LEAST6 };
            real.learn_mtu(mtu, least, now);
            error = icmp::Refusal::TooBig(room_to(&real, Method::Tun, now)? as u32).error(inner.family);
        }
        let whole = inner.dont_fragment(&packet.bytes()[opened.at..]);
        if headers.family == Family::Inet6 || inner.family == Family::Inet6 || told.is_some() && !whole {
            return Err(DropReason::TunnelError);
        }
        let (client, vip) = (inner.flow.src.address, inner.flow.dst.address);
        let hop = hop_of(self.path_to(client))?;
        if !self.icmp.spend(now) {
            return Err(DropReason::TunnelError);
        }
        if real.is_available() {
            self.counters.at_hand(conn.real()).count_out(headers.end - opened.at);
        }
        icmp::quote(packet, opened.at..headers.end, &error, vip, client).ok_or(DropReason::NoRoom)?;
        self.counters.related.add(1);
        self.leave(packet, 0, Family::Inet, &headers.tags, hop)
    }
}
