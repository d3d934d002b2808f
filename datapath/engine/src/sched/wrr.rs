//! `wrr`: round robin in proportion to the weights.
//!
//! With G the greatest common divisor of all weights above 0 and M the largest, a level goes down from M - (G - 1) in
//! steps of G; at each level the cursor walks the list once and serves the servers whose weight reaches the level.
//!
//! Two habits of the kernel that a textbook version does not have, and that are kept: a fresh service starts with one
//! pass at level 1 over all servers; and every change of the list, even one that changes nothing, sends the cursor
//! back to the head but keeps the level (rounded down to the new grid).

use xvs_sdk::{Change, Reals, Request, Scheduler};

use super::gcd;

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
        let weights = || (0..reals.len()).map(|index| i64::from(reals.weight(index))).filter(|&weight| weight > 0);
        let divisor = weights().fold(0, gcd);
        self.step = if divisor == 0 { 1 } else { divisor };
        self.top = weights().max().map_or(0, |largest| largest - (self.step - 1));
        self.cursor = None;
    }

    /// Goes down to a level that a server reaches, or to the lowest one: as the passes would that find nothing. (There
    /// may be tens of thousands of them below the level of a heavy server at its threshold.)
    fn descend<R: Reals + ?Sized>(&mut self, reals: &R) {
        // The level is above 0.
        if (0..reals.len()).any(|index| reals.open_weight(index) >= self.level) {
            return; // nearly always, and soon
        }
        let highest = (0..reals.len()).map(|index| reals.open_weight(index)).fold(0, i64::max);
        let lowest = (self.level - 1) / self.step;
        let needed = (self.level - highest + self.step - 1) / self.step;
        self.level -= needed.min(lowest) * self.step;
    }
}

impl Scheduler for WeightedRoundRobin {
    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        self.measure(reals);
        if change == Change::All || self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    #[inline]
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        // The rest of this pass, which is nearly always enough.
        let from = self.cursor.map_or(0, |cursor| cursor + 1);
        match (from..reals.len()).find(|&index| reals.open_weight(index) >= self.level) {
            Some(index) => {
                self.cursor = Some(index);
                Some(index)
            }
            None => self.pick_later(reals),
        }
    }
}

impl WeightedRoundRobin {
    /// The passes behind the one that has just ended.
    #[inline(never)]
    fn pick_later<R: Reals + ?Sized>(&mut self, reals: &R) -> Option<usize> {
        let start = self.cursor;
        let mut stop = None;
        let (mut last_pass, mut restarted) = (false, false);
        loop {
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
            for index in 0..reals.len() {
                if reals.open_weight(index) >= self.level {
                    self.cursor = Some(index);
                    return Some(index);
                }
                if stop == Some(index) {
                    self.cursor = Some(index);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<WeightedRoundRobin> {
        let [a, b, c] = weights;
        Bench::new(WeightedRoundRobin::default(), &[("A", a), ("B", b), ("C", c)])
    }

    /// IPVS-REFERENCE 2.2 [V]: a fresh service starts with a pass over all servers, then goes down from the top.
    #[test]
    fn a_fresh_service_starts_at_level_one() {
        assert_eq!(picks(&mut bench([4, 3, 2]), 18), "CBAABACBA".repeat(2));
        assert_eq!(picks(&mut bench([10, 20, 30]), 12), "CBACCB".repeat(2));
        let mut two = Bench::new(WeightedRoundRobin::default(), &[("A", 4), ("B", 6)]);
        assert_eq!(picks(&mut two, 10), "BABBA".repeat(2));
    }

    /// IPVS-REFERENCE 2.2 [V]: what an edit does to the sequence.
    #[test]
    fn an_edit_rewinds_the_cursor_and_keeps_the_level() {
        let mut edited = bench([4, 3, 2]);
        assert_eq!(picks(&mut edited, 3), "CBA");
        edited.edit("A", 1);
        assert_eq!(picks(&mut edited, 12), "CBABCB".repeat(2));
    }

    /// IPVS-REFERENCE 2.2 [V]: what an added server does to the sequence.
    #[test]
    fn an_added_server_joins_at_the_level() {
        let mut added = bench([4, 3, 2]);
        assert_eq!(picks(&mut added, 4), "CBAA");
        added.add("D", 1);
        assert_eq!(picks(&mut added, 20), "ABACBADCBA".repeat(2));
    }

    /// IPVS-REFERENCE 2.2 [V]: an edit that changes nothing still rewinds.
    #[test]
    fn an_empty_edit_rewinds_too() {
        let mut same = bench([4, 3, 2]);
        assert_eq!(picks(&mut same, 4), "CBAA");
        same.edit("B", 3);
        assert_eq!(picks(&mut same, 18), "ABACBACBA".repeat(2));
    }

    /// IPVS-REFERENCE 2.2 [T]: the last pass is at level 1 even if no weight is as low, so a weight that has become lower
    /// than all of them (the scheduler does not know yet) has its turn once a round.
    #[test]
    fn trap_the_last_pass_is_at_level_one() {
        let mut bench = bench([10, 20, 30]);
        bench.edit_silently("A", 1);
        assert_eq!(picks(&mut bench, 12), "CBACCB".repeat(2));
        bench.edit_silently("B", 1);
        assert_eq!(picks(&mut bench, 10), "CBACC".repeat(2));
    }

    /// No usable server must end the search, at any level and cursor.
    #[test]
    fn none_usable_ends_the_search() {
        let mut all = bench([4, 3, 2]);
        assert_eq!(picks(&mut all, 5), "CBAAB");
        for name in ["A", "B", "C"] {
            all.overload(name, true);
        }
        assert_eq!(picks(&mut all, 3), "---");
        all.overload("B", false);
        assert_eq!(picks(&mut all, 2), "BB");
        let mut zero = bench([0, 0, 0]);
        assert_eq!(picks(&mut zero, 2), "--");
    }

    /// A heavy server at its threshold costs a pick a few passes over the list, not one for each of its levels.
    #[test]
    fn levels_that_nobody_reaches_are_stepped_over() {
        use std::cell::Cell;

        struct Counting<'a>(&'a Cell<u32>);
        impl Reals for Counting<'_> {
            fn len(&self) -> usize {
                2
            }
            fn weight(&self, index: usize) -> i32 {
                self.0.set(self.0.get() + 1);
                [65_535, 2][index]
            }
            fn active(&self, _: usize) -> u32 {
                0
            }
            fn total(&self, _: usize) -> u32 {
                0
            }
            fn is_overloaded(&self, index: usize) -> bool {
                index == 0
            }
        }
        let looks = Cell::new(0);
        let mut scheduler = WeightedRoundRobin::default();
        scheduler.reals_changed(&Counting(&looks), Change::All);
        for _ in 0..100 {
            looks.set(0);
            assert_eq!(scheduler.pick(&Request::default(), &Counting(&looks)), Some(1));
            assert!(looks.get() < 20, "{}", looks.get());
        }
    }
}
