//! What a packet costs in instructions: `cargo bench -p xvs-engine --bench instructions` (a minute); compared with what
//! was accepted: `cargo xtask bench instructions`.
//!
//! Instructions are the same in every run, so a change of the packet path shows here although the machine is busy; what
//! they cost in time, `budget.rs` and `matrix.rs` tell. This program runs itself under valgrind's callgrind, once for all
//! cases: what counts are [`Load::breathe_counted`] and `counted_parse` alone, 4096 packets of random connections a case, after as many that
//! do not count. Misses are those of simulated caches, the same everywhere: "L1" has 48 KiB, and what is not in "L2"
//! (2 MiB) leaves the core.
//!
//! The same on every machine of a kind (x86-64, one compiler): no clock is read, the environment is empty, the layout of
//! the memory is valgrind's, and the C library takes its oldest string functions, whatever the processor has.
//!
//! Not here: plugins. Their code is made when they are loaded, and valgrind would count that.
#![allow(missing_docs, clippy::disallowed_methods)] // a bench starts processes

mod support;

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

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
/// No string function that only some processors have: the C library falls back to those of SSE2, which all have.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,\
                        -Fast_Unaligned_Copy,-SSSE3,-SSE4_1,-SSE4_2,-BMI2,-ERMS,-FSRM,-RTM";

/// Where callgrind counts, and after what it writes.
const COUNTED: &str = "*counted_*";
const WRITTEN: &str = "*case_ends*";

/// The end of a case: callgrind writes what it has counted.
#[inline(never)]
fn case_ends(name: &str) {
    println!("{}", black_box(name));
}

#[inline(never)]
fn counted_parse(frame: &[u8]) {
    for _ in 0..ARRIVALS {
        assert!(black_box(Headers::parse(black_box(frame))).is_ok());
    }
}

fn parse(name: &str, is_v4: bool) {
    let mut frame = [0; 128];
    let length = Stream::from_clients(is_v4, ACK, SMALLEST).write(7, 0, &mut frame);
    counted_parse(&frame[..length]);
    case_ends(name);
}

/// The bare loop that `budget.rs` holds the worker against.
#[inline(never)]
fn counted_floor(floor: &Floor, umem: &mut Umem) {
    assert_eq!(floor.pass(umem), ARRIVALS);
}

fn floor() {
    let floor = Floor::new(CONNECTIONS, capacity_for(CONNECTIONS));
    let (mut umem, mut random) = (Umem::new(), Random::new());
    let stream = Stream::from_clients(true, ACK, SMALLEST);
    let mut arrive = |umem: &mut Umem| {
        umem.arrive(Load::PORTS[0], ARRIVALS, |into| stream.write(random.below(CONNECTIONS), 0, into));
    };
    arrive(&mut umem);
    assert_eq!(floor.pass(&mut umem), ARRIVALS);
    arrive(&mut umem);
    counted_floor(&floor, &mut umem);
    case_ends("floor");
}

type Hit = (&'static str, usize, Vec<Stream>);

/// Packets of known connections, at the director of one method and family.
fn hits(is_v4: bool, method: Method, cases: &[Hit]) {
    hits_at(&mut Load::new(plan(is_v4, method)), cases);
}

fn plan(is_v4: bool, method: Method) -> Plan<'static> {
    Plan { is_v4, method, connections: CONNECTIONS, capacity: capacity_for(CONNECTIONS), ..Plan::default() }
}

fn hits_at(load: &mut Load, cases: &[Hit]) {
    for (name, batch, streams) in cases {
        load.worker.rings.batch = *batch;
        load.arrive(streams);
        load.breathe(ARRIVALS);
        load.check_sent();
        load.arrive(streams);
        load.breathe_counted(ARRIVALS);
        case_ends(name);
    }
}

/// New connections, at the director of one scheduler.
fn misses(name: &str, is_v4: bool, method: Method, scheduler: &'static str, servers: u32) {
    let mut load = Load::new(Plan { is_v4, method, scheduler, servers, ..Plan::default() });
    let stream = Stream::from_clients(is_v4, SYN, SMALLEST);
    load.arrive_new(&stream);
    load.breathe(ARRIVALS);
    load.check_sent();
    load.arrive_new(&stream);
    load.breathe_counted(ARRIVALS);
    case_ends(name);
}

