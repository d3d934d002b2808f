//! The pace of the workers: values that are read twice, and what lies between is what people want to know.
//!
//! Not here: rates and sentences (`crate::workers`).

use serde::{Deserialize, Serialize};

/// The workers at one moment. All counts are since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaceView {
    /// The director's process id: another one is another director, which counts anew.
    pub pid: u32,
    /// When: nanoseconds of the machine's monotonic clock.
    pub at_ns: u64,
    /// The workers.
    pub workers: Vec<WorkerPace>,
}

/// One worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerPace {
    /// Index.
    pub worker: u32,
    /// CPU it is pinned to, if it is.
    pub pinned: Option<u32>,
    /// Its thread; none if it has ended.
    pub thread: Option<ThreadView>,
    /// Packets that a breath takes at most.
    pub batch_max: u32,
    /// Slots of a receive ring.
    pub rx_ring: u32,
    /// Slots of a transmit ring.
    pub tx_ring: u32,
    /// Frames.
    pub frames: u64,
    /// Counts.
    #[serde(flatten)]
    pub counts: PaceCounts,
    /// Packets of a breath that found some.
    pub batch: Spread,
    /// Nanoseconds of such a breath.
    pub breath_ns: Spread,
    /// Packets in the fullest receive ring, when the worker looked at it.
    pub rx_waiting: Spread,
    /// Frames with the kernel for transmission, after one of eight such breaths.
    pub tx_outstanding: Spread,
    /// Frames in the pool, after one of eight such breaths.
    pub free: Spread,
}

/// What a worker counts about its pace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceCounts {
    /// Packets received.
    pub received: u64,
    /// Packets transmitted.
    pub transmitted: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Breaths.
    pub breaths: u64,
    /// Breaths that found no packet.
    pub empty: u64,
    /// Nanoseconds in breaths that found packets.
    pub busy_ns: u64,
    /// Nanoseconds in breaths that found none.
    pub empty_ns: u64,
    /// Nanoseconds asleep.
    pub asleep_ns: u64,
    /// Sleeps that packets ended.
    pub woken_packets: u64,
    /// Sleeps that mail ended.
    pub woken_mail: u64,
    /// Sleeps that lasted their time.
    pub woken_time: u64,
    /// Packets that the kernel dropped at a full receive ring (XDP_STATISTICS, over the worker's sockets).
    pub rx_ring_full: u64,
    /// Times that the kernel found no frame for reception (the same).
    pub rx_fill_ring_empty: u64,
}

/// A thread as the kernel sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadView {
    /// CPU that it ran on last.
    pub cpu: u32,
    /// Milliseconds of processor time in the program.
    pub user_ms: u64,
    /// Milliseconds of processor time in the kernel.
    pub system_ms: u64,
    /// Times that the kernel took the processor away from it (involuntary context switches).
    pub preempted: u64,
}

/// How often which values were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The greatest value since the start.
    pub max: u64,
    /// Only those that were seen, in order.
    pub buckets: Vec<Bucket>,
}

/// Values of a range, and how often they were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The least value.
    pub from: u64,
    /// The greatest value.
    pub to: u64,
    /// How often.
    pub count: u64,
}

impl Spread {
    /// What was seen since an earlier moment of the same. The greatest value is then known as well as its bucket tells.
    pub fn since(&self, earlier: &Spread) -> Spread {
        let before = |from| earlier.buckets.iter().find(|bucket| bucket.from == from).map_or(0, |bucket| bucket.count);
        let moved = |bucket: &Bucket| Bucket { count: bucket.count.saturating_sub(before(bucket.from)), ..*bucket };
        let buckets: Vec<Bucket> = self.buckets.iter().map(moved).filter(|bucket| bucket.count > 0).collect();
        let max = buckets.last().map_or(0, |bucket| bucket.to.min(self.max));
        Spread { max, buckets }
    }

    /// How many values were seen.
    pub fn total(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// The bucket that this share (0 to 1) of all values reaches into; none if there are none.
    pub fn at(&self, share: f64) -> Option<Bucket> {
        let rank = ((self.total() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().copied().find(|bucket| {
            seen += bucket.count;
            seen >= rank
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(max: u64, buckets: &[(u64, u64, u64)]) -> Spread {
        let buckets = buckets.iter().map(|&(from, to, count)| Bucket { from, to, count });
        Spread { max, buckets: buckets.collect() }
    }

    /// Guards percentiles against an error by one: half of two values is the first.
    #[test]
    fn shares_reach_into_buckets() {
        let seen = spread(40, &[(1, 1, 50), (2, 2, 49), (32, 63, 1)]);
        let at = |share| seen.at(share).map(|bucket| bucket.from);
        assert_eq!([at(0.0), at(0.5), at(0.51), at(0.99), at(0.991), at(1.0)], [1, 1, 2, 2, 32, 32].map(Some));
        assert_eq!(Spread::default().at(0.5), None);
    }

    /// Guards against old values that show in what is new: only what came since counts, the maximum too.
    #[test]
    fn what_came_since() {
        let earlier = spread(900, &[(1, 1, 5), (896, 1023, 2)]);
        let later = spread(900, &[(1, 1, 6), (32, 35, 3), (896, 1023, 2)]);
        assert_eq!(later.since(&earlier), spread(35, &[(1, 1, 1), (32, 35, 3)]));
        assert_eq!(later.since(&Spread::default()), spread(900, &[(1, 1, 6), (32, 35, 3), (896, 1023, 2)]));
        assert_eq!(later.since(&later), Spread::default());
    }
}
