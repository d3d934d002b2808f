//! Netlink bytes to the nouns of this module.
//!
//! Invariant: total. Any bytes give messages, "ignored" or "malformed", never a panic. Only the attributes that the
//! director uses are looked at, one by one: an attribute that a newer kernel invents or widens cannot hide the link or
//! route that bears it, which is why the whole-message parser of netlink-packet-route is not used here. Formats:
//! rtnetlink(7) and the kernel's `rtnetlink.h`, `if_link.h`, `neighbour.h`, `if_addr.h`. What it is not: it keeps no
//! state and knows no sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_REPLACE, NetlinkBuffer, NlaBuffer, NlasIterator};

use super::address::Address;
use super::link::Link;
use super::neighbour::{Neighbour, NeighbourState};
use super::route::{NextHop, Route, RouteKind};
use super::table;

const HEADER: usize = 16;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

// Attributes and flags that libc does not name.
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFA_FLAGS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTNH_F_DEAD: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const NTF_PROXY: u8 = 1 << 3;
const ETHERTYPE_VLAN: u16 = 0x8100;

/// One netlink message, its header read and its payload not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// What a message says, as far as the director cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Link(Link),
    LinkGone(u32),
    Address(Address),
    AddressGone(Address),
    Route {
        route: Route,
        replace: bool,
    },
    RouteGone(Route),
    Neighbour(Neighbour),
    NeighbourGone {
        link: u32,
        address: IpAddr,
    },
    /// A next-hop object changed; the routes that use it may have changed silently.
    Nexthops,
    /// Well-formed, and not for us.
    Ignored,
    /// Not as the protocol says.
    Malformed,
}

/// The messages of one datagram; stops at the first one that is cut short.
pub(super) fn envelopes(datagram: &[u8]) -> impl Iterator<Item = Envelope<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(rest).ok()?;
        let length = buffer.length() as usize;
        let payload = rest.get(HEADER..length)?;
        let envelope = Envelope {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            payload,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(envelope)
    })
}

/// Reads a message.
pub(super) fn message(envelope: &Envelope<'_>) -> Message {
    let payload = envelope.payload;
    let decoded = match envelope.kind {
        libc::RTM_NEWLINK => link(payload).map(|link| link.map_or(Message::Ignored, Message::Link)),
        libc::RTM_DELLINK => {
            link(payload).map(|link| link.map_or(Message::Ignored, |link| Message::LinkGone(link.index)))
        }
        libc::RTM_NEWADDR => address(payload).map(Message::Address),
        libc::RTM_DELADDR => address(payload).map(Message::AddressGone),
        libc::RTM_NEWROUTE => route(payload).map(|route| match route {
            Some(route) => Message::Route { route, replace: envelope.flags & NLM_F_REPLACE != 0 },
            None => Message::Ignored,
        }),
        libc::RTM_DELROUTE => route(payload).map(|route| route.map_or(Message::Ignored, Message::RouteGone)),
        libc::RTM_NEWNEIGH => neighbour(payload).map(|entry| entry.map_or(Message::Ignored, Message::Neighbour)),
        libc::RTM_DELNEIGH => neighbour(payload).map(|entry| match entry {
            Some(entry) => Message::NeighbourGone { link: entry.link, address: entry.address },
            None => Message::Ignored,
        }),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Message::Nexthops),
        _ => Some(Message::Ignored),
    };
    decoded.unwrap_or(Message::Malformed)
}

