//! The routing tables and their lookup: longest prefix first, then the smaller metric, as the kernel does it.
//!
//! Invariant: the answer is the kernel's answer on a machine without routing rules, measured against it by a test:
//!
//! - IPv4: `local` and `main` are searched *together* (the kernel merges them), so a more specific route of `main` wins
//!   over a wider `local` one; of equal length, `local` wins. Then `default`.
//! - IPv6: `local`, then `main`, each on its own. `default` is not asked.
//! - A route whose next hops are all dead is passed over, and a shorter prefix may answer. `throw` ends its table.
//!
//! What it is not: it does not listen (`mirror`) and knows no links or addresses (`view`). Its size is that of the
//! kernel's tables, which bound it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::route::{NextHop, Route, RouteKind};

/// The kernel's table of its own addresses.
pub(super) const LOCAL: u32 = 255;
/// The table that `ip route` shows.
pub(super) const MAIN: u32 = 254;
/// The table that is asked last.
pub(super) const DEFAULT: u32 = 253;

/// Length of an address in bits.
pub(super) fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The network of `address` with `prefix` bits; a too long prefix means the address itself.
pub(super) fn network(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

/// What became of a route that was told to a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// It was there already.
    Known,
    /// It is new.
    Added,
    /// It took the place of this one.
    Replaced(Box<Route>),
    /// It shares its key with others, and the message does not tell what became of them: read the table again.
    Ambiguous,
}

/// What became of a route that was taken back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// It was not there.
    Unknown,
    /// It is gone.
    Removed(Box<Route>),
    /// Part of a route, or one of several: read the table again.
    Ambiguous,
}

/// A successful lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The route.
    pub route: &'a Route,
    /// The next hop chosen for this destination, if the route has any.
    pub hop: Option<&'a NextHop>,
}

/// One table of one family. Levels by prefix length, the longest first; within a prefix sorted by metric, and among
/// equals in the kernel's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fib {
    levels: BTreeMap<Reverse<u8>, HashMap<IpAddr, Vec<Route>>>,
}

/// All routes of the tables `local`, `main` and `default`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    fibs: BTreeMap<(bool, u32), Fib>,
}

impl Fib {
    fn slot(&self, prefix: u8, destination: IpAddr) -> &[Route] {
        self.levels.get(&Reverse(prefix)).and_then(|level| level.get(&destination)).map_or(&[], Vec::as_slice)
    }

    /// The usable routes for `destination`, longest prefix first, one per prefix length.
    fn candidates(&self, destination: IpAddr) -> impl Iterator<Item = &Route> {
        self.levels.iter().filter_map(move |(Reverse(prefix), level)| {
            level.get(&network(destination, *prefix))?.iter().find(|route| is_usable(route))
        })
    }
}

/// Whether a packet of no particular type of service may take the route now.
fn is_usable(route: &Route) -> bool {
    route.tos == 0 && (route.hops.is_empty() || route.hops.iter().any(|hop| !hop.dead))
}

