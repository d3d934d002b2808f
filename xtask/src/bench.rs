//! `cargo xtask bench`: what is measured, and where.
//!
//! Not here: what the figures mean (docs/numbers.md).

mod instructions;
mod wire;

use anyhow::Result;
use clap::Subcommand;

use crate::cargo;

const ENGINE: &str = "xvs-engine";

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
    /// A new connection that a plugin schedules, beside the same scheduler natively, in turns.
    Newcomers,
    /// Instructions a packet, against what was accepted last; more than three percent more is a failure.
    Instructions {
        /// Accept the figures as they are now.
        #[arg(long)]
        accept: bool,
    },
    /// Pages whose place the processor does not remember (TLB misses) a packet, worker and bare loop, by simulation.
    Pages {
        /// Live connections, several if you like [default: 32768 65536 1000000].
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        connections: Vec<u32>,
    },
    /// The director on a wire of this machine, beside others, in turns: rates, CPU time, latency, connections (root).
    Wire(wire::Options),
}

pub(crate) fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Engine { filter } => cargo::bench(ENGINE, "path", filter.as_deref().as_slice()),
        Bench::Budget { filter } => cargo::bench(ENGINE, "budget", filter.as_deref().as_slice()),
        Bench::Matrix { filter } => cargo::bench(ENGINE, "matrix", filter.as_deref().as_slice()),
        Bench::Newcomers => cargo::bench("xvs-host", "newcomers", &[]),
        Bench::Pages { connections } => {
            let connections: Vec<_> = connections.iter().map(u32::to_string).collect();
            cargo::bench(ENGINE, "pages", &connections.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Bench::Instructions { accept } => instructions::run(accept),
        Bench::Wire(options) => wire::run(&options),
    }
}
