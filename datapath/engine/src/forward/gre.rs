//! Generic routing encapsulation (RFC 2784): four bytes, and four more with a checksum.
//!
//! Flags 0 or "checksum present", version 0, the inner packet's EtherType; no key and no sequence number. The checksum
//! covers GRE header and payload.

use crate::flow::Family;
use crate::wire::checksum::Sum;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, put_u16};

const CHECKSUM_PRESENT: u16 = 0x8000;

/// Writes the header before an IP packet of this family. `packet` begins with the room for it (8 bytes with a checksum,
/// else 4) and ends with the IP packet.
#[inline]
pub(super) fn write(packet: &mut [u8], inner: Family, checksum: bool) {
    let ethertype = if inner == Family::Inet { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    put_u16(packet, 0, if checksum { CHECKSUM_PRESENT } else { 0 });
    put_u16(packet, 2, ethertype);
    if checksum {
        packet[4..8].fill(0);
        let sum = Sum::default().bytes(packet).finish();
        put_u16(packet, 4, sum);
    }
}
