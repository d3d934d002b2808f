//! Where an address is reached: the longest matching prefix, as the kernel's main routing table has it.
//!
//! Invariant: immutable once built; a lookup tries each prefix length that occurs, longest first. Policy routing (rules
//! by source, mark or interface) is not here: the director mirrors the main table.

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
    v4: Prefixes,
    v6: Prefixes,
}

/// Prefix length and the routes of that length, longest first.
type Prefixes = Vec<(u8, FxHashMap<Address, Target>)>;

impl Routes {
    /// Builds the table; of two routes for one prefix the first one counts.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut table = Routes::default();
        for route in routes {
            let prefixes = table.family_mut(route.prefix.family());
            let at = match prefixes.binary_search_by(|(length, _)| route.length.cmp(length)) {
                Ok(at) => at,
                Err(at) => {
                    prefixes.insert(at, (route.length, FxHashMap::default()));
                    at
                }
            };
            prefixes[at].1.entry(route.prefix.masked(route.length)).or_insert(route.target);
        }
        table
    }

    fn family_mut(&mut self, family: Family) -> &mut Prefixes {
        if family == Family::Inet { &mut self.v4 } else { &mut self.v6 }
    }

    /// Where an address is reached; `None` without a route.
    pub fn lookup(&self, address: Address) -> Option<Target> {
        let prefixes = if address.family() == Family::Inet { &self.v4 } else { &self.v6 };
        prefixes.iter().find_map(|(length, routes)| routes.get(&address.masked(*length)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
