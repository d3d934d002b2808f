//! Network address translation: one end of the packet gets another address and port.
//!
//! Towards the real server the destination changes from VIP:port to RIP:port; towards the client the source changes
//! back. Checksums follow by difference (RFC 1624).
//!
//! The rules of UDP live here and only here: a checksum of 0 means "none" (RFC 768); IPVS computes a full one for such
//! a packet, and so do we; a computed 0 is sent as 0xffff. A first fragment without a checksum keeps none, because the
//! rest of its bytes is not at hand. A later fragment has no transport header: only addresses change.

use crate::flow::{Endpoint, Family, Protocol};
use crate::wire::checksum::Delta;
use crate::wire::{Fragment, Headers, get_u16, put_u16};

use super::checksum;

/// The end of the packet that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// Gives one end of the packet another address and port, of the same family, and mends the checksums. `headers` follow.
#[inline]
pub fn rewrite(frame: &mut [u8], headers: &mut Headers, end: End, new: Endpoint) {
    let old = match end {
        End::Source => std::mem::replace(&mut headers.flow.src, new),
        End::Destination => std::mem::replace(&mut headers.flow.dst, new),
    };
    let addresses = Delta::default().address(old.address, new.address);
    write_address(frame, headers, end, new, addresses);

    if matches!(headers.fragment, Fragment::Later(_)) || !headers.flow.protocol.has_ports() {
        return;
    }
    let at = headers.l4 + if end == End::Source { 0 } else { 2 };
    put_u16(frame, at, new.port);
    let Some(field) = checksum::field(headers.flow.protocol) else { return };
    let at = headers.l4 + field;
    let before = get_u16(frame, at);
    let after = match (headers.flow.protocol, before, headers.fragment) {
        (Protocol::UDP, 0, Fragment::Whole) => checksum::compute(frame, headers, field),
        (Protocol::UDP, 0, _) => 0,
        (protocol, _, _) => match addresses.u16(old.port, new.port).apply(before) {
            0 if protocol == Protocol::UDP => 0xffff,
            sum => sum,
        },
    };
    put_u16(frame, at, after);
}

/// Writes an address into the IP header and mends the header's own checksum (IPv4).
#[inline]
fn write_address(frame: &mut [u8], headers: &Headers, end: End, new: Endpoint, delta: Delta) {
    match headers.family {
        Family::Inet => {
            let at = headers.l3 + if end == End::Source { 12 } else { 16 };
            frame[at..at + 4].copy_from_slice(&new.address.octets4());
            let at = headers.l3 + 10;
            let checksum = delta.apply(get_u16(frame, at));
            put_u16(frame, at, checksum);
        }
        Family::Inet6 => {
            let at = headers.l3 + if end == End::Source { 8 } else { 24 };
            frame[at..at + 16].copy_from_slice(&new.address.octets16());
        }
    }
}
