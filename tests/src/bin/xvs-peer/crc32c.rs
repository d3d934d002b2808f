//! CRC32c (Castagnoli), bit by bit, as SCTP has it (RFC 9260, appendix A).

/// The polynomial, its bits in the order in which they leave.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The checksum of these parts, one after the other.
pub(crate) fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = parts.into_iter().flatten();
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the checksum by the check value of the algorithm, in one part and in two.
    #[test]
    fn check_value() {
        assert_eq!(crc32c([b"123456789".as_slice()]), 0xe306_9283);
        assert_eq!(crc32c([b"1234".as_slice(), b"56789"]), 0xe306_9283);
    }
}