/// Forwards packets of all cases, and says when each has ended.
fn run() {
    let [v4, v6] = [true, false];
    let client = |is_v4, length| vec![Stream::from_clients(is_v4, ACK, length)];
    let server = |is_v4, length| vec![Stream::from_servers(is_v4, ACK, length)];
    parse("parse/tcp4", v4);
    parse("parse/tcp6", v6);
    floor();
    hits_at(&mut Load::of_young(plan(v4, Method::Dr)), &[("hit/dr/young", BATCH, client(v4, SMALLEST))]);
    hits(
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
    hits(
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
    hits(
        v4,
        Method::Tun,
        &[("hit/tun", BATCH, client(v4, SMALLEST)), ("hit/tun/1500", BATCH, client(v4, LONGEST_INSIDE))],
    );
    hits(v6, Method::Dr, &[("hit6/dr", BATCH, client(v6, SMALLEST))]);
    hits(
        v6,
        Method::Nat,
        &[("hit6/nat_in", BATCH, client(v6, SMALLEST)), ("hit6/nat_out", BATCH, server(v6, SMALLEST))],
    );
    hits(v6, Method::Tun, &[("hit6/tun", BATCH, client(v6, SMALLEST))]);
    for (name, scheduler, servers) in [
        ("new/rr", "rr", 16),
        ("new/wrr", "wrr", 16),
        ("new/wlc16", "wlc", 16),
        ("new/wlc256", "wlc", 256),
        ("new/mh", "mh", 16),
    ] {
        misses(name, v4, Method::Dr, scheduler, servers);
    }
    misses("new/wrr/nat", v4, Method::Nat, "wrr", 16);
    misses("new/wrr/tun", v4, Method::Tun, "wrr", 16);
    misses("new6/wrr/nat", v6, Method::Nat, "wrr", 16);
}

/// Runs this program under callgrind, which writes into this directory; gives the names of the cases in their order.
fn count(directory: &Path) -> Result<Vec<String>, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new("valgrind");
    // The size of the environment moves the stack, and a variable may change the C library.
    command.env_clear().env("GLIBC_TUNABLES", TUNABLES);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--tool=callgrind", "--cache-sim=yes"]).args(CACHES);
    command.arg(format!("--callgrind-out-file={}", directory.join("count").display()));
    command.arg(format!("--toggle-collect={COUNTED}")).arg(format!("--dump-after={WRITTEN}"));
    let output = command.arg(own).arg("run").output().map_err(|error| {
        format!("valgrind could not be started: {error}; is it installed (apt-get install valgrind)?")
    })?;
    if !output.status.success() {
        return Err(format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Instructions, and what was not in the first and in the second cache, of 4096 packets.
fn read(file: &Path) -> Result<[u64; 3], String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::split_whitespace);
    let missing = || format!("{}: no counts", file.display());
    let (names, values) = line("events:").zip(line("totals:").or(line("summary:"))).ok_or_else(missing)?;
    let counts: Vec<(&str, u64)> = names.zip(values.map(|value| value.parse().unwrap_or(0))).collect();
    let sum = |of: &[&str]| counts.iter().filter(|(name, _)| of.contains(name)).map(|(_, value)| value).sum::<u64>();
    Ok([sum(&["Ir"]), sum(&["D1mr", "D1mw"]), sum(&["DLmr", "DLmw"])]).and_then(|all| match all[0] {
        0 => Err(missing()),
        _ => Ok(all),
    })
}

fn report() -> Result<(), String> {
    let directory = std::env::temp_dir().join(format!("xvs-instructions-{}", std::process::id()));
    std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let lines = count(&directory).and_then(|cases| {
        let numbered = (1..).map(|number| directory.join(format!("count.{number}")));
        cases
            .iter()
            .zip(numbered)
            .map(|(case, file)| Ok((case.clone(), read(&file)?)))
            .collect::<Result<Vec<_>, String>>()
    });
    // What is left in a temporary directory harms nobody.
    let _ = std::fs::remove_dir_all(&directory);
    println!("{:<18} {:>12} {:>10} {:>10}", "case", "instructions", "L1 misses", "L2 misses");
    for (case, counts) in lines? {
        let [instructions, l1, l2] = counts.map(|count| count as f64 / ARRIVALS as f64);
        println!("{case:<18} {instructions:>12.1} {l1:>10.2} {l2:>10.2}");
    }
    Ok(())
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "run") {
        run();
        return ExitCode::SUCCESS;
    }
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no counts: {error}");
            ExitCode::FAILURE
        }
    }
}
