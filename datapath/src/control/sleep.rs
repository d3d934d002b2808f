//! How a worker waits for packets or mail.
//!
//! Invariant: waiting does not wake, and costs nothing while nobody waits. Each mode of AF_XDP has its own pitfall here:
//!
//! - Zero-copy: a look at a socket by `poll` has the driver look at its rings, which is a softirq for each socket at each
//!   look, packets or not. So the sockets lie in an epoll set that is triggered by edges: the kernel puts a socket on its
//!   list when packets arrive and looks at that one alone. An edge is never lost: it is noted from the moment that the set
//!   is made, and a ring that was filled before an edge was empty at the worker's last breath.
//! - Copy: an epoll set waits at its sockets all the time, and the kernel wakes who waits at a socket each time that a
//!   packet has left and its room is free again, wanted or not: 44 ns of a packet's 500 on a veth in that place alone.
//!   There are no drivers to be spared. So it is `poll`, which is gone from the sockets as soon as it returns.
//!
//! Not here: when a worker sleeps and how long (`workers.rs`). Since nobody looks at the transmit rings for it, the worker
//! tells the kernel about every frame by itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::pace::Woken;

/// Events that one wait tells of; more stay on the kernel's list.
const EVENTS: usize = 16;
/// How the mail's descriptor is named in the set.
const MAIL: u64 = 1;
/// The same of all sockets.
const PACKETS: u64 = 0;
/// Descriptors of one wait: the mail, and as many sockets as a worker has at most (`INTERFACES_MAX`). They are on the
/// stack, since with little to do each packet ends a wait.
const DESCRIPTORS: usize = 256;
/// A wait that only a socket's end cut short, which `poll` tells again and again, lasts so long all the same.
const BROKEN: Duration = Duration::from_millis(1);

/// What a worker waits by.
#[derive(Debug)]
pub struct Sleep {
    /// The sockets of zero-copy and the mail; none with sockets that copy.
    edges: Option<Epoll>,
    mail: Arc<EventFd>,
}

impl Sleep {
    /// Will wait for these sockets in zero-copy mode, and this mail.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn by_edges<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>, mail: Arc<EventFd>) -> io::Result<Self> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        for socket in sockets {
            set.add(socket, EpollEvent::new(edges, PACKETS))?;
        }
        set.add(&mail, EpollEvent::new(edges, MAIL))?;
        Ok(Sleep { edges: Some(set), mail })
    }

    /// Will wait for sockets in copy mode, and this mail.
    pub fn by_looks(mail: Arc<EventFd>) -> Self {
        Sleep { edges: None, mail }
    }

    /// Waits for so long at most, and says what ended it. The sockets are always the same.
    pub fn wait<'a>(&'a self, sockets: impl Iterator<Item = BorrowedFd<'a>>, limit: Duration) -> Woken {
        let (packets, mail) = match &self.edges {
            Some(set) => next_edges(set, limit),
            None => self.look(sockets, limit),
        };
        if mail {
            let _ = self.mail.read();
        }
        match (packets, mail) {
            (true, _) => Woken::Packets,
            (false, true) => Woken::Mail,
            (false, false) => Woken::Time,
        }
    }

    /// Waits, and tells of packets and of mail.
    fn look<'a>(&'a self, sockets: impl Iterator<Item = BorrowedFd<'a>>, limit: Duration) -> (bool, bool) {
        let all = [self.mail.as_fd()].into_iter().chain(sockets);
        let all = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let mut all: ArrayVec<_, DESCRIPTORS> = all.take(DESCRIPTORS).collect();
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        // An interrupted wait is a short sleep, no more.
        let told = poll(&mut all, limit).unwrap_or_default();
        let has = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
        let (packets, mail) = (all[1..].iter().any(has), has(&all[0]));
        if told > 0 && !packets && !mail {
            std::thread::sleep(BROKEN);
        }
        (packets, mail)
    }
}

/// The same of a set that is triggered by edges.
fn next_edges(set: &Epoll, limit: Duration) -> (bool, bool) {
    let mut events = [EpollEvent::empty(); EVENTS];
    let limit = EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::ZERO);
    let count = set.wait(&mut events, limit).unwrap_or_default();
    let any = |of| events[..count].iter().any(|event| event.data() == of);
    (any(PACKETS), any(MAIL))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Instant;

    use nix::sys::eventfd::EfdFlags;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    /// A worker's wait, the socket it waits for, and the far end of that.
    struct Lab {
        sleep: Sleep,
        mail: Arc<EventFd>,
        near: UnixDatagram,
        far: UnixDatagram,
    }

    impl Lab {
        fn both() -> [Lab; 2] {
            [true, false].map(|edges| {
                let (near, far) = UnixDatagram::pair().expect("sockets");
                let mail = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("a descriptor"));
                let sleep = match edges {
                    true => Sleep::by_edges([near.as_fd()].into_iter(), mail.clone()).expect("a set"),
                    false => Sleep::by_looks(mail.clone()),
                };
                Lab { sleep, mail, near, far }
            })
        }

        fn wait(&self, limit: Duration) -> Woken {
            self.sleep.wait([self.near.as_fd()].into_iter(), limit)
        }

        fn take(&self) {
            self.near.recv(&mut [0; 16]).expect("a packet");
        }
    }

    /// Guards against a worker that sleeps over what came while it was awake, and against one that never sleeps again.
    #[test]
    fn what_came_before_ends_the_next_sleep_and_no_other() {
        for lab in Lab::both() {
            assert_eq!(lab.wait(SHORT), Woken::Time);
            lab.mail.write(1).expect("room");
            assert_eq!(lab.wait(LONG), Woken::Mail);
            lab.far.send(b"packet").expect("room");
            lab.mail.write(1).expect("room");
            assert_eq!(lab.wait(LONG), Woken::Packets, "packets count more than mail");
            lab.take();
            assert_eq!(lab.wait(SHORT), Woken::Time);
            lab.far.send(b"another").expect("room");
            assert_eq!(lab.wait(LONG), Woken::Packets);
        }
    }

    /// Guards zero-copy against a worker that does not sleep while a ring stays full: only a new packet is an edge.
    #[test]
    fn an_edge_is_told_once() {
        let [lab, _] = Lab::both();
        lab.far.send(b"packet").expect("room");
        assert_eq!(lab.wait(LONG), Woken::Packets);
        assert_eq!(lab.wait(SHORT), Woken::Time);
        lab.far.send(b"another").expect("room");
        assert_eq!(lab.wait(LONG), Woken::Packets);
    }

    /// Guards against a worker that spins because a device is gone: its end is told once, or not all the time.
    #[test]
    fn a_socket_that_broke_does_not_keep_a_worker_awake() {
        for (Lab { sleep, near, far, .. }, least) in Lab::both().into_iter().zip([SHORT, BROKEN]) {
            drop(far);
            let begun = Instant::now();
            let ends: Vec<Woken> = (0..4).map(|_| sleep.wait([near.as_fd()].into_iter(), SHORT)).collect();
            assert_eq!(ends[1..], [Woken::Time; 3]);
            assert!(begun.elapsed() >= 3 * least);
        }
    }
}
