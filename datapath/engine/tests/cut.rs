//! What is too large for its way is cut: the cut itself, judged by etherparse, which puts the fragments together again;
//! and the worker that sends them.

mod common;

use common::packet::*;
use common::site::*;
use etherparse::{Ipv4Header, Ipv6Header};
use proptest::collection::vec;
use proptest::prelude::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::forward::cut::Cut;
use xvs_engine::real::{Method, Path, RealId};
use xvs_engine::rings::Rings;
use xvs_engine::rings::memory::MemoryRings;
use xvs_engine::time::Now;
use xvs_engine::wire::Headers;
use xvs_engine::worker::Worker;

const RIP: [&str; 2] = ["10.0.0.1:8080", "[fd00::1]:8080"];
const TAGS: [[u8; 4]; 1] = [[0x81, 0, 0, 7]];

/// All fragments of a frame.
fn cut(whole: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
    let cut = Cut::new(whole, mtu, 0xdead_beef)?;
    let piece = |index| {
        let mut out = vec![0xee; 4096];
        let length = cut.write(index, &mut out).unwrap();
        out.truncate(length);
        assert_eq!(cut.write(index, &mut vec![0; length - 1]), None, "a frame too short");
        out
    };
    Ok((0..cut.count()).map(piece).collect())
}

/// A tunnel's packet in IPv6 with this payload.
fn tunnel6(payload: &[u8]) -> Vec<u8> {
    Ip { class: 0xb9, ..raw("fd00::fe", "fd00::1", 4, payload.to_vec()) }.bytes()
}

/// A packet with options of 12 bytes of which 8 are copied, in an Ethernet of old: every byte of every header.
#[test]
fn golden_ipv4() {
    let options = vec![0x44, 4, 5, 0, 0x83, 7, 4, 10, 0, 0, 9, 0];
    let packet = Ip { options, class: 0xb9, ..udp(CLIENT4, VIP4, &[7; 100]) }.may_fragment();
    let whole = frame(FRONT, GATEWAY, &TAGS, &packet.bytes());
    let pieces = cut(&whole, 80).unwrap();
    let payload = packet.segment();
    let mut at = 0;
    for (piece, (options, length, more)) in pieces.iter().zip([
        (&packet.options[..], 48, true),
        (&[0x83, 7, 4, 10, 0, 0, 9, 0], 48, true),
        (&[0x83, 7, 4, 10, 0, 0, 9, 0], 12, false),
    ]) {
        let (mut header, _) = Ipv4Header::from_slice(&packet.bytes()).unwrap();
        header.options = options.try_into().unwrap();
        header.set_payload_len(length).unwrap();
        header.more_fragments = more;
        header.fragment_offset = (at as u16 / 8).try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut want = Vec::new();
        header.write(&mut want).unwrap();
        want.extend(&payload[at..at + length]);
        assert_eq!(*piece, frame(FRONT, GATEWAY, &TAGS, &want), "at {at}");
        at += length;
    }
    assert_eq!((pieces.len(), at), (3, payload.len()));
}

/// The outer header of a tunnel gets a fragment header behind it.
#[test]
fn golden_ipv6() {
    let whole = to_server(1, &tunnel6(&[9; 1500]));
    let pieces = cut(&whole, 1280).unwrap();
    let mut at = 0;
    for (piece, (length, more)) in pieces.iter().zip([(1232, 1), (268, 0)]) {
        let (mut header, _) = Ipv6Header::from_slice(&whole[14..]).unwrap();
        (header.next_header, header.payload_length) = (44.into(), 8 + length as u16);
        let mut want = Vec::new();
        header.write(&mut want).unwrap();
        want.extend([4, 0, (at >> 8) as u8, at as u8 | more, 0xde, 0xad, 0xbe, 0xef]);
        want.extend(vec![9; length]);
        assert_eq!(*piece, to_server(1, &want));
        at += length;
    }
    assert_eq!((pieces.len(), at), (2, 1500));
}

