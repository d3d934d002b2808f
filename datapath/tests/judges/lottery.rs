//! The choices of `twos`, which are random: are they by the rule, and as often as the rule says?
//!
//! The rule (IPVS-REFERENCE 2.9): two draws, each by weight, and of both the less loaded server. The test: over a
//! recording, each server is chosen as often as the sum of its chances says, within four standard deviations. The
//! chances of a step are computed from the server list before it: the kernel's choices are judged by the kernel's
//! lists, ours by ours, since one other choice makes all later lists differ.

use std::collections::HashMap;
use std::net::SocketAddr;

use xvs_engine::real::Generation;

use super::recording::Listed;

/// How far from what was expected, in standard deviations.
const TOLERANCE: f64 = 4.0;

/// The chance of each server to be chosen next. `overloaded` servers have none.
pub(crate) fn chances(
    servers: &[Listed],
    overloaded: impl Fn(&Listed) -> bool,
    generation: Generation,
) -> HashMap<SocketAddr, f64> {
    let usable: Vec<&Listed> = servers.iter().filter(|server| server.weight > 0 && !overloaded(server)).collect();
    let sum: i64 = usable.iter().map(|server| server.weight).sum();
    // A draw is a number from 0 to the sum, both included, so the first server has one chance more.
    let drawn = |place: usize| (usable[place].weight + i64::from(place == 0)) as f64 / (sum + 1) as f64;
    let load = |place: usize| {
        let Listed { weight, active, inactive, .. } = *usable[place];
        let rest = if generation == Generation::New { active + inactive } else { inactive };
        f64::from(256 * active + rest) / weight as f64
    };
    let mut chances = HashMap::new();
    for first in 0..usable.len() {
        for second in 0..usable.len() {
            let winner = if load(first) > load(second) { second } else { first };
            *chances.entry(usable[winner].address).or_insert(0.0) += drawn(first) * drawn(second);
        }
    }
    chances
}

/// How often each server was chosen, how often that was to be expected, and the variance of it.
#[derive(Default)]
pub(crate) struct Lottery(HashMap<SocketAddr, [f64; 3]>);

impl Lottery {
    /// Takes a choice; one that the rule does not allow is told.
    pub(crate) fn take(
        &mut self,
        chances: &HashMap<SocketAddr, f64>,
        chosen: Option<SocketAddr>,
    ) -> Result<(), String> {
        for (server, chance) in chances {
            let entry = self.0.entry(*server).or_default();
            entry[1] += chance;
            entry[2] += chance * (1.0 - chance);
        }
        match chosen {
            Some(server) if chances.contains_key(&server) => {
                self.0.entry(server).or_default()[0] += 1.0;
                Ok(())
            }
            None if chances.is_empty() => Ok(()),
            chosen => Err(format!("{chosen:?} is no server that could be drawn")),
        }
    }

    /// The servers that were chosen too often or not often enough.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let unfair = |entry: &[f64; 3]| (entry[0] - entry[1]).abs() > TOLERANCE * entry[2].sqrt() + 1e-9;
        let told = |(server, [chosen, expected, variance]): (&SocketAddr, &[f64; 3])| {
            format!("{server} was chosen {chosen} times instead of {expected:.1} +- {:.1}", variance.sqrt())
        };
        self.0.iter().filter(|(_, entry)| unfair(entry)).map(told).collect()
    }
}
