//! Golden packets of SCTP: what NAT, DR and TUN make of them, which of them open a connection, and what their life does
//! to the counts of a real server. Packets and checksums are built by the tests' own, slow arithmetic.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::{Conn, sctp as states, state};
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Cull, Verdict};
use xvs_engine::flow::{Endpoint, Protocol};
use xvs_engine::forward::nat::{self, End};
use xvs_engine::real::{Method, RealId};
use xvs_engine::wire::{Headers, SctpEvent};

const IN: Verdict = Verdict::Transmit(SERVERS);
const OUT: Verdict = Verdict::Transmit(CLIENTS);
/// The real server of the SCTP service over IPv4.
const REAL: RealId = RealId(4);
const RIP4: &str = "10.0.0.1:8080";
const RIP6: &str = "[fd00::1]:8080";

/// A whole INIT chunk: tag, window, streams, first TSN.
const INIT: [u8; 20] = [1, 0, 0, 20, 0xde, 0xad, 0xbe, 0xef, 0, 1, 0, 0, 0, 10, 0xff, 0xff, 0, 0, 0, 7];

/// A chunk of this type and value, padded.
fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend((value.len() as u16 + 4).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn check(site: &Site, what: &str, input: &[u8], verdict: Verdict, output: &[u8]) {
    let (got, bytes) = site.forward(input);
    assert_eq!((got, &bytes[..]), (verdict, output), "{what}");
    verify(&bytes).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
}

/// NAT with another port on the real server: addresses, ports and CRC32c are right in both directions and families, for
/// packets of any length.
#[test]
fn nat_both_ways() {
    let site = Site::with_service(Method::Nat, 8080);
    for (client, vip, rip) in [(CLIENT4, VIP4, RIP4), (CLIENT6, VIP6, RIP6)] {
        let long: Vec<u8> = (0..1200u32).map(|byte| byte as u8).collect();
        for chunks in [INIT.to_vec(), chunk(10, b"cookie"), chunk(0, b"x"), chunk(0, &long)] {
            let packet = sctp(client, vip, &chunks);
            let inside = packet.clone().to(rip).ttl(63);
            check(&site, "in", &from_client(&packet.bytes()), IN, &to_server(1, &inside.bytes()));
            let answer = sctp(rip, client, &chunks[..chunks.len() / 8 * 4]);
            let outside = answer.clone().from(vip).ttl(63);
            check(&site, "out", &from_server(1, &answer.bytes()), OUT, &to_client(&outside.bytes()));
        }
    }
}

/// NAT with the same port leaves the checksum alone, right or wrong: CRC32c does not cover addresses.
#[test]
fn nat_with_the_same_port_leaves_the_checksum_alone() {
    let site = Site::with_service(Method::Nat, 80);
    let packet = sctp(CLIENT4, VIP4, &INIT);
    let inside = packet.clone().to("10.0.0.1:80").ttl(63);
    assert_eq!(packet.bytes()[28..32], inside.bytes()[28..32]);
    check(&site, "same port", &from_client(&packet.bytes()), IN, &to_server(1, &inside.bytes()));
    let (mut damaged, mut expected) = (packet.bytes(), inside.bytes());
    (damaged[28], expected[28]) = (damaged[28] ^ 1, expected[28] ^ 1);
    assert_eq!(site.forward(&from_client(&damaged)), (IN, to_server(1, &expected)));
}

/// A packet that comes damaged leaves damaged, whatever NAT does to its ports: the receiver must throw it away.
#[test]
fn nat_does_not_hide_damage() {
    let site = Site::with_service(Method::Nat, 8080);
    let packet = sctp(CLIENT4, VIP4, &INIT);
    for at in [24, 28, 31, 40, 51] {
        let mut damaged = packet.bytes();
        damaged[at] ^= 0x10;
        let (verdict, out) = site.forward(&from_client(&damaged));
        assert_eq!(verdict, IN);
        assert!(verify(&out).is_err(), "byte {at}");
    }
}

/// NAT and back gives every byte back but two hops of TTL, for the packet that a virtual sender left incomplete as well.
#[test]
fn nat_and_back_restores_every_byte() {
    for (src, vip, rip) in [(CLIENT4, VIP4, RIP4), (CLIENT6, VIP6, RIP6)] {
        for chunks in [vec![], INIT.to_vec(), chunk(0, &[7; 333])] {
            let original = sctp(src, vip, &chunks).bytes();
            let mut frame = from_client(&original);
            for to in [rip, vip] {
                let mut headers = Headers::parse(&frame).unwrap();
                let to: Endpoint = to.parse::<std::net::SocketAddr>().unwrap().into();
                nat::rewrite(&mut frame, &mut headers, End::Destination, to).unwrap();
                verify(&frame).unwrap();
            }
            assert_eq!(frame, from_client(&original));
        }
    }
}

/// A virtual sender leaves the checksum to hardware that never comes: it is computed here, by every method.
#[test]
fn partial_checksums_are_completed() {
    for (method, port) in [(Method::Nat, 8080), (Method::Nat, 80), (Method::Dr, 80)] {
        let site = Site::with_service(method, port);
        for (client, vip, rip) in [(CLIENT4, VIP4, "10.0.0.1"), (CLIENT6, VIP6, "[fd00::1]")] {
            let packet = sctp(client, vip, &INIT);
            let mut partial = packet.bytes();
            make_partial(&mut partial);
            assert!(verify_ip(&partial).is_err());
            let to = if method == Method::Nat { format!("{rip}:{port}") } else { vip.into() };
            let whole = packet.to(&to).ttl(63);
            check(&site, "completed", &from_client(&partial), IN, &to_server(1, &whole.bytes()));
        }
        assert_eq!(site.engine.counters().checksums_completed.get(), 2);
    }
}

/// DR and TUN carry the packet as it is; only TTL (and the outer header) differ.
#[test]
fn dr_and_tun_leave_the_packet_alone() {
    let packet = sctp(CLIENT4, VIP4, &INIT);
    let inside = packet.clone().ttl(63).bytes();
    let dr = Site::with_service(Method::Dr, 80);
    check(&dr, "DR", &from_client(&packet.bytes()), IN, &to_server(1, &inside));
    let tun = Site::with_service(Method::Tun, 80);
    let (verdict, out) = tun.forward(&from_client(&packet.bytes()));
    assert_eq!((verdict, &out[14 + 20..]), (IN, &inside[..]));
    verify(&out).unwrap();
}

/// A first fragment whose port would change is refused by name, because its checksum can not be mended; with the same
/// port, and by DR, fragments pass.
#[test]
fn fragments() {
    let packet = sctp(CLIENT4, VIP4, &[&INIT[..], &[0; 60]].concat()).may_fragment();
    let [first, later] = packet.fragments(40);
    let site = Site::with_service(Method::Nat, 8080);
    assert_eq!(site.forward(&from_client(&first)).0, dropped(DropReason::FragmentSctp));
    for (method, port) in [(Method::Nat, 80), (Method::Dr, 80)] {
        let site = Site::with_service(method, port);
        let rip = if method == Method::Nat { "10.0.0.1:80" } else { VIP4 };
        let [first_inside, later_inside] = packet.clone().to(rip).ttl(63).fragments(40);
        // The ports' neighbour in the fragment is the checksum: it is the whole packet's and must not change.
        assert_eq!(site.forward(&from_client(&first)), (IN, to_server(1, &first_inside)), "{method:?}");
        assert_eq!(site.forward(&from_client(&later)), (IN, to_server(1, &later_inside)), "{method:?}");
    }
}

/// An INIT opens a connection; anything else does not, and says why. With `sloppy_sctp` anything does but an ABORT.
#[test]
fn what_opens() {
    let refused = dropped(DropReason::NoConnectionSctp);
    for kind in 0..=u8::MAX {
        let site = Site::with_service(Method::Nat, 8080);
        let frame = from_client(&sctp(CLIENT4, VIP4, &chunk(kind, &[0; 4])).bytes());
        assert_eq!(site.forward(&frame).0, if kind == 1 { IN } else { refused }, "type {kind}");
        site.shared.switches.sloppy_sctp.set(1);
        assert_eq!(site.forward(&frame).0, if kind == 6 { refused } else { IN }, "type {kind}, sloppy");
        assert_eq!(state::gives_up(&Headers::parse(&frame).unwrap()), kind == 6);
    }
}

/// A packet that ends before its first chunk's header does opens nothing, sloppy or not; one that ends within the common
/// header is not read at all. In a known connection the former passes, and changes nothing but the timer.
#[test]
fn truncated_packets() {
    let site = Site::with_service(Method::Nat, 8080);
    site.shared.switches.sloppy_sctp.set(1);
    for length in 0..16 {
        let mut ip = sctp(CLIENT4, VIP4, &INIT).bytes();
        ip.truncate(20 + length);
        ip[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
        assert_eq!(site.forward(&from_client(&ip)).0, dropped(DropReason::Truncated), "{length} bytes");
    }
    assert_eq!(site.shared.table.len(), 0);
    let _ = site.forward(&from_client(&sctp(CLIENT4, VIP4, &INIT).bytes()));
    let empty = sctp(CLIENT4, VIP4, &[]);
    let inside = empty.clone().to(RIP4).ttl(63);
    check(&site, "no chunk", &from_client(&empty.bytes()), IN, &to_server(1, &inside.bytes()));
    assert_eq!(state_of(&site), states::State::Init1);
}

fn the_connection(site: &Site) -> Conn<'_> {
    let flow = Headers::parse(&from_client(&sctp(CLIENT4, VIP4, &INIT).bytes())).unwrap().flow;
    site.shared.table.lookup(&flow, site.shared.table.hash(&flow)).unwrap().0
}

fn state_of(site: &Site) -> states::State {
    states::State::from_bits(the_connection(site).status().state)
}

/// The life of an association by NAT: states, active and inactive connections, and timers, packet by packet; then the
/// same ports again, which go to a new connection.
#[test]
fn a_life_by_nat() {
    use states::State::*;
    let mut site = Site::with_service(Method::Nat, 8080);
    let client = |kind: u8| (from_client(&sctp(CLIENT4, VIP4, &chunk(kind, &[0; 16])).bytes()), IN);
    let server = |kind: u8| (from_server(1, &sctp(RIP4, CLIENT4, &chunk(kind, &[0; 16])).bytes()), OUT);
    for ((frame, verdict), state, counts, seconds) in [
        (client(1), Init1, (0, 1), 4),
        (client(1), Init, (0, 1), 61),
        (server(2), CookieSent, (0, 1), 61),
        (client(10), CookieReplied, (0, 1), 61),
        (server(11), Established, (1, 0), 900),
        (client(0), Established, (1, 0), 900),
        (server(3), Established, (1, 0), 900),
        (server(7), ShutdownSent, (0, 1), 61),
        (client(8), Closed, (0, 1), 61),
        (server(14), Closed, (0, 1), 61),
    ] {
        assert_eq!(site.forward(&frame).0, verdict, "{state:?}");
        assert_eq!((state_of(&site), site.counts(REAL)), (state, counts));
        assert_eq!(the_connection(&site).expires_in(site.now), seconds * 1000, "{state:?}");
        site.now = site.now.plus_millis(1000);
    }
    let opened = site.engine.counters().opened.get();
    assert_eq!(site.forward(&client(1).0).0, IN);
    assert_eq!((state_of(&site), site.counts(REAL)), (Init1, (0, 1)), "the old one is over, a new one begins");
    assert_eq!(site.engine.counters().opened.get(), opened + 1);
    site.pass_seconds(3);
    assert_eq!(site.counts(REAL), (0, 1));
    site.pass_seconds(8);
    assert_eq!((site.shared.table.len(), site.counts(REAL)), (0, (0, 0)), "an INIT that nobody answers lasts 4 s");
}

/// One-way methods know of an association by the client's packets alone.
#[test]
fn a_life_by_dr() {
    use states::State::*;
    let site = Site::with_service(Method::Dr, 80);
    for (kind, state, counts) in [
        (1, Init1, (0, 1)),
        (10, Established, (1, 0)),
        (0, Established, (1, 0)),
        (7, ShutdownReceived, (0, 1)),
        (14, Closed, (0, 1)),
    ] {
        let frame = from_client(&sctp(CLIENT4, VIP4, &chunk(kind, &[0; 16])).bytes());
        assert_eq!(site.forward(&frame).0, IN);
        assert_eq!((state_of(&site), site.counts(REAL)), (state, counts));
    }
}

/// An ABORT behind a COOKIE-ECHO closes; both are forwarded as they are.
#[test]
fn an_abort_in_a_bundle_closes() {
    let site = Site::with_service(Method::Nat, 8080);
    let bundle = [chunk(10, b"cookies"), chunk(6, &[])].concat();
    for chunks in [&INIT[..], &bundle] {
        let packet = sctp(CLIENT4, VIP4, chunks);
        let inside = packet.clone().to(RIP4).ttl(63);
        check(&site, "bundle", &from_client(&packet.bytes()), IN, &to_server(1, &inside.bytes()));
    }
    assert_eq!(state_of(&site), states::State::Closed);
}

/// SCTP behind IPv6 extension headers: chunks and ports are found, and the checksum is of the SCTP packet alone.
#[test]
fn behind_extension_headers() {
    let site = Site::with_service(Method::Nat, 8080);
    let options = vec![132, 0, 1, 4, 0, 0, 0, 0];
    let packet = Ip { options, first_extension: Some(60), ..sctp(CLIENT6, VIP6, &INIT) };
    let headers = Headers::parse(&from_client(&packet.bytes())).unwrap();
    assert_eq!((headers.flow.protocol, headers.sctp.first()), (Protocol::SCTP, Some(SctpEvent::Init)));
    let inside = packet.clone().to(RIP6).ttl(63);
    check(&site, "options", &from_client(&packet.bytes()), IN, &to_server(1, &inside.bytes()));
}

/// An ICMP error about an SCTP packet reaches the real server with the quotation translated, its checksum untouched.
#[test]
fn icmp_errors_are_relayed() {
    let site = Site::with_service(Method::Nat, 8080);
    let _ = site.forward(&from_client(&sctp(CLIENT4, VIP4, &INIT).bytes()));
    let answer = sctp(VIP4, CLIENT4, &chunk(0, &[9; 40]));
    let mut inner = answer.clone().from(RIP4).bytes();
    inner[28..32].copy_from_slice(&answer.bytes()[28..32]);
    let error = icmp_error("203.0.113.77", "192.0.2.1", [3, 1], 0, &answer.bytes());
    let inside = icmp_error("203.0.113.77", "10.0.0.1", [3, 1], 0, &inner).ttl(63);
    let (verdict, out) = site.forward(&from_client(&error.bytes()));
    assert_eq!((verdict, out), (IN, to_server(1, &inside.bytes())));
}

/// The oracle's own arithmetic is right: the published check value of CRC32c.
#[test]
fn the_oracle_counts_right() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c([0; 32]), 0x8a91_36aa);
}

/// Under table pressure an INIT that nobody followed up gives way; an association on its way does not.
#[test]
fn what_gives_way_under_pressure() {
    let site = Site::with_service(Method::Nat, 8080);
    let _ = site.forward(&from_client(&sctp(CLIENT4, VIP4, &INIT).bytes()));
    let answered = "198.51.100.8:40000";
    let _ = site.forward(&from_client(&sctp(answered, VIP4, &INIT).bytes()));
    let _ = site.forward(&from_server(1, &sctp(RIP4, answered, &chunk(2, &[0; 16])).bytes()));
    assert_eq!(site.counts(REAL), (0, 2));
    let mut cull = Cull::default();
    let ended: u32 = (0..64).map(|_| site.shared.sacrifice(&mut cull, site.now)).sum();
    assert_eq!((ended, site.counts(REAL)), (1, (0, 1)));
    let left: Vec<_> = site.shared.table.iter().map(|conn| conn.client()).collect();
    assert_eq!(left, [Endpoint::from(answered.parse::<std::net::SocketAddr>().unwrap())]);
}
