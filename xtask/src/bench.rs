//! `cargo xtask bench`: what is measured, and where.
//!
//! Not here: what the figures mean (docs/numbers.md).

mod instructions;
mod wire;

use anyhow::Result;
use clap::Subcommand;

use crate::cargo;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// The engine's criterion benches: time the steps of a packet, in memory, no root needed.
    Engine {
        /// Run only benchmarks whose names contain this.
        filter: Option<String>,
    },
    /// A packet in a worker against a bare loop that only finds and forwards, in one run: ratios, and what they may be.
    Budget {
        /// Run only cases whose names contain this (`dr/`, `/1M`).
        filter: Option<String>,
    },
    /// A packet in a worker by method, number of connections, length, family, batch and scheduler: a table in Markdown.
    Matrix {
        /// Run only cases whose names contain this.
        filter: Option<String>,
    },
    /// Instructions a packet, against what was accepted last; more than three percent more is a failure.
    Instructions {
        /// Accept the figures as they are now.
        #[arg(long)]
        accept: bool,
    },
    /// The director on a wire of this machine, beside others, in turns: rates, CPU time, latency, connections (root).
    Wire(wire::Options),
}

pub(crate) fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Engine { filter } => cargo::bench("path", filter.as_deref()),
        Bench::Budget { filter } => cargo::bench("budget", filter.as_deref()),
        Bench::Matrix { filter } => cargo::bench("matrix", filter.as_deref()),
        Bench::Instructions { accept } => instructions::run(accept),
        Bench::Wire(options) => wire::run(&options),
    }
}
