//! The program: a command line to the director, what it says to the terminal, an exit status.
//!
//! | status | when |
//! | --- | --- |
//! | 0 | done |
//! | 1 | a listing was refused, or could not be written |
//! | 2 | the command line is wrong, or there is no director |
//! | 255 | the director refused, or the option parser did |
//!
//! Invariant: listings and nothing else go to standard output, and nothing goes there when the status is not 0 (but in
//! a restore, whose status is that of its last line).
//!
//! Not here: how command lines are understood and how answers are laid out.

use std::io::{BufRead, ErrorKind, Write};
use std::path::PathBuf;

use super::command::{Command, Format, Role, Usage, What};
use super::names::Names;
use super::options::Dialect;
use super::{connections, help, listing, parse, save};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{self, Action, Answer, Refusal, RefusalKind};

/// Whom the commands are for.
pub trait Director {
    /// Carries out an action, or says why not.
    fn call(&mut self, action: Action) -> Result<Result<Answer, Refusal>, ClientError>;

    /// Carries out actions one after the other, each done or refused by itself: as many outcomes.
    fn call_many(&mut self, actions: Vec<Action>) -> Result<Vec<Result<Answer, Refusal>>, ClientError> {
        actions.into_iter().map(|action| self.call(action)).collect()
    }
}

/// The director behind a control socket. It is connected to when it is first needed, so that a mistake on the command
/// line is told without one.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    client: Option<Client>,
}

impl ControlSocket {
    /// The director that listens here.
    pub fn new(path: PathBuf) -> Self {
        ControlSocket { path, client: None }
    }
}

impl Director for ControlSocket {
    fn call(&mut self, action: Action) -> Result<Result<Answer, Refusal>, ClientError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.path)?),
        };
        client.call(action)
    }

    fn call_many(&mut self, actions: Vec<Action>) -> Result<Vec<Result<Answer, Refusal>>, ClientError> {
        let count = actions.len();
        match self.call(Action::Many(actions))? {
            Ok(Answer::Many(outcomes)) if outcomes.len() == count => {
                let result = |outcome| match outcome {
                    protocol::Outcome::Ok(answer) => Ok(answer),
                    protocol::Outcome::Refused(refusal) => Err(refusal),
                };
                Ok(outcomes.into_iter().map(result).collect())
            }
            Ok(_) => Err(ClientError::Unreadable(format!("it does not tell what became of {count} actions"))),
            Err(refusal) => Ok(vec![Err(refusal); count]),
        }
    }
}

/// Everything around the program.
pub struct World<'a> {
    /// Rules to restore.
    pub stdin: &'a mut dyn BufRead,
    /// Listings.
    pub stdout: &'a mut dyn Write,
    /// Everything that went wrong.
    pub stderr: &'a mut dyn Write,
    /// Names of hosts and services.
    pub names: &'a dyn Names,
    /// The director.
    pub director: &'a mut dyn Director,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// Runs the program of these arguments, whose first is its name, and returns the exit status. Under the names of
/// ipvsadm's programs (`ipvsadm`, `ipvsadm-save`, `ipvsadm-restore`) it behaves as they do.
pub fn main(args: &[String], world: &mut World<'_>) -> u8 {
    let (path, args) = args.split_first().map_or(("xvsadm", args), |(path, rest)| (path.as_str(), rest));
    let name = path.rsplit('/').next().unwrap_or(path);
    let dialect = if name.starts_with("ipvsadm") { Dialect::Ipvsadm } else { Dialect::Xvsadm };
    let mut program = Program { name, dialect, line: 0, world };
    match name.rsplit_once('-') {
        Some((_, "save")) => {
            let args: Vec<String> = std::iter::once("-S".to_owned()).chain(args.iter().cloned()).collect();
            program.line(&args).status
        }
        Some((_, "restore")) => program.restore_tool(args),
        _ => program.line(args).status,
    }
}

/// What a line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: u8,
    /// Whether ipvsadm would have exited at once, in the midst of a restore, too.
    pub(super) ends_restore: bool,
}

impl Outcome {
    fn of(status: u8) -> Outcome {
        Outcome { status, ends_restore: false }
    }

    fn last(status: u8) -> Outcome {
        Outcome { status, ends_restore: true }
    }
}

/// Why there is no answer to show.
pub(super) enum Failure {
    Refused(Refusal),
    Client(ClientError),
    /// The director answered a question that was not asked.
    Stray,
}

pub(super) struct Program<'p, 'w> {
    name: &'p str,
    pub(super) dialect: Dialect,
    /// The line of a restore, from 1; 0 outside.
    pub(super) line: u64,
    pub(super) world: &'p mut World<'w>,
}

impl Program<'_, '_> {
    fn line(&mut self, args: &[String]) -> Outcome {
        self.parsed(parse(args, self.dialect, self.world.names))
    }

    /// Carries out what a line says, if it says something.
    pub(super) fn parsed(&mut self, command: Result<Command, Usage>) -> Outcome {
        match command {
            Ok(Command::Restore) if self.line > 0 => self.usage(&Usage::no_command("-R cannot stand in a restore")),
            Ok(command) => self.carry_out(command),
            Err(usage) => self.usage(&usage),
        }
    }

