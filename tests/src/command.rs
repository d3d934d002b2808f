//! Programs that are run to their end, with a time limit and errors that show what was run and what it said.
//!
//! Not here: programs that stay (see `process`).

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// No single command of a lab takes longer; the largest is a transfer of 100 MB on a busy machine.
const LIMIT_S: u32 = 120;

/// What a finished program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output if the program succeeded, else an error with its words.
    pub fn ok(self) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            // The code with which coreutils' `timeout` says that it had to end the program.
            Some(124) => bail!("`{}` did not finish within {LIMIT_S} seconds", self.line),
            _ => bail!("`{}` failed ({}): {}", self.line, self.outcome(), self.last_words()),
        }
    }

    /// `exit code 3`, or that a signal ended it.
    pub fn outcome(&self) -> String {
        self.code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"))
    }

    fn last_words(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        said.trim().lines().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

/// Runs a program to its end.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Finished> {
    run_with_input(program, arguments, "", &[])
}

/// Runs a program to its end, with text on its standard input and variables in its environment.
pub(crate) fn run_with_input<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    input: &str,
    environment: &[(&str, &OsStr)],
) -> Result<Finished> {
    let words = arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned());
    let line = std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    let mut child = Command::new("timeout")
        .args(["--kill-after=5", &LIMIT_S.to_string(), program])
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` could not be started"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that exits early says so on its standard error; the broken pipe is not the news.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("`{line}` could not be waited for"))?;
    Ok(Finished {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
