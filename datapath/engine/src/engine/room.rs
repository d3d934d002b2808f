//! Room in the table for the new connections of a batch: counted once for several.
//!
//! Every entry counts in one word that all workers share, and to count in it costs as much as a tenth of a new connection. So
//! a worker counts as many at a time as the batch before had, and takes back what is left when the batch has passed.
//!
//! Invariant: when packets are sent nothing is counted that no entry was made for. Not here: the entries ([`Table`]).
//!
//! [`Table`]: crate::conn::Table

use std::cell::Cell;

use super::Engine;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// And no entry made for yet.
    left: Cell<u32>,
    /// New connections of this batch, and of the one before.
    asked: Cell<u32>,
    expected: Cell<u32>,
}

/// As many are counted at a time.
const MOST: u32 = 64;

impl Engine {
    /// Counts a new connection; false if there is no room for it.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        self.room.asked.set(self.room.asked.get() + 1);
        match self.room.left.get().checked_sub(1) {
            Some(left) => {
                self.room.left.set(left);
                true
            }
            None => self.find_room(),
        }
    }

    #[inline(never)]
    fn find_room(&self) -> bool {
        let table = &self.shared.table;
        let more = self.room.expected.get().saturating_sub(self.room.asked.get()).min(MOST);
        if more > 0 && table.count(more + 1) {
            self.room.left.set(more);
            return true;
        }
        table.count(1)
    }

    /// The end of a batch: what is left is for others.
    #[inline(always)]
    pub(super) fn leave_room(&self) {
        self.room.expected.set(self.room.asked.replace(0));
        if self.room.left.get() > 0 {
            self.shared.table.uncount(self.room.left.replace(0));
        }
    }
}
