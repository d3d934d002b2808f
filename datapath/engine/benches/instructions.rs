//! What a packet costs in instructions: `cargo bench -p xvs-engine --bench instructions` (a minute); compared with what
//! was accepted: `cargo xtask bench instructions`.
//!
//! Instructions are the same in every run, so a change of the packet path shows here although the machine is busy; what
//! they cost in time, `budget.rs` and `matrix.rs` tell. This program runs itself under valgrind's callgrind, once for all
//! cases: what counts are [`Load::breathe_counted`] and `counted_parse` alone, 4096 packets of random connections a case, after as many that
//! do not count. Misses are those of simulated caches, the same everywhere: "L1" has 48 KiB, and what is not in "L2"
//! (2 MiB) leaves the core.
//!
//! The same on every machine of a kind ([`support::callgrind`]).
//!
//! Not here: misses of pages (`pages.rs`), and plugins. Their code is made when they are loaded, and valgrind would count
//! that.
#![allow(missing_docs, clippy::disallowed_methods)] // a bench starts processes

mod support;

use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;

use support::callgrind::{case_ends, count};
use support::common::packet::{ACK, SYN};
use support::floor::Floor;
use support::load::{ARRIVALS, BATCH, Load, Plan, capacity_for};
use support::stream::{LONGEST, LONGEST_INSIDE, SMALLEST, Stream, imix};
use support::timing::Random;
use support::umem::Umem;
use xvs_engine::real::Method;
use xvs_engine::wire::Headers;

/// Live connections where their number counts: twice as many bytes of table as the simulated cache holds.
const CONNECTIONS: u32 = 32_768;
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64"];

#[inline(never)]
fn counted_parse(frame: &[u8]) {
    for _ in 0..ARRIVALS {
        assert!(black_box(Headers::parse(black_box(frame))).is_ok());
    }
}

/// What this program shall do under another's eyes.
#[derive(Default)]
struct Job {
    /// This case alone; else all.
    only: Option<String>,
    /// So many times 4096 packets before those that count: for a profile.
    turns: usize,
    /// Was there such a case?
    known: Cell<bool>,
}

impl Job {
    /// `run`, or `run CASE PACKETS`.
    fn read(words: &[String]) -> Result<Self, String> {
        match words {
            [] => Ok(Job::default()),
            [case, packets] => {
                let packets: usize = packets.parse().map_err(|_| format!("`{packets}` is no number of packets"))?;
                Ok(Job { only: Some(case.clone()), turns: packets / ARRIVALS, known: Cell::new(false) })
            }
            _ => Err("say `run`, or `run CASE PACKETS`".to_owned()),
        }
    }

    fn wants(&self, name: &str) -> bool {
        let wanted = self.only.as_deref().is_none_or(|only| only == name);
        self.known.set(self.known.get() || wanted);
        wanted
    }

    fn parse(&self, name: &str, is_v4: bool) {
        if !self.wants(name) {
            return;
        }
        let mut frame = [0; 128];
        let length = Stream::from_clients(is_v4, ACK, SMALLEST).write(7, 0, &mut frame);
        for _ in 0..=self.turns {
            counted_parse(&frame[..length]);
        }
        case_ends(name);
    }

    /// The bare loop that `budget.rs` holds the worker against.
    fn floor(&self) {
        if !self.wants("floor") {
            return;
        }
        let floor = Floor::new(CONNECTIONS, capacity_for(CONNECTIONS));
        let (mut umem, mut random) = (Umem::new(), Random::new());
        let stream = Stream::from_clients(true, ACK, SMALLEST);
        let mut arrive = |umem: &mut Umem| {
            umem.arrive(Load::PORTS[0], ARRIVALS, |into| stream.write(random.below(CONNECTIONS), 0, into));
        };
        for _ in 0..=self.turns {
            arrive(&mut umem);
            assert_eq!(floor.pass::<false>(&mut umem), ARRIVALS);
        }
        arrive(&mut umem);
        floor.counted_pass(&mut umem, ARRIVALS);
        case_ends("floor");
    }

    /// Packets of known connections, at the director of one method and family.
    fn hits(&self, is_v4: bool, method: Method, cases: &[Hit]) {
        self.hits_of(Load::new, is_v4, method, cases);
    }

