//! `cargo xtask bench`: what is measured, and where.
//!
//! Not here: what the figures mean (docs/numbers.md).

use anyhow::Result;
use clap::Subcommand;

use crate::cargo;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// The engine's criterion benches: time a packet, in memory, no root needed.
    Engine {
        /// Run only benchmarks whose names contain this.
        filter: Option<String>,
    },
}

pub(crate) fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Engine { filter } => cargo::bench(filter.as_deref()),
    }
}
