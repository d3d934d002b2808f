//! One route, as the kernel reports it.
//!
//! Invariant: `destination` has no bits beyond `prefix`. A route has one next hop, several (multipath), or none
//! (blackhole and its kin, or a next-hop object that the kernel did not expand). Not here: how a route is chosen
//! (`table`).

use std::net::IpAddr;

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// Forward it to a next hop.
    Unicast,
    /// It is ours.
    Local,
    /// An address of several machines, us among them (IPv6 subnet router address).
    Anycast,
    /// A broadcast address of a link.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// Drop silently.
    Blackhole,
    /// Drop, "host unreachable".
    Unreachable,
    /// Drop, "administratively prohibited".
    Prohibit,
    /// Stop in this table, continue in the next.
    Throw,
    /// A kind that this program does not know.
    Other(u8),
}

impl RouteKind {
    pub(super) fn from_byte(byte: u8) -> RouteKind {
        match byte {
            1 => RouteKind::Unicast,
            2 => RouteKind::Local,
            3 => RouteKind::Broadcast,
            4 => RouteKind::Anycast,
            5 => RouteKind::Multicast,
            6 => RouteKind::Blackhole,
            7 => RouteKind::Unreachable,
            8 => RouteKind::Prohibit,
            9 => RouteKind::Throw,
            other => RouteKind::Other(other),
        }
    }
}

/// One way out of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// Index of the link.
    pub link: u32,
    /// The router on that link; `None` if the destination itself is on it. May be IPv6 for an IPv4 route.
    pub gateway: Option<IpAddr>,
    /// Share of the traffic among several next hops, at least 1.
    pub weight: u16,
    /// The kernel does not use it at the moment (its link is down).
    pub dead: bool,
    /// Packets get another header on the way out (MPLS, segment routing, ...).
    pub encapsulated: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Table: 255 local, 254 main, 253 default.
    pub table: u32,
    /// Destination network.
    pub destination: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// Type of service that a packet must have; routes other than 0 are kept, but not followed.
    pub tos: u8,
    /// Metric, also called priority: the smaller one wins.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Path MTU set by the administrator.
    pub mtu: Option<u32>,
    /// Who made it: 2 kernel, 3 boot, 4 static, 186 bgp, ...
    pub protocol: u8,
    /// Next hops.
    pub hops: Vec<NextHop>,
    /// The next-hop object that it refers to.
    pub nexthop_object: Option<u32>,
}

impl Route {
    /// The link of the first next hop.
    pub fn output(&self) -> Option<u32> {
        self.hops.first().map(|hop| hop.link)
    }

    /// The gateway of the first next hop.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.hops.first().and_then(|hop| hop.gateway)
    }
}
