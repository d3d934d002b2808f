//! Golden packets, part four: ICMP errors about the director's own tunnels, and the path MTU that they tell.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::real::{Method, RealId, Settings};
use xvs_engine::tunnel::{GueChecksum, Tunnel};

const ROUTER: [&str; 2] = ["10.9.9.9", "fd00:9::9"];
const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];
const VIP: &str = "192.0.2.1";
const CLIENT: &str = "198.51.100.7";
const GUE: Tunnel = Tunnel::Gue { port: 6080, checksum: GueChecksum::Full };
const ALL: [Tunnel; 4] = [Tunnel::Ipip, GUE, Tunnel::Gre { checksum: false }, Tunnel::Gre { checksum: true }];

/// A director whose IPv4 service has a server of this family, and whose IPv6 service has it too.
fn site(tunnel: Tunnel, outside: usize) -> Site {
    let mut site = Site::new(64);
    for vip in [VIP4, VIP6] {
        let service = site.add_service(xvs_engine::flow::Protocol::UDP, vip, "rr");
        let server = ["10.0.0.1:80", "[fd00::1]:80"][outside];
        site.add_real_with(service, server, Method::Tun, |settings| settings.tunnel = tunnel);
    }
    site
}

/// Sends a packet, and gives it as a router on the way to the server saw it.
fn sent(site: &Site, packet: &Ip) -> Vec<u8> {
    let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
    assert_eq!(verdict, Verdict::Transmit(SERVERS));
    bytes[14..].to_vec()
}

/// The router's error about what it saw, as it comes in.
fn error(outside: usize, numbers: [u8; 2], rest: u32, seen: &[u8]) -> Vec<u8> {
    from_server(9, &icmp_error(ROUTER[outside], DIP[outside], numbers, rest, seen).bytes())
}

/// The error that the client gets from the VIP.
fn told(numbers: [u8; 2], rest: u32, about: &[u8]) -> Vec<u8> {
    let error = icmp_error(VIP, CLIENT, numbers, rest, &about[..about.len().min(576 - 28)]);
    to_client(&Ip { class: 0xc0, ..error }.bytes())
}

/// The largest packet that passes now, among these.
fn fits(site: &Site, client: &str, vip: &str, sizes: std::ops::Range<usize>) -> usize {
    let header = if client == CLIENT4 { 28 } else { 48 };
    let passes = |size: &usize| {
        let packet = udp(client, vip, &vec![1; size - header]);
        site.forward(&from_client(&packet.bytes())).0 == Verdict::Transmit(SERVERS)
    };
    sizes.rev().find(passes).unwrap()
}

/// A real path MTU discovery through a tunnel: the client is told by the VIP what fits the narrow place, the next packet
/// that is too large is refused by the director itself, and after ten minutes the way is tried again.
#[test]
fn a_narrow_place_behind_the_director() {
    for tunnel in ALL {
        let mut site = site(tunnel, 0);
        let overhead = 20 + tunnel.header();
        let packet = udp(CLIENT4, VIP4, &[7; 1401]);
        let seen = sent(&site, &packet);
        let room = 1400 - overhead;
        // Routers quote anything from the inner header and eight bytes on.
        for quoted in [seen.len(), 548, overhead + 28] {
            let quoted = &seen[..quoted.min(seen.len())];
            let (verdict, bytes) = site.forward(&error(0, TOO_BIG[0], 1400, quoted));
            assert_eq!(verdict, Verdict::Transmit(CLIENTS), "{tunnel:?}");
            let inner = packet.clone().ttl(63).bytes();
            assert_eq!(bytes, told(TOO_BIG[0], room as u32, &inner[..quoted.len() - overhead]), "{tunnel:?}");
            verify(&bytes).unwrap();
        }
        let counters = site.engine.counters();
        assert_eq!((counters.related.get(), counters.icmp_sent.get()), (3, 0));
        let traffic = counters.real(RealId(0));
        assert_eq!(traffic.out_packets, 3, "it counts as a packet to the client");
        let quoted = [seen.len(), 548, overhead + 28].map(|len| (len - overhead) as u64);
        assert_eq!(traffic.out_bytes, quoted.iter().sum::<u64>());

        assert_eq!(fits(&site, CLIENT4, VIP4, room - 3..room + 3), room, "{tunnel:?}");
        let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
        assert_eq!(verdict, Verdict::Reflect);
        assert_eq!(u16::from_be_bytes([bytes[14 + 26], bytes[14 + 27]]), room as u16);
        site.now = site.now.plus_millis(599_000);
        assert_eq!(site.forward(&from_client(&packet.bytes())).0, Verdict::Reflect);
        site.now = site.now.plus_millis(1000);
        assert_eq!(sent(&site, &packet).len(), seen.len());
    }
}

