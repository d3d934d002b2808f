//! `lblcr`: `lblc` with replication. A virtual address has a set of servers, which grows under load and shrinks by day.
//!
//! The usable member of the set that has the least load in proportion to its weight gets the connection, unless it is
//! hot (as in `lblc`); then, and for a new address, `wlc` chooses among all servers, and the chosen one joins the set.
//! When a set of more than one was not changed for a day, the member with the most load leaves it: after the choice, so
//! the chosen one may be the one that leaves.
//!
//! The sets are left alone when servers come and go, so a server that comes back is a member again.
//!
//! Where this differs: of a server that is not in the list nobody tells the load here, so it is the first to leave; in
//! the kernel its last load counts. And there are at most 65536 members in all sets together: beyond that, chosen
//! servers do not join.
//!
//! What is remembered and for how long: `cache.rs`.

use xvs_sdk::{Change, Reals, Request, Scheduler};

use super::cache::{Cache, END, Lists, Member, is_hot};
use super::scan::Load;
use super::wlc;

/// Members of all sets of a service: more than two for each address that can be remembered.
const MEMBERS: usize = 65_536;

/// State of `lblcr`.
#[derive(Clone, Debug, Default)]
pub struct LocalityWithReplication {
    cache: Cache<Set>,
    members: Lists<Member>,
}

/// The servers of an address, the one that joined last first.
#[derive(Clone, Copy, Debug)]
struct Set {
    head: u32,
    size: u32,
    changed_s: u64,
}

impl Set {
    fn insert(&mut self, members: &mut Lists<Member>, member: Member, now_s: u64) {
        let is_in = members.find(self.head, |other| other.is_same(&member)).is_some();
        if !is_in && members.push(&mut self.head, member) {
            self.size += 1;
            self.changed_s = now_s;
        }
    }

    /// The usable member of the least load.
    fn least<R: Reals + ?Sized>(&mut self, members: &mut Lists<Member>, reals: &R) -> Option<usize> {
        let mut least: Option<Load> = None;
        members.retain(&mut self.head, |member| {
            if let Some(index) = member.index(reals).filter(|&index| reals.is_usable(index)) {
                let load = load(reals, index);
                if least.is_none_or(|least| load.is_below(&least)) {
                    least = Some(load);
                }
            }
            true
        });
        least.map(|load| load.index)
    }

    /// Lets go of the member of the most load, or of one that is gone.
    fn shrink<R: Reals + ?Sized>(&mut self, members: &mut Lists<Member>, reals: &R, now_s: u64) {
        let mut most: Option<(Member, Option<Load>)> = None;
        members.retain(&mut self.head, |member| {
            let found = match member.index(reals) {
                None => Some((*member, None)),
                Some(index) if reals.weight(index) > 0 => Some((*member, Some(load(reals, index)))),
                Some(_) => None,
            };
            let is_more = match (&most, &found) {
                (_, None) | (Some((_, None)), _) => false,
                (None, _) | (_, Some((_, None))) => true,
                (Some((_, Some(most))), Some((_, Some(load)))) => most.is_below(load),
            };
            if is_more {
                most = found;
            }
            true
        });
        if let Some((leaving, _)) = most {
            members.retain(&mut self.head, |member| !member.is_same(&leaving));
            self.size -= 1;
            self.changed_s = now_s;
        }
    }
}

fn load<R: Reals + ?Sized>(reals: &R, index: usize) -> Load {
    Load { index, cost: reals.overhead(index), weight: reals.weight(index).into() }
}

impl LocalityWithReplication {
    /// Sets for how many seconds an idle address is remembered, and after how many an unchanged set shrinks.
    pub(super) fn remember_for(&mut self, seconds: u64) {
        self.cache.expire_after(seconds);
    }
}

