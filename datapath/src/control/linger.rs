//! How long a worker stays awake after its last packet.
//!
//! To wake a thread takes longer than most packets are apart from their answers, so a worker that waits for a moment before
//! it sleeps finds them at once, and saves the cost of sleeping and waking besides. Invariant: that costs no more than it may
//! save. A worker lingers about as long as a wake-up takes, and only where it found packets in at least half of the times
//! before; elsewhere it tries again at every so many sleeps, to see whether that has changed. Not here: how it sleeps
//! (`sleep.rs`), and workers that never do (`frames.busy_poll`).

use std::time::Duration;

use super::pace::Tick;

/// Empty breaths before a worker thinks of sleep: one look may come between two packets of a batch.
const EMPTY_BREATHS: u32 = 8;
/// The best record of a worker, and its record at the begin.
const BEST: u32 = 8;
/// With the worst record, one sleep of so many is put off.
const PROBE: u32 = 64;

/// Whether a worker may sleep.
#[derive(Debug)]
pub(super) struct Linger {
    /// Nanoseconds that it stays awake.
    span: u64,
    state: State,
    /// One up for each time that it paid, one down for each that it did not.
    record: u32,
    /// Sleeps at once since it last lingered.
    skipped: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many empty breaths since the last packets.
    Empty(u32),
    /// It lingers, until then.
    Until(u64),
    /// It sleeps, or has slept without a packet since.
    Sleeping,
}

impl Linger {
    /// Of a worker that stays awake for so long.
    pub(super) fn new(span: Duration) -> Self {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Linger { span, state: State::Empty(0), record: BEST, skipped: 0 }
    }

    /// A breath ended now, with or without packets: is it time to sleep?
    #[inline]
    pub(super) fn may_sleep(&mut self, had_packets: bool, now: Tick) -> bool {
        self.state = match self.state {
            State::Until(_) if had_packets => {
                self.record = BEST.min(self.record + 1);
                State::Empty(0)
            }
            _ if had_packets => State::Empty(0),
            State::Empty(breaths) if breaths + 1 < EMPTY_BREATHS => State::Empty(breaths + 1),
            State::Empty(_) => match self.is_promising() {
                true => State::Until(now.nanos().saturating_add(self.span)),
                false => State::Sleeping,
            },
            State::Until(end) if now.nanos() >= end => {
                self.record = self.record.saturating_sub(1);
                State::Sleeping
            }
            same => same,
        };
        self.state == State::Sleeping
    }

    /// Shall it linger this time?
    fn is_promising(&mut self) -> bool {
        self.skipped = if self.record > 0 { 0 } else { (self.skipped + 1) % PROBE };
        self.span > 0 && self.skipped == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: u64 = 50_000;

    /// A worker whose packets come so many nanoseconds apart, one by one, and who looks each microsecond: how long it was awake
    /// without a packet, and how often it slept, over a thousand packets.
    fn live(linger: &mut Linger, apart: u64) -> (u64, u32) {
        let (mut idle, mut sleeps) = (0, 0);
        for _ in 0..1000 {
            assert!(!linger.may_sleep(true, Tick::at(0)));
            let mut time = 0;
            while time < apart {
                time += 1000;
                if linger.may_sleep(false, Tick::at(time)) {
                    sleeps += 1;
                    break;
                }
            }
            idle += time;
        }
        (idle, sleeps)
    }

    /// Packets that come soon find a worker that is awake; those that come late do not keep it from sleeping for nothing, but
    /// for a try now and then, which notices when packets come sooner again.
    #[test]
    fn it_lingers_where_that_pays() {
        let mut linger = Linger::new(Duration::from_nanos(SPAN));
        assert_eq!(live(&mut linger, 30_000).1, 0, "it never slept");
        let (idle, sleeps) = live(&mut linger, 200_000);
        assert_eq!(sleeps, 1000, "nothing came in time");
        let tries = u64::from(BEST) + 1000 / u64::from(PROBE) + 1;
        assert!(idle <= tries * SPAN + 1000 * 9000, "{idle}");
        let (_, sleeps) = live(&mut linger, 30_000);
        assert!((1..=PROBE).contains(&sleeps), "it noticed, after {sleeps}");
    }

    /// Without a span it sleeps after a few empty breaths, and sleeps on until there are packets.
    #[test]
    fn it_need_not_linger() {
        let mut linger = Linger::new(Duration::ZERO);
        assert!(!linger.may_sleep(true, Tick::at(0)));
        let slept: Vec<bool> = (0..12).map(|time| linger.may_sleep(false, Tick::at(time))).collect();
        assert_eq!(slept.iter().position(|&sleeps| sleeps), Some(EMPTY_BREATHS as usize - 1));
        assert!(slept[EMPTY_BREATHS as usize..].iter().all(|&sleeps| sleeps));
    }

    /// A worker that was woken by mail or by time has had no packets, and does not linger.
    #[test]
    fn it_does_not_linger_without_packets() {
        let mut linger = Linger::new(Duration::from_nanos(SPAN));
        assert!((0..SPAN + 9).step_by(1000).all(|time| !linger.may_sleep(false, Tick::at(time))));
        assert!((SPAN + 9000..9 * SPAN).step_by(1000).all(|time| linger.may_sleep(false, Tick::at(time))));
    }
}
