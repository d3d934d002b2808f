//! What a packet costs in a worker, held against a bare loop: `cargo bench -p xvs-engine --bench budget [-- FILTER]`
//! (two minutes; a filter is a part of a case's name, `dr/` or `/1M`).
//!
//! The floor ([`support::floor`]) and a whole breath of the worker ([`Worker::step`](xvs_engine::worker::Worker::step):
//! rings, parsing, hash, look-up, state, counters, rewriting, ledger, the search for expired connections) run in turn,
//! round by round, over the same frame memory layout and tables of the same size. Each round is sixteen times 4096
//! packets of random connections, in batches of 64, after 4096 that are not counted; between these the frames are
//! written anew, which is not counted on either side, because a forwarded packet is a changed one. Frames have 60 bytes,
//! the smallest on the wire. Shown are medians over the rounds, the least, and the median of the rounds' ratios; and beside the
//! same against a floor that asks for a batch's frames before it reads the first, as the worker's rings do.
#![allow(missing_docs, clippy::disallowed_methods)] // a bench has a clock

mod support;

use std::process::ExitCode;

use xvs_engine::real::Method;

use support::common::packet::{ACK, SYN};
use support::floor::Floor;
use support::load::{ARRIVALS, Load, Plan, capacity_for};
use support::stream::{SMALLEST, Stream};
use support::timing::{Random, cpu_ns, median_and_least};
use support::umem::Umem;

const ROUNDS: usize = 15;
/// Rounds against a floor that fetches frames as rings do, which is told beside.
const ROUNDS_FETCHING: usize = 5;
/// How often the frame memory is filled and emptied in a round.
const TURNS: usize = 16;
/// Budgets are those of tables that do not lie in the first caches.
const BUDGETED: u32 = 64_000;
const SIZES: [(&str, u32); 4] = [("1k", 1_000), ("64k", 64_000), ("1M", 1_000_000), ("10M", 10_000_000)];

/// Name, method, what arrives, and how many times the floor it may cost.
const CASES: [(&str, Method, Kind, f64); 6] = [
    ("dr", Method::Dr, Kind::Client, 1.5),
    ("nat_in", Method::Nat, Kind::Client, 1.8),
    ("nat_out", Method::Nat, Kind::Server, 1.8),
    ("tun", Method::Tun, Kind::Client, 1.8),
    ("new_dr", Method::Dr, Kind::New, 5.0),
    ("new_nat", Method::Nat, Kind::New, 5.0),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A client's packet of a known connection.
    Client,
    /// A server's.
    Server,
    /// A client's first packet: scheduled by `wrr` over 16 servers, and entered.
    New,
}

/// The floor, its frames and its order.
struct Ground {
    floor: Floor,
    umem: Umem,
    random: Random,
    stream: Stream,
    clients: u32,
}

impl Ground {
    fn new(clients: u32) -> Self {
        let floor = Floor::new(clients, capacity_for(clients));
        let stream = Stream::from_clients(true, ACK, SMALLEST);
        Ground { floor, umem: Umem::new(), random: Random::new(), stream, clients }
    }

    fn turn<const FETCH: bool>(&mut self) -> u64 {
        let Ground { floor, umem, random, stream, clients } = self;
        umem.arrive(Load::PORTS[0], ARRIVALS, |into| stream.write(random.below(*clients), 0, into));
        let start = cpu_ns();
        let found = floor.pass::<FETCH>(umem);
        let spent = cpu_ns() - start;
        assert_eq!(found, ARRIVALS);
        spent
    }
}

/// Nanoseconds a packet, over a round.
fn round(mut turn: impl FnMut() -> u64) -> f64 {
    turn();
    (0..TURNS).map(|_| turn()).sum::<u64>() as f64 / (TURNS * ARRIVALS) as f64
}

/// Rounds of a floor and the worker's step, in turns. `FETCH`: the floor fetches frames, too.
fn measure<const FETCH: bool>(rounds: usize, ground: &mut Ground, load: &mut Load, kind: Kind) -> Vec<(f64, f64)> {
    let streams = match kind {
        Kind::Client => [Stream::from_clients(true, ACK, SMALLEST)],
        Kind::Server => [Stream::from_servers(true, ACK, SMALLEST)],
        Kind::New => [Stream::from_clients(true, SYN, SMALLEST)],
    };
    let mut measured = Vec::new();
    for number in 0..=rounds {
        let floor = round(|| ground.turn::<FETCH>());
        let step = round(|| {
            match kind {
                Kind::New => load.arrive_new(&streams[0]),
                _ => load.arrive(&streams),
            }
            load.breathe_timed(ARRIVALS)
        });
        if number > 0 {
            measured.push((floor, step));
        } else {
            load.check_sent();
        }
        load.forget_new();
    }
    measured
}

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    let names = SIZES.iter().flat_map(|(size, _)| CASES.iter().map(move |(case, ..)| format!("{case}/{size}")));
    if !names.clone().any(|name| wanted(&name)) {
        eprintln!("{filter:?} is in no case's name; there are {}", names.collect::<Vec<_>>().join(" "));
        return ExitCode::FAILURE;
    }
    println!("nanoseconds of processor time a packet: median (least) of {ROUNDS} rounds");
    println!(
        "{:<12} {:>15} {:>15} {:>7} {:>7}  {:8}  {:>22} {:>7}",
        "case", "floor", "worker's step", "ratio", "budget", "", "floor, frames fetched", "ratio"
    );
    for (size, clients) in SIZES {
        let mut ground = None;
        let mut load: Option<(Method, Load)> = None;
        for (case, method, kind, budget) in CASES {
            let name = format!("{case}/{size}");
            if !wanted(&name) {
                continue;
            }
            let ground = ground.get_or_insert_with(|| Ground::new(clients));
            if load.as_ref().is_none_or(|(made_for, _)| *made_for != method) {
                drop(load.take()); // the memory of the last one, before the next
                let capacity = capacity_for(clients);
                load = Some((method, Load::new(Plan { method, connections: clients, capacity, ..Plan::default() })));
            }
            let Some((_, load)) = &mut load else { continue };
            let rounds = measure::<false>(ROUNDS, ground, load, kind);
            let (floor, floor_least) = median_and_least(rounds.iter().map(|(floor, _)| *floor));
            let (step, step_least) = median_and_least(rounds.iter().map(|(_, step)| *step));
            let (ratio, _) = median_and_least(rounds.iter().map(|(floor, step)| step / floor));
            let rounds = measure::<true>(ROUNDS_FETCHING, ground, load, kind);
            let (fetching, fetching_least) = median_and_least(rounds.iter().map(|(floor, _)| *floor));
            let (to_fetching, _) = median_and_least(rounds.iter().map(|(floor, step)| step / floor));
            let verdict = match ratio <= budget {
                _ if clients < BUDGETED => "(none)",
                true => "kept",
                false => "EXCEEDED",
            };
            println!(
                "{name:<12} {floor:>7.1} ({floor_least:>5.1}) {step:>7.1} ({step_least:>5.1}) {ratio:>7.2} {budget:>7.1}  {verdict:8} {fetching:>14.1} ({fetching_least:>5.1}) {to_fetching:>7.2}"
            );
        }
    }
    ExitCode::SUCCESS
}
