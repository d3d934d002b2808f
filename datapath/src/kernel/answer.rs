//! The answer to "how does a packet get there?", and every reason why it does not.
//!
//! Invariant: what the director cannot follow has a type, and names what is in the way. Not here: who answers
//! ([`View`](super::View)).

use std::net::IpAddr;

/// A usable way to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Via {
    /// The link named by the route; [`View::port_of`](super::View::port_of) tells port and tags.
    pub link: u32,
    /// The router, if the destination is not on the link itself.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would likely choose.
    pub source: Option<IpAddr>,
    /// Largest packet: the route's MTU, else the link's.
    pub mtu: u32,
}

impl Via {
    /// The address to resolve on the link for a packet to `destination`.
    pub fn next_hop(&self, destination: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(destination)
    }
}

/// Why there is no way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoRoute {
    /// No route matches.
    Missing,
    /// A blackhole route.
    Blackhole,
    /// An unreachable route.
    Unreachable,
    /// A prohibit route.
    Prohibited,
    /// A broadcast or multicast address.
    NotUnicast,
}

/// Why the director cannot go the kernel's way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// The link is no ethernet port and no VLAN on one.
    Link {
        /// The link that is in the way; for a VLAN on a bond, the bond.
        link: u32,
        /// Its kind ("bond", "bridge", "loopback", ...), or "missing".
        kind: String,
    },
    /// The route refers to a next-hop object that the kernel did not expand (`net.ipv4.nexthop_compat_mode` is 0).
    NexthopObject {
        /// Its identifier (`ip nexthop show id ...`).
        id: u32,
    },
    /// The route adds another header (MPLS, segment routing, ...).
    Encapsulation {
        /// The link.
        link: u32,
    },
    /// A route of a kind that this program does not know.
    Kind(u8),
}

/// The answer to "how does a packet get there?".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The address is one of this machine.
    Local,
    /// By this link and next hop.
    Via(Via),
    /// Not at all.
    None(NoRoute),
    /// The kernel knows a way, but the director cannot take it.
    Unsupported(Unsupported),
}
