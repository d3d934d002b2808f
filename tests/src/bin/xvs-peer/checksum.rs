//! The Internet checksum (RFC 1071), written for the peers and shared with nobody: what checks must not borrow from what
//! is checked.

/// One's complement sum of big-endian words, folded; 0xffff over data that carries its own correct checksum.
pub(crate) fn sum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let mut total: u32 = 0;
    for part in parts {
        for word in part.chunks(2) {
            total += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
            total = (total & 0xffff) + (total >> 16);
        }
    }
    total as u16
}
