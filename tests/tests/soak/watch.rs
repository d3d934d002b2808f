//! What the director is seen from outside: memory, descriptors, threads, ledger, counters.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xvs_tests::{Counters, Running};

/// Between two looks, beside the second that `xvs status --workers` takes.
const PAUSE: Duration = Duration::from_secs(1);

/// Memory may grow by so much from the first minute (or the first third of a short soak) to the end. The allocator keeps
/// what it once had, so a level is reached and not left.
const GROWTH: f64 = 0.03;
const GROWTH_KIB: u64 = 2048;
const WARM_UP: Duration = Duration::from_secs(60);

/// A ledger is five numbers, written one after the other; a reader in between looks again.
const LEDGER_LOOKS: u32 = 20;

/// Drops that may be, each with its reason. All others are a fault.
const EXPLAINED: &[(&str, &str)] = &[
    ("server_gone", "packets of requests that a server was torn away from"),
    ("no_connection_tcp", "their clients' retransmissions, once the connection has timed out"),
    ("no_connection_reply", "late answers of a server that was torn away"),
];

/// What the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    rss_kib: u64,
    fds: usize,
    threads: usize,
}

/// A look.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    at: Duration,
    process: Process,
    connections: u64,
    /// The ledger of a worker did not add up.
    wrong_ledger: Option<String>,
    /// `xvs status --workers`.
    pace: String,
}

/// The watch, from the start on.
#[derive(Debug)]
pub(crate) struct Watch {
    started: Instant,
    before: Process,
}

/// The end of the watch.
#[derive(Debug)]
pub(crate) struct Ended {
    before: Process,
    warm: Process,
    /// The last looks under load, the one with the most memory.
    late: Process,
    /// When nobody asks any more.
    after: Process,
    most: Process,
    connections: u64,
    looks: usize,
    wrong: Vec<String>,
    last_ledgers: Vec<Value>,
    /// The workers in the middle of it.
    pace: String,
}

impl Watch {
    /// Before any load.
    pub(crate) fn begin(ds: &Running) -> Result<Self> {
        // The first request makes what the others use again.
        ds.status_json()?;
        Ok(Watch { started: Instant::now(), before: quiet(ds.pid())? })
    }

    /// Looks again and again.
    pub(crate) fn look_until(&self, ds: &Running, over: &AtomicBool) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let process = process(ds.pid())?;
            let (connections, wrong_ledger) = ledgers(ds)?;
            let pace = ds.xvs(&["status", "--workers"])?;
            samples.push(Sample { at: self.started.elapsed(), process, connections, wrong_ledger, pace });
            thread::sleep(PAUSE);
        }
        Ok(samples)
    }

    /// After all load.
    pub(crate) fn end(&self, ds: &Running, samples: &[Sample]) -> Result<Ended> {
        let last = samples.last().context("no look")?.at;
        let warm_up = WARM_UP.min(last / 3);
        let warm = samples.iter().find(|sample| sample.at >= warm_up).context("no look after the first minute")?;
        let late = samples.iter().rev().take(3).map(|sample| sample.process);
        let most = |of: fn(&Process) -> usize| samples.iter().map(|sample| of(&sample.process)).max().unwrap_or(0);
        let status = ds.status_json()?;
        Ok(Ended {
            before: self.before,
            warm: warm.process,
            late: late.max_by_key(|process| process.rss_kib).context("no look")?,
            after: quiet(ds.pid())?,
            most: Process {
                rss_kib: most(|process| process.rss_kib as usize) as u64,
                fds: most(|process| process.fds),
                threads: most(|process| process.threads),
            },
            connections: samples.iter().map(|sample| sample.connections).max().unwrap_or(0),
            looks: samples.len(),
            wrong: samples.iter().filter_map(|sample| sample.wrong_ledger.clone()).collect(),
            last_ledgers: workers(&status).iter().map(|worker| worker["frames"].clone()).collect(),
            pace: samples[samples.len() / 2].pace.clone(),
        })
    }
}

impl Ended {
    /// Nothing grew.
    pub(crate) fn is_flat(&self) -> Result<()> {
        let room = ((self.warm.rss_kib as f64 * GROWTH) as u64).max(GROWTH_KIB);
        for (when, process) in [("under load", self.late), ("afterwards", self.after)] {
            let (from, to) = (self.warm.rss_kib, process.rss_kib);
            ensure!(to <= from + room, "memory went from {from} KiB to {to} KiB {when}; {room} KiB may be");
        }
        let (before, after) = (self.before, self.after);
        ensure!(after.fds == before.fds, "{} descriptors, {} before", after.fds, before.fds);
        ensure!(after.threads == before.threads, "{} threads, {} before", after.threads, before.threads);
        Ok(())
    }

