//! `XskRings`: the engine's rings over AF_XDP sockets.
//!
//! Invariant: a chunk is in exactly one place: the pool, a device's fill ring (or the receive ring behind it), our
//! hands, or a device's transmit ring (or the completion ring behind it). The counts are kept on our side, by what was
//! pushed and popped; the kernel's silence does not change them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xvs_engine::hop::Port;
use xvs_engine::lines::prefetch_for_writing;
use xvs_engine::rings::{Frame, Ledger, Rings};

use super::ring::Ring;
use super::socket::{Bound, Monitor, Sockets, is_zero_copy, xdp_option};

/// Where the kernel starts a received packet in its chunk (XDP_PACKET_HEADROOM); a frame of our own starts there too.
const HEADROOM: u32 = 256;
/// Chunks that are kept from reception, for packets that are cut in two and more; an eighth of all at most.
const SPARE: u32 = 64;

/// One device's socket and rings.
#[derive(Debug)]
struct Device {
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    fill: Ring<u64>,
    completion: Ring<u64>,
    /// Chunks in the fill ring or received and not yet popped.
    in_fill: u32,
    /// Chunks in the transmit ring or sent and not yet popped.
    in_tx: u32,
    /// Of the packets that are next in the receive ring, those that are on their way already.
    fetched: u32,
    bound: Bound,
}

/// The rings of one worker.
#[derive(Debug)]
pub struct XskRings {
    // Before `sockets`' memory in the order of dropping: rings are unmapped first.
    devices: Vec<Device>,
    free: Vec<u32>,
    lent: u32,
    base: *mut u8,
    /// Bytes of the frame memory.
    size: usize,
    chunk_shift: u32,
    chunks: u32,
    /// Chunks that are not given to devices for reception.
    spare: u32,
    /// Chunks that a device may have for reception.
    fill_share: u32,
    /// Chunks that a device may have for transmission. A link that is down keeps what it has: without a bound it would
    /// end up with all chunks, and the other devices with none to receive into.
    tx_share: u32,
    /// The kernel is asked to look at the rings whether it wants to be or not.
    busy_poll: bool,
    first: usize,
    /// Packets in the fullest of the receive rings that the last reception looked at anew, or the look ahead to it.
    rx_waiting: Option<u32>,
    seen_ahead: Option<u32>,
    huge_pages: bool,
    _umem: xsk_rs::umem::Umem,
}

// SAFETY: the pointers are to mappings that belong to this value alone; it is made on one thread and moved to the
// worker's, and never used from two.
unsafe impl Send for XskRings {}

impl XskRings {
    /// Maps the rings of these sockets.
    ///
    /// # Errors
    /// The kernel would not map a ring or tell its layout.
    pub fn new(sockets: Sockets) -> io::Result<Self> {
        let Sockets { bound, umem, base, frames, huge_pages } = sockets;
        let spare = SPARE.min(frames.count / 8);
        let share = (frames.count - spare) / bound.len().max(1) as u32;
        let fill_share = frames.fill_ring.min(share).max(1);
        // What one device holds for good at most, both shares together, leaves the others chunks to work with.
        let tx_share = if bound.len() > 1 { (frames.count / bound.len() as u32 / 2).max(1) } else { frames.count };
        let mut devices = Vec::with_capacity(bound.len());
        for bound in bound {
            let offsets: libc::xdp_mmap_offsets = xdp_option(bound.as_fd(), libc::XDP_MMAP_OFFSETS)?;
            let fd = bound.as_fd();
            devices.push(Device {
                rx: Ring::map(fd, libc::XDP_PGOFF_RX_RING as u64, &offsets.rx, frames.rx_ring, false)?,
                tx: Ring::map(fd, libc::XDP_PGOFF_TX_RING as u64, &offsets.tx, frames.tx_ring, true)?,
                fill: Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, frames.fill_ring, true)?,
                completion: Ring::map(
                    fd,
                    libc::XDP_UMEM_PGOFF_COMPLETION_RING,
                    &offsets.cr,
                    frames.completion_ring,
                    false,
                )?,
                in_fill: 0,
                in_tx: 0,
                fetched: 0,
                bound,
            });
        }
        Ok(XskRings {
            devices,
            free: (0..frames.count).rev().collect(),
            lent: 0,
            base,
            size: frames.count as usize * frames.size as usize,
            chunk_shift: frames.size.trailing_zeros(),
            chunks: frames.count,
            spare,
            fill_share,
            tx_share,
            busy_poll: frames.busy_poll.is_some(),
            first: 0,
            rx_waiting: None,
            seen_ahead: None,
            huge_pages,
            _umem: umem,
        })
    }

    /// The sockets, one a device, for polling and for the XDP program's map.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.iter().map(|device| device.bound.as_fd())
    }

    /// A way to ask the kernel about each socket from elsewhere.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn monitors(&self) -> io::Result<Vec<Monitor>> {
        self.sockets().map(Monitor::of).collect()
    }

    /// Are the sockets in zero-copy mode, by the kernel's own answer? They agree, since they share the frames.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn is_zero_copy(&self) -> io::Result<bool> {
        self.devices.first().map_or(Ok(false), |device| is_zero_copy(device.bound.as_fd()))
    }

    /// How many packets waited in the fullest receive ring at the last reception. None if it took packets that were
    /// known from before: the kernel's index is not looked at for this alone, since its cache line is the kernel's.
    #[inline]
    pub fn rx_waiting(&self) -> Option<u32> {
        self.rx_waiting
    }

    /// Does something wait that no event will tell of? Packets that the kernel has not taken yet, or half of a device's
    /// frames for reception, which only frames that come back from transmission can make good.
    pub fn needs_look(&self) -> bool {
        let short = |device: &Device| device.in_fill < self.fill_share / 2;
        self.devices.iter().any(|device| short(device) || (device.in_tx > 0 && !device.tx.is_drained()))
    }

    fn chunk_size(&self) -> usize {
        1 << self.chunk_shift
    }

    /// Do huge pages lie under the frames?
    pub fn has_huge_pages(&self) -> bool {
        self.huge_pages
    }
}