/// `struct ifinfomsg`. The inner `None` is another family's view of a link, above all a bridge's: taking its
/// RTM_DELLINK, "left the bridge", at face value would lose a link that is still there.
fn link(payload: &[u8]) -> Option<Option<Link>> {
    let family = *payload.first()?;
    if family != libc::AF_UNSPEC as u8 {
        return Some(None);
    }
    let hardware = u16_at(payload, 2)?;
    let flags = u32_at(payload, 8)?;
    let has = |flag: libc::c_int| flags & flag as u32 != 0;
    let mut link = Link {
        index: u32_at(payload, 4)?,
        up: has(libc::IFF_UP),
        running: has(libc::IFF_UP) && has(libc::IFF_RUNNING),
        loopback: has(libc::IFF_LOOPBACK),
        ethernet: hardware == libc::ARPHRD_ETHER,
        ..Link::default()
    };
    let mut parent_elsewhere = false;
    for attribute in attributes(payload.get(16..)?) {
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = mac(value).unwrap_or_default(),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_LINK => link.parent = Some(u32_at(value, 0)?),
            IFLA_LINK_NETNSID => parent_elsewhere = true,
            IFLA_MASTER => link.master = Some(u32_at(value, 0)?),
            IFLA_NUM_RX_QUEUES => link.receive_queues = u32_at(value, 0)?,
            IFLA_LINKINFO => link_info(value, &mut link),
            _ => {}
        }
    }
    // What a veth names here is its peer, which is not below it (and is not announced when it gets one).
    let peer = matches!(link.kind.as_deref(), Some("veth" | "netkit"));
    if parent_elsewhere || peer || link.parent == Some(0) {
        link.parent = None;
    }
    Some(Some(link))
}

fn link_info(info: &[u8], link: &mut Link) {
    let mut data = Vec::new();
    for attribute in attributes(info) {
        match attribute.kind() {
            IFLA_INFO_KIND => link.kind = Some(text(attribute.value())),
            IFLA_INFO_DATA => data = attribute.value().to_vec(),
            _ => {}
        }
    }
    if link.kind.as_deref() != Some("vlan") {
        return;
    }
    link.vlan_protocol = ETHERTYPE_VLAN;
    for attribute in attributes(&data) {
        match attribute.kind() {
            IFLA_VLAN_ID => link.vlan = u16_at(attribute.value(), 0),
            IFLA_VLAN_PROTOCOL => {
                let bytes = attribute.value().first_chunk::<2>();
                link.vlan_protocol = bytes.map_or(ETHERTYPE_VLAN, |bytes| u16::from_be_bytes(*bytes));
            }
            _ => {}
        }
    }
}

/// `struct ifaddrmsg`.
fn address(payload: &[u8]) -> Option<Address> {
    let [_, prefix, flags, scope] = *payload.first_chunk::<4>()?;
    let link = u32_at(payload, 4)?;
    let mut flags = u32::from(flags);
    let mut local = None;
    let mut peer = None;
    for attribute in attributes(payload.get(8..)?) {
        match attribute.kind() {
            libc::IFA_LOCAL => local = ip(attribute.value()),
            libc::IFA_ADDRESS => peer = ip(attribute.value()),
            // Holds the flags of the header and those for which it has no room.
            IFA_FLAGS => flags = u32_at(attribute.value(), 0)?,
            _ => {}
        }
    }
    let has = |flag: u32| flags & flag != 0;
    Some(Address {
        link,
        // On a point-to-point link IFA_ADDRESS is the other end; without a peer both are the same.
        address: local.or(peer)?,
        prefix,
        scope,
        secondary: has(libc::IFA_F_SECONDARY),
        tentative: has(libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) && !has(libc::IFA_F_OPTIMISTIC),
        deprecated: has(libc::IFA_F_DEPRECATED),
    })
}

