//! One frame becomes several: a packet that is too large for its way is cut into frames of the pool.
//!
//! Invariant: all fragments or none. The packet's own frame carries the first fragment; if the pool has too few frames
//! for the others, those that were taken go back and the packet is dropped.

use crate::drop::DropReason;
use crate::forward::cut::Cut;
use crate::rings::{Frame, Rings};

/// Fragments that one packet may be cut into. A frame holds less than 4 KiB, so a way that needs more is absurdly narrow.
const PIECES: usize = 64;
/// Bytes of the largest frame that there is.
const FRAME: usize = 4096;

/// Memory for the cutting, made once.
#[derive(Debug)]
pub(super) struct Splitter {
    whole: Vec<u8>,
    /// The fragments, in order: empty but between [`Splitter::split`] and the worker's taking them.
    pub(super) pieces: Vec<Frame>,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Splitter { whole: Vec::with_capacity(FRAME), pieces: Vec::with_capacity(PIECES) }
    }

    /// Cuts the packet of a frame so that no IP packet is longer than `mtu`. `room` is how many frames may leave.
    ///
    /// # Errors
    /// Why it was not cut, and the frame.
    pub(super) fn split(
        &mut self,
        rings: &mut impl Rings,
        mut frame: Frame,
        mtu: u16,
        id: u32,
        room: usize,
    ) -> Result<(), (Frame, DropReason)> {
        self.whole.clear();
        self.whole.extend_from_slice(rings.packet(&frame));
        let cut = match Cut::new(&self.whole, mtu.into(), id) {
            Ok(cut) if cut.count() > PIECES => return Err((frame, DropReason::NeedsFragmentation)),
            Ok(cut) if cut.count() > room => return Err((frame, DropReason::TransmitFull)),
            Ok(cut) => cut,
            Err(reason) => return Err((frame, reason)),
        };
        for _ in 1..cut.count() {
            match rings.spare() {
                Some(spare) => self.pieces.push(spare),
                None => {
                    self.pieces.drain(..).for_each(|spare| rings.recycle(spare));
                    return Err((frame, DropReason::NoSpareFrame));
                }
            }
        }
        let start = rings.headroom(&frame);
        for (index, piece) in std::iter::once(&mut frame).chain(&mut self.pieces).enumerate() {
            // A fragment is shorter than the whole, so it fits where that one stood.
            let (chunk, old) = rings.chunk(piece);
            let length = cut.write(index, &mut chunk[start..]).unwrap_or_default();
            piece.set_packet(piece.at() - old as u64 + start as u64, length);
        }
        self.pieces.insert(0, frame);
        Ok(())
    }
}
