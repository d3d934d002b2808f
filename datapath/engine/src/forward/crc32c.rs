//! The checksum of SCTP: CRC32c over the whole packet with zeros in the checksum's place (RFC 9260, 6.8 and appendix A).
//!
//! It knows no pseudo-header, so a change of addresses does not touch it; a change of ports does, and unlike the
//! Internet checksum it can not be mended without all bytes of the packet. *When* it is written is said in `nat` and
//! `checksum`; here is how.
//!
//! Invariant: the packet begins with its whole common header, as [`Headers`](crate::wire::Headers) vouches for.

/// Where the checksum stands in the common header.
const AT: usize = 8;

/// The checksum as it must stand in the packet: the CRC's least significant byte first.
#[inline]
pub fn compute(packet: &[u8]) -> [u8; 4] {
    let before = crc32c::crc32c(&packet[..AT]);
    let field = crc32c::crc32c_append(before, &[0; 4]);
    crc32c::crc32c_append(field, &packet[AT + 4..]).to_le_bytes()
}

/// The checksum that stands in the packet.
#[inline]
pub fn get(packet: &[u8]) -> [u8; 4] {
    [packet[AT], packet[AT + 1], packet[AT + 2], packet[AT + 3]]
}

/// Writes a checksum into the packet.
#[inline]
pub fn put(packet: &mut [u8], checksum: [u8; 4]) {
    packet[AT..AT + 4].copy_from_slice(&checksum);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published vectors of RFC 3720, B.4: the crate computes the right polynomial, and we place it as SCTP does,
    /// which is the order in which the RFC prints the bytes.
    #[test]
    fn vectors_of_rfc_3720() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        let mut read = [0; 48];
        read[..2].copy_from_slice(&[0x01, 0xc0]);
        (read[16], read[22], read[27], read[31], read[32], read[40]) = (0x14, 0x04, 0x14, 0x18, 0x28, 0x02);
        for (bytes, crc) in [
            (&[0; 32][..], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&ascending, [0x4e, 0x79, 0xdd, 0x46]),
            (&descending, [0x5c, 0xdb, 0x3f, 0x11]),
            (&read, [0x56, 0x3a, 0x96, 0xd9]),
        ] {
            assert_eq!(crc32c::crc32c(bytes).to_le_bytes(), crc, "{bytes:02x?}");
        }
        assert_eq!(compute(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
    }

    /// What stands in the checksum's place has no part in it, and writing it touches nothing else.
    #[test]
    fn the_field_counts_as_zero() {
        let mut packet: Vec<u8> = (100..150).collect();
        let bare: Vec<u8> = [&packet[..8], &[0; 4], &packet[12..]].concat();
        let checksum = compute(&packet);
        assert_eq!(checksum, crc32c::crc32c(&bare).to_le_bytes());
        put(&mut packet, checksum);
        assert_eq!((get(&packet), compute(&packet)), (checksum, checksum));
        assert_eq!([&packet[..8], &[0; 4], &packet[12..]].concat(), bare);
    }
}
