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
#[path = "table_tests.rs"]
mod tests;
