//! Golden packets, part two: the errors that the director sends, and those that it relays.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::Method;

const VIP: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const CLIENT: [&str; 2] = ["198.51.100.7", "2001:db8:c::7"];
const RIP: [&str; 2] = ["10.0.0.1", "fd00::1"];
const RIP_PORT: [&str; 2] = ["10.0.0.1:8080", "[fd00::1]:8080"];
const VIP_PORT: [&str; 2] = [VIP4, VIP6];
const CLIENT_PORT: [&str; 2] = [CLIENT4, CLIENT6];

/// Type and code by family.
const TIME_EXCEEDED: [[u8; 2]; 2] = [[11, 0], [3, 0]];
const PORT_UNREACHABLE: [[u8; 2]; 2] = [[3, 3], [1, 4]];
const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];

/// The error that the director sends about a packet, with as much of it as fits 576 (IPv6: 1280) bytes.
fn refusal(src: &str, dst: &str, numbers: [u8; 2], rest: u32, about: &[u8]) -> Vec<u8> {
    let v4 = !src.contains(':');
    let quote = about.len().min(if v4 { 576 - 28 } else { 1280 - 48 });
    let error = icmp_error(src, dst, numbers, rest, &about[..quote]);
    Ip { class: if v4 { 0xc0 } else { 0 }, ..error }.bytes()
}

fn refuses(site: &Site, sentence: &str, input: &[u8], reason: DropReason, answer: &[u8]) {
    let dropped_before = site.engine.counters().drops(reason);
    let (verdict, bytes) = site.forward(input);
    assert_eq!(verdict, Verdict::Reflect, "{sentence}");
    assert_eq!(bytes, answer, "{sentence}\n got {bytes:02x?}\nwant {answer:02x?}");
    verify(&bytes).unwrap();
    assert_eq!(site.engine.counters().drops(reason), dropped_before + 1, "{sentence}: the packet counts as dropped");
}

fn passes(site: &Site, sentence: &str, input: &[u8], port: xvs_engine::hop::Port, output: &[u8]) {
    let (verdict, bytes) = site.forward(input);
    assert_eq!(verdict, Verdict::Transmit(port), "{sentence}");
    assert_eq!(bytes, output, "{sentence}\n got {bytes:02x?}\nwant {output:02x?}");
    verify(&bytes).unwrap();
}

/// TTL 1 and 0: time exceeded comes back from the VIP by the MAC and the VLAN that the packet came from, and quotes
/// the packet as it was.
#[test]
fn time_exceeded() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let site = Site::with_service(method, 8080);
        for family in [0, 1] {
            for ttl in [0, 1] {
                let packet = tcp(CLIENT_PORT[family], VIP_PORT[family], SYN).payload(*b"odd").ttl(ttl).bytes();
                let answer = refusal(VIP[family], CLIENT[family], TIME_EXCEEDED[family], 0, &packet);
                let sentence = format!("{method:?} TTL {ttl}");
                refuses(&site, &sentence, &from_client(&packet), DropReason::TtlExceeded, &reflected(&answer));
                let tag = [[0x81, 0, 0, 5]];
                let tagged = frame(FRONT, GATEWAY, &tag, &packet);
                refuses(&site, &sentence, &tagged, DropReason::TtlExceeded, &frame(GATEWAY, FRONT, &tag, &answer));
            }
        }
    }
}

fn reflected(ip: &[u8]) -> Vec<u8> {
    frame(GATEWAY, FRONT, &[], ip)
}

/// A server's answer can run out of TTL as well: the server is told, by the director's own address.
#[test]
fn time_exceeded_outwards() {
    let site = Site::with_service(Method::Nat, 8080);
    let _ = site.forward(&from_client(&tcp(CLIENT4, VIP4, SYN).bytes()));
    let packet = tcp(RIP_PORT[0], CLIENT4, SYN | ACK).ttl(1).bytes();
    let answer = refusal(DIP[0], RIP[0], TIME_EXCEEDED[0], 0, &packet);
    let back = frame(server_mac(1), BACK, &[], &answer);
    refuses(&site, "outwards", &from_server(1, &packet), DropReason::TtlExceeded, &back);
}

