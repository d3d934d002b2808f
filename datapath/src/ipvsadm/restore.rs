//! `-R`: commands from standard input, a line each.
//!
//! What has been read already goes to the director in one request, so that ten thousand rules do not wait for ten thousand
//! answers. Invariant: outcomes are told with their lines and in their order, as if each line had been a request of its own;
//! and no line waits for another one to be written.

use std::io::{self, Read};

use super::command::{Command, Usage};
use super::parse;
use super::run::{Failure, Program};
use crate::control::protocol::Action;

/// The longest line of a restore. ipvsadm's own lines have a tenth of it.
const LINE_MAX: usize = 4096;
/// How much is read at once: about a thousand rules.
const CHUNK: usize = 1 << 16;

/// Lines that were read, and what was read of the next one.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

/// What comes next.
enum Next {
    Line(Vec<u8>),
    TooLong,
    /// More must be read first.
    Unknown,
    End,
}

impl Lines {
    fn next(&mut self) -> Next {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        let length = match end {
            Some(end) if end <= LINE_MAX => end,
            None if rest.len() < LINE_MAX && !self.ended => return Next::Unknown,
            None if rest.is_empty() => return Next::End,
            None if rest.len() < LINE_MAX => rest.len(),
            _ => return Next::TooLong,
        };
        self.at += length;
        Next::Line(rest[..length].to_vec())
    }

    /// Waits for more.
    fn read(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.bytes.drain(..self.at);
        self.at = 0;
        let known = self.bytes.len();
        self.bytes.resize(known + CHUNK, 0);
        let read = loop {
            match from.read(&mut self.bytes[known..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.bytes.truncate(known + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(())
    }
}

/// Actions that have not been carried out yet, with their lines.
#[derive(Default)]
struct Batch {
    actions: Vec<Action>,
    lines: Vec<u64>,
}

impl Program<'_, '_> {
    /// Carries out a line after the other. One that the director refuses does not stop the rest.
    pub(super) fn restore(&mut self, comments: bool) -> u8 {
        let (mut lines, mut batch, mut status) = (Lines::default(), Batch::default(), 0);
        loop {
            let line = match lines.next() {
                Next::Line(line) => line,
                Next::Unknown => {
                    self.carry_out_batch(&mut batch, &mut status);
                    match lines.read(&mut self.world.stdin) {
                        Ok(()) => continue,
                        Err(error) => return self.end(&format!("cannot read the rules: {error}")),
                    }
                }
                Next::End => {
                    self.carry_out_batch(&mut batch, &mut status);
                    return status;
                }
                Next::TooLong => {
                    self.carry_out_batch(&mut batch, &mut status);
                    return self.end(&format!("longer than the {LINE_MAX} bytes that a rule may have"));
                }
            };
            self.line += 1;
            let args = words(&String::from_utf8_lossy(&line));
            if args.is_empty() || comments && line.starts_with(b"#") {
                continue;
            }
            let command = match parse(&args, self.dialect, self.world.names) {
                Ok(Command::Do(action)) => {
                    batch.actions.push(action);
                    batch.lines.push(self.line);
                    continue;
                }
                command => command,
            };
            self.carry_out_batch(&mut batch, &mut status);
            let outcome = self.parsed(command);
            status = outcome.status;
            if outcome.ends_restore {
                return status;
            }
        }
    }

    fn end(&mut self, message: &str) -> u8 {
        self.line += 1;
        self.usage(&Usage::wrong(message)).status
    }

    /// Asks the director, and tells what went wrong. The status becomes that of the last action.
    fn carry_out_batch(&mut self, batch: &mut Batch, status: &mut u8) {
        let Batch { actions, lines } = std::mem::take(batch);
        if actions.is_empty() {
            return;
        }
        let here = self.line;
        let zeroes: Vec<bool> = actions.iter().map(|action| matches!(action, Action::Zero(_))).collect();
        match self.world.director.call_many(actions) {
            Ok(outcomes) => {
                for ((outcome, line), zero) in outcomes.into_iter().zip(lines).zip(zeroes) {
                    self.line = line;
                    *status = self.acted(outcome.map_err(Failure::Refused), zero);
                }
            }
            Err(error) => {
                self.line = lines[0];
                *status = self.acted(Err(Failure::Client(error)), false);
            }
        }
        self.line = here;
    }
}

/// The words of a rule. The program's name may stand before it, as in a shell script; there is no quoting.
fn words(line: &str) -> Vec<String> {
    let words = line.split([' ', '\t', '\r', '\n']).filter(|word| !matches!(*word, "" | "ipvsadm" | "xvsadm"));
    words.map(str::to_owned).collect()
}
