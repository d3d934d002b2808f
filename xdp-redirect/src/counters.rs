//! What became of the frames: sums over all CPUs of the counters that the program keeps.
//!
//! The names and help texts come from `bpf/outcomes.h`, the same lines that number the counters in the program.
//! Invariant: the counters are read while they move, so two of them need not be from the same instant; each of them
//! only grows.

use std::mem::size_of;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use crate::error::Error;
use crate::skeleton::types;

include!(concat!(env!("OUT_DIR"), "/outcomes.rs"));

/// One outcome and how often it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Short and stable, fit for a metric's label.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Frames that ended so.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}

// The program's row and our table must agree.
const _: () = assert!(size_of::<types::counters>() == OUTCOMES.len() * size_of::<types::counter>());
const _: () = assert!(size_of::<types::counter>() == 16);

/// All outcomes, none of which has happened yet.
pub(crate) fn zero() -> Vec<Counter> {
    OUTCOMES.iter().map(|&(name, help)| Counter { name, help, packets: 0, bytes: 0 }).collect()
}

/// Adds what one interface's map holds to `counters`, which [`zero`] made.
pub(crate) fn add(counters: &mut [Counter], map: &MapHandle) -> Result<(), Error> {
    let rows = map
        .lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| Error::other("read the counters", error))?
        .unwrap_or_default();
    for row in &rows {
        for (counter, cell) in counters.iter_mut().zip(row.chunks_exact(16)) {
            let (packets, bytes) = cell.split_at(8);
            counter.packets += number(packets);
            counter.bytes += number(bytes);
        }
    }
    Ok(())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default()
}
