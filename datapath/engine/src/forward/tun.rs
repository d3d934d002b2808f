//! IP in IP: the packet travels to the real server inside another one (RFC 2003, RFC 2473, RFC 4213).
//!
//! Outer and inner family are independent: 4in4, 6in6, 6in4 (the VIP is IPv6, the server is reached by IPv4) and 4in6.
//! As IPVS does it: the outer TTL is the inner one after its decrement; the traffic class is copied, with congestion
//! marks by the full-functionality rule of RFC 3168; IPv4's "don't fragment" is copied from an inner IPv4 header and
//! left off for an inner IPv6 one; flow label 0.
//!
//! Not here: GUE and GRE, fragmentation of what is too big, and the clamping of MSS.

use crate::flow::{Address, Family, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::{Headers, Packet, put_u16};

/// Bytes that an outer header of this family adds.
pub const fn overhead(outer: Family) -> usize {
    match outer {
        Family::Inet => 20,
        Family::Inet6 => 40,
    }
}

/// Wraps the packet (its link header is dropped, its TTL already decremented) into an outer IP header from `source` to
/// `server`, both of one family. The packet then starts with the outer IP header. `None` if the frame has no room.
pub fn encapsulate(
    packet: &mut Packet<'_>,
    headers: Headers,
    source: Address,
    server: Address,
    ident: u16,
) -> Option<()> {
    let inner_len = headers.ip_len();
    let frame = packet.bytes();
    let class = traffic_class(frame, &headers);
    let ttl = headers.ttl(frame);
    let dont_fragment = headers.family == Family::Inet && headers.dont_fragment(frame);
    let protocol = if headers.family == Family::Inet { Protocol::IPV4 } else { Protocol::IPV6 };
    packet.set_len(headers.end).then_some(())?;

    let outer = server.family();
    let header = packet.rehead(headers.l3, overhead(outer))?;
    match outer {
        Family::Inet => {
            header[0] = 0x45;
            header[1] = class;
            put_u16(header, 2, u16::try_from(inner_len + 20).ok()?);
            put_u16(header, 4, ident);
            put_u16(header, 6, if dont_fragment { 0x4000 } else { 0 });
            header[8] = ttl;
            header[9] = protocol.0;
            put_u16(header, 10, 0);
            header[12..16].copy_from_slice(&source.octets4());
            header[16..20].copy_from_slice(&server.octets4());
            let checksum = Sum::default().bytes(header).finish();
            put_u16(header, 10, checksum);
        }
        Family::Inet6 => {
            header[0] = 0x60 | class >> 4;
            header[1] = class << 4;
            put_u16(header, 2, 0);
            put_u16(header, 4, u16::try_from(inner_len).ok()?);
            header[6] = protocol.0;
            header[7] = ttl;
            header[8..24].copy_from_slice(&source.octets16());
            header[24..40].copy_from_slice(&server.octets16());
        }
    }
    Some(())
}

/// The outer traffic class: the inner one, but "congestion experienced" starts afresh as "capable" (RFC 3168, 9.1.1).
fn traffic_class(frame: &[u8], headers: &Headers) -> u8 {
    let class = match headers.family {
        Family::Inet => frame[headers.l3 + 1],
        Family::Inet6 => frame[headers.l3] << 4 | frame[headers.l3 + 1] >> 4,
    };
    if class & 3 == 3 { class & !3 | 2 } else { class }
}
