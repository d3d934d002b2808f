//! From the kernel's view of the network to what the engine needs: interfaces, routes, ways to servers, next hops.
//!
//! Invariant: an interface keeps its [`InterfaceId`] for as long as the director runs, because next hops refer to it.
//! What the kernel says is followed, never changed, except that it is asked to resolve and refresh neighbours.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use xvs_engine::engine::Shared;
use xvs_engine::flow::{Address, Family};
use xvs_engine::hop::{HopId, Interface, InterfaceId, Tagging};
use xvs_engine::real::Path;
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::wire::{Mac, Tags};

use crate::config::settings::Gateway;
use crate::kernel::{Answer, Event, Mirror, NoRoute, RouteKind, Unsupported, View};

use super::devices::Devices;

/// Interfaces that the engine can tell apart.
const INTERFACES_MAX: usize = 255;
/// The kernel's routing tables in the order in which it asks them.
const TABLES: [u32; 3] = [255, 254, 253];

/// The way to an address, and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// For the engine.
    pub path: Path,
    /// Largest IP packet.
    pub mtu: u32,
    /// The director's address that tunnels start from.
    pub source: Option<Address>,
    /// For a person.
    pub text: String,
}

impl Way {
    /// Is it the same for the engine?
    pub fn is_same(&self, other: &Way) -> bool {
        (self.path, self.mtu, self.source) == (other.path, other.mtu, other.source)
    }
}

/// The network around the director.
#[derive(Debug)]
pub struct Network {
    mirror: Mirror,
    shared: Arc<Shared>,
    devices: Devices,
    /// Those whose packets come from a wire, with whole checksums.
    wired: HashSet<u32>,
    /// Static next hops, by the device's index.
    gateways: HashMap<u32, Gateway>,
    /// Link index and name of each interface, by its number.
    links: Vec<(u32, String)>,
    /// Next hops that the kernel was asked about in this second: a flood of packets is no reason to ask again.
    asked: HashSet<HopId>,
    /// It was told in this second that the kernel would not.
    complained: bool,
    /// Next hops that the kernel is to be asked about.
    doubtful: VecDeque<HopId>,
    /// Behind those: what workers want, and what traffic went to.
    has_wanted: bool,
    has_used: bool,
    events: Vec<Event>,
}

/// What changed in the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Interfaces, addresses or routes: the workers need a new snapshot.
    pub topology: bool,
    /// Addresses of the director.
    pub addresses: bool,
    /// The ways to all servers must be found again.
    pub all_ways: bool,
    /// Those to the servers of these prefixes.
    pub prefixes: Vec<(Address, u8)>,
}

impl Network {
    /// Over this mirror; `devices` are the link indices that the workers serve, in the order of their ports, and `wired`
    /// those of them whose packets come from a wire, with whole checksums.
    pub fn new(
        mirror: Mirror,
        shared: Arc<Shared>,
        devices: Vec<u32>,
        wired: HashSet<u32>,
        gateways: HashMap<u32, Gateway>,
    ) -> Self {
        let (links, asked, complained, doubtful, has_wanted, has_used, events) = Default::default();
        let mut network = Network {
            mirror,
            shared,
            devices: Devices::new(devices),
            wired,
            gateways,
            links,
            asked,
            complained,
            doubtful,
            has_wanted,
            has_used,
            events,
        };
        network.number_links();
        network.devices.look(network.mirror.view());
        network
    }

    /// The kernel's view.
    pub fn view(&self) -> &View {
        self.mirror.view()
    }

