//! Tests of `decode` on bytes: messages written out here, and any bytes at all.

use proptest::prelude::*;

use super::*;

/// An attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message, header included.
fn framed(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((payload.len() as u32 + 16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn decode(kind: u16, payload: &[u8]) -> Message {
    let bytes = framed(kind, 0, payload);
    message(&envelopes(&bytes).next().expect("one message"))
}

fn ifinfo(family: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![family, 0];
    bytes.extend(libc::ARPHRD_ETHER.to_ne_bytes());
    bytes.extend(index.to_ne_bytes());
    bytes.extend((libc::IFF_UP as u32).to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(attributes.concat());
    bytes
}

fn rtmsg(family: libc::c_int, prefix: u8, table: u8, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![family as u8, prefix, 0, 0, table, 4, 0, 1];
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(attributes.concat());
    bytes
}

/// Guards the classic mistake: a bridge reports "port left" as a deleted link of family AF_BRIDGE.
#[test]
fn a_port_that_leaves_a_bridge_is_not_a_deleted_link() {
    assert_eq!(decode(libc::RTM_DELLINK, &ifinfo(libc::AF_BRIDGE as u8, 7, &[])), Message::Ignored);
    assert_eq!(decode(libc::RTM_DELLINK, &ifinfo(0, 7, &[])), Message::LinkGone(7));
}

/// Guards that a parent which lives in another namespace is not taken for the link of the same index here.
#[test]
fn a_parent_in_another_namespace_is_no_parent() {
    let parent = attribute(IFLA_LINK, &3_u32.to_ne_bytes());
    let elsewhere = attribute(IFLA_LINK_NETNSID, &0_u32.to_ne_bytes());
    let link = |attributes: &[Vec<u8>]| match decode(libc::RTM_NEWLINK, &ifinfo(0, 7, attributes)) {
        Message::Link(link) => link,
        other => panic!("a link expected: {other:?}"),
    };
    assert_eq!(link(std::slice::from_ref(&parent)).parent, Some(3));
    assert_eq!(link(&[parent, elsewhere]).parent, None);
}

/// Guards VLAN data: nested attributes with the nested flag set, and a protocol in network byte order.
#[test]
fn a_service_vlan_is_read() {
    let data = [attribute(IFLA_VLAN_ID, &100_u16.to_ne_bytes()), attribute(IFLA_VLAN_PROTOCOL, &[0x88, 0xa8])].concat();
    let info = [attribute(IFLA_INFO_KIND, b"vlan\0"), attribute(IFLA_INFO_DATA | 0x8000, &data)].concat();
    let Message::Link(link) = decode(libc::RTM_NEWLINK, &ifinfo(0, 7, &[attribute(IFLA_LINKINFO | 0x8000, &info)]))
    else {
        panic!("a link expected");
    };
    assert_eq!((link.vlan, link.vlan_protocol, link.kind.as_deref()), (Some(100), 0x88a8, Some("vlan")));
}

/// Guards what is left out of the mirror: other tables (also those with numbers above 255), cached exceptions, other
/// families.
#[test]
fn routes_that_are_not_mirrored_are_ignored() {
    let ours = rtmsg(libc::AF_INET, 0, 254, 0, &[attribute(libc::RTA_OIF, &2_u32.to_ne_bytes())]);
    assert!(matches!(decode(libc::RTM_NEWROUTE, &ours), Message::Route { .. }));
    let vrf = rtmsg(libc::AF_INET, 0, 252, 0, &[attribute(libc::RTA_TABLE, &1000_u32.to_ne_bytes())]);
    assert_eq!(decode(libc::RTM_NEWROUTE, &vrf), Message::Ignored);
    let cached = rtmsg(libc::AF_INET6, 0, 254, RTM_F_CLONED, &[]);
    assert_eq!(decode(libc::RTM_NEWROUTE, &cached), Message::Ignored);
    let mpls = rtmsg(28, 20, 254, 0, &[]);
    assert_eq!(decode(libc::RTM_NEWROUTE, &mpls), Message::Ignored);
}

/// Guards multipath: weights count from 0 on the wire, a gateway may be of the other family, the second hop is dead.
#[test]
fn a_multipath_route_is_read() {
    let via = attribute(RTA_VIA, &[&10_u16.to_ne_bytes()[..], &Ipv6Addr::LOCALHOST.octets()[..]].concat());
    let mut hops = Vec::new();
    hops.extend((8 + via.len() as u16).to_ne_bytes());
    hops.extend([0, 4]);
    hops.extend(2_u32.to_ne_bytes());
    hops.extend(&via);
    hops.extend(8_u16.to_ne_bytes());
    hops.extend([RTNH_F_DEAD, 0]);
    hops.extend(3_u32.to_ne_bytes());
    let payload = rtmsg(
        libc::AF_INET,
        8,
        254,
        0,
        &[attribute(libc::RTA_DST, &[10, 0, 0, 0]), attribute(libc::RTA_MULTIPATH, &hops)],
    );
    let Message::Route { route, replace: false } = decode(libc::RTM_NEWROUTE, &payload) else {
        panic!("a route expected")
    };
    let first = NextHop {
        link: 2,
        gateway: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        weight: 5,
        dead: false,
        encapsulated: false,
    };
    let second = NextHop { link: 3, gateway: None, weight: 1, dead: true, encapsulated: false };
    assert_eq!(route.hops, [first, second]);
}

/// Guards that a failed neighbour has no ethernet address, even if the kernel still sends the old one.
#[test]
fn a_failed_neighbour_has_no_address() {
    let entry = |state: u16| {
        let mut bytes = vec![libc::AF_INET as u8, 0, 0, 0];
        bytes.extend(2_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0, 1]);
        bytes.extend(attribute(libc::NDA_DST, &[10, 0, 0, 1]));
        bytes.extend(attribute(libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 1]));
        decode(libc::RTM_NEWNEIGH, &bytes)
    };
    assert!(matches!(
        entry(0x02),
        Message::Neighbour(Neighbour { mac: Some(_), state: NeighbourState::Reachable, .. })
    ));
    assert!(matches!(entry(0x20), Message::Neighbour(Neighbour { mac: None, state: NeighbourState::Failed, .. })));
}

/// Guards the walk over a datagram of several messages, the last of which is cut short.
#[test]
fn messages_of_a_datagram_are_separated() {
    let mut datagram = framed(libc::RTM_DELLINK, 0, &ifinfo(0, 1, &[attribute(libc::IFLA_IFNAME, b"odd\0")]));
    datagram.extend(framed(3, 0, &[0; 4]));
    let cut = framed(libc::RTM_DELLINK, 0, &ifinfo(0, 2, &[]));
    datagram.extend(&cut[..20]);
    assert_eq!(envelopes(&datagram).map(|envelope| envelope.kind).collect::<Vec<_>>(), [libc::RTM_DELLINK, 3]);
}

proptest! {
    /// Guards the first promise of the file: any bytes, behind any plausible header, give a message and no panic.
    #[test]
    fn any_bytes_are_survived(kind in 16_u16..110, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let framed = framed(kind, 0, &bytes);
        for envelope in envelopes(&framed).chain(envelopes(&bytes)) {
            let _ = message(&envelope);
        }
    }

    /// The same with well-formed attributes, which get deeper.
    #[test]
    fn any_attributes_are_survived(
        kind in 16_u16..32,
        head in proptest::collection::vec(any::<u8>(), 16),
        family in prop_oneof![Just(0_u8), Just(2), Just(10)],
        inner in proptest::collection::vec((0_u16..48, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        skip in 8_usize..=16,
    ) {
        let mut bytes = head[..skip].to_vec();
        bytes[0] = family;
        for (kind, value) in inner {
            bytes.extend(attribute(kind, &value));
        }
        let _ = decode(kind, &bytes);
    }
}
