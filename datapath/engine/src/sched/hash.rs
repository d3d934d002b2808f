//! Hashes that the schedulers with a table share: the kernel's, to the bit.
//!
//! All directors with the same servers in the same order must send a client to the same server, so nothing here has a
//! secret, and whoever chooses his own address can choose his slot. Invariant: pure.

/// An address in 32 bits, in host order: IPv4 as it is, IPv6 folded by XOR of its four words (so that addresses with
/// swapped words are one: the kernel's habit).
pub(super) fn fold(address: &[u8; 16]) -> u32 {
    let word = |at: usize| u32::from_be_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]]);
    let is_v4 = word(0) == 0 && word(4) == 0 && word(8) == 0xffff;
    if is_v4 { word(12) } else { word(0) ^ word(4) ^ word(8) ^ word(12) }
}

/// The top `bits` bits of the product with the golden ratio (the kernel's `hash_32`).
pub(super) fn golden(value: u32, bits: u32) -> usize {
    (value.wrapping_mul(0x61c8_8647) >> (32 - bits)) as usize
}

/// The port that a hash of the client takes in: only of protocols that have ports.
pub(super) fn client_port(request: &xvs_sdk::Request) -> u16 {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const SCTP: u8 = 132;
    if matches!(request.protocol, TCP | UDP | SCTP) { request.client_port } else { 0 }
}

/// SipHash-1-3 of four bytes, its low 32 bits: the kernel's `hsiphash_1u32` on 64-bit machines, with a key whose two
/// words are equal. Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
pub(super) fn siphash13(value: u32, key: u64) -> u32 {
    const INITIAL: [u64; 4] =
        [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
    const LENGTH: u64 = 4;
    let mut state = INITIAL.map(|word| word ^ key);
    let last = LENGTH << 56 | u64::from(value);
    state[3] ^= last;
    round(&mut state);
    state[0] ^= last;
    state[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut state);
    }
    (state[0] ^ state[1] ^ state[2] ^ state[3]) as u32
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::super::tests::v4;
    use super::*;

    /// IPVS-REFERENCE 2.11 [V]: the golden-ratio hash of addresses, in 8 and 10 bits.
    #[test]
    fn golden_matches_the_kernel() {
        let cases = [
            ([192, 168, 1, 10], 248),
            ([192, 168, 1, 11], 90),
            ([10, 1, 2, 3], 2),
            ([203, 0, 113, 77], 57),
            ([8, 8, 8, 8], 188),
            ([10, 0, 0, 1], 39),
        ];
        for (address, hash) in cases {
            assert_eq!(golden(fold(&v4(address)), 8), hash, "{address:?}");
        }
        assert_eq!(golden(fold(&v4([10, 0, 0, 1])), 10), 159);
    }

    /// IPVS-REFERENCE 2.12 [V]: SipHash-1-3 with both of maglev's keys.
    #[test]
    fn siphash_matches_the_kernel() {
        const CASES: [(u32, u32, u32); 3] = [
            (167_772_241, 1_134_300_350, 2_545_146_951),
            (167_772_242, 2_714_724_411, 4_200_416_991),
            (167_772_243, 752_814_842, 3_991_614_416),
        ];
        for (value, first, second) in CASES {
            assert_eq!((siphash13(value, 2_654_435_761), siphash13(value, 2_654_446_892)), (first, second));
        }
    }

    /// IPVS-REFERENCE 2.0 [T]: IPv6 is folded by XOR, IPv4 is not; swapped words collide.
    #[test]
    fn addresses_fold_as_in_the_kernel() {
        assert_eq!(fold(&v4([10, 0, 0, 1])), 0x0a00_0001);
        let mut address = [0; 16];
        address[..8].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 7]);
        address[15] = 1;
        assert_eq!(fold(&address), 0x2001_0db8 ^ 7 ^ 1);
        let mut swapped = address;
        swapped.rotate_left(4);
        assert_eq!(fold(&swapped), fold(&address));
    }
}
