//! What happens when time passes: connections end, rates are sampled, what is over is forgotten.
//!
//! Invariant: everything that a running director does once in a while is done here as often, and a connection ends
//! within [`STEP_MS`] of its time, because the table is swept whole at every step.

use std::sync::Arc;

use xvs_engine::counters::Counters;
use xvs_engine::engine::Engine;
use xvs_engine::time::Now;

use super::Rehearsal;
use crate::control::estimate::PERIOD_S;

/// Time passes in steps of this length at most.
const STEP_MS: u64 = 250;
/// A worker gets through the table in this time; see [`Engine::expire`].
const SWEEP_MS: u64 = 1000;
/// What is over is looked for this often, as the controller does.
const TIDY_MS: u64 = 1000;

impl Rehearsal {
    /// Lets time pass.
    pub fn advance(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        while self.now < end {
            self.now = self.now.plus_millis(end.since(self.now).min(STEP_MS));
            self.sweep();
            self.book.tend(self.now.millis());
            if self.now.since(self.tidied) >= TIDY_MS {
                self.tidied = self.now;
                self.book.defend(self.now);
                self.book.tidy(self.now.millis(), &mut self.surroundings);
            }
            if self.now.since(self.sampled) >= PERIOD_S * 1000 {
                self.sampled = self.sampled.plus_millis(PERIOD_S * 1000);
                self.book.sample();
            }
        }
    }

    /// Samples are taken at this moment and every two seconds from it on.
    pub fn sample_from_now(&mut self) {
        self.sampled = self.now;
        self.book.sample();
    }

    /// Ends every connection whose time is over. A worker does it piece by piece, as time passes for it; this one has
    /// the whole table to itself and a second that it did not see.
    fn sweep(&self) {
        let counters = Arc::new(Counters::new(self.shared.arena.capacity()));
        let mut sweeper = Engine::new(self.shared.clone(), self.surroundings.snapshot(), counters, 0, 1);
        sweeper.expire(Now::from_millis(self.now.millis() - SWEEP_MS));
        // A piece is of many entries; so often is more than enough, and a call with nothing to do costs nothing.
        for _ in 0..=self.shared.table.capacity() / 64 {
            sweeper.expire(self.now);
        }
    }
}
