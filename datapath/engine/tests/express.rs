//! The express lane against the long way: two directors that live through the same, one of which has no express lane.

mod common;

use common::packet::*;
use common::site::*;
use proptest::collection::vec;
use proptest::prelude::*;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::{Family, Flow, Protocol};
use xvs_engine::hop::Tagging;
use xvs_engine::real::{Method, Path};
use xvs_engine::tunnel::Tunnel;
use xvs_engine::wire::{Glance, Glance6, Headers, Tags};

/// Real servers of a site: one a protocol and family.
const REALS: u32 = 4;
const METHODS: [Method; 3] = [Method::Nat, Method::Dr, Method::Tun];

/// Something that happens to both directors.
#[derive(Clone, Debug)]
enum Event {
    /// A packet: family, protocol, from the server, client, flags, TTL, payload, class, what is odd about it.
    Packet { six: bool, udp: bool, answer: bool, client: u8, flags: u8, ttl: u8, payload: u16, class: u8, odd: Odd },
    /// Milliseconds pass.
    Wait(u32),
    /// The server of a protocol: not in its list any more, or again.
    Available(bool),
    /// Its way: which of a few.
    Way(u8),
    /// A router tells of a narrow place on the way of tunnels.
    Narrow(u32),
    /// The MACs of all neighbours: not known, known not to answer, or these.
    Neighbours(u8),
    /// The director's own MACs and the width of its interfaces.
    Interfaces(u8, u32),
    /// Who was in use is asked.
    Used,
    /// "Don't fragment" is copied into tunnels, or not; and MSS are lowered to what fits them, or not.
    Switches(bool, bool),
}

/// What is odd about a packet.
#[derive(Clone, Copy, Debug)]
enum Odd {
    Nothing,
    MayFragment,
    FirstFragment,
    Options,
    Partial,
    NoChecksum,
    WrongChecksum,
    Padded,
    Tagged,
    Cut,
}

fn odds() -> impl Strategy<Value = Odd> {
    let rare = prop_oneof![
        Just(Odd::MayFragment),
        Just(Odd::FirstFragment),
        Just(Odd::Options),
        Just(Odd::Partial),
        Just(Odd::NoChecksum),
        Just(Odd::WrongChecksum),
        Just(Odd::Padded),
        Just(Odd::Tagged),
        Just(Odd::Cut),
    ];
    prop_oneof![6 => Just(Odd::Nothing), 3 => rare]
}

fn events() -> impl Strategy<Value = Event> {
    let flags = prop_oneof![8 => Just(ACK), 3 => Just(SYN), 2 => Just(SYN | ACK), 2 => Just(FIN | ACK), 1 => Just(RST), 1 => any::<u8>()];
    let sizes = prop_oneof![4 => 0u16..40, 1 => 1380u16..1500];
    let ttls = prop_oneof![8 => 2u8..=255, 1 => 0u8..3];
    let kinds = (prop::bool::weighted(0.4), any::<bool>(), any::<bool>());
    let packet = (kinds, 0u8..3, flags, ttls, sizes, any::<u8>(), odds()).prop_map(
        |((six, udp, answer), client, flags, ttl, payload, class, odd)| Event::Packet {
            six,
            udp,
            answer,
            client,
            flags,
            ttl,
            payload,
            class,
            odd,
        },
    );
    prop_oneof![
        30 => packet,
        2 => prop_oneof![0u32..2000, 0u32..1_200_000].prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Available),
        1 => (0u8..6).prop_map(Event::Way),
        1 => (500u32..1600).prop_map(Event::Narrow),
        1 => (0u8..6).prop_map(Event::Neighbours),
        1 => (any::<u8>(), prop_oneof![Just(1500), 60u32..1500]).prop_map(|(mac, mtu)| Event::Interfaces(mac, mtu)),
        1 => Just(Event::Used),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(copy, clamp)| Event::Switches(copy, clamp)),
    ]
}

