//! How many connections a real server has, and whether that is too many.
//!
//! Invariant: the counts are one word, and change when a connection is made, changes between active and inactive, or ends;
//! the door closes and opens with these changes alone (IPVS-REFERENCE 1.4). Not here: who asks whether it is open.

use std::sync::atomic::Ordering::Relaxed;

use super::{Generation, Real, word};

/// Numbers of connections of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In an active state.
    pub active: u32,
    /// Active and inactive.
    pub total: u32,
}

impl Counts {
    /// As LVS lists them: connections in an inactive state.
    pub fn inactive(self) -> u32 {
        self.total.saturating_sub(self.active)
    }
}

impl Real<'_> {
    /// A connection was made.
    pub fn bind(&self) {
        self.bind_as(false);
    }

    /// The same of one that its first packet made active, or not: one step.
    #[inline(always)]
    pub fn bind_as(&self, active: bool) {
        let one = u64::from(active) << 32 | 1;
        let total = self.counts_word().fetch_add(one, Relaxed) as u32 + 1;
        let (upper, _) = self.thresholds();
        if total >= upper && upper != 0 {
            self.reach_threshold(total);
        }
    }

    /// There are as many connections as there should be at most, or more.
    #[inline(never)]
    fn reach_threshold(self, total: u32) {
        let (upper, low) = self.stored_thresholds();
        match self.arena.generation {
            Generation::New if total == upper => self.set_overload(total >= low),
            Generation::New => {}
            Generation::Old => self.set_overload(true),
        }
    }

    /// A connection ended; `active` says in which kind of state it was.
    pub fn unbind(&self, active: bool) {
        let one = if active { 1 << 32 | 1 } else { 1 };
        let before = self.counts_word().fetch_sub(one, Relaxed) as u32;
        let (upper, low) = self.stored_thresholds();
        match self.arena.generation {
            Generation::New if before == low => self.set_overload(upper != 0 && before > upper),
            Generation::New => {}
            Generation::Old => self.judge_old(before.wrapping_sub(1)),
        }
    }

    /// A connection changed between active and inactive.
    pub fn set_active(&self, active: bool) {
        match active {
            true => self.counts_word().fetch_add(1 << 32, Relaxed),
            false => self.counts_word().fetch_sub(1 << 32, Relaxed),
        };
    }

    /// Persistence templates that lead to it.
    pub fn templates(&self) -> u32 {
        self.words[word::TEMPLATES].load(Relaxed) as u32
    }

    /// A template was made.
    pub fn bind_template(&self) {
        self.words[word::TEMPLATES].fetch_add(1, Relaxed);
    }

    /// A template ended.
    pub fn unbind_template(&self) {
        self.words[word::TEMPLATES].fetch_sub(1, Relaxed);
    }

    /// Does nothing refer to it, neither a connection nor a template?
    pub fn is_idle(&self) -> bool {
        self.counts().total == 0 && self.templates() == 0
    }

    /// Upper threshold, and the lower one in force: three quarters of the upper one when none is set.
    fn stored_thresholds(&self) -> (u32, u32) {
        let (upper, lower) = self.thresholds();
        (upper, if lower == 0 { upper - (upper >> 2) } else { lower })
    }

    pub(super) fn set_overload(&self, overload: bool) {
        if self.is_overloaded() != overload {
            self.change_open(|old| if ((old as i64) < 0) == overload { old } else { !old });
        }
    }

    fn judge_old(&self, total: u32) {
        let (upper, lower) = self.thresholds();
        let clear = match (upper, lower) {
            (_, 1..) => total < lower,
            (1.., 0) => u64::from(total) * 4 < u64::from(upper) * 3,
            (0, 0) => true,
        };
        if clear {
            self.set_overload(false);
        }
    }

    pub(super) fn thresholds_changed(&self) {
        let (upper, low) = self.stored_thresholds();
        let total = self.counts().total;
        if upper == 0 || total < low {
            self.set_overload(false);
        } else if total >= upper {
            self.set_overload(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::super::{Arena, RealId, Settings};
    use super::*;

    fn overload_after(generation: Generation, upper: u32, lower: u32, steps: &[i32]) -> Vec<bool> {
        let arena = Arena::new(1, generation);
        let real = arena.get(RealId(0));
        real.reset(&settings(upper, lower));
        let step = |&step: &i32| {
            for _ in 0..step.abs() {
                if step > 0 { real.bind() } else { real.unbind(false) }
            }
            real.is_overloaded()
        };
        steps.iter().map(step).collect()
    }

    /// IPVS-REFERENCE 1.4: with an upper threshold of 4 the door closes at 4 and opens again at 2.
    #[test]
    fn thresholds_close_and_open_at_the_exact_crossing() {
        assert_eq!(
            overload_after(Generation::New, 4, 0, &[3, 1, 1, -1, -1, -1]),
            [false, true, true, true, true, false]
        );
        assert_eq!(overload_after(Generation::New, 1, 0, &[1, -1, 1]), [true, false, true]);
        assert_eq!(overload_after(Generation::New, 0, 0, &[100, -100]), [false, false]);
        assert_eq!(overload_after(Generation::New, 10, 2, &[10, -8, -1]), [true, true, false]);
    }

    /// Weight and door share a word: neither may change the other, whatever the order, and a weight of 0 is no open door.
    #[test]
    fn weight_and_door_do_not_disturb_each_other() {
        let arena = Arena::new(1, Generation::New);
        let real = arena.get(RealId(0));
        let weigh = |weight| real.set(&Settings { weight, ..settings(1, 0) });
        let told = || (real.weight(), real.is_overloaded(), real.open_weight());
        real.reset(&settings(1, 0));
        assert_eq!(told(), (1, false, 1));
        real.bind();
        assert_eq!(told(), (1, true, !1));
        for weight in [0, 7, i32::MAX] {
            weigh(weight);
            assert_eq!(told(), (weight, true, !i64::from(weight)));
            real.set_added_weight(weight);
            assert_eq!(told(), (weight, true, !i64::from(weight)));
        }
        real.unbind(false);
        assert_eq!(told(), (i32::MAX, false, i64::from(i32::MAX)));
        weigh(0);
        assert_eq!(told(), (0, false, 0));
        weigh(-5);
        assert_eq!(told(), (0, false, 0), "there is no weight below 0");
    }

    /// Two servers' counts are neighbours in one line: none may run into another, nor into the weights behind them.
    #[test]
    fn servers_do_not_disturb_each_other() {
        for capacity in [1, 3, 4, 7, 8, 100] {
            let arena = Arena::new(capacity, Generation::New);
            let ids = || (0..capacity as u32).map(RealId);
            for id in ids() {
                arena.get(id).reset(&Settings { weight: 100 + id.0 as i32, ..settings(0, 0) });
                (0..=id.0).for_each(|_| arena.get(id).bind_as(true));
            }
            for id in ids() {
                let (real, count) = (arena.get(id), id.0 + 1);
                assert_eq!((real.counts(), real.weight()), (Counts { active: count, total: count }, 100 + id.0 as i32));
            }
            let nobody = arena.get(arena.nobody());
            assert_eq!((nobody.counts(), nobody.weight()), (Counts::default(), 1));
        }
    }

    /// Kernels before 2026 opened the door below three quarters, judged at every change.
    #[test]
    fn the_old_generation_judges_by_three_quarters() {
        assert_eq!(overload_after(Generation::Old, 4, 0, &[3, 1, -1, -1]), [false, true, true, false]);
        assert_eq!(overload_after(Generation::Old, 5, 0, &[5, -1, -1]), [true, true, false]);
    }
}
