//! Where frames come from and go to: the border of the engine.
//!
//! A [`Frame`] is a chunk of frame memory that is ours for the moment, named by where its packet starts, as in AF_XDP. It
//! exists only between [`Rings::receive`] or [`Rings::spare`] and [`Rings::transmit`] or [`Rings::recycle`]; it can not be
//! copied, and a lost one is a bug that a debug build panics at. The [`Ledger`] says where every frame is.
//!
//! Implementations: `XskRings` of the director (AF_XDP), and in here [`memory`] for tests, benches and replay, and
//! [`fault`], which makes another one misbehave.

pub mod fault;
pub mod memory;

use crate::hop::Port;

/// Length and port of no frame.
const GONE: u64 = u64::MAX;
/// Bits of a port, and where they begin.
const PORT: u64 = 0xff << PORT_SHIFT;
const PORT_SHIFT: u32 = 32;

/// A frame in our hands: where the packet is in the frame memory, and which device it came from. It stands in memory as a
/// descriptor of AF_XDP does.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame must be transmitted or recycled"]
pub struct Frame {
    /// Where the packet starts in the frame memory.
    at: u64,
    /// Port << 32 | length. Two words, so that frames are copied in one go.
    rest: u64,
}

impl Frame {
    /// A frame that the rings give into the worker's hands. Only implementations of [`Rings`] make frames.
    #[inline]
    pub fn lend(at: u64, len: u32, port: Port) -> Self {
        Frame { at, rest: u64::from(port.0) << PORT_SHIFT | u64::from(len) }
    }

    /// Takes the frame out of a list that is then cleared: what is left behind there is none.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Self {
        let taken = Frame { at: self.at, rest: self.rest };
        if cfg!(debug_assertions) {
            self.rest = GONE;
        }
        taken
    }

    /// Takes the frame apart, when the rings have it back: where the packet starts in the frame memory, and its length.
    #[inline]
    pub fn give_back(self) -> (u64, u32) {
        let parts = (self.at, self.rest as u32);
        std::mem::forget(self);
        parts
    }

    /// Where the packet starts in the frame memory.
    #[inline(always)]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Length of the packet.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.rest as u32 as usize
    }

    /// No packet at all?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device that it came from; or that it leaves by, once [that was told](Frame::leave_by).
    #[inline]
    pub fn port(&self) -> Port {
        Port((self.rest >> PORT_SHIFT) as u8)
    }

    /// It leaves by this device.
    #[inline(always)]
    pub(crate) fn leave_by(&mut self, port: Port) {
        self.rest = self.rest & !PORT | u64::from(port.0) << PORT_SHIFT;
    }

    /// The packet has moved in its chunk.
    #[inline]
    pub fn set_packet(&mut self, at: u64, len: usize) {
        self.at = at;
        self.rest = self.rest & !u64::from(u32::MAX) | u64::from(len as u32);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // A leaked frame never comes back: reception dries up, one frame at a time.
        debug_assert!(
            self.rest == GONE || std::thread::panicking(),
            "the frame at {} of {:?} was dropped",
            self.at,
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

    /// Starts to fetch packets that have arrived, the next `room` of each device, for the reception to come: by then they are
    /// near. Rings that have nothing to fetch do nothing.
    fn look_ahead(&mut self, room: usize) {
        let _ = room;
    }

    /// A free frame for a packet that came in no frame of its own: an empty one, with headroom. `None` if the pool has
    /// none; a few are kept from reception for this.
    fn spare(&mut self) -> Option<Frame>;

    /// The packet in a frame.
    fn packet(&mut self, frame: &Frame) -> &mut [u8];

    /// The first bytes of the packet in a frame; `None` if it has fewer.
    fn head<const N: usize>(&mut self, frame: &Frame) -> Option<&mut [u8; N]>;

    /// How many bytes of its chunk a frame has before its packet.
    fn headroom(&self, frame: &Frame) -> usize;

    /// The whole chunk of a frame, and where the packet starts in it.
    fn chunk(&mut self, frame: &Frame) -> (&mut [u8], usize);

    /// Sends frames from the front of the outbox; what does not fit stays in it. Returns how many went.
    fn transmit(&mut self, port: Port, outbox: &mut Vec<Frame>) -> usize;

    /// Takes a frame back unsent.
    fn recycle(&mut self, frame: Frame);

    /// Where the frames are.
    fn ledger(&self) -> Ledger;
}
