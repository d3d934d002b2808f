//! The look at every server that `wlc`, `sed`, `nq` and `lc` take for each new connection: who costs least?
//!
//! Invariant: of equals the first in the list wins, and nobody does who must get no connection; costs and products are exact.
//! The look is for counts of a usual size, whose products fit into a word; on its way it notices any other, and then the
//! answer is that of a second look, which takes any size. Not here: what a cost means, but for [`Cost`]'s two kinds.

use xvs_sdk::Reals;

/// Counts below this are of a usual size. With them an overhead is below 2^32, and its product with a weight below 2^63.
const USUAL: u64 = 1 << 23;
/// The bits that both counts of a usual size do not have.
const UNUSUAL: u64 = (u32::MAX as u64 & !(USUAL - 1)) * (1 << 32 | 1);

/// What a server costs, as its [`counts`](Reals::counts) tell.
pub(super) trait Cost: Copy {
    /// Is every size a usual one?
    const TAKES_ANY: bool;

    /// Of counts of a usual size; of others, some number.
    fn usual(self, counts: u64) -> u64;

    /// Of any.
    fn any(self, counts: u64) -> u64;
}

/// [`Reals::overhead`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Overhead {
    surplus: u64,
}

impl Overhead {
    #[inline(always)]
    pub(super) fn of<R: Reals + ?Sized>(reals: &R) -> Self {
        Overhead { surplus: reals.surplus() }
    }
}

impl Cost for Overhead {
    const TAKES_ANY: bool = false;

    #[inline(always)]
    fn usual(self, counts: u64) -> u64 {
        // The upper half of the product: total, and active so many times. Nothing is carried from the lower one, where the
        // total stands so many times.
        counts.wrapping_mul(1 << 32 | self.surplus) >> 32
    }

    fn any(self, counts: u64) -> u64 {
        self.surplus * (counts >> 32) + u64::from(counts as u32)
    }
}

/// Active connections and the one to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay;

impl Cost for Delay {
    // At most 2^32, so that no product with a weight is above 2^63.
    const TAKES_ANY: bool = true;

    #[inline(always)]
    fn usual(self, counts: u64) -> u64 {
        (counts >> 32) + 1
    }

    fn any(self, counts: u64) -> u64 {
        self.usual(counts)
    }
}

/// The server of the least cost in proportion to its weight, or the first one whose cost suits at once. (Nothing suits a cost
/// that does not [take any](Cost::TAKES_ANY) counts.)
///
/// Products are compared instead of quotients. A function of its own, so that all it needs is in registers.
#[inline(never)]
pub(super) fn least_by_weight<R, C>(reals: &R, cost: C, suits: impl Fn(u64) -> bool) -> Option<usize>
where
    R: Reals + ?Sized,
    C: Cost,
{
    // Nobody: bears something and can bear nothing, so that every server with an open weight is below.
    let (mut least, mut least_cost, mut least_weight) = (usize::MAX, 1i64, 0i64);
    let (mut seen, mut from) = (0, 0);
    loop {
        let mut below = None;
        for index in from..reals.len() {
            let counts = reals.counts(index);
            if !C::TAKES_ANY {
                seen |= counts;
            }
            let own_cost = cost.usual(counts);
            if suits(own_cost) && reals.open_weight(index) > 0 {
                return Some(index);
            }
            if (own_cost as i64).wrapping_mul(least_weight) < least_cost.wrapping_mul(reals.open_weight(index)) {
                below = Some(index);
                break;
            }
        }
        let Some(index) = below else { break };
        // There are few of them. It is looked at again, so that nothing has to be kept of all the others; what it says now
        // counts, should another worker have ended a connection meanwhile.
        let (counts, weight) = (reals.counts(index), reals.open_weight(index));
        if !C::TAKES_ANY {
            seen |= counts;
        }
        let own_cost = cost.usual(counts) as i64;
        if own_cost.wrapping_mul(least_weight) < least_cost.wrapping_mul(weight) {
            (least, least_cost, least_weight) = (index, own_cost, weight);
        }
        from = index + 1;
    }
    if seen & UNUSUAL != 0 {
        return least_of_any(reals, cost);
    }
    (least != usize::MAX).then_some(least)
}

/// The same with counts of any size.
#[cold]
#[inline(never)]
fn least_of_any<R: Reals + ?Sized>(reals: &R, cost: impl Cost) -> Option<usize> {
    let mut least: Option<Load> = None;
    for index in 0..reals.len() {
        let load = Load { index, cost: cost.any(reals.counts(index)), weight: reals.open_weight(index) };
        if load.weight > 0 && least.is_none_or(|least| load.is_below(&least)) {
            least = Some(load);
        }
    }
    least.map(|load| load.index)
}

