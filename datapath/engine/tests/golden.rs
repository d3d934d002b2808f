//! Golden packets: a sentence, a packet in, a verdict, a packet out. Both packets are built by etherparse with every
//! checksum computed in full, so a right answer is right to the byte; and each packet out is verified once more.
//!
//! Here: forwarding by NAT and DR, and the corners of checksums, lengths and link headers. Tunnels are in
//! `golden_tunnel.rs`, ICMP is in `golden_icmp.rs`; what connections, counters and next hops do is in `golden_life.rs`.
#![allow(clippy::type_complexity)]

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::hop::Tagging;
use xvs_engine::real::Method;
use xvs_engine::wire::Tags;

/// A case: sentence, packet in, verdict, packet out (none for drops).
type Case = (&'static str, Vec<u8>, Verdict, Option<Vec<u8>>);

const IN: Verdict = Verdict::Transmit(SERVERS);
const OUT: Verdict = Verdict::Transmit(CLIENTS);

fn check(site: &Site, cases: impl IntoIterator<Item = Case>) {
    for (sentence, input, verdict, output) in cases {
        let (got, bytes) = site.forward(&input);
        assert_eq!(got, verdict, "{sentence}");
        if let Some(output) = output {
            assert_eq!(bytes, output, "{sentence}\n got {bytes:02x?}\nwant {output:02x?}");
            verify(&bytes).unwrap_or_else(|wrong| panic!("{sentence}: {wrong}"));
        }
    }
}

fn passes(sentence: &'static str, input: Vec<u8>, output: Vec<u8>) -> Case {
    (sentence, input, IN, Some(output))
}

/// A client's packet and what NAT makes of it for server 1, port 8080, in both directions.
fn nat_pair(sentence: &'static str, to_vip: &Ip, reply: &Ip) -> [Case; 2] {
    let (rip, vip) = if to_vip.dst.is_ipv4() { ("10.0.0.1:8080", VIP4) } else { ("[fd00::1]:8080", VIP6) };
    let inside = Ip { ttl: to_vip.ttl - 1, ..to_vip.clone().to(rip) };
    let client = to_vip.src.to_string();
    let answer = reply.clone().from(rip).to(&client);
    let outside = Ip { ttl: answer.ttl - 1, ..answer.clone().from(vip) };
    [
        passes(sentence, from_client(&to_vip.bytes()), to_server(1, &inside.bytes())),
        (sentence, from_server(1, &answer.bytes()), OUT, Some(to_client(&outside.bytes()))),
    ]
}

/// NAT rewrites destination and port inwards, source and port outwards, and every checksum stays right.
#[test]
fn nat_both_ways() {
    let site = Site::with_service(Method::Nat, 8080);
    let reply4 = tcp("1.1.1.1:1", "1.1.1.1:1", SYN | ACK).payload(b"odd".to_vec());
    let reply6 = tcp("[::2]:1", "[::2]:1", SYN | ACK);
    check(&site, nat_pair("TCP over IPv4", &tcp(CLIENT4, VIP4, SYN), &reply4));
    check(&site, nat_pair("TCP over IPv6", &tcp(CLIENT6, VIP6, SYN).payload(*b"12345"), &reply6));
    let udp4 = |payload: &[u8]| udp(CLIENT4, VIP4, payload);
    check(&site, nat_pair("UDP over IPv4", &udp4(b"query!"), &udp("1.1.1.1:1", "1.1.1.1:1", b"answer")));
    check(&site, nat_pair("UDP, odd payload", &udp4(b"seven b"), &udp("1.1.1.1:1", "1.1.1.1:1", b"x")));
    check(&site, nat_pair("UDP, no payload", &udp4(b""), &udp("1.1.1.1:1", "1.1.1.1:1", b"")));
    check(&site, nat_pair("UDP over IPv6", &udp(CLIENT6, VIP6, b"query"), &udp("[::2]:1", "[::2]:1", b"answers")));
    let options = Ip { options: vec![0x94, 4, 0, 0, 1, 1, 1, 0], ..tcp(CLIENT4, VIP4, ACK) };
    check(&site, nat_pair("IPv4 options stay where they are", &options, &Ip { options: vec![1; 40], ..reply4 }));
    let marked = Ip { class: 0xb9, dont_fragment: false, ..udp4(b"marked") };
    check(&site, nat_pair("the traffic class and DF are the peers' own", &marked, &marked));
}

/// Hop-by-hop and destination options stand between IPv6 header and ports: NAT must find the ports behind them.
#[test]
fn nat_behind_extension_headers() {
    let site = Site::with_service(Method::Nat, 8080);
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination = [6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let packet = Ip {
        options: [&hop_by_hop[..], &destination].concat(),
        first_extension: Some(0),
        ..tcp(CLIENT6, VIP6, SYN).payload(*b"behind")
    };
    let inside = packet.clone().to("[fd00::1]:8080").ttl(63);
    check(&site, [passes("two extension headers", from_client(&packet.bytes()), to_server(1, &inside.bytes()))]);

    // RFC 6946: a fragment header that fragments nothing.
    let atomic = Ip { options: vec![6, 0, 0, 0, 1, 2, 3, 4], first_extension: Some(44), ..packet.clone() };
    let inside = atomic.clone().to("[fd00::1]:8080").ttl(63);
    check(&site, [passes("an atomic fragment", from_client(&atomic.bytes()), to_server(1, &inside.bytes()))]);

    let padding = [0, 0, 1, 4, 0, 0, 0, 0].repeat(6);
    let long = Ip { options: [&padding[..], &[6, 0, 1, 4, 0, 0, 0, 0]].concat(), ..packet };
    check(&site, [("too many of them", from_client(&long.bytes()), dropped(DropReason::ExtensionHeaders), None)]);
}

/// UDP's zero rules: 0 in the field means "none" and gets a full checksum, a computed 0 is sent as 0xffff.
#[test]
fn udp_checksum_zero() {
    let site = Site::with_service(Method::Nat, 8080);
    let none = udp(CLIENT4, VIP4, b"nobody summed this").no_checksum();
    let inside = udp(CLIENT4, "10.0.0.1:8080", b"nobody summed this").ttl(63);
    check(
        &site,
        [passes("none comes in, a full one goes on", from_client(&none.bytes()), to_server(1, &inside.bytes()))],
    );
    let answer = udp("10.0.0.1:8080", CLIENT4, b"odd").no_checksum();
    let outside = udp(VIP4, CLIENT4, b"odd").ttl(63);
    let case = ("and so it does outwards", from_server(1, &answer.bytes()), OUT, Some(to_client(&outside.bytes())));
    check(&site, [case]);

    // A payload word chosen so that the checksum towards the server computes to 0.
    let (target, source) = ("10.0.0.1:8080", CLIENT4);
    let word = (0..=u16::MAX)
        .find(|word| {
            let bytes = udp(source, target, &word.to_be_bytes()).bytes();
            bytes[26..28] == [0xff, 0xff]
        })
        .expect("one word in 65,536 makes it 0");
    let inside = udp(source, target, &word.to_be_bytes()).ttl(63);
    for packet in [udp(source, VIP4, &word.to_be_bytes()), udp(source, VIP4, &word.to_be_bytes()).no_checksum()] {
        check(
            &site,
            [passes("a computed 0 is sent as 0xffff", from_client(&packet.bytes()), to_server(1, &inside.bytes()))],
        );
    }
}

/// A virtual sender's half sum is completed, whatever the method; a valid checksum that equals it stays.
#[test]
fn partial_checksums_are_completed() {
    for method in [Method::Nat, Method::Dr] {
        let site = Site::with_service(method, 8080);
        let packets = [
            tcp(CLIENT4, VIP4, SYN).payload(*b"odd"),
            tcp(CLIENT6, VIP6, SYN),
            udp(CLIENT4, VIP4, b"four"),
            udp(CLIENT6, VIP6, b"seven b"),
        ];
        for packet in packets {
            let rip = match (method, packet.src.is_ipv4()) {
                (Method::Nat, true) => "10.0.0.1:8080".into(),
                (Method::Nat, false) => "[fd00::1]:8080".into(),
                _ => packet.dst.to_string(),
            };
            let mut partial = packet.bytes();
            make_partial(&mut partial);
            assert!(verify_ip(&partial).is_err());
            let whole = packet.ttl(63).to(&rip);
            check(&site, [passes("completed", from_client(&partial), to_server(1, &whole.bytes()))]);
        }
        assert_eq!(site.engine.counters().checksums_completed.get(), 4);
        let word = (0..=u16::MAX)
            .find(|word| {
                let whole = udp(CLIENT4, VIP4, &word.to_be_bytes()).bytes();
                let mut partial = whole.clone();
                make_partial(&mut partial);
                whole == partial
            })
            .expect("one word in 65,536 makes them equal");
        let packet = udp(CLIENT4, VIP4, &word.to_be_bytes());
        let rip = if method == Method::Nat { "10.0.0.1:8080" } else { VIP4 };
        let inside = packet.clone().to(rip).ttl(63);
        check(&site, [passes("equal by chance", from_client(&packet.bytes()), to_server(1, &inside.bytes()))]);
    }
}

/// A wrong checksum must stay wrong: mending it would hide a damaged packet from the server.
#[test]
fn wrong_checksums_stay_wrong() {
    let site = Site::with_service(Method::Nat, 8080);
    for packet in [tcp(CLIENT4, VIP4, SYN).payload(*b"data"), udp(CLIENT6, VIP6, b"data")] {
        let mut bytes = packet.bytes();
        *bytes.last_mut().unwrap() ^= 0x10;
        let (verdict, out) = site.forward(&from_client(&bytes));
        assert_eq!(verdict, IN);
        assert!(verify(&out).is_err());
    }
}

/// DR changes TTL and MAC addresses, and nothing else.
#[test]
fn direct_routing() {
    let site = Site::with_service(Method::Dr, 80);
    for packet in [
        tcp(CLIENT4, VIP4, SYN).payload(*b"payload"),
        tcp(CLIENT6, VIP6, SYN),
        udp(CLIENT4, VIP4, b"x"),
        udp(CLIENT4, VIP4, b"none stays none").no_checksum(),
        udp(CLIENT6, VIP6, b""),
        Ip { class: 0xff, options: vec![1; 4], ..tcp(CLIENT4, VIP4, ACK) },
    ] {
        let out = packet.clone().ttl(63);
        check(&site, [passes("DR", from_client(&packet.bytes()), to_server(1, &out.bytes()))]);
    }
}

/// A short packet is padded to 60 bytes on the wire: the padding must not travel inside a tunnel, nor be summed.
#[test]
fn link_padding() {
    let packet = udp(CLIENT4, VIP4, b"abc").no_checksum();
    let mut padded = from_client(&packet.bytes());
    padded.resize(60, 0xee);
    let mut site = Site::new(64);
    let service = site.add_service(xvs_engine::flow::Protocol::UDP, VIP4, "rr");
    site.add_real(service, "10.0.0.9:80", Method::Tun);
    let inner = packet.clone().ttl(63);
    let wrapped = to_server(9, &outer(&inner, "10.0.0.254", "10.0.0.9", 0).bytes());
    check(&site, [passes("trimmed in TUN", padded.clone(), wrapped)]);

    let site = Site::with_service(Method::Nat, 8080);
    let mut inside = to_server(1, &udp(CLIENT4, "10.0.0.1:8080", b"abc").ttl(63).bytes());
    inside.resize(60, 0xee);
    check(&site, [passes("not summed in NAT", padded, inside)]);
}

/// VLAN tags are kept, replaced, added or stripped as the interface says; in a tunnel's frames, too.
#[test]
fn vlan_tags() {
    let tag7 = [0x81, 0, 0xa0, 7]; // priority 5, VLAN 7
    let tag9 = [0x81, 0, 0, 9];
    let service9 = [0x88, 0xa8, 0, 2];
    let set = |tags: &[(u16, u16)]| Tagging::Set(Tags::new(tags).unwrap());
    let cases: [(&str, &[[u8; 4]], Tagging, &[[u8; 4]]); 6] = [
        ("kept", &[tag7], Tagging::Keep, &[tag7]),
        ("two kept", &[service9, tag7], Tagging::Keep, &[service9, tag7]),
        ("replaced", &[tag7], set(&[(0x8100, 9)]), &[tag9]),
        ("added", &[], set(&[(0x8100, 9)]), &[tag9]),
        ("two added", &[], set(&[(0x88a8, 2), (0x8100, 9)]), &[service9, tag9]),
        ("stripped", &[service9, tag7], set(&[]), &[]),
    ];
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for (sentence, came_with, tagging, leaves_with) in &cases {
            let mut site = Site::with_service(method, 80);
            site.interfaces[1].tagging = *tagging;
            site.compile();
            let packet = tcp(CLIENT6, VIP6, SYN).payload(*b"tagged");
            let input = frame(FRONT, GATEWAY, came_with, &packet.bytes());
            let inner = packet.ttl(63);
            let output = match method {
                Method::Nat => inner.to("[fd00::1]:80").bytes(),
                Method::Dr | Method::Bypass => inner.bytes(),
                Method::Tun => outer(&inner, "fd00::fe", "fd00::1", 0).bytes(),
            };
            check(&site, [passes(sentence, input, frame(server_mac(1), BACK, leaves_with, &output))]);
        }
    }
    let three = frame(FRONT, GATEWAY, &[service9, tag7, tag9], &tcp(CLIENT4, VIP4, SYN).bytes());
    check(&Site::with_service(Method::Dr, 80), [("three tags", three, dropped(DropReason::NotIp), None)]);
}

/// What is not for the director, or can not be, is dropped by name.
#[test]
fn drops_by_name() {
    let site = Site::with_service(Method::Nat, 8080);
    let ip4 = |packet: Ip| from_client(&packet.bytes());
    let mapped = tcp("[::ffff:198.51.100.7]:4000", VIP6, SYN);
    let mapped_to = tcp(CLIENT6, "[::ffff:192.0.2.1]:80", SYN);
    let mut arp = from_client(&[0; 28]);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut short_header = ip4(tcp(CLIENT4, VIP4, SYN));
    short_header[14] = 0x44;
    let mut long = ip4(tcp(CLIENT4, VIP4, SYN));
    long[17] += 1;
    let mut offset = ip4(tcp(CLIENT4, VIP4, SYN));
    offset[14 + 20 + 12] = 0xf0;
    let cases = [
        ("SYN with RST opens nothing", ip4(tcp(CLIENT4, VIP4, SYN | RST)), DropReason::NoConnectionTcp),
        ("FTP data, TCP", ip4(tcp("198.51.100.7:20", VIP4, SYN)), DropReason::SourcePort20),
        ("FTP data's port, UDP", ip4(udp("198.51.100.7:20", VIP4, b"x")), DropReason::SourcePort20),
        (
            "reply of no connection",
            from_server(1, &tcp("10.0.0.1:8080", CLIENT4, ACK).bytes()),
            DropReason::NoConnectionReply,
        ),
        (
            "reply to a mapped address",
            from_server(1, &udp("[fd00::1]:8080", CLIENT6, b"").bytes()),
            DropReason::NoConnectionReply,
        ),
        ("from a multicast address", ip4(udp("224.0.0.1:5", VIP4, b"x")), DropReason::Martian),
        ("from loopback", ip4(udp("127.0.0.1:5", VIP4, b"x")), DropReason::Martian),
        ("from nobody, IPv6", ip4(udp("[::]:5", VIP6, b"x")), DropReason::Martian),
        ("v4-mapped source on the wire", ip4(mapped), DropReason::Martian),
        ("v4-mapped destination on the wire", ip4(mapped_to), DropReason::Martian),
        ("GRE", ip4(raw("198.51.100.7", "192.0.2.1", 47, vec![0; 20])), DropReason::Protocol),
        ("ARP", arp, DropReason::NotIp),
        ("header length below 20", short_header, DropReason::Malformed),
        ("longer than its frame", long, DropReason::Truncated),
        ("TCP header longer than the packet", offset, DropReason::Malformed),
        ("half a TCP header", from_client(&tcp(CLIENT4, VIP4, SYN).fragments(16)[0]), DropReason::Truncated),
        ("nothing", Vec::new(), DropReason::Truncated),
    ];
    check(&site, cases.map(|(sentence, input, reason)| (sentence, input, dropped(reason), None)));
    assert!(site.shared.table.is_empty(), "none of them may leave an entry");
}

/// A server of the other family can be tunnelled to, but not translated or routed to.
#[test]
fn methods_that_can_not_carry_the_packet() {
    for method in [Method::Nat, Method::Dr] {
        for (vip, server, client) in [(VIP4, "[fd00::1]:80", CLIENT4), (VIP6, "10.0.0.1:80", CLIENT6)] {
            let mut site = Site::new(64);
            let service = site.add_service(xvs_engine::flow::Protocol::TCP, vip, "rr");
            site.add_real(service, server, method);
            let input = from_client(&tcp(client, vip, SYN).bytes());
            check(&site, [("another family", input, dropped(DropReason::Method), None)]);
        }
    }
}
