//! `two-choices`: draws two servers at random and takes the less loaded one of them.
//!
//! Servers are drawn in proportion to their weights; of the two, the one with the lower load (as `wlc` weighs it) for its
//! weight gets the connection. That is nearly as even as asking all of them (Mitzenmacher 1996), it costs the same for
//! four servers as for a thousand, and it does not have the herd's disease: many workers or directors that know the same
//! counts, a little old, do not all run to the same server.
//!
//! Options: `choices = 2` draws so many, 1 to 3. With 1 it is a random choice by weight.
//!
//! What it is not: exact. Two draws may hit the same server, and a short run is uneven by chance.
//!
//! Invariant: `ends` are the running sums of the weights in the order of the list, so that a number below the last of
//! them names a server. They are right after every change of the list; connections do not touch them.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Needs, Options, Reals, Request, Rng, Scheduler};

/// So many servers are known; those behind them get nothing.
const MOST: usize = 1024;
/// A larger weight counts as this one, so that the sum of all fits into 32 bits.
const HEAVIEST: i32 = (u32::MAX / MOST as u32) as i32;
/// So often a choice is drawn again when it hits a server at its threshold.
const TRIES: u32 = 2;

/// The scheduler.
#[derive(Clone, Debug)]
pub struct TwoChoices {
    choices: u32,
    count: usize,
    ends: [u32; MOST],
}

impl TwoChoices {
    /// A usable server, drawn by weight; none if it hit others only.
    fn draw<R: Reals + ?Sized>(&self, random: &mut Rng, reals: &R) -> Option<usize> {
        let ends = &self.ends[..self.count];
        let sum = ends.last().copied().filter(|&sum| sum > 0)?;
        (0..TRIES).find_map(|_| {
            let point = random.below(sum as usize) as u32;
            let index = ends.partition_point(|&end| end <= point);
            Some(index).filter(|&index| reals.is_usable(index))
        })
    }
}

impl Default for TwoChoices {
    fn default() -> Self {
        TwoChoices { choices: 2, count: 0, ends: [0; MOST] }
    }
}

impl Scheduler for TwoChoices {
    const NEEDS: Needs = Needs::COUNTS;

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let options = Options::new(options);
        options.only(&["choices"], "the only option is `choices`")?;
        self.choices = options.number("choices", 1..=3, "`choices` is a number from 1 to 3")?.unwrap_or(2) as u32;
        Ok(())
    }

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, _change: Change) {
        self.count = reals.len().min(MOST);
        let mut sum = 0;
        for (index, end) in self.ends[..self.count].iter_mut().enumerate() {
            sum += reals.weight(index).clamp(0, HEAVIEST) as u32;
            *end = sum;
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let mut random = Rng::new(request.random);
        // Where most servers are at their thresholds, the first one that is not.
        let usable = || (0..reals.len()).find(|&index| reals.is_usable(index));
        let mut best = self.draw(&mut random, reals).or_else(usable)?;
        for _ in 1..self.choices {
            let other = match self.draw(&mut random, reals) {
                Some(other) => other,
                None => break,
            };
            // a / b < c / d without a division. Sixteen million connections at one server are the most that is told
            // apart, so that the products fit into 64 bits.
            let load = |index: usize, weight: usize| {
                reals.overhead(index).min(u64::from(u32::MAX)) * u64::from(reals.weight(weight) as u32)
            };
            if load(other, best) < load(best, other) {
                best = other;
            }
        }
        Some(best)
    }
}

export_scheduler!(TwoChoices, capacity = MOST, uses = [options], grants = [random]);

#[cfg(test)]
mod tests {
    use plugin_bench::{share, Bench};

    use super::*;

    fn picks(bench: &mut Bench<TwoChoices>, count: usize) -> Vec<Option<char>> {
        (0..count).map(|_| bench.serve()).collect()
    }

    /// Shares follow the weights, more closely than by one random choice.
    #[test]
    fn shares_follow_the_weights() {
        let servers = [('A', 1), ('B', 2), ('C', 3)];
        for (options, within) in [("choices=1\n", 700), ("", 60), ("choices=3\n", 40)] {
            let mut bench = Bench::<TwoChoices>::with(options, &servers).unwrap();
            let picks = picks(&mut bench, 60_000);
            for (name, expected) in [('A', 10_000), ('B', 20_000), ('C', 30_000)] {
                assert!(share(&picks, name).abs_diff(expected) < within, "{options}{name}: {}", share(&picks, name));
            }
        }
    }

    /// A heavy server among many light ones gets its share, although it is one of many.
    #[test]
    fn a_heavy_server_gets_its_share() {
        let mut servers: Vec<(char, i32)> = ('a'..='j').map(|name| (name, 1)).collect();
        servers.push(('H', 10));
        let mut bench = Bench::<TwoChoices>::new(&servers);
        assert!(share(&picks(&mut bench, 20_000), 'H').abs_diff(10_000) < 100);
    }

    /// A loaded server loses to nearly everybody: it gets something only when both draws hit it.
    #[test]
    fn the_less_loaded_one_wins() {
        let mut bench = Bench::<TwoChoices>::new(&[('A', 1), ('B', 1), ('C', 1), ('D', 1)]);
        bench.load('A', 100_000);
        let asked: Vec<_> = (0..16_000).map(|_| bench.ask()).collect();
        assert!(share(&asked, 'A').abs_diff(1000) < 150, "{}", share(&asked, 'A'));
    }

    /// The running sums must follow every change of the list.
    #[test]
    fn changes_are_followed() {
        let mut bench = Bench::<TwoChoices>::new(&[('A', 1), ('B', 1)]);
        bench.add('C', 2);
        assert!(share(&picks(&mut bench, 4000), 'C') > 1900);
        bench.edit('C', 0);
        assert_eq!(share(&picks(&mut bench, 1000), 'C'), 0);
        bench.remove('A');
        assert_eq!(share(&picks(&mut bench, 1000), 'B'), 1000);
        bench.edit('B', 0);
        assert_eq!(bench.ask(), None);
        assert_eq!(Bench::<TwoChoices>::new(&[]).ask(), None);
    }

    /// One usable server among many at their thresholds is found, however unlikely it is to be drawn.
    #[test]
    fn a_single_usable_server_is_found() {
        let mut bench = Bench::<TwoChoices>::new(&[('A', 1), ('B', 1000), ('C', 1000)]);
        bench.overload('B', true);
        bench.overload('C', true);
        assert_eq!(bench.picks(50), "A".repeat(50));
        bench.overload('A', true);
        assert_eq!(bench.ask(), None);
    }

    /// The largest weights must not overflow a sum or a draw.
    #[test]
    fn the_largest_weights_are_drawn() {
        let names: Vec<char> = ('a'..='z').collect();
        let servers: Vec<(char, i32)> = names.iter().map(|&name| (name, i32::MAX)).collect();
        let picks = picks(&mut Bench::<TwoChoices>::new(&servers), 2600);
        assert!(names.iter().all(|&name| share(&picks, name).abs_diff(100) < 5));
    }

    /// A misspelt option must not be taken for the default.
    #[test]
    fn wrong_options_are_refused() {
        let refusal = |options| Bench::<TwoChoices>::with(options, &[]).err();
        assert_eq!(refusal("choices=4\n"), Some("`choices` is a number from 1 to 3"));
        assert_eq!(refusal("choises=2\n"), Some("the only option is `choices`"));
    }
}
