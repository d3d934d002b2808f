//! Nothing allocates in a breath: a counting allocator watches the packet path.
//!
//! Measured in the steady state. What may allocate, once: a new connection by NAT whose client is a neighbour that was
//! never seen before (its next hop is entered into the book of hops), and the test rings' own queues while they grow.

mod common;

use std::sync::Arc;

use common::counting::{Counting, allocations};
use common::packet::*;
use common::site::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::hop::InterfaceId;
use xvs_engine::real::Method;
use xvs_engine::rings::memory::HEADROOM;
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::service::{Persistence, PersistenceEngine, Policy};
use xvs_engine::snapshot::Snapshot;
use xvs_engine::tunnel::{GueChecksum, Tunnel};
use xvs_engine::wire::Packet;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Forwards in a chunk that is there already, and says how often that allocated.
fn forward(site: &Site, chunk: &mut [u8], frame: &[u8]) -> (u64, Verdict) {
    chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
    allocations(|| {
        let inspected = match site.engine.inspect(frame) {
            Ok(inspected) => inspected,
            Err(reason) => return Verdict::Drop(reason),
        };
        let mut packet = Packet::new(chunk, HEADROOM, HEADROOM + frame.len()).unwrap();
        site.engine.forward(&mut packet, inspected, site.now)
    })
}

/// The counting allocator counts: without this the others could not fail.
#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| std::hint::black_box(vec![1u8; 100])).0, 1);
    assert_eq!(allocations(|| std::hint::black_box([1u8; 100])).0, 0);
}

/// Neither a packet of a known connection nor one that opens a new one allocates, by any method, in any family; nor
/// do answers, errors, fragments and drops.
#[test]
fn forwarding_does_not_allocate() {
    const IN: Verdict = Verdict::Transmit(SERVERS);
    let gue = Tunnel::Gue { port: 6080, checksum: GueChecksum::Full };
    let gre = Tunnel::Gre { checksum: true };
    for (method, tunnel) in [
        (Method::Nat, Tunnel::Ipip),
        (Method::Dr, Tunnel::Ipip),
        (Method::Tun, Tunnel::Ipip),
        (Method::Tun, gue),
        (Method::Tun, gre),
    ] {
        let site = Site::with_tunnel(method, tunnel, 8080);
        site.shared.switches.mss_clamp.set(1);
        let mut chunk = vec![0; 4096];
        let mut is_free = |frame: &[u8], verdict: Verdict| {
            assert_eq!(forward(&site, &mut chunk, frame), (0, verdict), "{method:?}");
        };
        for (client, vip, rip) in [(CLIENT4, VIP4, "10.0.0.1:8080"), (CLIENT6, VIP6, "[fd00::1]:8080")] {
            for flags in [SYN, ACK, FIN | ACK, ACK, RST, SYN] {
                is_free(&from_client(&tcp(client, vip, flags).bytes()), IN);
            }
            for chunk in [1, 10, 0] {
                is_free(&from_client(&sctp(client, vip, &[chunk, 0, 0, 200].repeat(50)).bytes()), IN);
            }
            let datagram = udp(client, vip, &[0; 200]);
            is_free(&from_client(&datagram.bytes()), IN);
            is_free(&from_client(&datagram.fragments(80)[0]), IN);
            is_free(&from_client(&datagram.fragments(80)[1]), IN);
            is_free(&from_client(&datagram.clone().ttl(1).bytes()), Verdict::Reflect);
            is_free(&from_client(&udp(client, vip, &[0; 1473]).bytes()), Verdict::Reflect);
            let unknown = tcp(client, vip, ACK).from(&client.replace("40000", "1"));
            is_free(&from_client(&unknown.bytes()), Verdict::Reflect);
            if method == Method::Nat {
                is_free(&from_server(1, &tcp(rip, client, ACK).bytes()), Verdict::Transmit(CLIENTS));
                is_free(&from_server(1, &udp(rip, client, b"answer").bytes()), Verdict::Transmit(CLIENTS));
            }
        }
        let quoted = tcp(VIP4, CLIENT4, ACK).bytes();
        is_free(&from_client(&icmp_error("203.0.113.7", "192.0.2.1", [3, 1], 0, &quoted).bytes()), IN);
    }
}

/// Calls that come, are answered without a connection, and end do not allocate: the store of their Call-IDs is there.
#[test]
fn calls_do_not_allocate() {
    let mut site = Site::new(64);
    let persistence = Some(Persistence { timeout_s: 1, mask: u128::MAX });
    let engine = Some(PersistenceEngine::Sip);
    let policy = Policy { persistence, engine, one_packet: true, ..Policy::default() };
    let service = site.add_service_with(Protocol::UDP, VIP4, "rr", policy);
    site.add_real(service, "10.0.0.1:80", Method::Nat);
    let mut chunk = vec![0; 4096];
    for call in 0..100 {
        let message = format!("INVITE sip:x SIP/2.0\r\nCall-ID: {call}@x\r\n\r\n").into_bytes();
        let frame = from_client(&udp(CLIENT4, VIP4, &message).bytes());
        let answer = from_server(1, &udp("10.0.0.1:80", CLIENT4, &message).bytes());
        assert_eq!(forward(&site, &mut chunk, &frame), (0, Verdict::Transmit(SERVERS)), "{call}");
        assert_eq!(forward(&site, &mut chunk, &answer), (0, Verdict::Transmit(CLIENTS)), "{call}");
        assert_eq!(allocations(|| site.pass_seconds(1)).0, 0, "{call}");
    }
    assert!(site.engine.counters().expired.get() > 90);
}

