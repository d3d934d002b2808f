//! `fo`: weighted failover. The server with the highest weight gets everything.
//!
//! Among equals the newest wins. Nothing here looks at health: traffic moves on when the weight is set to 0 or the
//! upper threshold is reached.

use xvs_sdk::{Reals, Request, Scheduler};

/// `fo` has no state.
#[derive(Clone, Debug, Default)]
pub struct WeightedFailover;

impl Scheduler for WeightedFailover {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        heaviest(reals, |_, _| true)
    }
}

/// The first usable server of the highest weight, of those that may be taken, as index and weight tell.
#[inline(always)]
pub(super) fn heaviest<R: Reals + ?Sized>(reals: &R, may: impl Fn(usize, i64) -> bool) -> Option<usize> {
    let (mut heaviest, mut most) = (None, 0);
    for index in 0..reals.len() {
        let weight = reals.open_weight(index);
        if weight > most && may(index, weight) {
            (heaviest, most) = (Some(index), weight);
        }
    }
    heaviest
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    /// IPVS-REFERENCE 2.7 [V]: the newest of the heaviest.
    #[test]
    fn the_heaviest_gets_everything() {
        let mut bench = Bench::new(WeightedFailover, &[("A", 1), ("B", 3), ("C", 3)]);
        assert_eq!(picks(&mut bench, 5), "CCCCC");
        bench.add("D", 3);
        assert_eq!(picks(&mut bench, 2), "DD");
    }

    /// The threshold and weight 0 move traffic on, and their end moves it back.
    #[test]
    fn traffic_moves_on_and_back() {
        let mut bench = Bench::new(WeightedFailover, &[("A", 1), ("B", 2), ("C", 3)]);
        bench.overload("C", true);
        assert_eq!(picks(&mut bench, 2), "BB");
        bench.edit("B", 0);
        assert_eq!(picks(&mut bench, 2), "AA");
        bench.overload("C", false);
        assert_eq!(picks(&mut bench, 2), "CC");
        bench.edit("A", 0);
        bench.edit("C", 0);
        assert_eq!(picks(&mut bench, 1), "-");
    }
}
