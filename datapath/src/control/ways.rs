//! The ways to the real servers: one for each machine, whose servers all go it.
//!
//! Work is in proportion to what changed: news bring the ways to some addresses into doubt, these are found again a piece at
//! a time, and only where one is another one the servers' records are written.
//!
//! Invariant: a record is with one machine at most, and goes its way, or is among the first `unwritten` ones of a machine
//! whose address is [stale](Stale). Not here: how a way is found ([`network`](super::network)).

use std::collections::BTreeMap;

use xvs_engine::flow::Address;
use xvs_engine::real::RealId;

use super::network::Way;
use super::stale::Stale;

/// To find a way takes as long as to write so many records.
pub(super) const FINDING: usize = 20;

/// All machines that servers are on.
#[derive(Debug, Default)]
pub(super) struct Ways {
    machines: BTreeMap<Address, Machine>,
    /// Of each record, by its number: its machine, and its place there.
    places: Vec<Option<(Address, usize)>>,
    /// Those that are to be found again.
    pub(super) stale: Stale,
}

#[derive(Debug)]
struct Machine {
    way: Way,
    records: Vec<RealId>,
    unwritten: usize,
}

impl Machine {
    /// From now on this is the way. True if that is another one for the records.
    fn take(&mut self, way: Way) -> bool {
        let is_other = !way.is_same(&self.way);
        if is_other {
            self.unwritten = self.records.len();
        }
        self.way = way;
        is_other
    }
}

impl Ways {
    /// A server is at this address; whoever says so has found its way and written it into the record.
    pub(super) fn add(&mut self, real: RealId, server: Address, way: Way) {
        self.forget(real);
        let machine = self.machines.entry(server).or_insert_with(|| {
            tracing::debug!(%server, way = way.text, "the way to a real server");
            Machine { way: way.clone(), records: Vec::new(), unwritten: 0 }
        });
        if machine.take(way) {
            // The others have yet to hear of it.
            self.stale.add_address(server);
        }
        let number = real.0 as usize;
        if self.places.len() <= number {
            self.places.resize(number + 1, None);
        }
        self.places[number] = Some((server, machine.records.len()));
        machine.records.push(real);
    }

    /// Nobody uses this record any more.
    pub(super) fn forget(&mut self, real: RealId) {
        let Some((server, at)) = self.places.get_mut(real.0 as usize).and_then(Option::take) else { return };
        let Some(machine) = self.machines.get_mut(&server) else { return };
        machine.records.swap_remove(at);
        // The last one, which took its place, is written at worst once more.
        machine.unwritten = machine.unwritten.min(machine.records.len());
        if let Some(moved) = machine.records.get(at) {
            self.places[moved.0 as usize] = Some((server, at));
        }
        if machine.records.is_empty() {
            self.machines.remove(&server);
        }
    }

    /// The way that a record goes, or will in a moment.
    pub(super) fn get(&self, real: RealId) -> Option<&Way> {
        let (server, _) = self.places.get(real.0 as usize)?.as_ref()?;
        self.machines.get(server).map(|machine| &machine.way)
    }