/// What can not be cut is refused by name: a way too narrow, an IPv6 packet with headers of its own, an end behind 64 KiB.
#[test]
fn refusals() {
    let packet = udp(CLIENT4, VIP4, &[1; 500]).may_fragment();
    let whole = from_client(&packet.bytes());
    for (mtu, pieces) in
        [(0, Err(DropReason::NeedsFragmentation)), (27, Err(DropReason::NeedsFragmentation)), (28, Ok(64))]
    {
        assert_eq!(cut(&whole, mtu).map(|pieces| pieces.len()), pieces, "{mtu}");
    }
    let fragment = from_client(&udp(CLIENT6, VIP6, &[1; 500]).fragments(200)[0]);
    assert_eq!(cut(&fragment, 100), Err(DropReason::NeedsFragmentation));
    let mut last = from_client(&packet.fragment(0..504));
    last[20..22].copy_from_slice(&0x1fffu16.to_be_bytes()); // offset 65528
    assert_eq!(cut(&last, 100), Err(DropReason::Malformed));
    assert_eq!(cut(&whole[..30], 100), Err(DropReason::Truncated));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the size, the options and the way: the fragments fit it, all but the last carry whole units and as much
    /// as fits, their checksums are right, and in any order they make up the packet again.
    #[test]
    fn any_packet_comes_together_again(
        payload in vec(any::<u8>(), 0..3000), options in vec(any::<u8>(), 0..=10), mtu in 68usize..1600,
        order in any::<prop::sample::Index>(), v4 in any::<bool>(), id in any::<u16>(),
    ) {
        // Options as they come, mostly malformed: lists of them are the golden test's.
        let options = options.iter().flat_map(|&kind| [kind, 4, 1, 1]).collect();
        let whole = match v4 {
            true => to_server(1, &Ip { options, id, ..udp(CLIENT4, VIP4, &payload) }.bytes()),
            false => to_server(1, &tunnel6(&payload)),
        };
        let headers = Headers::parse(&whole).unwrap();
        let mut pieces = cut(&whole, mtu).unwrap();
        for (number, piece) in pieces.iter().enumerate() {
            prop_assert!(!v4 || verify(piece).is_ok(), "{:?}", verify(piece));
            let parsed = Headers::parse(piece).unwrap();
            prop_assert!(parsed.ip_len() <= mtu);
            prop_assert_eq!(parsed.end, piece.len());
            if number + 1 < pieces.len() {
                prop_assert_eq!((parsed.end - parsed.l4) % 8, 0);
                prop_assert!(parsed.ip_len() + 8 > mtu, "as few as can be");
            }
        }
        if pieces.len() > 1 {
            let by = order.index(pieces.len());
            pieces.rotate_left(by);
            prop_assert_eq!(reassemble(&pieces).unwrap(), &whole[headers.l4..headers.end]);
        } else if v4 {
            prop_assert_eq!(Headers::parse(&pieces[0]).unwrap().ip_len(), headers.ip_len());
            prop_assert!(!Headers::parse(&pieces[0]).unwrap().dont_fragment(&pieces[0]));
        }
    }

    /// Fragments that are cut again, for a narrower way, are fragments of the same packet.
    #[test]
    fn fragments_are_cut_further(
        payload in vec(any::<u8>(), 100..3000), first in 500usize..1600, then in 68usize..500,
    ) {
        let packet = udp(CLIENT4, VIP4, &payload).may_fragment();
        let pieces = cut(&to_server(1, &packet.bytes()), first).unwrap();
        let smaller: Vec<_> = pieces.iter().flat_map(|piece| cut(piece, then).unwrap()).collect();
        prop_assert!(smaller.iter().all(|piece| piece.len() <= 14 + then));
        if smaller.len() > 1 {
            prop_assert_eq!(reassemble(smaller.iter().rev()).unwrap(), packet.segment());
        }
    }
}

/// A worker of a site with a narrow way to the server, `spare` frames for cutting, and the hop of the server.
fn worker(site: Site, mtu: u32, spare: usize) -> Worker<MemoryRings> {
    for (real, server) in (0..).map(RealId).zip(["10.0.0.1", "10.0.0.1", "fd00::1", "fd00::1"]) {
        let record = site.shared.arena.get(real);
        let source = record.source();
        record.set_path(Path::Hop(site.hop(server)), mtu, source);
    }
    worker_by(site, spare, 16)
}

/// The same with the ways as they are, and this many frames in a breath.
fn worker_by(site: Site, spare: usize, batch: usize) -> Worker<MemoryRings> {
    let mut rings = memory_rings(64);
    rings.set_spare(spare);
    site.into_worker(rings, batch)
}

/// One breath with these frames, and what was sent.
fn breathe(worker: &mut Worker<MemoryRings>, from: xvs_engine::hop::Port, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    for frame in frames {
        worker.rings.put(from, frame.clone());
    }
    worker.step(Now::from_secs(1));
    let to = if from == CLIENTS { SERVERS } else { CLIENTS };
    let sent = std::iter::from_fn(|| worker.rings.take(to)).collect();
    assert!(worker.rings.ledger().is_balanced());
    let counters = worker.engine.counters();
    let extra = counters.fragments_made.get() - counters.split.get();
    assert_eq!(
        counters.received.get() + counters.icmp_sent.get() + extra,
        counters.transmitted.get() + counters.dropped.get() + (worker.held() + worker.backlog()) as u64
    );
    sent
}

fn drops(worker: &Worker<MemoryRings>, reason: DropReason) -> u64 {
    worker.engine.counters().drops(reason)
}

