//! Golden packets, part three: the life of connections, of fragments and of next hops, and what is counted of them.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::counters::Traffic;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::hop::InterfaceId;
use xvs_engine::real::{Method, RealId};
use xvs_engine::rings::memory::MemoryRings;
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::time::Now;
use xvs_engine::worker::Worker;

const IN: Verdict = Verdict::Transmit(SERVERS);
const OUT: Verdict = Verdict::Transmit(CLIENTS);
const RIP4: &str = "10.0.0.1:8080";
const REAL: RealId = RealId(0);

fn client(flags: u8) -> Vec<u8> {
    from_client(&tcp(CLIENT4, VIP4, flags).bytes())
}

fn server(flags: u8) -> Vec<u8> {
    from_server(1, &tcp(RIP4, CLIENT4, flags).bytes())
}

/// Walks through steps: (frame, verdict, active and inactive connections after it).
fn walk(site: &Site, steps: &[(Vec<u8>, Verdict, (u32, u32))]) {
    for (number, (frame, verdict, counts)) in steps.iter().enumerate() {
        assert_eq!(site.forward(frame).0, *verdict, "step {number}");
        assert_eq!(site.counts(REAL), *counts, "step {number}");
    }
}

/// Active from the SYN on, inactive from the client's FIN on, gone after the timeout of TIME_WAIT (NAT).
#[test]
fn counts_through_a_life_by_nat() {
    let mut site = Site::with_service(Method::Nat, 8080);
    let steps = [
        (client(SYN), IN, (1, 0)),
        (server(SYN | ACK), OUT, (1, 0)),
        (client(ACK), IN, (1, 0)),
        (client(FIN | ACK), IN, (0, 1)),
        (server(FIN | ACK), OUT, (0, 1)),
        (client(ACK), IN, (0, 1)),
    ];
    walk(&site, &steps);
    site.pass_seconds(118);
    assert_eq!(site.counts(REAL), (0, 1), "TIME_WAIT lasts 120 s, to the second");
    site.pass_seconds(5);
    assert_eq!(site.counts(REAL), (0, 0));
    assert_eq!((site.shared.table.len(), site.engine.counters().expired.get()), (0, 1));
}

/// A client's port that comes back by another VIP to the same NAT server: the server can not tell the two apart, so the
/// newer connection has the answers; else its client would wait until the older one times out. That one stays for its
/// own client's packets.
#[test]
fn the_newest_connection_of_a_port_has_the_answers() {
    let other = "192.0.2.9:80";
    let mut site = Site::with_service(Method::Nat, 8080);
    let service = site.add_service(Protocol::TCP, other, "rr");
    let real = site.add_real(service, RIP4, Method::Nat);
    let source = |frame: &[u8]| frame[26..30].to_vec(); // behind the Ethernet header, in the IPv4 header
    assert_eq!(site.forward(&client(SYN)).0, IN);
    let (verdict, frame) = site.forward(&server(SYN | ACK));
    assert_eq!((verdict, source(&frame)), (OUT, vec![192, 0, 2, 1]));
    assert_eq!(site.forward(&client(ACK)).0, IN);
    assert_eq!(site.forward(&from_client(&tcp(CLIENT4, other, SYN).bytes())).0, IN);
    let (verdict, frame) = site.forward(&server(SYN | ACK));
    assert_eq!((verdict, source(&frame)), (OUT, vec![192, 0, 2, 9]));
    assert_eq!(site.forward(&client(ACK)).0, IN);
    assert_eq!((site.counts(REAL), site.counts(real), site.shared.table.len()), ((1, 0), (1, 0), 2));
    site.pass_seconds(1000);
    assert!(site.shared.table.is_empty());
}

/// One-way methods end in FIN_WAIT for 120 s; a client's RST leaves 10 s.
#[test]
fn counts_through_a_life_one_way() {
    for method in [Method::Dr, Method::Tun] {
        for (last, seconds) in [(FIN | ACK, 120), (RST, 10)] {
            let mut site = Site::with_service(method, 80);
            walk(&site, &[(client(SYN), IN, (1, 0)), (client(ACK), IN, (1, 0)), (client(last), IN, (0, 1))]);
            site.pass_seconds(seconds - 2);
            assert_eq!(site.counts(REAL), (0, 1));
            site.pass_seconds(5);
            assert_eq!(site.counts(REAL), (0, 0));
        }
    }
}

