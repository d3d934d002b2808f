//! Which connection later fragments belong to.
//!
//! Only the first fragment of a packet has ports. When it passes, (source, destination, protocol, identification) is
//! noted with its connection; later fragments follow the note, on whatever queue they arrive.
//!
//! Invariant: fixed memory, shared by all workers, no locks. A note may be overwritten at any time by another packet
//! with the same slot, or outlive its packet for a few seconds; the reader compares a 32-bit tag and the age, and the
//! connection that it leads to is checked again by its own addresses. Fragments that arrive before their first one are
//! not kept here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::flow::{Endpoint, Flow, FlowHash, HashKey};
use crate::lines::{Lines, WORDS};
use crate::time::Now;

use super::ConnId;

/// Notes that are kept; a packet is in fragments for milliseconds, so this covers some ten thousand a second.
const NOTES: usize = 1 << 15;
/// A note counts for so long (the reassembly time of RFC 791 is 15 s and more; reordering is far shorter).
const LIFE_MS: u64 = 4000;
/// Bits of a time stamp; it wraps after some 18 hours.
const STAMP: u64 = (1 << 16) - 1;

/// Notes on packets in fragments: pairs of (tag << 32 | connection) and the time stamp within the tag word.
#[derive(Debug)]
pub struct Fragments {
    notes: Lines,
    key: HashKey,
}

impl Fragments {
    /// An empty book of notes, hashed under this key.
    pub fn new(key: HashKey) -> Self {
        Fragments { notes: Lines::new(NOTES / WORDS), key }
    }

    fn hash(&self, flow: &Flow, id: u32) -> FlowHash {
        // The identification takes the place of the ports.
        let src = Endpoint::new(flow.src.address, id as u16);
        let dst = Endpoint::new(flow.dst.address, (id >> 16) as u16);
        self.key.hash(&Flow { protocol: flow.protocol, src, dst })
    }

    #[inline]
    fn slot(&self, hash: FlowHash) -> &AtomicU64 {
        let index = hash.0 as usize % NOTES;
        &self.notes.line(index / WORDS)[index % WORDS]
    }

    /// A 16-bit tag and a 16-bit stamp in 4-second steps.
    fn label(hash: FlowHash, now: Now) -> u64 {
        (hash.0 >> 48) << 16 | (now.millis() / LIFE_MS) & STAMP
    }

    /// Notes the connection of a packet's first fragment.
    pub fn note(&self, flow: &Flow, id: u32, conn: ConnId, now: Now) {
        let hash = self.hash(flow, id);
        self.slot(hash).store(Self::label(hash, now) << 32 | u64::from(conn.0), Relaxed);
    }

    /// The connection of a later fragment.
    pub fn find(&self, flow: &Flow, id: u32, now: Now) -> Option<ConnId> {
        let hash = self.hash(flow, id);
        let note = self.slot(hash).load(Relaxed);
        let (label, wanted) = (note >> 32, Self::label(hash, now));
        let age = (wanted & STAMP).wrapping_sub(label & STAMP) & STAMP;
        // One step ahead is this step's: workers look at their clocks at different moments.
        (note != 0 && label >> 16 == wanted >> 16 && (age <= 1 || age == STAMP)).then_some(ConnId(note as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Address, Protocol};

    /// A later fragment must find its packet's connection, and only within its time and by its own identification.
    #[test]
    fn later_fragments_follow_the_first() {
        let fragments = Fragments::new(HashKey::from_bytes([9; 32]));
        let end = |last| Endpoint::new(Address::v4([10, 0, 0, last]), 0);
        let flow = Flow { protocol: Protocol::UDP, src: end(1), dst: end(2) };
        let now = Now::from_secs(100);
        fragments.note(&flow, 77, ConnId(5), now);
        assert_eq!(fragments.find(&flow, 77, now), Some(ConnId(5)));
        assert_eq!(fragments.find(&flow, 77, now.plus_millis(4000)), Some(ConnId(5)));
        assert_eq!(fragments.find(&flow, 77, now.plus_millis(9000)), None);
        let behind = Now::from_millis(now.millis() - 1);
        assert_eq!(fragments.find(&flow, 77, behind), Some(ConnId(5)), "a worker whose clock is a step behind");
        assert_eq!(fragments.find(&flow, 78, now), None);
        assert_eq!(fragments.find(&flow.reversed(), 77, now), None);
    }
}
