//! ICMP and ICMPv6 errors: those that pass through ([`Quote`]), and those that the director sends itself ([`refuse`],
//! [`quote`]).
//!
//! An error quotes the packet that it is about. To be understood by the peer behind a NAT, its own addresses and those
//! in the quotation are translated; the transport checksum in the quotation is left as it is, as IPVS does.
//!
//! Invariant: an error is never sent about an ICMP error, nor about a fragment that is not the first (RFC 1122).

use std::ops::Range;

use crate::drop::DropReason;
use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::{Fragment, Headers, Mac, Packet, get_u16, put_u16};

use super::link;
use super::nat::{self, End};
use super::own::Own;

/// Length of an ICMP header.
const HEADER: usize = 8;
/// IPv4: an error is at most 576 bytes long (RFC 1812, 4.3.2.3).
const QUOTE4: usize = 576 - 20 - HEADER;
/// IPv6: an error fits the minimum MTU (RFC 4443, 2.4 c).
const QUOTE6: usize = 1280 - 40 - HEADER;
/// The TTL of an error that the director sends.
const TTL: u8 = 64;

/// What the director tells a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// TTL or hop limit used up.
    TimeExceeded,
    /// No real server for this service.
    PortUnreachable,
    /// Too big for the way ahead; with the largest IP packet that would fit.
    TooBig(u32),
}

impl Refusal {
    /// The error that says so.
    pub const fn error(self, family: Family) -> Error {
        let (kind, code) = match (self, family) {
            (Refusal::TimeExceeded, Family::Inet) => (11, 0),
            (Refusal::PortUnreachable, Family::Inet) => (3, 3),
            (Refusal::TooBig(_), Family::Inet) => (3, 4),
            (Refusal::TimeExceeded, Family::Inet6) => (3, 0),
            (Refusal::PortUnreachable, Family::Inet6) => (1, 4),
            (Refusal::TooBig(_), Family::Inet6) => (2, 0),
        };
        let rest = match (self, family) {
            // IPv4 has 16 bits for it, behind two that are 0.
            (Refusal::TooBig(mtu), Family::Inet) if mtu > 0xffff => 0xffff,
            (Refusal::TooBig(mtu), _) => mtu,
            _ => 0,
        };
        Error { kind, code, rest }
    }
}

/// What an ICMP header says, checksum apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum.
    pub rest: u32,
}

impl Error {
    /// Reads the ICMP header at `l4`; `None` if it is not all there.
    pub fn read(frame: &[u8], l4: usize) -> Option<Error> {
        let [kind, code, _, _, rest @ ..] = frame.get(l4..)?.first_chunk::<HEADER>()?;
        Some(Error { kind: *kind, code: *code, rest: u32::from_be_bytes(*rest) })
    }

    /// The size that would fit, if it tells of a packet too big.
    pub const fn too_big(&self, family: Family) -> Option<u32> {
        match (family, self.kind, self.code) {
            (Family::Inet, 3, 4) => Some(self.rest & 0xffff),
            (Family::Inet6, 2, _) => Some(self.rest),
            _ => None,
        }
    }
}

/// Turns the packet into an error about itself, from `source` back to where the frame came from. `false` (and the
/// packet is spoilt) if there is no room for it.
pub fn refuse(packet: &mut Packet<'_>, headers: Headers, source: Address, refusal: Refusal) -> bool {
    build(packet, headers, source, refusal).is_some()
}

fn build(packet: &mut Packet<'_>, headers: Headers, source: Address, refusal: Refusal) -> Option<()> {
    let frame = packet.bytes();
    let from: Mac = *frame.first_chunk()?;
    let to: Mac = *frame[6..].first_chunk()?;
    let Headers { family, l3, end, flow, tags, .. } = headers;
    quote(packet, l3..end, &refusal.error(family), source, flow.src.address)?;
    link::write_header(packet, 0, family, &tags, from, to)
}

