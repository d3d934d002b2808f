//! `dh`: destination hashing. The virtual address decides, so it is of use where a service has many of them (a
//! firewall mark, in front of caches).
//!
//! A table of 256 slots is filled with the servers in the order of the list, one slot each, again and again: weights do
//! not count, and a server of weight 0 has its slots too. The address's hash names the slot; if the server there is
//! quiesced or at its threshold there is none, and no other one steps in.
//!
//! The table is built when a server is added or removed.

use xvs_sdk::{Change, Reals, Request, Scheduler};

use super::hash::{fold, golden};

const BITS: u32 = 8;

/// State of `dh`.
#[derive(Clone, Debug, Default)]
pub struct DestinationHash {
    /// Index of each slot's server; no slots at all when there is no server.
    slots: Vec<u32>,
}

impl Scheduler for DestinationHash {
    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        if !matches!(change, Change::Edited(_)) {
            self.slots.clear();
            self.slots.extend((0..reals.len() as u32).cycle().take(1 << BITS));
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let slot = golden(fold(&request.virtual_address), BITS);
        let index = *self.slots.get(slot)? as usize;
        reals.is_usable(index).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, to_v4};
    use super::*;

    fn bench() -> Bench<DestinationHash> {
        Bench::new(DestinationHash::default(), &[("A", 1), ("B", 0), ("C", 300)])
    }

    fn asked(bench: &mut Bench<DestinationHash>) -> [&'static str; 5] {
        let addresses = [[192, 168, 1, 10], [192, 168, 1, 11], [10, 1, 2, 3], [203, 0, 113, 77], [10, 0, 0, 1]];
        addresses.map(|address| bench.ask(&to_v4(address)))
    }

    /// IPVS-REFERENCE 2.10 [T]: weights do not count, and weight 0 keeps its slots: 248, 90, 2, 57 and 39 modulo three
    /// servers are 2, 0, 2, 0, 0.
    #[test]
    fn weights_do_not_count() {
        assert_eq!(asked(&mut bench()), ["A", "C", "A", "C", "C"]);
        assert_eq!(bench().scheduler.slots[..5], [0, 1, 2, 0, 1]);
        assert_eq!(bench().scheduler.slots.len(), 256);
    }

    /// A quiesced or overloaded server's clients get none, and get it back when that ends.
    #[test]
    fn nobody_steps_in() {
        let mut bench = bench();
        bench.edit("A", 0);
        bench.overload("C", true);
        assert_eq!(asked(&mut bench), ["-"; 5]);
        bench.edit("A", 7);
        bench.overload("C", false);
        assert_eq!(asked(&mut bench), ["A", "C", "A", "C", "C"]);
    }

    /// IPVS-REFERENCE 2.15: adding and removing builds the table anew; an empty list has none.
    #[test]
    fn the_list_decides_the_table() {
        let mut bench = bench();
        bench.remove("B");
        assert_eq!(asked(&mut bench), ["C", "C", "C", "A", "A"], "even slots to C, odd ones to A");
        bench.add("D", 1);
        assert_eq!(asked(&mut bench), ["A", "D", "A", "D", "D"]);
        for name in ["A", "C", "D"] {
            bench.remove(name);
        }
        assert_eq!(asked(&mut bench), ["-"; 5]);
    }
}
