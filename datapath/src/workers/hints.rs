//! What a person should look at. Each hint is one sentence: what is seen, and what would change it.

use super::Worker;

/// From this share of the time on a worker is at its limit.
const AT_THE_LIMIT: f64 = 0.9;
/// A worker that is awake for so much more of the time than it is on a processor waits for one.
const WAITS: f64 = 0.2;
/// One worker's packets, as a multiple of the mean of the others, and the packets a second below which nobody minds.
const HOT: f64 = 2.0;
const FEW_PACKETS: f64 = 1000.0;

/// Adds to each worker what is to be said of it.
pub(super) fn add(workers: &mut [Worker]) {
    let hot = hot_queue(workers);
    for worker in &mut *workers {
        worker.hints = [silent(worker), starved(worker), limit(worker), overrun(worker), frames(worker)]
            .into_iter()
            .flatten()
            .collect();
    }
    if let Some((worker, sentence)) = hot.and_then(|(index, sentence)| Some((workers.get_mut(index)?, sentence))) {
        worker.hints.push(sentence);
    }
}

fn percent(share: f64) -> f64 {
    (share * 100.0).round()
}

fn silent(worker: &Worker) -> Option<String> {
    (worker.per_s.breaths == 0.0).then(|| "it takes no breath: `xvs status` and the log say more".to_owned())
}

/// Time in which it wanted a processor.
fn awake(worker: &Worker) -> f64 {
    worker.busy + worker.polling
}

fn starved(worker: &Worker) -> Option<String> {
    let got = worker.user? + worker.system?;
    let (awake, cpu) = (awake(worker), worker.cpu?);
    (awake - got > WAITS).then(|| {
        format!(
            "starved: awake {} % of the time and on a processor {} %, so others run on CPU {cpu}; give it one of its own",
            percent(awake),
            percent(got)
        )
    })
}

fn limit(worker: &Worker) -> Option<String> {
    let full = worker.batch.is_some_and(|batch| batch.p50 >= u64::from(worker.batch_max));
    (worker.busy >= AT_THE_LIMIT && full).then(|| {
        "at its limit: always busy, and most batches are full; more queues and workers, or a faster CPU".to_owned()
    })
}

fn overrun(worker: &Worker) -> Option<String> {
    let lost = worker.rx_ring_full;
    (lost > 0).then(|| {
        format!(
            "overrun: the kernel dropped {lost} packets at a full receive ring; bursts want a larger `frames.rx_ring`, a \
             steady loss wants more workers"
        )
    })
}

fn frames(worker: &Worker) -> Option<String> {
    let dry = worker.rx_fill_ring_empty;
    (dry > 0).then(|| {
        format!("short of frames: {dry} times none was there for reception; raise `frames.count` or `frames.fill_ring`")
    })
}

/// The worker that has much more to do than the others, if there is one.
fn hot_queue(workers: &[Worker]) -> Option<(usize, String)> {
    let all: f64 = workers.iter().map(|worker| worker.per_s.received).sum();
    let rate = |worker: &&Worker| worker.per_s.received;
    let hottest = workers.iter().max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
    let others = workers.len().checked_sub(1).filter(|others| *others > 0)? as f64;
    let (most, mean) = (hottest.per_s.received, (all - hottest.per_s.received) / others);
    let index = workers.iter().position(|worker| worker.worker == hottest.worker)?;
    (most >= FEW_PACKETS && most > HOT * mean).then(|| {
        let sentence = format!(
            "hot queue: {} % of all packets come to this one of {} workers; look at the NIC's spreading (`ethtool -x`)",
            percent(most / all),
            workers.len()
        );
        (index, sentence)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{High, Rates, Worker};
    use super::*;

    fn worker(number: u32, received: f64, busy: f64, batch: u64) -> Worker {
        Worker {
            worker: number,
            pinned: None,
            cpu: Some(number),
            busy,
            polling: 0.0,
            asleep: 1.0 - busy,
            user: Some(busy / 2.0),
            system: Some(busy / 2.0),
            preempted_per_s: Some(0.0),
            per_s: Rates { received, breaths: 1.0, ..Rates::default() },
            empty_breaths: Some(0.0),
            rx_ring_full: 0,
            rx_fill_ring_empty: 0,
            batches: Vec::new(),
            batch: Some(High { p50: batch, p99: batch, max: batch }),
            breath_ns: None,
            rx_waiting: None,
            tx_outstanding: None,
            free: None,
            batch_max: 64,
            rx_ring: 2048,
            tx_ring: 2048,
            frames: 4096,
            hints: Vec::new(),
        }
    }

    /// The first word of each hint of each worker.
    fn told(mut workers: Vec<Worker>) -> Vec<Vec<String>> {
        add(&mut workers);
        let first = |hint: &String| hint.split([':', ' ']).next().unwrap_or_default().to_owned();
        workers.iter().map(|worker| worker.hints.iter().map(first).collect()).collect()
    }

    /// Guards against noise: an even load within limits says nothing.
    #[test]
    fn a_good_day_is_silent() {
        assert_eq!(told(vec![worker(0, 9000.0, 0.8, 64), worker(1, 5000.0, 0.95, 12)]), [[""; 0], [""; 0]]);
        assert_eq!(told(vec![worker(0, 900.0, 0.2, 1), worker(1, 0.0, 0.0, 0)]), [[""; 0], [""; 0]], "few packets");
        assert_eq!(told(vec![worker(0, 1e6, 0.5, 8)]), [[""; 0]], "one worker has all packets");
    }

    /// Each trouble has its sentence, and only that.
    #[test]
    fn each_trouble_has_its_sentence() {
        let limit = worker(0, 5e6, 0.99, 64);
        let starved = Worker { user: Some(0.1), system: Some(0.2), ..worker(1, 5e6, 0.8, 8) };
        let overrun = Worker { rx_ring_full: 7, ..worker(2, 5e6, 0.8, 8) };
        let short = Worker { rx_fill_ring_empty: 7, ..worker(3, 5e6, 0.8, 8) };
        let mut silent = worker(4, 5e6, 0.0, 8);
        silent.per_s.breaths = 0.0;
        let expected = [["at"], ["starved"], ["overrun"], ["short"], ["it"]];
        assert_eq!(told(vec![limit, starved, overrun, short, silent]), expected);
        assert_eq!(told(vec![worker(0, 9e4, 0.5, 8), worker(1, 4e4, 0.5, 8)]), [vec!["hot"], vec![]]);
    }
}
