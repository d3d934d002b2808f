//! The plugin's post beside a service: a seat for each worker, and what the control side does with them.
//!
//! A worker takes its own seat, asks, and lets go; nobody else waits for it but the control side. Everything that takes
//! time (instances, options, tables) is made by the control side outside the seats, and exchanged in one move. Existing
//! connections are none of its business: the connection table keeps them.
//!
//! Invariant: an exchange happens in all seats or in none, and only after all new instances are made; whatever a plugin
//! does, the same connection is served, by the native scheduler if need be. A seat's lock is held for one answer of the
//! plugin, which its budget bounds. Not here: names and files of plugins ([`crate::Module`] is all that is known).

mod compare;
mod conduct;
mod guest;
mod latch;
mod ledger;
mod runner;
mod seat;
mod status;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xvs_engine::real::RealId;
use xvs_engine::sched::guest::Site;
use xvs_sdk::{Change, abi};

pub use self::compare::{Comparison, Share};
pub use self::conduct::{Misdeed, Trust};
pub use self::runner::Version;
pub use self::seat::Trial;
pub use self::status::{Event, EventKind, PostStatus, Standing};

use self::conduct::Conduct;
use self::latch::{Guard, Latch};
use self::ledger::FactBook;
use self::runner::{Recipe, Runner};
use self::seat::{Candidate, Seat};
use self::status::Events;
use crate::Fault;

/// What the control side knows.
#[derive(Debug, Default)]
struct Desk {
    live: Option<Recipe>,
    candidate: Option<(Recipe, Trial)>,
    facts: FactBook,
    now_ms: u64,
}

/// A service's guest: its plugin, and the candidate beside it.
#[derive(Debug)]
pub struct Post {
    /// One for each worker, on cache lines of its own.
    seats: Box<[Latch<Seat>]>,
    number: u32,
    is_active: AtomicBool,
    conduct: Conduct,
    /// Conduct of the candidate; a new one begins with a clean record.
    trial: Conduct,
    desk: Mutex<Desk>,
    events: Events,
}

impl Post {
    /// A post with nobody in it, for so many workers, beside the service of this number.
    pub fn new(workers: usize, service: u32) -> Arc<Post> {
        Arc::new(Post {
            seats: (0..workers.max(1)).map(|_| Latch::default()).collect(),
            number: service,
            is_active: AtomicBool::new(false),
            conduct: Conduct::default(),
            trial: Conduct::default(),
            desk: Mutex::default(),
            events: Events::default(),
        })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn seat(&self, queue: u32) -> Guard<'_, Seat> {
        // There is one at least, and no worker without its own. (A remainder would cost as much as the latch.)
        self.seats.get(queue as usize).unwrap_or(&self.seats[0]).take()
    }

    /// A seat's seed: other numbers for each worker and service, the same ones in the next run.
    fn seed(&self, seat: usize) -> u64 {
        u64::from(self.number) << 32 | seat as u64
    }

    /// Makes a runner for every seat, with what `state` finds in the seat to hand over.
    fn build_all(
        &self,
        recipe: &Recipe,
        site: &Site<'_>,
        desk: &Desk,
        state: impl Fn(&mut Seat) -> Option<Vec<u8>>,
    ) -> Result<Vec<Runner>, Fault> {
        let build = |(number, place): (usize, &Latch<Seat>)| {
            let state = state(&mut place.take());
            Runner::build(recipe, self.seed(number), site, &desk.facts, state.as_deref(), desk.now_ms)
        };
        self.seats.iter().enumerate().map(build).collect()
    }

    /// Puts this version to work, or with `None` sends the plugin away and leaves the service to its native scheduler.
    ///
    /// # Errors
    /// It refuses its options, has no room for the servers, or fails while it is made. The live one is as it was.
    pub fn set_live(&self, site: &Site<'_>, version: Option<Arc<Version>>, options: &str) -> Result<(), Fault> {
        let desk = &mut *self.desk();
        let recipe = version.map(|version| Recipe { version, options: options.to_owned() });
        let mut runners = match &recipe {
            Some(recipe) => {
                let same = desk.live.as_ref().is_some_and(|old| old.version.name == recipe.version.name);
                let state = |seat: &mut Seat| seat.live.as_mut().filter(|_| same).and_then(Runner::save);
                self.build_all(recipe, site, desk, state)?.into_iter().map(Some).collect()
            }
            None => self.seats.iter().map(|_| None).collect::<Vec<_>>(),
        };
        self.conduct.pardon();
        for (place, runner) in self.seats.iter().zip(&mut runners) {
            std::mem::swap(&mut place.take().live, runner);
        }
        desk.live = recipe;
        self.is_active.store(desk.live.is_some() || desk.candidate.is_some(), Relaxed);
        Ok(()) // the old runners go here, off the workers
    }

