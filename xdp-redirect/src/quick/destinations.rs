//! Which addresses may be a service's or the director's: a bit for many addresses each, counted.
//!
//! Invariant: a bit is set if and only if some address of it was added more often than removed. A clear bit is certain;
//! a set one says "perhaps", and is no more than a reason to look closer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Release;

use crate::quick::SPREAD;

pub(super) struct Destinations {
    /// The first word of the bits.
    start: usize,
    /// The number of bits is two to the power of this.
    bits: u32,
    /// How many want a bit, by its number.
    counts: HashMap<u32, u32>,
}

impl Destinations {
    /// No address, in `words` words of zeros, a power of two of them, that begin at word `start`.
    pub(super) fn new(start: usize, words: usize) -> Destinations {
        let bits = words * u64::BITS as usize;
        debug_assert!(bits.is_power_of_two(), "{bits}");
        Destinations { start, bits: bits.trailing_zeros(), counts: HashMap::new() }
    }

    /// The number of an address's bit, its word and its place there.
    fn bit<'w>(&self, words: &'w [AtomicU64], address: IpAddr) -> (u32, &'w AtomicU64, u64) {
        let [upper, lower] = halves(address);
        let spread = (upper.wrapping_mul(SPREAD) ^ lower).wrapping_mul(SPREAD);
        let number = (spread >> (u64::BITS - self.bits)) as u32;
        (number, &words[self.start + (number / u64::BITS) as usize], 1 << (number % u64::BITS))
    }

    pub(super) fn add(&mut self, words: &[AtomicU64], address: IpAddr) {
        let (number, word, bit) = self.bit(words, address);
        *self.counts.entry(number).or_default() += 1;
        word.fetch_or(bit, Release);
    }

    pub(super) fn remove(&mut self, words: &[AtomicU64], address: IpAddr) {
        let (number, word, bit) = self.bit(words, address);
        match self.counts.get_mut(&number) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.counts.remove(&number);
                word.fetch_and(!bit, Release);
            }
            None => {}
        }
    }
}

/// The halves of an address as the program has them in its keys, where IPv4 is written as ::ffff:a.b.c.d.
fn halves(address: IpAddr) -> [u64; 2] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let half = |from: usize| std::array::from_fn(|at| octets[from + at]);
    [u64::from_ne_bytes(half(0)), u64::from_ne_bytes(half(8))]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// Guards against a bit that goes with the first of the addresses that share it, and one that stays after the last.
    #[test]
    fn a_bit_stays_as_long_as_an_address_wants_it() {
        // 64 bits for 1,000 addresses.
        let words = [const { AtomicU64::new(0) }; 3];
        let mut destinations = Destinations::new(1, 1);
        let addresses = (0..1_000).map(|n: u32| IpAddr::V4((0x0a00_0000 + n).into()));
        for address in addresses.clone().chain(addresses.clone()) {
            destinations.add(&words, address);
        }
        let all: Vec<IpAddr> = addresses.clone().chain(addresses).collect();
        for (gone, &address) in all.iter().enumerate() {
            for &left in &all[gone..] {
                let (_, word, bit) = destinations.bit(&words, left);
                assert_ne!(word.load(Relaxed) & bit, 0, "{left} is left");
            }
            destinations.remove(&words, address);
        }
        assert!(words.iter().all(|word| word.load(Relaxed) == 0));
        destinations.remove(&words, all[0]);
        assert!(words.iter().all(|word| word.load(Relaxed) == 0), "one that was never there");
    }
}
