//! How often a packet meets a page whose place the processor does not remember (misses of the TLB), in the worker and in
//! the bare loop: `cargo bench -p xvs-engine --bench pages [-- CONNECTIONS...]` (minutes; most go into opening the
//! connections).
//!
//! A cache whose lines are pages is a TLB, so callgrind's simulated caches count it, without hardware counters and the
//! same in every run. Twice: with all memory on pages of 4 KiB, and all on pages of 2 MiB. A director is between: its
//! tables lie on huge pages where the kernel gives them (`lines.rs`), its frames if they are reserved, the rest does not.
//! "L1" and "L2" are the two levels that processors have; each miss of the second is a walk through the page tables.
//!
//! Counted are 4096 packets of random connections a case, after as many that are not, as in `instructions.rs`. Not
//! counted: what a prefetch alone misses (it is no access to valgrind; the access that follows counts), and pages of code.
#![allow(missing_docs, clippy::disallowed_methods)] // a bench starts processes

mod support;

use std::process::ExitCode;

use support::callgrind::{case_ends, count};
use support::common::packet::{ACK, SYN};
use support::floor::Floor;
use support::load::{ARRIVALS, Load, Plan, capacity_for};
use support::stream::{SMALLEST, Stream};
use support::timing::Random;
use support::umem::Umem;
use xvs_engine::real::Method;

/// Live connections, if nothing is said.
const CONNECTIONS: [u32; 3] = [32_768, 65_536, 1_000_000];
/// Data: 64 pages, and 2048 behind them.
const SMALL: [&str; 3] = ["--I1=262144,4,4096", "--D1=262144,4,4096", "--LL=8388608,8,4096"];
/// Data: 32 pages, and 512 behind them, which is 1 GiB, the most that valgrind simulates.
const HUGE: [&str; 3] = ["--I1=16777216,8,2097152", "--D1=67108864,4,2097152", "--LL=1073741824,8,2097152"];

fn floor(connections: u32) {
    let floor = Floor::new(connections, capacity_for(connections));
    let (mut umem, mut random) = (Umem::new(), Random::new());
    let stream = Stream::from_clients(true, ACK, SMALLEST);
    let mut arrive = |umem: &mut Umem| {
        umem.arrive(Load::PORTS[0], ARRIVALS, |into| stream.write(random.below(connections), 0, into));
    };
    arrive(&mut umem);
    assert_eq!(floor.pass::<false>(&mut umem), ARRIVALS);
    arrive(&mut umem);
    floor.counted_pass(&mut umem, ARRIVALS);
    case_ends("floor");
}

/// Packets of known connections, from where the names say; then new ones, scheduled by `wrr` over 16 servers.
fn director(connections: u32, method: Method, hits: &[(&str, Stream)], new: &str) {
    let capacity = capacity_for(connections);
    let mut load = Load::new(Plan { method, connections, capacity, ..Plan::default() });
    for (name, stream) in hits {
        let stream = std::slice::from_ref(stream);
        load.arrive(stream);
        load.breathe(ARRIVALS);
        load.check_sent();
        load.arrive(stream);
        load.breathe_counted(ARRIVALS);
        case_ends(name);
    }
    let stream = Stream::from_clients(true, SYN, SMALLEST);
    load.arrive_new(&stream);
    load.breathe(ARRIVALS);
    load.arrive_new(&stream);
    load.breathe_counted(ARRIVALS);
    case_ends(new);
}

fn run(connections: u32) {
    let client = || Stream::from_clients(true, ACK, SMALLEST);
    let server = || Stream::from_servers(true, ACK, SMALLEST);
    floor(connections);
    director(connections, Method::Dr, &[("dr", client())], "new_dr");
    director(connections, Method::Nat, &[("nat_in", client()), ("nat_out", server())], "new_nat");
    director(connections, Method::Tun, &[("tun", client())], "new_tun");
}

fn report(connections: &[u32]) -> Result<(), String> {
    println!("misses a packet      4 KiB: L1         L2   2 MiB: L1         L2");
    for connections in connections {
        let words = ["run", &connections.to_string()];
        let (small, huge) = (count(SMALL, &words)?, count(HUGE, &words)?);
        for ((case, small), (_, huge)) in small.iter().zip(&huge) {
            let [s1, s2, h1, h2] = [small[1], small[2], huge[1], huge[2]].map(|count| count as f64 / ARRIVALS as f64);
            println!("{:<18} {s1:>11.2} {s2:>10.2} {h1:>11.2} {h2:>10.2}", format!("{case}/{connections}"));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    // cargo says `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (runs, numbers) = match words.split_first() {
        Some((first, rest)) if first == "run" => (true, rest),
        _ => (false, words.as_slice()),
    };
    let numbers = numbers.iter().map(|word| match word.parse() {
        Ok(number) if (1..=10_000_000).contains(&number) => Ok(number),
        _ => Err(format!("`{word}` is no number of connections from 1 to 10000000")),
    });
    let done = numbers.collect::<Result<Vec<u32>, String>>().and_then(|numbers| match (runs, numbers.as_slice()) {
        (true, numbers) => {
            numbers.iter().for_each(|&connections| run(connections));
            Ok(())
        }
        (false, []) => report(&CONNECTIONS),
        (false, numbers) => report(numbers),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no counts: {error}");
            ExitCode::FAILURE
        }
    }
}
