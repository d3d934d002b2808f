//! Rates as IPVS's estimator makes them: sampled every two seconds, smoothed, rounded.
//!
//! Rates of connections and packets are kept times 2^10, those of bytes times 2^5; each sample moves the average a
//! quarter of the way, with an arithmetic shift. Source: IPVS-REFERENCE 1.5 (the kernel's ip_vs_est.c).

use xvs_engine::counters::Traffic;

use super::protocol::Stats;

/// Seconds between samples.
pub const PERIOD_S: u64 = 2;

/// The estimator of one service or server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    last: Traffic,
    conns: i64,
    in_packets: i64,
    out_packets: i64,
    in_bytes: i64,
    out_bytes: i64,
}

impl Estimator {
    /// An estimator that begins with these counts.
    pub fn starting_at(traffic: Traffic) -> Self {
        Estimator { last: traffic, ..Estimator::default() }
    }

    /// The counts of the last sample.
    pub fn last(&self) -> Traffic {
        self.last
    }

    /// Takes the counts of now, two seconds after those before.
    pub fn sample(&mut self, now: Traffic) {
        let last = std::mem::replace(&mut self.last, now);
        // 2^10 / 2 s and 2^5 / 2 s
        approach(&mut self.conns, now.conns, last.conns, 512);
        approach(&mut self.in_packets, now.in_packets, last.in_packets, 512);
        approach(&mut self.out_packets, now.out_packets, last.out_packets, 512);
        approach(&mut self.in_bytes, now.in_bytes, last.in_bytes, 16);
        approach(&mut self.out_bytes, now.out_bytes, last.out_bytes, 16);
    }

    /// Counts and rates for a listing.
    pub fn stats(&self, counts: Traffic) -> Stats {
        let per_second = |rate: i64| ((rate + 0x1ff) >> 10).max(0) as u64;
        let bytes_per_second = |rate: i64| ((rate + 0xf) >> 5).max(0) as u64;
        Stats {
            conns: counts.conns,
            in_packets: counts.in_packets,
            out_packets: counts.out_packets,
            in_bytes: counts.in_bytes,
            out_bytes: counts.out_bytes,
            cps: per_second(self.conns),
            in_pps: per_second(self.in_packets),
            out_pps: per_second(self.out_packets),
            in_bps: bytes_per_second(self.in_bytes),
            out_bps: bytes_per_second(self.out_bytes),
        }
    }
}

fn approach(average: &mut i64, now: u64, last: u64, scale: i64) {
    let sample = now.saturating_sub(last) as i64 * scale;
    *average += (sample - *average) >> 2;
}

/// `a - b`, count by count; a baseline never exceeds what it is the base of.
pub fn difference(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        conns: a.conns.saturating_sub(b.conns),
        in_packets: a.in_packets.saturating_sub(b.in_packets),
        out_packets: a.out_packets.saturating_sub(b.out_packets),
        in_bytes: a.in_bytes.saturating_sub(b.in_bytes),
        out_bytes: a.out_bytes.saturating_sub(b.out_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A steady rate must be shown exactly after some samples, and an ended one must fade to zero.
    #[test]
    fn rates_settle_and_fade() {
        let mut estimator = Estimator::default();
        let mut now = Traffic::default();
        for _ in 0..60 {
            now.conns += 200;
            now.in_packets += 2000;
            now.in_bytes += 128_000;
            estimator.sample(now);
        }
        let stats = estimator.stats(now);
        assert_eq!((stats.cps, stats.in_pps, stats.in_bps, stats.out_pps), (100, 1000, 64_000, 0));
        for _ in 0..60 {
            estimator.sample(now);
        }
        let stats = estimator.stats(now);
        assert_eq!((stats.cps, stats.in_pps, stats.in_bps, stats.conns), (0, 0, 0, 12_000));
    }

    /// The first sample moves a quarter of the way: 100 connections in two seconds show as 13 (50 / 4, rounded).
    #[test]
    fn the_first_sample_counts_a_quarter() {
        let mut estimator = Estimator::default();
        estimator.sample(Traffic { conns: 100, ..Traffic::default() });
        assert_eq!(estimator.stats(Traffic::default()).cps, 12);
    }
}
