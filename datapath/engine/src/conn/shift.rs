//! What translating a connection's packets does to their checksums, worked out once (RFC 1624, equation 3).
//!
//! Invariant: a shift is never 0, whose place 0xffff takes, so that a checksum comes out in the form in which adding all the
//! words at once leaves it. Not here: where a packet's checksums are.

use crate::flow::{Address, Endpoint, Family};

use super::table::{End4, End6};

/// The shifts of a NAT connection in one word: from the lowest bits on, those of the IP checksum and of TCP's or UDP's for a
/// client's packets, and the same for a server's. The first ones count the hop as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shifts(pub(super) u64);

/// What is added to the complements of a packet's checksums, as they stand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift {
    /// The IP checksum's.
    pub(crate) ip: u16,
    /// TCP's or UDP's.
    pub(crate) payload: u16,
}

/// What the word of TTL and protocol does to a checksum, whatever it is: !before + after.
const OLDER: u64 = 0xfeff;

impl Shifts {
    /// When a VIP and port is translated into a server's, and back.
    pub(super) fn between(virtual_end: Endpoint, server: Endpoint) -> Self {
        Self::by_sums((sum(virtual_end.address), virtual_end.port), (sum(server.address), server.port))
    }

    /// The same for IPv4 addresses, in fewer steps.
    #[inline(always)]
    pub(crate) fn between4(virtual_end: End4, server: End4) -> Self {
        let addresses = u64::from(!virtual_end.address) + u64::from(server.address);
        Self::by_difference(fold33(addresses), virtual_end.port, server.port)
    }

    /// The same for IPv6 addresses.
    #[inline(always)]
    pub(crate) fn between6(virtual_end: End6, server: End6) -> Self {
        let halves = |words: [u64; 2]| words.map(|word| (word >> 32) + (word & 0xffff_ffff)).iter().sum::<u64>();
        let addresses = halves(virtual_end.0.map(|word| !word)) + halves(server.0);
        Self::by_difference(fold33(addresses), virtual_end.1, server.1)
    }

    /// By the addresses' difference, a sum of at most 17 bits. It is not 0: that comes of an address of zeros alone, which no
    /// server has. What translates back is the complement of what translates.
    #[inline(always)]
    fn by_difference(addresses: u64, virtual_port: u16, port: u16) -> Self {
        let payload = fold(addresses + u64::from(!virtual_port) + u64::from(port));
        // Of 0xffff, which is 0, the complement is itself.
        let complement = if payload == 0xffff { payload } else { !payload };
        // The word of TTL and protocol counts the same in both directions.
        let ip = |addresses: u64| u64::from(fold(addresses + OLDER).to_be());
        let inbound = ip(addresses) | u64::from(payload.to_be()) << 16;
        let outbound = ip(3 * 0xffff - addresses) | u64::from(complement.to_be()) << 16;
        Shifts(inbound | outbound << 32)
    }

    /// By the addresses' words added up, and the ports.
    #[inline(always)]
    fn by_sums((old, virtual_port): (u64, u16), (new, port): (u64, u16)) -> Self {
        let shift = |old: u64, new: u64, old_port: u16, new_port: u16| {
            let addresses = (0xffff - old) + new;
            let ports = u64::from(!old_port) + u64::from(new_port);
            u64::from(fold(addresses + OLDER).to_be()) | u64::from(fold(addresses + ports).to_be()) << 16
        };
        let inbound = shift(old, new, virtual_port, port);
        let outbound = shift(new, old, port, virtual_port);
        Shifts(inbound | outbound << 32)
    }

    /// A client's packet's.
    #[inline(always)]
    pub(crate) fn inbound(self) -> Shift {
        Shift { ip: self.0 as u16, payload: (self.0 >> 16) as u16 }
    }

    /// A server's packet's.
    #[inline(always)]
    pub(crate) fn outbound(self) -> Shift {
        Shift { ip: (self.0 >> 32) as u16, payload: (self.0 >> 48) as u16 }
    }
}

/// The words of an address, added up, in 16 bits.
fn sum(address: Address) -> u64 {
    let bits = match address.family() {
        Family::Inet => address.low32().into(),
        Family::Inet6 => address.bits(),
    };
    let words = (0..8).map(|word| u64::from((bits >> (word * 16)) as u16));
    fold(words.sum()).into()
}

/// A sum of a few words of 32 bits, in 17 bits; 0 only of 0.
#[inline(always)]
fn fold33(sum: u64) -> u64 {
    (sum >> 32) + (sum >> 16 & 0xffff) + (sum & 0xffff)
}

/// A sum in 16 bits, with its carries; 0 only of 0.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(family: bool) -> impl Strategy<Value = Endpoint> {
        let edges = prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>()];
        (edges, any::<u16>()).prop_map(move |(bits, port)| {
            let address =
                if family { Address::v4((bits as u32).to_be_bytes()) } else { Address::from_bits(bits | 1 << 127) };
            Endpoint::new(address, port)
        })
    }

    proptest! {
        /// The ways in fewer steps come to the same, for all addresses that a server may have.
        #[test]
        fn fewer_steps_come_to_the_same((old, new) in any::<bool>().prop_flat_map(|v4| (end(v4), end(v4)))) {
            let v4 = |end: Endpoint| End4 { address: end.address.low32(), port: end.port };
            let v6 = |end: Endpoint| ([(end.address.bits() >> 64) as u64, end.address.bits() as u64], end.port);
            let quick = match old.address.family() {
                Family::Inet => Shifts::between4(v4(old), v4(new)),
                Family::Inet6 => Shifts::between6(v6(old), v6(new)),
            };
            if new.address != Address::v4([0; 4]) {
                prop_assert_eq!(quick, Shifts::between(old, new));
            }
        }

        /// What a shift makes of a checksum is what the translated packet's words add up to, whatever the words.
        #[test]
        fn a_shift_is_the_difference((old, new) in any::<bool>().prop_flat_map(|v4| (end(v4), end(v4))), rest: u16) {
            let words = |end: Endpoint, rest: u16| sum(end.address) + u64::from(end.port) + u64::from(rest);
            for (from, to, shift) in [
                (old, new, Shifts::between(old, new).inbound()),
                (new, old, Shifts::between(old, new).outbound()),
            ] {
                prop_assert!(shift.ip != 0 && shift.payload != 0);
                let before = !fold(words(from, rest));
                let after = u64::from(!before) + u64::from(u16::from_be(shift.payload));
                prop_assert_eq!(fold(after) % 0xffff, fold(words(to, rest)) % 0xffff);
            }
        }
    }
}
