//! A packet in its chunk of frame memory: the bytes, and the room before and after them.
//!
//! Invariant: `start <= end <= chunk.len()`. The packet grows at its head into the chunk's headroom, which is how
//! tunnel headers and VLAN tags come in without moving a byte of payload.

/// The packet that a frame carries.
#[derive(Debug)]
pub struct Packet<'a> {
    chunk: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> Packet<'a> {
    /// A packet at `start..end` of its chunk, or `None` if that is not inside.
    #[inline]
    pub fn new(chunk: &'a mut [u8], start: usize, end: usize) -> Option<Self> {
        (start <= end && end <= chunk.len()).then_some(Packet { chunk, start, end })
    }

    /// Where the packet begins in its chunk.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// No bytes at all?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.chunk[self.start..self.end]
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.chunk[self.start..self.end]
    }

    /// The first bytes, to be changed; `None` if the packet has fewer.
    #[inline(always)]
    pub fn head_mut<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.chunk[..self.end].get_mut(self.start..)?.first_chunk_mut()
    }

    /// Moves the head of the packet so that what stood at offset `keep` stands at offset `room`, and gives the new
    /// `room` bytes before it to be written (they hold what was there). `None` if the chunk has no such room.
    #[inline]
    pub fn rehead(&mut self, keep: usize, room: usize) -> Option<&mut [u8]> {
        let at = self.start + keep;
        if at > self.end || at < room {
            return None;
        }
        self.start = at - room;
        Some(&mut self.chunk[self.start..at])
    }

    /// Sets the length; `false` (and nothing done) if the chunk is too short for it.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = self.start + len <= self.chunk.len();
        if fits {
            self.end = self.start + len;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tunnels and tags live in the headroom: growing and shrinking must keep the payload in place.
    #[test]
    fn the_head_moves_and_the_payload_stays() {
        let mut chunk = *b"........headPAYLOAD";
        let mut packet = Packet::new(&mut chunk, 8, 19).unwrap();
        packet.rehead(4, 8).unwrap().copy_from_slice(b"LONGHEAD");
        assert_eq!(packet.bytes(), b"LONGHEADPAYLOAD");
        packet.rehead(8, 2).unwrap().copy_from_slice(b"ab");
        assert_eq!(packet.bytes(), b"abPAYLOAD");
        assert!(packet.rehead(2, 13).is_none(), "no room for that");
        assert_eq!(packet.bytes(), b"abPAYLOAD", "a refused change changes nothing");
        assert!(!packet.set_len(100));
        assert!(packet.set_len(3));
        assert_eq!(packet.bytes(), b"abP");
    }
}
