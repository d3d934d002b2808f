//! Requests that go on in the background while a story changes things.
//!
//! Invariant: the load stops with its value; counts are asked for and never guessed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::answers::Answers;
use crate::process::{Process, wait_until};

/// Requests in flight at the end may run into their own limits first.
const STOP_LIMIT: Duration = Duration::from_secs(15);

static COUNT: AtomicU32 = AtomicU32::new(1);

/// A peer that keeps asking.
#[derive(Debug)]
pub struct Load {
    process: Process,
    control: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

impl Load {
    pub(crate) fn start(mut command: Command, directory: &Path) -> Result<Self> {
        let name = format!("load{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut process = Process::start_with_pipes(&name, &mut command, directory)?;
        let (control, reports) = process.pipes().context("the load has no pipes")?;
        Ok(Load { process, control: Some(control), reports: BufReader::new(reports) })
    }

    /// The counts so far.
    pub fn so_far(&mut self) -> Result<Answers> {
        let control = self.control.as_mut().context("the load was stopped before")?;
        control.write_all(b"\n").context("the load has ended by itself")?;
        self.report()
    }

    /// Waits until `more` further requests were answered; a load that stands still is an error.
    pub fn wait_for(&mut self, more: u64, limit: Duration) -> Result<Answers> {
        let wanted = self.so_far()?.total() + more;
        let mut latest = Answers::default();
        let waited = wait_until(&format!("answering {more} more requests"), limit, || match self.so_far() {
            Ok(answers) => {
                latest = answers;
                latest.total() >= wanted
            }
            Err(_) => false,
        });
        waited.with_context(|| format!("the load saw {latest}"))?;
        Ok(latest)
    }

    /// Stops after the requests in flight, and gives the final counts.
    pub fn stop(mut self) -> Result<Answers> {
        self.control = None;
        let answers = self.report()?;
        let status = self.process.wait(STOP_LIMIT)?;
        ensure!(status.success(), "the load ended with {status}: {}", self.process.log());
        Ok(answers)
    }

    fn report(&mut self) -> Result<Answers> {
        let mut line = String::new();
        self.reports.read_line(&mut line).context("the load could not be read")?;
        serde_json::from_str(&line).with_context(|| format!("the load said `{line}`; its log: {}", self.process.log()))
    }
}
