//! `xvs status --workers`: what two looks at the workers say about the time between them.
//!
//! Invariant: every figure is a difference of two counts or a share of one; nothing is guessed, and a worker that a
//! figure cannot be told of has none. Hints are sentences about figures that are shown beside them.
//!
//! Not here: what it looks like on a terminal (`render::workers`).

use serde::Serialize;

use crate::control::protocol::{Bucket, PaceCounts, PaceView, Spread, ThreadView, WorkerPace};

mod hints;

/// The workers between two looks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Seconds between the looks.
    pub seconds: f64,
    /// The workers.
    pub workers: Vec<Worker>,
    /// All counts since the start, at the second look.
    pub since_start: PaceView,
}

/// A worker between two looks. Shares are of the time, from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worker {
    /// Index.
    pub worker: u32,
    /// CPU it is pinned to, if it is.
    pub pinned: Option<u32>,
    /// CPU it ran on last.
    pub cpu: Option<u32>,
    /// In breaths that found packets.
    pub busy: f64,
    /// In breaths that found none.
    pub polling: f64,
    /// Asleep.
    pub asleep: f64,
    /// On the processor in the program, by the kernel's count.
    pub user: Option<f64>,
    /// On the processor in the kernel, by the kernel's count.
    pub system: Option<f64>,
    /// Times a second that the processor was taken away from it.
    pub preempted_per_s: Option<f64>,
    /// What it counted, a second.
    pub per_s: Rates,
    /// Share of breaths that found no packet; none without breaths.
    pub empty_breaths: Option<f64>,
    /// Packets that the kernel dropped at a full receive ring.
    pub rx_ring_full: u64,
    /// Times that the kernel found no frame for reception.
    pub rx_fill_ring_empty: u64,
    /// Breaths that found packets, by how many: 1, 2 to 3, 4 to 7 and so on.
    pub batches: Vec<Bucket>,
    /// Packets of such a breath.
    pub batch: Option<High>,
    /// Nanoseconds of such a breath.
    pub breath_ns: Option<High>,
    /// Packets in the fullest receive ring.
    pub rx_waiting: Option<High>,
    /// Frames with the kernel for transmission.
    pub tx_outstanding: Option<High>,
    /// Frames in the pool.
    pub free: Option<Low>,
    /// Packets that a breath takes at most.
    pub batch_max: u32,
    /// Slots of a receive ring.
    pub rx_ring: u32,
    /// Slots of a transmit ring.
    pub tx_ring: u32,
    /// Frames.
    pub frames: u64,
    /// What a person should look at: a sentence each.
    pub hints: Vec<String>,
}

/// Counts a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Packets received.
    pub received: f64,
    /// Packets transmitted.
    pub transmitted: f64,
    /// Packets dropped.
    pub dropped: f64,
    /// Breaths.
    pub breaths: f64,
    /// Sleeps.
    pub sleeps: f64,
    /// Sleeps that packets ended.
    pub woken_packets: f64,
    /// Sleeps that mail ended.
    pub woken_mail: f64,
    /// Sleeps that lasted their time.
    pub woken_time: f64,
}

/// A distribution whose high end matters. Values are known within an eighth, and told from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct High {
    /// Half of all are not above.
    pub p50: u64,
    /// 99 of 100 are not above.
    pub p99: u64,
    /// None is above.
    pub max: u64,
}

/// A distribution whose low end matters, told from below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Low {
    /// Half of all are not below.
    pub p50: u64,
    /// 99 of 100 are not below.
    pub p1: u64,
    /// None is below.
    pub min: u64,
}

impl Report {
    /// From two looks at the same director; none if they are of two directors, or of one moment.
    pub fn between(earlier: &PaceView, later: PaceView) -> Option<Report> {
        let nanos = later.at_ns.checked_sub(earlier.at_ns).filter(|nanos| *nanos > 0)?;
        if earlier.pid != later.pid {
            return None;
        }
        let pairs = earlier.workers.iter().zip(&later.workers);
        let mut workers: Vec<Worker> = pairs.map(|(from, to)| worker(from, to, nanos as f64)).collect();
        hints::add(&mut workers);
        Some(Report { seconds: nanos as f64 / 1e9, workers, since_start: later })
    }
}

fn worker(from: &WorkerPace, to: &WorkerPace, nanos: f64) -> Worker {
    let counts = since(&from.counts, &to.counts);
    let rate = |count: u64| count as f64 * 1e9 / nanos;
    let share = |ns: u64| ns as f64 / nanos;
    let threads = from.thread.zip(to.thread);
    let of_thread =
        |count: fn(&ThreadView) -> u64| Some(threads?).map(|(from, to)| count(&to).saturating_sub(count(&from)));
    let processor = |count| of_thread(count).map(|ms| share(ms * 1_000_000));
    let batch = to.batch.since(&from.batch);
    let high = |of: fn(&WorkerPace) -> &Spread| high(&of(to).since(of(from)));
    Worker {
        worker: to.worker,
        pinned: to.pinned,
        cpu: to.thread.map(|thread| thread.cpu),
        busy: share(counts.busy_ns),
        polling: share(counts.empty_ns),
        asleep: share(counts.asleep_ns),
        user: processor(|thread| thread.user_ms),
        system: processor(|thread| thread.system_ms),
        preempted_per_s: of_thread(|thread| thread.preempted).map(rate),
        per_s: Rates {
            received: rate(counts.received),
            transmitted: rate(counts.transmitted),
            dropped: rate(counts.dropped),
            breaths: rate(counts.breaths),
            sleeps: rate(counts.woken_packets + counts.woken_mail + counts.woken_time),
            woken_packets: rate(counts.woken_packets),
            woken_mail: rate(counts.woken_mail),
            woken_time: rate(counts.woken_time),
        },
        empty_breaths: (counts.breaths > 0).then(|| counts.empty as f64 / counts.breaths as f64),
        rx_ring_full: counts.rx_ring_full,
        rx_fill_ring_empty: counts.rx_fill_ring_empty,
        batches: by_powers(&batch),
        batch: high(|pace| &pace.batch),
        breath_ns: high(|pace| &pace.breath_ns),
        rx_waiting: high(|pace| &pace.rx_waiting),
        tx_outstanding: high(|pace| &pace.tx_outstanding),
        free: low(&to.free.since(&from.free)),
        batch_max: to.batch_max,
        rx_ring: to.rx_ring,
        tx_ring: to.tx_ring,
        frames: to.frames,
        hints: Vec::new(),
    }
}