/// No usable server: port unreachable, never a RST; for UDP and IPv6 as well.
#[test]
fn no_server() {
    let mut site = Site::new(64);
    for vip in VIP_PORT {
        site.add_service(Protocol::TCP, vip, "wlc");
        let udp = site.add_service(Protocol::UDP, vip, "rr");
        let server = if vip == VIP4 { "10.0.0.1:80" } else { "[fd00::1]:80" };
        site.add_real_with(udp, server, Method::Dr, |settings| settings.weight = 0);
    }
    for family in [0, 1] {
        for packet in
            [tcp(CLIENT_PORT[family], VIP_PORT[family], SYN), udp(CLIENT_PORT[family], VIP_PORT[family], b"hi")]
        {
            let answer = refusal(VIP[family], CLIENT[family], PORT_UNREACHABLE[family], 0, &packet.bytes());
            let answer = reflected(&answer);
            refuses(&site, "no server", &from_client(&packet.bytes()), DropReason::NoServer, &answer);
        }
    }
    assert!(site.shared.table.is_empty());
}

/// A datagram for a service that is gone is answered at once. (A TCP client is sent a reset: `golden_reset.rs`.)
#[test]
fn no_service() {
    let site = Site::with_service(Method::Nat, 8080);
    for (family, vip) in ["192.0.2.1:81", "[2001:db8::1]:81"].into_iter().enumerate() {
        let packet = udp(CLIENT_PORT[family], vip, b"anybody?").bytes();
        let vip = vip.parse::<std::net::SocketAddr>().unwrap().ip().to_string();
        let answer = reflected(&refusal(&vip, CLIENT[family], PORT_UNREACHABLE[family], 0, &packet));
        refuses(&site, "no service", &from_client(&packet), DropReason::NoService, &answer);
    }
}

/// The MTU towards the server less the tunnel's header is what the client is told; without DF the packet is cut.
#[test]
fn too_big_inwards() {
    for (method, sizes) in [(Method::Nat, [1500, 1500]), (Method::Dr, [1500, 1500]), (Method::Tun, [1480, 1460])] {
        let site = Site::with_service(method, 8080);
        for family in [0, 1] {
            let header = [28, 48][family];
            let sized = |size: usize| udp(CLIENT_PORT[family], VIP_PORT[family], &vec![7; size - header]);
            let (verdict, _) = site.forward(&from_client(&sized(sizes[family]).bytes()));
            assert_eq!(verdict, Verdict::Transmit(SERVERS), "{method:?}: exactly the MTU fits");

            let packet = sized(sizes[family] + 1).bytes();
            let answer = refusal(VIP[family], CLIENT[family], TOO_BIG[family], sizes[family] as u32, &packet);
            let sentence = format!("{method:?}, family {family}");
            let answer = reflected(&answer);
            refuses(&site, &sentence, &from_client(&packet), DropReason::TooBig, &answer);
        }
        let may = udp(CLIENT4, VIP4, &vec![7; 1500]).may_fragment();
        let (verdict, _) = site.forward(&from_client(&may.bytes()));
        assert_eq!(verdict, Verdict::Split { port: SERVERS, mtu: 1500 }, "{method:?}");
    }
}

/// Outwards the MTU is that of the interface to the client, and the server is told.
#[test]
fn too_big_outwards() {
    let mut site = Site::with_service(Method::Nat, 8080);
    site.interfaces[0].mtu = 1400;
    site.compile();
    for family in [0, 1] {
        let _ = site.forward(&from_client(&udp(CLIENT_PORT[family], VIP_PORT[family], b"q").bytes()));
        let packet = udp(RIP_PORT[family], CLIENT_PORT[family], &[1; 1380]).bytes();
        let answer = refusal(DIP[family], RIP[family], TOO_BIG[family], 1400, &packet);
        let back = frame(server_mac(1), BACK, &[], &answer);
        refuses(&site, "outwards", &from_server(1, &packet), DropReason::TooBig, &back);
    }
}

