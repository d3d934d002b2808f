//! Several workers over one state: they must choose, count and remember as one would.

mod common;

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::packet::*;
use common::site::*;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::{Method, RealId};

/// A site with three servers, weights 4, 3 and 2, and a service on each VIP.
fn site(scheduler: &str) -> Site {
    let mut site = Site::new(1 << 14);
    for vip in [VIP4, VIP6] {
        let service = site.add_service(Protocol::UDP, vip, scheduler);
        for (last, weight) in [(1, 4), (2, 3), (3, 2)] {
            let server = if vip == VIP4 { format!("10.0.0.{last}:80") } else { format!("[fd00::{last}]:80") };
            site.add_real_with(service, &server, Method::Nat, |settings| settings.weight = weight);
        }
    }
    site
}

fn query(v4: bool, number: u32) -> Vec<u8> {
    let (host, port) = (number / 60_000, 1024 + number % 60_000);
    from_client(&match v4 {
        true => udp(&format!("198.51.100.{}:{port}", host + 1), VIP4, b"q").bytes(),
        false => udp(&format!("[2001:db8:c::{}]:{port}", host + 1), VIP6, b"q").bytes(),
    })
}

/// The last byte of the MAC that a new connection's packet went to.
fn goes_to(site: &Site, engine: &xvs_engine::engine::Engine, frame: &[u8]) -> u8 {
    let (verdict, bytes) = site.forward_by(engine, frame);
    assert_eq!(verdict, Verdict::Transmit(SERVERS));
    bytes[5]
}

/// Two workers that take turns make the same sequence of picks per service as one alone, whoever is asked.
#[test]
fn two_workers_pick_as_one() {
    for scheduler in ["rr", "wrr", "lc", "wlc"] {
        let alone = site(scheduler);
        let mut pair = site(scheduler);
        let second = pair.another_engine();
        let mut state = 7u32;
        for number in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let frame = query(state & 0x40_0000 != 0, number);
            let engine = if state & 0x80_0000 == 0 { &pair.engine } else { &second };
            let expected = goes_to(&alone, &alone.engine, &frame);
            assert_eq!(goes_to(&pair, engine, &frame), expected, "{scheduler}, connection {number}");
        }
    }
}

/// Two workers in two threads, each with clients of its own: the shares are those of the sequence to the very last
/// connection, nothing is counted twice, and each connection's later packets go where the first one went.
#[test]
fn two_threads_share_exactly() {
    const EACH: u32 = 3000; // a multiple of both blocks: 3 for rr, 9 for wrr
    for (scheduler, shares) in [("rr", [2000, 2000, 2000]), ("wrr", [2667, 2000, 1333])] {
        let site = {
            let mut site = site(scheduler);
            site.compile();
            site
        };
        let mut site = site;
        let second = site.another_engine();
        let picks: [AtomicU32; 4] = Default::default();
        let start = Barrier::new(2);
        // An engine is one worker's own: it moves into its thread.
        let first = site.another_engine();
        let (shared, now) = (site.shared.clone(), site.now);
        std::thread::scope(|scope| {
            for (thread, engine) in [first, second].into_iter().enumerate() {
                let (picks, start) = (&picks, &start);
                scope.spawn(move || {
                    start.wait();
                    for number in 0..EACH {
                        let frame = query(true, thread as u32 * EACH + number);
                        let pick = forward_alone(&engine, &frame, now);
                        picks[usize::from(pick)].fetch_add(1, Relaxed);
                        assert_eq!(forward_alone(&engine, &frame, now), pick);
                    }
                });
            }
        });
        let picked: Vec<_> = picks[1..].iter().map(|count| count.load(Relaxed)).collect();
        let near = picked.iter().zip(shares).all(|(&got, want)| got.abs_diff(want) <= 1);
        assert!(near, "{scheduler}: {picked:?}");
        assert_eq!(shared.table.len(), 2 * EACH);
        for (real, &picked) in (0..).map(RealId).zip(&picked) {
            assert_eq!(shared.arena.get(real).counts().total, picked, "{scheduler}");
        }
    }
}

fn forward_alone(engine: &xvs_engine::engine::Engine, frame: &[u8], now: xvs_engine::time::Now) -> u8 {
    let mut chunk = [0u8; 512];
    chunk[256..256 + frame.len()].copy_from_slice(frame);
    let inspected = engine.inspect(frame).unwrap();
    let mut packet = xvs_engine::wire::Packet::new(&mut chunk, 256, 256 + frame.len()).unwrap();
    assert_eq!(engine.forward(&mut packet, inspected, now), Verdict::Transmit(SERVERS));
    packet.bytes()[5]
}

/// The same new connections arrive at two workers at once (a retransmission that RSS sent elsewhere): each is
/// scheduled once, by one of them, and both send it to the same server.
#[test]
fn one_connection_on_two_queues_is_scheduled_once() {
    const FLOWS: u32 = 4000;
    let mut site = site("wrr");
    let engines = [site.another_engine(), site.another_engine()];
    let (shared, now) = (site.shared.clone(), site.now);
    let start = Barrier::new(2);
    let sent: Vec<HashMap<u32, u8>> = std::thread::scope(|scope| {
        let threads = engines.map(|engine| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                (0..FLOWS).map(|number| (number, forward_alone(&engine, &query(true, number), now))).collect()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(sent[0], sent[1]);
    assert_eq!(shared.table.len(), FLOWS);
    let total: u32 = (0..3).map(|real| shared.arena.get(RealId(real)).counts().total).sum();
    assert_eq!(total, FLOWS);
}