impl Scheduler for LocalityWithReplication {
    fn reals_changed<R: Reals + ?Sized>(&mut self, _reals: &R, _change: Change) {
        self.cache.reserve();
        self.members.reserve(MEMBERS);
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let (now_s, expiration_s) = (request.now_s(), self.cache.expiration_s());
        let members = &mut self.members;
        self.cache.look(now_s, |mut set| members.retain(&mut set.head, |_| false));
        let choose = || wlc::least(reals);
        let Some(set) = self.cache.get(&request.virtual_address, now_s) else {
            let index = choose()?;
            let mut set = Set { head: END, size: 0, changed_s: now_s };
            set.insert(members, Member::new(reals, index), now_s);
            if !self.cache.insert(&request.virtual_address, now_s, set) {
                members.retain(&mut set.head, |_| false);
            }
            return Some(index);
        };
        let least = set.least(members, reals);
        if set.size > 1 && now_s > set.changed_s + expiration_s {
            set.shrink(members, reals, now_s);
        }
        if let Some(index) = least.filter(|&index| !is_hot(reals, index)) {
            return Some(index);
        }
        let index = choose()?;
        set.insert(members, Member::new(reals, index), now_s);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::EXPIRATION_S;
    use super::super::tests::{Bench, to_v4};
    use super::*;

    fn bench() -> Bench<LocalityWithReplication> {
        let mut bench = Bench::new(LocalityWithReplication::default(), &[("A", 4), ("B", 4), ("C", 4)]);
        bench.load("C", 1, 1);
        bench
    }

    fn to(number: u8) -> Request {
        to_v4([192, 0, 2, number])
    }

    fn at(now_s: u64) -> Request {
        Request { now_ms: now_s * 1000, ..to(1) }
    }

    /// The names in the set of address 1, the last one first.
    fn set(bench: &mut Bench<LocalityWithReplication>) -> String {
        let LocalityWithReplication { mut cache, mut members } = bench.scheduler.clone();
        let mut names = String::new();
        let set = cache.get(&to(1).virtual_address, 0).unwrap();
        members.retain(&mut set.head, |member| {
            names.push_str(member.index(bench.reals()).map_or("?", |index| bench.name(index)));
            true
        });
        assert_eq!(names.len() as u32, set.size);
        names
    }

    /// IPVS-REFERENCE 2.14: a hot set grows by what `wlc` chooses, and then shares the load.
    #[test]
    fn a_hot_set_grows() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 3, 3);
        assert_eq!([bench.ask(&to(1)), bench.ask(&to(2))], ["B", "A"]);
        assert_eq!(set(&mut bench), "B");
        bench.load("B", 5, 5);
        assert_eq!(bench.ask(&to(1)), "A");
        assert_eq!(set(&mut bench), "AB");
        bench.load("A", 6, 6);
        bench.load("C", 2, 2);
        assert_eq!(bench.ask(&to(1)), "B", "hot only while another one has room");
        bench.load("C", 1, 1);
        assert_eq!(bench.ask(&to(1)), "C");
        assert_eq!(set(&mut bench), "CAB");
    }

    /// IPVS-REFERENCE 2.0 [T]: flows of UDP are never active, so no number of them makes a set grow.
    #[test]
    fn trap_udp_never_makes_a_set_grow() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.load("B", 0, 100_000);
        bench.load("C", 0, 0);
        assert_eq!([bench.ask(&to(1)), bench.ask(&to(2))], ["B", "C"]);
        assert_eq!(set(&mut bench), "B");
    }

    /// IPVS-REFERENCE 2.14: members at their threshold, quiesced or gone get nothing, and nobody leaves for that.
    #[test]
    fn unusable_members_are_skipped() {
        let mut bench = bench();
        assert_eq!(bench.ask(&to(1)), "B");
        bench.overload("B", true);
        assert_eq!(bench.ask(&to(1)), "A");
        bench.edit("A", 0);
        assert_eq!(bench.ask(&to(1)), "C");
        bench.remove("C");
        assert_eq!(bench.ask(&to(1)), "-");
        assert_eq!(set(&mut bench), "?AB");
        bench.add("C", 1);
        bench.load("C", 1, 1);
        bench.add("D", 4);
        assert_eq!(bench.ask(&to(1)), "C", "a server that comes back is a member again");
        bench.edit("A", 4);
        assert_eq!(bench.ask(&to(1)), "A");
        assert_eq!(set(&mut bench), "CAB");
    }

    /// IPVS-REFERENCE 2.14: a day after the last change the most loaded member leaves, after the choice.
    #[test]
    fn sets_shrink_by_day() {
        let mut bench = bench();
        for name in ["A", "B", "C"] {
            bench.overload(name, true);
        }
        for name in ["A", "B", "C"] {
            bench.overload(name, false);
            bench.ask(&at(10));
            bench.overload(name, true);
        }
        assert_eq!(set(&mut bench), "CBA");
        bench.load("B", 2, 2);
        bench.overload("C", false);
        let mut now_s = 10;
        // Used now and then, or the entry as a whole would be forgotten.
        assert_eq!(bench.ask(&at(now_s + EXPIRATION_S / 2)), "C");
        assert_eq!(bench.ask(&at(now_s + EXPIRATION_S)), "C");
        assert_eq!(set(&mut bench), "CBA", "not yet");
        now_s += EXPIRATION_S + 1;
        assert_eq!(bench.ask(&at(now_s)), "C");
        assert_eq!(set(&mut bench), "CA", "thresholds do not matter here");
        assert_eq!(bench.ask(&at(now_s + EXPIRATION_S / 2)), "C");
        now_s += EXPIRATION_S + 1;
        assert_eq!(bench.ask(&at(now_s)), "C", "chosen, although it leaves");
        assert_eq!(set(&mut bench), "A");
        assert_eq!(bench.ask(&at(now_s)), "C");
        assert_eq!(set(&mut bench), "CA", "the only usable one joins again");
        bench.edit("C", 0);
        bench.edit("A", 0);
        assert_eq!(bench.ask(&at(now_s + EXPIRATION_S / 2)), "-");
        assert_eq!(bench.ask(&at(now_s + EXPIRATION_S + 1)), "-");
        assert_eq!(set(&mut bench), "CA", "quiesced ones do not leave");
        bench.remove("A");
        assert_eq!(bench.ask(&at(now_s + EXPIRATION_S + 2)), "-");
        assert_eq!(set(&mut bench), "C", "one that is gone does");
    }

    /// Forgetting an address gives its members' memory back.
    #[test]
    fn memory_comes_back() {
        let mut bench = bench();
        for round in 0..5u64 {
            for number in 0..100 {
                let request = Request { now_ms: round * 3 * EXPIRATION_S * 1000, ..to(number) };
                assert_eq!(bench.ask(&request), "B");
            }
        }
        assert_eq!(bench.scheduler.members.used(), 100);
    }
}
