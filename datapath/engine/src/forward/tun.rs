//! Tunnels: the packet travels to the real server inside another one, by IP in IP (RFC 2003, RFC 2473, RFC 4213), GUE
//! or GRE.
//!
//! Outer and inner family are independent: 4in4, 6in6, 6in4 (the VIP is IPv6, the server is reached by IPv4) and 4in6.
//! IPv4's "don't fragment" is copied from an inner IPv4 header if the operator has it so (`pmtu_disc`), and left off for
//! an inner IPv6 one. As IPVS does it: the outer TTL is the inner one after its decrement; the traffic class is copied,
//! with congestion marks by the full-functionality rule of RFC 3168; IPv4's identification counts on where the packet may
//! be fragmented. The headers' own rules are in [`own`](super::own), [`gue`] and [`gre`].
//!
//! Not here: fragmentation of what is too big, and the clamping of MSS ([`mss`](super::mss)).

use crate::flow::{Address, Family, FlowHash, Protocol};
use crate::tunnel::{GueChecksum, Tunnel};
use crate::wire::{Headers, Packet};

use super::own::Own;
use super::{gre, gue};

/// One end of a tunnel to the other.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The director's address.
    pub source: Address,
    /// The real server's, of the same family.
    pub server: Address,
    /// The encapsulation between them.
    pub tunnel: Tunnel,
}

/// Wraps the packet (its link header is dropped, its TTL already decremented). It then starts with the outer IP header.
/// `copy_df` is `pmtu_disc`; `flow` and `ident` are called if the tunnel needs the hash of the connection, or an
/// identification. `None` if the frame has no room.
#[inline]
pub fn encapsulate(
    packet: &mut Packet<'_>,
    headers: Headers,
    ends: &Ends,
    copy_df: bool,
    flow: impl FnOnce() -> FlowHash,
    ident: impl FnOnce() -> u16,
) -> Option<()> {
    let Ends { source, server, tunnel } = *ends;
    let frame = packet.bytes();
    let class = class(frame, &headers);
    let ttl = headers.ttl(frame);
    let whole = copy_df && headers.family == Family::Inet && headers.dont_fragment(frame);
    let inner = if headers.family == Family::Inet { Protocol::IPV4 } else { Protocol::IPV6 };
    packet.set_len(headers.end).then_some(())?;

    let overhead = tunnel.overhead(server.family());
    packet.rehead(headers.l3, overhead)?;
    let (header, payload) = packet.bytes_mut().split_at_mut(overhead - tunnel.header());
    let protocol = match tunnel {
        Tunnel::Ipip => inner,
        Tunnel::Gue { port, checksum } => {
            gue::write(payload, inner, gue::source_port(flow()), port)?;
            if checksum != GueChecksum::None {
                gue::sum(payload, source, server);
            }
            Protocol::UDP
        }
        Tunnel::Gre { checksum } => {
            gre::write(payload, headers.family, checksum);
            Protocol::GRE
        }
    };
    let ident = if whole || server.family() == Family::Inet6 { None } else { Some(ident()) };
    Own { source, destination: server, class, ttl, protocol, ident }.write(header, payload.len())
}

/// The outer traffic class: the inner one, but "congestion experienced" starts afresh as "capable" (RFC 3168, 9.1.1).
#[inline]
fn class(frame: &[u8], headers: &Headers) -> u8 {
    outer_class(match headers.family {
        Family::Inet => frame[headers.l3 + 1],
        Family::Inet6 => frame[headers.l3] << 4 | frame[headers.l3 + 1] >> 4,
    })
}

/// The outer traffic class of an inner one: both bits of the congestion that was met become the upper one.
#[inline(always)]
pub(super) const fn outer_class(class: u8) -> u8 {
    class - (class & class >> 1 & 1)
}
