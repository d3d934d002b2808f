//! Hashes and numbers that look random, and are the same everywhere.

/// Spreads a word over all words: SplitMix64's finaliser (Steele, Lea and Flood 2014). No two words become one.
pub const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// A generator that repeats itself for a seed: [`Request::hash`](crate::Request::hash) or
/// [`Request::random`](crate::Request::random), say. Not for secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// One that begins at a seed.
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        number
    }

    /// The next number below a bound, as likely as any other but for `bound` parts in `2^32`; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The upper half of a 32 by 32 bit product: no division. Larger bounds take the remainder.
        match u32::try_from(bound) {
            Ok(bound) => ((self.next_u64() >> 32).wrapping_mul(u64::from(bound)) >> 32) as usize,
            Err(_) => (self.next_u64() % bound as u64) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replay repeats only if the numbers do, on every machine: SplitMix64's published first numbers for the seed 0.
    #[test]
    fn the_numbers_are_fixed() {
        let mut rng = Rng::new(0);
        assert_eq!(rng.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    /// Every index of a list must be reachable, about equally often, and none beyond it.
    #[test]
    fn below_is_even() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 5];
        (0..50_000).for_each(|_| seen[rng.below(5)] += 1);
        assert!(seen.iter().all(|&times| (9_500..10_500).contains(&times)), "{:?}", seen);
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    }
}
