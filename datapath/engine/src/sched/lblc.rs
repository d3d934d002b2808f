//! `lblc`: locality-based least connection. A virtual address stays with its server, for caches behind a firewall mark.
//!
//! The server of an address is remembered. While it is in the list, has a weight, and is not hot, it gets every
//! connection to that address; otherwise, and for a new address, `wlc` chooses and the choice is remembered. Hot means
//! more active connections than weight while some server has fewer than half of its own weight.
//!
//! Two habits of the kernel that are kept: the threshold of a remembered server does not count ([`Builtin::accepts`]
//! lets this pass), and the memory is left alone when servers come and go, so a server that comes back has its
//! addresses again. Connections of UDP are never active: with UDP alone nothing gets hot.
//!
//! What is remembered and for how long: `cache.rs`.
//!
//! [`Builtin::accepts`]: super::Builtin::accepts

use xvs_sdk::{Change, Reals, Request, Scheduler};

use super::cache::{Cache, Member, is_hot};
use super::wlc;

/// State of `lblc`.
#[derive(Clone, Debug, Default)]
pub struct Locality {
    cache: Cache<Member>,
}

impl Locality {
    /// Sets for how many seconds an idle address is remembered.
    pub(super) fn remember_for(&mut self, seconds: u64) {
        self.cache.expire_after(seconds);
    }
}

impl Scheduler for Locality {
    fn reals_changed<R: Reals + ?Sized>(&mut self, _reals: &R, _change: Change) {
        self.cache.reserve();
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let now_s = request.now_s();
        self.cache.look(now_s, |_| ());
        let choose = || wlc::least(reals);
        let Some(member) = self.cache.get(&request.virtual_address, now_s) else {
            let index = choose()?;
            self.cache.insert(&request.virtual_address, now_s, Member::new(reals, index));
            return Some(index);
        };
        if let Some(index) = member.index(reals).filter(|&index| reals.weight(index) > 0 && !is_hot(reals, index)) {
            return Some(index);
        }
        let index = choose()?;
        *member = Member::new(reals, index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Builtin;
    use super::super::cache::EXPIRATION_S;
    use super::super::tests::{Bench, to_v4};
    use super::*;

    fn bench() -> Bench<Locality> {
        let mut bench = Bench::new(Locality::default(), &[("A", 4), ("B", 4), ("C", 4)]);
        bench.load("C", 1, 1);
        bench
    }

    fn to(number: u8) -> Request {
        to_v4([192, 0, 2, number])
    }

    /// IPVS-REFERENCE 2.13: an address stays, another one is chosen for by load.
    #[test]
    fn an_address_stays_with_its_server() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 3, 3);
        assert_eq!([bench.ask(&to(1)), bench.ask(&to(2)), bench.ask(&to(1))], ["B", "A", "B"]);
    }

    /// IPVS-REFERENCE 2.13: a hot server loses the address, for good; hot needs another one below half its weight.
    #[test]
    fn a_hot_server_loses_the_address() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 4, 4);
        assert_eq!(bench.ask(&to(1)), "B", "as many as its weight are not too many");
        for name in ["A", "B", "C"] {
            bench.load(name, 5, 5);
        }
        bench.load("A", 2, 2);
        assert_eq!(bench.ask(&to(1)), "B", "half of the weight is not less than half");
        bench.load("A", 1, 1);
        bench.overload("A", true);
        bench.load("C", 2, 2);
        assert_eq!(bench.ask(&to(1)), "C", "an overloaded server makes others hot too");
        bench.load("B", 0, 0);
        assert_eq!(bench.ask(&to(1)), "C");
    }

    /// IPVS-REFERENCE 2.0 [T]: flows of UDP are never active, so no number of them makes a server hot.
    #[test]
    fn trap_udp_never_makes_a_server_hot() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 0, 100_000);
        bench.load("C", 0, 0);
        assert_eq!([bench.ask(&to(1)), bench.ask(&to(2))], ["B", "C"]);
    }

    /// IPVS-REFERENCE 2.13 [T]: the threshold of a remembered server does not count, its weight does.
    #[test]
    fn the_threshold_of_a_remembered_server_does_not_count() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.overload("B", true);
        assert_eq!([bench.ask(&to(1)), bench.ask(&to(2))], ["B", "A"]);
        bench.edit("B", 0);
        assert_eq!(bench.ask(&to(1)), "A");
        bench.edit("B", 4);
        assert_eq!(bench.ask(&to(1)), "A");
    }

    /// The director lets such a pick stand, of this scheduler alone.
    #[test]
    fn the_director_accepts_an_overloaded_server() {
        let mut bench = bench();
        bench.overload("B", true);
        let accepts = |name, index| Builtin::from_name(name).unwrap().accepts(bench.reals(), index);
        assert_eq!(["lblc", "lblcr", "wlc"].map(|name| accepts(name, 1)), [true, false, false]);
        assert_eq!([accepts("lblc", 0), accepts("lblc", 3)], [true, false]);
        bench.edit("B", 0);
        assert!(!Builtin::Locality(Locality::default()).accepts(bench.reals(), 1));
    }

    /// IPVS-REFERENCE 2.15: the memory survives changes of the list; who is gone misses, who comes back has it again.
    #[test]
    fn the_memory_survives_changes_of_the_list() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 3, 3);
        bench.add("D", 4);
        assert_eq!([bench.ask(&to(1)), bench.ask(&to(2))], ["B", "D"]);
        bench.remove("B");
        bench.add("B", 4);
        bench.load("B", 3, 3);
        assert_eq!(bench.ask(&to(1)), "B");
        bench.remove("B");
        assert_eq!(bench.ask(&to(1)), "D");
        bench.add("B", 4);
        assert_eq!(bench.ask(&to(1)), "D", "the miss was remembered");
        for name in ["A", "B", "C", "D"] {
            bench.edit(name, 0);
        }
        assert_eq!(bench.ask(&to(1)), "-");
        bench.edit("D", 1);
        assert_eq!(bench.ask(&to(1)), "D");
    }

    /// IPVS-REFERENCE 2.13: after a day without use an address is chosen for anew.
    #[test]
    fn an_idle_address_is_forgotten() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 3, 3);
        assert_eq!(bench.ask(&Request { now_ms: 1000 * (EXPIRATION_S - 1), ..to(1) }), "B");
        assert_eq!(bench.ask(&Request { now_ms: 1000 * (2 * EXPIRATION_S - 2), ..to(1) }), "B");
        assert_eq!(bench.ask(&Request { now_ms: 1000 * (3 * EXPIRATION_S + 1800), ..to(1) }), "A");
    }

    /// `lblc_expiration` is how long an idle address is remembered: with an hour it is forgotten far before a day is over.
    #[test]
    fn what_is_remembered_for_an_hour_goes_after_it() {
        let asked = |expiration_s: Option<u64>| {
            let mut scheduler = Locality::default();
            expiration_s.into_iter().for_each(|seconds| scheduler.remember_for(seconds));
            let mut bench = Bench::new(scheduler, &[("A", 4), ("B", 4)]);
            let first = bench.ask(&to(1));
            bench.load(first, 3, 3);
            (first == bench.ask(&Request { now_ms: 1000 * (3 * 3600 + 1800), ..to(1) }), first)
        };
        assert_eq!((asked(None).0, asked(Some(3600)).0), (true, false));
    }
}
