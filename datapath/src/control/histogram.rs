//! A histogram with one writer: how often which value was seen, within an eighth of the value.
//!
//! Invariant: only the owning thread records (a [`Count`] is a plain load, add and store), any thread reads. It never
//! grows: values are kept exactly below 16, in eight steps for each power of two above, and those beyond the last step
//! count there.
//!
//! Not here: percentiles, which are the reader's (`protocol::Spread`).

use xvs_engine::counters::Count;

use super::protocol::{Bucket, Spread};

/// Steps of a power of two, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: u32 = 1 << STEP_BITS;
/// Values from this power of two on count in the last bucket: 18 minutes in nanoseconds.
const TOP_BITS: u32 = 40;
const BUCKETS: usize = ((TOP_BITS - STEP_BITS + 1) * STEPS) as usize;

/// How often which value was seen.
#[derive(Debug)]
pub struct Histogram {
    max: Count,
    counts: [Count; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { max: Count::default(), counts: std::array::from_fn(|_| Count::default()) }
    }
}

impl Histogram {
    /// A value was seen. Only the owner may.
    #[inline]
    pub fn record(&self, value: u64) {
        self.counts[bucket(value)].add(1);
        if value > self.max.get() {
            self.max.set(value);
        }
    }

    /// What was seen since the start.
    pub fn spread(&self) -> Spread {
        let seen = |(index, count): (usize, &Count)| {
            let (from, to) = bounds(index);
            let count = count.get();
            (count > 0).then_some(Bucket { from, to, count })
        };
        Spread { buckets: self.counts.iter().enumerate().filter_map(seen).collect(), max: self.max.get() }
    }
}

/// Where a value counts.
#[inline]
fn bucket(value: u64) -> usize {
    if value < u64::from(STEPS) {
        return value as usize;
    }
    let value = value.min((1 << TOP_BITS) - 1);
    let power = value.ilog2();
    let step = (value >> (power - STEP_BITS)) as u32 & (STEPS - 1);
    ((power - STEP_BITS + 1) * STEPS + step) as usize
}

/// The least and the greatest value that count here.
fn bounds(index: usize) -> (u64, u64) {
    let index = index as u64;
    let steps = u64::from(STEPS);
    if index < steps {
        return (index, index);
    }
    let width = 1 << (index / steps - 1);
    let from = (steps + index % steps) * width;
    (from, from + width - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a gap or an overlap between two buckets, and against one wider than an eighth of its values.
    #[test]
    fn buckets_lie_side_by_side() {
        let mut next = 0;
        for index in 0..BUCKETS {
            let (from, to) = bounds(index);
            assert_eq!(from, next, "bucket {index}");
            assert!(to - from <= from / u64::from(STEPS), "bucket {index}: {from} to {to}");
            assert_eq!((bucket(from), bucket(to)), (index, index));
            next = to + 1;
        }
        assert_eq!(next, 1 << TOP_BITS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1, "what is beyond counts in the last");
    }

    /// What is recorded is told, once, with the greatest value exactly.
    #[test]
    fn what_is_recorded_is_told() {
        let histogram = Histogram::default();
        [0, 7, 7, 1000].into_iter().for_each(|value| histogram.record(value));
        let bucket = |from, to, count| Bucket { from, to, count };
        let expected = vec![bucket(0, 0, 1), bucket(7, 7, 2), bucket(960, 1023, 1)];
        assert_eq!(histogram.spread(), Spread { buckets: expected, max: 1000 });
    }
}
