//! The machine that balances, and the product that runs on it.
//!
//! [`Director`] is the machine: namespace, interfaces, what its kernel counts. [`Running`] is a started `xvs`, driven
//! by its own command lines; `terminate`, `kill` or the drop of the value ends it.
//!
//! Invariant: the director's kernel forwards nothing (`ip_forward` is 0), so what arrives was forwarded by xvs.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::binaries::binary;
use crate::command::{Finished, run};
use crate::counters::Counters;
use crate::listing::stats_from_listing;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::table::{Row, rows_from_listing};

/// From the start of `xvs` until packets can flow.
const READY_LIMIT: Duration = Duration::from_secs(15);

/// The variable that tells all tools where the director is.
const SOCKET_VARIABLE: &str = "XVS_SOCKET";

/// The machine that balances.
#[derive(Debug)]
pub struct Director {
    namespace: Arc<Namespace>,
    interfaces: Vec<&'static str>,
    queues: u32,
    directory: PathBuf,
    starts: Cell<u32>,
}

impl Director {
    pub(crate) fn new(namespace: Arc<Namespace>, one_arm: bool, queues: u32, directory: &Path) -> Self {
        let interfaces = if one_arm { vec!["eth0"] } else { vec!["eth0", "eth1"] };
        Director { namespace, interfaces, queues, directory: directory.to_owned(), starts: Cell::new(0) }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn shared_namespace(&self) -> Arc<Namespace> {
        self.namespace.clone()
    }

    /// Its interfaces: the client side first.
    pub fn interfaces(&self) -> &[&'static str] {
        &self.interfaces
    }

    /// Where the control socket is.
    pub fn control(&self) -> PathBuf {
        self.directory.join("xvs.sock")
    }

    /// A configuration for this machine without any service; services may be appended as text.
    pub fn site(&self) -> String {
        let interface = |name: &&str| format!("[[interface]]\nname = \"{name}\"\nqueues = {}\n", self.queues);
        let interfaces: Vec<_> = self.interfaces.iter().map(interface).collect();
        // A small table starts fast; no story opens more connections.
        format!("[connections]\ncapacity = 65536\n\n{}\n", interfaces.join("\n"))
    }

    /// Starts `xvs run` with this configuration and waits until packets can flow.
    pub fn start(&self, configuration: &str) -> Result<Running> {
        self.start_with_words(configuration, &[])
    }

    /// The same, with more words on its command line.
    pub(crate) fn start_with_words(&self, configuration: &str, words: &[&str]) -> Result<Running> {
        let path = self.write(configuration)?;
        let config = ["--config".as_ref(), path.as_os_str()];
        let words: Vec<&OsStr> = config.into_iter().chain(words.iter().map(OsStr::new)).collect();
        self.start_with(&words, path.clone())
    }

    /// Starts `xvs run` without a configuration file, on all interfaces.
    pub fn start_bare(&self) -> Result<Running> {
        let words: Vec<&OsStr> =
            self.interfaces.iter().flat_map(|name| ["--interface".as_ref(), OsStr::new(name)]).collect();
        self.start_with(&words, self.directory.join("site.toml"))
    }

    fn start_with(&self, words: &[&OsStr], configuration: PathBuf) -> Result<Running> {
        let number = self.starts.get() + 1;
        self.starts.set(number);
        let control = self.control();
        let mut command = self.namespace.command(binary("xvs")?);
        command.arg("run").args(words).arg("--control").arg(&control);
        let mut process = Process::start(&format!("xvs-{number}"), &mut command, &self.directory)?;
        let deadline = Instant::now() + READY_LIMIT;
        // A killed director leaves its socket file behind, so that somebody listens is what counts.
        while UnixStream::connect(&control).is_err() {
            if let Some(status) = process.ended() {
                bail!("`xvs run` ended at once ({status}): {}", last_line(&process.log()));
            }
            if Instant::now() > deadline {
                bail!("`xvs run` did not become ready within {READY_LIMIT:?}: {}", last_line(&process.log()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Running { process, namespace: self.namespace.clone(), control, configuration, number })
    }

    /// Runs `xvs run` with a configuration that must be refused; gives what it said.
    pub fn run_refused(&self, configuration: &str) -> Result<Finished> {
        let (path, control) = (self.write(configuration)?, self.control());
        let program = binary("xvs")?;
        let limit = READY_LIMIT.as_secs().to_string();
        let mut words: Vec<&OsStr> = ["timeout", &limit].map(OsStr::new).to_vec();
        words.extend([program.as_os_str(), "run".as_ref(), "--config".as_ref(), path.as_os_str()]);
        words.extend(["--control".as_ref(), control.as_os_str()]);
        let finished = self.namespace.run(&words)?;
        // The code with which `timeout` says that it had to end the program.
        ensure!(finished.code != Some(124), "`xvs run` did not refuse what it must refuse, and ran");
        Ok(finished)
    }

    /// Runs `xvs check` on a configuration.
    pub fn check(&self, configuration: &str) -> Result<Finished> {
        let path = self.write(configuration)?;
        self.xvs(&["check", &path.to_string_lossy()])
    }

    /// Runs `xvs` with these words, to its end.
    pub fn xvs(&self, words: &[&str]) -> Result<Finished> {
        tool(&self.namespace, "xvs", words, &self.control())
    }

    fn write(&self, configuration: &str) -> Result<PathBuf> {
        let path = self.directory.join("site.toml");
        fs::write(&path, configuration).context("the configuration could not be written")?;
        Ok(path)
    }

    /// True if an XDP program is attached to `interface`.
    pub fn has_xdp(&self, interface: &str) -> Result<bool> {
        let printed = run("ip", &["-netns", self.namespace.name(), "-json", "link", "show", "dev", interface])?.ok()?;
        let links: Value = serde_json::from_str(&printed).context("`ip -json link` printed no JSON")?;
        Ok(!links[0]["xdp"].is_null())
    }

    /// All its addresses, sorted, as `eth0 10.1.0.1/24`.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let printed = run("ip", &["-netns", self.namespace.name(), "-oneline", "address", "show"])?.ok()?;
        let word = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            Some(format!("{} {}", words.get(1)?, words.get(3)?))
        };
        let mut addresses: Vec<_> = printed.lines().filter_map(word).collect();
        addresses.sort();
        Ok(addresses)
    }

    /// Packets that the XDP program of `interface` saw, by receive queue, as the driver counts them.
    pub fn packets_by_queue(&self, interface: &str) -> Result<Vec<u64>> {
        let printed = self.namespace.run(&["ethtool", "-S", interface])?.ok()?;
        let value = |line: &str| {
            let (name, value) = line.trim().split_once(": ")?;
            let queue = name.strip_prefix("rx_queue_")?.strip_suffix("_xdp_packets")?;
            Some((queue.parse::<usize>().ok()?, value.parse::<u64>().ok()?))
        };
        let mut queues: Vec<_> = printed.lines().filter_map(value).collect();
        queues.sort();
        Ok(queues.into_iter().map(|(_, packets)| packets).collect())
    }

    /// Packets that its kernel forwarded, of both families. Stays 0 if xvs alone forwards.
    pub fn forwarded_by_kernel(&self) -> Result<u64> {
        let printed = self.namespace.run(&["cat", "/proc/net/snmp", "/proc/net/snmp6"])?.ok()?;
        let mut ip_lines = printed.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (ip_lines.next().unwrap_or_default(), ip_lines.next().unwrap_or_default());
        let v4 = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ForwDatagrams");
        let v6 = printed.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let both = number(v4.map(|(_, value)| value)).zip(number(v6));
        both.map(|(v4, v6)| v4 + v6).context("the kernel's counters of forwarded packets could not be read")
    }
}

/// A started `xvs`.
#[derive(Debug)]
pub struct Running {
    process: Process,
    namespace: Arc<Namespace>,
    control: PathBuf,
    configuration: PathBuf,
    /// Which start of the lab it is.
    number: u32,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The file that it was configured with; SIGHUP reads it again.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Runs `xvsadm` with the words of this line; an error if it refused.
    pub fn xvsadm(&self, line: &str) -> Result<String> {
        self.try_xvsadm(line)?.ok()
    }

    /// Runs `xvsadm` with the words of this line, whatever comes of it.
    pub fn try_xvsadm(&self, line: &str) -> Result<Finished> {
        tool(&self.namespace, "xvsadm", &line.split_whitespace().collect::<Vec<_>>(), &self.control)
    }

    /// Runs several lines of `xvsadm`; the first refusal ends it.
    pub fn xvsadm_all<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) -> Result<()> {
        lines.into_iter().try_for_each(|line| self.xvsadm(line.as_ref()).map(drop))
    }

    /// Runs `xvs` with these words; an error if it refused.
    pub fn xvs(&self, words: &[&str]) -> Result<String> {
        tool(&self.namespace, "xvs", words, &self.control)?.ok()
    }

    /// Runs `xvs` with these words, whatever comes of it.
    pub fn try_xvs(&self, words: &[&str]) -> Result<Finished> {
        tool(&self.namespace, "xvs", words, &self.control)
    }

    /// Runs `xvs` with these words, which do not end by themselves, for so long; gives what it printed.
    pub fn for_seconds(&self, seconds: u32, words: &[&str]) -> Result<String> {
        let (program, limit) = (binary("xvs")?, seconds.to_string());
        let mut all: Vec<&OsStr> = ["timeout", &limit].map(OsStr::new).to_vec();
        all.push(program.as_os_str());
        all.extend(words.iter().map(|word| OsStr::new(*word)));
        let finished = self.namespace.run_with(&all, &[(SOCKET_VARIABLE, self.control.as_os_str())])?;
        // The code with which `timeout` says that it had to end the program.
        ensure!(finished.code == Some(124), "{} ended by itself: {}", finished.line, finished.stderr);
        Ok(finished.stdout)
    }

    /// `xvs scheduler WORDS --json`: the director's answer, without its envelope; null if there is nothing to say.
    pub fn scheduler(&self, words: &[&str]) -> Result<Value> {
        let all: Vec<&str> = ["scheduler"].iter().chain(words).chain(&["--json"]).copied().collect();
        let printed = self.xvs(&all)?;
        let json: Value = serde_json::from_str(&printed).with_context(|| format!("no JSON but `{printed}`"))?;
        Ok(json["scheduler"].clone())
    }

    /// `xvsadm -R` with these lines on its standard input.
    pub fn restore(&self, lines: &str) -> Result<()> {
        let program = binary("xvsadm")?;
        let words = [program.as_os_str(), "-R".as_ref()];
        let finished = self.namespace.run_with_input(&words, lines, &[(SOCKET_VARIABLE, self.control.as_os_str())])?;
        finished.ok().map(drop)
    }

    /// `xvs status --json`.
    pub fn status_json(&self) -> Result<Value> {
        serde_json::from_str(&self.xvs(&["status", "--json"])?).context("`xvs status --json` printed no JSON")
    }

    /// Drops by reason.
    pub fn drops(&self) -> Result<Counters> {
        let printed = self.xvs(&["drops", "--json"])?;
        let json: Value = serde_json::from_str(&printed).context("`xvs drops --json` printed no JSON")?;
        Ok(Counters::from_json(&json["drops"]))
    }

    /// The counters of services and servers, from `xvsadm -L -n --stats --exact`.
    pub fn stats(&self) -> Result<Counters> {
        stats_from_listing(&self.xvsadm("-L -n --stats --exact")?)
    }

    /// The connections and templates that `xvsadm -L -c -n` lists.
    pub fn connections(&self) -> Result<Vec<Row>> {
        rows_from_listing(&self.xvsadm("-L -c -n")?)
    }

    /// Rules and drops: all that a story about packets should account for.
    pub fn counters(&self) -> Result<Counters> {
        Ok(self.stats()?.with("drop ", self.drops()?))
    }

    /// Writes another configuration and has it applied by SIGHUP. The caller waits for the effect.
    pub fn reload(&self, configuration: &str) -> Result<()> {
        fs::write(&self.configuration, configuration).context("the configuration could not be written")?;
        self.process.signal(Signal::SIGHUP)
    }

    /// True while it runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Leaves it running when this value and this process are gone.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Ends it by SIGTERM and gives its exit status.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Kills it without a chance to clean up.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.process.kill()
    }
}