/// A large datagram with and without a checksum, NAT in and out: what comes together at the other end is the translated
/// datagram, with the checksum that IPVS gives it.
#[test]
fn nat_cuts_both_ways() {
    for checksum in [true, false] {
        let mut site = Site::with_service(Method::Nat, 8080);
        site.interfaces[0].mtu = 1004;
        site.compile();
        let mut worker = worker(site, 1004, 8);
        let packet = udp(CLIENT4, VIP4, &[0x3c; 1472]).may_fragment();
        let came = if checksum { packet.clone() } else { packet.clone().no_checksum() };
        let sent = breathe(&mut worker, CLIENTS, &[from_client(&came.bytes())]);
        assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 1004, 14 + 516]);
        assert_eq!(reassemble(&sent).unwrap(), packet.to(RIP[0]).segment());
        assert!(sent.iter().all(|piece| piece[..6] == server_mac(1) && piece[14 + 8] == 63));

        let answer = udp(RIP[0], CLIENT4, &[0xc3; 1001]).may_fragment();
        let came = if checksum { answer.clone() } else { answer.clone().no_checksum() };
        let sent = breathe(&mut worker, SERVERS, &[from_server(1, &came.bytes())]);
        assert_eq!(sent.len(), 2);
        assert_eq!(reassemble(&sent).unwrap(), answer.from(VIP4).segment());
        assert_eq!((worker.engine.counters().split.get(), worker.engine.counters().fragments_made.get()), (2, 4));
    }
}

/// By every method, over both families of tunnel: the packet that comes together is what would have left uncut. A
/// fragment that is too large is cut further.
#[test]
fn every_method_cuts() {
    let packet = udp(CLIENT4, VIP4, &[0x5a; 1400]).may_fragment();
    let [first, later] = packet.fragments(1200);
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let mut worker = worker(Site::with_service(method, 8080), 700, 8);
        let sent = breathe(&mut worker, CLIENTS, &[from_client(&packet.bytes())]);
        assert!(sent.len() > 1 && sent.iter().all(|piece| piece.len() <= 714 && verify(piece).is_ok()));
        let whole = reassemble(&sent).unwrap();
        let want = if method == Method::Nat { packet.clone().to(RIP[0]) } else { packet.clone() };
        let want = want.ttl(63);
        assert_eq!(whole, if method == Method::Tun { want.bytes() } else { want.segment() }, "{method:?}");

        let sent = breathe(&mut worker, CLIENTS, &[from_client(&first), from_client(&later)]);
        match method {
            Method::Tun => {
                let (outer, last) = sent.split_at(sent.len() - 1);
                assert_eq!(reassemble(outer).unwrap(), want.fragment(0..1200));
                assert_eq!(last[0][34..], want.fragment(1200..1408));
            }
            _ => assert_eq!(reassemble(&sent).unwrap(), want.segment()),
        }
    }
    // The same through IPv6.
    let mut site = Site::new(1 << 10);
    let service = site.add_service(xvs_engine::flow::Protocol::UDP, VIP4, "rr");
    site.add_real(service, "[fd00::1]:80", Method::Tun);
    let mut worker = worker_by(site, 8, 16);
    let packet = packet.payload([0x5a; 1472]);
    let sent = breathe(&mut worker, CLIENTS, &[from_client(&packet.bytes()), from_client(&packet.bytes())]);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1514 - 4, 114, 1514 - 4, 114]);
    assert_eq!(reassemble(&sent[..2]).unwrap(), packet.clone().ttl(63).bytes());
    assert_eq!(reassemble(&sent[2..]).unwrap(), packet.ttl(63).bytes());
    assert_ne!(sent[0][58..62], sent[2][58..62], "another packet, another identification");
}

/// "Don't fragment" is the client's word about its own packet: with `pmtu_disc` off the tunnel's packet is cut all the
/// same, but never an IPv6 packet, nor one without a tunnel.
#[test]
fn the_tunnel_may_hide_its_mtu() {
    for (method, packet, cut) in [
        (Method::Tun, udp(CLIENT4, VIP4, &[1; 1400]), true),
        (Method::Tun, udp(CLIENT6, VIP6, &[1; 1400]), false),
        (Method::Nat, udp(CLIENT4, VIP4, &[1; 1400]), false),
        (Method::Dr, udp(CLIENT4, VIP4, &[1; 1400]), false),
    ] {
        let site = Site::with_service(method, 8080);
        let shared = site.shared.clone();
        let mut worker = worker(site, 1400, 8);
        for off in [false, true] {
            shared.switches.pmtu_disc.set(u32::from(!off));
            let sent = breathe(&mut worker, CLIENTS, &[from_client(&packet.bytes())]);
            assert_eq!(sent.len(), if off && cut { 2 } else { 0 }, "{method:?}");
            if off && cut {
                assert_eq!(reassemble(&sent).unwrap(), packet.clone().ttl(63).bytes());
            }
        }
    }
}