impl Routes {
    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All routes, table by table, in no particular order within a prefix length.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.fibs.values().flat_map(|fib| fib.levels.values()).flat_map(HashMap::values).flatten()
    }

    /// Adds a route from a dump, where each one stands for itself. Routes must come in the kernel's order.
    pub fn insert(&mut self, route: Route) {
        let fib = self.fibs.entry((route.destination.is_ipv6(), route.table)).or_default();
        let slot = fib.levels.entry(Reverse(route.prefix)).or_default().entry(route.destination).or_default();
        if !slot.contains(&route) {
            let place = slot.partition_point(|other| other.metric <= route.metric);
            slot.insert(place, route);
        }
    }

    /// Takes note of a route that the kernel announced as new; `replace` tells that it took another one's place.
    pub(super) fn learn(&mut self, route: Route, replace: bool) -> Learned {
        let twins = self.twins(&route);
        match twins.as_slice() {
            [] => {
                self.insert(route);
                Learned::Added
            }
            twins if twins.contains(&&route) => Learned::Known,
            [only] if replace => {
                let old = (*only).clone();
                self.remove(&old);
                self.insert(route);
                Learned::Replaced(Box::new(old))
            }
            _ => Learned::Ambiguous,
        }
    }

    /// Takes note of a route that the kernel announced as gone.
    pub(super) fn forget(&mut self, route: &Route) -> Forgotten {
        let twins = self.twins(route);
        if twins.is_empty() {
            return Forgotten::Unknown;
        }
        if !twins.contains(&route) {
            return Forgotten::Ambiguous;
        }
        self.remove(route);
        Forgotten::Removed(Box::new(route.clone()))
    }

    /// The routes that share table, destination, type of service and metric with this one.
    fn twins(&self, route: &Route) -> Vec<&Route> {
        let Some(fib) = self.fibs.get(&(route.destination.is_ipv6(), route.table)) else { return Vec::new() };
        let slot = fib.slot(route.prefix, route.destination).iter();
        slot.filter(|other| other.tos == route.tos && other.metric == route.metric).collect()
    }

    /// Removes exactly this route, and the levels that become empty with it.
    fn remove(&mut self, route: &Route) {
        let key = (route.destination.is_ipv6(), route.table);
        let Some(fib) = self.fibs.get_mut(&key) else { return };
        let Some(level) = fib.levels.get_mut(&Reverse(route.prefix)) else { return };
        if let Some(slot) = level.get_mut(&route.destination) {
            slot.retain(|other| other != route);
            if slot.is_empty() {
                level.remove(&route.destination);
            }
        }
        if level.is_empty() {
            fib.levels.remove(&Reverse(route.prefix));
        }
        if fib.levels.is_empty() {
            self.fibs.remove(&key);
        }
    }

    /// The routes that only one of two states has: (gone, new).
    pub(super) fn difference(old: &Routes, new: &Routes) -> (Vec<Route>, Vec<Route>) {
        let before: HashSet<&Route> = old.iter().collect();
        let after: HashSet<&Route> = new.iter().collect();
        let gone = before.difference(&after).map(|route| (*route).clone()).collect();
        let added = after.difference(&before).map(|route| (*route).clone()).collect();
        (gone, added)
    }

    /// The route for a destination, and the next hop chosen for it.
    pub fn find(&self, destination: IpAddr) -> Option<Found<'_>> {
        let v6 = destination.is_ipv6();
        let route = if v6 {
            self.ask(v6, &[LOCAL], destination).or_else(|| self.ask(v6, &[MAIN], destination))
        } else {
            self.ask(v6, &[LOCAL, MAIN], destination).or_else(|| self.ask(v6, &[DEFAULT], destination))
        }?;
        Some(Found { route, hop: choose(&route.hops, destination) })
    }

    /// Asks some tables as one; `None` also if the best route says that another table shall answer.
    fn ask(&self, v6: bool, tables: &[u32], destination: IpAddr) -> Option<&Route> {
        let mut best: Option<&Route> = None;
        for table in tables {
            let candidate = self.fibs.get(&(v6, *table)).and_then(|fib| fib.candidates(destination).next());
            // Not `>=`: of equal length the table named first wins.
            if candidate.is_some_and(|route| best.is_none_or(|best| route.prefix > best.prefix)) {
                best = candidate;
            }
        }
        best.filter(|route| route.kind != RouteKind::Throw)
    }
}

/// Chooses among the living next hops by weight, always the same for the same destination.
///
/// The kernel hashes flows; a director asks per real server and wants each of them to stay on one path.
fn choose(hops: &[NextHop], destination: IpAddr) -> Option<&NextHop> {
    let living = || hops.iter().filter(|hop| !hop.dead);
    let total: u64 = living().map(|hop| u64::from(hop.weight)).sum();
    if total == 0 {
        return living().next();
    }
    let mut ticket = spread(destination) % total;
    living().find(|hop| match ticket.checked_sub(u64::from(hop.weight)) {
        Some(rest) => {
            ticket = rest;
            false
        }
        None => true,
    })
}

