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

/// Length and port of no frame.
const GONE: u64 = u64::MAX;

/// A frame in our hands: which chunk, where the packet is in it, and which device it came from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame must be transmitted or recycled"]
pub struct Frame {
    /// Chunk << 32 | start. Two words move in two registers.
    place: u64,
    /// Length << 32 | port.
    rest: u64,
}

impl Frame {
    /// A frame that the rings give into the worker's hands. Only implementations of [`Rings`] make frames.
    #[inline]
    pub fn lend(chunk: u32, start: u32, len: u32, port: Port) -> Self {
        Frame { place: u64::from(chunk) << 32 | u64::from(start), rest: u64::from(len) << 32 | u64::from(port.0) }
    }

    /// Takes the frame out of a list that is then cleared: what is left behind there is none.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Self {
        let taken = Frame { place: self.place, rest: self.rest };
        self.rest = GONE;
        taken
    }

    /// Takes the frame apart, when the rings have it back: chunk, start and length of the packet.
    #[inline]
    pub fn give_back(self) -> (u32, u32, u32) {
        let parts = ((self.place >> 32) as u32, self.place as u32, (self.rest >> 32) as u32);
        std::mem::forget(self);
        parts
    }

    /// The number of its chunk.
    #[inline]
    pub fn chunk(&self) -> u32 {
        (self.place >> 32) as u32
    }

    /// Where the packet starts in the chunk.
    #[inline]
    pub fn start(&self) -> usize {
        self.place as u32 as usize
    }

    /// Where the packet ends in the chunk.
    #[inline]
    pub fn end(&self) -> usize {
        self.start() + (self.rest >> 32) as usize
    }

    /// The device that it came from.
    #[inline]
    pub fn port(&self) -> Port {
        Port(self.rest as u8)
    }

    /// The packet has moved in its chunk.
    #[inline]
    pub fn set_packet(&mut self, start: usize, len: usize) {
        self.place = self.place >> 32 << 32 | u64::from(start as u32);
        self.rest = (len as u64) << 32 | self.rest & 0xff;
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // A leaked frame never comes back: reception dries up, one frame at a time.
        debug_assert!(
            self.rest == GONE || std::thread::panicking(),
            "frame {} of {:?} was dropped",
            self.chunk(),
            self.port()
        );
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