fn since(from: &PaceCounts, to: &PaceCounts) -> PaceCounts {
    let less = |count: fn(&PaceCounts) -> u64| count(to).saturating_sub(count(from));
    PaceCounts {
        received: less(|counts| counts.received),
        transmitted: less(|counts| counts.transmitted),
        dropped: less(|counts| counts.dropped),
        breaths: less(|counts| counts.breaths),
        empty: less(|counts| counts.empty),
        busy_ns: less(|counts| counts.busy_ns),
        empty_ns: less(|counts| counts.empty_ns),
        asleep_ns: less(|counts| counts.asleep_ns),
        woken_packets: less(|counts| counts.woken_packets),
        woken_mail: less(|counts| counts.woken_mail),
        woken_time: less(|counts| counts.woken_time),
        rx_ring_full: less(|counts| counts.rx_ring_full),
        rx_fill_ring_empty: less(|counts| counts.rx_fill_ring_empty),
    }
}

fn high(spread: &Spread) -> Option<High> {
    let at = |share| spread.at(share).map(|bucket| bucket.to.min(spread.max));
    Some(High { p50: at(0.5)?, p99: at(0.99)?, max: spread.max })
}

fn low(spread: &Spread) -> Option<Low> {
    let at = |share| spread.at(share).map(|bucket| bucket.from);
    Some(Low { p50: at(0.5)?, p1: at(0.01)?, min: spread.buckets.first()?.from })
}

/// The same with a bucket for each power of two. No bucket of a [`Spread`] reaches over one.
fn by_powers(spread: &Spread) -> Vec<Bucket> {
    let mut powers: Vec<Bucket> = Vec::new();
    for bucket in &spread.buckets {
        let from = bucket.from.checked_ilog2().map_or(0, |power| 1 << power);
        match powers.last_mut().filter(|last| last.from == from) {
            Some(last) => last.count += bucket.count,
            None => powers.push(Bucket { from, to: (2 * from).saturating_sub(1), count: bucket.count }),
        }
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[(u64, u64, u64)]) -> Spread {
        let buckets: Vec<Bucket> = values.iter().map(|&(from, to, count)| Bucket { from, to, count }).collect();
        Spread { max: buckets.last().map_or(0, |bucket| bucket.to), buckets }
    }

    fn view(pid: u32, at_ns: u64, worker: WorkerPace) -> PaceView {
        PaceView { pid, at_ns, workers: vec![worker] }
    }

    /// Guards every figure against being told since the start, or for another time than lies between the looks.
    #[test]
    fn figures_are_of_the_time_between() {
        let thread = |user_ms, preempted| Some(ThreadView { cpu: 1, user_ms, system_ms: 30, preempted });
        let counts = PaceCounts { received: 1000, breaths: 10, empty: 1, busy_ns: 5, ..Default::default() };
        let first = WorkerPace {
            counts,
            batch: spread(&[(1, 1, 4)]),
            free: spread(&[(8, 8, 1)]),
            thread: thread(100, 3),
            ..Default::default()
        };
        let counts = PaceCounts {
            received: 5000,
            breaths: 110,
            empty: 51,
            busy_ns: 500_000_005,
            asleep_ns: 1_500_000_000,
            woken_packets: 10,
            woken_time: 4,
            ..Default::default()
        };
        let second = WorkerPace {
            counts,
            batch: spread(&[(1, 1, 4), (3, 3, 98), (64, 71, 2)]),
            free: spread(&[(8, 8, 1), (100, 103, 60)]),
            thread: thread(600, 13),
            ..Default::default()
        };
        let earlier = view(1, 1_000_000_000, first);
        let report = Report::between(&earlier, view(1, 3_000_000_000, second.clone())).expect("one director");
        let worker = &report.workers[0];
        assert_eq!((report.seconds, worker.busy, worker.asleep, worker.polling), (2.0, 0.25, 0.75, 0.0));
        assert_eq!((worker.user, worker.system, worker.preempted_per_s), (Some(0.25), Some(0.0), Some(5.0)));
        let rates = worker.per_s;
        assert_eq!((rates.received, rates.sleeps, rates.woken_packets, rates.woken_time), (2000.0, 7.0, 5.0, 2.0));
        assert_eq!((worker.empty_breaths, worker.breath_ns), (Some(0.5), None));
        assert_eq!(worker.batch, Some(High { p50: 3, p99: 71, max: 71 }));
        assert_eq!(worker.free, Some(Low { p50: 100, p1: 100, min: 100 }));
        let bucket = |from, to, count| Bucket { from, to, count };
        assert_eq!(worker.batches, [bucket(2, 3, 98), bucket(64, 127, 2)]);

        assert_eq!(Report::between(&earlier, view(2, 3_000_000_000, second.clone())), None, "another director");
        assert_eq!(Report::between(&earlier, view(1, 1_000_000_000, second)), None, "no time between");
    }
}
