//! Keeps asking by HTTP until standard input ends.
//!
//! Invariant: with kept connections, a server that changes under a connection is a failure even if it answers well.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use xvs_tests::Answers;

use crate::http::Connection;
use crate::print;

/// Between two requests of a thread: enough to leave the machine to those who are tested.
const PAUSE: Duration = Duration::from_millis(2);

/// As [`PAUSE`], for kept connections, of which there are many.
const PAUSE_KEPT: Duration = Duration::from_millis(20);

struct Tally {
    answers: Mutex<Answers>,
    stop: AtomicBool,
}

impl Tally {
    fn count(&self, result: Result<String>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(name) => answers.answered(&name),
            Err(error) => answers.failed(format!("{error:#}")),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn print(&self) -> Result<()> {
        print(&self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn run(to: SocketAddr, parallel: usize, keep_alive: bool) -> Result<()> {
    let tally = Tally { answers: Mutex::default(), stop: AtomicBool::new(false) };
    thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| if keep_alive { ask_over_one(to, &tally) } else { ask_anew(to, &tally) });
        }
        let lines = std::io::stdin().lock().lines();
        let printed: Result<()> = lines.map_while(Result::ok).try_for_each(|_| tally.print());
        tally.stop.store(true, Ordering::Relaxed);
        printed
    })?;
    tally.print()
}

fn ask_anew(to: SocketAddr, tally: &Tally) {
    while tally.goes_on() {
        tally.count(Connection::open(to).and_then(|mut connection| connection.ask(false)));
        thread::sleep(PAUSE);
    }
}

fn ask_over_one(to: SocketAddr, tally: &Tally) {
    let mut kept: Option<(Connection, Option<String>)> = None;
    while tally.goes_on() {
        let result = match kept.take() {
            Some(kept) => Ok(kept),
            None => Connection::open(to).map(|connection| (connection, None)),
        };
        tally.count(result.and_then(|(mut connection, former)| {
            let name = connection.ask(true)?;
            if let Some(former) = former.filter(|former| *former != name) {
                anyhow::bail!("a connection to {former} was answered by {name}");
            }
            kept = Some((connection, Some(name.clone())));
            Ok(name)
        }));
        thread::sleep(PAUSE_KEPT);
    }
}
