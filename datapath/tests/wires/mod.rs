//! veth pairs in network namespaces: AF_XDP rings at one end, raw sockets at the other.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use xvs::xsk::{self, Binding, Frames, XskRings, ZeroCopy};
use xvs_engine::hop::Port;
use xvs_engine::rings::{Frame, Rings};
use xvs_redirect::{InterfaceSpec, Key, Options, Protocol, Redirect};

use crate::frames;
use crate::namespace::Namespace;

/// Longest wait for what the kernel does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT: &str = "198.51.100.7:40000";
const VIRTUAL: &str = "192.0.2.10:53";

pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Small rings, so that they wrap around often.
pub(crate) const SMALL: Frames = Frames {
    size: 2048,
    count: 64,
    rx_ring: 32,
    tx_ring: 16,
    fill_ring: 32,
    completion_ring: 32,
    huge_pages: false,
    huge_pages_optional: true,
    busy_poll: None,
};

/// A machine with devices `a0`, `a1`, ... and at their other ends, in one more namespace, `b0`, `b1`, ...
pub(crate) struct Wires {
    pub(crate) here: Namespace,
    pub(crate) there: Namespace,
    count: usize,
}

impl Wires {
    pub(crate) fn new(count: usize) -> Wires {
        let wires = Wires { here: Namespace::new("here"), there: Namespace::new("there"), count };
        for at in 0..count {
            wires.here.ip(&format!("link add a{at} type veth peer name b{at} netns {}", wires.there.name()));
            wires.here.ip(&format!("link set a{at} address 02:00:00:00:00:01 up"));
            wires.there.ip(&format!("link set b{at} up"));
        }
        for at in 0..count {
            wires.await_carrier(at);
        }
        wires
    }

    pub(crate) fn await_carrier(&self, at: usize) {
        let end = Instant::now() + PATIENCE;
        while !self.here.ip(&format!("link show a{at}")).contains("LOWER_UP") {
            assert!(Instant::now() < end, "a{at} does not come up");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn bindings(&self) -> Vec<Binding> {
        let binding = |at| Binding { interface: format!("a{at}"), queue: 0, zero_copy: ZeroCopy::Auto };
        (0..self.count).map(binding).collect()
    }

    pub(crate) fn rings(&self, frames: &Frames) -> XskRings {
        self.here.enter(|| {
            let sockets = xsk::bind(frames, &self.bindings()).expect("sockets");
            XskRings::new(sockets).expect("rings")
        })
    }

    /// Rings that get what comes for the one virtual service.
    pub(crate) fn served(&self, frames: &Frames) -> (Redirect, XskRings) {
        let mut redirect = self.here.enter(|| {
            let index = |at| nix::net::if_::if_nametoindex(format!("a{at}").as_str()).expect("the device");
            let spec = |at| InterfaceSpec { name: format!("a{at}"), ifindex: index(at), queues: 1 };
            let specs: Vec<_> = (0..self.count).map(spec).collect();
            let mut redirect = Redirect::load(&Options::default(), &specs).expect("the XDP program");
            for spec in &specs {
                redirect.attach(spec.ifindex).expect("attaching");
            }
            redirect
        });
        let rings = self.rings(frames);
        for (at, monitor) in rings.monitors().expect("descriptors").iter().enumerate() {
            let index = self.here.enter(|| nix::net::if_::if_nametoindex(format!("a{at}").as_str()).expect("it"));
            redirect.register(index, 0, monitor.as_fd()).expect("registering");
        }
        let virtual_address: std::net::SocketAddr = VIRTUAL.parse().expect("an address");
        let (address, port) = (virtual_address.ip(), virtual_address.port());
        redirect.steer(Key::Service { protocol: Protocol::Udp, address, port }).expect("steering");
        (redirect, rings)
    }

    pub(crate) fn peer(&self, at: usize) -> Peer {
        self.there.enter(|| {
            let name = format!("b{at}");
            let link = getifaddrs()
                .expect("the addresses")
                .find_map(|entry| (entry.interface_name == name).then_some(entry.address?.as_link_addr().copied()?));
            let address = link.expect("the link's address");
            let open = |protocol| socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, protocol);
            let (sender, capture) =
                (open(None).expect("a socket"), open(Some(SockProtocol::EthAll)).expect("a socket"));
            setsockopt(&capture, sockopt::RcvBufForce, &(32 << 20)).expect("a large buffer");
            bind(capture.as_raw_fd(), &address).expect("binding");
            Peer { sender, capture, address }
        })
    }
}

/// The other end of a wire.
pub(crate) struct Peer {
    sender: OwnedFd,
    capture: OwnedFd,
    address: LinkAddr,
}

impl Peer {
    pub(crate) fn send(&self, number: u32) {
        self.send_frame(&query(number));
    }

