//! Durations in buckets, so that quantiles of millions of them take no memory.
//!
//! Invariant: a bucket is never wider than a 64th of what it holds, so a quantile is right within 1.6 %.

use std::time::Duration;

/// Buckets of each power of two.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts of durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; STEPS * (64 - STEP_BITS as usize + 1)], count: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        self.buckets[bucket(duration.as_nanos() as u64)] += 1;
        self.count += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that this share of all is not above: 0.5 for the median. Zero if nothing was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Duration::from_nanos(found.map_or(0, upper_end))
    }
}

fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS as u64 {
        return nanoseconds as usize;
    }
    let shift = nanoseconds.ilog2() - STEP_BITS;
    (shift as usize + 1) * STEPS + ((nanoseconds >> shift) as usize - STEPS)
}

fn upper_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let low = ((bucket % STEPS + STEPS) as u64) << shift;
    low + (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the quantiles: each is right within the width of its bucket.
    #[test]
    fn quantiles_of_a_known_set_are_right() {
        let mut histogram = Histogram::default();
        (1..=100_000_u64).for_each(|us| histogram.add(Duration::from_micros(us)));
        for share in [0.001, 0.5, 0.99, 0.999, 1.0] {
            let (got, right) = (histogram.quantile(share).as_secs_f64() * 1e6, share * 100_000.0);
            assert!((right..=right * 1.016).contains(&got), "{share}: {got} for {right}");
        }
        assert_eq!(histogram.count(), 100_000);
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
