//! `cargo xtask`: what people run. `demo` shows the product, `test` proves it, `traces` and `golden` compare it with
//! recordings of IPVS, `plugins` builds the schedulers that are modules, `deps` names and installs what is missing,
//! `bench` measures, `profile` shows where the time goes, `soak` runs the product for minutes under load and change.
//!
//! Invariant: this program builds and runs on a machine that has only cargo, since it is what installs the rest. It ends
//! with an exit code other than 0 whenever anything failed.
//!
//! Not here: formatting and lints, which are the gate's (`.ci/run`).

mod bench;
mod cargo;
mod demo;
mod deps;
mod packages;
mod paint;
mod plugins;
mod profile;
mod soak;
mod summary;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "What people run: demo, test, traces, golden, plugins, deps, bench, profile, soak, vm"
)]
enum Task {
    /// Shows the product at work: one client, one director, four real servers, on this machine.
    Demo {
        /// Leave the laboratory standing afterwards, to play with.
        #[arg(long)]
        keep: bool,
        /// Only remove a laboratory that was left standing.
        #[arg(long, conflicts_with = "keep")]
        clean: bool,
    },
    /// Installs what is missing, builds, and runs every test.
    Test {
        /// Leave out the network namespaces: seconds, and no root needed.
        #[arg(long)]
        fast: bool,
        /// A missing right or program is a failure and not a skip. Also if the variable CI or XVS_CI is set.
        #[arg(long)]
        ci: bool,
        /// Run only tests whose names contain this.
        filter: Option<String>,
    },
    /// Names the system packages that building and testing need, and why.
    Deps {
        /// Say what is missing, and fail if anything is.
        #[arg(long)]
        check: bool,
        /// Install what is missing (root).
        #[arg(long, conflicts_with = "check")]
        install: bool,
    },
    /// Builds the schedulers of sched-plugins as WebAssembly modules, into target/plugins.
    Plugins {
        /// Build in this way alone: `a` the Rust that runs this, `b` Debian's packages, `c` Debian's compiler for
        /// browsers. Without it, the first that is there.
        #[arg(long)]
        way: Option<char>,
    },
    /// Plays recorded choices of the kernel's IPVS through the director, a line a recording; fails if one differs.
    Traces {
        /// A directory of recordings (`kernel-*/setup-commands.txt` and CSVs); without it, those that the project keeps.
        directory: Option<PathBuf>,
    },
    /// Compares the director's listings with recorded outputs of the real ipvsadm; fails if one differs.
    Golden {
        /// A directory of outputs (`index.tsv`, `setup-commands.txt`); without it, those that the project keeps.
        directory: Option<PathBuf>,
    },
    /// Measures: the engine by itself, or the director on a wire.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Shows where the time goes, as a flame graph and a table: in a bench of the engine, or in a running director.
    Profile(profile::Profile),
    /// Runs the product under full load, churn and changes for minutes, and demands that nothing breaks or leaks (root).
    Soak {
        /// For so many minutes.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },
    /// Zero-copy, and a comparison with the kernel's IPVS, in a virtual machine that is fetched from Debian.
    Vm {
        #[command(subcommand)]
        what: vm::Vm,
    },
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", paint::bad("error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo { clean: true, .. } => demo::clean(),
        Task::Demo { keep, .. } => demo::run(keep),
        Task::Test { fast, ci, filter } => test::run(fast, ci, filter.as_deref()),
        Task::Deps { check: true, .. } => deps::check(),
        Task::Deps { install: true, .. } => deps::install(),
        Task::Deps { .. } => deps::list(),
        Task::Plugins { way } => plugins::run(way),
        Task::Traces { directory } => cargo::judge("traces", directory.as_deref(), "datapath/tests/recordings"),
        Task::Golden { directory } => cargo::judge("golden", directory.as_deref(), "datapath/tests/golden"),
        Task::Bench { what } => bench::run(what),
        Task::Profile(profile) => profile::run(&profile),
        Task::Soak { minutes } => soak::run(minutes),
        Task::Vm { what } => vm::run(what),
    }
}
