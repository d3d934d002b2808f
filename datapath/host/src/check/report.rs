//! All that can be told of a module by trying it.

use std::time::Instant;

use serde::Serialize;
use xvs_sdk::abi::{FALLBACK, NOBODY};

use super::made_up::{SCENES, Scene};
use super::trial::Trial;
use crate::fault::Fault;
use crate::module::{Module, Offers};

/// Numbers of servers that each module must manage, if its table has room for them.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
/// Picks of each scene and size.
const PICKS: usize = 400;
/// Rounds, and picks of each, that a pick's time is the median of.
const ROUNDS: usize = 21;
const ROUND: u32 = 200;

/// What was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// Questions.
    pub picks: u64,
    /// A server that takes new connections.
    pub good: u64,
    /// A server that takes none: a misdeed.
    pub unusable: u64,
    /// Nobody, although it may not say so and a server takes new connections: a misdeed.
    pub denied: u64,
    /// Nobody, rightly.
    pub nobody: u64,
    /// That the director's own scheduler shall choose.
    pub fallback: u64,
    /// A server that is not there: a misdeed.
    pub out_of_range: u64,
}

impl Answers {
    /// Counts an answer; what is wrong with it, if a director holds it against the plugin.
    pub(crate) fn add(&mut self, answer: i32, trial: &Trial) -> Option<String> {
        self.picks += 1;
        let last = trial.rows.len().saturating_sub(1);
        let (count, wrong) = match usize::try_from(answer) {
            Ok(index) if trial.is_usable(index) => (&mut self.good, None),
            Ok(index) if index < trial.rows.len() => {
                (&mut self.unusable, Some("a server that takes no new connection: look for ROW_USABLE".to_owned()))
            }
            Err(_) if answer == NOBODY && !trial.may_deny && trial.has_usable() => (
                &mut self.denied,
                Some("nobody, although a server is usable: say NEEDS_DENY if that is meant".to_owned()),
            ),
            Err(_) if answer == NOBODY => (&mut self.nobody, None),
            Err(_) if answer == FALLBACK => (&mut self.fallback, None),
            _ => (&mut self.out_of_range, Some(format!("nonsense: right are 0 to {last}, {NOBODY} and {FALLBACK}"))),
        };
        *count += 1;
        let (servers, scene) = (trial.rows.len(), trial.scene);
        wrong.map(|wrong| format!("asked among {servers} servers ({scene}), it answers {answer}, {wrong}"))
    }

    /// Answers that a director holds against the plugin.
    pub fn wrong(&self) -> u64 {
        self.unusable + self.denied + self.out_of_range
    }
}

/// What a pick costs among so many servers.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// So many servers.
    pub servers: usize,
    /// Most fuel that a pick used; none if it failed.
    pub worst_fuel: Option<u64>,
    /// Fuel that a pick has.
    pub budget: u64,
    /// It must fit: a usual number of servers, or the one that was asked for.
    pub required: bool,
    /// It came to an answer each time, within the budget.
    pub fits: bool,
    /// Median time of a pick, in nanoseconds, among servers of mixed weights.
    pub ns: Option<f64>,
    /// Why it does not fit.
    pub fault: Option<String>,
}

/// Sizes of a module, in bytes, but for `capacity`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sizes {
    /// Of its file.
    pub module: usize,
    /// Of an instance's memory.
    pub memory: usize,
    /// Servers that its table has room for.
    pub capacity: usize,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// SHA-256 of its file.
    pub sha256: String,
    /// Sizes.
    pub sizes: Sizes,
    /// Bits of `xvs_needs`.
    pub needs: u32,
    /// Imports that it uses.
    pub imports: Vec<String>,
    /// Optional functions that it has.
    pub offers: Offers,
    /// By number of servers.
    pub costs: Vec<Cost>,
    /// Of all picks.
    pub answers: Answers,
    /// Two instances picked alike; none if they could not be asked.
    pub is_deterministic: Option<bool>,
    /// After its state was handed over, the new instance picked as the old one would have; none if it hands none over.
    pub state_goes_on: Option<bool>,
    /// Reasons for which it fails the check; none if it is fit.
    pub problems: Vec<String>,
    /// What its author should know.
    pub notes: Vec<String>,
}

impl Report {
    /// Tries a module, with these options; `servers` is a number that it must manage besides the usual ones. Takes
    /// seconds.
    ///
    /// # Errors
    /// No instance can be made of it, or it refuses the options.
    pub fn of(module: &Module, options: &str, servers: Option<usize>) -> Result<Report, Fault> {
        let mut instance = module.instantiate(0)?;
        instance.configure(options)?;
        let mut report = Report {
            sha256: module.sha256().to_owned(),
            sizes: Sizes { module: module.size(), memory: instance.memory_bytes(), capacity: module.capacity() },
            needs: module.needs().bits(),
            imports: module.imports().to_vec(),
            offers: module.offers(),
            costs: Vec::new(),
            answers: Answers::default(),
            is_deterministic: None,
            state_goes_on: None,
            problems: Vec::new(),
            notes: Vec::new(),
        };
        report.price(module, options, servers);
        if report.problems.is_empty() {
            report.repeat(module, options);
        }
        report.judge();
        Ok(report)
    }

    /// Is it fit for its work?
    pub fn passes(&self) -> bool {
        self.problems.is_empty()
    }