/// A director of one address has its tunnels start from a VIP: errors about them must not be taken for a client's.
#[test]
fn tunnels_may_start_from_a_vip() {
    for tunnel in ALL {
        let mut site = site(tunnel, 0);
        site.add_service(xvs_engine::flow::Protocol::UDP, &format!("{}:40000", DIP[0]), "rr");
        let packet = udp(CLIENT4, VIP4, &[7; 100]);
        let seen = sent(&site, &packet);
        for switch in [0, 1] {
            site.shared.switches.schedule_icmp.set(switch);
            let (verdict, bytes) = site.forward(&error(0, [3, 1], 0, &seen));
            assert_eq!(verdict, Verdict::Transmit(CLIENTS), "{tunnel:?}");
            assert_eq!(bytes, told([3, 1], 0, &packet.clone().ttl(63).bytes()));
        }
    }
}

/// What a router tells is bounded: by the way's own MTU, and by the least that the kernel believes.
#[test]
fn unlikely_sizes_are_not_believed() {
    for (mtu, room) in
        [(0, 552 - 20), (68, 552 - 20), (551, 532), (553, 533), (1500, 1480), (9000, 1480), (65535, 1480)]
    {
        let site = site(Tunnel::Ipip, 0);
        let packet = udp(CLIENT4, VIP4, &[7; 1000]);
        let seen = sent(&site, &packet);
        let (verdict, bytes) = site.forward(&error(0, TOO_BIG[0], mtu, &seen));
        assert_eq!(verdict, Verdict::Transmit(CLIENTS));
        assert_eq!(bytes, told(TOO_BIG[0], room, &packet.ttl(63).bytes()), "{mtu}");
        let room = room as usize;
        assert_eq!(fits(&site, CLIENT4, VIP4, room - 2..room + 3), room, "{mtu}");
    }
}

/// Other errors go to the client as they are, from the VIP, about the packet as it was inside.
#[test]
fn other_errors_are_passed_on() {
    for tunnel in ALL {
        let site = site(tunnel, 0);
        let packet = udp(CLIENT4, VIP4, b"a question");
        let seen = sent(&site, &packet);
        for (numbers, rest) in [([3, 0], 0), ([3, 1], 0), ([3, 13], 7), ([11, 0], 0), ([4, 0], 0)] {
            let (verdict, bytes) = site.forward(&error(0, numbers, rest, &seen));
            assert_eq!(verdict, Verdict::Transmit(CLIENTS), "{tunnel:?} {numbers:?}");
            assert_eq!(bytes, told(numbers, rest, &packet.clone().ttl(63).bytes()), "{tunnel:?} {numbers:?}");
        }
        assert_eq!(fits(&site, CLIENT4, VIP4, 1400..1481), 1480 - tunnel.header(), "nothing was learned");
    }
}

/// IPVS-REFERENCE 4.6 and its trap 19: a router that quotes no more than 28 bytes breaks path MTU discovery through
/// tunnels; at least it is told by name. Nothing is learned of it, as nothing vouches for it.
#[test]
fn short_quotations_are_named() {
    for tunnel in ALL {
        let site = site(tunnel, 0);
        let seen = sent(&site, &udp(CLIENT4, VIP4, &[7; 1000]));
        let overhead = 20 + tunnel.header();
        for length in 28..overhead + 28 {
            let verdict = site.forward(&error(0, TOO_BIG[0], 1400, &seen[..length])).0;
            assert_eq!(verdict, dropped(DropReason::TunnelQuote), "{tunnel:?}, {length} bytes");
        }
        assert_eq!(fits(&site, CLIENT4, VIP4, 1400..1481), 1480 - tunnel.header());
    }
}

/// What has no client to tell is taken in all the same: a packet that may be fragmented; IPv6 inside, whose next packet
/// is refused by the director; and IPv6 outside, as the kernel's own stack does it.
#[test]
fn a_path_mtu_is_learned_without_a_client_to_tell() {
    for tunnel in ALL {
        for (outside, client, vip) in [(0, CLIENT4, VIP4), (0, CLIENT6, VIP6), (1, CLIENT4, VIP4), (1, CLIENT6, VIP6)] {
            let site = site(tunnel, outside);
            let packet = udp(client, vip, &[7; 1000]);
            let packet = if outside == 0 { packet.may_fragment() } else { packet };
            let seen = sent(&site, &packet);
            let verdict = site.forward(&error(outside, TOO_BIG[outside], 1400, &seen)).0;
            assert_eq!(verdict, dropped(DropReason::TunnelError), "{tunnel:?}, outside {outside}");
            let room = 1400 - [20, 40][outside] - tunnel.header();
            assert_eq!(fits(&site, client, vip, room - 3..room + 3), room, "{tunnel:?}, outside {outside}");
        }
    }
    let site = site(Tunnel::Ipip, 1);
    let seen = sent(&site, &udp(CLIENT6, VIP6, b"x"));
    assert_eq!(site.forward(&error(1, [1, 0], 1400, &seen)).0, dropped(DropReason::TunnelError));
    assert_eq!(fits(&site, CLIENT6, VIP6, 1400..1470), 1460, "unreachable is no path MTU");
    let _ = site.forward(&error(1, TOO_BIG[1], 500, &seen));
    let verdict = site.forward(&from_client(&udp(CLIENT6, VIP6, b"x").bytes())).0;
    assert_eq!(verdict, dropped(DropReason::TunnelMtu), "1280 outside leaves less than 1280 inside");
}