/// The frame of a packet.
fn frame_of(event: &Event) -> Vec<u8> {
    let &Event::Packet { six, udp: is_udp, answer, client, flags, ttl, payload, class, odd } = event else {
        unreachable!("asked of packets only")
    };
    let (vip, server, client) = match six {
        true => (VIP6, "[fd00::1]:8080", format!("[2001:db8:c::{client}]:4000{client}")),
        false => (VIP4, "10.0.0.1:8080", format!("198.51.100.{client}:4000{client}")),
    };
    let (from, to) = if answer { (server, &*client) } else { (&*client, vip) };
    let payload: Vec<u8> = (0..payload).map(|at| at as u8).collect();
    let mut ip = if is_udp { udp(from, to, &payload) } else { tcp(from, to, flags).payload(payload) };
    (ip.ttl, ip.class) = (ttl, class);
    match odd {
        Odd::MayFragment => ip = ip.may_fragment(),
        Odd::Options if !six => ip.options = vec![1; 4],
        Odd::NoChecksum if is_udp => ip = ip.no_checksum(),
        Odd::Nothing if flags & SYN != 0 && class & 1 != 0 => ip.tcp_options = vec![2, 4, 5, 180],
        _ => {}
    }
    let mut bytes = ip.bytes();
    match odd {
        Odd::Partial => make_partial(&mut bytes),
        Odd::FirstFragment if bytes.len() > 60 => bytes = ip.may_fragment().fragments(16)[0].clone(),
        Odd::WrongChecksum => {
            let header = if six { 40 } else { 20 };
            let at = bytes.len().min(header + if is_udp { 7 } else { 17 });
            bytes[at - 1] ^= 0x55;
        }
        Odd::Padded => bytes.extend([0xee; 9]),
        Odd::Cut => bytes.truncate(bytes.len() - 1),
        _ => {}
    }
    let frame = if answer { from_server(1, &bytes) } else { from_client(&bytes) };
    match odd {
        Odd::Tagged => [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat(),
        _ => frame,
    }
}

/// Everything that a packet may have moved.
fn state(site: &Site) -> impl PartialEq + std::fmt::Debug {
    let mut conns: Vec<String> = (site.shared.table.iter())
        .map(|conn| {
            let seen = (conn.status(), conn.packets(), conn.last_seen(), conn.expires_in(site.now), conn.reply_path());
            format!("{:?} {:?} {seen:?}", conn.flow(), conn.server())
        })
        .collect();
    conns.sort();
    let reals: Vec<_> = (0..REALS).map(xvs_engine::real::RealId).collect();
    let traffic: Vec<_> = reals.iter().map(|&real| (site.engine.counters().real(real), site.counts(real))).collect();
    (conns, traffic, site.engine.counters().named(), site.shared.hops.all().len())
}

fn apply(site: &mut Site, event: &Event, fast: bool) -> Option<(Verdict, Vec<u8>)> {
    let real = |number| xvs_engine::real::RealId(number);
    match *event {
        Event::Packet { .. } if fast => return Some(site.forward(&frame_of(event))),
        Event::Packet { .. } => return Some(site.forward_long(&site.engine, &frame_of(event))),
        Event::Wait(millis) => site.now = site.now.plus_millis(millis.into()),
        Event::Available(is) => (0..REALS).for_each(|number| site.shared.arena.get(real(number)).set_available(is)),
        Event::Way(kind) => {
            for number in 0..REALS {
                let server = site.shared.arena.get(real(number));
                let family = usize::from(server.endpoint().address.family() == Family::Inet6);
                let hop = site.hop(["10.0.0.1", "fd00::1"][family]);
                let (path, mtu) = match kind {
                    0 => (Path::NoRoute, 1500),
                    1 => (Path::Hop(hop), 1400),
                    2 => (Path::Hop(hop), 64),
                    _ => (Path::Hop(hop), 1500),
                };
                let source = Some(address(DIP[family])).filter(|_| kind != 3);
                server.set_path(path, mtu, source);
            }
        }
        Event::Narrow(mtu) => {
            (0..REALS).for_each(|number| site.shared.arena.get(real(number)).learn_mtu(mtu, 552, site.now));
        }
        Event::Neighbours(kind) => {
            for (hop, _, _) in site.shared.hops.all() {
                match kind {
                    0 => site.shared.hops.fail(hop),
                    1 => site.shared.hops.forget(hop),
                    _ => site.shared.hops.resolve(hop, [2, 0, 0, 0, kind, hop.0 as u8]),
                }
            }
        }
        Event::Interfaces(mac, mtu) => {
            site.interfaces.iter_mut().for_each(|interface| (interface.mac[5], interface.mtu) = (mac, mtu));
            site.compile();
        }
        Event::Used => _ = site.shared.hops.take_used(),
        Event::Switches(copy, clamp) => {
            site.shared.switches.pmtu_disc.set(copy.into());
            site.shared.switches.mss_clamp.set(clamp.into());
        }
    }
    None
}

fn site(method: Method, tagging: Tagging, tunnel: Tunnel, partial: bool) -> Site {
    let mut site = Site::new(64);
    for protocol in [Protocol::TCP, Protocol::UDP] {
        for (vip, server) in [(VIP4, "10.0.0.1:8080"), (VIP6, "[fd00::1]:8080")] {
            let service = site.add_service(protocol, vip, "rr");
            site.add_real_with(service, server, method, |settings| settings.tunnel = tunnel);
        }
    }
    site.interfaces.iter_mut().for_each(|interface| (interface.tagging, interface.partial) = (tagging, partial));
    site.compile();
    site
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The express lane is an optimisation and nothing else: verdicts, bytes, states, timers and counts are those of the
    /// long way, whatever came before.
    #[test]
    fn the_express_lane_does_what_the_long_way_does(
        method in prop::sample::select(METHODS.to_vec()),
        tags in prop_oneof![4 => Just(None), 1 => Just(Some(vec![])), 1 => Just(Some(vec![(0x8100, 5)]))],
        gue in prop::bool::weighted(0.2),
        partial in any::<bool>(),
        events in vec(events(), 1..60),
    ) {
        let tagging = tags.map_or(Tagging::Keep, |tags| Tagging::Set(Tags::new(&tags).unwrap()));
        let tunnel = if gue { Tunnel::Gre { checksum: false } } else { Tunnel::Ipip };
        let [mut fast, mut slow] = [(); 2].map(|()| site(method, tagging, tunnel, partial));
        for event in &events {
            let (by_express, by_the_long_way) = (apply(&mut fast, event, true), apply(&mut slow, event, false));
            prop_assert_eq!(by_express, by_the_long_way, "{:?}", event);
            prop_assert_eq!(state(&fast), state(&slow), "{:?}", event);
        }
    }

    /// What a glance accepts, the parser accepts and reads the same from it, for all bytes.
    #[test]
    fn a_glance_reads_what_the_parser_reads(
        head in prop_oneof![Just([8u8, 0, 0x45]), Just([8, 0, 0x46]), Just([0x86, 0xdd, 0x60])],
        protocol in prop_oneof![Just(6u8), Just(17), Just(132), Just(1)],
        length in 0u16..120,
        fragment in prop_oneof![4 => Just(0u16), 2 => Just(0x4000), 1 => any::<u16>()],
        mut bytes in vec(any::<u8>(), 14..140),
    ) {
        bytes[12..14].copy_from_slice(&head[..2]);
        for (at, value) in [(14, head[2]), (23, protocol), (16, (length >> 8) as u8), (17, length as u8)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(field) = bytes.get_mut(20..22) {
            field.copy_from_slice(&fragment.to_be_bytes());
        }
        let Some(glance) = Glance::of(&bytes) else { return Ok(()) };
        let headers = Headers::parse(&bytes).expect("it was accepted at a glance");
        let Flow { protocol, src, dst } = headers.flow;
        prop_assert_eq!(glance.addresses, u64::from(src.address.low32()) << 32 | u64::from(dst.address.low32()));
        let ports = u64::from(src.port) << 24 | u64::from(dst.port) << 8 | u64::from(protocol.0);
        prop_assert_eq!(glance.ports(), ports);
        prop_assert_eq!((glance.ip_len(), glance.tcp()), (headers.ip_len(), headers.tcp));
        prop_assert!(headers.ttl(&bytes) > 1);
        prop_assert_eq!(Headers::seen(&glance), headers);
    }
}

proptest! {
    /// The same of IPv6.
    #[test]
    fn a_glance_at_ipv6_reads_what_the_parser_reads(
        protocol in prop_oneof![Just(6u8), Just(17), Just(132), Just(58), Just(44), Just(0)],
        length in 0u16..120,
        mapped in prop::bool::weighted(0.1),
        mut bytes in vec(any::<u8>(), 60..160),
    ) {
        bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        bytes[18..21].copy_from_slice(&[(length >> 8) as u8, length as u8, protocol]);
        if mapped {
            bytes[22..34].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        }
        prop_assert!(Glance::of(&bytes).is_none());
        let Some(glance) = Glance6::of_6(&bytes) else { return Ok(()) };
        let headers = Headers::parse(&bytes).expect("it was accepted at a glance");
        let Flow { protocol, src, dst } = headers.flow;
        let words = [src.address.bits(), dst.address.bits()].map(|bits| [(bits >> 64) as u64, bits as u64]);
        prop_assert_eq!(&glance.addresses[..], words.as_flattened());
        prop_assert_eq!(glance.ports(), u64::from(src.port) << 24 | u64::from(dst.port) << 8 | u64::from(protocol.0));
        prop_assert_eq!((glance.ip_len(), glance.tcp()), (headers.ip_len(), headers.tcp));
        prop_assert!(headers.ttl(&bytes) > 1);
    }
}

/// The express lane must be the way of most packets: of established connections by each method, both directions.
#[test]
fn packets_of_known_connections_take_it() {
    for (method, is_v4) in METHODS.into_iter().flat_map(|method| [(method, true), (method, false)]) {
        let (client, vip, server) =
            if is_v4 { (CLIENT4, VIP4, "10.0.0.1:8080") } else { (CLIENT6, VIP6, "[fd00::1]:8080") };
        let site = site(method, Tagging::Keep, Tunnel::Ipip, true);
        let frames = |flags| from_client(&tcp(client, vip, flags).payload([1, 2, 3]).bytes());
        let datagram = from_client(&udp(client, vip, &[7; 18]).bytes());
        for first in [frames(SYN), frames(ACK), datagram.clone()] {
            assert!(site.express_by(&site.engine, &first).is_none(), "{method:?}: a new connection takes the long way");
            assert_eq!(site.forward_long(&site.engine, &first).0, Verdict::Transmit(SERVERS));
        }
        if method == Method::Nat {
            let answer = from_server(1, &tcp(server, client, SYN | ACK).bytes());
            assert_eq!(site.forward(&answer).0, Verdict::Transmit(CLIENTS));
            assert_eq!(site.forward(&frames(ACK)).0, Verdict::Transmit(SERVERS));
        }
        for frame in [frames(ACK), frames(ACK), datagram] {
            let (verdict, bytes) = site.express_by(&site.engine, &frame).expect("the express lane takes it");
            assert_eq!(verdict, Verdict::Transmit(SERVERS));
            verify(&bytes).unwrap();
        }
        if method == Method::Nat {
            for answer in [tcp(server, client, ACK), udp(server, client, &[3; 18])] {
                let (verdict, bytes) =
                    site.express_by(&site.engine, &from_server(1, &answer.bytes())).expect("it takes it");
                assert_eq!(verdict, Verdict::Transmit(CLIENTS));
                verify(&bytes).unwrap();
            }
        }
    }
}
