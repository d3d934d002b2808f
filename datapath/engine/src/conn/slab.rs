//! The entries of one family: one allocation, and a list of those that are free.
//!
//! Invariant: a free entry is on the list exactly once, or was never used; the list's head counts its changes, so that a
//! worker that was held up does not take an entry that went and came back meanwhile. Not here: what an entry says.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

use crate::flow::Family;
use crate::lines::{Line, Lines, WORDS};

use super::entry::{Conn, KEY4, KEY6, tail};
use super::table::{ConnId, IPV6};

/// An entry that was never used is fetched so many before it is taken.
const FRESH_AHEAD: usize = 8;

#[derive(Debug)]
pub(super) struct Slab {
    pub(super) lines: Lines,
    pub(super) per_entry: usize,
    pub(super) capacity: u32,
    /// Entries below were used at some time.
    pub(super) used: AtomicU32,
    /// The memory of entries below is there.
    pub(super) ready: AtomicU32,
    /// The free list: changes << 32 | entry + 1.
    free: AtomicU64,
    /// Where in an entry the next free one stands.
    link: usize,
    bit: u32,
}

impl Slab {
    pub(super) fn new(capacity: u32, family: Family) -> Self {
        let (per_entry, key, bit) = if family == Family::Inet { (1, KEY4, 0) } else { (2, KEY6, IPV6) };
        let lines = Lines::new(capacity as usize * per_entry);
        Slab {
            lines,
            per_entry,
            capacity,
            used: AtomicU32::new(0),
            ready: AtomicU32::new(0),
            free: AtomicU64::new(0),
            link: key + tail::FREE,
            bit,
        }
    }

    #[inline]
    pub(super) fn entry(&self, index: u32) -> Conn<'_> {
        let id = ConnId(index | self.bit);
        match self.per_entry {
            1 => Conn::load(id, self.lines.line(index as usize)),
            _ => Conn::load(id, self.lines.pair(index as usize * 2)),
        }
    }

    /// The lines of all entries.
    #[inline(always)]
    pub(super) fn all(&self) -> &[Line] {
        self.lines.all()
    }

    /// Both lines of an IPv6 entry.
    #[inline(always)]
    pub(super) fn lines_of(&self, index: u32) -> Option<&[AtomicU64; 2 * WORDS]> {
        self.lines.get_pair(index as usize * 2)
    }

    /// The words of an IPv4 entry.
    #[inline(always)]
    pub(super) fn raw(&self, index: u32) -> &Line {
        self.lines.line(index as usize)
    }

    /// Those of an IPv6 entry.
    #[inline(always)]
    pub(super) fn raw_pair(&self, index: u32) -> &[AtomicU64; 2 * WORDS] {
        self.lines.pair(index as usize * 2)
    }

    /// Takes a free entry.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<u32> {
        let mut head = self.free.load(Acquire);
        while let Some(index) = (head as u32).checked_sub(1) {
            let behind = self.next_free(index).load(Relaxed);
            let next = (head >> 32).wrapping_add(1) << 32 | behind;
            match self.free.compare_exchange_weak(head, next, AcqRel, Acquire) {
                Ok(_) => {
                    // Where the next one to be taken tells what is behind it. (A wrong place is no harm, nor none.)
                    self.lines.prefetch((behind as usize * self.per_entry).wrapping_sub(1));
                    return Some(index);
                }
                Err(now) => head = now,
            }
        }
        self.take_fresh()
    }

    /// Takes one that was never used.
    #[inline(never)]
    fn take_fresh(&self) -> Option<u32> {
        let index = self.used.fetch_update(Relaxed, Relaxed, |used| (used < self.capacity).then_some(used + 1)).ok()?;
        let soon = (index as usize + FRESH_AHEAD) * self.per_entry;
        (soon..soon + self.per_entry).for_each(|line| self.lines.prefetch_for_writing(line));
        Some(index)
    }

    /// Puts an entry back onto the list.
    pub(super) fn give_back(&self, entry: &Conn<'_>) {
        let index = entry.id().0 & !IPV6;
        let mut head = self.free.load(Relaxed);
        loop {
            self.next_free(index).store(head & 0xffff_ffff, Relaxed);
            let next = (head >> 32).wrapping_add(1) << 32 | u64::from(index + 1);
            match self.free.compare_exchange_weak(head, next, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// The entry behind this one in the list of free ones.
    #[inline(always)]
    fn next_free(&self, index: u32) -> &AtomicU64 {
        let at = index as usize * self.per_entry * WORDS + self.link;
        &self.lines.line(at / WORDS)[at % WORDS]
    }
}
