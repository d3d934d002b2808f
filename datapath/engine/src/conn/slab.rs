//! The entries of one family: one allocation, and a list of those that are free.
//!
//! Invariant: a free entry is on the list exactly once, or was never used; the list's head counts its changes, so that a
//! worker that was held up does not take an entry that went and came back meanwhile. Not here: what an entry says.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};

use crate::flow::Family;
use crate::lines::{Line, Lines};

use super::entry::Conn;
use super::quick::Quick;
use super::table::{ConnId, IPV6};

#[derive(Debug)]
pub(super) struct Slab {
    lines: Lines,
    per_entry: usize,
    capacity: u32,
    /// Entries below were used at some time.
    pub(super) used: AtomicU32,
    /// The free list: changes << 32 | entry + 1.
    free: AtomicU64,
    bit: u32,
}

impl Slab {
    pub(super) fn new(capacity: u32, family: Family) -> Self {
        let (per_entry, bit) = if family == Family::Inet { (1, 0) } else { (2, IPV6) };
        let lines = Lines::new(capacity as usize * per_entry);
        Slab { lines, per_entry, capacity, used: AtomicU32::new(0), free: AtomicU64::new(0), bit }
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

    /// An IPv4 entry, quickly.
    #[inline(always)]
    pub(super) fn quick(&self, index: u32) -> Option<Quick<'_>> {
        self.lines.get(index as usize).map(Quick::load)
    }

    pub(super) fn take(&self) -> Option<Conn<'_>> {
        let mut head = self.free.load(Acquire);
        while let Some(index) = (head as u32).checked_sub(1) {
            let entry = self.entry(index);
            let next = (head >> 32).wrapping_add(1) << 32 | entry.next_free().load(Relaxed);
            match self.free.compare_exchange_weak(head, next, AcqRel, Acquire) {
                Ok(_) => return Some(self.entry(index)),
                Err(now) => head = now,
            }
        }
        let fresh = self.used.fetch_update(Relaxed, Relaxed, |used| (used < self.capacity).then_some(used + 1));
        fresh.ok().map(|index| self.entry(index))
    }

    pub(super) fn give_back(&self, entry: &Conn<'_>) {
        let index = entry.id().0 & !IPV6;
        let mut head = self.free.load(Relaxed);
        loop {
            entry.next_free().store(head & 0xffff_ffff, Relaxed);
            let next = (head >> 32).wrapping_add(1) << 32 | u64::from(index + 1);
            match self.free.compare_exchange_weak(head, next, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}
