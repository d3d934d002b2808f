//! How a worker waits for packets or mail.
//!
//! Invariant: waiting does not wake. A look at an AF_XDP socket by `poll` has the driver look at its rings, which is a
//! softirq for each socket at each look, packets or not. So the sockets lie in an epoll set that is triggered by edges:
//! the kernel puts a socket on its list when packets arrive and looks at that one alone. An edge is never lost: it is
//! noted from the moment that the set is made, and a ring that was filled before an edge was empty at the worker's last
//! breath.
//!
//! Not here: when a worker sleeps and how long (`workers.rs`). Since nobody looks at the transmit rings for it, the worker
//! tells the kernel about every frame by itself.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::pace::Woken;

/// Events that one wait tells of; more stay on the kernel's list.
const EVENTS: usize = 16;
/// How the mail's descriptor is named in the set.
const MAIL: u64 = 1;
/// The same of all sockets.
const PACKETS: u64 = 0;

/// What a worker waits by.
#[derive(Debug)]
pub struct Sleep {
    set: Epoll,
    mail: Arc<EventFd>,
}

impl Sleep {
    /// Will wait for these sockets and this mail.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>, mail: Arc<EventFd>) -> io::Result<Self> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        for socket in sockets {
            set.add(socket, EpollEvent::new(edges, PACKETS))?;
        }
        set.add(&mail, EpollEvent::new(edges, MAIL))?;
        Ok(Sleep { set, mail })
    }

    /// Waits for so long at most, and says what ended it.
    pub fn wait(&self, limit: Duration) -> Woken {
        let mut events = [EpollEvent::empty(); EVENTS];
        let limit = EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::ZERO);
        // An interrupted wait is a short sleep, no more.
        let count = self.set.wait(&mut events, limit).unwrap_or_default();
        let mut woken = Woken::Time;
        for event in &events[..count] {
            match event.data() {
                MAIL => {
                    let _ = self.mail.read();
                    if woken == Woken::Time {
                        woken = Woken::Mail;
                    }
                }
                _ => woken = Woken::Packets,
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::time::Instant;

    use nix::sys::eventfd::EfdFlags;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    fn mail() -> Arc<EventFd> {
        Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("a descriptor"))
    }

    /// Guards against a worker that sleeps over what came while it was awake, and against one that never sleeps again.
    #[test]
    fn what_came_before_ends_the_next_sleep_and_no_other() {
        let (near, far) = UnixDatagram::pair().expect("sockets");
        let mail = mail();
        let sleep = Sleep::new([near.as_fd()].into_iter(), mail.clone()).expect("a set");
        assert_eq!(sleep.wait(SHORT), Woken::Time);
        mail.write(1).expect("room");
        assert_eq!(sleep.wait(LONG), Woken::Mail);
        far.send(b"packet").expect("room");
        mail.write(1).expect("room");
        assert_eq!(sleep.wait(LONG), Woken::Packets, "packets count more than mail");
        // The packet is not taken, as with a socket whose ring stays full: only a new one is an edge.
        assert_eq!(sleep.wait(SHORT), Woken::Time);
        far.send(b"another").expect("room");
        assert_eq!(sleep.wait(LONG), Woken::Packets);
    }

    /// Guards against a worker that spins because a device is gone: its end is told once.
    #[test]
    fn a_socket_that_broke_does_not_keep_a_worker_awake() {
        let (near, far) = UnixDatagram::pair().expect("sockets");
        let sleep = Sleep::new([near.as_fd()].into_iter(), mail()).expect("a set");
        drop(far);
        let begun = Instant::now();
        let ends: Vec<Woken> = (0..4).map(|_| sleep.wait(SHORT)).collect();
        assert_eq!(ends[1..], [Woken::Time; 3]);
        assert!(begun.elapsed() >= 3 * SHORT);
    }
}