    /// To ask the kernel for changes (addresses).
    pub fn mirror_mut(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    /// The link indices of the devices that the workers serve, by their port numbers.
    pub fn devices(&self) -> &[u32] {
        self.devices.indices()
    }

    /// Gives every served link a number that has none yet. One that was made anew under its old name (a VLAN) takes
    /// the number over, so that numbers do not run out.
    fn number_links(&mut self) {
        let Network { mirror, devices, links, .. } = self;
        let view = mirror.view();
        let is_served = |link: u32| view.port_of(link).is_ok_and(|port| devices.serve(port.link));
        for link in view.links().filter(|link| is_served(link.index)) {
            if links.iter().any(|(index, _)| *index == link.index) {
                continue;
            }
            let is_gone = |(index, name): &(u32, String)| *name == link.name && view.link(*index).is_none();
            if let Some(at) = links.iter().position(is_gone) {
                links[at].0 = link.index;
            } else if links.len() < INTERFACES_MAX {
                links.push((link.index, link.name.clone()));
            } else {
                tracing::error!(interface = link.name, "too many interfaces; this one is not served");
            }
        }
    }

    fn interface_id(&self, link: u32) -> Option<InterfaceId> {
        self.links.iter().position(|&(other, _)| other == link).map(|at| InterfaceId(at as u8))
    }

    fn gateway(&self, link: u32) -> Option<&Gateway> {
        let port = self.view().port_of(link).ok()?;
        self.gateways.get(&port.link)
    }

    /// The interfaces, by their numbers.
    pub fn interfaces(&self) -> Vec<Interface> {
        self.links.iter().map(|&(link, _)| self.interface(link)).collect()
    }

    fn interface(&self, index: u32) -> Interface {
        let view = self.view();
        let Some(link) = view.link(index) else {
            let name = format!("link {index} (gone)");
            let tagging = Tagging::Keep;
            return Interface { name, port: None, mac: [0; 6], tagging, mtu: 0, partial: true, addresses: Vec::new() };
        };
        let port = view.port_of(index).ok();
        let tagging = match (self.gateway(index), &port) {
            (Some(Gateway { vlan: None, .. }), _) | (_, None) => Some(Tagging::Keep),
            (Some(Gateway { vlan: Some(vlan), .. }), _) => Tags::new(&[(0x8100, *vlan)]).map(Tagging::Set),
            (None, Some(port)) => {
                let tags: Vec<_> = port.tags.iter().map(|tag| (tag.ethertype, tag.id)).collect();
                Tags::new(&tags).map(Tagging::Set)
            }
        };
        let partial = port.as_ref().is_none_or(|port| !self.wired.contains(&port.link));
        let device = port.and_then(|port| self.devices.port_of(port.link));
        Interface {
            name: link.name.clone(),
            // More tags than a frame of ours may have: as good as not served.
            port: device.filter(|_| tagging.is_some()),
            mac: link.mac,
            tagging: tagging.unwrap_or(Tagging::Keep),
            mtu: link.mtu,
            partial,
            addresses: view.addresses_of(index).map(|address| address.address.into()).collect(),
        }
    }

    fn is_served(&self, link: u32) -> bool {
        self.view().port_of(link).is_ok_and(|port| self.devices.serve(port.link))
    }

    /// The MACs that frames for us may have on a device: its own and those of links on it (VLANs, macvlans), each once.
    /// None if the device is gone.
    pub fn macs_of(&self, device: u32) -> Vec<Mac> {
        let view = self.view();
        let on_it = |link: &&crate::kernel::Link| link.index == device || link.parent == Some(device);
        let mut macs: Vec<Mac> = Vec::new();
        for link in view.links().filter(on_it).filter(|link| link.mac != [0; 6]) {
            if !macs.contains(&link.mac) {
                macs.push(link.mac);
            }
        }
        macs
    }

    /// The routing table for the ways of answers to clients.
    pub fn routes(&self) -> Routes {
        let rank = |table: u32| TABLES.iter().position(|&known| known == table);
        let routes = self.view().routes().iter();
        let mut routes: Vec<_> = routes.filter_map(|route| Some((rank(route.table)?, route.metric, route))).collect();
        routes.sort_by_key(|&(rank, metric, _)| (rank, metric));
        Routes::new(routes.into_iter().filter_map(|(_, _, route)| {
            let target = match route.kind {
                RouteKind::Unicast => self.target(route)?,
                RouteKind::Local | RouteKind::Anycast => Target::Local,
                RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => Target::Nowhere,
                RouteKind::Broadcast | RouteKind::Multicast => Target::Nowhere,
                RouteKind::Throw | RouteKind::Other(_) => return None,
            };
            Some(Route { prefix: route.destination.into(), length: route.prefix, target })
        }))
    }

    fn target(&self, route: &crate::kernel::Route) -> Option<Target> {
        let hop = route.hops.iter().find(|hop| !hop.dead)?;
        let link = self.view().link(hop.link)?;
        let interface = self.interface_id(hop.link);
        Some(match interface.filter(|_| self.is_served(hop.link) && !hop.encapsulated) {
            None => Target::NotServed,
            Some(interface) => Target::Via {
                interface,
                gateway: hop.gateway.map(Address::from),
                mtu: route.mtu.unwrap_or(link.mtu),
                source: route.source.map(Address::from),
            },
        })
    }

    /// Finds the way to a server, and asks for its next hop's MAC if that is not known.
    pub fn way_to(&mut self, server: IpAddr) -> Way {
        let nowhere = |path, text: &str| Way { path, mtu: 0, source: None, text: text.to_owned() };
        let via = match self.view().route(server) {
            Answer::Via(via) => via,
            Answer::Local => return nowhere(Path::Local, "is an address of the director itself"),
            Answer::None(why) => {
                let why = match why {
                    NoRoute::Missing => "no route",
                    NoRoute::Blackhole => "blackhole route",
                    NoRoute::Unreachable => "unreachable route",
                    NoRoute::Prohibited => "prohibit route",
                    NoRoute::NotUnicast => "not a unicast address",
                };
                return nowhere(Path::NoRoute, why);
            }
            Answer::Unsupported(why) => return nowhere(Path::NotServed, &unsupported(&why)),
        };
        let name = self.view().link(via.link).map_or_else(|| format!("link {}", via.link), |link| link.name.clone());
        let interface = self.interface_id(via.link).filter(|_| self.is_served(via.link));
        let Some(interface) = interface else {
            return nowhere(Path::NotServed, &format!("by {name}, which the director does not serve"));
        };
        let next = via.next_hop(server);
        let Some(hop) = self.shared.hops.intern(interface, next.into()) else {
            return nowhere(Path::NoRoute, "the table of next hops is full");
        };
        let mac = self.refresh(hop);
        let source = via.source.or_else(|| self.address_on(via.link, server)).map(Address::from);
        let mac =
            mac.map_or_else(|| "MAC not known yet".to_owned(), |mac| crate::config::settings::Mac(mac).to_string());
        let gateway = if via.gateway.is_some() { format!("gateway {next}") } else { "direct".to_owned() };
        Way { path: Path::Hop(hop), mtu: via.mtu, source, text: format!("by {name}, {gateway}, {mac}") }
    }

    fn address_on(&self, link: u32, peer: IpAddr) -> Option<IpAddr> {
        let family = Address::from(peer).family();
        let same = |address: &IpAddr| Address::from(*address).family() == family;
        let usable = |address: &IpAddr| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => family == Family::Inet6 && v6.segments()[0] & 0xffc0 != 0xfe80,
        };
        self.view().addresses_of(link).map(|address| address.address).find(|address| same(address) && usable(address))
    }

