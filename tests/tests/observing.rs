//! What `xvs status --workers` tells of a running director is what happens to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xvs_tests::{Family, Method, Outcome, Plan, Running, Service, story};

/// A report over the last second.
fn report(ds: &Running) -> Result<Value> {
    let printed = ds.xvs(&["status", "--workers", "--json"])?;
    serde_json::from_str(&printed).with_context(|| format!("no JSON but `{printed}`"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Guards figures that come from three places (the loop, the engine, the kernel) against telling different stories: shares
/// of the time make a whole, batches make the packets, and who sleeps has no packets.
#[test]
fn the_pace_of_the_workers_is_told() -> Outcome {
    story("shares of the time make a whole, batches make the packets, idle workers sleep", || {
        let lab = Plan::two_arm().servers(2).queues(2).build()?;
        let ds = lab.director().start(&lab.director().site())?;
        let service = Service::tcp(lab.vip(0).socket(Family::V4, 80)).all_servers(&lab, Family::V4, 80, Method::Nat);
        service.add(&ds)?;

        let idle = report(&ds)?;
        let workers = idle["workers"].as_array().context("workers")?;
        ensure!(workers.len() == 2, "{idle}");
        for worker in workers {
            ensure!(number(&worker["asleep"]) > 0.8 && worker["batch"].is_null(), "nobody asks: {worker}");
            ensure!(number(&worker["per_s"]["woken_time"]) > 5.0, "a sleep lasts 50 ms: {worker}");
        }

        let mut load = lab.client().keep_asking(service.address(), 4)?;
        load.wait_for(100, Duration::from_secs(20))?;
        let busy = report(&ds)?;
        let text = ds.xvs(&["status", "--workers"])?;
        let watched = watch_two(&ds)?;
        load.stop()?.all_answered()?;
        for worker in busy["workers"].as_array().context("workers")? {
            let shares: f64 = ["busy", "polling", "asleep"].iter().map(|share| number(&worker[*share])).sum();
            // A breath or a sleep that a look falls into counts in the next one; on a busy machine it may be a long one.
            ensure!((0.5..=1.5).contains(&shares), "shares make {shares}: {worker}");
            let batch_max = number(&worker["batch_max"]);
            let (p50, max) = (number(&worker["batch"]["p50"]), number(&worker["batch"]["max"]));
            ensure!(p50 >= 1.0 && p50 <= max && max <= batch_max, "{worker}");
            ensure!(number(&worker["breath_ns"]["p50"]) > 100.0, "{worker}");
            ensure!(number(&worker["rx_waiting"]["max"]) >= 1.0, "{worker}");
            ensure!(worker["cpu"].is_u64() && number(&worker["per_s"]["received"]) > 10.0, "{worker}");
        }
        // Since the start, exactly, when nobody asks any more (counts are read one after the other): as many batches as breaths that
        // were not empty, and not fewer packets than batches.
        for worker in report(&ds)?["since_start"]["workers"].as_array().context("workers")? {
            let batches: f64 =
                worker["batch"]["buckets"].as_array().context("buckets")?.iter().map(|b| number(&b["count"])).sum();
            let full = number(&worker["breaths"]) - number(&worker["empty"]);
            ensure!((batches - full).abs() <= 2.0 && number(&worker["received"]) >= batches - 2.0, "{worker}");
        }
        let whole = ds.for_seconds(3, &["status", "--watch", "1"])?;
        ensure!(whole.lines().filter(|line| line.starts_with("xvs ")).count() >= 2, "it is told again:\n{whole}");
        for words in ["worker 0: CPU", "worker 1: CPU", "packets/s", "time of a breath", "of 64"] {
            ensure!(text.contains(words), "`{words}` in:\n{text}");
        }
        ensure!(watched.len() == 2 && watched.iter().all(|line| line["workers"][1].is_object()), "{watched:?}");
        Ok(())
    })
}

/// The first two lines of `--watch 1 --json`.
fn watch_two(ds: &Running) -> Result<Vec<Value>> {
    // `timeout` ends what would go on for ever.
    let printed = ds.for_seconds(4, &["status", "--workers", "--json", "--watch", "1"])?;
    let lines: Result<Vec<Value>, _> = printed.lines().take(2).map(serde_json::from_str).collect();
    lines.context("a line is no JSON")
}