impl Drop for Running {
    /// Writes down what the director knew at its end: a story that fails is told from there.
    fn drop(&mut self) {
        if self.process.ended().is_some() {
            return;
        }
        let asked = [("xvs", vec!["status"]), ("xvs", vec!["drops"]), ("xvsadm", vec!["-L", "-n", "--stats"])];
        let said = asked.iter().map(|(program, words)| match tool(&self.namespace, program, words, &self.control) {
            Ok(finished) => format!("# {}\n{}{}\n", finished.line, finished.stdout, finished.stderr),
            Err(error) => format!("{error:#}\n"),
        });
        let text: String = said.collect();
        let directory = self.control.parent().unwrap_or(Path::new("/tmp"));
        let _ = fs::write(directory.join(format!("xvs-{}-at-its-end.log", self.number)), text);
    }
}

fn tool(namespace: &Namespace, program: &str, words: &[&str], control: &Path) -> Result<Finished> {
    let program = binary(program)?;
    let mut all: Vec<&OsStr> = vec![program.as_os_str()];
    all.extend(words.iter().map(|word| OsStr::new(*word)));
    namespace.run_with(&all, &[(SOCKET_VARIABLE, control.as_os_str())])
}

fn last_line(log: &str) -> &str {
    log.trim_end().lines().last().unwrap_or("it logged nothing")
}
