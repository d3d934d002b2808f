//! A network namespace of a test's own. Invariant: it goes away with the value, also when a test panics.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// A namespace under a name that no other process or test has.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Namespace {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("xvsx-{}-{}-{role}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let output = Command::new("ip").args(["netns", "add", &name]).output().expect("ip is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Namespace { name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in here and demands success.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let words = arguments.split_whitespace();
        let output = Command::new("ip").args(["-n", &self.name]).args(words).output().expect("ip is installed");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a closure in here, on a thread of its own.
    pub(crate) fn enter<Answer: Send>(&self, inside: impl FnOnce() -> Answer + Send) -> Answer {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
