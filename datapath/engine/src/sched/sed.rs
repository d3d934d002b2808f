//! `sed`: the server on which the new connection has the shortest expected delay.
//!
//! Delay is (active connections + 1) / weight: the one counts the connection to come, so that of idle servers the one
//! with the most weight gets it. A later server in the list must be strictly better, so the newest wins among equals.
//!
//! Connections of UDP are never active: with UDP alone every server looks idle, and the one with the most weight gets
//! everything. So it is in LVS.

use xvs_sdk::{Reals, Request, Scheduler};

use super::scan::{self, Delay};

/// `sed` has no state.
#[derive(Clone, Debug, Default)]
pub struct ShortestExpectedDelay;

impl Scheduler for ShortestExpectedDelay {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        scan::least_by_weight(reals, Delay, |_| false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<ShortestExpectedDelay> {
        let [a, b, c] = weights;
        Bench::new(ShortestExpectedDelay, &[("A", a), ("B", b), ("C", c)])
    }

    /// IPVS-REFERENCE 2.5 [V]: TCP connections that never close.
    #[test]
    fn counts_the_connection_to_come() {
        assert_eq!(picks(&mut bench([1, 2, 3]), 12), "CBCCBA".repeat(2));
        assert_eq!(picks(&mut bench([1, 3, 3]), 14), "CBCBCBA".repeat(2));
    }

    /// IPVS-REFERENCE 2.5 [V], 2.0 [T]: UDP is never active.
    #[test]
    fn udp_stays_on_the_heaviest() {
        let mut bench = bench([1, 2, 3]);
        bench.udp = true;
        assert_eq!(picks(&mut bench, 4), "CCCC");
    }

    /// A server of weight 0 or at its threshold gets nothing.
    #[test]
    fn quiesced_and_overloaded_servers_are_skipped() {
        let mut bench = bench([1, 0, 3]);
        bench.overload("C", true);
        assert_eq!(picks(&mut bench, 3), "AAA");
        bench.edit("A", 0);
        assert_eq!(picks(&mut bench, 1), "-");
    }
}
