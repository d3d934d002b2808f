//! Where an address is reached: the longest matching prefix, as the kernel's main routing table has it.
//!
//! A new NAT connection asks for its client, so IPv4 is kept as the stretches of addresses that go one way: a look-up is
//! a search by halves, however many lengths of prefixes there are.
//!
//! Invariant: immutable once built; stretches say what the prefixes said (a test compares them). IPv6 tries each prefix
//! length that occurs, longest first. Policy routing (rules by source, mark or interface) is not here: the director
//! mirrors the main table.

use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;

use crate::flow::{Address, Family};
use crate::hop::InterfaceId;

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Leave by this interface, to the gateway or, without one, to the destination itself.
    Via {
        /// The interface.
        interface: InterfaceId,
        /// The next hop, if the destination is not a neighbour itself.
        gateway: Option<Address>,
        /// Largest IP packet, in bytes.
        mtu: u32,
        /// The director's address that packets to there start from.
        source: Option<Address>,
    },
    /// By an interface that the director does not serve.
    NotServed,
    /// An address of the director itself.
    Local,
    /// Nowhere (blackhole, unreachable, prohibit).
    Nowhere,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination's prefix.
    pub prefix: Address,
    /// Its length: 0..=32 or 0..=128.
    pub length: u8,
    /// Where it leads.
    pub target: Target,
}

/// A routing table.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    v4: Stretches,
    v6: Prefixes,
}

/// Addresses by the first of each stretch, ascending, and where the stretch is reached. The first one begins at 0, if
/// there is any.
#[derive(Clone, Debug, Default)]
struct Stretches {
    starts: Vec<u32>,
    targets: Vec<Option<Target>>,
}

impl Stretches {
    /// Of routes by their prefix, first address and length, without two for one prefix.
    fn new(mut routes: Vec<(u32, u8, Target)>) -> Self {
        // A prefix before those inside it.
        routes.sort_unstable_by_key(|&(first, length, _)| (first, length));
        let mut all = Stretches::default();
        all.begin(0, None);
        // The prefixes around the place that has been reached, with the address behind the last one of each.
        let mut around: Vec<(u64, Target)> = Vec::new();
        for (first, length, target) in routes {
            all.leave(&mut around, first.into());
            all.begin(first, Some(target));
            around.push((u64::from(first) + (1 << (32 - u32::from(length))), target));
        }
        all.leave(&mut around, 1 << 32);
        all
    }

    /// Goes on to an address: prefixes that end before it, or at it, give way to the one around them.
    fn leave(&mut self, around: &mut Vec<(u64, Target)>, to: u64) {
        while let Some((end, _)) = around.pop_if(|(end, _)| *end <= to) {
            if let Ok(first) = u32::try_from(end) {
                self.begin(first, around.last().map(|(_, target)| *target));
            }
        }
    }

    fn begin(&mut self, first: u32, target: Option<Target>) {
        if self.starts.last() == Some(&first) {
            self.starts.pop();
            self.targets.pop();
        }
        if self.targets.last() != Some(&target) {
            self.starts.push(first);
            self.targets.push(target);
        }
    }

    #[inline]
    fn find(&self, address: u32) -> Option<&Target> {
        self.stretch(address)?.1
    }

    /// The stretch of an address, and where it is reached.
    #[inline]
    fn stretch(&self, address: u32) -> Option<(RangeInclusive<u32>, Option<&Target>)> {
        let after = self.starts.partition_point(|&first| first <= address);
        let at = after.checked_sub(1)?;
        let last = self.starts.get(after).map_or(u32::MAX, |next| next - 1);
        Some((*self.starts.get(at)?..=last, self.targets.get(at)?.as_ref()))
    }
}

/// Prefix length and the routes of that length, longest first.
type Prefixes = Vec<(u8, FxHashMap<Address, Target>)>;

