//! Network address translation: one end of the packet gets another address and port.
//!
//! Towards the real server the destination changes from VIP:port to RIP:port; towards the client the source changes
//! back. Checksums follow by difference (RFC 1624).
//!
//! The rules of UDP live here and only here: a checksum of 0 means "none" (RFC 768); IPVS computes a full one for such
//! a packet, and so do we; a computed 0 is sent as 0xffff. A first fragment without a checksum keeps none, because the
//! rest of its bytes is not at hand. A later fragment has no transport header: only addresses change.
//!
//! And so do those of SCTP: its checksum (CRC32c) does not cover addresses, so it is left alone unless the port changes;
//! then it is computed anew over the whole packet. A first fragment whose port would change can not be helped and is
//! refused before anything is touched. One thing is done otherwise than by IPVS: a packet that came with a wrong checksum
//! leaves with a wrong one, and is thrown away by its receiver; IPVS makes it right, and the damage passes for data.

use crate::drop::DropReason;
use crate::flow::{Endpoint, Family, Protocol};
use crate::wire::checksum::Delta;
use crate::wire::{Fragment, Headers, get_u16, put_u16};

use super::{checksum, crc32c};

/// The end of the packet that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// Gives one end of the packet another address and port, of the same family, and mends the checksums. `headers` follow.
///
/// # Errors
/// A checksum can not be mended; the packet is as it was.
#[inline]
pub fn rewrite(frame: &mut [u8], headers: &mut Headers, end: End, new: Endpoint) -> Result<(), DropReason> {
    let old = match end {
        End::Source => headers.flow.src,
        End::Destination => headers.flow.dst,
    };
    let is_first = matches!(headers.fragment, Fragment::First(_));
    if is_first && headers.flow.protocol == Protocol::SCTP && old.port != new.port {
        return Err(DropReason::FragmentSctp);
    }
    let addresses = rewrite_address(frame, headers, end, new);
    if matches!(headers.fragment, Fragment::Later(_)) || !headers.flow.protocol.has_ports() {
        return Ok(());
    }
    let at = headers.l4 + if end == End::Source { 0 } else { 2 };
    if headers.flow.protocol == Protocol::SCTP {
        if old.port != new.port {
            rewrite_sctp_port(&mut frame[headers.l4..headers.end], at - headers.l4, new.port);
        }
        return Ok(());
    }
    put_u16(frame, at, new.port);
    let Some(field) = checksum::field(headers.flow.protocol) else { return Ok(()) };
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
    Ok(())
}

/// The same for the address alone: nothing behind the IP header changes. Gives what that does to a checksum over it.
#[inline]
pub(super) fn rewrite_address(frame: &mut [u8], headers: &mut Headers, end: End, new: Endpoint) -> Delta {
    let old = match end {
        End::Source => std::mem::replace(&mut headers.flow.src, new),
        End::Destination => std::mem::replace(&mut headers.flow.dst, new),
    };
    let delta = Delta::default().address(old.address, new.address);
    write_address(frame, headers, end, new, delta);
    delta
}

/// Writes a port into a whole SCTP packet. Its checksum becomes as right, or as wrong, as it was.
#[inline]
fn rewrite_sctp_port(packet: &mut [u8], at: usize, port: u16) {
    let (stood, right) = (crc32c::get(packet), crc32c::compute(packet));
    put_u16(packet, at, port);
    let now = crc32c::compute(packet);
    crc32c::put(packet, std::array::from_fn(|byte| now[byte] ^ stood[byte] ^ right[byte]));
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
