//! Where frames come from and go to: the border of the engine.
//!
//! A [`Frame`] is a chunk of frame memory that is ours for the moment. It exists only between
//! [`Rings::receive`] or [`Rings::spare`] and [`Rings::transmit`] or [`Rings::recycle`]; it can not be copied, and a lost
//! one is a bug that a debug build panics at. The [`Ledger`] says where every frame is.
//!
//! Implementations: `XskRings` of the director (AF_XDP), and in here [`memory`] for tests, benches and replay, and
//! [`fault`], which makes another one misbehave.

pub mod fault;
pub mod memory;

use crate::hop::Port;

/// A frame in our hands: which chunk, where the packet is in it, and which device it came from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame must be transmitted or recycled"]
pub struct Frame {
    chunk: u32,
    start: u32,
    len: u32,
    port: Port,
}

impl Frame {
    /// A frame that the rings give into the worker's hands. Only implementations of [`Rings`] make frames.
    #[inline]
    pub fn lend(chunk: u32, start: u32, len: u32, port: Port) -> Self {
        Frame { chunk, start, len, port }
    }

    /// Takes the frame apart, when the rings have it back: chunk, start and length of the packet.
    #[inline]
    pub fn give_back(self) -> (u32, u32, u32) {
        let parts = (self.chunk, self.start, self.len);
        std::mem::forget(self);
        parts
    }

    /// The number of its chunk.
    #[inline]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Where the packet starts in the chunk.
    #[inline]
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Where the packet ends in the chunk.
    #[inline]
    pub fn end(&self) -> usize {
        (self.start + self.len) as usize
    }

    /// The device that it came from.
    #[inline]
    pub fn port(&self) -> Port {
        self.port
    }

    /// The packet has moved in its chunk.
    #[inline]
    pub fn set_packet(&mut self, start: usize, len: usize) {
        self.start = start as u32;
        self.len = len as u32;
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // A leaked frame never comes back: reception dries up, one frame at a time.
        debug_assert!(std::thread::panicking(), "frame {} of {:?} was dropped", self.chunk, self.port);
    }
}

/// Where frames are. `free + fill + lent + tx == total`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All frames.
    pub total: u64,
    /// In the pool.
    pub free: u64,
    /// Given to the kernel for reception.
    pub fill: u64,
    /// In the worker's hands.
    pub lent: u64,
    /// Given to the kernel for transmission.
    pub tx: u64,
}

impl Ledger {
    /// Does it add up?
    pub fn is_balanced(&self) -> bool {
        self.free + self.fill + self.lent + self.tx == self.total
    }
}

/// Frames in and out of any number of devices that share one frame memory.
pub trait Rings {
    /// How many devices there are.
    fn ports(&self) -> usize;

    /// Collects transmitted frames and gives free ones to the devices for reception.
    fn replenish(&mut self);

    /// Receives at most `room` frames, in turn from all devices, and appends them to `batch`.
    fn receive(&mut self, room: usize, batch: &mut Vec<Frame>);

    /// A free frame for a packet that came in no frame of its own: an empty one, with headroom. `None` if the pool has
    /// none; a few are kept from reception for this.
    fn spare(&mut self) -> Option<Frame>;

    /// The chunk of a frame.
    fn chunk(&mut self, frame: &Frame) -> &mut [u8];

    /// Sends frames from the front of the outbox; what does not fit stays in it. Returns how many went.
    fn transmit(&mut self, port: Port, outbox: &mut Vec<Frame>) -> usize;

    /// Takes a frame back unsent.
    fn recycle(&mut self, frame: Frame);

    /// Where the frames are.
    fn ledger(&self) -> Ledger;
}
