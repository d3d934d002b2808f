//! What the kernel said, all of it together, and the questions that the director has: which port, which next hop, is it
//! us?
//!
//! Invariant: a pure value; equal kernels give equal views. An answer names the link that the route names and only if a
//! frame can really be put on it (a port, or VLANs on one); everything else is a reason with a type. What it is not: it
//! does not change by itself (`mirror`), and does not resolve next hops, it only knows what the kernel resolved.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use super::address::Address;
use super::answer::{Answer, NoRoute, Unsupported, Via};
use super::link::{Link, Port};
use super::neighbour::Neighbour;
use super::route::{Route, RouteKind};
use super::table::{Found, Routes};

/// VLANs on VLANs that are followed. The kernel itself stacks no more devices than this.
const STACKED_LINKS_MAX: usize = 8;

/// The kernel's links, addresses, routes and neighbours at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) addresses: BTreeMap<(u32, IpAddr, u8), Address>,
    pub(super) routes: Routes,
    pub(super) neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl View {
    /// A link by its index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// A link by its name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// All links, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// All addresses, by link.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values()
    }

    /// The addresses of one link.
    pub fn addresses_of(&self, link: u32) -> impl Iterator<Item = &Address> {
        // The smallest possible key of the link, as IPv4 sorts before IPv6.
        let first = (link, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        self.addresses.range(first..).map(|(_, address)| address).take_while(move |address| address.link == link)
    }

    /// The routes.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// All neighbours, in no particular order.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// What the kernel knows about a neighbour.
    pub fn neighbour(&self, link: u32, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(link, address))
    }

    /// Whether packets to this address are for this machine.
    ///
    /// An address still counts if its link is down: the kernel answers for it on the other links.
    pub fn is_local(&self, address: IpAddr) -> bool {
        matches!(self.route(address), Answer::Local) || self.addresses().any(|own| own.address == address)
    }

    /// The port and the VLAN tags, outermost first, that a link stands for.
    pub fn port_of(&self, link: u32) -> Result<Port, Unsupported> {
        let mut tags = Vec::new();
        let mut index = link;
        for _ in 0..=STACKED_LINKS_MAX {
            let Some(link) = self.link(index) else {
                return Err(Unsupported::Link { link: index, kind: "missing".to_owned() });
            };
            if link.is_port() {
                // Collected from the innermost tag outwards.
                tags.reverse();
                return Ok(Port { link: index, tags });
            }
            // The parent of a VLAN in another namespace is not ours to send on, and its index would mean another link
            // here.
            let (Some(tag), Some(parent)) = (link.tag(), link.parent) else {
                return Err(Unsupported::Link { link: index, kind: link.kind_name() });
            };
            tags.push(tag);
            index = parent;
        }
        Err(Unsupported::Link { link, kind: "vlan".to_owned() })
    }

    /// How a packet gets to `destination`: the kernel's routing decision, as far as the director can follow it.
    pub fn route(&self, destination: IpAddr) -> Answer {
        // Decided before any table is asked, as in the kernel.
        if destination == IpAddr::V4(Ipv4Addr::BROADCAST) || destination.is_multicast() || destination.is_unspecified()
        {
            return Answer::None(NoRoute::NotUnicast);
        }
        let Some(found) = self.routes.find(destination) else { return Answer::None(NoRoute::Missing) };
        match found.route.kind {
            RouteKind::Local | RouteKind::Anycast => Answer::Local,
            RouteKind::Unicast => self.via(found, destination),
            RouteKind::Broadcast | RouteKind::Multicast => Answer::None(NoRoute::NotUnicast),
            RouteKind::Blackhole => Answer::None(NoRoute::Blackhole),
            RouteKind::Unreachable => Answer::None(NoRoute::Unreachable),
            RouteKind::Prohibit => Answer::None(NoRoute::Prohibited),
            RouteKind::Throw => Answer::None(NoRoute::Missing),
            RouteKind::Other(kind) => Answer::Unsupported(Unsupported::Kind(kind)),
        }
    }

    fn via(&self, found: Found<'_>, destination: IpAddr) -> Answer {
        let Some(hop) = found.hop else {
            let reason = found.route.nexthop_object.map(|id| Unsupported::NexthopObject { id });
            return reason.map_or(Answer::None(NoRoute::Missing), Answer::Unsupported);
        };
        if hop.encapsulated {
            return Answer::Unsupported(Unsupported::Encapsulation { link: hop.link });
        }
        if let Err(reason) = self.port_of(hop.link) {
            return Answer::Unsupported(reason);
        }
        let link_mtu = self.link(hop.link).map_or(0, |link| link.mtu);
        Answer::Via(Via {
            link: hop.link,
            gateway: hop.gateway,
            source: found.route.source.or_else(|| self.source(found.route, hop.link, hop.gateway, destination)),
            mtu: found.route.mtu.map_or(link_mtu, |mtu| mtu.min(link_mtu)),
        })
    }

    /// Whether packets may start from another source when this address comes or goes. A host's, the habit for virtual
    /// addresses, is not chosen where its link has one with a network (see [`View::source`]).
    pub fn may_be_source(&self, address: &Address) -> bool {
        let is_before = |own: &Address| {
            !own.is_host()
                && !own.tentative
                && !own.deprecated
                && own.address.is_ipv4() == address.address.is_ipv4()
                && is_link_local(own.address) == is_link_local(address.address)
        };
        !address.is_host() || !self.addresses_of(address.link).any(is_before)
    }

    /// The source that the kernel would likely choose for a route that prescribes none: an address of the link whose
    /// network has the next hop, else a full member of some network, else any. Link-local only for link-local.
    fn source(&self, route: &Route, link: u32, gateway: Option<IpAddr>, destination: IpAddr) -> Option<IpAddr> {
        let towards = gateway.filter(|gateway| gateway.is_ipv4() == destination.is_ipv4()).unwrap_or(destination);
        let fits = |own: &&Address| {
            own.address.is_ipv4() == route.destination.is_ipv4()
                && !own.tentative
                && is_link_local(own.address) == is_link_local(destination)
        };
        let rank = |own: &&Address| (own.deprecated, !own.contains(towards), own.is_host(), own.secondary);
        self.addresses_of(link).filter(fits).min_by_key(rank).map(|own| own.address)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Tag;
    use crate::kernel::route::NextHop;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ethernet(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), mtu: 1500, up: true, running: true, ethernet: true, ..Link::default() }
    }

    fn vlan(index: u32, parent: Option<u32>, vlan_protocol: u16, id: u16) -> Link {
        let kind = Some("vlan".to_owned());
        Link { kind, vlan: Some(id), vlan_protocol, parent, mtu: 1496, ..ethernet(index, &format!("v{index}")) }
    }

    fn view(links: Vec<Link>) -> View {
        View { links: links.into_iter().map(|link| (link.index, link)).collect(), ..View::default() }
    }

    fn hop(link: u32, gateway: Option<&str>) -> NextHop {
        NextHop { link, gateway: gateway.map(ip), weight: 1, dead: false, encapsulated: false }
    }

    fn unicast(network: &str, prefix: u8, hops: Vec<NextHop>) -> Route {
        Route {
            table: 254,
            destination: ip(network),
            prefix,
            tos: 0,
            metric: 0,
            kind: RouteKind::Unicast,
            source: None,
            mtu: None,
            protocol: 4,
            hops,
            nexthop_object: None,
        }
    }

    fn own(link: u32, address: &str, prefix: u8) -> ((u32, IpAddr, u8), Address) {
        let address = Address {
            link,
            address: ip(address),
            prefix,
            scope: 0,
            secondary: false,
            tentative: false,
            deprecated: false,
        };
        ((link, address.address, prefix), address)
    }

    /// Guards the order of tags: in QinQ the tag of the lower interface is the outer one.
    #[test]
    fn stacked_vlans_lead_to_the_port_with_the_outer_tag_first() {
        let view = view(vec![ethernet(1, "eth0"), vlan(2, Some(1), 0x88a8, 100), vlan(3, Some(2), 0x8100, 7)]);
        let outer = Tag { ethertype: 0x88a8, id: 100 };
        let inner = Tag { ethertype: 0x8100, id: 7 };
        assert_eq!(view.port_of(1), Ok(Port { link: 1, tags: vec![] }));
        assert_eq!(view.port_of(2), Ok(Port { link: 1, tags: vec![outer] }));
        assert_eq!(view.port_of(3), Ok(Port { link: 1, tags: vec![outer, inner] }));
    }

    /// Guards that each unusable link is named with its kind, the one that is really in the way.
    #[test]
    fn links_that_are_no_ports_are_named() {
        let bond = Link { kind: Some("bond".to_owned()), ..ethernet(1, "bond0") };
        let loopback = Link { ethernet: false, loopback: true, ..ethernet(9, "lo") };
        let loops = [vlan(4, Some(5), 0x8100, 1), vlan(5, Some(4), 0x8100, 2)];
        let mut links = vec![bond, vlan(2, Some(1), 0x8100, 5), vlan(3, None, 0x8100, 5), loopback];
        links.extend(loops);
        let view = view(links);
        let reason = |link| match view.port_of(link) {
            Err(Unsupported::Link { link, kind }) => (link, kind),
            other => panic!("no port expected: {other:?}"),
        };
        assert_eq!(reason(2), (1, "bond".to_owned()));
        assert_eq!(reason(3), (3, "vlan".to_owned()), "the parent lives elsewhere");
        assert_eq!(reason(4), (4, "vlan".to_owned()), "a circle ends");
        assert_eq!(reason(9), (9, "loopback".to_owned()));
        assert_eq!(reason(77), (77, "missing".to_owned()));
    }

    /// Guards every kind of answer.
    #[test]
    fn answers_have_the_right_kind() {
        let bridge = Link { kind: Some("bridge".to_owned()), ..ethernet(2, "br0") };
        let mut view = view(vec![ethernet(1, "eth0"), bridge]);
        let mut tell = |route| view.routes.insert(route);
        tell(unicast("10.0.0.0", 24, vec![hop(1, None)]));
        tell(Route { mtu: Some(1400), ..unicast("10.0.1.0", 24, vec![hop(1, Some("10.0.0.9"))]) });
        tell(unicast("10.0.2.0", 24, vec![hop(2, None)]));
        tell(Route { nexthop_object: Some(5), ..unicast("10.0.3.0", 24, vec![]) });
        tell(unicast("10.0.4.0", 24, vec![NextHop { encapsulated: true, ..hop(1, None) }]));
        for (third, kind) in [
            (5, RouteKind::Local),
            (6, RouteKind::Blackhole),
            (7, RouteKind::Unreachable),
            (8, RouteKind::Prohibit),
            (9, RouteKind::Broadcast),
            (10, RouteKind::Other(42)),
        ] {
            tell(Route { kind, ..unicast(&format!("10.0.{third}.0"), 24, vec![]) });
        }
        let via =
            |gateway: Option<&str>, mtu| Answer::Via(Via { link: 1, gateway: gateway.map(ip), source: None, mtu });
        let expected = [
            ("10.0.0.1", via(None, 1500)),
            ("10.0.1.1", via(Some("10.0.0.9"), 1400)),
            ("10.0.2.1", Answer::Unsupported(Unsupported::Link { link: 2, kind: "bridge".to_owned() })),
            ("10.0.3.1", Answer::Unsupported(Unsupported::NexthopObject { id: 5 })),
            ("10.0.4.1", Answer::Unsupported(Unsupported::Encapsulation { link: 1 })),
            ("10.0.5.1", Answer::Local),
            ("10.0.6.1", Answer::None(NoRoute::Blackhole)),
            ("10.0.7.1", Answer::None(NoRoute::Unreachable)),
            ("10.0.8.1", Answer::None(NoRoute::Prohibited)),
            ("10.0.9.1", Answer::None(NoRoute::NotUnicast)),
            ("10.0.10.1", Answer::Unsupported(Unsupported::Kind(42))),
            ("10.0.11.1", Answer::None(NoRoute::Missing)),
            ("255.255.255.255", Answer::None(NoRoute::NotUnicast)),
            ("224.0.0.1", Answer::None(NoRoute::NotUnicast)),
            ("ff02::1", Answer::None(NoRoute::NotUnicast)),
        ];
        for (destination, answer) in expected {
            assert_eq!(view.route(ip(destination)), answer, "{destination}");
        }
    }

    /// Guards the source address: not a virtual address if the machine has a proper one, and of the right scope.
    #[test]
    fn the_source_is_an_address_of_the_next_hops_network() {
        let mut view = view(vec![ethernet(1, "eth0"), ethernet(2, "eth1")]);
        view.addresses.extend([
            own(1, "10.0.0.2", 32),
            own(1, "10.0.0.100", 24),
            own(1, "172.16.0.1", 16),
            own(2, "192.0.2.1", 24),
            own(1, "fe80::1", 64),
            own(1, "2001:db8::1", 64),
        ]);
        view.routes.insert(unicast("0.0.0.0", 0, vec![hop(1, Some("10.0.0.1"))]));
        view.routes.insert(Route { source: Some(ip("10.0.0.2")), ..unicast("9.0.0.0", 8, vec![hop(1, None)]) });
        view.routes.insert(unicast("::", 0, vec![hop(1, Some("fe80::99"))]));
        let source = |view: &View, destination: &str| match view.route(ip(destination)) {
            Answer::Via(via) => via.source,
            other => panic!("a way expected: {other:?}"),
        };
        assert_eq!(source(&view, "8.8.8.8"), Some(ip("10.0.0.100")));
        assert_eq!(source(&view, "9.9.9.9"), Some(ip("10.0.0.2")), "the route's own choice");
        assert_eq!(
            source(&view, "2600::1"),
            Some(ip("2001:db8::1")),
            "global for global, though the router is link-local"
        );
    }

    /// Guards what an address brings into doubt: whenever a source is another one after it came or went, it was said to be
    /// possible; and a virtual address beside a proper one changes nothing.
    #[test]
    fn an_address_that_may_be_a_source_is_known() {
        let addresses =
            ["10.0.0.2/32", "10.0.0.100/24", "172.16.0.1/16", "2001:db8::1/64", "2001:db8::2/128", "fe80::1/64"];
        let addresses = addresses.map(|text| {
            let (address, prefix) = text.split_once('/').expect("both");
            own(1, address, prefix.parse().expect("a length"))
        });
        let destinations = ["8.8.8.8", "10.0.0.9", "172.16.3.4", "2600::1", "fe80::9"].map(ip);
        for present in 0..1u32 << addresses.len() {
            let mut view = view(vec![ethernet(1, "eth0")]);
            view.routes.insert(unicast("0.0.0.0", 0, vec![hop(1, Some("10.0.0.1"))]));
            view.routes.insert(unicast("::", 0, vec![hop(1, Some("fe80::99"))]));
            let chosen = (0..).zip(&addresses).filter(|(at, _)| present & 1 << at != 0);
            view.addresses.extend(chosen.map(|(_, address)| address.clone()));
            let before = destinations.map(|destination| view.route(destination));
            for (key, address) in &addresses {
                let mut other = view.clone();
                if other.addresses.remove(key).is_none() {
                    other.addresses.insert(*key, address.clone());
                }
                if before != destinations.map(|destination| other.route(destination)) {
                    assert!(other.may_be_source(address), "{address:?} beside {:?}", view.addresses);
                }
            }
        }
        let mut view = view(vec![ethernet(1, "eth0")]);
        let vip = own(1, "192.0.2.10", 32).1;
        assert!(view.may_be_source(&vip));
        view.addresses.extend([own(1, "10.0.0.100", 24)]);
        assert!(!view.may_be_source(&vip));
    }

    /// Guards `is_local` for an address whose link is down and which therefore has no local route.
    #[test]
    fn an_address_on_a_link_that_is_down_is_local() {
        let mut view = view(vec![Link { up: false, ..ethernet(1, "eth0") }]);
        view.addresses.extend([own(1, "192.0.2.1", 32)]);
        assert!(view.is_local(ip("192.0.2.1")));
        assert!(!view.is_local(ip("192.0.2.2")));
        assert_eq!(view.addresses_of(1).count(), 1);
        assert_eq!(view.addresses_of(2).count(), 0);
    }
}