    /// All looks found a ledger that adds up, and at the end no frame is lent or on its way.
    pub(crate) fn ledgers(&self) -> Result<()> {
        ensure!(self.wrong.is_empty(), "{} of {} looks: {}", self.wrong.len(), self.looks, self.wrong[0]);
        for frames in &self.last_ledgers {
            let of = |place: &str| frames[place].as_u64().unwrap_or(u64::MAX);
            ensure!(of("lent") == 0 && of("tx") == 0, "frames are on their way when nobody asks: {frames}");
            ensure!(of("free") + of("fill") == of("total") && of("total") > 0, "frames are missing: {frames}");
        }
        Ok(())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { before, warm, late, after, most, connections, looks, pace, .. } = self;
        writeln!(
            f,
            "  memory (RSS, KiB): {} before the load, {} after warm-up, {} at its end, {} afterwards; most {}",
            before.rss_kib, warm.rss_kib, late.rss_kib, after.rss_kib, most.rss_kib
        )?;
        writeln!(f, "  descriptors: {} before, {} afterwards, most {}", before.fds, after.fds, most.fds)?;
        writeln!(f, "  threads: {} before, {} afterwards, most {}", before.threads, after.threads, most.threads)?;
        writeln!(f, "  {looks} looks; at most {connections} connections in the table")?;
        write!(f, "  the workers in the middle of it:")?;
        pace.lines().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// What the process has, when no tool is connected to it.
fn quiet(pid: u32) -> Result<Process> {
    thread::sleep(Duration::from_millis(500));
    process(pid)
}

fn process(pid: u32) -> Result<Process> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).context("the director has ended");
    let status = read("status")?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let rss_kib = rss.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    let entries = |name: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/{name}"))?.count());
    Ok(Process { rss_kib, fds: entries("fd")?, threads: threads(pid)? })
}

fn workers(status: &Value) -> &[Value] {
    status["status"]["workers"].as_array().map_or(&[], Vec::as_slice)
}

/// The number of connections, and a worker's ledger that does not add up.
fn ledgers(ds: &Running) -> Result<(u64, Option<String>)> {
    let mut looks = 0;
    loop {
        let status = ds.status_json()?;
        ensure!(!workers(&status).is_empty(), "no workers: {status}");
        let of = |frames: &Value, place: &str| frames[place].as_u64().unwrap_or(u64::MAX / 8);
        let wrong = workers(&status).iter().map(|worker| &worker["frames"]).find(|frames| {
            let places: u64 = ["free", "fill", "lent", "tx"].iter().map(|place| of(frames, place)).sum();
            places != of(frames, "total")
        });
        looks += 1;
        if wrong.is_none() || looks == LEDGER_LOOKS {
            return Ok((status["status"]["connections"].as_u64().unwrap_or(0), wrong.map(Value::to_string)));
        }
    }
}

/// Every frame that the XDP program gave to a worker was received or is among the kernel's counts of trouble; every
/// packet that was received was sent, dropped or waits.
pub(crate) fn packets_add_up(status: &Value) -> Result<()> {
    let engine = Counters::from_json(&status["status"]["engine"]);
    let get = |name: &str| engine.get(name);
    let arrived = get("received") + get("icmp_sent") + get("resets_sent") + get("fragments_made") - get("split");
    let left = get("transmitted") + get("dropped") + get("waiting");
    println!(
        "  packets: received {}, transmitted {}, dropped {}, waiting {}, errors and resets of our own {}",
        get("received"),
        get("transmitted"),
        get("dropped"),
        get("waiting"),
        get("icmp_sent") + get("resets_sent")
    );
    ensure!(arrived == left && get("received") > 0, "{arrived} arrived or were made, {left} left");

    let xdp = status["status"]["xdp"].as_array().map_or(&[][..], Vec::as_slice);
    let redirected = xdp.iter().filter(|counter| counter["name"].as_str().unwrap_or("").starts_with("redirected_"));
    let redirected: i64 = redirected.filter_map(|counter| counter["value"].as_i64()).sum();
    let interfaces = status["status"]["interfaces"].as_array().map_or(&[][..], Vec::as_slice);
    let queues = interfaces.iter().filter_map(|interface| interface["queues"].as_array()).flatten();
    let kernel = queues.filter_map(|queue| queue["kernel"].as_array()).flatten();
    let lost = |counter: &&Value| ["rx_dropped", "rx_ring_full"].iter().any(|name| counter["name"] == *name);
    let lost: i64 = kernel.filter(lost).filter_map(|counter| counter["value"].as_i64()).sum();
    println!("  steered to workers {redirected}; {lost} of them the kernel dropped before a worker had them");
    let received = get("received");
    ensure!(redirected == received + lost, "{redirected} steered, {received} received, {lost} lost in the kernel");
    Ok(())
}

/// Only such packets were dropped as must be.
pub(crate) fn drops_are_explained(drops: &Counters) -> Result<()> {
    let nothing = Counters::default();
    let mut moved = nothing.moved(drops);
    println!("  drops: {}", if moved.to_string().is_empty() { "none".to_owned() } else { moved.to_string() });
    for (reason, _) in EXPLAINED {
        moved = moved.without(reason);
    }
    moved.exactly::<&str>(&[])
}

/// Threads of the director, but for the one that has memory of the connection table ready: it ends when it has all.
fn threads(pid: u32) -> Result<usize> {
    let mut count = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        count += usize::from(!name.is_empty() && name.trim() != "memory");
    }
    Ok(count)
}
