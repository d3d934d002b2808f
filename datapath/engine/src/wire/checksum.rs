//! The Internet checksum (RFC 1071) in full ([`Sum`]) and by difference ([`Delta`], RFC 1624).
//!
//! Invariant: [`Delta::apply`] gives what a full computation over the changed packet would give, if the packet's
//! checksum was right before; and a packet whose checksum was wrong stays wrong. The rules of UDP (a zero in the field
//! means "none") are not here: they live in `forward::nat`, the only place that may write an UDP checksum.

use crate::flow::{Address, Family, Protocol};

/// A running one's complement sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last byte is padded with a zero, so only the last piece of a packet may be odd.
    #[inline]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let word = u64::from_be_bytes(word.try_into().unwrap_or_default());
            let (sum, carry) = self.0.overflowing_add(word);
            self.0 = sum + u64::from(carry);
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            let (sum, carry) = self.0.overflowing_add(u64::from_be_bytes(last));
            self.0 = sum + u64::from(carry);
        }
        self
    }

    /// Adds a 16-bit value.
    #[inline]
    pub fn u16(self, value: u16) -> Self {
        let (sum, carry) = self.0.overflowing_add(value.into());
        Sum(sum + u64::from(carry))
    }

    /// Adds an address.
    #[inline]
    pub fn address(self, address: Address) -> Self {
        match address.family() {
            Family::Inet => self.bytes(&address.octets4()),
            Family::Inet6 => self.bytes(&address.octets16()),
        }
    }

    /// Adds the pseudo-header of TCP or UDP: addresses, protocol and the length of header and payload.
    #[inline]
    pub fn pseudo(self, src: Address, dst: Address, protocol: Protocol, length: usize) -> Self {
        let sum = self.address(src).address(dst).u16(protocol.0.into());
        sum.u16((length >> 16) as u16).u16(length as u16)
    }

    /// The sum in 16 bits, not inverted: what a sender leaves in the field for its hardware to finish.
    #[inline]
    pub fn fold(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// The checksum: the inverted sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// What a change of some fields does to a checksum over them (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(Sum);

impl Delta {
    /// A 16-bit field changed.
    #[inline]
    pub fn u16(self, old: u16, new: u16) -> Self {
        Delta(self.0.u16(!old).u16(new))
    }

    /// An address changed. Both must be of one family.
    #[inline]
    pub fn address(self, old: Address, new: Address) -> Self {
        let inverted = match old.family() {
            Family::Inet => self.0.bytes(&old.octets4().map(|byte| !byte)),
            Family::Inet6 => self.0.bytes(&old.octets16().map(|byte| !byte)),
        };
        Delta(inverted.address(new))
    }

    /// The checksum after the change, from the one before.
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        !self.0.u16(!checksum).fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook example: RFC 1071 section 3.
    #[test]
    fn sums_as_in_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.finish(), !0xddf2);
    }

    proptest! {
        /// An incremental update must equal a full computation, whatever the bytes.
        #[test]
        fn delta_equals_full_recompute(mut bytes in proptest::collection::vec(any::<u8>(), 20..80),
                                       at in 0usize..8, new in any::<u16>()) {
            bytes[18] |= 1; // an all-zero packet does not exist: there is a length in it
            let before = Sum::default().bytes(&bytes).finish();
            let at = at * 2;
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(Delta::default().u16(old, new).apply(before), Sum::default().bytes(&bytes).finish());
        }

        /// Splitting the bytes at an even place must not change the sum.
        #[test]
        fn sums_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..50) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let whole = Sum::default().bytes(&bytes);
            let parts = Sum::default().bytes(&bytes[..cut]).bytes(&bytes[cut..]);
            prop_assert_eq!(whole.fold(), parts.fold());
        }
    }
}
