//! Into the tunnel: what fits it, and the wrapping itself.
//!
//! A connection keeps its method for life, but the encapsulation is the real server's of the moment: editing it moves
//! the connections that live (IPVS-REFERENCE 1.2).

use super::{Bound, Engine};
use crate::drop::DropReason;
use crate::flow::Family;
use crate::forward::{mss, tun};
use crate::real::{Method, Real};
use crate::time::Now;
use crate::wire::{Headers, Packet};

/// The least that a tunnel must leave for the packet inside, by the family outside: what the IP versions guarantee.
const LEAST4: usize = 68;
const LEAST6: usize = 1280;

/// The largest IP packet of a client that reaches a real server by this method.
#[inline]
pub(super) fn room_to(real: &Real<'_>, method: Method, now: Now) -> Result<usize, DropReason> {
    if method != Method::Tun {
        return Ok(real.mtu());
    }
    let outer = real.endpoint().address.family();
    let room = real.path_mtu(now).saturating_sub(real.tunnel().overhead(outer));
    let least = if outer == Family::Inet { LEAST4 } else { LEAST6 };
    if room < least { Err(DropReason::TunnelMtu) } else { Ok(room) }
}

/// The largest IP packet on the way to a real server: of a tunnel the outer one.
#[cold]
pub(super) fn way_to(real: &Real<'_>, method: Method, now: Now) -> usize {
    if method == Method::Tun { real.path_mtu(now) } else { real.mtu() }
}

impl Engine {
    /// Wraps a packet of a connection for its real server. The packet then starts with the outer IP header.
    #[inline]
    pub(super) fn wrap(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        bound: &Bound<'_>,
        real: &Real<'_>,
        room: usize,
    ) -> Result<(), DropReason> {
        let switches = &self.shared.switches;
        if switches.mss_clamp.is_on() && mss::clamp(packet.bytes_mut(), &headers, room) {
            self.counters.mss_clamped.add(1);
        }
        let source = real.source().ok_or(DropReason::NoRoute)?;
        let ends = tun::Ends { source, server: real.endpoint().address, tunnel: real.tunnel() };
        // By the connection, if there is one: a later fragment has no ports, and an ICMP error others.
        let packets = headers.flow;
        let flow = || self.shared.table.hash(&bound.conn().map_or(packets, |conn| conn.flow()));
        tun::encapsulate(packet, headers, &ends, switches.pmtu_disc.is_on(), flow, || self.next_ident())
            .ok_or(DropReason::NoRoom)
    }
}
