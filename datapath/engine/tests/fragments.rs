//! Packets that come in fragments: in any order, on any queue, by every method, within limits.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::Owner;
use xvs_engine::counters::Counters;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Awaited, Engine, Verdict};
use xvs_engine::flow::{Flow, Protocol};
use xvs_engine::hop::Port;
use xvs_engine::real::Method;
use xvs_engine::rings::Rings;
use xvs_engine::rings::fault::FaultRings;
use xvs_engine::rings::memory::MemoryRings;
use xvs_engine::service::Policy;
use xvs_engine::time::Now;
use xvs_engine::wire::{Fragment, Headers};
use xvs_engine::worker::Worker;

const IN: Verdict = Verdict::Transmit(SERVERS);
const WAITS: Verdict = Verdict::Hold(Awaited::FirstFragment);
const RIP: [&str; 2] = ["10.0.0.1:8080", "[fd00::1]:8080"];
const CLIENT: [&str; 2] = [CLIENT4, CLIENT6];
const VIP: [&str; 2] = [VIP4, VIP6];

/// So many workers over a site's state, each with rings of its own.
fn workers(site: &Site, count: u32, frames: u32) -> Vec<Worker<MemoryRings>> {
    let engine = |number| {
        let counters = Arc::new(Counters::new(REALS));
        Engine::new(site.shared.clone(), site.snapshot(), counters, number, count)
    };
    (0..count).map(|number| Worker::new(engine(number), memory_rings(frames), 16)).collect()
}

fn sent(worker: &mut Worker<MemoryRings>, port: Port) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| worker.rings.take(port)).collect()
}

fn drops(worker: &Worker<MemoryRings>, reason: DropReason) -> u64 {
    worker.engine.counters().drops(reason)
}

/// A tunnel's outer header is not looked at here.
fn inner(frame: &[u8]) -> Vec<u8> {
    let headers = Headers::parse(frame).unwrap();
    match headers.flow.protocol {
        Protocol::IPV4 | Protocol::IPV6 => to_server(1, &frame[headers.l4..headers.end]),
        _ => frame.to_vec(),
    }
}

/// The last fragment first, on one queue and on two: nothing is lost, by any method, in and out, and what comes together
/// at the other end is the datagram with the right checksum, or without one as it came.
#[test]
fn backwards_on_any_queue() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for (family, checksum, queues) in [(0, true, 1), (0, true, 2), (0, false, 2), (1, true, 1), (1, true, 2)] {
            let site = Site::with_service(method, 8080);
            let mut workers = workers(&site, queues, 64);
            let last = queues as usize - 1;
            let case = format!("{method:?}, family {family}, {queues} queues");
            let make = |src: &str, dst: &str| {
                let packet = udp(src, dst, &[0xa5; 3001]);
                if checksum { packet } else { packet.no_checksum() }
            };
            let mut pass = |from: Port, pieces: &[Vec<u8>]| {
                for piece in pieces[1..].iter().rev() {
                    workers[0].rings.put(from, piece.clone());
                }
                workers[0].step(Now::from_secs(1));
                assert_eq!(workers[0].held(), pieces.len() - 1, "{case}");
                workers[last].rings.put(from, pieces[0].clone());
                let to = if from == CLIENTS { SERVERS } else { CLIENTS };
                workers[last].step(Now::from_secs(1));
                let mut out = sent(&mut workers[last], to);
                if queues > 1 {
                    workers[0].step(Now::from_millis(1001));
                    out.extend(sent(&mut workers[0], to));
                }
                assert_eq!((out.len(), workers[0].held()), (pieces.len(), 0), "{case}");
                assert_eq!(workers[0].rings.ledger().lent, 0);
                out.iter().map(|frame| inner(frame)).collect::<Vec<_>>()
            };
            let packet = make(CLIENT[family], VIP[family]);
            let pieces = packet.fragments_at(&[1000, 2000, 2992]);
            let out = pass(CLIENTS, &pieces.iter().map(|ip| from_client(ip)).collect::<Vec<_>>());
            let want = if method == Method::Nat { packet.to(RIP[family]) } else { packet };
            assert_eq!(reassemble(&out).unwrap(), want.segment(), "{case}");
            if method == Method::Nat {
                let answer = make(RIP[family], CLIENT[family]);
                let pieces = answer.fragments_at(&[1400, 2800]);
                let out = pass(SERVERS, &pieces.iter().map(|ip| from_server(1, ip)).collect::<Vec<_>>());
                assert_eq!(reassemble(&out).unwrap(), answer.from(VIP[family]).segment(), "{case}");
            }
            assert_eq!(workers[0].engine.counters().dropped.get(), 0);
        }
    }
}

