//! `mh`: Maglev hashing. The client's address decides, and a change of the list moves few other clients.
//!
//! Each server has its own order of preference over the 4093 slots of a table, given by two hashes of its address and
//! port; in turns, in the order of the list, each takes the next slot of its order that is free, as many a turn as its
//! weight says (Eisenbud et al., "Maglev", NSDI 2016). The hash of the client names the slot. Flags: with `mh-port`
//! (`flag-2`) the client's port is hashed too; with `mh-fallback` (`flag-1`) the client is hashed again, with another
//! offset each time, until a server is usable.
//!
//! What counts is the *last* weight: quiescing a server leaves the table alone, so nobody else's client moves, and
//! without `mh-fallback` its own clients get none. A server added with weight 0 has no slots. Weights are divided by
//! their greatest common divisor, and by powers of two until the largest has at most six bits: large weights without a
//! common divisor are kept in proportion only roughly. The kernel's keys are fixed and so are ours: all 64-bit
//! little-endian directors with the same servers, added in the same order, agree.
//!
//! The table is built when a server is added, removed or edited. With more servers than slots it is left as it was.
//!
//! Where this differs: of an IPv6 server in an IPv4 service (a tunnel) the kernel hashes the first 32 bits; here all.

use xvs_sdk::{Change, Reals, Request, Scheduler};

use super::gcd;
use super::hash::{client_port, fold, siphash13};

/// Slots: a prime, so that any step leads through all of them.
const SLOTS: u32 = 4093;
/// Bits that the largest weight may have: half of the table's twelve.
const WEIGHT_BITS: u32 = 6;
const FIRST_KEY: u64 = 2_654_435_761;
const SECOND_KEY: u64 = 2_654_446_892;
/// `mh-fallback`.
const FALLBACK: u8 = 1;
/// `mh-port`.
const PORT: u8 = 2;
/// A slot that nobody has: not filled yet, or its server left when there were too many to build the table.
const NOBODY: u32 = u32::MAX;

/// State of `mh`.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    /// Index of each slot's server; no slots at all when no server has a last weight.
    slots: Vec<u32>,
    /// Where building stands with each server; kept only to be used again.
    orders: Vec<Order>,
}

/// A server while the table is built.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// The next slot of its order.
    at: u32,
    /// From one slot of its order to the next.
    step: u32,
    /// Slots it takes a turn.
    turns: u32,
}

fn hash(key: u64, offset: u32, port: u16, address: u32) -> u32 {
    siphash13(offset.wrapping_add(u32::from(port)).wrapping_add(address), key)
}

impl Maglev {
    fn measure<R: Reals + ?Sized>(&mut self, reals: &R) {
        let weight = |index: usize| i64::from(reals.last_weight(index).max(0));
        let divisor = (0..reals.len()).map(weight).fold(0, gcd);
        let largest = (0..reals.len()).map(weight).max().unwrap_or(0).checked_div(divisor).unwrap_or(0);
        let shift = (i64::BITS - largest.leading_zeros()).saturating_sub(WEIGHT_BITS);
        let order = |index: usize| {
            let (address, port) = reals.address(index);
            let address = fold(&address);
            let turns = match weight(index) {
                0 => 0,
                weight => ((weight / divisor) >> shift).max(1) as u32,
            };
            let at = hash(FIRST_KEY, 0, port, address) % SLOTS;
            Order { at, step: hash(SECOND_KEY, 0, port, address) % (SLOTS - 1) + 1, turns }
        };
        self.orders.clear();
        self.orders.extend((0..reals.len()).map(order));
    }

