//! Where an address is reached: the longest matching prefix, as the kernel's main routing table has it.
//!
//! A new NAT connection asks for its client, so the table is kept as the stretches of addresses that go one way: a look-up is
//! a search by halves, however many lengths of prefixes there are.
//!
//! Invariant: immutable once built; stretches say what the prefixes said (a test compares them). Policy routing (rules by
//! source, mark or interface) is not here: the director mirrors the main table.

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
    v4: Stretches<u32>,
    v6: Stretches<u128>,
}

/// An address of one family, as a number.
pub(crate) trait Bits: Copy + Ord + Default + 'static {
    const ONE: Self;

    /// The difference of two, or what is left of it when it wraps.
    fn minus(self, other: Self) -> Self;

    /// The address behind a prefix of this length that begins here; none behind the last one.
    fn behind(self, length: u8) -> Option<Self>;

    fn address(self) -> Address;

    fn stretches(routes: &Routes) -> &Stretches<Self>;
}

impl Bits for u32 {
    const ONE: u32 = 1;

    #[inline(always)]
    fn minus(self, other: u32) -> u32 {
        self.wrapping_sub(other)
    }

    fn behind(self, length: u8) -> Option<u32> {
        self.checked_add(1u32.checked_shl(32 - u32::from(length))?)
    }

    fn address(self) -> Address {
        Address::v4(self.to_be_bytes())
    }

    fn stretches(routes: &Routes) -> &Stretches<u32> {
        &routes.v4
    }
}

impl Bits for u128 {
    const ONE: u128 = 1;

    #[inline(always)]
    fn minus(self, other: u128) -> u128 {
        self.wrapping_sub(other)
    }

    fn behind(self, length: u8) -> Option<u128> {
        self.checked_add(1u128.checked_shl(128 - u32::from(length))?)
    }

    fn address(self) -> Address {
        Address::from_bits(self)
    }

    fn stretches(routes: &Routes) -> &Stretches<u128> {
        &routes.v6
    }
}

/// Neighbouring addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretch<A> {
    pub(crate) first: A,
    /// How many are behind the first one.
    pub(crate) behind: A,
}

impl<A: Bits> Stretch<A> {
    /// Is this one of them?
    #[inline(always)]
    pub(crate) fn has(self, address: A) -> bool {
        address.minus(self.first) <= self.behind
    }
}

/// Addresses by the first of each stretch, ascending, and where the stretch is reached. The first one begins at 0, if
/// there is any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stretches<A> {
    starts: Vec<A>,
    targets: Vec<Option<Target>>,
}

impl<A: Bits> Stretches<A> {
    /// Of routes by their prefix, first address and length, without two for one prefix.
    fn new(mut routes: Vec<(A, u8, Target)>) -> Self {
        // A prefix before those inside it.
        routes.sort_unstable_by_key(|&(first, length, _)| (first, length));
        let mut all = Stretches::default();
        all.begin(A::default(), None);
        // The prefixes around the place that has been reached, with the address behind the last one of each, if there is one.
        let mut around: Vec<(Option<A>, Target)> = Vec::new();
        for (first, length, target) in routes {
            all.leave(&mut around, Some(first));
            all.begin(first, Some(target));
            around.push((first.behind(length), target));
        }
        all.leave(&mut around, None);
        all
    }

    /// Goes on to an address, or behind the last one: prefixes that end before it, or at it, give way to the one around them.
    fn leave(&mut self, around: &mut Vec<(Option<A>, Target)>, to: Option<A>) {
        let ends = |end: &mut (Option<A>, Target)| to.is_none_or(|to| end.0.is_some_and(|end| end <= to));
        while let Some((end, _)) = around.pop_if(ends) {
            if let Some(first) = end {
                self.begin(first, around.last().map(|(_, target)| *target));
            }
        }
    }

