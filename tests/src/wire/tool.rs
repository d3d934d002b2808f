//! A program of `xvs-wire` that stays and answers each line by a line of JSON.
//!
//! Invariant: it ends with its value.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Process;

/// A running tool.
#[derive(Debug)]
pub(crate) struct Tool {
    // Closed before the process is ended: it is how a tool is asked to leave.
    control: ChildStdin,
    reports: BufReader<ChildStdout>,
    process: Process,
}

impl Tool {
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        let mut process = Process::start_with_pipes(name, command, directory)?;
        let (control, reports) = process.pipes().context("a tool without pipes")?;
        Ok(Tool { control, reports: BufReader::new(reports), process })
    }

    /// The next line that it says without being asked.
    pub(crate) fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.reports.read_line(&mut line).context("a tool could not be read")?;
        serde_json::from_str(&line).with_context(|| format!("a tool said `{line}`: {}", self.process.log().trim()))
    }

    /// Asks for its report.
    pub(crate) fn ask(&mut self) -> Result<Value> {
        // A tool that has ended is noticed by what it does not say.
        let _ = self.control.write_all(b"\n");
        self.hear()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}
