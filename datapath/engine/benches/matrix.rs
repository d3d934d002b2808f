//! What a packet costs in a worker, by what it is and how many connections there are: `cargo bench -p xvs-engine --bench
//! matrix [-- FILTER]` (some minutes; a filter is a part of a row's name, `new` or `nat_in`). Prints a table in Markdown.
//!
//! A figure is the processor time of a whole breath ([`Worker::step`](xvs_engine::worker::Worker::step), every count kept)
//! for each packet of it: the median of the rounds. A round is eight times 4096 packets of random connections, after 4096
//! that are not counted; rows of the same director are measured in turn. Writing the frames anew between these is not
//! counted. Allocations are counted over all of it, and must be none.
//!
//! Not here: what the figures may be (`budget.rs`, `instructions.rs`), and plugins (the host's benches).
#![allow(missing_docs, clippy::disallowed_methods)] // a bench has a clock

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::ExitCode;

use support::common::counting::{Counting, allocations};
use support::common::packet::{ACK, SYN};
use support::load::{ARRIVALS, BATCH, Load, Plan, capacity_for};
use support::stream::{LONGEST, LONGEST_INSIDE, SMALLEST, Stream, imix};
use support::timing::{cpu_ns, median_and_least};
use xvs_engine::real::Method;
use xvs_engine::wire::Headers;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 9;
/// How often the frame memory is filled and emptied in a round.
const TURNS: usize = 8;
const SIZES: [(&str, u32); 4] = [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000), ("10M", 10_000_000)];
/// The number of connections for what is measured with one number of them only.
const MIDDLE: usize = 1;

/// A row of the table.
struct Row {
    name: String,
    batch: usize,
    streams: Vec<Stream>,
    /// Are these first packets of new connections?
    opens: bool,
}

fn row(name: &str, streams: Vec<Stream>) -> Row {
    Row { name: name.to_owned(), batch: BATCH, streams, opens: false }
}

/// Figures by row (in the order of their coming) and column.
#[derive(Default)]
struct Figures {
    order: Vec<String>,
    times: BTreeMap<(String, usize), f64>,
    allocations: BTreeMap<String, u64>,
}

impl Figures {
    fn add(&mut self, row: &str, column: usize, time: f64, allocations: u64) {
        if !self.order.iter().any(|known| known == row) {
            self.order.push(row.to_owned());
        }
        self.times.insert((row.to_owned(), column), time);
        *self.allocations.entry(row.to_owned()).or_default() += allocations;
    }

    fn print(&self) {
        println!("\nns a packet, by live connections, and allocations\n");
        println!("| packet | {} | allocations |", SIZES.map(|(name, _)| name).join(" | "));
        println!("| --- |{} --- |", " --- |".repeat(SIZES.len()));
        for name in &self.order {
            let time = |column| self.times.get(&(name.clone(), column)).map(|time| format!("{time:.0}"));
            let times: Vec<_> = (0..SIZES.len()).map(|column| time(column).unwrap_or_default()).collect();
            println!("| {name} | {} | {} |", times.join(" | "), self.allocations[name]);
        }
    }
}

/// Measures rows at one director, in turn.
fn measure(
    figures: &mut Figures,
    plan: Plan<'static>,
    column: usize,
    mut rows: Vec<Row>,
    wanted: &dyn Fn(&str) -> bool,
) {
    rows.retain(|row| wanted(&row.name));
    if rows.is_empty() {
        return;
    }
    let connections = SIZES[column].1;
    let mut load = Load::new(Plan { connections, capacity: capacity_for(connections), ..plan });
    let mut times = vec![Vec::new(); rows.len()];
    for number in 0..=ROUNDS {
        for (row, times) in rows.iter().zip(&mut times) {
            load.worker.rings.batch = row.batch;
            let (time, allocated) = round(&mut load, row);
            if number == 0 {
                load.check_sent(); // and what grows once has grown
            } else {
                times.push(time);
                figures.add(&row.name, column, 0.0, allocated);
            }
        }
    }
    for (row, times) in rows.iter().zip(times) {
        figures.add(&row.name, column, median_and_least(times).0, 0);
    }
    eprintln!("{}: {:?} done", SIZES[column].0, plan.method);
}

