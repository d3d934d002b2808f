//! What a scenario says, shown and counted; and when it fails, what the machine said besides.
//!
//! A check is a line `ok: SENTENCE` or `FAILED: SENTENCE: WHY`. Invariant: no silence is success: a scenario without a
//! check, without its `EXIT 0`, or with a complaint of the kernel on the console has failed.

use std::fs;
use std::time::Instant;

use anyhow::{Result, bail};

use super::machine::{Machine, Word};
use super::store::Store;
use crate::paint::{bad, good};

/// How the kernel says that something of its own went wrong.
const COMPLAINTS: &[&str] =
    &["WARNING:", "BUG:", "Oops", "Kernel panic", "general protection fault", "NETDEV WATCHDOG"];

/// Lines of the console that are shown after a failure.
const SHOWN: usize = 40;

/// Checks of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    passed: u64,
    failed: u64,
}

impl Report {
    /// Adds another one.
    pub(super) fn merge(&mut self, other: Report) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Counts a check of this side.
    pub(super) fn check(&mut self, holds: bool, sentence: &str) {
        let line = if holds { format!("ok: {sentence}") } else { format!("FAILED: {sentence}") };
        self.take(&line);
    }

    /// Shows a line of a scenario, and counts it if it is a check.
    fn take(&mut self, line: &str) {
        if let Some(sentence) = line.strip_prefix("ok: ") {
            self.passed += 1;
            println!("  {} {sentence}", good("ok"));
        } else if let Some(sentence) = line.strip_prefix("FAILED: ") {
            self.failed += 1;
            println!("  {} {sentence}", bad("FAILED"));
        } else {
            println!("  {line}");
        }
    }

    /// The closing line, as the runners of tests have it.
    pub(super) fn finish(self) -> Result<()> {
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        println!("\ntest result: {verdict}. {} passed; {} failed", self.passed, self.failed);
        match self.failed {
            0 => Ok(()),
            failed => bail!("{failed} checks failed in the virtual machine"),
        }
    }
}

/// Follows a scenario to its end. `hear` gets every mark, and every line; it says whether a line was for it alone.
pub(super) fn follow(
    store: &Store,
    mut machine: Machine,
    mut hear: impl FnMut(&Machine, &Word) -> Result<bool>,
) -> Result<Report> {
    let (started, mut report) = (Instant::now(), Report::default());
    let end = loop {
        match machine.next() {
            Ok(Word::Exit(code)) => break Ok(code),
            Ok(word) => {
                let taken = hear(&machine, &word)?;
                match word {
                    Word::Line(line) if !taken => report.take(&line),
                    Word::Mark(_) => machine.go_on()?,
                    _ => {}
                }
            }
            Err(error) => break Err(error),
        }
    };
    drop(machine);
    let console = fs::read(store.directory().join("console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    let complaint = console.lines().find(|line| COMPLAINTS.iter().any(|word| line.contains(word)));
    match end {
        Ok(0) if report.passed + report.failed > 0 => {}
        Ok(0) => report.take("FAILED: the scenario checked nothing"),
        Ok(code) => report.take(&format!("FAILED: the scenario ended with exit code {code}")),
        Err(error) => report.take(&format!("FAILED: the scenario did not come to its end: {error:#}")),
    }
    if let Some(line) = complaint {
        report.take(&format!("FAILED: the kernel has no complaint: {line}"));
    }
    if report.failed > 0 {
        let lines: Vec<_> = console.lines().collect();
        println!("the machine's console ends:\n{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
        print!("{}", fs::read_to_string(store.directory().join("qemu.log")).unwrap_or_default());
    }
    println!("  {:.0} s", started.elapsed().as_secs_f32());
    Ok(report)
}