/// `struct rtmsg`. The inner `None` is a route that is not mirrored: another family's, another table's, a cached
/// exception, or one that asks for a source network.
fn route(payload: &[u8]) -> Option<Option<Route>> {
    let [family, prefix, source_prefix, tos, table, protocol, _scope, kind] = *payload.first_chunk::<8>()?;
    let flags = u32_at(payload, 8)?;
    let v6 = match i32::from(family) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return Some(None),
    };
    let mut table = u32::from(table);
    let mut destination = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let mut route = Route {
        table,
        destination,
        prefix,
        tos,
        metric: 0,
        kind: RouteKind::from_byte(kind),
        source: None,
        mtu: None,
        protocol,
        hops: Vec::new(),
        nexthop_object: None,
    };
    let mut single =
        NextHop { link: 0, gateway: None, weight: 1, dead: flags as u8 & RTNH_F_DEAD != 0, encapsulated: false };
    let bytes = payload.get(12..)?;
    for attribute in attributes(bytes) {
        let value = attribute.value();
        match attribute.kind() {
            libc::RTA_TABLE => table = u32_at(value, 0)?,
            libc::RTA_DST => destination = ip(value)?,
            libc::RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            libc::RTA_PREFSRC => route.source = ip(value),
            libc::RTA_METRICS => route.mtu = mtu(value),
            libc::RTA_OIF => single.link = u32_at(value, 0)?,
            libc::RTA_MULTIPATH => route.hops = next_hops(value)?,
            RTA_NH_ID => route.nexthop_object = u32_at(value, 0),
            _ => next_hop_attribute(&attribute, &mut single),
        }
    }
    route.table = table;
    route.destination = table::network(destination, prefix);
    if single.link != 0 && route.hops.is_empty() {
        route.hops.push(single);
    }
    let ours = [table::LOCAL, table::MAIN, table::DEFAULT].contains(&table);
    let kept = ours && flags & RTM_F_CLONED == 0 && source_prefix == 0 && prefix <= table::bits(destination);
    Some(kept.then_some(route))
}

/// What a route says of its only next hop, and each of several says of itself.
fn next_hop_attribute(attribute: &NlaBuffer<&[u8]>, hop: &mut NextHop) {
    match attribute.kind() {
        libc::RTA_GATEWAY => hop.gateway = ip(attribute.value()),
        // A gateway of the other family: two bytes of family, then the address.
        RTA_VIA => hop.gateway = attribute.value().get(2..).and_then(ip),
        RTA_ENCAP => hop.encapsulated = true,
        _ => {}
    }
}

/// A sequence of `struct rtnexthop`, each with attributes of its own.
fn next_hops(mut bytes: &[u8]) -> Option<Vec<NextHop>> {
    let mut hops = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let [flags, weight] = *bytes.get(2..)?.first_chunk::<2>()?;
        let mut hop = NextHop {
            link: u32_at(bytes, 4)?,
            gateway: None,
            // The field counts from 0.
            weight: u16::from(weight) + 1,
            dead: flags & RTNH_F_DEAD != 0,
            encapsulated: false,
        };
        for attribute in attributes(bytes.get(8..length)?) {
            next_hop_attribute(&attribute, &mut hop);
        }
        hops.push(hop);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(hops)
}

fn mtu(metrics: &[u8]) -> Option<u32> {
    let found = attributes(metrics).find(|attribute| attribute.kind() == RTAX_MTU)?;
    u32_at(found.value(), 0).filter(|mtu| *mtu != 0)
}

/// `struct ndmsg`. The inner `None` is a bridge's forwarding entry, a proxy entry, or a multicast or broadcast address.
fn neighbour(payload: &[u8]) -> Option<Option<Neighbour>> {
    let family = i32::from(*payload.first()?);
    let link = u32_at(payload, 4)?;
    let state = NeighbourState::from_bits(u16_at(payload, 8)?);
    let flags = *payload.get(10)?;
    if (family != libc::AF_INET && family != libc::AF_INET6) || flags & NTF_PROXY != 0 {
        return Some(None);
    }
    let mut address = None;
    let mut known = None;
    for attribute in attributes(payload.get(12..)?) {
        match attribute.kind() {
            libc::NDA_DST => address = ip(attribute.value()),
            libc::NDA_LLADDR => known = mac(attribute.value()),
            _ => {}
        }
    }
    let address = address?;
    // The kernel makes such entries for groups as it needs them and announces their end only. They are no next hops.
    let group = address.is_multicast() || known.is_some_and(|mac| mac[0] & 1 != 0);
    let entry = Neighbour { link, address, mac: known.filter(|_| state.is_usable()), state };
    Some(Some(entry).filter(|_| !group))
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    // A malformed attribute ends the iteration: nothing after it can be trusted.
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// An error number as netlink carries it: negative, or 0 for success. Also at the end of a dump.
pub(super) fn error_number(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().map(|chunk| i32::from_ne_bytes(*chunk))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    <[u8; 6]>::try_from(bytes).ok()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
