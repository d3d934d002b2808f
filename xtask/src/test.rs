//! `cargo xtask test`: everything, in the order in which failures are cheapest.
//!
//! The scheduler plugins are built first, because tests of all kinds load them. Then units, properties and the BPF
//! program; then the network namespaces, one story at a time, against the release build of the product, and the virtual
//! machine. A failing step does not keep the next from running: the table at the end shows all.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::deps;
use crate::paint::{bad, title};
use crate::plugins;
use crate::summary::{Summary, table};

/// Scheduler plugins are a workspace of their own, since old toolchains must build it.
const PLUGINS: &str = "sched-plugins/Cargo.toml";

/// `cargo xtask vm test`, a program of its own so that its lines are counted like a runner's. Without root there are no taps:
/// a skip, or a failure where skips are failures.
fn virtual_machine(ci: bool) -> Result<Summary> {
    println!("\n{}", title("virtual machine"));
    if !ci && !xvs_tests::is_root() {
        println!("SKIPPED: the virtual machine's wires need root");
        return Ok(Summary::skipped("virtual machine"));
    }
    let own = std::env::current_exe().context("the running executable has no path")?;
    Summary::of("virtual machine", Command::new(own).args(["vm", "test"]))
}

pub(crate) fn run(fast: bool, ci: bool, filter: Option<&str>) -> Result<()> {
    let ci = ci || ["CI", "XVS_CI"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    match deps::install() {
        Err(error) if ci => return Err(error),
        // Without root some tests can still run; those that cannot say so.
        Err(error) => eprintln!("{error:#}"),
        Ok(()) => {}
    }
    // A test that wants a module and finds none fails by itself, and says why.
    println!();
    let unbuilt = plugins::run(None).err();
    if let Some(error) = &unbuilt {
        eprintln!("{} {error:#}", bad("no plugins:"));
    }
    let filter: Vec<&str> = filter.into_iter().collect();
    let mut summaries = Vec::new();
    let mut step = |name: &str, words: &[&str], after: &[&str], binaries: Option<&std::path::Path>| -> Result<()> {
        println!("\n{}", title(name));
        let mut words = words.to_vec();
        words.push("--no-fail-fast");
        words.extend(&filter);
        if !after.is_empty() {
            words.push("--");
            words.extend(after);
        }
        let mut command = cargo::command(&words);
        if ci {
            command.env("XVS_CI", "1");
        }
        if let Some(binaries) = binaries {
            command.env("XVS_BIN_DIR", binaries);
        }
        summaries.push(Summary::of(name, &mut command)?);
        Ok(())
    };
    step("units, properties, BPF", &["test", "--workspace", "--exclude", "xvs-tests"], &[], None)?;
    if cargo::root().join(PLUGINS).exists() {
        step("scheduler plugins", &["test", "--manifest-path", PLUGINS], &[], None)?;
    }
    if !fast {
        let binaries = cargo::build_release()?;
        step("network namespaces", &["test", "--package", "xvs-tests"], &["--test-threads=1"], Some(&binaries))?;
    }
    if !fast && filter.is_empty() {
        summaries.push(virtual_machine(ci)?);
    }
    table(&summaries);
    let failed = summaries.iter().filter(|summary| !summary.is_good()).map(|summary| summary.name.as_str());
    let names: Vec<_> = unbuilt.iter().map(|_| "building the scheduler plugins").chain(failed).collect();
    if !names.is_empty() {
        bail!("failed: {}", names.join("; "));
    }
    Ok(())
}