    fn build(&mut self) {
        self.slots.clear();
        if self.orders.iter().all(|order| order.turns == 0) {
            return;
        }
        self.slots.resize(SLOTS as usize, NOBODY);
        let mut free = SLOTS;
        loop {
            for (index, order) in self.orders.iter_mut().enumerate() {
                for _ in 0..order.turns {
                    while self.slots[order.at as usize] != NOBODY {
                        order.at = (order.at + order.step) % SLOTS;
                    }
                    self.slots[order.at as usize] = index as u32;
                    free -= 1;
                    if free == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Leaves the table as it is, but for the indices.
    fn follow(&mut self, change: Change) {
        for slot in self.slots.iter_mut().filter(|slot| **slot != NOBODY) {
            *slot = match change {
                Change::All => NOBODY,
                Change::Added(index) => *slot + u32::from(*slot as usize >= index),
                Change::Removed(index) if *slot as usize == index => NOBODY,
                Change::Removed(index) => *slot - u32::from(*slot as usize > index),
                Change::Edited(_) => *slot,
            };
        }
    }
}

impl Scheduler for Maglev {
    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        if reals.len() > SLOTS as usize {
            self.follow(change);
        } else {
            self.measure(reals);
            self.build();
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let port = if request.flags & PORT != 0 { client_port(request) } else { 0 };
        let client = fold(&request.client);
        let slot = |offset: u32| hash(FIRST_KEY, offset, port, client) % SLOTS;
        let usable = |slot: u32| {
            let index = *self.slots.get(slot as usize)? as usize;
            (index < reals.len() && reals.is_usable(index)).then_some(index)
        };
        let first = slot(0);
        let picked = usable(first);
        if picked.is_some() || request.flags & FALLBACK == 0 || self.slots.is_empty() {
            return picked;
        }
        (0..SLOTS).find_map(|step| usable(slot((step + first) % SLOTS)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, CLIENTS, from_v4};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<Maglev> {
        let [a, b, c] = weights;
        Bench::new(Maglev::default(), &[("A", a), ("B", b), ("C", c)])
    }

    fn asked(bench: &mut Bench<Maglev>, flags: u8) -> [&'static str; 5] {
        CLIENTS.map(|client| bench.ask(&Request { flags, client_port: 1234, protocol: 6, ..from_v4(client) }))
    }

    fn slots(bench: &Bench<Maglev>) -> String {
        bench.scheduler.slots.iter().map(|&index| bench.name(index as usize)).collect()
    }

    fn counts(bench: &Bench<Maglev>) -> [usize; 3] {
        ["A", "B", "C"].map(|name| slots(bench).matches(name).count())
    }

    /// IPVS-REFERENCE 2.12 [V]: offsets and steps of 10.0.0.1:80 to 10.0.0.3:80.
    #[test]
    fn orders_match_the_kernel() {
        let mut scheduler = Maglev::default();
        scheduler.measure(bench([1, 1, 1]).reals());
        let orders: Vec<_> = scheduler.orders.iter().map(|order| (order.at, order.step, order.turns)).collect();
        assert_eq!(orders, [(1631, 3453, 1), (1231, 3544, 1), (3167, 700, 1)], "newest first: C, B, A");
    }

    /// IPVS-REFERENCE 2.12 [V]: the table of equal weights, and how the order of adding changes it.
    #[test]
    fn the_table_matches_the_kernel() {
        let equal = bench([1, 1, 1]);
        assert_eq!(counts(&equal), [1364, 1364, 1365]);
        assert!(slots(&equal).starts_with("ABBCCABCCAABBAACBBAACBCCBABAACCB"));
        let reverse = Bench::new(Maglev::default(), &[("C", 1), ("B", 1), ("A", 1)]);
        assert_eq!(counts(&reverse), [1365, 1364, 1364]);
        let different = slots(&equal).chars().zip(slots(&reverse).chars()).filter(|(a, b)| a != b).count();
        assert_eq!(different, 5);
    }

    /// IPVS-REFERENCE 2.12 [V], [T]: weights in proportion, and only roughly so if large and without a common divisor.
    #[test]
    fn slots_follow_the_weights() {
        assert_eq!(counts(&bench([1, 2, 5])), [511, 1022, 2560]);
        assert_eq!(counts(&bench([100, 200, 300])), [682, 1364, 2047]);
        assert_eq!(counts(&bench([100, 200, 301])), [660, 1375, 2058]);
        assert_eq!(counts(&bench([1, 1, i32::MAX])), [62, 62, 3969]);
    }

    /// IPVS-REFERENCE 2.12 [V]: five clients, without and with their port.
    #[test]
    fn clients_stay_with_their_servers() {
        let mut bench = bench([1, 1, 1]);
        assert_eq!(asked(&mut bench, 0), ["A", "A", "A", "B", "B"]);
        assert_eq!(asked(&mut bench, PORT), ["C", "C", "A", "A", "C"]);
        let indices = CLIENTS.map(|client| hash(FIRST_KEY, 0, 0, u32::from_be_bytes(client)) % SLOTS);
        assert_eq!(indices, [3323, 2189, 1263, 2731, 502]);
        let hashes = CLIENTS.map(|client| hash(FIRST_KEY, 0, 0, u32::from_be_bytes(client)));
        assert_eq!(hashes, [3_588_839_862, 2_458_646_824, 724_143_009, 3_597_184_897, 844_198_124]);
    }

    /// IPVS-REFERENCE 2.12 [V], [T]: quiescing leaves the table alone, fallback hashes again.
    #[test]
    fn a_quiesced_server_keeps_its_slots() {
        let mut bench = bench([1, 1, 1]);
        let before = slots(&bench);
        bench.edit("A", 0);
        assert_eq!(slots(&bench), before);
        assert_eq!(asked(&mut bench, 0), ["-", "-", "-", "B", "B"]);
        assert_eq!(asked(&mut bench, FALLBACK), ["C", "B", "B", "B", "B"]);
        bench.edit("A", 1);
        bench.overload("A", true);
        assert_eq!(asked(&mut bench, 0), ["-", "-", "-", "B", "B"]);
        assert_eq!(asked(&mut bench, FALLBACK), ["C", "B", "B", "B", "B"]);
        bench.overload("B", true);
        bench.overload("C", true);
        assert_eq!(asked(&mut bench, FALLBACK), ["-"; 5]);
    }

    /// IPVS-REFERENCE 2.12 [T]: a server added with weight 0 has no slots; with such ones alone there is no table.
    #[test]
    fn a_server_added_quiesced_has_no_slots() {
        assert_eq!(counts(&bench([1, 0, 1])), [2046, 0, 2047]);
        let mut none = bench([0, 0, 0]);
        assert_eq!(none.scheduler.slots.len(), 0);
        assert_eq!(asked(&mut none, FALLBACK), ["-"; 5]);
        none.edit("B", 4);
        assert_eq!(counts(&none), [0, 4093, 0]);
    }

    /// IPVS-REFERENCE 2.12 [T]: of an IPv6 server in an IPv4 service the kernel hashes the first 32 bits, so all servers of
    /// one provider's prefix have one and the same order. Not so here: each has its own.
    #[test]
    fn trap_ipv6_servers_of_one_prefix_have_orders_of_their_own() {
        struct Tunnelled;
        impl Reals for Tunnelled {
            fn len(&self) -> usize {
                2
            }
            fn weight(&self, _: usize) -> i32 {
                1
            }
            fn active(&self, _: usize) -> u32 {
                0
            }
            fn total(&self, _: usize) -> u32 {
                0
            }
            fn is_overloaded(&self, _: usize) -> bool {
                false
            }
            fn last_weight(&self, _: usize) -> i32 {
                1
            }
            fn address(&self, index: usize) -> ([u8; 16], u16) {
                let mut address = [0; 16];
                address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
                address[15] = index as u8 + 1;
                (address, 80)
            }
        }
        let mut scheduler = Maglev::default();
        scheduler.measure(&Tunnelled);
        let [first, second] = [0, 1].map(|index| (scheduler.orders[index].at, scheduler.orders[index].step));
        assert_ne!(first, second);
        scheduler.build();
        let share = scheduler.slots.iter().filter(|slot| **slot == 0).count();
        assert_eq!((share, scheduler.slots.len()), (2047, 4093));
    }

    /// IPVS-REFERENCE 2.15: the table depends on the list alone, not on how it came to be.
    #[test]
    fn changes_leave_no_trace() {
        let mut changed = bench([1, 9, 5]);
        changed.edit("B", 2);
        changed.add("D", 4);
        changed.remove("D");
        assert_eq!(slots(&changed), slots(&bench([1, 2, 5])));
        for name in ["A", "B", "C"] {
            changed.remove(name);
        }
        assert_eq!(asked(&mut changed, FALLBACK), ["-"; 5]);
    }

    /// With more servers than slots the table stays, and its indices follow the list.
    #[test]
    fn too_many_servers_leave_the_table() {
        let mut bench = bench([1, 1, 1]);
        while bench.reals().len() < SLOTS as usize {
            bench.add_silently("x", 1);
        }
        bench.add("y", 1);
        bench.scheduler.slots.fill(0);
        bench.scheduler.slots[1263] = SLOTS;
        bench.add("z", 1);
        assert_eq!(bench.scheduler.slots[1262..1264], [1, SLOTS + 1]);
        bench.remove("z");
        assert_eq!(bench.scheduler.slots[1262..1264], [0, SLOTS]);
        assert_eq!(bench.ask(&from_v4([10, 1, 2, 3])), "A");
    }
}
