//! `lc`: the server with the least load, weights apart.
//!
//! Load is [`Reals::overhead`]. Among equals the first in the list, which is the newest, wins. Weights count only as
//! "above 0".

use xvs_sdk::{Reals, Request, Scheduler};

use super::scan;

/// `lc` has no state.
#[derive(Clone, Debug, Default)]
pub struct LeastConnection;

impl Scheduler for LeastConnection {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        scan::least_busy(reals)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    /// IPVS-REFERENCE 2.3 [V]: connections that never close go round, newest first, whatever the weights.
    #[test]
    fn goes_round_when_nothing_closes() {
        for weights in [[1, 1, 1], [1, 2, 3], [9, 1, 5]] {
            let [a, b, c] = weights;
            let mut bench = Bench::new(LeastConnection, &[("A", a), ("B", b), ("C", c)]);
            assert_eq!(picks(&mut bench, 6), "CBACBA");
            bench.udp = true;
            assert_eq!(picks(&mut bench, 6), "CBACBA");
        }
    }
}
