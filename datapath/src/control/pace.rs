//! The pace of a worker: how long its breaths take and what it finds in them, how it sleeps and what wakes it.
//!
//! Invariant: the worker's thread alone writes, and nobody else's data lie in these cache lines. It costs one look at the
//! clock a breath, which is also the engine's time, and a few stores; nothing for a packet.

use nix::time::{ClockId, clock_gettime};

use xvs_engine::counters::Count;
use xvs_engine::rings::Ledger;
use xvs_engine::time::Now;

use super::histogram::Histogram;

/// A point of monotonic time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// Now. Without a system call, where the clock source is the processor's own counter.
    #[inline]
    pub fn now() -> Tick {
        // The monotonic clock is there and does not go below zero.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(|time| (time.tv_sec(), time.tv_nsec()));
        let (seconds, nanos) = time.unwrap_or_default();
        Tick(seconds as u64 * 1_000_000_000 + nanos as u64)
    }

    /// A point of time for a test.
    #[cfg(test)]
    pub(super) fn at(nanos: u64) -> Tick {
        Tick(nanos)
    }

    /// Nanoseconds of monotonic time.
    pub fn nanos(self) -> u64 {
        self.0
    }

    #[inline]
    fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<Tick> for Now {
    #[inline]
    fn from(tick: Tick) -> Now {
        Now::from_millis(tick.0 / 1_000_000)
    }
}

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Packets.
    Packets,
    /// Mail from the control side.
    Mail,
    /// The time was over.
    Time,
}

/// What the loop around a worker notes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Pace {
    /// Nanoseconds in breaths that found packets.
    pub busy_ns: Count,
    /// Nanoseconds in breaths that found none.
    pub empty_ns: Count,
    /// Nanoseconds asleep.
    pub asleep_ns: Count,
    /// Sleeps that ended by packets, by mail, by time.
    pub woken: [Count; 3],
    /// The kernel's number of the thread.
    pub thread: Count,
    /// Packets of a breath that found some.
    pub batch: Histogram,
    /// How long such a breath took.
    pub breath_ns: Histogram,
    /// Packets in the fullest receive ring when the worker looked at it.
    pub rx_waiting: Histogram,
    /// Frames with the kernel for transmission, after some of such breaths.
    pub tx_outstanding: Histogram,
    /// Frames in the pool, after some of such breaths.
    pub free: Histogram,
}

impl Pace {
    /// A breath ended: what it found, how long it took, and where the frames are, if that was looked at.
    #[inline]
    pub fn breath(&self, received: usize, took: Span, rx_waiting: Option<u32>, ledger: Option<Ledger>) {
        let took = took.nanos();
        if received == 0 {
            self.empty_ns.add(took);
            return;
        }
        self.busy_ns.add(took);
        self.breath_ns.record(took);
        self.batch.record(received as u64);
        if let Some(waiting) = rx_waiting {
            self.rx_waiting.record(waiting.into());
        }
        if let Some(ledger) = ledger {
            self.tx_outstanding.record(ledger.tx);
            self.free.record(ledger.free);
        }
    }

    /// A sleep ended.
    pub fn slept(&self, took: Span, woken: Woken) {
        self.asleep_ns.add(took.nanos());
        self.woken[woken as usize].add(1);
    }
}

/// From a point of time to another.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its begin.
    pub from: Tick,
    /// Its end.
    pub to: Tick,
}

impl Span {
    #[inline]
    fn nanos(self) -> u64 {
        self.to.since(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from: Tick(from), to: Tick(to) }
    }

    /// Time is counted once, in the place where it was spent; an empty breath is in no distribution.
    #[test]
    fn every_span_counts_once() {
        let pace = Pace::default();
        let ledger = Some(Ledger { total: 10, free: 6, fill: 2, lent: 0, tx: 2 });
        pace.breath(0, span(0, 50), Some(0), ledger);
        pace.breath(3, span(50, 1050), Some(5), ledger);
        pace.breath(2, span(1050, 1150), None, None);
        pace.slept(span(1150, 9150), Woken::Mail);
        assert_eq!([&pace.empty_ns, &pace.busy_ns, &pace.asleep_ns].map(Count::get), [50, 1100, 8000]);
        assert_eq!(pace.woken.each_ref().map(Count::get), [0, 1, 0]);
        let seen = |histogram: &Histogram| histogram.spread().buckets.iter().map(|bucket| bucket.count).sum::<u64>();
        assert_eq!([&pace.batch, &pace.breath_ns, &pace.tx_outstanding, &pace.free].map(seen), [2, 2, 1, 1]);
        assert_eq!(
            (seen(&pace.rx_waiting), pace.rx_waiting.spread().max),
            (1, 5),
            "a ring that was not looked at anew"
        );
    }

    /// The engine's milliseconds are those of the same clock.
    #[test]
    fn ticks_are_the_engines_time() {
        assert_eq!(Now::from(Tick(5_999_999)).millis(), 5);
        let (first, second) = (Tick::now(), Tick::now());
        assert!(first.nanos() > 0 && second >= first);
    }
}
