//! The workers as the control side sees them: mail to them, what they count, and what comes back.
//!
//! Mail is read at the top of a breath, so a new snapshot comes into use between two batches. Old snapshots travel back
//! and are freed here: a worker frees nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, clock_gettime};

use xvs_engine::counters::{Count, Counters};
use xvs_engine::rings::Rings;
use xvs_engine::snapshot::Snapshot;
use xvs_engine::time::Now;
use xvs_engine::worker::Worker;

use crate::xsk::XskRings;

/// Breaths without a packet before a worker goes to sleep.
const IDLE_BREATHES: u32 = 8;
/// How long a worker sleeps at most: expiry goes on meanwhile.
const SLEEP: Duration = Duration::from_millis(50);
/// The same while frames wait for a MAC or for room in a ring.
const NAP: Duration = Duration::from_millis(1);
/// Breaths between two publications of the ledger, in a busy worker.
const PUBLISH_BREATHS: u32 = 1024;
/// How long the control side waits for a worker to take its mail.
const MAIL_TIMEOUT: Duration = Duration::from_secs(5);

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
}

impl Handle {
    /// Starts a worker on its own thread. `wanted` is told when it needs a MAC; `cpu` is where it is pinned.
    ///
    /// # Errors
    /// No thread or file descriptor is left.
    pub fn start(
        index: usize,
        worker: Worker<XskRings>,
        public: Arc<Public>,
        cpu: Option<u32>,
        busy_poll: bool,
        wanted: impl Fn() + Send + 'static,
    ) -> io::Result<Handle> {
        let (mail, inbox) = unbounded();
        let (outbox, returns) = unbounded();
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (started, ready) = bounded(1);
        let life = Life { inbox, outbox, waker: waker.clone(), public: public.clone(), busy_poll };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            // The receiver waits for it; if it is gone the worker is told to stop at once.
            let _ = started.send(());
            life.run(worker, &wanted);
        })?;
        ready.recv().map_err(|_| io::Error::other("the worker's thread did not start"))?;
        Ok(Handle { mail, returns, waker, public, thread: Some(thread) })
    }

    /// Sends a snapshot; [`taken`](Handle::taken) tells when it is in use.
    pub fn send(&self, snapshot: Arc<Snapshot>) {
        // A worker that is gone will be noticed by `taken`.
        let _ = self.mail.send(Mail::Snapshot(snapshot));
        self.wake();
    }

    /// Waits until the worker uses the snapshot that was sent; the one before is freed. `false` if it does not answer.
    pub fn taken(&self) -> bool {
        self.returns.recv_timeout(MAIL_TIMEOUT).is_ok()
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
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn pin(cpu: u32) {
    let mut set = nix::sched::CpuSet::new();
    let pinned = set
        .set(cpu as usize)
        .and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(cpu, %error, "the worker could not be pinned to its CPU");
    }
}

/// The time of a breath: monotonic, coarse, without a system call.
pub fn now() -> Now {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from).unwrap_or_default();
    Now::from_millis(time.as_millis() as u64)
}

/// The worker's own end.
struct Life {
    inbox: Receiver<Mail>,
    outbox: Sender<Arc<Snapshot>>,
    waker: Arc<EventFd>,
    public: Arc<Public>,
    busy_poll: bool,
}

impl Life {
    fn run(self, mut worker: Worker<XskRings>, wanted: &dyn Fn()) {
        let mut idle = 0;
        let mut since_published = 0;
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
            let received = worker.step(now());
            if worker.engine.take_pending() {
                wanted();
            }
            since_published += 1;
            idle = if received == 0 { idle + 1 } else { 0 };
            if idle >= IDLE_BREATHES || since_published >= PUBLISH_BREATHS {
                self.publish(&worker);
                since_published = 0;
            }
            if idle >= IDLE_BREATHES {
                self.sleep(&worker);
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
    fn sleep(&self, worker: &Worker<XskRings>) {
        let busy = worker.backlog() + worker.held() > 0;
        let timeout = if self.busy_poll || busy { NAP } else { SLEEP };
        let sockets = worker.rings.sockets().map(|socket| PollFd::new(socket, PollFlags::POLLIN));
        let waker: BorrowedFd<'_> = self.waker.as_fd();
        // Room for every device that a director has; more than that are looked at when the timeout is over.
        let mut fds: arrayvec::ArrayVec<PollFd<'_>, 64> = sockets.take(63).collect();
        fds.push(PollFd::new(waker, PollFlags::POLLIN));
        // An interrupted or failed poll is a short sleep, no more.
        let _ = poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO));
        let _ = self.waker.read();
    }
}