/// A packet that was chosen a server for itself alone has no connection: its later fragments go to that server by its
/// method, until the server is gone.
#[test]
fn later_fragments_without_a_connection() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for family in [0, 1] {
            let mut site = Site::new(1 << 10);
            let service = site.add_service(Protocol::UDP, VIP[family], "rr");
            let real = site.add_real(service, RIP[family], method);
            let packet = udp(CLIENT[family], VIP[family], &[0xa5; 1001]);
            let [_, later] = packet.fragments(800);
            let [src, dst] = [packet.src, packet.dst].map(Into::into);
            let flow = Flow { protocol: Protocol::UDP, src, dst };
            assert_eq!(site.forward(&from_client(&later)).0, WAITS);
            site.shared.fragments.note(&flow, packet.id.into(), Owner::Once(real), site.now);
            let (verdict, frame) = site.forward(&from_client(&later));
            let want = if method == Method::Nat { packet.clone().to(RIP[family]) } else { packet.clone() };
            assert_eq!((verdict, inner(&frame)), (IN, to_server(1, &want.ttl(63).fragments(800)[1])), "{method:?}");
            assert_eq!(site.engine.counters().real(real).in_packets, 1);
            site.services[service].remove(&site.shared.arena, real);
            assert_eq!(site.forward(&from_client(&later)).0, dropped(DropReason::ServerGone));

            let other = site.add_real(service, RIP[1 - family], method);
            site.shared.fragments.note(&flow, packet.id.into(), Owner::Once(other), site.now);
            let across = if method == Method::Tun { IN } else { dropped(DropReason::Method) };
            assert_eq!(site.forward(&from_client(&later)).0, across);
        }
    }
}

/// One-packet scheduling in life: every datagram goes to another server, all of its fragments to the same, in any order.
#[test]
fn one_packet_scheduling_keeps_fragments_together() {
    let mut site = Site::new(1 << 10);
    let policy = Policy { one_packet: true, ..Policy::default() };
    let service = site.add_service_with(Protocol::UDP, VIP4, "rr", policy);
    let servers: Vec<_> =
        (1..4).map(|last| site.add_real(service, &format!("10.0.0.{last}:53"), Method::Nat)).collect();
    let mut worker = workers(&site, 1, 64).remove(0);
    for id in 0..9u16 {
        let packet = Ip { id, ..udp(CLIENT4, VIP4, &[1; 900]) };
        let mut pieces = packet.fragments_at(&[304, 608]);
        pieces.rotate_left(usize::from(id % 3));
        pieces.iter().for_each(|ip| worker.rings.put(CLIENTS, from_client(ip)));
        worker.step(Now::from_secs(1));
        let out = sent(&mut worker, SERVERS);
        let to = out[0][5];
        assert!(out.len() == 3 && out.iter().all(|frame| frame[5] == to), "one server");
        assert_eq!(reassemble(&out).unwrap(), packet.to(&format!("10.0.0.{to}:53")).segment());
    }
    let packets = servers.iter().map(|&real| worker.engine.counters().real(real).in_packets);
    assert_eq!(packets.collect::<Vec<_>>(), [9, 9, 9]);
    assert!(site.shared.table.is_empty());
}

