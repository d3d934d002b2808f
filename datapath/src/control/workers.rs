//! The workers as the control side sees them: mail to them, what they count, and what comes back.
//!
//! Mail is read at the top of a breath, so a new snapshot comes into use between two batches. Old snapshots travel back
//! and are freed here: a worker frees nothing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use xvs_engine::counters::{Count, Counters};
use xvs_engine::rings::Rings;
use xvs_engine::snapshot::Snapshot;
use xvs_engine::time::Now;
use xvs_engine::worker::Worker;

use crate::xsk::XskRings;

use super::linger::Linger;
use super::pace::{Pace, Span, Tick, Woken};
use super::sleep::Sleep;

/// How long a worker sleeps at most: expiry goes on meanwhile.
const SLEEP: Duration = Duration::from_millis(50);
/// The same while something waits that no event will tell of: a frame for a MAC or for room in a ring, a ring for frames.
const NAP: Duration = Duration::from_millis(1);
/// Breaths between two publications of the ledger, in a busy worker.
const PUBLISH_BREATHS: u32 = 1024;
/// Of so many breaths with packets, one looks where the frames are.
const LOOK_BREATHS: u32 = 8;
/// How long the control side waits for a worker to take its mail, or to end.
const MAIL_TIMEOUT: Duration = Duration::from_secs(5);
/// Snapshots that may wait for a worker that does not take its mail; of those beyond, only the last one is kept.
const OWED_MAX: u32 = 16;
/// A worker that has not taken a breath between so many looks is silent. It takes twenty a second at least.
const SILENT_LOOKS: u32 = 3;

/// Mail to a worker.
#[derive(Debug)]
enum Mail {
    /// Use this snapshot from now on.
    Snapshot(Arc<Snapshot>),
    /// Stop.
    Stop,
}

/// What a worker lets others see.
#[derive(Debug)]
pub struct Public {
    /// Its counts.
    pub counters: Arc<Counters>,
    /// The frame ledger: total, free, fill, lent, tx.
    pub ledger: [Count; 5],
    /// How it goes about its work.
    pub pace: Pace,
}

impl Public {
    /// Of a worker with these counters, before its first breath.
    pub fn new(counters: Arc<Counters>) -> Self {
        Public { counters, ledger: Default::default(), pace: Pace::default() }
    }
}

/// How a worker is, as far as can be told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It breathes.
    Well,
    /// It lives and does not breathe.
    Silent,
    /// Its thread has ended, and nobody told it to.
    Ended,
}

/// The control side's end of a worker.
#[derive(Debug)]
pub struct Handle {
    mail: Sender<Mail>,
    returns: Receiver<Arc<Snapshot>>,
    waker: Arc<EventFd>,
    /// What it lets us see.
    pub public: Arc<Public>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Snapshots that were sent and whose predecessors have not come back.
    owed: u32,
    /// The last snapshot, if it was one too many.
    held_back: Option<Arc<Snapshot>>,
    health: Health,
    /// Breaths when it was last looked at, and how many looks ago they were others.
    seen: (u64, u32),
}