/// The server of the least overhead, weights apart. The kernel compares 32 bits of it.
#[inline(always)]
pub(super) fn least_busy<R: Reals + ?Sized>(reals: &R) -> Option<usize> {
    let cost = Overhead::of(reals);
    let (mut least, mut least_cost) = (usize::MAX, u64::MAX);
    let mut seen = 0;
    for index in 0..reals.len() {
        let counts = reals.counts(index);
        seen |= counts;
        let own_cost = cost.usual(counts);
        if own_cost < least_cost && reals.open_weight(index) > 0 {
            (least, least_cost) = (index, own_cost);
        }
    }
    if seen & UNUSUAL != 0 {
        return least_busy_of_any(reals, cost);
    }
    (least != usize::MAX).then_some(least)
}

#[cold]
#[inline(never)]
fn least_busy_of_any<R: Reals + ?Sized>(reals: &R, cost: Overhead) -> Option<usize> {
    // `min_by_key` keeps the first of equals.
    let usable = (0..reals.len()).filter(|&index| reals.open_weight(index) > 0);
    usable.min_by_key(|&index| cost.any(reals.counts(index)) as u32)
}

/// What a server bears in proportion to what it can bear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// The server.
    pub(super) index: usize,
    /// What it bears.
    pub(super) cost: u64,
    /// What it can bear.
    pub(super) weight: i64,
}

impl Load {
    /// Strictly less than another one? Compared without dividing.
    pub(super) fn is_below(&self, other: &Load) -> bool {
        i128::from(self.cost) * i128::from(other.weight) < i128::from(other.cost) * i128::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts, weight and door of each server.
    struct List(Vec<(u64, i32, bool)>, u64);

    impl Reals for List {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn weight(&self, index: usize) -> i32 {
            self.0[index].1
        }
        fn active(&self, index: usize) -> u32 {
            (self.0[index].0 >> 32) as u32
        }
        fn total(&self, index: usize) -> u32 {
            self.0[index].0 as u32
        }
        fn is_overloaded(&self, index: usize) -> bool {
            self.0[index].2
        }
        fn surplus(&self) -> u64 {
            self.1
        }
    }

    impl List {
        /// The kernel's loop in wide numbers: the first usable one, then whoever is strictly below.
        fn plainly(&self, cost: impl Fn(usize) -> i128) -> Option<usize> {
            let mut least: Option<usize> = None;
            for index in (0..self.len()).filter(|&index| self.is_usable(index)) {
                let product = |of: usize, by: usize| cost(of) * i128::from(self.weight(by));
                if least.is_none_or(|least| product(least, index) > product(index, least)) {
                    least = Some(index);
                }
            }
            least
        }
    }

    fn lists() -> impl Iterator<Item = List> {
        let mut state = 7u64;
        let mut below = move |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((u128::from(state) * u128::from(end)) >> 64) as u64
        };
        (0..40_000).map(move |number| {
            // Mostly small, so that equals meet; and all around the sizes where a word is too small.
            let sizes = [3, 40, 1000, USUAL, USUAL + 2, 1 << 24, 1 << 25, 1 << 32];
            let weights = [2, 4, 100, 65_536, 1 << 31];
            let (size, weight) = (sizes[below(8) as usize], weights[below(5) as usize]);
            let mut servers = Vec::new();
            for _ in 0..below(9) {
                let size = if below(8) == 0 { sizes[below(8) as usize] } else { size };
                let span = 1 + below(size);
                let total = size - 1 - below(span);
                servers.push((below(total + 1) << 32 | total, below(weight) as i32, below(6) == 0));
            }
            List(servers, 255 + number % 2)
        })
    }

    /// A quick look that errs by one connection sends clients where LVS would not: of any counts and weights, equals and
    /// closed doors among them, each look picks what the kernel's loop picks in numbers without an end.
    #[test]
    fn quick_looks_pick_what_plain_ones_pick() {
        let (mut usual, mut unusual) = (0, 0);
        for list in lists() {
            let overhead =
                |index: usize| i128::from(list.1) * i128::from(list.active(index)) + i128::from(list.total(index));
            let delay = |index: usize| i128::from(list.active(index)) + 1;
            let what = || format!("{:x?}, {}", list.0, list.1);
            assert_eq!(least_by_weight(&list, Overhead::of(&list), |_| false), list.plainly(overhead), "{}", what());
            assert_eq!(least_by_weight(&list, Delay, |_| false), list.plainly(delay), "{}", what());
            let idle = (0..list.len()).find(|&index| list.is_usable(index) && list.active(index) == 0);
            assert_eq!(
                least_by_weight(&list, Delay, |cost| cost == 1),
                idle.or_else(|| list.plainly(delay)),
                "{}",
                what()
            );
            let usable = (0..list.len()).filter(|&index| list.is_usable(index));
            assert_eq!(least_busy(&list), usable.min_by_key(|&index| overhead(index) as u32), "{}", what());
            match list.0.iter().any(|server| server.0 & UNUSUAL != 0) {
                true => unusual += 1,
                false => usual += 1,
            }
        }
        assert!(usual > 10_000 && unusual > 10_000, "{usual} {unusual}");
    }
}
