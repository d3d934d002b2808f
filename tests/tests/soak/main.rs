//! A soak: full load, connection churn and a storm of changes for a long time, and then nothing may be broken, leaked or
//! uncounted.
//!
//! `XVS_SOAK_MINUTES` says for how long; without it, it is a dose for every day. `cargo xtask soak` runs the long one.

mod site;
mod storm;
mod traffic;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xvs_tests::{Outcome, Plan, Running, story};

use site::{REAL_SERVERS, Site};
use traffic::{Traffic, Verdicts};
use watch::Watch;

/// Minutes without `XVS_SOAK_MINUTES`.
const DOSE: f64 = 0.75;

/// Workers, and queues of every wire.
const WORKERS: u32 = 2;

/// How long the last packets may be on their way when nobody asks any more.
const SETTLE: Duration = Duration::from_secs(10);

fn duration() -> Result<Duration> {
    let minutes = match std::env::var("XVS_SOAK_MINUTES") {
        Ok(text) => text.parse().with_context(|| format!("XVS_SOAK_MINUTES={text} is no number of minutes"))?,
        Err(_) => DOSE,
    };
    ensure!((0.5..=1440.0).contains(&minutes), "XVS_SOAK_MINUTES={minutes}: from 0.5 to 1440 would be right");
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

/// Guards against what shows only after a while: leaks of memory, frames, descriptors and threads, counters that drift
/// apart, and changes that break a connection once in a thousand times.
#[test]
fn under_load_and_change_nothing_breaks_leaks_or_goes_uncounted() -> Outcome {
    let guards =
        "minutes of full load, churn and changes break no connection and leak nothing; every packet is counted";
    story(guards, soak)
}

fn soak() -> Result<()> {
    let duration = duration()?;
    let lab = Plan::two_arm().servers(REAL_SERVERS).queues(WORKERS).build()?;
    lab.large_file()?;
    let site = Site::new(&lab);
    let ds = lab.director().start(&site.document(&site::Dynamic::ALL))?;
    let watch = Watch::begin(&ds)?;
    let traffic = Traffic::start(lab.client(), &site)?;
    println!("  {:.1} minutes, {WORKERS} workers", duration.as_secs_f64() / 60.0);

    let over = AtomicBool::new(false);
    let started = Instant::now();
    let (samples, streams, blown) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch.look_until(&ds, &over));
        let streaming = traffic.streams(&over, scope);
        let blown = storm::blow(&lab, &ds, &site, started + duration);
        over.store(true, Ordering::Relaxed);
        let streams = streaming.into_iter().map(traffic::Stream::join).collect::<Result<Vec<_>>>();
        (watching.join(), streams, blown)
    });
    let verdicts = traffic.stop(streams?)?;
    let samples = samples.map_err(|_| anyhow::anyhow!("the watch panicked"))??;
    let blown = blown?;
    println!("  {blown}");

    settle(&ds)?;
    let ended = watch.end(&ds, &samples)?;
    println!("{ended}");
    let mut wrong = Vec::new();
    let mut check = |what: &str, result: Result<()>| match result {
        Ok(()) => println!("  right: {what}"),
        Err(error) => wrong.push(format!("{what}: {error:#}")),
    };
    check("no connection broke that need not", verdicts.judge(&blown));
    check("connections were counted", every_connection_counts(&ds, &site, &verdicts));
    check("memory, descriptors and threads stay as they were", ended.is_flat());
    check("the frame ledger is exact", ended.ledgers());
    check("what was received was sent, dropped or waits", watch::packets_add_up(&ds.status_json()?));
    check("drops are those that removals explain", watch::drops_are_explained(&ds.drops()?));
    check("the director's kernel forwarded nothing", none(lab.director().forwarded_by_kernel()?));
    let log = ds.log();
    check("it ends well", ended_well(ds));
    check("the log has no errors", no_errors(&log));
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n  "));
    }
    Ok(())
}

fn none(packets: u64) -> Result<()> {
    ensure!(packets == 0, "{packets} packets");
    Ok(())
}

fn ended_well(ds: Running) -> Result<()> {
    let status = ds.terminate()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Waits until no frame is on its way.
fn settle(ds: &Running) -> Result<()> {
    let mut last = None;
    xvs_tests::wait_until("the last packets leaving the director", SETTLE, || {
        thread::sleep(Duration::from_millis(300));
        let now = ds.status_json().ok().map(|status| status["status"]["workers"].clone());
        let still = now.is_some() && now == last;
        last = now;
        still
    })
}

/// By NAT, the director counts as many connections as the clients opened. By DR and TUN it sees one direction only and, as
/// IPVS, takes a client's port that comes again soon for the same connection, so that it counts less.
fn every_connection_counts(ds: &Running, site: &Site, verdicts: &Verdicts) -> Result<()> {
    let stats = ds.stats()?;
    let nat = [site.nat.service.listed(), site.drained.service.listed()];
    for (service, opened) in verdicts.opened() {
        let (counted, opened) = (stats.get(&format!("{service} conns")), opened as i64);
        println!("  {service}: clients opened {opened} connections, the director counted {counted}");
        let right = if nat.contains(&service) { counted == opened } else { (1..=opened).contains(&counted) };
        ensure!(right, "{service}: clients opened {opened}, the director counted {counted}");
    }
    Ok(())
}

fn no_errors(log: &str) -> Result<()> {
    let bad: Vec<&str> =
        log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).take(5).collect();
    ensure!(bad.is_empty(), "{}", bad.join(" | "));
    let warnings = log.lines().filter(|line| line.contains("WARN")).count();
    println!("  log: {} lines, {warnings} of them warnings", log.lines().count());
    Ok(())
}