impl Handle {
    /// Starts a worker on its own thread. `wanted` is told when it needs a MAC; `cpu` is where it is pinned; it stays awake for
    /// `linger` after its last packet, or always if there is none; it does `prepare` before its first breath.
    ///
    /// # Errors
    /// No thread or file descriptor is left.
    pub fn start(
        index: usize,
        worker: Worker<XskRings>,
        public: Arc<Public>,
        cpu: Option<u32>,
        linger: Option<Duration>,
        prepare: impl FnOnce() + Send + 'static,
        wanted: impl Fn() + Send + 'static,
    ) -> io::Result<Handle> {
        let (mail, inbox) = unbounded();
        let (outbox, returns) = unbounded();
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (started, ready) = bounded(1);
        let sleep = match worker.rings.is_zero_copy()? {
            true => Sleep::by_edges(worker.rings.sockets(), waker.clone())?,
            false => Sleep::by_looks(waker.clone()),
        };
        let life = Life { inbox, outbox, sleep, public: public.clone(), linger: linger.map(Linger::new) };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            life.public.pace.thread.set(nix::unistd::gettid().as_raw() as u64);
            prepare();
            // The receiver waits for it; if it is gone the worker is told to stop at once.
            let _ = started.send(());
            life.run(worker, &wanted);
        })?;
        ready.recv().map_err(|_| io::Error::other("the worker's thread did not start"))?;
        let (thread, health, seen) = (Some(thread), Health::Well, (0, 0));
        Ok(Handle { mail, returns, waker, public, thread, owed: 0, held_back: None, health, seen })
    }

    /// Sends a snapshot; [`taken`](Handle::taken) tells when it is in use.
    pub fn send(&mut self, snapshot: Arc<Snapshot>) {
        if self.owed >= OWED_MAX {
            self.held_back = Some(snapshot);
            return;
        }
        self.held_back = None;
        // A worker that is gone will be noticed by `taken`.
        let _ = self.mail.send(Mail::Snapshot(snapshot));
        self.owed += 1;
        self.wake();
    }

    /// Waits until the worker uses the snapshot that was sent last; those before are freed. `false` if it does not
    /// answer. One that is known not to breathe is not waited for: requests would wait with us.
    pub fn taken(&mut self) -> bool {
        let patience = if self.health == Health::Well { MAIL_TIMEOUT } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        while self.owed > 0 {
            match self.returns.recv_deadline(deadline) {
                Ok(_) => self.owed -= 1,
                Err(_) => return false,
            }
        }
        self.held_back.is_none()
    }

    /// How the worker is.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Looks how the worker is, about once a second; tells if that has changed.
    pub fn look(&mut self) -> Option<Health> {
        while self.returns.try_recv().is_ok() {
            self.owed -= 1;
        }
        if let Some(snapshot) = self.held_back.take() {
            self.send(snapshot);
        }
        let breaths = self.public.counters.breaths.get();
        let looks = if breaths == self.seen.0 { self.seen.1 + 1 } else { 0 };
        self.seen = (breaths, looks);
        let health = match &self.thread {
            Some(thread) if thread.is_finished() => Health::Ended,
            _ if looks >= SILENT_LOOKS => Health::Silent,
            _ => Health::Well,
        };
        let changed = health != self.health;
        self.health = health;
        changed.then_some(health)
    }

    fn wake(&self) {
        // Full means that it is being woken already.
        let _ = self.waker.write(1);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.mail.send(Mail::Stop);
        self.wake();
        let Some(thread) = self.thread.take() else { return };
        // Its end of the channel goes away when it ends. One that does not end must not keep the process from ending.
        let deadline = Instant::now() + MAIL_TIMEOUT;
        loop {
            match self.returns.recv_deadline(deadline) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::error!("a worker does not stop; it is left behind");
                    return;
                }
            }
        }
        // A worker that panicked has said so already.
        let _ = thread.join();
    }
}

fn pin(cpu: u32) {
    let mut set = nix::sched::CpuSet::new();
    let pinned =
        set.set(cpu as usize).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(cpu, %error, "the worker could not be pinned to its CPU");
    }
}

/// The time, as the workers have it.
pub fn now() -> Now {
    Tick::now().into()
}

/// The worker's own end.
struct Life {
    inbox: Receiver<Mail>,
    outbox: Sender<Arc<Snapshot>>,
    sleep: Sleep,
    public: Arc<Public>,
    /// None of a worker that never sleeps.
    linger: Option<Linger>,
}

impl Life {
    fn run(mut self, mut worker: Worker<XskRings>, wanted: &dyn Fn()) {
        let (mut since_published, mut worked): (u32, u32) = (0, 0);
        // The end of a breath is the begin of the next one: one look at the clock for each.
        let mut time = Tick::now();
        loop {
            while let Ok(mail) = self.inbox.try_recv() {
                match mail {
                    Mail::Snapshot(snapshot) => {
                        // The control side frees it; without one, so do we, and nobody is served any more anyway.
                        let _ = self.outbox.send(worker.engine.swap(snapshot));
                    }
                    Mail::Stop => {
                        worker.finish();
                        return;
                    }
                }
            }
            let received = worker.step(time.into());
            if worker.engine.take_pending() {
                wanted();
            }
            let took = Span { from: time, to: Tick::now() };
            let sleeps = self.linger.as_mut().is_some_and(|linger| linger.may_sleep(received > 0, took.to));
            since_published += 1;
            if sleeps || since_published >= PUBLISH_BREATHS {
                self.publish(&worker);
                since_published = 0;
            }
            worked = worked.wrapping_add(u32::from(received > 0));
            let ledger = worked.is_multiple_of(LOOK_BREATHS).then(|| worker.rings.ledger());
            self.public.pace.breath(received, took, worker.rings.rx_waiting(), ledger);
            time = took.to;
            if sleeps {
                let woken = self.sleep(&worker);
                let slept = Span { from: time, to: Tick::now() };
                self.public.pace.slept(slept, woken);
                time = slept.to;
            }
        }
    }

