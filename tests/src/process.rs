//! A program that stays: its output goes to a log file, and it ends with its value.
//!
//! Invariant: a dropped process is gone, by SIGTERM if it listens and by SIGKILL if not. It has a process group of its
//! own, so that Ctrl-C at the terminal reaches the lab's owner, who then ends things in order.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to leave after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// How often a wait looks again.
const PAUSE: Duration = Duration::from_millis(10);

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in `directory`.
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        Self::spawn(name, command, directory, false)
    }

    /// As [`Process::start`], but standard input and output are pipes to us.
    pub(crate) fn start_with_pipes(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        Self::spawn(name, command, directory, true)
    }

    fn spawn(name: &str, command: &mut Command, directory: &Path, pipes: bool) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("a log file could not be opened")?;
        let output = file.try_clone().context("a log file could not be opened")?;
        let (stdin, stdout) =
            if pipes { (Stdio::piped(), Stdio::piped()) } else { (Stdio::null(), Stdio::from(output)) };
        let child = command
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::from(file))
            .spawn()
            .with_context(|| format!("`{name}` could not be started"))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid() as i32), signal)
            .with_context(|| format!("`{}` could not be signalled", self.name))
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("`{}` was still running after {limit:?}", self.name);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks it to leave and waits.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(GRACE)
    }

    /// Kills it, as the kernel's memory killer would.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(GRACE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() && self.terminate().is_err() {
            let _ = self.kill();
        }
    }
}

/// Waits until `done` says yes, at most `limit`; an error says what did not happen.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() > deadline {
            bail!("{what} did not happen within {limit:?}");
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
