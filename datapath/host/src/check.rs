//! Is a module fit for its work? Asked of made-up servers and flows, before real ones meet it.
//!
//! Invariant: everything made up comes from fixed seeds, so a verdict repeats (times do not). [`smoke`] is what a
//! director does with each module before it serves: bounded in time, and with what an operator's service has. The
//! [`Report`] is for a person who wrote the module: all sizes, determinism, state, times.

mod made_up;
mod report;
mod trial;

use std::time::{Duration, Instant};

pub use made_up::{Chance, SCENES, Scene};
pub use report::{Answers, Cost, Report, Sizes};

use crate::module::Module;
use crate::rejected::Rejected;
use trial::Trial;

/// What a smoke test saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Smoke {
    /// Servers that it was asked among.
    pub servers: usize,
    /// Most fuel that a pick used.
    pub worst_fuel: u64,
    /// Fuel that a pick has.
    pub budget: u64,
    /// What it answered.
    pub answers: Answers,
}

/// Each scene of a smoke test may last so long.
const SCENE: Duration = Duration::from_millis(3);
/// It has no more picks than these, and no less, however slow they are.
const SCENE_MOST: usize = 300;
const SCENE_LEAST: usize = 16;

/// Asks a module among so many servers, with these options: may it serve? Takes about 20 ms at most, besides the time for
/// its options and its list.
///
/// # Errors
/// It has no room for them, refuses the options, fails, exceeds its budget, or answers with servers that are not there.
pub fn smoke(module: &Module, rows: usize, options: &str) -> Result<Smoke, Rejected> {
    // A service without servers yet is asked among a few, so that a module that can not work at all is found.
    let servers = rows.max(4).min(rows.max(module.capacity()));
    let budget = module.budget(servers);
    let mut smoke = Smoke { servers, budget, ..Smoke::default() };
    for (seed, scene) in (1..).zip(SCENES) {
        let trial = Trial::begin(module, servers, options, scene, seed);
        let mut trial = trial.map_err(|fault| Rejected::because(fault.to_string()))?;
        let begin = Instant::now();
        for number in 0..SCENE_MOST {
            if number >= SCENE_LEAST && begin.elapsed() > SCENE {
                break;
            }
            let answer = trial.pick(budget).map_err(|fault| {
                Rejected::because(format!(
                    "asked among {servers} servers ({scene}), with {budget} units of fuel, {fault}"
                ))
            })?;
            smoke.worst_fuel = smoke.worst_fuel.max(trial.fuel_used());
            if let Some(problem) = smoke.answers.add(answer, &trial) {
                return Err(Rejected::because(problem));
            }
        }
    }
    Ok(smoke)
}
