//! Partial checksums: what a virtual sender leaves in a packet for hardware that never comes.
//!
//! A veth or virtio sender with checksum offload puts the sum of the pseudo-header into the TCP or UDP checksum field
//! and leaves the rest to its device. A packet that goes from such a sender through AF_XDP reaches the other side with
//! that half sum and is thrown away there. So it is recognised and completed here, and nobody needs `ethtool -K tx off`.
//! With SCTP such a sender leaves zeros. A sender that means them as "no checksum" (RFC 9653) is as well served: whoever
//! takes zeros takes a right checksum too.
//!
//! Invariant: a packet with a valid checksum comes out as it went in: if a valid checksum happens to equal the half
//! sum (one in 65,536; with SCTP one in 2^32 is zero), completing it computes the very same value.

use crate::flow::Protocol;
use crate::wire::checksum::Sum;
use crate::wire::{Fragment, Headers, get_u16, put_u16};

use super::crc32c;

/// Where the checksum stands in the transport header.
#[inline]
pub(super) const fn field(protocol: Protocol) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP => Some(6),
        _ => None,
    }
}

/// The full checksum of a TCP or UDP packet, as it must stand in its field (UDP never has 0).
pub(super) fn compute(frame: &[u8], headers: &Headers, field: usize) -> u16 {
    let segment = &frame[headers.l4..headers.end];
    let flow = &headers.flow;
    let sum = Sum::default().pseudo(flow.src.address, flow.dst.address, flow.protocol, segment.len());
    let sum = sum.bytes(&segment[..field]).bytes(&segment[field + 2..]).finish();
    if sum == 0 && flow.protocol == Protocol::UDP { 0xffff } else { sum }
}

/// Completes the checksum if it is partial. `true` if it was.
#[inline]
pub fn complete(frame: &mut [u8], headers: &Headers) -> bool {
    if headers.fragment != Fragment::Whole {
        return false;
    }
    if headers.flow.protocol == Protocol::SCTP {
        let packet = &mut frame[headers.l4..headers.end];
        let partial = crc32c::get(packet) == [0; 4];
        if partial {
            crc32c::put(packet, crc32c::compute(packet));
        }
        return partial;
    }
    let Some(field) = field(headers.flow.protocol) else { return false };
    let at = headers.l4 + field;
    let flow = &headers.flow;
    let length = headers.end - headers.l4;
    let half = Sum::default().pseudo(flow.src.address, flow.dst.address, flow.protocol, length).fold();
    let partial = get_u16(frame, at) == half;
    if partial {
        put_u16(frame, at, compute(frame, headers, field));
    }
    partial
}