/// Starts to fetch a packet. Another processor has written it, or the NIC: nobody waits for one packet after the other.
#[inline(always)]
fn fetch(base: *mut u8, packet: &libc::xdp_desc) {
    prefetch_for_writing(base.wrapping_add(packet.addr as usize));
}

impl Device {
    /// Tells the kernel to look at the transmit ring. Is it worth while to tell it again at once? Busy, down and gone are
    /// no errors: the next breath asks again.
    fn kick(&self, busy_poll: bool) -> bool {
        let fd = self.bound.as_fd().as_raw_fd();
        // SAFETY: a send without data and without an address, on a valid socket.
        let sent = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if busy_poll && !self.tx.is_drained() {
            self.nudge();
        }
        // EAGAIN: the kernel sent a piece and wants to be asked again.
        sent >= 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
    }

    /// The same for drivers that transmit elsewhere than where they are polled for reception: with busy polling a send
    /// polls that place alone. virtio-net sends nothing then; a look at the socket wakes both.
    #[cold]
    fn nudge(&self) {
        let mut look = [PollFd::new(self.bound.as_fd(), PollFlags::POLLOUT)];
        // Whether there is room is of no interest.
        let _ = poll(&mut look, PollTimeout::ZERO);
    }
}

impl Rings for XskRings {
    fn ports(&self) -> usize {
        self.devices.len()
    }

    fn replenish(&mut self) {
        for device in &mut self.devices {
            if device.in_tx > 0 {
                let done = device.completion.available(device.in_tx);
                let shift = self.chunk_shift;
                self.free.extend(device.completion.pop(done).map(|address| (address >> shift) as u32));
                device.in_tx -= done;
                device.completion.release();
                if (self.busy_poll || device.tx.needs_wakeup()) && !device.tx.is_drained() {
                    device.kick(self.busy_poll);
                }
            }
            let free = (self.free.len() as u32).saturating_sub(self.spare);
            let missing = self.fill_share.saturating_sub(device.in_fill).min(free);
            let room = device.fill.room(missing);
            if room > 0 {
                let chunks = self.free.drain(self.free.len() - room as usize..);
                device.fill.push(chunks.map(|chunk| u64::from(chunk) << self.chunk_shift));
                device.in_fill += room;
                device.fill.publish();
            }
            if self.busy_poll || device.fill.needs_wakeup() {
                // SAFETY: a receive without a buffer and without an address, on a valid socket.
                unsafe {
                    libc::recvfrom(
                        device.bound.as_fd().as_raw_fd(),
                        std::ptr::null_mut(),
                        0,
                        libc::MSG_DONTWAIT,
                        std::ptr::null_mut(),
                        std::ptr::null_mut(),
                    )
                };
            }
        }
    }

