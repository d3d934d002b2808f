//! `nq`: never queue. An idle server gets the connection at once; if there is none, `sed` decides.
//!
//! The first usable server in the list, which is the newest, that has no active connection gets it, whatever its
//! weight. Connections of UDP are never active: with UDP alone the newest usable server gets everything. So it is in
//! LVS.

use xvs_sdk::{Reals, Request, Scheduler};

use super::scan::{self, Delay};

/// `nq` has no state.
#[derive(Clone, Debug, Default)]
pub struct NeverQueue;

impl Scheduler for NeverQueue {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        // An idle server costs the connection to come alone.
        scan::least_by_weight(reals, Delay, |cost| cost == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<NeverQueue> {
        let [a, b, c] = weights;
        Bench::new(NeverQueue, &[("A", a), ("B", b), ("C", c)])
    }

    /// IPVS-REFERENCE 2.6 [V]: TCP connections that never close.
    #[test]
    fn idle_servers_come_first() {
        assert_eq!(picks(&mut bench([1, 2, 3]), 16), "CBACCBCBCCBACBCC");
        assert_eq!(picks(&mut bench([1, 3, 3]), 14), "CBACBCBCBCBCBA");
    }

    /// IPVS-REFERENCE 2.6 [V], 2.0 [T]: UDP is never active, so the first usable server is always idle.
    #[test]
    fn udp_stays_on_the_newest() {
        let mut bench = bench([9, 2, 1]);
        bench.udp = true;
        assert_eq!(picks(&mut bench, 4), "CCCC");
    }

    /// An idle server of weight 0 or at its threshold gets nothing.
    #[test]
    fn quiesced_and_overloaded_servers_are_skipped() {
        let mut bench = bench([1, 0, 3]);
        bench.overload("C", true);
        assert_eq!(picks(&mut bench, 3), "AAA");
        bench.edit("A", 0);
        assert_eq!(picks(&mut bench, 1), "-");
    }
}
