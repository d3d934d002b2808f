//! Golden packets, part three: tunnels. Each encapsulation in each pair of families, byte by byte; what fits them; and
//! the MSS of SYNs on their way in.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::{Method, Path, RealId, Settings};
use xvs_engine::tunnel::{GueChecksum, Tunnel};

const PORT: u16 = 6080;

const fn gue(checksum: GueChecksum) -> Tunnel {
    Tunnel::Gue { port: PORT, checksum }
}

const ALL: [Tunnel; 6] = [
    Tunnel::Ipip,
    gue(GueChecksum::None),
    gue(GueChecksum::Full),
    gue(GueChecksum::Remote),
    Tunnel::Gre { checksum: false },
    Tunnel::Gre { checksum: true },
];

/// The two ends of the tunnel, by the family outside.
const ENDS: [(&str, &str); 2] = [("10.0.0.254", "10.0.0.9"), ("fd00::fe", "fd00::9")];

/// A director whose services in both families have one server, number 9, of this family.
fn site(tunnel: Tunnel, outside: usize) -> (Site, Vec<RealId>) {
    let mut site = Site::new(64);
    let server = ["10.0.0.9:80", "[fd00::9]:80"][outside];
    let mut reals = Vec::new();
    for vip in [VIP4, VIP6] {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let service = site.add_service(protocol, vip, "wlc");
            reals.push(site.add_real_with(service, server, Method::Tun, |settings| settings.tunnel = tunnel));
        }
    }
    (site, reals)
}

/// The packet in its tunnel, as another hand writes it. `source_port` is that of GUE.
fn wrapped(inner: &Ip, tunnel: Tunnel, outside: usize, id: u16, source_port: u16) -> Vec<u8> {
    let (from, to) = ENDS[outside];
    let plain = outer(inner, from, to, id);
    let v4 = inner.src.is_ipv4();
    match tunnel {
        Tunnel::Ipip => plain.bytes(),
        Tunnel::Gue { checksum, .. } => {
            let payload = [&[0, if v4 { 4 } else { 41 }, 0, 0], &plain.payload[..]].concat();
            let end = |address: &str, port| std::net::SocketAddr::new(address.parse().unwrap(), port);
            let body = Body::Udp { checksum: checksum != GueChecksum::None };
            Ip { body, payload, src: end(from, source_port), dst: end(to, PORT), ..plain }.bytes()
        }
        Tunnel::Gre { checksum } => {
            let ethertype = if v4 { [0x08, 0x00] } else { [0x86, 0xdd] };
            let mut payload = vec![if checksum { 0x80 } else { 0 }, 0, ethertype[0], ethertype[1]];
            payload.extend(vec![0; if checksum { 4 } else { 0 }]);
            payload.extend(&plain.payload);
            if checksum {
                let mut sum: u32 = payload
                    .chunks(2)
                    .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
                    .sum();
                while sum >> 16 != 0 {
                    sum = (sum >> 16) + (sum & 0xffff);
                }
                payload[4..6].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            }
            Ip { body: Body::Raw(47), payload, ..plain }.bytes()
        }
    }
}

/// The outer source port of a frame out of the GUE tunnel; 0 for the others.
fn source_port(frame: &[u8], tunnel: Tunnel, outside: usize) -> u16 {
    let at = 14 + [20, 40][outside];
    if matches!(tunnel, Tunnel::Gue { .. }) { u16::from_be_bytes([frame[at], frame[at + 1]]) } else { 0 }
}

