//! A signal to this thread when its time is over, which ends whatever call of the kernel it is in.
//!
//! Invariant: from its time on until its end it rings again and again, so a call that has just begun is ended, too.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// From one ring to the next.
const AGAIN: Duration = Duration::from_millis(5);

/// A set alarm; it is off with its value.
#[derive(Debug)]
pub struct Alarm {
    _timer: Timer,
}

impl Alarm {
    /// Rings for this thread, after so long.
    pub fn after(time: Duration) -> Result<Self> {
        // The signal has nothing to do but to arrive.
        signal_hook::flag::register(signal_hook::consts::SIGALRM, Arc::new(AtomicBool::new(false)))?;
        let thread_id = gettid().as_raw();
        let notify = SigevNotify::SigevThreadId { signal: Signal::SIGALRM, thread_id, si_value: 0 };
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).context("no alarm can be set")?;
        // A time of zero would switch it off.
        let when = Expiration::IntervalDelayed(time.max(Duration::from_nanos(1)).into(), AGAIN.into());
        timer.set(when, TimerSetTimeFlags::empty()).context("no alarm can be set")?;
        Ok(Alarm { _timer: timer })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::errno::Errno;
    use nix::poll::{PollTimeout, poll};

    use super::*;

    /// Guards the end of a flood: a call that waits is ended when the time is over, and not before.
    #[test]
    fn a_waiting_call_is_interrupted_in_time() {
        let begun = Instant::now();
        let _alarm = Alarm::after(Duration::from_millis(30)).expect("an alarm");
        let ended = poll(&mut [], PollTimeout::from(10_000_u16));
        assert_eq!(ended, Err(Errno::EINTR));
        assert!((Duration::from_millis(30)..Duration::from_secs(5)).contains(&begun.elapsed()));
    }
}
