//! What a packet costs, step by step and as a whole: `cargo bench -p xvs-engine` (under three minutes).
//!
//! Everything runs on one core with warm caches, except `lookup/1m`, whose flows do not fit any cache. A `forward` case
//! includes a copy of the frame into its chunk (a few ns), because a forwarded packet is a changed one. Numbers of
//! different machines say nothing about each other: compare within one run.
#![allow(missing_docs, clippy::disallowed_methods)] // criterion's macros make items of their own; a bench has a clock

#[path = "../tests/common/mod.rs"]
mod common;

use std::cell::OnceCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::packet::*;
use common::site::*;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xvs_engine::conn::{Flags, NewConn, Status, Table};
use xvs_engine::engine::Verdict;
use xvs_engine::flow::{Address, Endpoint, Flow, HashKey, Protocol};
use xvs_engine::mark::{Marks, Prefix, Rule};
use xvs_engine::real::{Method, Path, RealId};
use xvs_engine::rings::memory::HEADROOM;
use xvs_engine::time::Now;
use xvs_engine::tunnel::{GueChecksum, Tunnel};
use xvs_engine::wire::{Headers, Packet};

/// A chunk of frame memory and the frame that is put into it again and again.
struct Chunk {
    bytes: Vec<u8>,
    frame: Vec<u8>,
}

impl Chunk {
    fn new(frame: Vec<u8>) -> Self {
        Chunk { bytes: vec![0; 2048], frame }
    }

    fn forward(&mut self, site: &Site) -> Verdict {
        let (start, end) = (HEADROOM, HEADROOM + self.frame.len());
        self.bytes[start..end].copy_from_slice(&self.frame);
        let inspected = match site.engine.inspect(&self.bytes[start..end]) {
            Ok(inspected) => inspected,
            Err(reason) => return Verdict::Drop(reason),
        };
        match Packet::new(&mut self.bytes, start, end) {
            Some(mut packet) => site.engine.forward(&mut packet, inspected, site.now),
            None => unreachable!("the frame is in the chunk"),
        }
    }
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, packet) in [("tcp4", tcp(CLIENT4, VIP4, ACK)), ("tcp6", tcp(CLIENT6, VIP6, ACK))] {
        let frame = from_client(&packet.bytes());
        group.bench_function(name, |bencher| bencher.iter(|| Headers::parse(black_box(&frame))));
    }
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for (name, count) in [("1k", 1_000), ("1m", 1_000_000)] {
        let table = OnceCell::new();
        let mut number = 1u32;
        group.bench_function(name, |bencher| {
            let table = table.get_or_init(|| table_of(count));
            bencher.iter(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let flow = flow(((u64::from(number) * u64::from(count)) >> 32) as u32);
                table.lookup(&flow, table.hash(&flow)).map(|(conn, _)| conn.real())
            })
        });
    }
}

fn flow(number: u32) -> Flow {
    Flow {
        protocol: Protocol::TCP,
        src: Endpoint::new(Address::v4((0x0b00_0000 + number / 1000).to_be_bytes()), number as u16),
        dst: Endpoint::new(Address::v4([192, 0, 2, 1]), 80),
    }
}

/// A full table: as many connections as fit, all by NAT, so that each has two keys in the index.
fn table_of(count: u32) -> Table {
    let table = Table::new(count, HashKey::from_bytes([0x5a; 32]));
    for number in 0..count {
        let new = NewConn {
            flow: flow(number),
            server: Endpoint::new(Address::v4([10, 0, 0, 1]), 80),
            real: RealId(0),
            service: 0,
            status: Status { state: 1, flags: Flags::new(Method::Nat) },
            timeout_s: 900,
            reply_path: Path::NoRoute,
            class: 0,
            parent: None,
        };
        assert!(table.insert(&new, table.hash(&new.flow), Now::from_secs(1)).is_ok());
    }
    table
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    let gue = |checksum| Tunnel::Gue { port: 6080, checksum };
    for (name, method, tunnel) in [
        ("dr", Method::Dr, Tunnel::Ipip),
        ("nat_in", Method::Nat, Tunnel::Ipip),
        ("nat_out", Method::Nat, Tunnel::Ipip),
        ("tun", Method::Tun, Tunnel::Ipip),
        ("tun_gue", Method::Tun, gue(GueChecksum::None)),
        ("tun_gue_csum", Method::Tun, gue(GueChecksum::Full)),
        ("tun_gre", Method::Tun, Tunnel::Gre { checksum: false }),
        ("tun_gre_csum", Method::Tun, Tunnel::Gre { checksum: true }),
    ] {
        let site = Site::with_tunnel(method, tunnel, 8080);
        let payload = [0; 6]; // a 60-byte frame, the smallest on the wire
        for flags in [SYN, ACK] {
            let frame = from_client(&tcp(CLIENT4, VIP4, flags).payload(payload).bytes());
            assert_eq!(Chunk::new(frame).forward(&site), Verdict::Transmit(SERVERS));
        }
        let frame = match name {
            "nat_out" => from_server(1, &tcp("10.0.0.1:8080", CLIENT4, ACK).payload(payload).bytes()),
            _ => from_client(&tcp(CLIENT4, VIP4, ACK).payload(payload).bytes()),
        };
        let mut chunk = Chunk::new(frame);
        group.bench_function(BenchmarkId::new(name, "hit"), |bencher| bencher.iter(|| chunk.forward(&site)));
    }
}