/// Makes an error that quotes an IP packet, as much of it as may be, which stands in this range of the frame. The packet
/// then starts with the error's IP header. `None` if there is no room for it.
pub fn quote(packet: &mut Packet<'_>, quoted: Range<usize>, error: &Error, source: Address, to: Address) -> Option<()> {
    let (ip, quote) = match source.family() {
        Family::Inet => (20, quoted.len().min(QUOTE4)),
        Family::Inet6 => (40, quoted.len().min(QUOTE6)),
    };
    packet.rehead(quoted.start, ip + HEADER)?;
    packet.set_len(ip + HEADER + quote).then_some(())?;
    let bytes = packet.bytes_mut();
    bytes[..ip + HEADER].fill(0);

    bytes[ip] = error.kind;
    bytes[ip + 1] = error.code;
    bytes[ip + 4..ip + HEADER].copy_from_slice(&error.rest.to_be_bytes());
    let length = HEADER + quote;
    let (class, protocol) = match source.family() {
        Family::Inet => (0xc0, Protocol::ICMP), // internetwork control, as RFC 1812 asks for
        Family::Inet6 => (0, Protocol::ICMPV6),
    };
    Own { source, destination: to, class, ttl: TTL, protocol, ident: Some(0) }.write(bytes, length)?;
    let checksum = sum(bytes, ip, ip + length, source, to).finish();
    put_u16(bytes, ip + 2, checksum);
    Some(())
}

/// The sum over an ICMP message: IPv6 includes the pseudo-header.
fn sum(bytes: &[u8], l4: usize, end: usize, src: Address, dst: Address) -> Sum {
    let sum = match src.family() {
        Family::Inet => Sum::default(),
        Family::Inet6 => Sum::default().pseudo(src, dst, Protocol::ICMPV6, end - l4),
    };
    sum.bytes(&bytes[l4..end])
}

/// An ICMP error and the packet that it quotes.
#[derive(Debug)]
pub struct Quote {
    /// Where the quoted IP header starts in the frame.
    pub(super) at: usize,
    /// The headers of the quoted packet, from there.
    pub(super) headers: Headers,
}

impl Quote {
    /// Reads the quotation of an error that may concern a connection.
    ///
    /// # Errors
    /// The ICMP packet is no such error, is a fragment, is too short, or its own checksum is wrong.
    pub fn read(frame: &[u8], headers: &Headers) -> Result<Quote, DropReason> {
        if headers.fragment != Fragment::Whole {
            return Err(DropReason::IcmpUnrelated);
        }
        let message = &frame[headers.l4..headers.end];
        let kind = *message.first().ok_or(DropReason::Truncated)?;
        let is_error = match headers.flow.protocol {
            // Unreachable, source quench, time exceeded: the kinds that IPVS relays.
            Protocol::ICMP if headers.family == Family::Inet => matches!(kind, 3 | 4 | 11),
            Protocol::ICMPV6 if headers.family == Family::Inet6 => kind < 128,
            _ => return Err(DropReason::Protocol),
        };
        if !is_error {
            return Err(DropReason::IcmpNotError);
        }
        let quoted = Headers::parse_quoted(message.get(HEADER..).ok_or(DropReason::Truncated)?)?;
        if matches!(quoted.fragment, Fragment::Later(_)) || quoted.family != headers.family {
            return Err(DropReason::IcmpUnrelated);
        }
        let (src, dst) = (headers.flow.src.address, headers.flow.dst.address);
        if sum(frame, headers.l4, headers.end, src, dst).fold() != 0xffff {
            return Err(DropReason::IcmpChecksum);
        }
        Ok(Quote { at: headers.l4 + HEADER, headers: quoted })
    }

    /// The flow of packets that go the same way as the error does: against the quoted one.
    pub fn flow(&self) -> Flow {
        self.headers.flow.reversed()
    }

    /// Translates the error: `end` of the error itself, and the other end of the packet it quotes, become `new`.
    pub fn translate(mut self, frame: &mut [u8], headers: &mut Headers, end: End, new: Endpoint) {
        nat::rewrite_address(frame, headers, end, new);
        let other = if end == End::Source { End::Destination } else { End::Source };
        translate_quoted(&mut frame[self.at..headers.end], &mut self.headers, other, new);
        put_u16(frame, headers.l4 + 2, 0);
        let (src, dst) = (headers.flow.src.address, headers.flow.dst.address);
        let checksum = sum(frame, headers.l4, headers.end, src, dst).finish();
        put_u16(frame, headers.l4 + 2, checksum);
    }
}

/// Writes address and port into the quoted headers; of the checksums only the IP header's is mended.
fn translate_quoted(quoted: &mut [u8], headers: &mut Headers, end: End, new: Endpoint) {
    let at = headers.l4 + if end == End::Source { 0 } else { 2 };
    if headers.flow.protocol.has_ports() && quoted.len() >= at + 2 {
        put_u16(quoted, at, new.port);
    }
    nat::rewrite_address(quoted, headers, end, new);
    debug_assert!(headers.family == Family::Inet6 || get_u16(quoted, 0) >> 12 == 4);
}
