//! The changes: round after round, each ends as it began.
//!
//! A round drains a server by weight 0 and removes it after every request to it has had its time; tears away another
//! one by `xvs apply`; and brings both back by a second `apply`. In between there are changes elsewhere (services come and
//! go), and weights and schedulers of the service under the heaviest load.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xvs_tests::{Family, Lab, Running, Service};

use crate::site::{Dynamic, Site};

/// The time for a change: forty a second, if the machine keeps up.
const PACE: Duration = Duration::from_millis(25);

/// A request ends within eight seconds, answered or not; a drained server is removed only then.
const DRAIN: Duration = Duration::from_secs(9);

/// How long the servers are away.
const AWAY: Duration = Duration::from_secs(3);

/// Schedulers of the service under load, one after the other.
const SCHEDULERS: &[&str] = &["wlc", "rr", "lc", "sed", "nq", "wrr"];

/// What was changed.
#[derive(Debug, Default)]
pub(crate) struct Blown {
    /// Rounds.
    pub(crate) rounds: u64,
    /// Changes by `xvsadm`.
    pub(crate) changes: u64,
    /// Scheduler swaps among them.
    pub(crate) swaps: u64,
    /// `xvs apply`.
    pub(crate) applies: u64,
    /// Servers that were removed with requests on them.
    pub(crate) torn: u64,
    /// How long all of it took.
    pub(crate) took: Duration,
}

impl fmt::Display for Blown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blown { rounds, changes, swaps, applies, torn, took } = self;
        let rate = *changes as f64 / took.as_secs_f64();
        write!(
            f,
            "{changes} changes by xvsadm in {:.0} s ({rate:.1}/s), {swaps} of them scheduler swaps; {applies} times xvs \
             apply; {rounds} servers drained, {torn} torn away",
            took.as_secs_f64()
        )
    }
}

/// Changes until this moment; the round that has begun is ended.
pub(crate) fn blow(lab: &Lab, ds: &Running, site: &Site, until: Instant) -> Result<Blown> {
    let started = Instant::now();
    let mut storm = Storm { ds, site, blown: Blown::default(), elsewhere: elsewhere(lab), turn: 0 };
    while Instant::now() < until {
        storm.round().with_context(|| format!("after {}", storm.blown))?;
    }
    storm.blown.took = started.elapsed();
    Ok(storm.blown)
}

/// Changes that concern nobody: services come and go, servers are added, edited, removed.
fn elsewhere(lab: &Lab) -> Vec<String> {
    let other = Service::tcp(lab.vip(6).socket(Family::V4, 80)).key();
    let six = Service::udp(lab.vip(6).socket(Family::V6, 5353)).key();
    let (rs3, rs6) = (lab.server(3).address(), lab.server(6).address());
    let (rs3, rs6_six) = (rs3.socket(Family::V4, 80), rs6.socket(Family::V6, 5353));
    let rs6 = rs6.socket(Family::V4, 80);
    vec![
        format!("-A {other} -s wlc"),
        format!("-a {other} -r {rs3} -m -w 1"),
        format!("-A {six} -s rr"),
        format!("-a {other} -r {rs6} -g -w 5"),
        format!("-e {other} -r {rs3} -m -w 7"),
        format!("-a {six} -r {rs6_six} -m"),
        format!("-E {other} -s mh"),
        format!("-e {other} -r {rs6} -g -w 0"),
        format!("-d {other} -r {rs6}"),
        format!("-E {other} -s lc -p 60"),
        format!("-d {six} -r {rs6_six}"),
        format!("-D {six}"),
        format!("-e {other} -r {rs3} -i -w 0"),
        format!("-D {other}"),
    ]
}

struct Storm<'a> {
    ds: &'a Running,
    site: &'a Site,
    blown: Blown,
    elsewhere: Vec<String>,
    turn: usize,
}

impl Storm<'_> {
    fn round(&mut self) -> Result<()> {
        let (drained, rs5) = (self.site.drained.service.key(), self.site.drained.server(1));
        self.change(&format!("-e {drained} -r {rs5} -m -w 0"))?;
        self.gusts(DRAIN)?;
        self.change(&format!("-d {drained} -r {rs5}"))?;
        self.apply(&Dynamic::NONE)?;
        self.blown.torn += 1;
        self.gusts(AWAY)?;
        self.apply(&Dynamic::ALL)?;
        self.blown.rounds += 1;
        Ok(())
    }

    /// For so long, in whole rounds of the changes elsewhere, so that none of their services is left behind.
    fn gusts(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for line in self.elsewhere.clone() {
                let begun = Instant::now();
                self.change(&line)?;
                self.breeze()?;
                std::thread::sleep((PACE * 2).saturating_sub(begun.elapsed()));
            }
        }
        Ok(())
    }

    /// A change to the service under load: a weight, never 0, or now and then the scheduler.
    fn breeze(&mut self) -> Result<()> {
        self.turn += 1;
        let (turn, nat) = (self.turn, &self.site.nat);
        let key = nat.service.key();
        if turn.is_multiple_of(7) {
            self.blown.swaps += 1;
            let scheduler = SCHEDULERS[turn / 7 % SCHEDULERS.len()];
            return self.change(&format!("-E {key} -s {scheduler}"));
        }
        self.change(&format!("-e {key} -r {} -m -w {}", nat.server(turn % 2), 1 + turn % 4))
    }

    fn change(&mut self, line: &str) -> Result<()> {
        self.ds.xvsadm(line)?;
        self.blown.changes += 1;
        Ok(())
    }

    fn apply(&mut self, dynamic: &Dynamic) -> Result<()> {
        let path = self.ds.configuration().with_extension("apply.toml");
        std::fs::write(&path, self.site.document(dynamic)).context("a document could not be written")?;
        self.ds.xvs(&["apply", &path.to_string_lossy()])?;
        self.blown.applies += 1;
        Ok(())
    }
}