/// The first connection of a neighbour by NAT allocates, its second one does not: the book of hops knows it.
#[test]
fn a_neighbour_is_entered_once() {
    let mut site = Site::with_service(Method::Nat, 8080);
    let target = Target::Via { interface: InterfaceId(0), gateway: None, mtu: 1500, source: None };
    let routes = Routes::new([Route { prefix: address("0.0.0.0"), length: 0, target }]);
    let snapshot = Snapshot::new(2, &site.services, site.interfaces.clone(), routes);
    let _old = site.engine.swap(Arc::new(snapshot));
    let mut chunk = vec![0; 4096];
    let mut open = |port: u16| {
        let frame = from_client(&udp(&format!("198.51.100.7:{port}"), VIP4, b"q").bytes());
        forward(&site, &mut chunk, &frame).0
    };
    assert!(open(1) > 0, "say so in this file's head if this is not so any more");
    assert_eq!([open(2), open(3)], [0, 0]);
}

/// A breath does not allocate: not with full batches, not idle, not with a MAC missing, not when it expires.
#[test]
fn a_breath_does_not_allocate() {
    const BATCH: u64 = 64;
    let mut site = Site::new(1 << 12);
    let service = site.add_service(Protocol::UDP, VIP4, "wlc");
    for (last, method) in [(1, Method::Nat), (2, Method::Dr), (3, Method::Tun), (4, Method::Dr)] {
        site.add_real(service, &format!("10.0.0.{last}:8080"), method);
    }
    let (silent, shared) = (site.hop("10.0.0.4"), site.shared.clone());
    let mut now = site.now;
    let mut worker = site.into_worker(memory_rings(256), BATCH as usize);
    for round in 0..20 {
        // The test rings' queues grow in the first rounds.
        if round == 5 {
            shared.hops.forget(silent);
        }
        for client in 0..BATCH {
            let port = 2000 + round * BATCH / 2 + client;
            let packet = udp(&format!("198.51.100.7:{port}"), VIP4, b"query");
            worker.rings.put(CLIENTS, from_client(&packet.bytes()));
        }
        now = now.plus_millis(20_000);
        let (count, received) = allocations(|| worker.step(now));
        assert_eq!(received as u64, BATCH);
        assert!(count == 0 || round < 2, "round {round}: {count}");
        let (count, received) = allocations(|| worker.step(now.plus_millis(1)));
        assert_eq!((count, received), (0, 0), "round {round}, idle");
        while worker.rings.take(SERVERS).is_some() {}
    }
    let counters = worker.engine.counters();
    assert!(counters.expired.get() > 0 && counters.held.get() > 0 && counters.opened.get() > 600);
    worker.finish();
}

/// Nor does a breath in which fragments wait, find their first one, give way or time out, and packets are cut.
#[test]
fn fragments_do_not_allocate() {
    let mut site = Site::new(1 << 12);
    let service = site.add_service(Protocol::UDP, VIP4, "rr");
    site.add_real(service, "10.0.0.1:80", Method::Tun);
    let mut now = site.now;
    let mut rings = memory_rings(256);
    rings.set_spare(64);
    let mut worker = site.into_worker(rings, 64);
    for round in 0..20u16 {
        now = now.plus_millis(20);
        for number in 0..64 {
            let packet = Ip { id: round << 6 | number, ..udp(CLIENT4, VIP4, &[1; 1472]).may_fragment() };
            let [first, later] = packet.fragments(800);
            worker.rings.put(CLIENTS, from_client(if number % 8 == 0 { &first } else { &later }));
            if number % 16 == 0 {
                worker.rings.put(CLIENTS, from_client(&later));
                worker.rings.put(CLIENTS, from_client(&packet.bytes()));
            }
        }
        for breath in 0..3 {
            let (count, _) = allocations(|| worker.step(now.plus_millis(breath)));
            assert!(count == 0 || round < 2, "round {round}: {count}");
            while worker.rings.take(SERVERS).is_some() {}
        }
    }
    assert!(worker.held() > 0);
    assert_eq!(allocations(|| worker.step(now.plus_millis(2000))), (0, 0));
    assert_eq!(worker.held(), 0);
    let counters = worker.engine.counters();
    assert!(counters.split.get() >= 70 && counters.fragments_held.get() > 900, "{:?}", counters.named());
    for reason in [DropReason::FragmentUnknown, DropReason::FragmentQueueFull] {
        assert!(counters.drops(reason) > 0, "{}: {}", reason.name(), counters.drops(reason));
    }
    worker.finish();
}