    fn carry_out(&mut self, command: Command) -> Outcome {
        match command {
            Command::Do(action) => Outcome::of(self.act(action)),
            Command::List { what, format } => self.list(what, &format),
            Command::Save { numeric, thresholds } => {
                let names = self.world.names;
                let text = self.ask(Action::Services(None)).and_then(|answer| match answer {
                    Answer::Services(services) => Ok(save::rules(&services, numeric, thresholds, names)),
                    _ => Err(Failure::Stray),
                });
                self.show(text)
            }
            Command::Restore => Outcome::of(self.restore(false)),
            Command::StartDaemon(_) => {
                self.complain("this director does not synchronise connections, so there is no daemon to start");
                Outcome::of(255)
            }
            Command::StopDaemon(role) => {
                let role = if role == Role::Master { "master" } else { "backup" };
                self.complain(&format!("no {role} daemon runs: this director does not synchronise connections"));
                Outcome::of(255)
            }
            Command::Help => Outcome::last(self.print(&help::help(self.name, self.dialect))),
            Command::Version => Outcome::last(self.print(&help::version(self.dialect))),
        }
    }

    fn act(&mut self, action: Action) -> u8 {
        let zero = matches!(action, Action::Zero(_));
        let answer = self.ask(action);
        self.acted(answer, zero)
    }

    /// The status of an action, after what went wrong was told. `zero`: it zeroes counters.
    pub(super) fn acted(&mut self, answer: Result<Answer, Failure>, zero: bool) -> u8 {
        match answer {
            Ok(_) => 0,
            // To zero the counters of a service that is not there is no error for ipvsadm.
            Err(Failure::Refused(refusal)) if zero && refusal.kind == RefusalKind::NoSuchService => 0,
            Err(failure) => self.failure(failure, 255),
        }
    }

    fn list(&mut self, what: What, format: &Format) -> Outcome {
        let names = self.world.names;
        let action = match what {
            What::All => Action::Services(None),
            What::One(id) => Action::Services(Some(id)),
            What::Connections => Action::Connections,
            What::Timeouts => Action::Timeouts,
            // There are none, and none are shown as nothing.
            What::Daemons => return self.show(Ok(if format.json { "[]\n" } else { "" }.to_owned())),
        };
        let text = self.ask(action).and_then(|answer| match (what, answer) {
            (_, answer) if format.json => match serde_json::to_string(&answer) {
                Ok(json) => Ok(json + "\n"),
                Err(_) => Err(Failure::Stray),
            },
            (What::All, Answer::Services(services)) => Ok(listing::all(&services, format, names)),
            (What::One(_), Answer::Services(services)) => match services.services.first() {
                Some(service) => Ok(listing::one(service, format, names)),
                None => Err(Failure::Refused(Refusal::new(RefusalKind::NoSuchService, "there is no such service"))),
            },
            (What::Connections, Answer::Connections(table)) => Ok(connections::table(&table, format, names)),
            (What::Timeouts, Answer::Timeouts(timeouts)) => Ok(listing::timeouts(&timeouts)),
            _ => Err(Failure::Stray),
        });
        self.show(text)
    }

    /// `ipvsadm-restore`: like `-C`, then `-R`, and lines that start with `#` are comments.
    fn restore_tool(&mut self, args: &[String]) -> u8 {
        match args.first().map(String::as_str) {
            None => match self.act(Action::Flush) {
                0 => self.restore(true),
                status => status,
            },
            Some("-h" | "--help") => self.print(&help::help(self.name, self.dialect)),
            // The original ignores arguments, and would clear the table for any typing mistake.
            Some(stray) => {
                self.usage(&Usage::wrong(format!("`{stray}` is unexpected: rules come from standard input"))).status
            }
        }
    }

    fn ask(&mut self, action: Action) -> Result<Answer, Failure> {
        match self.world.director.call(action) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(Failure::Refused(refusal)),
            Err(error) => Err(Failure::Client(error)),
        }
    }

    /// Prints a listing, or why there is none. Without one, ipvsadm exits.
    fn show(&mut self, text: Result<String, Failure>) -> Outcome {
        match text {
            Ok(text) => match self.print(&text) {
                0 => Outcome::of(0),
                status => Outcome::last(status),
            },
            Err(failure) => Outcome::last(self.failure(failure, 1)),
        }
    }

    fn print(&mut self, text: &str) -> u8 {
        let written = self.world.stdout.write_all(text.as_bytes()).and_then(|()| self.world.stdout.flush());
        match written {
            Ok(()) => 0,
            // The reader has seen enough (`| head`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => 1,
            Err(error) => {
                self.complain(&format!("cannot write to standard output: {error}"));
                1
            }
        }
    }

    pub(super) fn usage(&mut self, usage: &Usage) -> Outcome {
        self.complain(&usage.message);
        Outcome { status: usage.exit, ends_restore: usage.ends_restore }
    }

    fn failure(&mut self, failure: Failure, refused: u8) -> u8 {
        match failure {
            Failure::Refused(refusal) => {
                self.complain(&refusal.message);
                if refusal.kind == RefusalKind::Version { 2 } else { refused }
            }
            Failure::Client(error) => {
                self.complain(&error.to_string());
                match error {
                    ClientError::NoDirector { .. } | ClientError::Version { .. } => 2,
                    _ => 255,
                }
            }
            Failure::Stray => {
                self.complain("the director gave an answer that does not fit the question");
                refused
            }
        }
    }

    fn complain(&mut self, message: &str) {
        // Nobody is left to tell if this fails.
        let _ = match self.line {
            0 => writeln!(self.world.stderr, "{}: {message}", self.name),
            line => writeln!(self.world.stderr, "{}: line {line}: {message}", self.name),
        };
    }
}