    fn receive(&mut self, room: usize, batch: &mut Vec<Frame>) {
        let count = self.devices.len();
        // Another device is asked first each time, so that a busy one does not starve the others.
        self.first = (self.first + 1) % count.max(1);
        self.rx_waiting = self.seen_ahead.take();
        for step in 0..count {
            let index = (self.first + step) % count;
            let device = &mut self.devices[index];
            let wanted = room.saturating_sub(batch.len()) as u32;
            let known = device.rx.known();
            let received = device.rx.available(wanted);
            if known < wanted {
                self.rx_waiting = self.rx_waiting.max(Some(device.rx.known()));
            }
            let (base, port) = (self.base, Port(index as u8));
            let near = device.fetched.min(received);
            device.fetched -= near;
            batch.extend(device.rx.pop(near).map(|packet| Frame::lend(packet.addr, packet.len, port)));
            batch.extend(device.rx.pop(received - near).map(|packet| {
                fetch(base, &packet);
                Frame::lend(packet.addr, packet.len, port)
            }));
            if received > 0 {
                device.rx.release();
                device.in_fill -= received;
                self.lent += received;
            }
        }
    }

    fn look_ahead(&mut self, room: usize) {
        for device in &mut self.devices {
            let known = device.rx.known();
            let waiting = device.rx.available(room as u32);
            if known < room as u32 {
                self.seen_ahead = self.seen_ahead.max(Some(device.rx.known()));
            }
            device.rx.peek(device.fetched..waiting).for_each(|packet| fetch(self.base, &packet));
            device.fetched = device.fetched.max(waiting);
        }
    }

    fn spare(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        self.lent += 1;
        Some(Frame::lend((u64::from(chunk) << self.chunk_shift) + u64::from(HEADROOM), 0, Port::default()))
    }

    #[inline]
    fn packet(&mut self, frame: &Frame) -> &mut [u8] {
        let (at, len) = (frame.at() as usize, frame.len());
        // Any code can make a frame, so that it is one of ours is checked here and not believed.
        assert!(at <= self.size && len <= self.size - at, "a packet beyond the frame memory");
        // SAFETY: the packet lies inside of the mapping, which lives as long as `self`. While its frame exists the chunk
        // is ours and in no ring, so the kernel does not touch these bytes; and `&mut self` keeps the slice alone.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at), len) }
    }

    #[inline(always)]
    fn head<const N: usize>(&mut self, frame: &Frame) -> Option<&mut [u8; N]> {
        let at = frame.at() as usize;
        let is_inside = frame.len() >= N && at <= self.size && N <= self.size - at;
        // SAFETY: as for the packet, of which these are the first bytes.
        is_inside.then(|| unsafe { &mut *self.base.add(at).cast() })
    }

    #[inline]
    fn headroom(&self, frame: &Frame) -> usize {
        frame.at() as usize & (self.chunk_size() - 1)
    }

    #[inline]
    fn chunk(&mut self, frame: &Frame) -> (&mut [u8], usize) {
        let start = self.headroom(frame);
        let (at, len) = (frame.at() as usize - start, self.chunk_size());
        assert!(at < self.size, "a packet beyond the frame memory");
        // SAFETY: as for the packet; the memory consists of whole chunks.
        (unsafe { std::slice::from_raw_parts_mut(self.base.add(at), len) }, start)
    }

    fn transmit(&mut self, port: Port, outbox: &mut Vec<Frame>) -> usize {
        let Some(device) = self.devices.get_mut(usize::from(port.0)) else { return 0 };
        let wanted = (outbox.len() as u32).min(self.tx_share.saturating_sub(device.in_tx));
        let count = device.tx.room(wanted) as usize;
        device.tx.push(outbox.drain(..count).map(|frame| {
            let (addr, len) = frame.give_back();
            libc::xdp_desc { addr, len, options: 0 }
        }));
        device.tx.publish();
        device.in_tx += count as u32;
        self.lent -= count as u32;
        if self.busy_poll || device.tx.needs_wakeup() {
            for _ in 0..=count / device.bound.send_budget as usize {
                if !device.kick(self.busy_poll) || device.tx.is_drained() {
                    break;
                }
            }
        }
        count
    }

    fn recycle(&mut self, frame: Frame) {
        self.lent -= 1;
        self.free.push((frame.give_back().0 >> self.chunk_shift) as u32);
    }

    fn ledger(&self) -> Ledger {
        let sum = |of: fn(&Device) -> u32| self.devices.iter().map(|device| u64::from(of(device))).sum();
        Ledger {
            total: self.chunks.into(),
            free: self.free.len() as u64,
            fill: sum(|device| device.in_fill),
            lent: self.lent.into(),
            tx: sum(|device| device.in_tx),
        }
    }
}
