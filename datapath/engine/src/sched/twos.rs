//! `twos`: two servers are drawn at random in proportion to their weights, and the less loaded one gets the connection
//! (the power of two choices).
//!
//! A draw is a number from 0 to the sum T of the usable weights, both included, from which the weights are taken away
//! in the order of the list; the server that brings it to 0 is drawn. As there are T + 1 numbers, the first server in
//! the list has w + 1 of them: the kernel's habit. Load is [`Reals::overhead`] in proportion to the weight; the second
//! draw must be strictly better.
//!
//! Where this differs: the kernel multiplies load and weight in 32 bits, which may overflow and turn the comparison
//! around (84 000 active connections at weight 100); here nothing overflows.
//!
//! Randomness: a counter that every draw moves on, mixed with the flow's keyed hash (SplitMix64's finaliser). So a pick
//! asks nobody for entropy, a simulation with a fixed key repeats itself, a preview tells the truth, and who does not
//! know the director's key can not foretell a draw.

use xvs_sdk::{Reals, Request, Scheduler};

/// State of `twos`: how far the counter is.
#[derive(Clone, Debug, Default)]
pub struct TwoChoices {
    counter: u64,
}

impl TwoChoices {
    /// A number from 0 to `last`, both included.
    fn draw(&mut self, hash: u64, last: u64) -> u64 {
        self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = self.counter ^ hash;
        let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = word ^ word >> 31;
        ((u128::from(word) * (u128::from(last) + 1)) >> 64) as u64
    }
}

impl Scheduler for TwoChoices {
    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        // A usable server's weight is above 0.
        let usable = || {
            let indices = (0..reals.len()).filter(|&index| reals.is_usable(index));
            indices.map(|index| (index, reals.weight(index) as u64))
        };
        let sum = usable().map(|(_, weight)| weight).sum();
        if sum == 0 {
            return None;
        }
        let (mut first, mut second) = (None, None);
        let draws = [self.draw(request.hash, sum), self.draw(request.hash, sum)];
        let mut passed = 0;
        for (index, weight) in usable() {
            passed += weight;
            if first.is_none() && draws[0] <= passed {
                first = Some((index, weight));
            }
            if second.is_none() && draws[1] <= passed {
                second = Some((index, weight));
            }
            if first.is_some() && second.is_some() {
                break;
            }
        }
        let ((first, first_weight), (second, second_weight)) = (first?, second?);
        let load = |index: usize, weight: u64| u128::from(reals.overhead(index)) * u128::from(weight);
        Some(if load(first, second_weight) > load(second, first_weight) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    fn shares(bench: &mut Bench<TwoChoices>, draws: usize) -> [f64; 3] {
        let mut counts = [0; 3];
        for _ in 0..draws {
            match bench.ask(&Request::default()) {
                "A" => counts[0] += 1,
                "B" => counts[1] += 1,
                "C" => counts[2] += 1,
                other => panic!("{other}"),
            }
        }
        counts.map(|count: u32| f64::from(count) * 100.0 / draws as f64)
    }

    /// IPVS-REFERENCE 2.9 [V], [T]: idle servers of weights 1, 2, 3 over 600 000 draws; the first in the list has one
    /// number more.
    #[test]
    fn the_first_server_is_favoured_by_one() {
        let mut bench = Bench::new(TwoChoices::default(), &[("A", 1), ("B", 2), ("C", 3)]);
        for (share, expected) in shares(&mut bench, 600_000).into_iter().zip([14.3, 28.5, 57.2]) {
            assert!((share - expected).abs() < 0.3, "{share} instead of {expected}");
        }
    }

    /// Of two draws the less loaded one wins: a loaded server of a third of the draws gets a ninth of the picks.
    #[test]
    fn the_less_loaded_of_two_wins() {
        let mut bench = Bench::new(TwoChoices::default(), &[("A", 100), ("B", 100), ("C", 100)]);
        bench.load("B", 1000, 1000);
        for (share, expected) in shares(&mut bench, 100_000).into_iter().zip([44.4, 11.1, 44.4]) {
            assert!((share - expected).abs() < 1.0, "{share} instead of {expected}");
        }
    }

    /// Loads that overflow the kernel's 32 bits are still compared rightly.
    #[test]
    fn large_loads_do_not_overflow() {
        let mut bench = Bench::new(TwoChoices::default(), &[("A", 100), ("B", 100)]);
        bench.load("A", 84_000, 84_000);
        let asked = (0..1000).filter(|_| bench.ask(&Request::default()) == "A").count();
        assert!(asked < 350, "{asked}: only when it is drawn twice");
    }

    /// The same requests to the same state give the same picks; other hashes give others.
    #[test]
    fn draws_repeat_for_the_same_hashes() {
        let run = |hash: u64| -> Vec<&str> {
            let mut bench = Bench::new(TwoChoices::default(), &[("A", 5), ("B", 5), ("C", 5)]);
            (0..64).map(|_| bench.ask(&Request { hash, ..Request::default() })).collect()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    /// Quiesced and overloaded servers are neither drawn nor counted.
    #[test]
    fn only_usable_servers_are_drawn() {
        let mut bench = Bench::new(TwoChoices::default(), &[("A", 1), ("B", 0), ("C", 3)]);
        bench.overload("C", true);
        assert_eq!(picks(&mut bench, 5), "AAAAA");
        bench.edit("A", 0);
        assert_eq!(picks(&mut bench, 1), "-");
    }
}