impl Routes {
    /// Builds the table; of two routes for one prefix the first one counts.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let (mut v4, mut v6) = (FxHashMap::default(), Prefixes::new());
        for route in routes {
            let prefix = route.prefix.masked(route.length);
            if prefix.family() == Family::Inet {
                v4.entry((prefix.low32(), route.length)).or_insert(route.target);
                continue;
            }
            let at = match v6.binary_search_by(|(length, _)| route.length.cmp(length)) {
                Ok(at) => at,
                Err(at) => {
                    v6.insert(at, (route.length, FxHashMap::default()));
                    at
                }
            };
            v6[at].1.entry(prefix).or_insert(route.target);
        }
        let v4 = v4.into_iter().map(|((first, length), target)| (first, length.min(32), target)).collect();
        Routes { v4: Stretches::new(v4), v6 }
    }

    /// Where an address is reached; `None` without a route.
    pub fn lookup(&self, address: Address) -> Option<Target> {
        self.find(address).copied()
    }

    /// The same, where it stands.
    #[inline]
    pub fn find(&self, address: Address) -> Option<&Target> {
        if address.family() == Family::Inet { self.v4.find(address.low32()) } else { self.find6(address) }
    }

    /// The same for the bits of an IPv4 address, with the stretch of addresses around it for which it is the same.
    #[inline]
    pub(crate) fn stretch4(&self, address: u32) -> Option<(RangeInclusive<u32>, &Target)> {
        let (stretch, target) = self.v4.stretch(address)?;
        Some((stretch, target?))
    }

    #[inline(never)]
    fn find6(&self, address: Address) -> Option<&Target> {
        self.v6.iter().find_map(|(length, routes)| routes.get(&address.masked(*length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// The longest prefix wins, the first of equals, and each family has its own default route.
    #[test]
    fn the_longest_prefix_wins() {
        let route = |text: &str, length, target| Route { prefix: address(text), length, target };
        let routes = Routes::new([
            route("0.0.0.0", 0, Target::Nowhere),
            route("10.0.0.0", 8, Target::NotServed),
            route("10.0.0.0", 8, Target::Nowhere),
            route("10.1.2.3", 32, Target::Local),
            route("2001:db8::", 32, Target::NotServed),
        ]);
        assert_eq!(routes.lookup(address("10.1.2.3")), Some(Target::Local));
        assert_eq!(routes.lookup(address("10.1.2.4")), Some(Target::NotServed));
        assert_eq!(routes.lookup(address("11.1.2.4")), Some(Target::Nowhere));
        assert_eq!(routes.lookup(address("2001:db8:1::1")), Some(Target::NotServed));
        assert_eq!(routes.lookup(address("2001:db9::1")), None);
    }

    proptest! {
        /// Stretches of addresses say what the prefixes said, and at the ends of them, too.
        #[test]
        fn stretches_are_what_the_prefixes_were(
            routes in vec((prop_oneof![any::<u32>(), (0u32..4).prop_map(|high| high << 30)], 0u8..=32, 0u8..3), 0..24),
            others in vec(any::<u32>(), 8),
        ) {
            let targets = [Target::Local, Target::NotServed, Target::Nowhere];
            let v4 = |bits: u32| Address::v4(bits.to_be_bytes());
            let routes: Vec<Route> = (routes.iter())
                .map(|&(prefix, length, target)| Route { prefix: v4(prefix), length, target: targets[usize::from(target)] })
                .collect();
            let table = Routes::new(routes.iter().copied());
            let ends = routes.iter().flat_map(|route| {
                let first = route.prefix.masked(route.length).low32();
                let last = first | u32::MAX.checked_shr(route.length.into()).unwrap_or(0);
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
            });
            for address in ends.chain(others).map(v4) {
                let fitting = routes.iter().filter(|route| address.masked(route.length) == route.prefix.masked(route.length));
                // The longest, and of these the first.
                let best = fitting.rev().max_by_key(|route| route.length).map(|route| route.target);
                prop_assert_eq!(table.lookup(address), best, "{}", address);
                if let Some((stretch, target)) = table.stretch4(address.low32()) {
                    prop_assert!(stretch.contains(&address.low32()));
                    prop_assert_eq!(Some(*target), best);
                    // As far as it goes.
                    let (first, last) = stretch.into_inner();
                    prop_assert!([first, last].iter().all(|&end| table.lookup(v4(end)) == best));
                    let beyond = [first.checked_sub(1), last.checked_add(1)];
                    prop_assert!(beyond.into_iter().flatten().all(|bits| table.lookup(v4(bits)) != best));
                } else {
                    prop_assert_eq!(best, None);
                }
            }
        }
    }
}