    pub(crate) fn send_frame(&self, frame: &[u8]) {
        let end = Instant::now() + PATIENCE;
        while sendto(self.sender.as_raw_fd(), frame, &self.address, MsgFlags::empty()).is_err() {
            assert!(Instant::now() < end, "the frame can not be sent");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the director sent here and was not taken yet: frames from its MAC.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut taken = Vec::new();
        while let Ok(length) = recv(self.capture.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            if buffer[6..12] == frames::DIRECTOR && buffer[..6] == frames::PEER {
                taken.push(buffer[..length].to_vec());
            }
        }
        taken
    }
}

pub(crate) fn query(number: u32) -> Vec<u8> {
    let payload = [&number.to_be_bytes()[..], &vec![number as u8; number as usize % 900]].concat();
    frames::udp(CLIENT, VIRTUAL, &payload)
}

/// Rings and what is on its way between them; after every step the ledger must be balanced.
pub(crate) struct Turner {
    pub(crate) rings: XskRings,
    pub(crate) batch: Vec<Frame>,
    pub(crate) outboxes: Vec<Vec<Frame>>,
}

impl Turner {
    pub(crate) fn new(rings: XskRings) -> Turner {
        let outboxes = (0..rings.ports()).map(|_| Vec::new()).collect();
        Turner { rings, batch: Vec::new(), outboxes }
    }

    pub(crate) fn check(&self) {
        let ledger = self.rings.ledger();
        assert!(ledger.is_balanced(), "{ledger:?}");
        let held = self.batch.len() + self.outboxes.iter().map(Vec::len).sum::<usize>();
        assert_eq!(ledger.lent, held as u64, "{ledger:?}");
    }

    pub(crate) fn receive(&mut self, room: usize) -> usize {
        self.rings.replenish();
        self.check();
        let before = self.batch.len();
        self.rings.receive(before + room, &mut self.batch);
        self.check();
        self.batch.len() - before
    }

    /// Gives each frame in hand a new head of 40 bytes more, between the link header and the packet, and puts it into
    /// the outbox of the device that `way` tells.
    pub(crate) fn grow(&mut self, way: impl Fn(Port) -> Port) {
        for mut frame in self.batch.drain(..) {
            let (at, len) = (frame.at(), frame.len());
            let (chunk, start) = self.rings.chunk(&frame);
            assert!(start >= 256, "AF_XDP leaves 256 bytes");
            chunk[start - 40..start - 34].copy_from_slice(&frames::PEER);
            chunk[start - 34..start - 28].copy_from_slice(&frames::DIRECTOR);
            chunk[start - 28..start - 26].copy_from_slice(&[0x88, 0xb5]);
            chunk[start - 26..start + 14].fill(0xee);
            frame.set_packet(at - 40, len + 40);
            let port = way(frame.port());
            self.outboxes[usize::from(port.0)].push(frame);
        }
        self.check();
    }

    /// Looks ahead first, as a worker does.
    pub(crate) fn transmit(&mut self) -> usize {
        self.rings.look_ahead(16);
        self.check();
        let mut sent = 0;
        for (port, outbox) in (0..).map(Port).zip(&mut self.outboxes) {
            let before = outbox.len();
            let count = self.rings.transmit(port, outbox);
            assert_eq!(outbox.len(), before - count);
            sent += count;
        }
        self.check();
        sent
    }

    /// Gives everything up, so that it can be dropped.
    pub(crate) fn finish(mut self) {
        for frame in self.batch.drain(..).chain(self.outboxes.iter_mut().flat_map(|outbox| outbox.drain(..))) {
            self.rings.recycle(frame);
        }
        assert_eq!(self.rings.ledger().lent, 0);
    }
}