/// An error about a server's packet, sent to the VIP by a router near the client: it reaches the server, and quotes
/// the packet as the server sent it.
#[test]
fn related_inbound() {
    const ROUTER: [&str; 2] = ["203.0.113.77", "2001:db8:77::1"];
    for transport in [6, 17] {
        for method in [Method::Nat, Method::Dr, Method::Tun] {
            let site = Site::with_service(method, 8080);
            for family in [0, 1] {
                let (client, vip) = (CLIENT_PORT[family], VIP_PORT[family]);
                let make = |src: &str, dst: &str| match transport {
                    6 => tcp(src, dst, ACK).payload(*b"answer"),
                    _ => udp(src, dst, b"answer"),
                };
                let open = if transport == 6 { tcp(client, vip, SYN) } else { udp(client, vip, b"q") };
                let (verdict, _) = site.forward(&from_client(&open.bytes()));
                assert_eq!(verdict, Verdict::Transmit(SERVERS));

                let seen = make(vip, client).ttl(44).bytes();
                let error = icmp_error(ROUTER[family], VIP[family], TOO_BIG[family], 1280, &seen);
                let inner = error.clone().ttl(63);
                let output = match method {
                    Method::Dr | Method::Bypass => inner.bytes(),
                    Method::Tun => {
                        let from = ["10.0.0.254", "fd00::fe"][family];
                        let number = [4, 41][family];
                        // Only IPv4 has an identification; the packet before could not be fragmented and had none.
                        let id = if family == 0 { 1 } else { 0 };
                        let outer = raw(from, RIP[family], number, inner.bytes());
                        Ip { ttl: 63, id, ..outer.may_fragment() }.bytes()
                    }
                    Method::Nat => {
                        // The quoted transport checksum stays as it was: take it from the packet that was seen.
                        let mut quoted = make(RIP_PORT[family], client).ttl(44).bytes();
                        let l4 = [20, 40][family];
                        let field = l4 + if transport == 6 { 16 } else { 6 };
                        quoted[field..field + 2].copy_from_slice(&seen[field..field + 2]);
                        let error = icmp_error(ROUTER[family], RIP[family], TOO_BIG[family], 1280, &quoted);
                        error.ttl(63).bytes()
                    }
                };
                let sentence = format!("{method:?}, family {family}, protocol {transport}");
                passes(&site, &sentence, &from_client(&error.bytes()), SERVERS, &to_server(1, &output));
            }
            assert_eq!(site.engine.counters().related.get(), 2);
        }
    }
}

/// An error about a client's packet, from a router between director and server or from the server itself: it reaches
/// the client from the VIP, and quotes the packet as the client sent it.
#[test]
fn related_outbound() {
    const ROUTER: [&str; 2] = ["10.0.0.77", "fd00::77"];
    const HOST_UNREACHABLE: [[u8; 2]; 2] = [[3, 1], [1, 3]];
    let site = Site::with_service(Method::Nat, 8080);
    for family in [0, 1] {
        for (from, ttl) in [(ROUTER[family], 60), (RIP[family], 64)] {
            let (client, vip) = (CLIENT_PORT[family], VIP_PORT[family]);
            let sent = udp(client, vip, b"a question of some length").bytes();
            let (verdict, inside) = site.forward(&from_client(&sent));
            assert_eq!(verdict, Verdict::Transmit(SERVERS));
            // Routers may quote no more than eight bytes behind the IP header.
            let seen = &inside[14..14 + [28, 48][family]];
            let error = icmp_error(from, CLIENT[family], HOST_UNREACHABLE[family], 0, seen).ttl(ttl);
            let mut quoted = sent[..seen.len()].to_vec();
            // TTL (and the IPv4 header checksum with it) and UDP checksum are those of the packet that was seen.
            if family == 0 {
                let again = udp(client, vip, b"a question of some length").ttl(63).bytes();
                quoted[..20].copy_from_slice(&again[..20]);
                quoted[26..28].copy_from_slice(&seen[26..28]);
            } else {
                quoted[7] = 63;
                quoted[46..48].copy_from_slice(&seen[46..48]);
            }
            let error_out = icmp_error(VIP[family], CLIENT[family], HOST_UNREACHABLE[family], 0, &quoted);
            let error_out = error_out.ttl(ttl - 1).bytes();
            passes(&site, "outbound", &from_server(1, &error.bytes()), CLIENTS, &to_client(&error_out));
        }
    }
}