/// TUN wraps either family into either family by each encapsulation; TTL, traffic class and DF come from the packet
/// inside; only what may be fragmented has an identification; odd lengths are summed right.
#[test]
fn tunnels_of_all_kinds() {
    for tunnel in ALL {
        for outside in [0, 1] {
            let (site, _) = site(tunnel, outside);
            let packets = [
                tcp(CLIENT4, VIP4, SYN).payload(*b"odd"),
                tcp(CLIENT4, VIP4, SYN).payload(*b"even"),
                tcp(CLIENT6, VIP6, SYN),
                Ip { class: 0xb8 | 3, ..udp(CLIENT4, VIP4, b"congested").may_fragment().ttl(2) },
                Ip { class: 0xb8 | 3, ..udp(CLIENT6, VIP6, b"congested") },
                Ip { class: 0x29, options: vec![1, 1, 1, 0], ..udp(CLIENT4, VIP4, b"capable") },
            ];
            let mut ident = 0;
            for packet in packets {
                let inner = Ip { ttl: packet.ttl - 1, ..packet.clone() };
                let may_fragment = outside == 0 && (!inner.src.is_ipv4() || !inner.dont_fragment);
                ident += u16::from(may_fragment);
                let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
                assert_eq!(verdict, Verdict::Transmit(SERVERS), "{tunnel:?}");
                let source = source_port(&bytes, tunnel, outside);
                let id = if may_fragment { ident } else { 0 };
                let wanted = to_server(9, &wrapped(&inner, tunnel, outside, id, source));
                assert_eq!(bytes, wanted, "{tunnel:?}, outside {outside}: {inner:?}");
                // etherparse is right to miss the checksum of UDP over IPv6; a tunnel may leave it out all the same.
                if (outside, tunnel) != (1, gue(GueChecksum::None)) {
                    verify(&bytes).unwrap_or_else(|wrong| panic!("{tunnel:?}: {wrong}"));
                }
                verify_ip(&bytes[14 + [20, 40][outside] + tunnel.header()..]).unwrap();
                let again = site.forward(&from_client(&packet.bytes())).1;
                ident += u16::from(may_fragment);
                assert_eq!(source_port(&again, tunnel, outside), source, "constant within a flow");
                assert!(source == 0 || (32768..60999).contains(&source), "{source}");
            }
        }
    }
}

/// Routers spread flows by GUE's source port: flows must differ in it, and a packet's content must not.
#[test]
fn flows_differ_by_their_source_port() {
    let (site, _) = site(gue(GueChecksum::None), 0);
    let port = |client: u16, payload: &[u8]| {
        let packet = udp(&format!("198.51.100.7:{client}"), VIP4, payload);
        source_port(&site.forward(&from_client(&packet.bytes())).1, gue(GueChecksum::None), 0)
    };
    let mut ports: Vec<u16> = (5000..5032).map(|client| port(client, b"x")).collect();
    assert_eq!(ports, (5000..5032).map(|client| port(client, b"another")).collect::<Vec<_>>());
    // Of 32 flows on 28,231 ports two may meet by chance, many may not.
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 28, "{ports:?}");

    let whole = udp(CLIENT4, VIP4, &[7; 64]).may_fragment();
    let ports = whole.fragments(32).map(|fragment| {
        let (verdict, bytes) = site.forward(&from_client(&fragment));
        assert_eq!(verdict, Verdict::Transmit(SERVERS));
        source_port(&bytes, gue(GueChecksum::None), 0)
    });
    assert_eq!(ports[0], ports[1], "the fragments of a packet stay together");
}

/// RFC 3168's full-functionality rule for the mark on the outside, in all four family pairs: only "congestion
/// experienced" is not copied.
#[test]
fn congestion_marks() {
    for outside in [0, 1] {
        let (site, _) = site(Tunnel::Ipip, outside);
        for (packet, name) in [(udp(CLIENT4, VIP4, b"q"), "v4"), (udp(CLIENT6, VIP6, b"q"), "v6")] {
            for (inner, outer) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
                let packet = Ip { class: 0xa0 | inner, ..packet.clone() };
                let (_, bytes) = site.forward(&from_client(&packet.bytes()));
                let class = |at: usize, v6: bool| match v6 {
                    false => bytes[at + 1],
                    true => bytes[at] << 4 | bytes[at + 1] >> 4,
                };
                let at = 14 + [20, 40][outside];
                assert_eq!(class(14, outside == 1), 0xa0 | outer, "{name}: {inner}");
                assert_eq!(class(at, name == "v6"), 0xa0 | inner, "{name}: the mark inside stays");
            }
        }
    }
}

/// With `pmtu_disc` 0 no outer header has "don't fragment", whatever the packet inside has; and it has an
/// identification then.
#[test]
fn dont_fragment_is_copied_if_asked() {
    let (site, _) = site(Tunnel::Ipip, 0);
    let packet = tcp(CLIENT4, VIP4, SYN);
    let header = || site.forward(&from_client(&packet.bytes())).1[14..22].to_vec();
    assert_eq!(header()[4..], [0, 0, 0x40, 0]);
    site.shared.switches.pmtu_disc.set(0);
    assert_eq!(header()[4..], [0, 1, 0, 0]);
    let inside = site.forward(&from_client(&packet.bytes())).1[34..].to_vec();
    assert_eq!(inside, packet.ttl(63).bytes(), "the packet inside keeps its own");
}

