//! The lookup in its corners, and what becomes of routes that are told twice or in part.

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
    (address, table, 0_u32..3, 1_u32..5, any::<bool>()).prop_map(|((address, prefix), table, metric, link, dead)| {
        let mut route = route(table, "0.0.0.0", 0, metric, link);
        route.destination = network(address, prefix);
        route.prefix = prefix;
        route.hops[0].dead = dead;
        route
    })
}

/// The same question answered by looking at every route.
fn naive(routes: &[Route], destination: IpAddr) -> Option<Route> {
    let groups: &[&[u32]] = if destination.is_ipv4() { &[&[LOCAL, MAIN], &[DEFAULT]] } else { &[&[LOCAL], &[MAIN]] };
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
