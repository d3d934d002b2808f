//! `xvs status --workers`: a block for each worker.

use std::fmt::Write;

use crate::control::protocol::Bucket;
use crate::workers::{High, Low, Report, Worker};

/// All of it.
pub fn report(report: &Report) -> String {
    let count = report.workers.len();
    let mut text = format!("{count} worker{} over {:.1} s\n", if count == 1 { "" } else { "s" }, report.seconds);
    report.workers.iter().for_each(|one| worker(&mut text, one));
    text
}

fn worker(text: &mut String, worker: &Worker) {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let cpu = match (worker.cpu, worker.pinned) {
        (Some(cpu), Some(_)) => format!("CPU {cpu}"),
        (Some(cpu), None) => format!("CPU {cpu}, not pinned"),
        (None, _) => "its thread has ended".to_owned(),
    };
    let (busy, polling, asleep) = (percent(worker.busy), percent(worker.polling), percent(worker.asleep));
    // Writing to a string can not fail.
    let _ = writeln!(text, "\nworker {}: {cpu}; busy {busy}, polling {polling}, asleep {asleep}", worker.worker);
    if let (Some(user), Some(system), Some(preempted)) = (worker.user, worker.system, worker.preempted_per_s) {
        let (user, system) = (percent(user), percent(system));
        let _ = writeln!(text, "  processor   user {user}, system {system}; taken away {preempted:.0} times/s");
    }
    let rates = &worker.per_s;
    let _ = writeln!(
        text,
        "  packets/s   received {:.0}, transmitted {:.0}, dropped {:.0}",
        rates.received, rates.transmitted, rates.dropped
    );
    let empty = worker.empty_breaths.map_or_else(String::new, |share| format!(", {} of them empty", percent(share)));
    let _ = writeln!(text, "  breaths/s   {:.0}{empty}", rates.breaths);
    let _ = writeln!(
        text,
        "  sleeps/s    {:.0}; woken by packets {:.0}, by mail {:.0}, by time {:.0}",
        rates.sleeps, rates.woken_packets, rates.woken_mail, rates.woken_time
    );
    distributions(text, worker);
    for hint in &worker.hints {
        let _ = writeln!(text, "  {hint}");
    }
}

fn distributions(text: &mut String, worker: &Worker) {
    let Some(batch) = worker.batch else {
        text.push_str("  no packets\n");
        return;
    };
    let _ = writeln!(text, "  batches     {}", batches(&worker.batches));
    let _ = writeln!(text, "  {:<24}{:>10}{:>10}{:>10}", "", "p50", "p99", "max");
    let mut row = |name: &str, high: Option<High>, shown: fn(u64) -> String, of: &str| {
        if let Some(High { p50, p99, max }) = high {
            let [p50, p99, max] = [p50, p99, max].map(shown);
            let _ = writeln!(text, "  {name:<24}{p50:>10}{p99:>10}{max:>10}  {of}");
        }
    };
    let number = |value: u64| value.to_string();
    row("packets of a breath", Some(batch), number, &format!("of {}", worker.batch_max));
    row("time of a breath", worker.breath_ns, time, "");
    row("in the receive ring", worker.rx_waiting, number, &format!("of {}", worker.rx_ring));
    row("transmit outstanding", worker.tx_outstanding, number, &format!("of {} frames", worker.frames));
    if let Some(Low { p50, p1, min }) = worker.free {
        let _ = writeln!(text, "  {:<24}{:>10}{:>10}{:>10}", "", "p50", "p1", "min");
        let _ = writeln!(text, "  {:<24}{p50:>10}{p1:>10}{min:>10}  of {} frames", "free in the pool", worker.frames);
    }
}

/// `1: 12 %, 2-3: 50 %`
fn batches(buckets: &[Bucket]) -> String {
    let all: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let one = |bucket: &Bucket| {
        let Bucket { from, to, count } = *bucket;
        let range = if from == to { from.to_string() } else { format!("{from}-{to}") };
        let share = count as f64 * 100.0 / all.max(1) as f64;
        if share < 0.1 { format!("{range}: <0.1 %") } else { format!("{range}: {share:.1} %") }
    };
    buckets.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Nanoseconds, in the unit that people would choose.
fn time(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.1} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the units at their borders, and rare batches against being shown as none.
    #[test]
    fn figures_in_words() {
        let shown = [0, 999, 1_000, 999_949, 1_000_000, 2_500_000_000].map(time);
        assert_eq!(shown, ["0 ns", "999 ns", "1.0 us", "999.9 us", "1.0 ms", "2.5 s"]);
        let bucket = |from, to, count| Bucket { from, to, count };
        assert_eq!(batches(&[bucket(1, 1, 1), bucket(2, 3, 4999)]), "1: <0.1 %, 2-3: 100.0 %");
    }
}