/// Nanoseconds a packet, and allocations.
fn round(load: &mut Load, row: &Row) -> (f64, u64) {
    let (mut time, mut allocated) = (0, 0);
    for turn in 0..=TURNS {
        match row.opens {
            true => load.arrive_new(&row.streams[0]),
            false => load.arrive(&row.streams),
        }
        let (count, spent) = allocations(|| load.breathe_timed(ARRIVALS));
        if turn > 0 {
            (time, allocated) = (time + spent, allocated + count);
        }
    }
    load.forget_new();
    (time as f64 / (TURNS * ARRIVALS) as f64, allocated)
}

/// Packets of known connections by one method.
fn hits(is_v4: bool, method: Method, column: usize) -> Vec<Row> {
    let client = |length| vec![Stream::from_clients(is_v4, ACK, length)];
    let server = |length| vec![Stream::from_servers(is_v4, ACK, length)];
    let family = if is_v4 { "" } else { " IPv6" };
    let longest =
        if method == Method::Tun { if is_v4 { LONGEST_INSIDE } else { LONGEST_INSIDE - 20 } } else { LONGEST };
    let name = match method {
        Method::Nat => "nat_in",
        Method::Tun => "tun",
        Method::Dr | Method::Bypass => "dr",
    };
    let mut rows = vec![
        row(&format!("{name}{family}, smallest"), client(SMALLEST)),
        row(&format!("{name}{family}, largest"), client(longest)),
    ];
    if method == Method::Nat {
        rows.push(row(&format!("nat_out{family}, smallest"), server(SMALLEST)));
        rows.push(row(&format!("nat_out{family}, largest"), server(longest)));
    }
    if is_v4 && column == MIDDLE {
        let mut more = |name: &str, stream: &dyn Fn(usize) -> Stream| {
            rows.push(row(&format!("{name}, IMIX"), imix(|length| stream(length.min(longest)))));
            rows.extend(
                [1, 8, 32]
                    .map(|batch| Row { batch, ..row(&format!("{name}, batch of {batch}"), vec![stream(SMALLEST)]) }),
            );
        };
        more(name, &|length| Stream::from_clients(true, ACK, length));
        if method == Method::Nat {
            more("nat_out", &|length| Stream::from_servers(true, ACK, length));
        }
    }
    rows
}

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    let mut figures = Figures::default();
    for column in 0..SIZES.len() {
        for is_v4 in [true, false] {
            for method in [Method::Dr, Method::Nat, Method::Tun] {
                let plan = Plan { is_v4, method, ..Plan::default() };
                measure(&mut figures, plan, column, hits(is_v4, method, column), &wanted);
            }
        }
    }
    let opening =
        |name: String, is_v4| Row { opens: true, ..row(&name, vec![Stream::from_clients(is_v4, SYN, SMALLEST)]) };
    for (scheduler, servers) in [("rr", 16), ("wrr", 16), ("wlc", 16), ("wlc", 256), ("mh", 16)] {
        let plan = Plan { scheduler, servers, ..Plan::default() };
        let name = format!("new by dr, {scheduler} of {servers}");
        measure(&mut figures, plan, MIDDLE, vec![opening(name, true)], &wanted);
    }
    for (is_v4, method, name) in [
        (true, Method::Nat, "new by nat, wrr of 16"),
        (true, Method::Tun, "new by tun, wrr of 16"),
        (false, Method::Nat, "new by nat IPv6, wrr of 16"),
    ] {
        let plan = Plan { is_v4, method, ..Plan::default() };
        measure(&mut figures, plan, MIDDLE, vec![opening(name.to_owned(), is_v4)], &wanted);
    }
    if figures.order.is_empty() && !wanted("parse") {
        eprintln!("{filter:?} is in no row's name; without a filter all rows are measured, and named");
        return ExitCode::FAILURE;
    }
    figures.print();
    if wanted("parse") {
        println!(
            "\nparse, the same frame again and again: TCP/IPv4 {:.1} ns, TCP/IPv6 {:.1} ns",
            parse(true),
            parse(false)
        );
    }
    let allocated: u64 = figures.allocations.values().sum();
    assert_eq!(allocated, 0, "the packet path allocates");
    ExitCode::SUCCESS
}

fn parse(is_v4: bool) -> f64 {
    let mut frame = [0; 128];
    let length = Stream::from_clients(is_v4, ACK, SMALLEST).write(7, 0, &mut frame);
    let round = |_| {
        let start = cpu_ns();
        for _ in 0..TURNS * ARRIVALS {
            assert!(black_box(Headers::parse(black_box(&frame[..length]))).is_ok());
        }
        (cpu_ns() - start) as f64 / (TURNS * ARRIVALS) as f64
    };
    median_and_least((0..ROUNDS).map(round)).0
}
