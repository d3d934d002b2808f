//! Test output passes through and is counted on its way: the runners' own summaries are shown, and added up.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::paint::{bad, good, title};

/// What one step of the tests came to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Summary {
    pub(crate) name: String,
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: u64,
    took_s: f32,
    /// Its exit code was 0.
    succeeded: bool,
}

impl Summary {
    /// Runs a command, lets its output through, and counts.
    pub(crate) fn of(name: &str, command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("{name} could not be started"))?;
        let mut summary = Summary { name: name.to_owned(), ..Summary::default() };
        for line in BufReader::new(child.stdout.take().context("no output")?).lines().map_while(Result::ok) {
            println!("{line}");
            summary.count(&line);
        }
        summary.succeeded = child.wait().context("a test runner could not be waited for")?.success();
        summary.took_s = started.elapsed().as_secs_f32();
        Ok(summary)
    }

    /// A step that could not be run here, and said so.
    pub(crate) fn skipped(name: &str) -> Self {
        Summary { name: name.to_owned(), passed: 1, skipped: 1, succeeded: true, ..Summary::default() }
    }

    /// Reads `test result: ok. 5 passed; 0 failed; 0 ignored; ...` and the laboratory's skips.
    fn count(&mut self, line: &str) {
        if line.starts_with("SKIPPED:") {
            self.skipped += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<_> = result.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// True if nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.succeeded && self.failed == 0
    }
}

/// Prints the final table.
pub(crate) fn table(summaries: &[Summary]) {
    println!("\n{}", title("step                            passed  failed  ignored  skipped  seconds"));
    for summary in summaries {
        let verdict = if summary.is_good() { good("ok") } else { bad("FAILED") };
        // A skipped story returns without an error, so the runner counts it among those that passed.
        println!(
            "{:30} {:7} {:7} {:8} {:8} {:8.1}  {verdict}",
            summary.name,
            summary.passed.saturating_sub(summary.skipped),
            summary.failed,
            summary.ignored,
            summary.skipped,
            summary.took_s,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_lines_are_understood() {
        let mut summary = Summary::default();
        summary.count("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s");
        summary.count("test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        summary.count("SKIPPED: network namespaces need root");
        assert_eq!((summary.passed, summary.failed, summary.ignored, summary.skipped), (6, 3, 1, 1));
        assert!(!summary.is_good());
    }
}