    /// Brings a next hop's MAC up to date from the kernel's table, and asks the kernel to resolve or confirm it.
    fn refresh(&mut self, hop: HopId) -> Option<Mac> {
        let (interface, neighbour) = self.shared.hops.key(hop)?;
        let link = self.links.get(usize::from(interface.0))?.0;
        if let Some(gateway) = self.gateway(link) {
            let mac = gateway.mac.0;
            self.shared.hops.resolve(hop, mac);
            return Some(mac);
        }
        let address = IpAddr::from(neighbour);
        let entry = self.view().neighbour(link, address);
        let mac = entry.filter(|entry| entry.state.is_usable()).and_then(|entry| entry.mac);
        // To ask about an entry that was set by hand would make it one of the kernel's own, which is then lost.
        let is_fixed = entry.is_some_and(|entry| entry.state.is_fixed());
        if let Some(mac) = mac {
            self.shared.hops.resolve(hop, mac);
        }
        if !is_fixed
            && self.asked.insert(hop)
            && let Err(error) = self.mirror.ask_neighbour(link, address)
            && !std::mem::replace(&mut self.complained, true)
        {
            // One line a second: a full neighbour table refuses thousands.
            tracing::warn!(%error, %address, "the kernel would not resolve a next hop, and others perhaps");
        }
        mac
    }