/// UDP flows are never active, and live for 300 s after their last packet in either direction.
#[test]
fn udp_flows_are_inactive() {
    let mut site = Site::with_service(Method::Nat, 8080);
    let real = RealId(1);
    let query = from_client(&udp(CLIENT4, VIP4, b"q").bytes());
    let answer = from_server(1, &udp(RIP4, CLIENT4, b"a").bytes());
    assert_eq!(site.forward(&query).0, IN);
    for _ in 0..3 {
        site.pass_seconds(280);
        assert_eq!(site.forward(&answer).0, OUT);
        assert_eq!(site.counts(real), (0, 1));
    }
    site.pass_seconds(305);
    assert_eq!(site.counts(real), (0, 0));
    assert_eq!(site.forward(&answer).0, dropped(DropReason::NoConnectionReply));
}

/// An expired entry that no sweep has reached yet is as good as gone: its packets open nothing and answer nothing.
#[test]
fn an_expired_connection_is_over_at_once() {
    let mut site = Site::with_service(Method::Nat, 8080);
    walk(&site, &[(client(SYN), IN, (1, 0)), (client(ACK), IN, (1, 0))]);
    site.now = site.now.plus_millis(900_001);
    walk(&site, &[(server(ACK), dropped(DropReason::NoConnectionReply), (0, 0))]);
    walk(&site, &[(client(SYN), IN, (1, 0)), (client(ACK), IN, (1, 0))]);
    site.now = site.now.plus_millis(900_001);
    walk(&site, &[(client(ACK), Verdict::Reflect, (0, 0))]);
    assert_eq!(site.engine.counters().drops(DropReason::NoConnectionTcp), 1);
    assert_eq!(site.engine.counters().expired.get(), 2);
}

/// A closed connection whose client opens its port again is scheduled anew; one that still lives is not.
#[test]
fn reopening_a_port() {
    let mut site = Site::new(64);
    let service = site.add_service(Protocol::TCP, VIP4, "rr");
    let (first, second) =
        (site.add_real(service, RIP4, Method::Nat), site.add_real(service, "10.0.0.2:8080", Method::Nat));
    let goes_to = |site: &Site, flags| {
        let (verdict, bytes) = site.forward(&client(flags));
        (verdict == IN).then(|| bytes[5]) // the last byte of the server's MAC
    };
    assert_eq!(goes_to(&site, SYN), Some(2), "the newest server is first");
    assert_eq!(goes_to(&site, SYN), Some(2), "a SYN sent again");
    assert_eq!(goes_to(&site, ACK), Some(2));
    assert_eq!(goes_to(&site, SYN), Some(2), "a SYN in an open connection (IPVS-REFERENCE 3.4.1)");
    assert_eq!(goes_to(&site, FIN | ACK), Some(2));
    assert_eq!(goes_to(&site, SYN), Some(2), "CLOSE_WAIT is not closed (3.9)");
    assert_eq!(goes_to(&site, RST), Some(2), "a RST in SYN_RECV changes nothing (3.4.1)");
    assert_eq!(goes_to(&site, ACK), Some(2));
    assert_eq!(goes_to(&site, RST), Some(2));
    assert_eq!(goes_to(&site, SYN), Some(1), "CLOSE, and the port opens again: the next server's turn");
    assert_eq!((site.counts(first), site.counts(second)), ((1, 0), (0, 0)));
    assert_eq!(site.shared.table.len(), 1);
    // TIME_WAIT likewise.
    assert_eq!(goes_to(&site, FIN | ACK), Some(1));
    assert_eq!(goes_to(&site, SYN), Some(2));
}

/// A removed server's connections go nowhere and are not kept alive; adding it again revives them; replies pass.
#[test]
fn server_gone_and_back() {
    let mut site = Site::with_service(Method::Nat, 8080);
    walk(&site, &[(client(SYN), IN, (1, 0)), (client(ACK), IN, (1, 0))]);
    site.services[0].remove(&site.shared.arena, REAL);
    walk(&site, &[(client(ACK), dropped(DropReason::ServerGone), (1, 0)), (server(ACK), OUT, (1, 0))]);
    let other = tcp("198.51.100.8:1", VIP4, SYN).bytes();
    assert_eq!(site.forward(&from_client(&other)).0, Verdict::Reflect, "no server for new ones");
    site.services[0].add(&site.shared.arena, REAL);
    walk(&site, &[(client(ACK), IN, (1, 0))]);
    site.services[0].remove(&site.shared.arena, REAL);
    for _ in 0..3 {
        site.pass_seconds(290);
        walk(&site, &[(client(ACK), dropped(DropReason::ServerGone), (1, 0))]);
    }
    site.pass_seconds(40);
    assert_eq!(site.counts(REAL), (0, 0), "900 s after the last good packet, whatever the client tried since");
}

