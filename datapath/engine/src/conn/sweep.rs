//! Looking for expired connections: each worker its share of the table, a bounded piece a breath.
//!
//! Invariant: all workers together pass the whole table in about a second, however often they breathe. What ends is shown
//! to the caller, who settles the counts. Not here: what happens to an expired template with children
//! ([`Table::lapse`](super::Table::lapse)).

use std::sync::atomic::Ordering::Relaxed;

use crate::time::Now;

use super::entry::Conn;
use super::slab::Slab;
use super::table::Table;

/// Entries that a worker looks at together when it sweeps.
const CHUNK: u32 = 64;
/// Chunks that a worker sweeps in one breath at most.
const SWEEP_CHUNKS: u32 = 16;
/// A whole table is swept in about this time, so a dead entry is counted for so much longer at most.
const SWEEP_PERIOD_MS: u64 = 1000;

/// One worker's share of looking for expired connections.
#[derive(Debug)]
pub struct Sweep {
    worker: u32,
    workers: u32,
    next: u32,
    last: Option<Now>,
    /// Time not yet spent on chunks, in milliseconds times chunks.
    credit: u64,
}

impl Sweep {
    /// The share of this worker of so many.
    pub fn new(worker: u32, workers: u32) -> Self {
        Sweep { worker, workers: workers.max(1), next: 0, last: None, credit: 0 }
    }

    /// Looks at as much of the table as time has passed for, a bounded piece at most, and ends what has expired. Each
    /// ended connection is shown to the caller, who settles the counts.
    pub fn step(&mut self, table: &Table, now: Now, mut ended: impl FnMut(&Conn<'_>)) {
        let chunks = |slab: &Slab| slab.used.load(Relaxed).div_ceil(CHUNK);
        let (v4, v6) = (chunks(&table.v4), chunks(&table.v6));
        let share = u64::from((v4 + v6).div_ceil(self.workers));
        let elapsed = now.since(self.last.unwrap_or(now)).min(SWEEP_PERIOD_MS);
        self.last = Some(now);
        self.credit = (self.credit + elapsed * share).min(SWEEP_PERIOD_MS * share);
        for _ in 0..SWEEP_CHUNKS {
            if self.credit < SWEEP_PERIOD_MS {
                return;
            }
            self.credit -= SWEEP_PERIOD_MS;
            let chunk = self.next * self.workers + self.worker;
            if chunk >= v4 + v6 {
                self.next = 0;
                continue;
            }
            self.next += 1;
            let (slab, chunk) = if chunk < v4 { (&table.v4, chunk) } else { (&table.v6, chunk - v4) };
            let end = (chunk + 1).saturating_mul(CHUNK).min(slab.used.load(Relaxed));
            for index in chunk * CHUNK..end {
                let mut conn = slab.entry(index);
                if conn.is_live() && conn.expires_in(now) == 0 && table.lapse(&mut conn, now) {
                    ended(&conn);
                }
            }
        }
    }
}