    /// Asks among each number of servers, in each scene.
    fn price(&mut self, module: &Module, options: &str, servers: Option<usize>) {
        let capacity = module.capacity();
        let mut sizes: Vec<(usize, bool)> = SIZES.map(|size| (size, true)).to_vec();
        sizes.retain(|&(size, _)| size <= capacity);
        sizes.push((capacity, sizes.iter().any(|&(size, _)| size == capacity)));
        if let Some(servers) = servers {
            if servers > capacity {
                self.problems.push(format!("its table has {capacity} rows, and {servers} servers were asked for"));
            } else {
                sizes.push((servers, true));
            }
        }
        sizes.sort_by_key(|&(size, required)| (size, !required));
        sizes.dedup_by_key(|&mut (size, _)| size);
        for (size, required) in sizes {
            let cost = self.cost(module, options, size, required);
            self.costs.push(cost);
        }
        let Some(over) = self.costs.iter().find(|cost| !cost.fits && !cost.required) else { return };
        if self.costs.iter().any(|cost| !cost.fits && cost.required) {
            return;
        }
        let (mut fits, mut over) =
            (self.costs.iter().filter(|cost| cost.fits).map(|cost| cost.servers).max().unwrap_or(0), over.servers);
        while over - fits > 1 {
            let middle = fits.midpoint(over);
            if self.cost(module, options, middle, false).fits { fits = middle } else { over = middle }
        }
        self.notes.push(format!(
            "its table has room for {capacity} servers, and its fuel reaches for {fits}: a service with more falls back \
             to the director's own scheduler"
        ));
    }

    fn cost(&mut self, module: &Module, options: &str, servers: usize, required: bool) -> Cost {
        let budget = module.budget(servers);
        let mut cost = Cost { servers, worst_fuel: None, budget, required, fits: true, ns: None, fault: None };
        for (seed, scene) in (1..).zip(SCENES) {
            if let Err(fault) = self.try_scene(module, options, scene, seed, &mut cost) {
                cost.fits = false;
                cost.fault = Some(fault.to_string());
                if required {
                    self.problems
                        .push(format!("asked among {servers} servers ({scene}), with {budget} units of fuel, {fault}"));
                }
                break;
            }
        }
        if cost.fits {
            cost.ns = time(module, options, servers, budget).ok();
        } else {
            cost.worst_fuel = None;
        }
        cost
    }

    fn try_scene(
        &mut self,
        module: &Module,
        options: &str,
        scene: Scene,
        seed: u64,
        cost: &mut Cost,
    ) -> Result<(), Fault> {
        let mut trial = Trial::begin(module, cost.servers, options, scene, seed)?;
        for _ in 0..PICKS {
            let answer = trial.pick(cost.budget)?;
            cost.worst_fuel = cost.worst_fuel.max(Some(trial.fuel_used()));
            let problem = self.answers.add(answer, &trial);
            // One is enough to read.
            if let Some(problem) = problem
                && self.answers.wrong() == 1
            {
                self.problems.push(problem);
            }
        }
        Ok(())
    }

    /// Two instances, and one that takes over.
    fn repeat(&mut self, module: &Module, options: &str) {
        let servers = module.capacity().min(16);
        let fuel = module.budget(servers);
        let ask = || -> Result<(bool, Option<bool>), Fault> {
            let begin = || Trial::begin(module, servers, options, Scene::Troubled, 77);
            let (mut one, mut other) = (begin()?, begin()?);
            for _ in 0..2 * PICKS {
                if one.pick(fuel)? != other.pick(fuel)? {
                    return Ok((false, None));
                }
            }
            let Some(state) = one.instance.save(module.limits().fuel_most)? else { return Ok((true, None)) };
            if !other.replace(module, options, &state)? {
                return Ok((true, Some(false)));
            }
            for _ in 0..PICKS {
                if one.pick(fuel)? != other.pick(fuel)? {
                    return Ok((true, Some(false)));
                }
            }
            Ok((true, Some(true)))
        };
        match ask() {
            Ok((is_deterministic, state_goes_on)) => {
                self.is_deterministic = Some(is_deterministic);
                self.state_goes_on = state_goes_on;
            }
            Err(fault) => self.problems.push(format!("asked again, {fault}")),
        }
    }

    fn judge(&mut self) {
        if self.is_deterministic == Some(false) {
            self.problems.push(
                "two instances that saw the same picked differently: a replay would not repeat, nor a trial tell anything"
                    .into(),
            );
        }
        if self.state_goes_on == Some(false) {
            self.notes
                .push("after its state was handed over, the new instance picks otherwise than the old one".into());
        }
        let Answers { picks, fallback, .. } = self.answers;
        if fallback > 0 {
            self.notes.push(format!("{fallback} times of {picks} it left the choice to the director's own scheduler"));
        }
        if self.offers.configure && !self.offers.config {
            self.notes.push("it exports xvs_configure and has no buffer for options".into());
        }
    }
}

/// Median time of a pick, in nanoseconds.
fn time(module: &Module, options: &str, servers: usize, fuel: u64) -> Result<f64, Fault> {
    let mut trial = Trial::begin(module, servers, options, Scene::Mixed, 5)?;
    let mut chance = super::Chance::new(9);
    let flows: Vec<_> = (0..ROUND).map(|_| chance.flow()).collect();
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let begin = Instant::now();
        for flow in &flows {
            std::hint::black_box(trial.instance.pick(flow, fuel)?);
        }
        *round = begin.elapsed().as_secs_f64() * 1e9 / f64::from(ROUND);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}