/// An error is believed only about what a living connection sends through its server's tunnel of now.
#[test]
fn errors_about_other_tunnels_are_not_believed() {
    for tunnel in ALL {
        let mut site = site(tunnel, 0);
        let packet = udp(CLIENT4, VIP4, &[7; 100]);
        let seen = sent(&site, &packet);
        let at = 20 + tunnel.header();
        let changed = |at: usize, value: u8| {
            let mut seen = seen.clone();
            seen[at] = value;
            seen
        };
        let mut wrong = vec![
            ("another source", changed(15, 77)),
            ("another server", changed(19, 77)),
            ("another client", changed(at + 15, 77)),
            ("another VIP", changed(at + 19, 77)),
            ("a later fragment inside", changed(at + 7, 77)),
            ("another IP version inside", changed(at, 0x65)),
        ];
        match tunnel {
            Tunnel::Ipip => wrong.push(("IPv6 by its number", changed(9, 41))),
            Tunnel::Gue { .. } => wrong.extend([
                ("another port", changed(23, 0)),
                ("a source port that no flow has", changed(20, 0)),
                ("a control message", changed(28, 0x20)),
                ("another version", changed(28, 0x80)),
                ("another protocol", changed(29, 17)),
            ]),
            Tunnel::Gre { .. } => wrong.extend([
                ("a key", changed(20, 0xa0)),
                ("GRE's version", changed(21, 1)),
                ("another EtherType", changed(23, 6)),
            ]),
        }
        for (sentence, seen) in wrong {
            let verdict = site.forward(&error(0, TOO_BIG[0], 1400, &seen)).0;
            assert_eq!(verdict, dropped(DropReason::IcmpUnrelated), "{tunnel:?}: {sentence}");
        }
        let to_another = icmp_error(ROUTER[0], CLIENT, TOO_BIG[0], 1400, &seen);
        assert_eq!(site.forward(&from_server(9, &to_another.bytes())).0, dropped(DropReason::IcmpUnrelated));
        let mut damaged = error(0, TOO_BIG[0], 1400, &seen);
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(site.forward(&damaged).0, dropped(DropReason::IcmpChecksum));

        let real = site.shared.arena.get(RealId(0));
        let other = if tunnel == GUE { Tunnel::Ipip } else { GUE };
        let (endpoint, method) = (real.endpoint(), Method::Tun);
        real.set(&Settings { endpoint, method, tunnel: other, weight: 1, upper: 0, lower: 0 });
        let verdict = site.forward(&error(0, TOO_BIG[0], 1400, &seen)).0;
        assert_eq!(verdict, dropped(DropReason::IcmpUnrelated), "{tunnel:?}: it was edited");
        real.set(&Settings { endpoint, method, tunnel, weight: 1, upper: 0, lower: 0 });
        assert_eq!(fits(&site, CLIENT4, VIP4, 1400..1481), 1480 - tunnel.header(), "nothing was learned");
        site.pass_seconds(400);
        let verdict = site.forward(&error(0, TOO_BIG[0], 1400, &seen)).0;
        assert_eq!(verdict, dropped(DropReason::IcmpUnrelated), "{tunnel:?}: the connection is over");
    }
}

/// Options of GUE are skipped, as many words as its header says.
#[test]
fn gue_options_are_skipped() {
    let site = site(GUE, 0);
    let packet = udp(CLIENT4, VIP4, &[7; 100]);
    let mut seen = sent(&site, &packet);
    seen[28] = 2;
    seen.splice(32..32, [1, 2, 3, 4, 5, 6, 7, 8]);
    let (verdict, bytes) = site.forward(&error(0, [3, 1], 0, &seen));
    assert_eq!(verdict, Verdict::Transmit(CLIENTS));
    assert_eq!(bytes, told([3, 1], 0, &packet.ttl(63).bytes()));
}

/// A flood of a router's errors must not make a flood of the director's.
#[test]
fn passed_on_errors_are_limited() {
    let site = site(Tunnel::Ipip, 0);
    let seen = sent(&site, &udp(CLIENT4, VIP4, &[7; 100]));
    let error = error(0, [3, 1], 0, &seen);
    let sent = (0..500).filter(|_| site.forward(&error).0 == Verdict::Transmit(CLIENTS)).count();
    assert_eq!(sent, 100);
    assert_eq!(site.forward(&error).0, dropped(DropReason::TunnelError));
}