/// FNV-1a over the address: not secret, only even.
fn spread(address: IpAddr) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = match address {
        IpAddr::V4(v4) => v4.octets().iter().fold(0xcbf2_9ce4_8422_2325, step),
        IpAddr::V6(v6) => v6.octets().iter().fold(0xcbf2_9ce4_8422_2325, step),
    };
    // The low bits of FNV are weak for short inputs.
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop(link: u32) -> NextHop {
        NextHop { link, gateway: None, weight: 1, dead: false, encapsulated: false }
    }

    fn route(table: u32, destination: &str, prefix: u8, metric: u32, link: u32) -> Route {
        Route {
            table,
            destination: network(destination.parse().expect("an address"), prefix),
            prefix,
            tos: 0,
            metric,
            kind: RouteKind::Unicast,
            source: None,
            mtu: None,
            protocol: 4,
            hops: vec![hop(link)],
            nexthop_object: None,
        }
    }

    fn answer(routes: &Routes, destination: &str) -> Option<u32> {
        routes.find(destination.parse().expect("an address")).and_then(|found| found.hop).map(|hop| hop.link)
    }

    /// Guards the edges of the mask: no bits, all bits, more bits than there are.
    #[test]
    fn a_network_is_the_masked_address() {
        let v4: IpAddr = "192.0.2.129".parse().expect("an address");
        let expect = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(network(v4, 0), expect("0.0.0.0"));
        assert_eq!(network(v4, 25), expect("192.0.2.128"));
        assert_eq!(network(v4, 32), v4);
        assert_eq!(network(v4, 200), v4);
        let v6 = expect("2001:db8::ffff");
        assert_eq!(network(v6, 0), expect("::"));
        assert_eq!(network(v6, 120), expect("2001:db8::ff00"));
        assert_eq!(network(v6, 128), v6);
    }

    /// Guards the order: longer prefix, then smaller metric, then the table.
    #[test]
    fn the_longest_prefix_and_then_the_smallest_metric_win() {
        let mut routes = Routes::default();
        routes.insert(route(MAIN, "0.0.0.0", 0, 100, 1));
        routes.insert(route(MAIN, "0.0.0.0", 0, 50, 2));
        routes.insert(route(MAIN, "10.0.0.0", 8, 900, 3));
        routes.insert(route(DEFAULT, "10.1.0.0", 16, 0, 4));
        assert_eq!(answer(&routes, "192.0.2.1"), Some(2));
        assert_eq!(answer(&routes, "10.1.2.3"), Some(3));
        assert_eq!(answer(&routes, "2001:db8::1"), None);
    }

    /// Guards the kernel's habit of merging `local` and `main` for IPv4 and not for IPv6.
    #[test]
    fn local_and_main_are_one_table_for_ipv4_only() {
        let mut routes = Routes::default();
        routes.insert(route(LOCAL, "10.0.0.0", 8, 0, 1));
        routes.insert(route(MAIN, "10.9.0.0", 16, 0, 2));
        routes.insert(route(LOCAL, "2001:db8::", 32, 0, 3));
        routes.insert(route(MAIN, "2001:db8:9::", 48, 0, 4));
        routes.insert(route(DEFAULT, "::", 0, 0, 5));
        assert_eq!(answer(&routes, "10.8.0.1"), Some(1));
        assert_eq!(answer(&routes, "10.9.0.1"), Some(2));
        assert_eq!(answer(&routes, "2001:db8:9::1"), Some(3));
        assert_eq!(answer(&routes, "2001:db9::1"), None, "IPv6 does not ask the table `default`");
    }

    /// Guards failover: a route without a living next hop lets a worse one answer, even of a shorter prefix.
    #[test]
    fn dead_next_hops_are_passed_over() {
        let mut routes = Routes::default();
        let mut dead = route(MAIN, "10.0.0.0", 8, 0, 1);
        dead.hops[0].dead = true;
        routes.insert(dead);
        routes.insert(route(MAIN, "0.0.0.0", 0, 0, 2));
        assert_eq!(answer(&routes, "10.0.0.1"), Some(2));
        routes.insert(route(MAIN, "10.0.0.0", 8, 7, 3));
        assert_eq!(answer(&routes, "10.0.0.1"), Some(3));
    }

    /// Guards that `throw` hides the rest of its table but not the next one.
    #[test]
    fn throw_continues_in_the_next_table() {
        let mut routes = Routes::default();
        routes.insert(route(MAIN, "0.0.0.0", 0, 0, 1));
        routes.insert(Route { kind: RouteKind::Throw, hops: vec![], ..route(MAIN, "10.0.0.0", 8, 0, 0) });
        assert_eq!(answer(&routes, "10.0.0.1"), None);
        routes.insert(route(DEFAULT, "0.0.0.0", 0, 0, 2));
        assert_eq!(answer(&routes, "10.0.0.1"), Some(2));
        assert_eq!(answer(&routes, "11.0.0.1"), Some(1));
    }

    /// Guards the weights of a multipath route and that one destination keeps its path.
    #[test]
    fn multipath_spreads_destinations_by_weight_and_keeps_each() {
        let mut wide = route(MAIN, "0.0.0.0", 0, 0, 1);
        wide.hops = vec![hop(1), NextHop { weight: 3, ..hop(2) }, NextHop { dead: true, ..hop(3) }];
        let mut routes = Routes::default();
        routes.insert(wide);
        let mut counts = [0; 4];
        for last in 0..4000_u32 {
            let destination = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + last));
            let link = |routes: &Routes| routes.find(destination).and_then(|found| found.hop).map_or(0, |hop| hop.link);
            assert_eq!(link(&routes), link(&routes));
            counts[link(&routes) as usize] += 1;
        }
        assert_eq!(counts[3], 0, "a dead next hop got a destination");
        assert!((800..1200).contains(&counts[1]), "one quarter of 4000 expected: {counts:?}");
    }

    /// Guards what may be concluded from a message alone: a replaced route, one of two twins, part of a multipath
    /// route.
    #[test]
    fn ambiguous_messages_are_recognised() {
        let mut routes = Routes::default();
        let first = route(MAIN, "10.0.0.0", 8, 0, 1);
        let second = route(MAIN, "10.0.0.0", 8, 0, 2);
        assert_eq!(routes.learn(first.clone(), false), Learned::Added);
        assert_eq!(routes.learn(first.clone(), false), Learned::Known);
        assert_eq!(routes.learn(second.clone(), false), Learned::Ambiguous);
        assert_eq!(routes.learn(second.clone(), true), Learned::Replaced(Box::new(first.clone())));
        assert_eq!(routes.forget(&first), Forgotten::Ambiguous);
        assert_eq!(routes.forget(&second), Forgotten::Removed(Box::new(second.clone())));
        assert_eq!(routes.forget(&second), Forgotten::Unknown);
        assert_eq!(routes, Routes::default(), "an empty table leaves nothing behind");
    }

    fn any_route() -> impl Strategy<Value = Route> {
        // Few bits and few values, so that routes overlap and collide often.
        let address = prop_oneof![
            (0_u32..16, 0_u8..=4).prop_map(|(bits, length)| (IpAddr::V4(Ipv4Addr::from_bits(bits << 28)), length)),
            (0_u128..16, 0_u8..=4).prop_map(|(bits, length)| (IpAddr::V6(Ipv6Addr::from_bits(bits << 124)), length)),
        ];
        let table = prop_oneof![Just(LOCAL), Just(MAIN), Just(MAIN), Just(DEFAULT)];
        (address, table, 0_u32..3, 1_u32..5, any::<bool>()).prop_map(
            |((address, prefix), table, metric, link, dead)| {
                let mut route = route(table, "0.0.0.0", 0, metric, link);
                route.destination = network(address, prefix);
                route.prefix = prefix;
                route.hops[0].dead = dead;
                route
            },
        )
    }

    /// The same question answered by looking at every route.
    fn naive(routes: &[Route], destination: IpAddr) -> Option<Route> {
        let groups: &[&[u32]] =
            if destination.is_ipv4() { &[&[LOCAL, MAIN], &[DEFAULT]] } else { &[&[LOCAL], &[MAIN]] };
        for tables in groups {
            let mut best: Option<&Route> = None;
            for route in routes {
                let matches = tables.contains(&route.table)
                    && route.destination.is_ipv4() == destination.is_ipv4()
                    && network(destination, route.prefix) == route.destination
                    && route.hops.iter().any(|hop| !hop.dead);
                let rank = |route: &Route| (route.prefix, route.table, Reverse(route.metric));
                if matches && best.is_none_or(|best| rank(route) > rank(best)) {
                    best = Some(route);
                }
            }
            if let Some(best) = best {
                return Some(best.clone());
            }
        }
        None
    }

    proptest! {
        /// Guards the lookup against a model that has no data structure at all.
        #[test]
        fn lookup_equals_the_naive_model(
            told in proptest::collection::vec(any_route(), 0..40),
            probes in proptest::collection::vec((0_u32..16, any::<bool>()), 1..20),
        ) {
            let mut routes = Routes::default();
            let mut model: Vec<Route> = Vec::new();
            for route in told {
                if !model.contains(&route) {
                    model.push(route.clone());
                }
                routes.insert(route);
            }
            prop_assert_eq!(routes.len(), model.len());
            for (bits, v6) in probes {
                let destination = if v6 {
                    IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 124 | 1))
                } else {
                    IpAddr::V4(Ipv4Addr::from_bits(bits << 28 | 1))
                };
                prop_assert_eq!(routes.find(destination).map(|found| found.route.clone()), naive(&model, destination));
            }
        }

        /// Guards the differences: applied to the old state they give the new one.
        #[test]
        fn differences_lead_from_one_state_to_the_other(
            before in proptest::collection::vec(any_route(), 0..20),
            after in proptest::collection::vec(any_route(), 0..20),
        ) {
            let fill = |told: &[Route]| {
                let mut routes = Routes::default();
                told.iter().cloned().for_each(|route| routes.insert(route));
                routes
            };
            let (mut old, new) = (fill(&before), fill(&after));
            let (gone, added) = Routes::difference(&old, &new);
            gone.iter().for_each(|route| old.remove(route));
            added.into_iter().for_each(|route| old.insert(route));
            let sorted = |routes: &Routes| {
                let mut all: Vec<Route> = routes.iter().cloned().collect();
                all.sort();
                all
            };
            prop_assert_eq!(sorted(&old), sorted(&new));
        }
    }
}