/// New connections, in blocks that are removed while the clock stands still. (There is no `nat_out/miss`: a server's
/// packet opens nothing.)
fn misses(criterion: &mut Criterion) {
    const BLOCK: u64 = 1 << 14;
    let mut group = criterion.benchmark_group("forward");
    for (name, method) in [("dr", Method::Dr), ("nat_in", Method::Nat), ("tun", Method::Tun)] {
        let mut site = Site::new(1 << 15);
        let service = site.add_service(Protocol::TCP, VIP4, "wrr");
        for last in 1..=4 {
            site.add_real_with(service, &format!("10.0.0.{last}:8080"), method, |real| real.weight = last);
        }
        let frames: Vec<_> = (0..BLOCK)
            .map(|number| {
                let client = format!("198.51.{}.7:{}", number >> 12, 1024 + (number & 0xfff));
                from_client(&tcp(&client, VIP4, SYN).payload([0; 6]).bytes())
            })
            .collect();
        let mut chunk = Chunk::new(frames[0].clone());
        group.bench_function(BenchmarkId::new(name, "miss"), |bencher| {
            bencher.iter_custom(|mut count| {
                let mut spent = Duration::ZERO;
                while count > 0 {
                    let block = count.min(BLOCK);
                    count -= block;
                    let start = Instant::now();
                    for frame in &frames[..block as usize] {
                        chunk.frame.copy_from_slice(frame);
                        let _ = black_box(chunk.forward(&site));
                    }
                    spent += start.elapsed();
                    let table = &site.shared.table;
                    for mut conn in table.iter() {
                        table.remove(&mut conn);
                        site.shared.settle(&conn);
                    }
                }
                spent
            })
        });
        assert_eq!(site.engine.counters().drops(xvs_engine::drop::DropReason::TableFull), 0);
    }
}

/// A pick with the service's lock, as a new connection pays for it; nothing is counted, so the load stays as it is.
fn schedule(criterion: &mut Criterion) {
    for scheduler in ["rr", "wrr", "lc", "wlc"] {
        let mut group = criterion.benchmark_group(format!("schedule/{scheduler}"));
        for servers in [4u32, 16, 256] {
            let mut site = Site::new(16);
            let service = site.add_service(Protocol::TCP, VIP4, scheduler);
            for number in 0..servers {
                let server = format!("10.0.{}.{}:80", number >> 8, number & 255);
                let real = site.add_real_with(service, &server, Method::Dr, |real| real.weight = 1 + number as i32 % 7);
                for _ in 0..number * 37 % 100 {
                    site.shared.arena.get(real).bind();
                }
            }
            let request = xvs_sdk::Request::default();
            group.bench_function(servers.to_string(), |bencher| {
                bencher.iter(|| site.services[service].turn().pick(&site.shared.arena, &request))
            });
        }
    }
}

/// A breath of a full batch; the time is that of a packet.
/// The mark of a new connection among a thousand rules: each for an address of its own, or each for a port of the one
/// address that is asked for.
fn mark(criterion: &mut Criterion) {
    let rule = |number: u32, last: u8, port: u16| Rule {
        mark: number + 1,
        destination: Prefix::new(Address::v4([192, 0, (number >> 8) as u8, last]), 32),
        source: None,
        protocol: None,
        ports: vec![(port, port)],
    };
    let apart: Vec<Rule> = (0..1000).map(|number| rule(number, number as u8, 80)).collect();
    let together: Vec<Rule> = (0..1000).map(|number| rule(0, 0, 80 + number)).collect();
    let mut group = criterion.benchmark_group("mark");
    for (name, rules, port) in [("addresses", apart, 80), ("ports", together, 1079)] {
        let marks = Marks::new(rules);
        let src = Endpoint::new(Address::v4([198, 51, 100, 7]), 40000);
        let dst = Endpoint::new(Address::v4([192, 0, 0, 0]), port);
        let flow = Flow { protocol: Protocol::TCP, src, dst };
        assert_eq!(marks.of(&flow), 1);
        group.bench_function(name, |bencher| bencher.iter(|| marks.of(black_box(&flow))));
    }
}

fn step(criterion: &mut Criterion) {
    const BATCH: usize = 64;
    let site = Site::with_service(Method::Dr, 80);
    let now = site.now;
    let frames: Vec<_> =
        (0..BATCH).map(|n| from_client(&udp(&format!("198.51.100.7:{}", 5000 + n), VIP4, &[0; 18]).bytes())).collect();
    let mut worker = site.into_worker(memory_rings(256), BATCH);
    let mut group = criterion.benchmark_group("worker/step");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("dr", |bencher| {
        bencher.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                for frame in &frames {
                    worker.rings.put(CLIENTS, frame.clone());
                }
                let start = Instant::now();
                let received = worker.step(now);
                spent += start.elapsed();
                assert_eq!(received, BATCH);
                while worker.rings.take(SERVERS).is_some() {}
            }
            spent
        })
    });
}

fn config() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().sample_size(20).warm_up_time(second / 2).measurement_time(second).without_plots()
}

criterion_group! { name = benches; config = config(); targets = parse, lookup, hits, misses, schedule, mark, step }
criterion_main!(benches);