/// The room in a tunnel is the way's MTU less the headers that it needs, to the byte.
#[test]
fn what_fits() {
    for tunnel in ALL {
        for outside in [0, 1] {
            let (site, _) = site(tunnel, outside);
            let room = 1500 - [20, 40][outside] - tunnel.header();
            for (client, vip, header) in [(CLIENT4, VIP4, 28), (CLIENT6, VIP6, 48)] {
                let sized = |size: usize| from_client(&udp(client, vip, &vec![7; size - header]).bytes());
                let (verdict, bytes) = site.forward(&sized(room));
                assert_eq!((verdict, bytes.len()), (Verdict::Transmit(SERVERS), 1514), "{tunnel:?}");
                let (verdict, answer) = site.forward(&sized(room + 1));
                assert_eq!(verdict, Verdict::Reflect, "{tunnel:?}");
                let at = 14 + if header == 28 { 20 + 6 } else { 40 + 6 };
                assert_eq!(u16::from_be_bytes([answer[at], answer[at + 1]]), room as u16, "{tunnel:?}");
            }
        }
    }
}

/// IPVS-REFERENCE 4.5.3 and its trap 20: with `pmtu_disc` 0 an IPv4 packet is not refused for its size but cut outside,
/// and an IPv6 one still is refused.
#[test]
fn without_pmtu_disc_only_ipv6_is_refused() {
    let (site, _) = site(Tunnel::Ipip, 0);
    site.shared.switches.pmtu_disc.set(0);
    let big = udp(CLIENT4, VIP4, &[7; 1453]).bytes();
    let (verdict, bytes) = site.forward(&from_client(&big));
    assert_eq!((verdict, bytes.len()), (Verdict::Split { port: SERVERS, mtu: 1500 }, 14 + 1501));
    assert_eq!(bytes[20] & 0x40, 0, "the outer header may be cut");
    let big = udp(CLIENT6, VIP6, &[7; 1433]).bytes();
    assert_eq!(site.forward(&from_client(&big)).0, Verdict::Reflect);
    assert_eq!(site.engine.counters().drops(DropReason::TooBig), 1);
}

/// A way so narrow that the tunnel leaves less than an IP packet must have carries nothing: 68 bytes, or 1280 with IPv6
/// outside, whatever is inside.
#[test]
fn ways_too_narrow_for_a_tunnel() {
    for (outside, least) in [(0, 68), (1, 1280)] {
        for tunnel in [Tunnel::Ipip, gue(GueChecksum::Full)] {
            let (site, reals) = site(tunnel, outside);
            let hop = site.hop(ENDS[outside].1);
            let mtu = least + [20, 40][outside] + tunnel.header() as u32;
            for (mtu, verdict) in [
                (mtu, Verdict::Transmit(SERVERS)),
                (mtu - 1, dropped(DropReason::TunnelMtu)),
                (0, dropped(DropReason::TunnelMtu)),
            ] {
                for &real in &reals {
                    site.shared.arena.get(real).set_path(Path::Hop(hop), mtu, Some(address(ENDS[outside].0)));
                }
                for packet in [udp(CLIENT4, VIP4, b"q"), udp(CLIENT6, VIP6, b"q")] {
                    assert_eq!(site.forward(&from_client(&packet.bytes())).0, verdict, "{tunnel:?}, MTU {mtu}");
                }
            }
        }
    }
}

/// IPVS-REFERENCE 1.2: editing a server's tunnel moves its live connections to it, but a connection keeps its method.
#[test]
fn an_edit_moves_live_connections() {
    let (site, reals) = site(Tunnel::Ipip, 0);
    let packet = tcp(CLIENT4, VIP4, SYN);
    let _ = site.forward(&from_client(&packet.bytes()));
    let real = site.shared.arena.get(reals[0]);
    let edit = |method, tunnel| {
        real.set(&Settings { endpoint: real.endpoint(), method, tunnel, weight: 1, upper: 0, lower: 0 });
        let segment = tcp(CLIENT4, VIP4, ACK);
        let (verdict, bytes) = site.forward(&from_client(&segment.bytes()));
        assert_eq!(verdict, Verdict::Transmit(SERVERS));
        let source = source_port(&bytes, tunnel, 0);
        assert_eq!(bytes, to_server(9, &wrapped(&segment.ttl(63), tunnel, 0, 0, source)));
    };
    edit(Method::Tun, gue(GueChecksum::Full));
    edit(Method::Tun, Tunnel::Gre { checksum: true });
    edit(Method::Dr, Tunnel::Ipip);
}