/// What else follows addresses alone: the fragments of an answer that crosses the director (DR, TUN), and those of
/// IPsec, which need no first one.
#[test]
fn answers_and_ipsec_in_fragments() {
    for (method, client, vip) in [(Method::Dr, CLIENT4, VIP4), (Method::Tun, CLIENT6, VIP6)] {
        let site = Site::with_service(method, 80);
        assert_eq!(site.forward(&from_client(&udp(client, vip, b"q").bytes())).0, IN);
        let answer = udp(vip, client, &[1; 800]);
        for (piece, want) in answer.fragments(400).iter().zip(answer.clone().ttl(63).fragments(400)) {
            let (verdict, frame) = site.forward(&from_server(1, piece));
            assert_eq!((verdict, frame), (Verdict::Transmit(CLIENTS), to_client(&want)), "{method:?}");
        }
    }
    let mut site = Site::new(64);
    let service = site.add_service(Protocol::UDP, "192.0.2.1:500", "rr");
    site.add_real(service, "10.0.0.1:500", Method::Nat);
    let esp = raw("198.51.100.7", "192.0.2.1", 50, vec![7; 400]);
    let later = |ip: &Ip| ip.fragments(200)[1].clone();
    assert_eq!(site.forward(&from_client(&later(&esp))).0, dropped(DropReason::NoConnectionIpsec));
    assert_eq!(site.forward(&from_client(&udp("198.51.100.7:500", "192.0.2.1:500", b"keys").bytes())).0, IN);
    let want = raw("198.51.100.7", "10.0.0.1", 50, vec![7; 400]).ttl(63);
    assert_eq!(site.forward(&from_client(&later(&esp))), (IN, to_server(1, &later(&want))));
}

/// A note that outlives its connection, or leads to one of other addresses, sends nothing anywhere.
#[test]
fn stale_notes_lead_nowhere() {
    let site = Site::with_service(Method::Nat, 8080);
    let [first, later] = udp(CLIENT4, VIP4, &[1; 800]).fragments(400);
    assert_eq!(site.forward(&from_client(&first)).0, IN);
    let conn = site.shared.table.iter().next().unwrap().id();
    let [_, stranger] = udp("198.51.100.8:1", VIP4, &[1; 800]).fragments(400);
    let headers = Headers::parse(&from_client(&stranger)).unwrap();
    site.shared.fragments.note(&headers.flow, 0x4d2, Owner::Connection(conn), site.now);
    assert_eq!(site.forward(&from_client(&stranger)).0, dropped(DropReason::FragmentUnknown));
    assert_eq!(site.forward(&from_client(&later)).0, IN);
    let mut ended = site.shared.table.get(conn).unwrap();
    assert!(site.shared.table.remove(&mut ended));
    site.shared.settle(&ended);
    assert_eq!(site.forward(&from_client(&later)).0, dropped(DropReason::FragmentUnknown));
}

/// Fragments of ICMP do not wait: nothing could come of it.
#[test]
fn only_what_has_ports_waits() {
    let site = Site::with_service(Method::Dr, 80);
    let error =
        icmp_error("203.0.113.7", "192.0.2.1", [3, 1], 0, &[&tcp(VIP4, CLIENT4, ACK).bytes()[..], &[0; 64]].concat());
    assert_eq!(site.forward(&from_client(&error.fragments(32)[1])).0, dropped(DropReason::FragmentUnknown));
    assert_eq!(site.forward(&from_client(&tcp(CLIENT4, VIP4, SYN).payload([1; 64]).fragments(40)[1])).0, WAITS);
}