    fn begin(&mut self, first: A, target: Option<Target>) {
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
    fn find(&self, address: A) -> Option<&Target> {
        self.stretch(address)?.1
    }

    /// The stretch of an address, and where it is reached.
    #[inline]
    fn stretch(&self, address: A) -> Option<(Stretch<A>, Option<&Target>)> {
        let after = self.starts.partition_point(|&first| first <= address);
        let at = after.checked_sub(1)?;
        // None of the last one: what is behind it is the first one.
        let next = self.starts.get(after).copied().unwrap_or_default();
        let first = *self.starts.get(at)?;
        Some((Stretch { first, behind: next.minus(first).minus(A::ONE) }, self.targets.get(at)?.as_ref()))
    }
}

impl Routes {
    /// Builds the table; of two routes for one prefix the first one counts.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let (mut v4, mut v6) = (FxHashMap::default(), FxHashMap::default());
        for route in routes {
            let prefix = route.prefix.masked(route.length);
            match prefix.family() {
                Family::Inet => v4.entry((prefix.low32(), route.length.min(32))).or_insert(route.target),
                Family::Inet6 => v6.entry((prefix.bits(), route.length.min(128))).or_insert(route.target),
            };
        }
        let v4 = v4.into_iter().map(|((first, length), target)| (first, length, target)).collect();
        let v6 = v6.into_iter().map(|((first, length), target)| (first, length, target)).collect();
        Routes { v4: Stretches::new(v4), v6: Stretches::new(v6) }
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

    #[inline(never)]
    fn find6(&self, address: Address) -> Option<&Target> {
        self.v6.find(address.bits())
    }

    /// Where an address is reached, and the stretch of addresses around it for which that is the same.
    #[inline]
    pub(crate) fn stretch<A: Bits>(&self, address: A) -> Option<(Stretch<A>, &Target)> {
        let (stretch, target) = A::stretches(self).stretch(address)?;
        Some((stretch, target?))
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

    /// Where an address is reached by routes of its family, of which only some bits are used so that they meet, is what the
    /// longest prefix around it says, the first of equals; and the stretch around it goes as far as that, and no further.
    fn check<A: Bits + std::fmt::Debug>(routes: &[(A, u8, Target)], others: Vec<A>, bits: u8) {
        let route = |&(prefix, length, target): &(A, u8, Target)| Route { prefix: prefix.address(), length, target };
        let routes: Vec<Route> = routes.iter().map(route).collect();
        let table = Routes::new(routes.iter().copied());
        let stretches = A::stretches(&table);
        let ends = stretches
            .starts
            .iter()
            .flat_map(|&first| [first, first.minus(A::ONE), first.minus(A::default().minus(A::ONE))]);
        let best = |address: A| {
            let address = address.address();
            let around = |route: &&Route| address.masked(route.length) == route.prefix.masked(route.length);
            routes.iter().filter(around).rev().max_by_key(|route| route.length.min(bits)).map(|route| route.target)
        };
        for address in ends.chain(others) {
            let found = table.stretch(address);
            assert_eq!(
                (table.lookup(address.address()), found.map(|(_, target)| *target)),
                (best(address), best(address))
            );
            let Some((stretch, _)) = found else { continue };
            let last = stretch.first.minus(A::default().minus(stretch.behind));
            assert!(stretch.has(address) && stretch.has(stretch.first) && stretch.has(last));
            assert_eq!((best(stretch.first), best(last)), (best(address), best(address)));
            let before = stretch.first.minus(A::ONE);
            assert!(stretch.first == A::default() || !stretch.has(before) && best(before) != best(address));
        }
    }

    const TARGETS: [Target; 3] = [Target::Local, Target::NotServed, Target::Nowhere];

    proptest! {
        /// Stretches of addresses say what the prefixes said, and at the ends of them, too.
        #[test]
        fn stretches_are_what_the_prefixes_were(
            routes in vec((prop_oneof![any::<u32>(), (0u32..4).prop_map(|high| high << 30)], 0u8..=32, 0usize..3), 0..24),
            others in vec(any::<u32>(), 8),
        ) {
            let routes: Vec<_> = routes.into_iter().map(|(prefix, length, target)| (prefix, length, TARGETS[target])).collect();
            check(&routes, others, 32);
        }

        /// The same of IPv6. (Not near the mapped addresses, which are of the other family.)
        #[test]
        fn stretches_of_ipv6_are_what_the_prefixes_were(
            routes in vec(
                (prop_oneof![any::<u128>(), (0u128..4).prop_map(|high| high << 126), (1u128..4).prop_map(|high| high << 63)],
                0u8..=128, 0usize..3),
                0..24,
            ),
            others in vec(any::<u128>(), 8),
        ) {
            let routes: Vec<_> = routes.into_iter().map(|(prefix, length, target)| (prefix | 1 << 127, length, TARGETS[target])).collect();
            check(&routes, others, 128);
        }
    }
}