    /// Goes on with what is stale: finds ways, and writes those that are others, for about so many records. True if there
    /// is more to do.
    pub(super) fn go_on(
        &mut self,
        mut records: usize,
        mut find: impl FnMut(Address) -> Way,
        mut write: impl FnMut(RealId, &Way),
    ) -> bool {
        while let Some(stretch) = self.stale.first() {
            if records == 0 {
                return true;
            }
            let Some((&server, machine)) = self.machines.range_mut(stretch.clone()).next() else {
                self.stale.pass(*stretch.end());
                continue;
            };
            if machine.take(find(server)) {
                tracing::debug!(%server, way = machine.way.text, "another way to a real server");
            }
            records = records.saturating_sub(FINDING);
            // One at least, or a machine with many would never be done.
            let rest = machine.unwritten.saturating_sub(records.max(1));
            machine.records[rest..machine.unwritten].iter().for_each(|real| write(*real, &machine.way));
            records = records.saturating_sub(machine.unwritten - rest);
            machine.unwritten = rest;
            if rest == 0 {
                self.stale.pass(server);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use xvs_engine::real::Path;

    use super::*;

    fn way(mtu: u32) -> Way {
        Way { path: Path::Local, mtu, source: None, text: String::new() }
    }

    fn machine(last: u8) -> Address {
        Address::v4([10, 0, 0, last])
    }

    /// Guards the work after news: ways that are not in doubt are not found, records whose way is the same are not
    /// written, and a machine with many servers is one way.
    #[test]
    fn what_did_not_change_is_not_touched() {
        let mut ways = Ways::default();
        (0..100).for_each(|number| ways.add(RealId(number), machine(number as u8 % 10), way(1500)));
        let mut go_on = |wider: u8| {
            let (mut found, mut written) = (Vec::new(), 0);
            let find = |address: Address| {
                found.push(address);
                way(if address == machine(wider) { 9000 } else { 1500 })
            };
            assert!(!ways.go_on(10_000, find, |_, _| written += 1));
            ways.stale.add_prefix(machine(4), 30);
            (found, written)
        };
        assert_eq!(go_on(5), (vec![], 0));
        assert_eq!(go_on(5), ((4..8).map(machine).collect(), 10));
        assert_eq!(go_on(5), ((4..8).map(machine).collect(), 0));
        assert_eq!(go_on(4), ((4..8).map(machine).collect(), 20));
    }

    /// Guards requests that come meanwhile: a piece of the work is not more than was said, of whichever kind it is.
    #[test]
    fn a_piece_is_a_piece() {
        let mut ways = Ways::default();
        (0..200).for_each(|number| ways.add(RealId(number), machine(number as u8), way(1500)));
        (200..1200).for_each(|number| ways.add(RealId(number), machine(250), way(1500)));
        ways.stale.add_all();
        let (mut found, mut written, mut pieces) = (0, 0, 0);
        loop {
            let before = found * FINDING + written;
            let find = |_| {
                found += 1;
                way(9000)
            };
            let more = ways.go_on(5 * FINDING, find, |_, _| written += 1);
            assert!(found * FINDING + written - before <= 6 * FINDING);
            pieces += 1;
            if !more {
                break;
            }
        }
        assert_eq!(written, 1200);
        assert!((50..100).contains(&pieces), "{pieces}");
    }

    /// What happens to the world: a server comes to a record, one goes, a way changes and that is told, time passes.
    #[derive(Clone, Debug)]
    enum Step {
        Add(u32, u8),
        Forget(u32),
        Change(u8, u32),
        GoOn(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u32..60, 0u8..4).prop_map(|(real, last)| Step::Add(real, last)),
            1 => (0u32..60).prop_map(Step::Forget),
            1 => (0u8..4, 1u32..4).prop_map(|(last, mtu)| Step::Change(last, mtu)),
            2 => (0usize..40).prop_map(Step::GoOn),
        ]
    }

    proptest! {
        /// Guards every service's way out: whatever changes in between, and whoever takes over a record, when all is found
        /// again each record goes the last way of its own server's machine, and a free one is not written.
        #[test]
        fn all_go_the_last_way_in_the_end(steps in proptest::collection::vec(step(), 1..200)) {
            let mut ways = Ways::default();
            let mut world = [1u32; 4];
            let (mut servers, mut records) = (HashMap::<RealId, u8>::new(), HashMap::<RealId, u32>::new());
            for step in steps.into_iter().chain([Step::GoOn(usize::MAX)]) {
                match step {
                    Step::Add(real, last) => {
                        let real = RealId(real);
                        let mtu = world[usize::from(last)];
                        servers.insert(real, last);
                        records.insert(real, mtu);
                        ways.add(real, machine(last), way(mtu));
                    }
                    Step::Forget(real) => {
                        ways.forget(RealId(real));
                        servers.remove(&RealId(real));
                        records.remove(&RealId(real));
                    }
                    Step::Change(last, mtu) => {
                        world[usize::from(last)] = mtu;
                        ways.stale.add_address(machine(last));
                    }
                    Step::GoOn(count) => {
                        let find = |address: Address| way(world[address.low32() as usize & 3]);
                        let mut free = 0;
                        let more = ways.go_on(count, find, |real, way| match records.get_mut(&real) {
                            Some(record) => *record = way.mtu,
                            None => free += 1,
                        });
                        prop_assert_eq!(free, 0, "nobody uses it");
                        if !more {
                            for (real, last) in &servers {
                                prop_assert_eq!(records[real], world[usize::from(*last)], "{:?}", real);
                            }
                        }
                    }
                }
                for (real, last) in &servers {
                    prop_assert_eq!(ways.places[real.0 as usize].map(|(server, _)| server), Some(machine(*last)));
                }
            }
        }
    }
}
