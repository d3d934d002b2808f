//! Hashing for schedulers that must agree with each other: the same numbers on every machine, and no secret in them.
//!
//! Not here: [`Request::hash`](crate::Request::hash), which is keyed, and so differs from director to director.

use crate::mix;

/// The 16 bytes of an address in one word.
pub fn mix_address(address: &[u8; 16]) -> u64 {
    let word = u128::from_be_bytes(*address);
    mix(mix((word >> 64) as u64) ^ word as u64)
}

/// Bits of a hash behind its first 1 that choose a step of [`STEPS`].
const STEP_BITS: u32 = 8;
/// Bits behind the point of a logarithm.
const FRACTION: u32 = 24;
/// The logarithms of 1, 1 + 1/256 and so on to 2.
const STEPS: [u32; (1 << STEP_BITS) + 1] = steps();

/// When a server asks for a client, if `hash` is drawn for the two of them and its weight were 1: `-log2(hash / 2^64)`
/// in units of 2^-24, from 1 to 2^30. The server whose `wait / weight` is least wins in proportion to its weight; that is
/// how rendezvous hashing is weighted.
///
/// In integers, because `core` has no logarithm; between 256 points of the curve it goes straight, and errs by less than
/// 1 in 300.
#[inline]
pub fn wait(hash: u64) -> u64 {
    let hash = hash.max(1); // the logarithm of 0 would be endless
    let zeros = hash.leading_zeros();
    let behind = hash << zeros << 1; // the first 1 drops out
    let step = (behind >> (64 - STEP_BITS)) as usize;
    let rest = behind << STEP_BITS >> (64 - FRACTION);
    let (below, above) = (u64::from(STEPS[step]), u64::from(STEPS[step + 1]));
    let log = (u64::from(63 - zeros) << FRACTION) + below + (((above - below) * rest) >> FRACTION);
    (64 << FRACTION) - log
}

/// No [`wait`] of this hash is shorter than this: the straight line below the curve. For a scheduler that looks for the
/// shortest of many waits and computes only those that may be it.
#[inline]
pub const fn wait_at_least(hash: u64) -> u64 {
    !hash >> (64 - FRACTION)
}

/// Bit after bit of the logarithm: a number's square is 2 or more when the next bit is 1.
const fn steps() -> [u32; (1 << STEP_BITS) + 1] {
    let mut steps = [0; (1 << STEP_BITS) + 1];
    let mut step = 0;
    while step < 1 << STEP_BITS {
        // From 1 to 2, with 63 bits behind the point.
        let mut number = (1 << 63) + ((step as u64) << (63 - STEP_BITS));
        let mut bits = 0;
        while bits < FRACTION {
            let square = (number as u128 * number as u128) >> 63;
            let bit = (square >> 64) as u64;
            number = (square >> bit) as u64;
            steps[step] = steps[step] << 1 | bit as u32;
            bits += 1;
        }
        step += 1;
    }
    steps[step] = 1 << FRACTION;
    steps
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// Exact for powers of two, falling, never 0, and near the true curve.
    #[test]
    fn waits_are_logarithms() {
        for power in 0..64u32 {
            assert_eq!(wait(1 << power), (64 - u64::from(power)) << FRACTION, "{power}");
        }
        assert_eq!(wait(0), 64 << FRACTION);
        assert!(wait(u64::MAX) > 0 && wait_at_least(u64::MAX) == 0 && wait_at_least(0) <= wait(0));
        let mut before = wait(0);
        for number in 1..10_000u64 {
            let hash = number * (u64::MAX / 10_000);
            let exact = -((number as f64) / 10_000.0).log2() * f64::from(1 << FRACTION);
            let now = wait(hash);
            assert!(now <= before && (now as f64 / exact - 1.0).abs() < 1.0 / 300.0, "{number}: {now} for {exact}");
            assert!(wait_at_least(hash) <= now && (number < 9_000 || wait_at_least(hash) * 2 > now), "{number}");
            before = now;
        }
    }

    /// Neighbouring addresses are the common case, and must not have neighbouring hashes.
    #[test]
    fn neighbours_part() {
        let address = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
        for last in 0..255 {
            let differ = (mix_address(&address(last)) ^ mix_address(&address(last + 1))).count_ones();
            assert!((10..54).contains(&differ), "{differ} bits at {last}");
        }
    }
}