/// A first fragment that never comes costs a second and a named drop; one that was refused, too.
#[test]
fn nobody_waits_for_ever() {
    let site = Site::with_service(Method::Dr, 80);
    let mut worker = workers(&site, 1, 64).remove(0);
    let [_, later] = udp(CLIENT4, VIP4, &[1; 800]).fragments(400);
    let [first, other] = udp(CLIENT4, "192.0.2.1:81", &[1; 800]).fragments(400);
    for ip in [&later, &first, &other] {
        worker.rings.put(CLIENTS, from_client(ip));
    }
    worker.step(Now::from_secs(1));
    assert_eq!((worker.held(), drops(&worker, DropReason::NoService)), (2, 1));
    assert_eq!(worker.engine.counters().waiting.get(), 2);
    worker.step(Now::from_millis(1999));
    assert_eq!(worker.held(), 2);
    worker.step(Now::from_millis(2000));
    assert_eq!((worker.held(), drops(&worker, DropReason::FragmentUnknown)), (0, 2));
    assert_eq!((worker.engine.counters().waiting.get(), worker.engine.counters().fragments_held.get()), (0, 2));
    assert_eq!(worker.rings.ledger().lent, 0);
}

/// One packet's fragments may take 64 places and all together a quarter of the worker's frames, 256 at most; then the
/// oldest go, so that a flood of stray fragments does not keep out those whose first fragment is only a moment late.
#[test]
fn places_are_limited() {
    for (frames, places) in [(16, 4), (400, 100), (4000, 256)] {
        let site = Site::with_service(Method::Dr, 80);
        let mut worker = workers(&site, 1, frames).remove(0);
        let flood = |worker: &mut Worker<MemoryRings>, ids: std::ops::Range<u16>, each: usize| {
            for id in ids {
                let packet = Ip { id, ..udp(CLIENT4, VIP4, &[1; 800]) };
                for _ in 0..each {
                    worker.rings.put(CLIENTS, from_client(&packet.fragments(400)[1]));
                    worker.step(Now::from_secs(1));
                }
            }
        };
        flood(&mut worker, 0..1, 70);
        let kept = places.min(64);
        assert_eq!(worker.held(), kept, "{frames} frames");
        assert_eq!(drops(&worker, DropReason::FragmentQueueFull), 70 - kept as u64);
        flood(&mut worker, 1..301, 1);
        assert_eq!(worker.held(), places);
        worker.rings.put(CLIENTS, from_client(&Ip { id: 300, ..udp(CLIENT4, VIP4, &[1; 800]) }.fragments(400)[0]));
        worker.step(Now::from_secs(1));
        assert_eq!((worker.held(), sent(&mut worker, SERVERS).len()), (places - 1, 2), "the newest was kept");
        worker.finish();
        assert_eq!(worker.rings.ledger().lent, 0);
        assert_eq!(drops(&worker, DropReason::Shutdown), places as u64 - 1);
    }
}

/// A later fragment that found its first one may have to wait again, for the MAC; then it leaves behind that one.
#[test]
fn from_one_wait_to_the_next() {
    let site = Site::with_service(Method::Dr, 80);
    let hop = site.hop("10.0.0.1");
    site.shared.hops.forget(hop);
    let mut worker = workers(&site, 1, 64).remove(0);
    let [first, later] = udp(CLIENT4, VIP4, &[1; 800]).fragments(400);
    for ip in [&later, &first] {
        worker.rings.put(CLIENTS, from_client(ip));
        worker.step(Now::from_secs(1));
    }
    let counters = worker.engine.counters();
    assert_eq!((worker.held(), counters.fragments_held.get(), counters.held.get()), (2, 1, 2));
    site.shared.hops.resolve(hop, server_mac(1));
    worker.step(Now::from_secs(1));
    let offsets: Vec<_> = sent(&mut worker, SERVERS).iter().map(|frame| frame[14 + 7]).collect();
    assert_eq!(offsets, [0, 50]);
}

