//! A network namespace with a name that says whose it is.
//!
//! Invariant: a namespace dies with its value, together with whatever process still lives in it. Labs name theirs
//! `xvs-PID-N-ROLE`; [`sweep`] removes those whose process is gone, and nothing else.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Finished, run, run_with_input};
use crate::scratch::Scratch;

/// A network namespace that this process created.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// Every namespace starts with these: no duplicate-address detection to wait for, no router advertisements, no
/// redirects, and no reverse-path filter, since direct routing is asymmetric by design.
const QUIET: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
];

impl Namespace {
    pub(crate) fn create(name: &str) -> Result<Self> {
        run("ip", &["netns", "add", name])?.ok()?;
        let namespace = Namespace { name: name.to_owned() };
        namespace.sysctl(QUIET)?;
        namespace.ip("link set dev lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns exec` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. `ip netns exec` replaces itself by it, so the child's pid is the program's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program inside, to its end.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Finished> {
        self.run_with(words, &[])
    }

    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, words: &[S], environment: &[(&str, &OsStr)]) -> Result<Finished> {
        self.run_with_input(words, "", environment)
    }

    /// Runs a program inside, to its end, with text on its standard input.
    pub(crate) fn run_with_input<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        input: &str,
        environment: &[(&str, &OsStr)],
    ) -> Result<Finished> {
        let inside = ["netns", "exec", &self.name].map(OsString::from);
        let all: Vec<OsString> = inside.into_iter().chain(words.iter().map(|word| word.as_ref().to_owned())).collect();
        run_with_input("ip", &all, input, environment)
    }

    /// Runs `ip` commands inside, one a line, each without the leading `ip`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run_with_input("ip", &["-netns", &self.name, "-batch", "-"], lines, &[])?.ok().map(drop)
    }

    /// As [`Namespace::ip`], with `ip -6`: rules do not tell their family by the addresses in them.
    pub(crate) fn ip_v6(&self, lines: &str) -> Result<()> {
        run_with_input("ip", &["-netns", &self.name, "-6", "-batch", "-"], lines, &[])?.ok().map(drop)
    }

    /// Writes kernel parameters inside, by their paths below /proc/sys. Those that this kernel lacks are passed over.
    pub fn sysctl(&self, parameters: &[(&str, &str)]) -> Result<()> {
        let script: String = parameters
            .iter()
            .map(|(key, value)| format!("[ ! -e /proc/sys/{key} ] || echo {value} > /proc/sys/{key} || exit 1\n"))
            .collect();
        self.run(&["sh", "-c", &script])?.ok().map(drop)
    }

    /// The MAC address of a device inside.
    pub fn mac(&self, device: &str) -> Result<String> {
        let printed = self.run(&["cat", &format!("/sys/class/net/{device}/address")])?.ok()?;
        Ok(printed.trim().to_owned())
    }

    /// A counter of the kernel inside, as /proc/net/netstat and /proc/net/snmp name it: `TcpExt`, `TCPSynRetrans`.
    pub fn kernel_counter(&self, group: &str, name: &str) -> Result<u64> {
        let printed = self.run(&["cat", "/proc/net/netstat", "/proc/net/snmp"])?.ok()?;
        let mut lines = printed.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let value = names.split(' ').zip(values.split(' ')).find(|(key, _)| *key == name);
        let value = value.and_then(|(_, value)| value.parse().ok());
        value.with_context(|| format!("the kernel has no counter {group} {name}"))
    }

    /// Starts forwarding by the kernel. A director must do without; the router needs it.
    pub fn forward_by_kernel(&self, on: bool) -> Result<()> {
        let value = if on { "1" } else { "0" };
        self.sysctl(&[("net/ipv4/ip_forward", value), ("net/ipv6/conf/all/forwarding", value)])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces and files of laboratories whose process is gone: killed, or interrupted at the keyboard.
pub fn sweep() {
    for name in names() {
        let mut words = name.splitn(4, '-');
        let (Some("xvs"), Some(pid), Some(number)) = (words.next(), words.next(), words.next()) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            remove(&name);
            let _ = std::fs::remove_dir_all(Scratch::place(&format!("xvs-{pid}-{number}")));
        }
    }
}

/// Removes all namespaces of the lab `name`, with the processes inside, and its files; returns how many namespaces
/// there were.
pub fn clean(name: &str) -> usize {
    let prefix = format!("{name}-");
    let doomed: Vec<_> = names().into_iter().filter(|namespace| namespace.starts_with(&prefix)).collect();
    doomed.iter().for_each(|namespace| remove(namespace));
    let _ = std::fs::remove_dir_all(Scratch::place(name));
    doomed.len()
}

fn names() -> Vec<String> {
    let listing = run("ip", &["netns", "list"]).and_then(Finished::ok).unwrap_or_default();
    // A line is `name` or `name (id: 3)`.
    listing.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

fn remove(name: &str) {
    // Whoever is inside was started by a lab; a namespace with a process in it would live on without its name.
    let inside = run("ip", &["netns", "pids", name]).and_then(Finished::ok).unwrap_or_default();
    for pid in inside.lines().filter_map(|line| line.trim().parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = run("ip", &["netns", "delete", name]);
}
