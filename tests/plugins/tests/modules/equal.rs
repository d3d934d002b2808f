//! The built-ins that are plugins too pick what the built-ins pick, whatever happens to the list.
//!
//! Invariant of these tests: both are told the same in the same order, and the seed is in the message of a failure.

use xvs_engine::sched::Builtin;
use xvs_sdk::abi::{
    CHANGED_ADDED, CHANGED_ALL, CHANGED_EDITED, CHANGED_REMOVED, Flow, ROW_OVERLOADED, ROW_USABLE, Row,
};
use xvs_sdk::{Change, Reals, Request, Rng, Scheduler};

use crate::plain::Plain;

/// Fuel of a pick: what the director's default allows for these lists.
const FUEL: u64 = 20_000;
/// Most servers.
const MOST: usize = 20;

/// The servers, as rows.
#[derive(Default)]
struct List(Vec<Row>);

impl Reals for List {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, index: usize) -> i32 {
        self.0[index].weight
    }
    fn active(&self, index: usize) -> u32 {
        self.0[index].active
    }
    fn total(&self, index: usize) -> u32 {
        self.0[index].total
    }
    fn is_overloaded(&self, index: usize) -> bool {
        self.0[index].flags & ROW_OVERLOADED != 0
    }
}

/// A built-in, the plugin, and what both are told.
struct Twins {
    builtin: Builtin,
    plugin: Plain,
    list: List,
    rng: Rng,
}

impl Twins {
    fn new(builtin: &str, plugin: &str, seed: u64) -> Twins {
        let builtin = Builtin::from_name(builtin).unwrap();
        let mut twins = Twins { builtin, plugin: Plain::new(plugin), list: List::default(), rng: Rng::new(seed) };
        twins.tell(Change::All);
        twins
    }

    fn row(&mut self, index: usize) {
        let row = &mut self.list.0[index];
        let usable = row.weight > 0 && row.flags & ROW_OVERLOADED == 0;
        row.flags = row.flags & ROW_OVERLOADED | if usable { ROW_USABLE } else { 0 };
        self.plugin.set_row(index, row);
    }

    fn tell(&mut self, change: Change) {
        self.plugin.set_count(self.list.len());
        (0..self.list.len()).for_each(|index| self.row(index));
        self.builtin.reals_changed(&self.list, change);
        let (kind, index) = match change {
            Change::All => (CHANGED_ALL, 0),
            Change::Added(index) => (CHANGED_ADDED, index),
            Change::Removed(index) => (CHANGED_REMOVED, index),
            Change::Edited(index) => (CHANGED_EDITED, index),
        };
        assert_eq!(self.plugin.changed(kind, index), 0);
    }

    /// Small weights most often; 0 and the largest sometimes.
    fn weight(&mut self) -> i32 {
        match self.rng.below(20) {
            0 | 1 => 0,
            2 => 65_535 - self.rng.below(3) as i32,
            3 => self.rng.below(1_000) as i32,
            _ => 1 + self.rng.below(8) as i32,
        }
    }

    /// One random event. Answers are compared at picks.
    fn step(&mut self) {
        let (len, what) = (self.list.len(), self.rng.below(100));
        if what < 70 {
            return self.pick();
        }
        if what < 72 && len < MOST {
            let (index, weight) = (self.rng.below(len + 1), self.weight());
            self.list.0.insert(index, Row { weight, ..Row::default() });
            return self.tell(Change::Added(index));
        }
        if len == 0 {
            return;
        }
        let index = self.rng.below(len);
        match what {
            72 | 73 => {
                self.list.0.remove(index);
                self.tell(Change::Removed(index));
            }
            74..=76 => {
                self.list.0[index].weight = self.weight();
                self.tell(Change::Edited(index));
            }
            77..=80 => {
                self.list.0[index].flags ^= ROW_OVERLOADED;
                self.row(index);
            }
            81 => {
                // Numbers that do not fit into the fast comparison.
                let active = self.rng.next_u64() as u32;
                let row = &mut self.list.0[index];
                (row.active, row.total) = (active, active.saturating_add(3));
                self.row(index);
            }
            82 if self.rng.below(50) == 0 => self.tell(Change::All),
            _ => {
                let row = &mut self.list.0[index];
                row.active = row.active.saturating_sub(1);
                row.total = row.total.saturating_sub(1).max(row.active);
                self.row(index);
            }
        }
    }

    /// A pick, and a new connection at the server.
    fn pick(&mut self) {
        let expected = self.builtin.pick(&Request::default(), &self.list);
        let picked = self.plugin.pick(&Flow::default(), FUEL).unwrap();
        assert_eq!(usize::try_from(picked).ok(), expected, "{:?} {:?}", self.list.0, self.builtin);
        if let Some(index) = expected {
            let row = &mut self.list.0[index];
            row.total = row.total.saturating_add(1);
            row.active = row.active.saturating_add(1).min(row.total);
            self.row(index);
        }
    }
}

/// A tenth of the steps in a debug build, where each takes ten times as long.
fn equal(builtin: &str, plugin: &str, steps: usize) {
    let steps = if cfg!(debug_assertions) { steps / 10 } else { steps };
    for seed in 0..10 {
        let mut twins = Twins::new(builtin, plugin, seed);
        (0..steps / 10).for_each(|_| twins.step());
    }
}

/// `wrr` of WebAssembly is `wrr`, a million steps long.
#[test]
fn wrr_is_wrr() {
    equal("wrr", "wrr", 1_000_000);
}

/// `wlc` of WebAssembly is `wlc`, a million steps long.
#[test]
fn wlc_is_wlc() {
    equal("wlc", "wlc", 1_000_000);
}

/// The sample `rr` is `rr`.
#[test]
fn rr_is_rr() {
    equal("rr", "rr", 200_000);
}

/// The one in C is `wlc`.
#[test]
fn least_c_is_wlc() {
    equal("wlc", "least-c", 200_000);
}
