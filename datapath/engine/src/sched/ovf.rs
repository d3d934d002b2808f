//! `ovf`: weighted overflow. The server with the highest weight gets everything until it is full, then the next.
//!
//! Full means that its active connections are *more* than its weight, so a server takes one connection more than its
//! weight: the kernel's habit. When all are full there is none. Among equal weights the newest wins.
//!
//! Connections of UDP are never active: with UDP alone nothing overflows. So it is in LVS.

use xvs_sdk::{Reals, Request, Scheduler};

use super::fo;

/// `ovf` has no state.
#[derive(Clone, Debug, Default)]
pub struct Overflow;

impl Scheduler for Overflow {
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        fo::heaviest(reals, |index, weight| i64::from(reals.active(index)) <= weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<Overflow> {
        let [a, b, c] = weights;
        Bench::new(Overflow, &[("A", a), ("B", b), ("C", c)])
    }

    /// IPVS-REFERENCE 2.8 [V], [T]: each takes one more than its weight, then there is none.
    #[test]
    fn a_server_takes_one_more_than_its_weight() {
        assert_eq!(picks(&mut bench([1, 3, 3]), 11), "CCCCBBBBAA-");
        assert_eq!(picks(&mut bench([1, 2, 3]), 10), "CCCCBBBAA-");
        assert_eq!(picks(&mut bench([1, 1, 1]), 7), "CCBBAA-");
    }

    /// IPVS-REFERENCE 2.8 [T]: UDP is never active, so it never overflows.
    #[test]
    fn udp_never_overflows() {
        let mut bench = bench([1, 2, 3]);
        bench.udp = true;
        assert_eq!(picks(&mut bench, 9), "CCCCCCCCC");
    }

    /// A server of weight 0 or at its threshold gets nothing.
    #[test]
    fn quiesced_and_overloaded_servers_are_skipped() {
        let mut bench = bench([1, 0, 3]);
        bench.overload("C", true);
        assert_eq!(picks(&mut bench, 3), "AA-");
    }
}