    /// The workers wish for MACs: [`go_on_resolving`](Network::go_on_resolving) asks for them.
    pub fn resolve_wanted(&mut self) {
        self.has_wanted = true;
    }

    /// Asks the kernel about so many next hops. True if there is more to do.
    pub fn go_on_resolving(&mut self, hops: usize) -> bool {
        if self.doubtful.is_empty() {
            // What packets wait for comes first.
            if std::mem::take(&mut self.has_wanted) {
                self.doubtful.extend(self.shared.hops.take_wanted());
            } else if std::mem::take(&mut self.has_used) {
                self.doubtful.extend(self.shared.hops.take_used());
            }
        }
        for hop in self.doubtful.drain(..hops.min(self.doubtful.len())).collect::<Vec<_>>() {
            self.refresh(hop);
        }
        !self.doubtful.is_empty() || self.has_wanted || self.has_used
    }

    /// A second has passed: the kernel may be asked again about the same next hops.
    pub fn tick(&mut self) {
        self.asked.clear();
        self.complained = false;
    }

    /// Keeps the next hops fresh that traffic went to since the last call, as above.
    pub fn refresh_used(&mut self) {
        self.has_used = true;
    }

    /// Takes in what the kernel reports, once a second at least. An error is no end: what it changed before is told with
    /// it, and the next call goes on.
    pub fn follow(&mut self) -> (Changes, Result<(), crate::kernel::Error>) {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let outcome = self.mirror.receive(&mut events);
        let mut changes = Changes::default();
        for event in &events {
            match event {
                Event::Neighbour(neighbour) => {
                    let mac = neighbour.mac.filter(|_| neighbour.state.is_usable());
                    let failed = neighbour.state == crate::kernel::NeighbourState::Failed;
                    self.neighbour(neighbour.link, neighbour.address, mac, failed);
                }
                // The kernel forgets what it does not use itself; a MAC that works is kept until another one is told.
                Event::NeighbourGone { .. } | Event::Resynced => {}
                Event::Address(address) | Event::AddressGone(address) => {
                    changes.addresses = true;
                    changes.topology = true;
                    changes.all_ways |= self.view().may_be_source(address);
                }
                Event::Link(_) | Event::LinkGone(_) => {
                    changes.topology = true;
                    changes.all_ways = true;
                }
                Event::Route(route) | Event::RouteGone(route) => {
                    changes.topology = true;
                    changes.prefixes.push((route.destination.into(), route.prefix));
                }
            }
        }
        self.events = events;
        if changes.topology {
            self.number_links();
            self.devices.look(self.mirror.view());
        }
        (changes, outcome)
    }

    fn neighbour(&self, link: u32, address: IpAddr, mac: Option<Mac>, failed: bool) {
        if self.gateway(link).is_some() {
            return;
        }
        let hop = self.interface_id(link).and_then(|interface| self.shared.hops.find(interface, address.into()));
        match (hop, mac) {
            (Some(hop), Some(mac)) => self.shared.hops.resolve(hop, mac),
            (Some(hop), None) if failed => self.shared.hops.fail(hop),
            _ => {}
        }
    }
}

fn unsupported(why: &Unsupported) -> String {
    match why {
        Unsupported::Link { kind, .. } => format!("by a link of kind {kind}, which AF_XDP can not stand in for"),
        Unsupported::NexthopObject { id } => format!("by next-hop object {id}, which the kernel does not expand"),
        Unsupported::Encapsulation { .. } => "by a route that adds another header".to_owned(),
        Unsupported::Kind(kind) => format!("by a route of kind {kind}"),
    }
}
