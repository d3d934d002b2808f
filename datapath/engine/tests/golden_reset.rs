//! Golden packets, part three: the resets that the director sends to clients of no connection.

mod common;

use common::packet::*;
use common::site::*;
use etherparse::TcpHeader;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::real::{Method, RealId};

/// The reset that a host would send in answer: (sequence, acknowledgement, flags).
fn reset(client: &str, vip: &str, (sequence, acknowledgement, flags): (u32, u32, u8)) -> Vec<u8> {
    let (client, vip): (std::net::SocketAddr, std::net::SocketAddr) = (client.parse().unwrap(), vip.parse().unwrap());
    let mut header = TcpHeader::new(vip.port(), client.port(), sequence, 0);
    (header.rst, header.ack, header.acknowledgment_number) = (flags & RST != 0, flags & ACK != 0, acknowledgement);
    header.checksum = match (vip.ip(), client.ip()) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &[]).unwrap()
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &[]).unwrap()
        }
        _ => panic!("one family"),
    };
    let mut segment = Vec::new();
    header.write(&mut segment).unwrap();
    let ip = raw(&vip.ip().to_string(), &client.ip().to_string(), 6, segment);
    frame(GATEWAY, FRONT, &[], &Ip { id: 0, ttl: 64, ..ip }.bytes())
}

fn resets(site: &Site, sentence: &str, packet: &Ip, reason: DropReason, numbers: (u32, u32, u8)) {
    let counters = site.engine.counters();
    let before = (counters.drops(reason), counters.resets_sent.get());
    let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
    assert_eq!(verdict, Verdict::Reflect, "{sentence}");
    let expected = reset(&packet.src.to_string(), &packet.dst.to_string(), numbers);
    assert_eq!(bytes, expected, "{sentence}\n got {bytes:02x?}\nwant {expected:02x?}");
    verify(&bytes).unwrap();
    let after = (counters.drops(reason), counters.resets_sent.get());
    assert_eq!(after, (before.0 + 1, before.1 + 1), "{sentence}: it counts as dropped, and the reset is counted");
}

const SEQUENCE: u32 = 0x1234_5678;

/// Behind IPVS the host's own TCP resets a client whose connection the director does not know; so does this one: the
/// numbers are those of RFC 9293, 3.10.7.1. A client that is told connects again, one that is not hangs.
#[test]
fn a_segment_of_no_connection_is_reset() {
    let site = Site::with_service(Method::Nat, 8080);
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        let reason = DropReason::NoConnectionTcp;
        resets(&site, "an ACK has its number answered", &tcp(client, vip, ACK), reason, (0, 0, RST));
        resets(&site, "so has a FIN with ACK", &tcp(client, vip, FIN | ACK).payload(*b"odd"), reason, (0, 0, RST));
        let data = tcp(client, vip, 0).payload(*b"12345");
        resets(&site, "data without ACK is acknowledged", &data, reason, (0, SEQUENCE + 5, RST | ACK));
        resets(&site, "and a FIN counts as a byte", &tcp(client, vip, FIN), reason, (0, SEQUENCE + 1, RST | ACK));
    }
    let (verdict, _) = site.forward(&from_client(&tcp(CLIENT4, VIP4, RST | ACK).bytes()));
    assert_eq!(verdict, dropped(DropReason::NoConnectionTcp), "a reset is never answered by one");
    site.shared.switches.reset_unknown.set(0);
    let (verdict, _) = site.forward(&from_client(&tcp(CLIENT4, VIP4, ACK).bytes()));
    assert_eq!(verdict, dropped(DropReason::NoConnectionTcp), "silence can be had");
}

/// A TCP client of a service that is gone is refused at once, and does not wait for a timeout.
#[test]
fn a_service_that_is_gone_resets() {
    let site = Site::with_service(Method::Nat, 8080);
    for (client, vip) in [(CLIENT4, "192.0.2.1:81"), (CLIENT6, "[2001:db8::1]:81")] {
        resets(&site, "SYN", &tcp(client, vip, SYN), DropReason::NoService, (0, SEQUENCE + 1, RST | ACK));
    }
}

/// A removed server's connections are black-holed with a count, as in IPVS; `refuse_nodest` tells the clients instead.
#[test]
fn a_removed_servers_connection_is_silent_or_reset() {
    let site = Site::with_service(Method::Nat, 8080);
    for flags in [SYN, ACK] {
        assert_eq!(site.forward(&from_client(&tcp(CLIENT4, VIP4, flags).bytes())).0, Verdict::Transmit(SERVERS));
    }
    assert_eq!(site.forward(&from_client(&udp(CLIENT4, VIP4, b"x").bytes())).0, Verdict::Transmit(SERVERS));
    for service in [0, 1] {
        site.services[service].remove(&site.shared.arena, RealId(service as u32));
    }
    let silent = site.forward(&from_client(&tcp(CLIENT4, VIP4, ACK).bytes())).0;
    assert_eq!(silent, dropped(DropReason::ServerGone));
    site.shared.switches.refuse_nodest.set(1);
    resets(&site, "cured", &tcp(CLIENT4, VIP4, ACK), DropReason::ServerGone, (0, 0, RST));
    let (verdict, bytes) = site.forward(&from_client(&udp(CLIENT4, VIP4, b"x").bytes()));
    assert_eq!((verdict, &bytes[34..36]), (Verdict::Reflect, &[3, 3][..]), "a datagram: port unreachable");
}

/// Resets are sent at a limited rate; what is beyond is dropped in silence, and counted.
#[test]
fn resets_are_limited() {
    let site = Site::with_service(Method::Nat, 8080);
    let packet = from_client(&tcp(CLIENT4, VIP4, ACK).bytes());
    let sent = (0..3000).filter(|_| site.forward(&packet).0 == Verdict::Reflect).count();
    assert_eq!((sent, site.engine.counters().drops(DropReason::NoConnectionTcp)), (2000, 2000));
}