/// Errors that are none of ours, damaged, too short, in fragments or about fragments are dropped by name.
#[test]
fn errors_that_are_not_relayed() {
    let site = Site::with_service(Method::Nat, 8080);
    let _ = site.forward(&from_client(&tcp(CLIENT4, VIP4, SYN).bytes()));
    let _ = site.forward(&from_client(&tcp(CLIENT6, VIP6, SYN).bytes()));
    let answer = tcp(VIP4, CLIENT4, ACK).payload(*b"12345678").bytes();
    let error = |numbers, quoted: &[u8]| icmp_error("203.0.113.77", "192.0.2.1", numbers, 0, quoted);
    let mut damaged = error([3, 1], &answer).bytes();
    damaged[30] ^= 1;
    let later = tcp(VIP4, CLIENT4, ACK).payload([0; 64]).fragments(24)[1].clone();
    let whole = error([3, 1], &[&answer[..], &[0; 40]].concat());
    let answer6 = tcp(VIP6, CLIENT6, ACK).bytes();
    let v6 = |numbers, quoted: &[u8]| icmp_error("2001:db8:77::1", "2001:db8::1", numbers, 0, quoted);
    let in_v4 = raw("203.0.113.77", "192.0.2.1", 58, v6([1, 3], &answer6).payload);
    let cases = [
        ("echo request", error([8, 0], &answer).bytes(), DropReason::IcmpNotError),
        ("parameter problem", error([12, 0], &answer).bytes(), DropReason::IcmpNotError),
        ("echo request, v6", v6([128, 0], &answer6).bytes(), DropReason::IcmpNotError),
        ("wrong checksum", damaged, DropReason::IcmpChecksum),
        ("another port", error([3, 1], &tcp("192.0.2.1:81", CLIENT4, ACK).bytes()).bytes(), DropReason::IcmpUnrelated),
        ("about a later fragment", error([3, 1], &later).bytes(), DropReason::IcmpUnrelated),
        ("itself a fragment", whole.fragments(32)[0].clone(), DropReason::IcmpUnrelated),
        ("quotes 27 bytes", error([3, 1], &answer[..23]).bytes(), DropReason::Truncated),
        ("quotes nothing", error([3, 1], &[]).bytes(), DropReason::Truncated),
        ("has no whole header", raw("203.0.113.77", "192.0.2.1", 1, vec![3, 1]).bytes(), DropReason::Truncated),
        ("empty", raw("203.0.113.77", "192.0.2.1", 1, vec![]).bytes(), DropReason::Truncated),
        ("TTL 1", error([3, 1], &answer).ttl(1).bytes(), DropReason::TtlExceeded),
        ("quotes the other family", error([3, 1], &answer6).bytes(), DropReason::IcmpUnrelated),
        ("ICMPv6 over IPv4", in_v4.bytes(), DropReason::Protocol),
        (
            "too long for the way",
            Ip { dont_fragment: true, ..error([3, 1], &[&answer[..], &[0; 1500]].concat()) }.bytes(),
            DropReason::NeedsFragmentation,
        ),
    ];
    for (sentence, ip, reason) in cases {
        assert_eq!(site.forward(&from_client(&ip)).0, dropped(reason), "{sentence}");
    }
}

/// A flood of packets that deserve an error must not make a flood of errors.
#[test]
fn errors_are_limited() {
    let site = Site::with_service(Method::Dr, 80);
    let packet = from_client(&tcp(CLIENT4, VIP4, SYN).ttl(1).bytes());
    let sent = |site: &Site| (0..1000).filter(|_| site.forward(&packet).0 == Verdict::Reflect).count();
    assert_eq!(sent(&site), 100);
    let mut site = site;
    site.now = site.now.plus_millis(10);
    assert_eq!(sent(&site), 10);
    site.now = site.now.plus_millis(60_000);
    assert_eq!(sent(&site), 100);
    assert_eq!(site.engine.counters().icmp_sent.get(), 210);
    assert_eq!(site.engine.counters().dropped.get(), 210, "the rest is counted by the worker");
}

/// An error about a client's packet that a router between director and server sends straight to the client (DR): it
/// passes unchanged, if the connection is known and the error goes to nobody else.
#[test]
fn errors_pass_to_the_client() {
    let site = Site::with_service(Method::Dr, 80);
    let routers = ["10.0.0.77", "fd00::77"];
    for family in [0, 1] {
        let packet = udp(CLIENT_PORT[family], VIP_PORT[family], b"too long for somebody");
        let (verdict, _) = site.forward(&from_client(&packet.bytes()));
        assert_eq!(verdict, Verdict::Transmit(SERVERS));
        let error = |to: &str, about: &Ip| icmp_error(routers[family], to, TOO_BIG[family], 1300, &about.bytes());
        let ours = error(CLIENT[family], &packet);
        passes(&site, "to its client", &from_server(9, &ours.bytes()), CLIENTS, &to_client(&ours.ttl(63).bytes()));
        let other = ["198.51.100.99", "2001:db8:c::99"][family];
        let unknown = packet.clone().from(["198.51.100.7:1", "[2001:db8:c::7]:1"][family]);
        for stray in [error(other, &packet), error(CLIENT[family], &unknown)] {
            assert_eq!(site.forward(&from_server(9, &stray.bytes())).0, dropped(DropReason::IcmpUnrelated));
        }
    }
}
