//! How a test is told: one sentence that says what it guards, then the steps.
//!
//! [`story`] decides between running, skipping loudly and failing, and keeps the files of a lab if the story ends
//! badly. [`Cases`] lets one lab serve many cases and reports all of those that failed, not only the first.

use std::fmt;
use std::io::Write;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::binaries::binary;
use crate::requirements::{in_ci, is_root, missing_requirements};
use crate::scratch;

/// What a test returns: nothing, or why its story ended badly.
pub type Outcome = std::result::Result<(), Failure>;

/// Why a story ended badly, in sentences. The harness prints it with `Debug`, which therefore shows the sentences only.
pub struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells a story about the product: [`story_of_the_lab`], once the product's programs are found.
pub fn story(guards: &str, steps: impl FnOnce() -> Result<()>) -> Outcome {
    story_of_the_lab(guards, || {
        binary("xvs")?;
        binary("xvsadm")?;
        steps()
    })
}

/// Runs `steps`, which guard what `guards` says in a sentence.
///
/// Without root or without a program that the laboratory needs, the story is skipped with a loud line; with `XVS_CI=1`
/// it fails and names the package. If the steps fail or panic, the logs of the lab stay and their place is printed.
pub fn story_of_the_lab(guards: &str, steps: impl FnOnce() -> Result<()>) -> Outcome {
    println!("guards: {guards}");
    if let Some(obstacle) = obstacle() {
        if in_ci() {
            return Err(Failure(obstacle));
        }
        skipped(guards, &obstacle);
        return Ok(());
    }
    let keeper = scratch::Keeper::begin();
    let result = steps();
    keeper.end(result.is_ok());
    result.map_err(|error| Failure(format!("{error:#}")))
}

/// Says loudly that a story can not be told on this machine, whatever is installed: `why` is a sentence.
pub fn skipped(guards: &str, why: &str) {
    // The harness captures what the macros print and shows it for failures only; a skip must be seen too.
    let _ = writeln!(std::io::stdout(), "\nSKIPPED: {why} Not guarded: {guards}.");
}

fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("network namespaces need root: run the tests as root (`sudo -E cargo xtask test`).".into());
    }
    let missing = missing_requirements();
    if missing.is_empty() {
        return None;
    }
    let programs: Vec<_> = missing.iter().map(|requirement| format!("`{}`", requirement.program)).collect();
    let mut packages: Vec<_> = missing.iter().map(|requirement| requirement.package).collect();
    packages.dedup();
    Some(format!(
        "{} not found: `apt-get install --no-install-recommends {}` brings it.",
        programs.join(", "),
        packages.join(" ")
    ))
}

/// Many cases in one lab: each is named, all are run, all failures are reported.
#[derive(Debug, Default)]
pub struct Cases {
    run: usize,
    failed: Vec<String>,
}

impl Cases {
    /// No case yet.
    pub fn new() -> Self {
        Cases::default()
    }

    /// Runs one case and prints how it went.
    pub fn case(&mut self, name: &str, steps: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        let result = steps();
        self.run += 1;
        let took_s = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("  case {name}: ok ({took_s:.1} s)"),
            Err(error) => {
                println!("  case {name}: FAILED ({took_s:.1} s): {error:#}");
                self.failed.push(format!("{name}: {error:#}"));
            }
        }
    }

    /// An error with every failed case, if there is one.
    pub fn finish(self) -> Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        bail!("{} of {} cases failed:\n  {}", self.failed.len(), self.run, self.failed.join("\n  "))
    }
}