    fn publish(&self, worker: &Worker<XskRings>) {
        let ledger = worker.rings.ledger();
        let values = [ledger.total, ledger.free, ledger.fill, ledger.lent, ledger.tx];
        for (count, value) in self.public.ledger.iter().zip(values) {
            count.set(value);
        }
    }

    /// Waits for packets or mail, for a moment.
    fn sleep(&self, worker: &Worker<XskRings>) -> Woken {
        let waits = worker.backlog() + worker.held() > 0 || worker.rings.needs_look();
        self.sleep.wait(worker.rings.sockets(), if waits { NAP } else { SLEEP })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker whose body is in the test's hands: it gets the mail and gives snapshots back, or does not.
    fn handle(body: impl FnOnce(Receiver<Mail>, Sender<Arc<Snapshot>>) + Send + 'static) -> Handle {
        let (mail, inbox) = unbounded();
        let (outbox, returns) = unbounded();
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("a descriptor"));
        let counters = Arc::new(Counters::new(1));
        let public = Arc::new(Public::new(counters));
        let thread = Some(std::thread::spawn(move || body(inbox, outbox)));
        let (owed, held_back, health, seen) = (0, None, Health::Well, (0, 0));
        Handle { mail, returns, waker, public, thread, owed, held_back, health, seen }
    }

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::new(generation, &[], Vec::new(), Default::default()))
    }

    /// Guards against a dead worker that nobody notices: it is told once, and nobody waits for it.
    #[test]
    fn a_worker_that_ends_is_noticed() {
        let mut handle = handle(|_, _| {});
        while !handle.thread.as_ref().is_some_and(|thread| thread.is_finished()) {
            std::thread::yield_now();
        }
        assert_eq!(handle.look(), Some(Health::Ended));
        assert_eq!(handle.look(), None);
        let begun = Instant::now();
        handle.send(snapshot(1));
        assert!(!handle.taken());
        drop(handle);
        assert!(begun.elapsed() < MAIL_TIMEOUT);
    }

    /// Guards requests against a worker that hangs: after three looks nobody waits for it, the snapshots that it does
    /// not take do not pile up, and when it breathes again it gets the last one.
    #[test]
    fn a_worker_that_hangs_is_noticed_and_catches_up() {
        let (resume, resumed) = bounded::<()>(0);
        let (told, last) = unbounded();
        let mut handle = handle(move |inbox, outbox| {
            let _ = resumed.recv();
            let mut current = snapshot(0);
            while let Ok(Mail::Snapshot(next)) = inbox.recv() {
                let _ = told.send(next.generation);
                let _ = outbox.send(std::mem::replace(&mut current, next));
            }
        });
        let looks: Vec<_> = (0..5).map(|_| handle.look()).collect();
        assert_eq!(looks, [None, None, Some(Health::Silent), None, None]);
        let begun = Instant::now();
        for generation in 1..=100 {
            handle.send(snapshot(generation));
            assert!(!handle.taken());
        }
        assert!(begun.elapsed() < MAIL_TIMEOUT, "nobody waits for it");
        assert_eq!(handle.owed, OWED_MAX);
        resume.send(()).expect("it waits");
        let mut seen = Vec::new();
        let end = Instant::now() + Duration::from_secs(10);
        while seen.last() != Some(&100) {
            assert!(Instant::now() < end, "{seen:?}");
            handle.public.counters.breaths.add(1);
            let _ = handle.look();
            seen.extend(last.try_iter());
        }
        assert_eq!(handle.health(), Health::Well);
        assert!(handle.taken(), "it uses the last one");
        assert_eq!(seen.len() as u32, OWED_MAX + 1);
    }
}