/// MSS options as they come, the value in them, and what it must become in a tunnel with room for 1460 (IPv6: 1440).
const MSS: [(&str, &[u8], usize, [u16; 2]); 9] = [
    ("larger than fits", &[2, 4, 0x23, 0x28], 2, [1440, 1420]),
    ("behind others", &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 2, 4, 0x05, 0xb4], 14, [1440, 1420]),
    ("at an odd place", &[1, 2, 4, 0x05, 0xb4, 0, 0, 0], 3, [1440, 1420]),
    ("at an odd place, last", &[1, 1, 1, 1, 3, 3, 7, 1, 1, 1, 1, 2, 4, 0x05, 0xb4, 1], 13, [1440, 1420]),
    ("small already", &[2, 4, 0x02, 0x18], 2, [536, 536]),
    ("behind the end", &[0, 2, 4, 0xff, 0xff, 0, 0, 0], 3, [0xffff; 2]),
    ("of a wrong length", &[2, 3, 0xff, 0xff], 2, [0xffff; 2]),
    ("behind an option of length 0", &[8, 0, 2, 4, 0xff, 0xff, 0, 0], 4, [0xffff; 2]),
    ("cut off", &[1, 1, 1, 1, 1, 1, 2, 4], 6, [0x0204; 2]),
];

/// The MSS of a SYN is lowered to what fits, at any place among the options; what is small, absent or makes no sense
/// stays, byte for byte, and the checksum is right.
#[test]
fn mss_is_clamped() {
    let (site, _) = site(Tunnel::Ipip, 0);
    let clamped = || site.engine.counters().mss_clamped.get();
    site.shared.switches.mss_clamp.set(1);
    for (family, (client, vip)) in [(CLIENT4, VIP4), (CLIENT6, VIP6)].into_iter().enumerate() {
        for flags in [SYN, SYN | ACK] {
            for (sentence, options, at, becomes) in MSS {
                let before = clamped();
                let packet = Ip { tcp_options: options.to_vec(), ..tcp(client, vip, flags).payload(*b"odd") };
                let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
                assert_eq!(verdict, Verdict::Transmit(SERVERS), "{sentence}");
                let mut inner = packet.ttl(63);
                inner.tcp_options[at..at + 2].copy_from_slice(&becomes[family].to_be_bytes());
                assert_eq!(bytes[34..], inner.bytes(), "{sentence}");
                verify(&bytes).unwrap_or_else(|wrong| panic!("{sentence}: {wrong}"));
                assert_eq!(clamped() - before, u64::from(inner.tcp_options != options), "{sentence}");
            }
        }
        let before = clamped();
        for packet in [
            tcp(client, vip, SYN),
            Ip { tcp_options: vec![2, 4, 0xff, 0xff], ..tcp(client, vip, ACK) },
            udp(client, vip, &[2; 64]),
        ] {
            let (_, bytes) = site.forward(&from_client(&packet.bytes()));
            assert_eq!(bytes[34..], packet.ttl(63).bytes(), "no SYN with an MSS");
        }
        assert_eq!(clamped(), before);
    }
}

/// The MSS follows the tunnel's own room, is left alone unless it is asked for, and by the other methods always.
#[test]
fn mss_follows_the_tunnel() {
    let asks = |mss: u16| {
        let [high, low] = mss.to_be_bytes();
        from_client(&Ip { tcp_options: vec![2, 4, high, low], ..tcp(CLIENT4, VIP4, SYN) }.bytes())
    };
    for tunnel in ALL {
        for outside in [0, 1] {
            let (site, _) = site(tunnel, outside);
            let overhead = [20, 40][outside] + tunnel.header();
            let mss = |bytes: &[u8]| {
                let at = 14 + overhead + 20 + 20 + 2;
                usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
            };
            assert_eq!(mss(&site.forward(&asks(9000)).1), 9000, "off by default");
            site.shared.switches.mss_clamp.set(1);
            let fits = 1500 - overhead - 40;
            for (asked, becomes) in [(fits - 1, fits - 1), (fits, fits), (fits + 1, fits)] {
                assert_eq!(mss(&site.forward(&asks(asked as u16)).1), becomes, "{tunnel:?}, outside {outside}");
            }
        }
    }
    for method in [Method::Nat, Method::Dr] {
        let site = Site::with_service(method, 80);
        site.shared.switches.mss_clamp.set(1);
        let (_, bytes) = site.forward(&asks(9000));
        assert_eq!(bytes[14 + 40 + 2..14 + 40 + 4], 9000u16.to_be_bytes(), "{method:?}");
    }
}
