//! `cargo xtask profile`: where the time goes, as a flame graph and a table.
//!
//! The tool is perf, by the kernel's clock, so no hardware counters are needed: it looks 499 times a second where every
//! thread is. Where perf is not to be had, callgrind counts instructions instead; that works for a program that it starts,
//! not for one that runs. Functions that the compiler put into others are told as functions of their own, from the line
//! tables that the release profile has.
//!
//! Invariant: what is written lies in `target/profile`. Nothing of the profiled program is changed.

mod callgrind;
mod flame;
mod perf;
mod stacks;
pub(crate) mod symbols;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::cargo;
use crate::paint::{good, title};
use stacks::Stacks;

/// Functions in the table.
const TOP: usize = 25;

/// What a bench program is told if nothing is said: a NAT client's packets, so many.
const CASE: &str = "hit/nat_in";
const PACKETS: &str = "50000000";
/// The same under callgrind, which takes fifty times as long.
const PACKETS_COUNTED: &str = "200000";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// Samples of a running program, by the kernel's clock.
    Perf,
    /// Instructions of a program that is started for it, all of them.
    Callgrind,
}

#[derive(Debug, Args)]
pub(crate) struct Profile {
    /// A running process, such as a director (`pidof xvs`); without it, a bench program of the engine is run.
    #[arg(long)]
    pid: Option<u32>,
    /// For how long a running process is watched.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// By what; perf where it works, else callgrind.
    #[arg(long, value_enum)]
    tool: Option<Tool>,
    /// The bench program of the engine.
    #[arg(long, default_value = "instructions", conflicts_with = "pid")]
    bench: String,
    /// Words for the bench program, behind `--` [default for `instructions`: run hit/nat_in PACKETS].
    #[arg(last = true, conflicts_with = "pid")]
    words: Vec<String>,
}

pub(crate) fn run(profile: &Profile) -> Result<()> {
    let tool = choose(profile)?;
    let directory = cargo::root().join("target/profile");
    fs::create_dir_all(&directory).context("target/profile could not be created")?;
    let (name, stacks, unit) = match (profile.pid, tool) {
        (Some(pid), Tool::Perf) => {
            ensure!(Path::new(&format!("/proc/{pid}")).exists(), "there is no process {pid}");
            println!("watching process {pid} for {} s", profile.seconds);
            (format!("pid-{pid}"), perf::of_process(pid, profile.seconds, &directory)?, "samples")
        }
        (Some(_), Tool::Callgrind) => bail!("callgrind watches only what it starts: leave out --pid, or install perf"),
        (None, tool) => {
            let (program, words) = (build(&profile.bench)?, words(profile, tool)?);
            println!("running {} {}", program.display(), words.join(" "));
            let (stacks, unit) = match tool {
                Tool::Perf => (perf::of_program(&program, &words, &directory)?, "samples"),
                Tool::Callgrind => (callgrind::of_program(&program, &words, &directory)?, "instructions"),
            };
            (profile.bench.clone(), stacks, unit)
        }
    };
    ensure!(stacks.total() > 0, "nothing was seen: it did not run, or not for long enough");
    let path = directory.join(format!("{name}.svg"));
    fs::write(&path, flame::draw(&stacks, &format!("{name}: {} {unit}", stacks.total()))).context("no flame graph")?;
    print_table(&stacks, unit);
    println!("{} {}", good("flame graph:"), path.display());
    Ok(())
}

fn choose(profile: &Profile) -> Result<Tool> {
    if let Some(tool) = profile.tool {
        return Ok(tool);
    }
    let Some(why) = perf::obstacle() else { return Ok(Tool::Perf) };
    ensure!(profile.pid.is_none(), "perf does not work here ({why}), and nothing else can watch a running process");
    println!("perf does not work here ({why}): callgrind counts instructions instead, which says nothing of waiting");
    Ok(Tool::Callgrind)
}

fn words(profile: &Profile, tool: Tool) -> Result<Vec<String>> {
    if !profile.words.is_empty() {
        return Ok(profile.words.clone());
    }
    ensure!(
        profile.bench == "instructions",
        "say what `{}` shall do: cargo xtask profile --bench {0} -- WORDS",
        profile.bench
    );
    let packets = if tool == Tool::Perf { PACKETS } else { PACKETS_COUNTED };
    Ok(["run", CASE, packets].map(str::to_owned).to_vec())
}

/// Builds a bench program and gives its path, as cargo tells it.
fn build(bench: &str) -> Result<PathBuf> {
    let words = ["bench", "--package", "xvs-engine", "--bench", bench, "--no-run", "--message-format=json"];
    let output = cargo::command(&words).stderr(Stdio::inherit()).output().context("cargo could not be started")?;
    ensure!(output.status.success(), "the bench `{bench}` could not be built");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = messages.filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned())).next_back();
    executable.map(PathBuf::from).context("cargo built no program")
}

fn print_table(stacks: &Stacks, unit: &str) {
    let total = stacks.total() as f64;
    println!("\n{}", title(format!("{:>7} {:>7}  function, of {total} {unit}", "self", "all")));
    for (name, own, all) in stacks.functions().into_iter().take(TOP) {
        let percent = |count: u64| format!("{:.1} %", count as f64 * 100.0 / total);
        println!("{:>7} {:>7}  {name}", percent(own), percent(all));
    }
}