    /// The same with connections that are made like this.
    fn hits_of(&self, make: fn(Plan<'static>) -> Load, is_v4: bool, method: Method, cases: &[Hit]) {
        if !cases.iter().any(|(name, ..)| self.wants(name)) {
            return;
        }
        let capacity = capacity_for(CONNECTIONS);
        let mut load = make(Plan { is_v4, method, connections: CONNECTIONS, capacity, ..Plan::default() });
        for (name, batch, streams) in cases.iter().filter(|(name, ..)| self.wants(name)) {
            load.worker.rings.batch = *batch;
            for _ in 0..=self.turns {
                load.arrive(streams);
                load.breathe(ARRIVALS);
            }
            load.check_sent();
            load.arrive(streams);
            load.breathe_counted(ARRIVALS);
            case_ends(name);
        }
    }

    /// New connections, at the director of one scheduler.
    fn misses(&self, name: &str, is_v4: bool, method: Method, scheduler: &'static str, servers: u32) {
        if !self.wants(name) {
            return;
        }
        let mut load = Load::new(Plan { is_v4, method, scheduler, servers, ..Plan::default() });
        let stream = Stream::from_clients(is_v4, SYN, SMALLEST);
        for turn in 0..=self.turns {
            if turn > 0 {
                load.forget_new();
            }
            load.arrive_new(&stream);
            load.breathe(ARRIVALS);
        }
        load.check_sent();
        load.arrive_new(&stream);
        load.breathe_counted(ARRIVALS);
        case_ends(name);
    }
}

type Hit = (&'static str, usize, Vec<Stream>);

/// Forwards packets of all cases that the job wants, and says when each has ended.
fn run(job: &Job) {
    let [v4, v6] = [true, false];
    let client = |is_v4, length| vec![Stream::from_clients(is_v4, ACK, length)];
    let server = |is_v4, length| vec![Stream::from_servers(is_v4, ACK, length)];
    job.parse("parse/tcp4", v4);
    job.parse("parse/tcp6", v6);
    job.floor();
    job.hits_of(Load::of_young, v4, Method::Dr, &[("hit/dr/young", BATCH, client(v4, SMALLEST))]);
    job.hits(
        v4,
        Method::Dr,
        &[
            ("hit/dr", BATCH, client(v4, SMALLEST)),
            ("hit/dr/batch32", 32, client(v4, SMALLEST)),
            ("hit/dr/batch8", 8, client(v4, SMALLEST)),
            ("hit/dr/batch1", 1, client(v4, SMALLEST)),
            ("hit/dr/1500", BATCH, client(v4, LONGEST)),
            ("hit/dr/imix", BATCH, imix(|length| Stream::from_clients(v4, ACK, length))),
        ],
    );
    job.hits(
        v4,
        Method::Nat,
        &[
            ("hit/nat_in", BATCH, client(v4, SMALLEST)),
            ("hit/nat_in/batch1", 1, client(v4, SMALLEST)),
            ("hit/nat_in/1500", BATCH, client(v4, LONGEST)),
            ("hit/nat_in/imix", BATCH, imix(|length| Stream::from_clients(v4, ACK, length))),
            ("hit/nat_out", BATCH, server(v4, SMALLEST)),
            ("hit/nat_out/1500", BATCH, server(v4, LONGEST)),
        ],
    );
    job.hits(
        v4,
        Method::Tun,
        &[("hit/tun", BATCH, client(v4, SMALLEST)), ("hit/tun/1500", BATCH, client(v4, LONGEST_INSIDE))],
    );
    job.hits(v6, Method::Dr, &[("hit6/dr", BATCH, client(v6, SMALLEST))]);
    job.hits(
        v6,
        Method::Nat,
        &[("hit6/nat_in", BATCH, client(v6, SMALLEST)), ("hit6/nat_out", BATCH, server(v6, SMALLEST))],
    );
    job.hits(v6, Method::Tun, &[("hit6/tun", BATCH, client(v6, SMALLEST))]);
    for (name, scheduler, servers) in [
        ("new/rr", "rr", 16),
        ("new/wrr", "wrr", 16),
        ("new/wlc16", "wlc", 16),
        ("new/wlc256", "wlc", 256),
        ("new/mh", "mh", 16),
    ] {
        job.misses(name, v4, Method::Dr, scheduler, servers);
    }
    job.misses("new/wrr/nat", v4, Method::Nat, "wrr", 16);
    job.misses("new/wrr/tun", v4, Method::Tun, "wrr", 16);
    job.misses("new6/wrr/nat", v6, Method::Nat, "wrr", 16);
}

fn report() -> Result<(), String> {
    let cases = count(CACHES, &["run"])?;
    println!("{:<18} {:>12} {:>10} {:>10}", "case", "instructions", "L1 misses", "L2 misses");
    for (case, counts) in cases {
        let [instructions, l1, l2] = counts.map(|count| count as f64 / ARRIVALS as f64);
        println!("{case:<18} {instructions:>12.1} {l1:>10.2} {l2:>10.2}");
    }
    Ok(())
}

fn main() -> ExitCode {
    // cargo says `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let done = match words.split_first() {
        None => report().map_err(|error| format!("no counts: {error}")),
        Some((first, rest)) if first == "run" => Job::read(rest).and_then(|job| {
            run(&job);
            let unknown = || format!("there is no case `{}`; without words this program names all", rest[0]);
            if job.known.get() { Ok(()) } else { Err(unknown()) }
        }),
        Some(_) => Err("say nothing, `run`, or `run CASE PACKETS`".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
