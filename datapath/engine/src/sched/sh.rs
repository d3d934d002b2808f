//! `sh`: source hashing. The client's address decides, so a client stays with its server.
//!
//! A table of 256 slots is filled with the servers in the order of the list, as many slots in a row as the weight
//! says, again and again. The address's hash names the slot. Flags: with `sh-port` (`flag-2`) the client's port is
//! hashed too; with `sh-fallback` (`flag-1`) another slot is tried when the server of the first is not usable.
//!
//! Two habits of the kernel that are kept: a server of weight 0 has one slot a round, like one of weight 1, so without
//! `sh-fallback` its clients get none; and the fallback begins its walk through the table at twice the first slot, not
//! behind it. Weights above 256 leave nothing to the servers behind.
//!
//! The table is built when a server is added, removed or edited.

use xvs_sdk::{Change, Reals, Request, Scheduler};

use super::hash::{client_port, fold, golden};

const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
/// `sh-fallback`.
const FALLBACK: u8 = 1;
/// `sh-port`.
const PORT: u8 = 2;

/// State of `sh`.
#[derive(Clone, Debug, Default)]
pub struct SourceHash {
    /// Index of each slot's server; no slots at all when there is no server.
    slots: Vec<u32>,
}

impl SourceHash {
    fn server(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).map(|&index| index as usize)
    }
}

impl Scheduler for SourceHash {
    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, _change: Change) {
        self.slots.clear();
        let run = |index: usize| std::iter::repeat_n(index as u32, reals.weight(index).max(1) as usize);
        self.slots.extend((0..reals.len()).cycle().flat_map(run).take(SLOTS));
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let port = if request.flags & PORT != 0 { client_port(request) } else { 0 };
        let slot = golden(fold(&request.client).wrapping_add(u32::from(port)), BITS);
        let index = self.server(slot)?;
        if reals.is_usable(index) {
            return Some(index);
        }
        if request.flags & FALLBACK == 0 {
            return None;
        }
        // The kernel adds the slot to an offset that begins with the slot.
        (0..SLOTS).filter_map(|step| self.server((step + slot + slot) % SLOTS)).find(|&index| reals.is_usable(index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, CLIENTS, from_v4, v4};
    use super::*;

    fn bench(weights: [i32; 3]) -> Bench<SourceHash> {
        let [a, b, c] = weights;
        Bench::new(SourceHash::default(), &[("A", a), ("B", b), ("C", c)])
    }

    fn asked(bench: &mut Bench<SourceHash>, flags: u8) -> [&'static str; 5] {
        CLIENTS.map(|client| bench.ask(&Request { flags, ..from_v4(client) }))
    }

    fn slots(bench: &Bench<SourceHash>) -> String {
        bench.scheduler.slots.iter().map(|&index| ["C", "B", "A"][index as usize]).collect()
    }

    fn counts(bench: &Bench<SourceHash>) -> [usize; 3] {
        ["A", "B", "C"].map(|name| slots(bench).matches(name).count())
    }

    /// IPVS-REFERENCE 2.11 [V]: the table for three sets of weights.
    #[test]
    fn slots_follow_the_weights() {
        assert!(slots(&bench([1, 0, 3])).starts_with("CCCBA"));
        assert_eq!(counts(&bench([1, 0, 3])), [51, 51, 154]);
        assert!(slots(&bench([1, 2, 3])).starts_with("CCCBBA"));
        assert_eq!(counts(&bench([1, 2, 3])), [42, 85, 129]);
        assert_eq!(counts(&bench([1, 1, 1])), [85, 85, 86]);
    }

    /// IPVS-REFERENCE 2.11: a weight above 256 leaves nothing to the servers behind.
    #[test]
    fn a_huge_weight_starves_the_others() {
        assert_eq!(counts(&bench([5, 5, 300])), [0, 0, 256]);
        assert_eq!(counts(&bench([i32::MAX, 1, 1])), [254, 1, 1]);
    }

    /// IPVS-REFERENCE 2.11 [V]: five clients and equal weights; a port counts only with `sh-port`.
    #[test]
    fn clients_stay_with_their_servers() {
        let mut bench = bench([1, 1, 1]);
        assert_eq!(asked(&mut bench, 0), ["A", "C", "A", "C", "A"]);
        let with_port = Request { client: v4(CLIENTS[0]), client_port: 1234, protocol: 6, ..Request::default() };
        assert_eq!(bench.ask(&with_port), "A");
        assert_eq!(bench.ask(&Request { flags: PORT, ..with_port }), "C");
        let fold = u32::from_be_bytes(CLIENTS[0]);
        assert_eq!(super::super::hash::golden(fold + 1234, 8), 81, "the slot of the client with its port");
        assert_eq!(bench.ask(&Request { flags: PORT, protocol: 50, ..with_port }), "A", "ESP has no ports");
    }

    /// IPVS-REFERENCE 2.11 [V], [T]: without `sh-fallback` the clients of a quiesced server get none; with it the walk
    /// begins at twice the slot.
    #[test]
    fn a_quiesced_server_keeps_its_slots() {
        let mut bench = bench([1, 1, 1]);
        bench.edit("A", 0);
        assert_eq!(asked(&mut bench, 0), ["-", "C", "-", "C", "-"]);
        assert_eq!(asked(&mut bench, FALLBACK), ["C", "C", "B", "C", "C"]);
        bench.edit("A", 1);
        bench.overload("A", true);
        assert_eq!(asked(&mut bench, FALLBACK), ["C", "C", "B", "C", "C"]);
        bench.overload("B", true);
        bench.overload("C", true);
        assert_eq!(asked(&mut bench, FALLBACK), ["-"; 5]);
    }

    /// IPVS-REFERENCE 2.15: every change builds the table anew; an empty list has none.
    #[test]
    fn every_change_builds_the_table() {
        let mut bench = bench([1, 2, 3]);
        bench.edit("C", 1);
        assert!(slots(&bench).starts_with("CBBACBBA"));
        bench.remove("B");
        assert_eq!(bench.scheduler.slots[..4], [0, 1, 0, 1]);
        bench.remove("A");
        bench.remove("C");
        assert_eq!(asked(&mut bench, FALLBACK), ["-"; 5]);
    }
}