/// Removing the service is removing its servers: connections stay in the table (IPVS-REFERENCE 3.9).
#[test]
fn connections_survive_an_edit_of_the_configuration() {
    let mut site = Site::with_service(Method::Nat, 8080);
    walk(&site, &[(client(SYN), IN, (1, 0)), (client(ACK), IN, (1, 0))]);
    site.services.clear();
    site.compile();
    walk(&site, &[(client(ACK), IN, (1, 0)), (server(ACK), OUT, (1, 0))]);
    let other = from_client(&tcp(CLIENT4, VIP4, SYN).from("1.2.3.4:5").bytes());
    assert_eq!(site.forward(&other).0, Verdict::Reflect, "a new client is told that the service is gone");
    assert_eq!(site.engine.counters().drops(DropReason::NoService), 1);
}

/// A client that comes back with the port of an old connection gets a server at once, even if the old connection's
/// server was removed: a new connection must not suffer from an old one.
#[test]
fn a_removed_server_does_not_hold_a_new_connection() {
    let mut site = Site::with_service(Method::Nat, 8080);
    walk(&site, &[(client(SYN), IN, (1, 0)), (client(ACK), IN, (1, 0))]);
    let second = site.add_real(0, "10.0.0.2:8080", Method::Nat);
    site.services[0].remove(&site.shared.arena, REAL);
    assert_eq!(site.forward(&client(ACK)).0, dropped(DropReason::ServerGone));
    assert_eq!(site.forward(&client(SYN)).0, IN);
    assert_eq!((site.counts(REAL), site.counts(second)), ((0, 0), (1, 0)));
    assert_eq!(site.shared.table.len(), 1);
}

/// When the route to a client changes, the answers of connections that exist take the new way.
#[test]
fn answers_follow_the_route() {
    let site = Site::with_service(Method::Nat, 8080);
    walk(&site, &[(client(SYN), IN, (1, 0)), (server(SYN | ACK), OUT, (1, 0))]);
    let new = address("203.0.113.1");
    let target = Target::Via { interface: InterfaceId(0), gateway: Some(new), mtu: 1500, source: None };
    let routes = Routes::new([Route { prefix: address("0.0.0.0"), length: 0, target }]);
    let hop = site.shared.hops.intern(InterfaceId(0), new).unwrap();
    site.shared.hops.resolve(hop, [2, 9, 9, 9, 9, 9]);
    site.shared.reroute_replies(&routes);
    let (verdict, bytes) = site.forward(&from_server(1, &tcp(RIP4, CLIENT4, ACK).bytes()));
    assert_eq!((verdict, &bytes[..6]), (OUT, &[2, 9, 9, 9, 9, 9][..]));
}

/// Traffic counts as IPVS counts it: packets and bytes of IP, both ways, connections once, TTL and MTU checked after.
#[test]
fn traffic_counts() {
    let site = Site::with_service(Method::Nat, 8080);
    let (real, counters) = (RealId(1), site.engine.counters());
    let mut padded = from_client(&udp(CLIENT4, VIP4, b"abc").bytes());
    padded.resize(60, 0);
    assert_eq!(site.forward(&padded).0, IN);
    let expected = Traffic { conns: 1, in_packets: 1, in_bytes: 31, ..Traffic::default() };
    assert_eq!(counters.real(real), expected, "padding is no part of the IP packet");
    assert_eq!(site.forward(&from_server(1, &udp(RIP4, CLIENT4, &[0; 100]).bytes())).0, OUT);
    assert_eq!(site.forward(&from_client(&udp(CLIENT4, VIP4, &[0; 72]).ttl(1).bytes())).0, Verdict::Reflect);
    let expected = Traffic { conns: 1, in_packets: 2, in_bytes: 131, out_packets: 1, out_bytes: 128 };
    assert_eq!(counters.real(real), expected, "a packet that TTL stops counts as well");
    assert_eq!((counters.inbound.get(), counters.outbound.get(), counters.opened.get()), (1, 1, 1));

    let related = icmp_error("10.0.0.77", "198.51.100.7", [3, 1], 0, &udp(CLIENT4, RIP4, b"abc").bytes());
    assert_eq!(site.forward(&from_server(1, &related.bytes())).0, OUT);
    let expected = Traffic { out_packets: 2, out_bytes: 128 + 59, ..expected };
    assert_eq!(counters.real(real), expected, "errors count with the direction they go");
}

