//! `wlc`: the server with the least load in proportion to its weight. LVS's default.
//!
//! Load is [`Reals::overhead`]. A later server in the list must be strictly better, so the newest wins among equals;
//! with no connections at all every server is equal, and the newest usable one gets the first connection whatever its
//! weight.

use xvs_sdk::{Reals, Request, Scheduler};

/// `wlc` has no state.
#[derive(Clone, Debug, Default)]
pub struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        least(reals, |_, overhead| overhead)
    }
}

/// The first usable server of the least cost in proportion to its weight. What a server costs is told of its index, and
/// of what is known of a server that is not overloaded: overhead and weight.
#[inline(always)]
pub(super) fn least<R: Reals + ?Sized>(reals: &R, cost: impl Fn(usize, u64) -> u64) -> Option<usize> {
    let mut least: Option<Load> = None;
    for index in 0..reals.len() {
        let Some((overhead, weight)) = reals.burden(index) else { continue };
        let load = Load { index, cost: cost(index, overhead), weight };
        match &least {
            // The first one must be usable; after it none of weight 0 is below another one.
            None if weight <= 0 => {}
            Some(best) if !load.is_below(best) => {}
            _ => least = Some(load),
        }
    }
    least.map(|load| load.index)
}

/// What a server bears in proportion to what it can bear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// The server.
    pub(super) index: usize,
    /// What it bears.
    pub(super) cost: u64,
    /// What it can bear. With 0 it is never below another one.
    pub(super) weight: i32,
}

impl Load {
    /// Strictly less than another one? Compared without dividing.
    #[inline(always)]
    pub(super) fn is_below(&self, other: &Load) -> bool {
        if (self.cost | other.cost) >> 32 == 0 {
            // No product overflows: 32 bits times 31 and a sign.
            return (self.cost as i64) * i64::from(other.weight) < (other.cost as i64) * i64::from(self.weight);
        }
        i128::from(self.cost) * i128::from(other.weight) < i128::from(other.cost) * i128::from(self.weight)
    }
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
