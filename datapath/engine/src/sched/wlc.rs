//! `wlc`: the server with the least load in proportion to its weight. LVS's default.
//!
//! Load is [`Reals::overhead`]. A later server in the list must be strictly better, so the newest wins among equals;
//! with no connections at all every server is equal, and the newest usable one gets the first connection whatever its
//! weight.

use xvs_sdk::{Reals, Request, Scheduler};

use super::scan::{self, Overhead};

/// `wlc` has no state.
#[derive(Clone, Debug, Default)]
pub struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        least(reals)
    }
}

/// The choice of `wlc`, for others that fall back on it.
#[inline(always)]
pub(super) fn least<R: Reals + ?Sized>(reals: &R) -> Option<usize> {
    scan::least_by_weight(reals, Overhead::of(reals), |_| false)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<WeightedLeastConnection> {
        let [a, b, c] = weights;
        Bench::new(WeightedLeastConnection, &[("A", a), ("B", b), ("C", c)])
    }

    /// IPVS-REFERENCE 2.4 [V]: nothing closes, TCP and UDP alike.
    #[test]
    fn shares_follow_the_weights() {
        for udp in [false, true] {
            let mut first = bench([1, 2, 3]);
            first.udp = udp;
            assert_eq!(picks(&mut first, 12), "CBACBC".repeat(2));
            let mut second = bench([1, 3, 3]);
            second.udp = udp;
            assert_eq!(picks(&mut second, 14), "CBACBCB".repeat(2));
        }
    }

    /// IPVS-REFERENCE 2.4 [T]: without connections nobody is ahead, and the newest usable server gets the client, whatever
    /// the weights.
    #[test]
    fn trap_among_idle_servers_the_newest_wins() {
        let mut bench = bench([900, 5, 1]);
        assert_eq!(bench.ask(&Request::default()), "C");
        bench.edit("C", 0);
        assert_eq!(bench.ask(&Request::default()), "B");
        bench.overload("B", true);
        assert_eq!(bench.ask(&Request::default()), "A");
    }

    /// IPVS-REFERENCE 2.4 [T]: a server of weight 0 never wins, even an idle one against loaded ones.
    #[test]
    fn a_quiesced_server_never_wins() {
        let mut bench = bench([1, 0, 1]);
        assert_eq!(picks(&mut bench, 6), "CACACA");
        bench.edit("C", 0);
        bench.edit("A", 0);
        assert_eq!(picks(&mut bench, 1), "-");
    }
}
