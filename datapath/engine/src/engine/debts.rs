//! Keys that new NAT connections owe: those of their answers, until the end of the batch.
//!
//! In a large table the bucket of such a key is nowhere near, and it is not known before the server is chosen. So it is
//! asked for then and changed when the batch has passed, by when it has come; no answer is possible before, because the
//! batch has not been sent.
//!
//! Invariant: one worker's own; nothing is owed when packets are sent. Not here: what happens if the connection ends
//! meanwhile ([`Table::enter_answers`](crate::conn::Table)).

use std::cell::Cell;

use super::Engine;
use crate::conn::ConnId;
use crate::flow::FlowHash;

/// As many may be owed at a time; more than that are entered before the end of the batch.
const MOST: usize = 64;

/// What is owed.
#[derive(Debug)]
pub(super) struct Debts {
    keys: [Cell<(ConnId, FlowHash)>; MOST],
    count: Cell<usize>,
}

impl Default for Debts {
    fn default() -> Self {
        let none = |_| Cell::new((ConnId(0), FlowHash::default()));
        Debts { keys: std::array::from_fn(none), count: Cell::new(0) }
    }
}

impl Engine {
    /// This connection owes the key of its answers.
    #[inline(always)]
    pub(super) fn owe(&self, id: ConnId, hash: FlowHash) {
        if self.debts.count.get() >= MOST {
            self.pay();
        }
        let count = self.debts.count.get();
        if let Some(key) = self.debts.keys.get(count) {
            key.set((id, hash));
            self.debts.count.set(count + 1);
        }
    }

    /// Enters what is owed, and [leaves](Engine::leave_room) what room is left.
    #[inline]
    pub(super) fn pay_debts(&self) {
        self.leave_room();
        if self.debts.count.get() > 0 {
            self.pay();
        }
    }

    #[inline(never)]
    fn pay(&self) {
        let table = &self.shared.table;
        for key in self.debts.keys.iter().take(self.debts.count.replace(0)) {
            let (id, hash) = key.get();
            if !table.enter_answers(id, hash) {
                self.give_up(id);
            }
        }
    }

    /// There is no room for the key: the connection is of no use.
    #[cold]
    fn give_up(&self, id: ConnId) {
        if let Some(mut conn) = self.shared.table.get(id)
            && self.shared.table.remove(&mut conn)
        {
            self.shared.settle(&conn);
            self.counters.evicted.add(1);
        }
    }
}