/// A server at its upper threshold gets nothing until enough connections have ended; the others do.
#[test]
fn thresholds_through_the_engine() {
    let mut site = Site::new(64);
    let service = site.add_service(Protocol::UDP, VIP4, "rr");
    let real = site.add_real_with(service, "10.0.0.1:80", Method::Dr, |settings| settings.upper = 2);
    let open = |site: &Site, port: u16| {
        site.forward(&from_client(&udp(&format!("198.51.100.7:{port}"), VIP4, b"x").bytes())).0
    };
    assert_eq!([1, 2, 3, 2].map(|port| open(&site, port)), [IN, IN, Verdict::Reflect, IN]);
    assert_eq!(site.counts(real), (0, 2));
    site.pass_seconds(299);
    assert_eq!(open(&site, 2), IN);
    site.pass_seconds(5);
    assert_eq!(site.counts(real), (0, 1), "one has ended");
    assert_eq!([4, 5].map(|port| open(&site, port)), [IN, Verdict::Reflect], "2 of 2 again");
}

/// Fragments follow their first one by every method, and after reassembly NAT's checksum is right.
#[test]
fn fragments_follow_the_first() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let site = Site::with_service(method, 8080);
        for (client, vip, rip) in [(CLIENT4, VIP4, RIP4), (CLIENT6, VIP6, "[fd00::1]:8080")] {
            let packet = udp(client, vip, &[0xa5; 1001]);
            let target = if method == Method::Nat { packet.clone().to(rip) } else { packet.clone() };
            let [first, later] = packet.fragments(504);
            assert!(matches!(site.forward(&from_client(&later)).0, Verdict::Hold(_)), "before its first");
            for (piece, want) in [&first, &later, &later].into_iter().zip([0, 1, 1]) {
                let (verdict, bytes) = site.forward(&from_client(piece));
                assert_eq!(verdict, IN, "{method:?}");
                let want = target.clone().ttl(63).fragments(504)[want].clone();
                let from = bytes.len() - want.len();
                assert_eq!(&bytes[from..], want, "{method:?} {client}");
                verify(&bytes).unwrap();
            }
            if method == Method::Nat {
                let answer = udp(rip, client, &[0x5a; 999]);
                let out = answer.clone().from(vip).ttl(63).fragments(800);
                for (piece, want) in answer.fragments(800).into_iter().zip(out) {
                    assert_eq!(site.forward(&from_server(1, &piece)), (OUT, to_client(&want)));
                }
            }
        }
    }
}

/// Notes on fragments are forgotten after some seconds, and one packet's never serve another.
#[test]
fn fragments_are_forgotten() {
    let mut site = Site::with_service(Method::Dr, 80);
    let [first, later] = udp(CLIENT4, VIP4, &[1; 800]).fragments(400);
    let [_, other] = Ip { id: 99, ..udp(CLIENT4, VIP4, &[1; 800]) }.fragments(400);
    assert_eq!(site.forward(&from_client(&first)).0, IN);
    assert!(matches!(site.forward(&from_client(&other)).0, Verdict::Hold(_)));
    site.now = site.now.plus_millis(9000);
    assert!(matches!(site.forward(&from_client(&later)).0, Verdict::Hold(_)));
}

/// A first fragment without a UDP checksum keeps none: the bytes to sum are elsewhere.
#[test]
fn a_fragment_without_checksum_keeps_none() {
    let site = Site::with_service(Method::Nat, 8080);
    let packet = udp(CLIENT4, VIP4, &[9; 900]).no_checksum();
    let want = packet.clone().to(RIP4).ttl(63).fragments(64);
    for (piece, want) in packet.fragments(64).into_iter().zip(want) {
        assert_eq!(site.forward(&from_client(&piece)), (IN, to_server(1, &want)));
    }
}

fn worker(site: Site) -> Worker<MemoryRings> {
    site.into_worker(memory_rings(64), 16)
}

