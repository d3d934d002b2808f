//! The judges: recordings of the kernel and of the real ipvsadm against this director.
//!
//! ```text
//! recording   the files            stage    a rehearsed director to play them on
//! traces      recorded choices     lottery  where choices are random
//! golden      recorded outputs     script   how a session went   traffic  who talked in it   table  listings
//! ```
//!
//! Invariant: a recording is compared whole, or the judge says that it failed. What cannot be played is a failure and
//! is counted as one.
#![allow(dead_code, unreachable_pub, reason = "compiled into a test and into an example")]

use std::io::Write;
use std::path::Path;

pub(crate) mod golden;
mod lottery;
mod names;
mod recording;
mod script;
mod stage;
mod table;
pub(crate) mod traces;
mod traffic;

pub(crate) use recording::Wrong;

/// Differences that are told of one recording.
const COMPLAINTS: usize = 5;

/// What the recordings came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) left_out: usize,
}

impl Verdicts {
    /// Takes one, and writes a line about it.
    fn take(&mut self, out: &mut dyn Write, name: &str, outcome: Result<String, Wrong>) {
        let text = match &outcome {
            Ok(told) => format!("ok     {name} ({told})\n"),
            Err(wrong) => format!("FAILED {name}\n    {}\n", wrong.replace('\n', "\n    ")),
        };
        *if outcome.is_ok() { &mut self.passed } else { &mut self.failed } += 1;
        // A closed pipe is no reason to judge otherwise.
        let _ = out.write_all(text.as_bytes());
    }

    /// Tells that one is not judged, and why.
    fn leave_out(&mut self, out: &mut dyn Write, name: &str, why: &str) {
        self.left_out += 1;
        let _ = writeln!(out, "-      {name} ({why})");
    }

    /// The line at the end. Nothing judged is a failure, too.
    fn close(self, out: &mut dyn Write, directory: &Path) -> Result<Verdicts, Wrong> {
        let left_out = if self.left_out == 0 { String::new() } else { format!(", {} left out", self.left_out) };
        let _ = writeln!(out, "{} passed, {} failed{left_out}", self.passed, self.failed);
        if self.passed + self.failed == 0 {
            return Err(format!("{}: no recording is there", directory.display()));
        }
        Ok(self)
    }
}
