//! Numbers that look random and repeat: SplitMix64.
//!
//! Written out here because a seed must give the same traffic in every later version: libraries change their generators
//! and samplers. Streams of one seed do not disturb each other, so another distribution of durations leaves the times of
//! arrival as they were. Not for secrets.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A stream of a seed; streams of other names are independent.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Random(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        let start = random.next();
        Random(start)
    }

    /// 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Above 0, at most 1: safe for a logarithm.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: [u64; 2] = [0x953f967ed2f9734a, 0x04dabd444b939413];

    /// Reports of a seed must stay what they are: the first numbers are pinned.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut random = Random::new(1, 1);
        assert_eq!([random.next(), random.next()], PINNED);
        assert_ne!(Random::new(1, 2).next(), PINNED[0]);
    }

    /// A unit is never 0, and numbers below a bound fill its range evenly.
    #[test]
    fn numbers_fill_their_range() {
        let mut random = Random::new(7, 0);
        let mut seen = [0u32; 10];
        for _ in 0..100_000 {
            let unit = random.unit();
            assert!(unit > 0.0 && unit <= 1.0);
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count.abs_diff(10_000) < 500), "{seen:?}");
    }
}
