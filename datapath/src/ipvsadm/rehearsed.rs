//! Command lines to a director without a network.
//!
//! The whole program runs, from the option parser to the listing, and what it would have written to the terminal comes
//! back as text. Invariant: nothing here knows a command; it is [`run::main`](super::run::main) with another world.

use std::io::Cursor;

use super::names::Names;
use super::run::{Director, World, main};
use crate::control::client::ClientError;
use crate::control::protocol::{Action, Answer, Refusal};
use crate::rehearsal::Rehearsal;

impl Director for Rehearsal {
    fn call(&mut self, action: Action) -> Result<Result<Answer, Refusal>, ClientError> {
        Ok(self.act(action))
    }
}

/// What a command line came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status.
    pub status: u8,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command line, whose first word is the program's name, with this on its standard input.
pub fn command(director: &mut dyn Director, line: &str, stdin: &str, names: &dyn Names) -> Outcome {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut world =
        World { stdin: &mut Cursor::new(stdin.as_bytes()), stdout: &mut stdout, stderr: &mut stderr, names, director };
    let status = main(&args, &mut world);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { status, stdout: text(stdout), stderr: text(stderr) }
}