    /// Tries a candidate beside the live scheduler, or with `None` ends the trial.
    ///
    /// # Errors
    /// As of [`set_live`](Post::set_live); a trial that goes on is as it was.
    pub fn set_trial(
        &self,
        site: &Site<'_>,
        candidate: Option<(Arc<Version>, Trial)>,
        options: &str,
    ) -> Result<(), Fault> {
        let desk = &mut *self.desk();
        let candidate = candidate.map(|(version, trial)| (Recipe { version, options: options.to_owned() }, trial));
        let mut candidates = match &candidate {
            Some((recipe, trial)) => {
                let runners = self.build_all(recipe, site, desk, |_| None)?;
                runners.into_iter().map(|runner| Some(Candidate::new(runner, *trial))).collect()
            }
            None => self.seats.iter().map(|_| None).collect::<Vec<_>>(),
        };
        self.trial.pardon();
        for (place, candidate) in self.seats.iter().zip(&mut candidates) {
            std::mem::swap(&mut place.take().candidate, candidate);
        }
        desk.candidate = candidate;
        self.is_active.store(desk.live.is_some() || desk.candidate.is_some(), Relaxed);
        Ok(())
    }

    /// Changes how the candidate is tried, and begins to count anew.
    ///
    /// # Errors
    /// There is no candidate.
    pub fn change_trial(&self, trial: Trial) -> Result<(), String> {
        let desk = &mut *self.desk();
        let (_, old) = desk.candidate.as_mut().ok_or("there is no candidate")?;
        *old = trial;
        for place in &self.seats {
            let seat = &mut *place.take();
            if let Some(runner) = seat.candidate.take().and_then(|candidate| candidate.runner) {
                seat.candidate = Some(Candidate::new(runner, trial));
            }
        }
        Ok(())
    }

    /// Makes the candidate the live scheduler, with the instances that it has.
    ///
    /// # Errors
    /// There is none, or it was withdrawn for what it did. Nothing has changed.
    pub fn promote(&self) -> Result<Arc<Version>, String> {
        let desk = &mut *self.desk();
        let Some((recipe, _)) = &desk.candidate else { return Err("there is no candidate to promote".into()) };
        let is_whole =
            |place: &Latch<Seat>| place.take().candidate.as_ref().is_some_and(|candidate| candidate.runner.is_some());
        if !self.trial.is_live() || !self.seats.iter().all(is_whole) {
            let last = self.trial.last().unwrap_or_default();
            return Err(format!("the candidate was withdrawn: {last}"));
        }
        let version = recipe.version.clone();
        self.conduct.pardon();
        let old: Vec<Option<Runner>> = self
            .seats
            .iter()
            .map(|place| {
                let seat = &mut *place.take();
                let promoted = seat.candidate.take().and_then(|candidate| candidate.runner);
                std::mem::replace(&mut seat.live, promoted)
            })
            .collect();
        drop(old);
        desk.live = desk.candidate.take().map(|(recipe, _)| recipe);
        Ok(version)
    }

    /// Tells the facts of all servers: rates, metrics, tags.
    pub fn set_facts(&self, site: &Site<'_>, facts: &dyn Fn(RealId) -> abi::Facts) {
        let desk = &mut *self.desk();
        desk.facts.replace(site.members, facts);
        for place in &self.seats {
            let seat = &mut *place.take();
            for runner in seat.runners() {
                runner.write_facts(site.arena, &desk.facts);
            }
        }
    }

    /// Lets a plugin back that was sent away, or is in quarantine; its record begins anew.
    pub fn retry(&self) {
        self.conduct.pardon();
        self.trial.pardon();
    }

    /// Replaces what broke, and ends quarantines that have lasted long enough. Called by the control side, often, with
    /// the engine's time.
    pub fn tick(&self, site: &Site<'_>, now_ms: u64) {
        let desk = &mut *self.desk();
        desk.now_ms = now_ms;
        for conduct in [&self.conduct, &self.trial] {
            if conduct.is_due(now_ms) {
                conduct.release();
                self.events.push(now_ms, EventKind::Released, "its quarantine is over; it is asked again".into());
            }
        }
        for number in 0..self.seats.len() {
            self.mend(number, site, desk);
        }
        for place in &self.seats {
            let seat = &mut *place.take();
            for line in seat.runners().flat_map(Runner::take_log) {
                self.events.push(now_ms, EventKind::Said, line);
            }
        }
    }

