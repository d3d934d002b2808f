//! Out of the tunnel: the packet inside a tunnel's packet that an ICMP error quotes.
//!
//! Strips what [`tun`](super::tun) has put on: the outer IP header, and that of GUE or GRE. Only what IPVS knows is opened:
//! GUE of version 0 that is no control message, GRE with no flag but its checksum's (IPVS-REFERENCE 4.6).
//!
//! Invariant: the inner IP header and eight bytes behind it are there, or it is an error: they are what its sender needs
//! to recognise it. Routers that quote no more than 28 bytes (RFC 792) leave nothing to go by.

use crate::drop::DropReason;
use crate::flow::{Address, Family, Protocol};
use crate::tunnel::Tunnel;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers};

use super::gue;
use super::icmp::Quote;

/// A quoted packet out of its tunnel.
#[derive(Debug)]
pub struct Opened {
    /// Where the tunnel began and where it led to.
    pub source: Address,
    /// The far end.
    pub server: Address,
    carrier: Carrier,
    /// Where the inner packet starts in the frame.
    pub at: usize,
    /// Its headers, from there.
    pub inner: Headers,
}

/// What carried the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Ip,
    Udp(u16),
    Gre,
}

impl Opened {
    /// Is this what a server's encapsulation makes of packets?
    pub fn is_by(&self, tunnel: Tunnel) -> bool {
        match tunnel {
            Tunnel::Ipip => self.carrier == Carrier::Ip,
            Tunnel::Gue { port, .. } => self.carrier == Carrier::Udp(port),
            Tunnel::Gre { .. } => self.carrier == Carrier::Gre,
        }
    }
}

impl Quote {
    /// Opens the quoted packet, if a tunnel may have carried it: by its protocol. The frame is that of the error, `end` the
    /// end of it. `None` for other protocols.
    ///
    /// # Errors
    /// Too little of the packet was quoted, or it is of no tunnel that is ours.
    pub fn open(&self, frame: &[u8], end: usize) -> Option<Result<Opened, DropReason>> {
        let flow = self.headers.flow;
        let l4 = self.at + self.headers.l4;
        let rest = frame.get(l4..end).unwrap_or_default();
        let (carrier, skipped) = match flow.protocol {
            Protocol::IPV4 => (Carrier::Ip, Ok((0, Family::Inet))),
            Protocol::IPV6 => (Carrier::Ip, Ok((0, Family::Inet6))),
            Protocol::UDP if gue::is_source_port(flow.src.port) => (Carrier::Udp(flow.dst.port), behind_gue(rest)),
            Protocol::GRE => (Carrier::Gre, behind_gre(rest)),
            _ => return None,
        };
        let inner = skipped.and_then(|(skip, family)| {
            let rest = rest.get(skip..).unwrap_or_default();
            match Headers::parse_quoted(rest) {
                Ok(inner) if inner.family != family => Err(DropReason::IcmpUnrelated),
                Ok(inner) if rest.len() < inner.l4 + 8 => Err(DropReason::TunnelQuote),
                Ok(inner) => Ok((l4 + skip, inner)),
                Err(DropReason::Truncated) => Err(DropReason::TunnelQuote),
                Err(_) => Err(DropReason::IcmpUnrelated),
            }
        });
        let (source, server) = (flow.src.address, flow.dst.address);
        Some(inner.map(|(at, inner)| Opened { source, server, carrier, at, inner }))
    }
}

/// Behind UDP and GUE: how many bytes, and what follows.
fn behind_gue(datagram: &[u8]) -> Result<(usize, Family), DropReason> {
    let header: &[u8; 4] = datagram.get(8..).and_then(<[u8]>::first_chunk).ok_or(DropReason::TunnelQuote)?;
    let family = match (header[0] & 0xe0, Protocol(header[1])) {
        (0, Protocol::IPV4) => Family::Inet,
        (0, Protocol::IPV6) => Family::Inet6,
        _ => return Err(DropReason::IcmpUnrelated),
    };
    Ok((12 + usize::from(header[0] & 0x1f) * 4, family))
}

/// Behind GRE: how many bytes, and what follows.
fn behind_gre(packet: &[u8]) -> Result<(usize, Family), DropReason> {
    let header: &[u8; 4] = packet.first_chunk().ok_or(DropReason::TunnelQuote)?;
    let skip = match [header[0], header[1]] {
        [0x00, 0] => 4,
        [0x80, 0] => 8,
        _ => return Err(DropReason::IcmpUnrelated),
    };
    match u16::from_be_bytes([header[2], header[3]]) {
        ETHERTYPE_IPV4 => Ok((skip, Family::Inet)),
        ETHERTYPE_IPV6 => Ok((skip, Family::Inet6)),
        _ => Err(DropReason::IcmpUnrelated),
    }
}