/// Without a MAC packets wait in their order, and leave with the right one as soon as it is known.
#[test]
fn packets_wait_for_the_mac() {
    let site = Site::with_service(Method::Dr, 80);
    let (hop, shared) = (site.hop("10.0.0.1"), site.shared.clone());
    shared.hops.forget(hop);
    let mut worker = worker(site);
    let packets = [1, 2, 3].map(|n| udp(CLIENT4, VIP4, &[n]));
    for packet in &packets {
        worker.rings.put(CLIENTS, from_client(&packet.bytes()));
    }
    worker.step(Now::from_secs(1));
    assert_eq!((worker.held(), worker.rings.take(SERVERS)), (3, None));
    assert!(shared.hops.take_pending());
    assert_eq!(shared.hops.take_wanted(), [hop]);
    worker.step(Now::from_secs(2));
    assert_eq!(worker.held(), 3);
    shared.hops.resolve(hop, server_mac(0x77));
    worker.rings.put(CLIENTS, from_client(&packets[0].bytes()));
    worker.step(Now::from_secs(3));
    assert_eq!(worker.held(), 0);
    for packet in packets.iter().chain(&packets[..1]) {
        let want = to_server(0x77, &packet.clone().ttl(63).bytes());
        assert_eq!(worker.rings.take(SERVERS), Some(want));
    }
    // A new MAC of the next hop is followed by the next packet.
    shared.hops.resolve(hop, server_mac(0x88));
    worker.rings.put(CLIENTS, from_client(&packets[0].bytes()));
    worker.step(Now::from_secs(3));
    assert_eq!(worker.rings.take(SERVERS), Some(to_server(0x88, &packets[0].clone().ttl(63).bytes())));
}

/// A next hop that stays silent costs its packets and nobody else's: after three seconds, at its limit, or at once
/// when the kernel has given up.
#[test]
fn packets_do_not_wait_forever() {
    let site = Site::with_service(Method::Nat, 80);
    let (hop, shared) = (site.hop("10.0.0.1"), site.shared.clone());
    shared.hops.forget(hop);
    let mut worker = worker(site);
    let packet = from_client(&udp(CLIENT4, VIP4, b"x").bytes());
    for _ in 0..40 {
        worker.rings.put(CLIENTS, packet.clone());
    }
    worker.rings.put(CLIENTS, from_client(&udp(CLIENT6, VIP6, b"x").bytes()));
    for _ in 0..3 {
        worker.step(Now::from_secs(1));
    }
    let drops = |worker: &Worker<MemoryRings>, reason| worker.engine.counters().drops(reason);
    assert_eq!((worker.held(), drops(&worker, DropReason::NeighbourQueueFull)), (32, 8));
    assert!(worker.rings.take(SERVERS).is_some(), "another next hop's packet passes");
    worker.step(Now::from_millis(3999));
    assert_eq!(worker.held(), 32);
    worker.step(Now::from_millis(4000));
    assert_eq!((worker.held(), drops(&worker, DropReason::NeighbourUnresolved)), (0, 32));
    worker.rings.put(CLIENTS, packet.clone());
    worker.step(Now::from_secs(5));
    shared.hops.fail(hop);
    worker.rings.put(CLIENTS, packet);
    worker.step(Now::from_secs(5));
    assert_eq!((worker.held(), drops(&worker, DropReason::NeighbourUnresolved)), (0, 34));
    assert_eq!(shared.hops.take_wanted(), [hop], "and the kernel is asked again");
}

/// NAT's answers go by the client's gateway as it is now, not as it was when the connection began.
#[test]
fn answers_follow_the_gateway() {
    let site = Site::with_service(Method::Nat, 8080);
    walk(&site, &[(client(SYN), IN, (1, 0))]);
    site.shared.hops.resolve(site.gateways[0], [2, 9, 9, 9, 9, 9]);
    let (verdict, bytes) = site.forward(&server(SYN | ACK));
    assert_eq!((verdict, &bytes[..6]), (OUT, &[2, 9, 9, 9, 9, 9][..]));
}

/// A full table makes room for new connections at the cost of half-open ones, never of established ones, and of the
/// other family's if need be.
#[test]
fn a_full_table() {
    let mut site = Site::new(8);
    for (vip, server) in [(VIP4, "10.0.0.1:80"), (VIP6, "[fd00::1]:80")] {
        let service = site.add_service(Protocol::TCP, vip, "rr");
        site.add_real(service, server, Method::Dr);
    }
    let send = |site: &Site, port: u16, flags| {
        site.forward(&from_client(&tcp(&format!("[2001:db8:c::7]:{port}"), VIP6, flags).bytes())).0
    };
    for port in 1..=8 {
        assert_eq!(send(&site, port, SYN), IN);
    }
    for port in 2..=8 {
        assert_eq!(send(&site, port, ACK), IN);
    }
    assert_eq!(site.forward(&client(SYN)).0, IN, "the last half-open one, of the other family, gives way");
    assert_eq!(site.shared.table.len(), 8);
    assert_eq!(site.forward(&client(ACK)).0, IN);
    assert_eq!(send(&site, 9, SYN), dropped(DropReason::TableFull), "established ones stay");
    assert_eq!(site.engine.counters().evicted.get(), 1);
    assert_eq!((site.counts(RealId(0)), site.counts(RealId(1))), ((1, 0), (7, 0)));
}