/// An ICMP error is cut as well if it may be.
#[test]
fn errors_are_cut() {
    let mut worker = worker(Site::with_service(Method::Nat, 8080), 500, 8);
    let _ = breathe(&mut worker, CLIENTS, &[from_client(&udp(CLIENT4, VIP4, b"q").bytes())]);
    let answer = udp(VIP4, CLIENT4, &[5; 500]).bytes();
    let error = icmp_error("203.0.113.77", "192.0.2.1", [3, 1], 0, &answer);
    let sent = breathe(&mut worker, CLIENTS, &[from_client(&error.bytes())]);
    assert_eq!(sent.len(), 2);
    let quoted = udp(RIP[0], CLIENT4, &[5; 500]).bytes();
    let seen = reassemble(&sent).unwrap();
    assert_eq!(seen[8..28], quoted[..20]);
    assert_eq!(seen.len(), 8 + quoted.len());
}

/// All fragments or none: without frames for them, without room before the device, or on a way too narrow the packet is
/// dropped by name, and every frame is where it belongs.
#[test]
fn no_half_packets() {
    let packet = from_client(&udp(CLIENT4, VIP4, &[1; 1400]).may_fragment().bytes());
    for (mtu, spare, reason) in [
        (500, 1, DropReason::NoSpareFrame),
        (500, 0, DropReason::NoSpareFrame),
        (40, 60, DropReason::NeedsFragmentation),
    ] {
        let mut worker = worker(Site::with_service(Method::Dr, 80), mtu, spare);
        assert!(breathe(&mut worker, CLIENTS, std::slice::from_ref(&packet)).is_empty());
        assert_eq!((drops(&worker, reason), worker.rings.ledger().lent), (1, 0), "{mtu}");
    }
    let mut worker = worker(Site::with_service(Method::Dr, 80), 500, 20);
    let three = breathe(&mut worker, CLIENTS, std::slice::from_ref(&packet));
    assert_eq!(three.len(), 3, "and with all of that it is cut");

    let mut worker = worker_by(Site::with_service(Method::Tun, 80), 20, 2);
    worker.rings.set_room(SERVERS, 0);
    let small = from_client(&udp(CLIENT4, VIP4, b"q").bytes());
    let large = from_client(&udp(CLIENT4, VIP4, &[1; 1472]).may_fragment().bytes());
    for _ in 0..4 {
        assert!(breathe(&mut worker, CLIENTS, &[small.clone(), small.clone()]).is_empty());
    }
    assert_eq!(worker.backlog(), 8, "four batches");
    worker.rings.set_room(SERVERS, 1);
    assert_eq!(breathe(&mut worker, CLIENTS, &[]).len(), 1);
    worker.rings.set_room(SERVERS, 0);
    assert!(breathe(&mut worker, CLIENTS, std::slice::from_ref(&large)).is_empty());
    assert_eq!((drops(&worker, DropReason::TransmitFull), worker.backlog()), (1, 7), "there is room for one of two");
    worker.rings.set_room(SERVERS, 10);
    assert_eq!(breathe(&mut worker, CLIENTS, &[]).len(), 7);
    assert_eq!(breathe(&mut worker, CLIENTS, &[large]).len(), 2);
}

/// What is too large waits for a MAC in one piece, and is cut when it leaves.
#[test]
fn cut_after_the_wait() {
    let site = Site::with_service(Method::Dr, 80);
    let (hop, shared) = (site.hop("10.0.0.1"), site.shared.clone());
    shared.hops.forget(hop);
    let mut worker = worker(site, 1000, 8);
    let packet = udp(CLIENT4, VIP4, &[1; 1400]).may_fragment();
    assert!(breathe(&mut worker, CLIENTS, &[from_client(&packet.bytes())]).is_empty());
    assert_eq!(worker.held(), 1);
    shared.hops.resolve(hop, server_mac(0x77));
    let sent = breathe(&mut worker, CLIENTS, &[]);
    assert!(sent.len() == 2 && sent.iter().all(|piece| piece[..6] == server_mac(0x77)));
    assert_eq!(reassemble(&sent).unwrap(), packet.segment());
}

/// The engine's word on a packet that fits exactly and on one that is a byte too long.
#[test]
fn the_mtu_is_exact() {
    let site = Site::with_service(Method::Dr, 80);
    for (size, verdict) in [(1500, Verdict::Transmit(SERVERS)), (1501, Verdict::Split { port: SERVERS, mtu: 1500 })] {
        let packet = udp(CLIENT4, VIP4, &vec![1; size - 28]).may_fragment();
        assert_eq!(site.forward(&from_client(&packet.bytes())).0, verdict);
    }
}
