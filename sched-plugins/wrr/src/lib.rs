//! `wrr`: round robin in proportion to the weights. The director's own `wrr`, as a plugin.
//!
//! With G the greatest common divisor of all weights above 0 and M the largest, a level goes down from M - (G - 1) in
//! steps of G; at each level the cursor walks the list once and serves the servers whose weight reaches the level.
//!
//! Two habits of the kernel that a textbook version does not have, and that are kept: a fresh service starts with one
//! pass at level 1 over all servers; and every change of the list, even one that changes nothing, sends the cursor
//! back to the head but keeps the level (rounded down to the new grid).
//!
//! Invariant: it picks what the built-in `wrr` picks, for any list and any order of events. It looks at no counts and no
//! facts. A pick looks at the list a few times and not once for each level: levels that no server reaches are stepped
//! over, since there may be 65535 of them, and a plugin has a budget.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Needs, Reals, Request, Scheduler};

/// State of `wrr`.
#[derive(Clone, Debug)]
pub struct WeightedRoundRobin {
    /// The server that was served last; `None` stands before the head of the list.
    cursor: Option<usize>,
    /// The level now.
    level: i64,
    /// The highest level; 0 if no server has a weight above 0.
    top: i64,
    /// The step between levels.
    step: i64,
}

impl Default for WeightedRoundRobin {
    fn default() -> Self {
        WeightedRoundRobin { cursor: None, level: 0, top: 0, step: 1 }
    }
}

impl WeightedRoundRobin {
    fn measure<R: Reals + ?Sized>(&mut self, reals: &R) {
        let weights = || (0..reals.len()).map(|index| reals.weight(index)).filter(|&weight| weight > 0);
        let divisor = weights().fold(0, |divisor, weight| gcd(divisor, weight as u32));
        self.step = i64::from(divisor.max(1));
        self.top = weights().max().map_or(0, |largest| i64::from(largest) - (self.step - 1));
        self.cursor = None;
    }

    /// Goes down to a level that a server reaches, or to the lowest one: as the passes would that find nothing.
    fn descend<R: Reals + ?Sized>(&mut self, reals: &R) {
        let open = (0..reals.len()).filter(|&index| !reals.is_overloaded(index));
        let highest = open.map(|index| i64::from(reals.weight(index))).max().unwrap_or(0);
        if self.level > highest {
            let lowest = (self.level - 1) / self.step;
            let needed = (self.level - highest + self.step - 1) / self.step;
            self.level -= needed.min(lowest) * self.step;
        }
    }
}

impl Scheduler for WeightedRoundRobin {
    const NEEDS: Needs = Needs::NOTHING;

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        self.measure(reals);
        if change == Change::All || self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let start = self.cursor;
        let mut at = self.cursor;
        let mut stop = None;
        let (mut last_pass, mut restarted) = (false, false);
        loop {
            for index in at.map_or(0, |cursor| cursor + 1)..reals.len() {
                if !reals.is_overloaded(index) && i64::from(reals.weight(index)) >= self.level {
                    self.cursor = Some(index);
                    return Some(index);
                }
                if stop == Some(index) {
                    self.cursor = Some(index);
                    return None;
                }
            }
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.top;
                if last_pass || start.is_none() {
                    self.cursor = None;
                    return None;
                }
                restarted = true;
            }
            self.descend(reals);
            last_pass = self.level <= self.step;
            if last_pass && restarted {
                stop = start;
            }
            at = None;
        }
    }

    /// Cursor and level: 12 bytes.
    fn save(&self, into: &mut [u8]) -> Option<usize> {
        let cursor = self.cursor.map_or(u32::MAX, |cursor| cursor as u32);
        into.get_mut(..4)?.copy_from_slice(&cursor.to_le_bytes());
        into.get_mut(4..12)?.copy_from_slice(&self.level.to_le_bytes());
        Some(12)
    }

    fn restore<R: Reals + ?Sized>(&mut self, reals: &R, from: &[u8]) -> bool {
        if from.len() != 12 {
            return false;
        }
        let word = |at: usize| u32::from_le_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]]);
        let level = i64::from(word(4)) | i64::from(word(8)) << 32;
        // The list is the one of when it was saved, and so is the grid of levels; anything else is not ours.
        if level < 0 || level > self.top {
            return false;
        }
        self.cursor = Some(word(0) as usize).filter(|&cursor| cursor < reals.len());
        self.level = level;
        true
    }
}

/// Greatest common divisor; of 0 and a number, the number.
fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

export_scheduler!(WeightedRoundRobin, uses = [state]);

#[cfg(test)]
mod tests {
    use plugin_bench::List;

    use super::*;

    /// Servers of these weights, the newest first and called A, B, C.
    fn service(weights: &[i32]) -> (WeightedRoundRobin, List) {
        let list = List::plain(&weights.iter().map(|&weight| (weight, 0, false)).collect::<Vec<_>>());
        let mut scheduler = WeightedRoundRobin::default();
        scheduler.reals_changed(&List::plain(&[]), Change::All);
        for index in (0..list.len()).rev() {
            scheduler.reals_changed(&List(list.0[index..].to_vec()), Change::Added(0));
        }
        (scheduler, list)
    }

    fn picks(scheduler: &mut WeightedRoundRobin, list: &List, times: usize) -> String {
        let pick = |_| scheduler.pick(&Request::default(), list).map_or('-', |index| (b'A' + index as u8) as char);
        (0..times).map(pick).collect()
    }

    /// The kernel's sequence: a first pass over all, then down from the top.
    #[test]
    fn a_fresh_service_starts_at_level_one() {
        let (mut scheduler, list) = service(&[2, 3, 4]);
        assert_eq!(picks(&mut scheduler, &list, 18), "ABCCBCABC".repeat(2));
        let (mut scheduler, list) = service(&[30, 20, 10]);
        assert_eq!(picks(&mut scheduler, &list, 12), "ABCAAB".repeat(2));
    }

    /// An edit sends the cursor to the head and keeps the level.
    #[test]
    fn an_edit_rewinds() {
        let (mut scheduler, list) = service(&[2, 3, 4]);
        assert_eq!(picks(&mut scheduler, &list, 4), "ABCC");
        scheduler.reals_changed(&list, Change::Edited(1));
        assert_eq!(picks(&mut scheduler, &list, 18), "CBCABCABC".repeat(2));
    }

    /// Levels that nobody reaches are stepped over at once: here 65534 of them, a million times.
    #[test]
    fn a_heavy_server_at_its_threshold_costs_nothing() {
        let (mut scheduler, mut list) = service(&[65_535, 1, 2]);
        list.0[0].overloaded = true;
        assert_eq!(picks(&mut scheduler, &list, 6), "BCCBCC");
        let started = std::time::Instant::now();
        picks(&mut scheduler, &list, 1_000_000);
        assert!(started.elapsed().as_secs() < 60);
        list.0[0].overloaded = false;
        assert!(picks(&mut scheduler, &list, 100).ends_with("AAAA"));
    }

    /// No usable server ends the search, at any level and cursor.
    #[test]
    fn none_usable_ends_the_search() {
        let (mut scheduler, mut list) = service(&[2, 3, 4]);
        picks(&mut scheduler, &list, 5);
        list.0.iter_mut().for_each(|server| server.overloaded = true);
        assert_eq!(picks(&mut scheduler, &list, 3), "---");
        let (mut scheduler, list) = service(&[0, 0]);
        assert_eq!(picks(&mut scheduler, &list, 2), "--");
        let (mut scheduler, list) = service(&[]);
        assert_eq!(picks(&mut scheduler, &list, 1), "-");
    }
}