    /// Makes what a seat should have and has not, or has broken.
    fn mend(&self, number: usize, site: &Site<'_>, desk: &Desk) {
        let place = &self.seats[number];
        let is_whole = |runner: &Option<Runner>| runner.as_ref().is_some_and(|runner| !runner.is_broken);
        let build = |recipe: &Recipe| Runner::build(recipe, self.seed(number), site, &desk.facts, None, desk.now_ms);
        let is_missing = !is_whole(&place.take().live);
        if let Some(recipe) = desk.live.as_ref().filter(|_| is_missing && self.conduct.is_live()) {
            match build(recipe) {
                Ok(runner) => drop(place.take().live.replace(runner)),
                Err(fault) => self.failed(&self.conduct, fault, desk.now_ms),
            }
        }
        let Some((recipe, trial)) = desk.candidate.as_ref().filter(|_| self.trial.is_live()) else { return };
        let is_missing = !place.take().candidate.as_ref().is_some_and(|candidate| is_whole(&candidate.runner));
        if !is_missing {
            return;
        }
        match build(recipe) {
            Ok(runner) => {
                let seat = &mut *place.take();
                match &mut seat.candidate {
                    Some(candidate) => candidate.runner = Some(runner),
                    None => seat.candidate = Some(Candidate::new(runner, *trial)),
                }
            }
            Err(fault) => self.failed(&self.trial, fault, desk.now_ms),
        }
    }

    fn failed(&self, conduct: &Conduct, fault: Fault, now_ms: u64) {
        let told = fault.to_string();
        let trust = conduct.fail(fault, now_ms);
        self.events.misdeed(now_ms, told, trust);
    }

    fn misbehaved(&self, conduct: &Conduct, misdeed: &Misdeed, now_ms: u64) {
        let trust = conduct.note(misdeed, now_ms);
        self.events.misdeed(now_ms, misdeed.to_string(), trust);
    }

    /// Takes a change into one runner; a new one is built where that is asked for.
    fn follow(
        &self,
        number: usize,
        runner: impl Fn(&mut Seat) -> Option<&mut Runner>,
        conduct: &Conduct,
        site: &Site<'_>,
        desk: &Desk,
        change: Change,
    ) {
        let place = &self.seats[number];
        let (recipe, state) = {
            let seat = &mut *place.take();
            let Some(runner) = runner(seat).filter(|runner| !runner.is_broken) else { return };
            match runner.changed(site, &desk.facts, change) {
                Ok(false) => return,
                Ok(true) => (runner.recipe.clone(), runner.save()),
                Err(fault) => {
                    runner.is_broken = true;
                    return self.failed(conduct, fault, desk.now_ms);
                }
            }
        };
        match Runner::build(&recipe, self.seed(number), site, &desk.facts, state.as_deref(), desk.now_ms) {
            Ok(built) => {
                let seat = &mut *place.take();
                let old = runner(seat).map(|runner| std::mem::replace(runner, built));
                drop(old);
            }
            Err(fault) => self.failed(conduct, fault, desk.now_ms),
        }
    }

    /// How the plugin does.
    pub fn status(&self) -> PostStatus {
        let desk = self.desk();
        let mut status = PostStatus::new(&self.conduct);
        let mut live = desk.live.as_ref().map(|recipe| Standing::new(recipe, &self.conduct));
        let mut candidate = desk.candidate.as_ref().map(|(recipe, _)| Standing::new(recipe, &self.trial));
        for place in &self.seats {
            let seat = place.take();
            status.picks += seat.picks;
            status.fallback += seat.fallback;
            status.overruled += seat.overruled;
            if let (Some(standing), Some(runner)) = (&mut live, &seat.live) {
                standing.add(runner);
            }
            let runner = seat.candidate.as_ref().and_then(|candidate| candidate.runner.as_ref());
            if let (Some(standing), Some(runner)) = (&mut candidate, runner) {
                standing.add(runner);
            }
        }
        status.live = live;
        status.candidate = candidate.zip(desk.candidate.as_ref().map(|(_, trial)| *trial));
        status
    }

    /// How the candidate does beside the live one; none without a candidate.
    pub fn comparison(&self, site: &Site<'_>) -> Option<Comparison> {
        let desk = self.desk();
        desk.candidate.as_ref()?;
        let mut sum = compare::Tally::default();
        for place in &self.seats {
            if let Some(candidate) = &place.take().candidate {
                sum.add(&candidate.tally);
            }
        }
        Some(sum.result(site.arena, site.members))
    }

    /// What happened since the last call, for the log.
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }
}
