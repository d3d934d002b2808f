//! Frame memory and rings without a device, as lean as rings can be: descriptors go from one list to another.
//!
//! The memory is that of a director (4096 chunks of 2 KiB, a packet 256 bytes into its chunk) and is used in turn, so a
//! frame comes from a cache further away than the core's own, as a NIC would leave it. The kernel's side, which fills
//! frames with packets, is [`Umem::arrive`]: the bench calls it between measurements.
//!
//! Invariant: the ledger adds up, as for every implementation of [`Rings`].

use xvs_engine::hop::Port;
use xvs_engine::lines::prefetch_for_writing;
use xvs_engine::rings::{Frame, Ledger, Rings};

/// Bytes of a chunk, and where a packet starts in it.
pub const CHUNK: usize = 2048;
pub const HEADROOM: usize = 256;
/// Chunks; all but [`SPARE`] can hold packets that have arrived.
pub const CHUNKS: u32 = 4096 + SPARE;
const SPARE: u32 = 64;
const PAGE: usize = 4096;

/// A packet, as AF_XDP's rings have it.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Where it starts in the memory.
    pub at: u64,
    pub length: u32,
    options: u32,
}

impl Descriptor {
    fn chunk(self) -> u32 {
        (self.at / CHUNK as u64) as u32
    }
}

/// The memory and the lists.
#[derive(Debug)]
pub struct Umem {
    memory: &'static mut [u8],
    free: Vec<u32>,
    fill: Vec<u32>,
    arrived: Vec<Descriptor>,
    /// Of those that have arrived, the first that was not received.
    next: usize,
    port: Port,
    lent: usize,
    /// Packets that are received at a time, at most.
    pub batch: usize,
    /// What was sent, until the next breath.
    pub sent: Vec<Descriptor>,
}

impl Umem {
    pub fn new() -> Self {
        let size = CHUNKS as usize * CHUNK;
        // No chunk reaches from one page into another. (A slice can not be given back without its beginning; benches end soon.)
        let memory = Vec::leak(vec![1; size + PAGE]);
        let first = memory.as_ptr().align_offset(PAGE);
        let memory = &mut memory[first..][..size];
        let list = || Vec::with_capacity(CHUNKS as usize);
        let (mut free, mut fill) = (Vec::with_capacity(SPARE as usize), list());
        free.extend(0..SPARE);
        fill.extend(SPARE..CHUNKS);
        let (arrived, sent) = (Vec::with_capacity(CHUNKS as usize), Vec::with_capacity(CHUNKS as usize));
        Umem { memory, free, fill, arrived, next: 0, port: Port(0), lent: 0, batch: usize::MAX, sent }
    }

    /// Lets packets arrive at a device: each is written by the caller, who gives its length.
    pub fn arrive(&mut self, port: Port, count: usize, mut write: impl FnMut(&mut [u8]) -> usize) {
        self.replenish();
        assert_eq!(self.next, self.arrived.len(), "packets were left behind");
        self.arrived.clear();
        (self.next, self.port) = (0, port);
        // Oldest first, as a ring gives them.
        for chunk in self.fill.drain(..count) {
            let at = chunk as usize * CHUNK + HEADROOM;
            let length = write(&mut self.memory[at..][..CHUNK - HEADROOM]);
            self.arrived.push(Descriptor { at: at as u64, length: length as u32, options: 0 });
        }
    }

    /// The packets that have arrived, and the memory that they are in, for a loop that knows no rings.
    pub fn bare(&mut self) -> (&mut [u8], &[Descriptor]) {
        (self.memory, &self.arrived)
    }

    /// The bare loop has sent what had arrived.
    pub fn bare_done(&mut self) {
        self.sent.append(&mut self.arrived);
    }

    /// A packet that was sent.
    pub fn sent_packet(&self, Descriptor { at, length, .. }: Descriptor) -> &[u8] {
        &self.memory[at as usize..][..length as usize]
    }
}

impl Rings for Umem {
    fn ports(&self) -> usize {
        2
    }

    #[inline]
    fn replenish(&mut self) {
        self.fill.extend(self.sent.drain(..).map(Descriptor::chunk));
    }

    #[inline]
    fn receive(&mut self, room: usize, batch: &mut Vec<Frame>) {
        let waiting = &self.arrived[self.next..];
        let waiting = &waiting[..waiting.len().min(self.batch).min(room - batch.len())];
        let (memory, port) = (self.memory.as_ptr(), self.port);
        batch.extend(waiting.iter().map(|packet| {
            prefetch_for_writing(memory.wrapping_add(packet.at as usize));
            Frame::lend(packet.at, packet.length, port)
        }));
        self.next += waiting.len();
        self.lent += waiting.len();
    }

    fn spare(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        self.lent += 1;
        Some(Frame::lend(u64::from(chunk) * CHUNK as u64 + HEADROOM as u64, 0, Port::default()))
    }

    #[inline]
    fn packet(&mut self, frame: &Frame) -> &mut [u8] {
        &mut self.memory[frame.at() as usize..][..frame.len()]
    }

    #[inline(always)]
    fn head<const N: usize>(&mut self, frame: &Frame) -> Option<&mut [u8; N]> {
        if (frame.len() as u32) < N as u32 {
            None
        } else {
            self.memory.get_mut(frame.at() as usize..)?.first_chunk_mut()
        }
    }

    #[inline]
    fn headroom(&self, frame: &Frame) -> usize {
        frame.at() as usize % CHUNK
    }

    #[inline]
    fn chunk(&mut self, frame: &Frame) -> (&mut [u8], usize) {
        let start = self.headroom(frame);
        (&mut self.memory[frame.at() as usize - start..][..CHUNK], start)
    }

    #[inline]
    fn transmit(&mut self, _port: Port, outbox: &mut Vec<Frame>) -> usize {
        let count = outbox.len();
        self.sent.extend(outbox.drain(..).map(|frame| {
            let (at, length) = frame.give_back();
            Descriptor { at, length, options: 0 }
        }));
        self.lent -= count;
        count
    }

    fn recycle(&mut self, frame: Frame) {
        self.lent -= 1;
        self.fill.push((frame.give_back().0 / CHUNK as u64) as u32);
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            total: CHUNKS.into(),
            free: self.free.len() as u64,
            fill: (self.fill.len() + self.arrived.len() - self.next) as u64,
            lent: self.lent as u64,
            tx: self.sent.len() as u64,
        }
    }
}