/// Two queues, any order, duplicates and overlaps, rings that misbehave: each fragment leaves once or is counted as
/// dropped, all of a packet go to one server, and no frame is lost.
#[test]
fn any_order_on_two_queues() {
    for seed in 1..=if cfg!(debug_assertions) { 10 } else { 100 } {
        let mut dice = FaultRings::new((), seed);
        let mut site = Site::new(1 << 12);
        for (family, vip) in VIP.iter().enumerate() {
            let service = site.add_service(Protocol::UDP, vip, "rr");
            for last in 1..=3 {
                let server = [format!("10.0.0.{last}:80"), format!("[fd00::{last}]:80")][family].clone();
                site.add_real(service, &server, [Method::Dr, Method::Tun][(last + family) % 2]);
            }
        }
        let counters = || Arc::new(Counters::new(REALS));
        let mut workers: Vec<_> = (0..2)
            .map(|number| {
                let engine = Engine::new(site.shared.clone(), site.snapshot(), counters(), number, 2);
                Worker::new(engine, FaultRings::new(memory_rings(96), seed << 8 | u64::from(number)), 16)
            })
            .collect();
        let mut came: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut servers: HashMap<(bool, u32), u8> = HashMap::new();
        let (mut total, mut left, mut now) = (0u64, 0u64, Now::from_secs(5));
        let mut waits: Vec<Vec<u8>> = Vec::new();
        for round in 0..900u16 {
            if round < 600 {
                let family = usize::from(round % 2);
                let client = [format!("198.51.100.7:{}", 2000 + round), format!("[2001:db8:c::7]:{}", 2000 + round)];
                let packet = Ip { id: round, ..udp(&client[family], VIP[family], &vec![round as u8; 600]) };
                let mut pieces = packet.fragments_at(&[200, 400]);
                pieces.push(packet.fragment(160..448)); // an overlap
                for _ in 0..dice.draw(3) {
                    pieces.push(pieces[dice.draw(4) as usize].clone());
                }
                // Later fragments are on their way when the next packets begin, and now and then the first is lost.
                let skip = usize::from(dice.draw(20) == 0);
                waits.extend(pieces.into_iter().skip(skip));
            }
            while waits.len() > if round < 600 { 12 } else { 0 } {
                let ip = waits.swap_remove(dice.draw(waits.len() as u64) as usize);
                workers[dice.draw(2) as usize].rings.inner.put(CLIENTS, from_client(&ip));
                *came.entry(ip).or_default() += 1;
                total += 1;
            }
            now = now.plus_millis(dice.draw(20));
            for _ in 0..3 {
                let worker = &mut workers[dice.draw(2) as usize];
                worker.step(now);
                let ledger = worker.rings.ledger();
                assert!(ledger.is_balanced() && ledger.lent as usize == worker.held() + worker.backlog());
                while let Some(frame) = worker.rings.inner.take(SERVERS) {
                    let mut ip = inner(&frame).split_off(14);
                    let headers = Headers::parse(&from_client(&ip)).unwrap();
                    let (Fragment::First(id) | Fragment::Later(id)) = headers.fragment else { panic!() };
                    // As it came: the TTL is one more, and the checksum follows.
                    match ip[0] >> 4 {
                        4 => {
                            ip[8] += 1;
                            let mut header = etherparse::Ipv4Header::from_slice(&ip).unwrap().0;
                            header.header_checksum = header.calc_header_checksum();
                            ip[10..12].copy_from_slice(&header.header_checksum.to_be_bytes());
                        }
                        _ => ip[7] += 1,
                    }
                    let rest = came.get_mut(&ip).filter(|rest| **rest > 0);
                    *rest.unwrap_or_else(|| panic!("seed {seed}: a fragment that never came, or twice")) -= 1;
                    let server = *servers.entry((ip[0] >> 4 == 4, id)).or_insert(frame[5]);
                    assert_eq!(server, frame[5], "seed {seed}: one packet, two servers");
                    left += 1;
                }
            }
        }
        let dropped: u64 = workers.iter().map(|worker| worker.engine.counters().dropped.get()).sum();
        assert!(workers.iter().all(|worker| worker.held() + worker.backlog() + worker.rings.inner.waiting() == 0));
        let held: u64 = workers.iter().map(|worker| worker.engine.counters().fragments_held.get()).sum();
        assert_eq!(left + dropped, total, "seed {seed}");
        assert!(held > 300 && left * 10 > total * 8, "seed {seed}: {held} waited, {left} of {total} left");
    }
}
