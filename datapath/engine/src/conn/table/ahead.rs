//! Memory that is there before it is wanted.
//!
//! The kernel gives a page to who touches it first, and clears it for that: a huge one takes as long as a thousand packets.
//! So somebody other than the workers touches the pages that come next. Invariant: nothing that stands in the table changes,
//! and whoever comes too late finds its page all the same, later.

use std::sync::atomic::Ordering::Relaxed;

use super::Table;
use crate::conn::slab::Slab;
use crate::lines::Line;

/// Bytes that are had ready for entries to come of a family that has had some, and of one that has not. A million new
/// connections in a second take 64 MiB of IPv4's.
const BUSY: usize = 16 << 20;
const IDLE: usize = 4 << 20;

impl Table {
    /// Has the kernel give the memory of the index and of the entries that come next. Is there more to come? Then it is to be
    /// called again, some twenty times a second. (By one thread, so that nothing is done twice.)
    pub fn populate(&self) -> bool {
        // Connections lie in it at random, so that a few hundred want all of its pages.
        if self.v4.ready.load(Relaxed) == 0 {
            self.index.populate();
        }
        let families = [&self.v4, &self.v6].map(Slab::populate);
        families.contains(&true)
    }
}

impl Slab {
    /// The entries that come next. Is there more to come?
    fn populate(&self) -> bool {
        let used = self.used.load(Relaxed);
        let ahead = if used > 0 { BUSY } else { IDLE } / (self.per_entry * size_of::<Line>());
        let (ready, wanted) = (self.ready.load(Relaxed), used.saturating_add(ahead as u32).min(self.capacity));
        if ready < wanted {
            self.lines.populate(ready as usize * self.per_entry..wanted as usize * self.per_entry);
            self.ready.store(wanted, Relaxed);
        }
        wanted < self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::HashKey;

    /// Pages that this thread was given since it began.
    fn faults() -> usize {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    /// Guards the worker from clearing pages: entries that come next, and the whole index, are touched without a page fault;
    /// what is asked for keeps its distance from what is used, and ends with the table.
    #[test]
    fn what_comes_next_is_there() {
        const CAPACITY: u32 = 1 << 19;
        let table = Table::new(CAPACITY, HashKey::from_bytes([7; 32]));
        let ready = |slab: &Slab| slab.ready.load(Relaxed);
        let touch = |entries: std::ops::Range<u32>, buckets: std::ops::Range<usize>| {
            let before = faults();
            entries.for_each(|entry| table.v4.raw(entry)[0].store(1, Relaxed));
            buckets.for_each(|bucket| table.index.touch_for_test(bucket));
            faults() - before
        };
        touch(CAPACITY - 1..CAPACITY, 0..1); // the code has pages, too
        assert!(table.populate());
        assert_eq!((ready(&table.v4), ready(&table.v6)), (1 << 16, 1 << 15));
        assert_eq!((touch(0..1 << 16, 0..0), touch(0..0, 0..1 << 18)), (0, 0), "pages were there");
        assert!(touch(1 << 17..1 << 18, 0..0) >= 2, "pages were not there");
        for (used, expected) in [(1, 1 + (1 << 18)), (1 << 18, CAPACITY)] {
            table.v4.used.store(used, Relaxed);
            assert!(table.populate());
            assert_eq!(ready(&table.v4), expected);
        }
        assert_eq!(touch(1 << 18..CAPACITY, 0..0), 0);
        table.v6.used.store(CAPACITY, Relaxed);
        assert!(!table.populate(), "there is nothing left");
    }
}
