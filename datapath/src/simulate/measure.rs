//! What a pick costs on this machine, now. The only numbers of a simulation that do not repeat.
//!
//! Batches of picks by the probes, at a director as it is at the end; nothing is bound in between, so every batch finds
//! the same. The service's lock is part of it, as it is for a worker.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;

use super::probe;
use super::stage::Stage;
use super::workload::Workload;

const BATCHES: usize = 41;
const PICKS: usize = 512;

/// Nanoseconds of a pick.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cost {
    /// Of the batch in the middle.
    pub(super) median_ns: f64,
    /// Of the fastest batch.
    pub(super) least_ns: f64,
    /// Of the batch that nine tenths are not slower than.
    pub p90_ns: f64,
}

/// Measures.
pub(super) fn cost(stage: &Stage<'_>, workload: &Workload, now_ms: u64) -> Cost {
    let flow = |number| probe::flow(number, workload.service, workload.protocol);
    let requests: Vec<_> = (0..PICKS).map(|number| stage.request(&flow(number), now_ms)).collect();
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let begin = Instant::now();
            for request in &requests {
                black_box(stage.pick(black_box(request)));
            }
            begin.elapsed().as_nanos() as f64 / PICKS as f64
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    Cost { median_ns: batches[BATCHES / 2], least_ns: batches[0], p90_ns: batches[BATCHES * 9 / 10] }
}
