//! Who spent how much CPU time.
//!
//! What the kernel does in softirq is charged to whoever it interrupts, since this accounting has no clock of its own for
//! it. On a veth that is the sender: the generator pays for the director's receiving NAPI and, with the kernel as
//! director, for everything; the director pays for what the server's end does with a frame. So only the sum of all who
//! take part tells what a packet costs, less what generator and wire cost without a director. `ksoftirqd` is part of it.

use std::fs;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Clock ticks a second in /proc; fixed by the kernel's interface.
const TICKS: f64 = 100.0;

/// CPU time, at one moment or between two.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// All, in nanoseconds, exact.
    pub total_ns: u64,
    /// Of it in user space, by the ticks of the clock.
    pub user_s: f64,
    /// Of it in the kernel.
    pub system_s: f64,
}

impl Spent {
    /// What these processes have spent so far, with all their threads.
    pub fn by(pids: &[u32]) -> Result<Self> {
        pids.iter().try_fold(Spent::default(), |sum, pid| Ok(sum.and(&Spent::by_one(*pid)?)))
    }

    /// What the kernel's softirq threads have spent so far.
    pub fn by_softirq_threads() -> Result<Self> {
        let entries = fs::read_dir("/proc").context("/proc can not be read")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_softirq = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
        };
        Spent::by(&pids.filter(is_softirq).collect::<Vec<_>>())
    }

    fn by_one(pid: u32) -> Result<Self> {
        let gone = || format!("process {pid} has ended");
        let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).with_context(gone)?;
        let time = clock_gettime(clock).with_context(gone)?;
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(gone)?;
        // The name stands in brackets and may hold anything; user and system time are 12th and 13th behind it.
        let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
        let ticks: Vec<f64> = behind.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
        let second = |at: usize| ticks.get(at).copied().unwrap_or_default() / TICKS;
        Ok(Spent {
            total_ns: time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
            user_s: second(0),
            system_s: second(1),
        })
    }

    /// Both together.
    pub fn and(&self, other: &Spent) -> Spent {
        Spent {
            total_ns: self.total_ns + other.total_ns,
            user_s: self.user_s + other.user_s,
            system_s: self.system_s + other.system_s,
        }
    }

    /// What was spent since an earlier moment.
    pub fn since(&self, before: &Spent) -> Spent {
        Spent {
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            user_s: (self.user_s - before.user_s).max(0.0),
            system_s: (self.system_s - before.system_s).max(0.0),
        }
    }
}

/// What the whole machine did, in seconds of all its CPUs, by the ticks of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Machine {
    /// User space, niced included.
    pub user: f64,
    /// The kernel, without softirq.
    pub system: f64,
    /// Softirq.
    pub softirq: f64,
    /// Nothing, or waiting for a disk.
    pub idle: f64,
}

impl Machine {
    /// So far.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat can not be read")?;
        let line = text.lines().next().unwrap_or_default();
        let values: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let second = |at: usize| values.get(at).copied().unwrap_or_default() / TICKS;
        Ok(Machine {
            user: second(0) + second(1),
            system: second(2),
            softirq: second(5) + second(6),
            idle: second(3) + second(4),
        })
    }

    /// All but idleness.
    pub fn busy(&self) -> f64 {
        self.user + self.system + self.softirq
    }

    /// Since an earlier moment.
    pub fn since(&self, before: &Machine) -> Machine {
        Machine {
            user: self.user - before.user,
            system: self.system - before.system,
            softirq: self.softirq - before.softirq,
            idle: self.idle - before.idle,
        }
    }
}
