//! A client: a namespace in which curl and our peer ask.
//!
//! Invariant: every request is counted, answered or failed; a request that never ends is a failure after a few seconds.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::addresses::Pair;
use crate::answers::Answers;
use crate::binaries::binary;
use crate::flow::Flow;
use crate::load::Load;
use crate::namespace::Namespace;
use crate::server::checksum;

/// What curl prints after each request; the name of the server comes from nginx's header.
const REPORT: &str = "%{http_code} %{exitcode} %header{x-server} %{errormsg}\\n";

/// Seconds that curl waits for a connection, and for a whole request or transfer.
const LIMITS: [&str; 4] = ["--connect-timeout", "5", "--max-time", "90"];

/// Ports that UDP asks from: below those that the kernel gives by itself.
const PORTS: Range<usize> = 12_000..32_000;
/// The next of them.
static FREE_PORT: AtomicUsize = AtomicUsize::new(PORTS.start);

/// A machine that asks.
#[derive(Debug)]
pub struct Client {
    namespace: Arc<Namespace>,
    address: Pair,
    directory: PathBuf,
}

/// An upload that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The server that took it.
    pub server: String,
}

impl Client {
    pub(crate) fn new(namespace: Arc<Namespace>, address: Pair, directory: &Path) -> Self {
        Client { namespace, address, directory: directory.to_owned() }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its addresses (CIP).
    pub fn address(&self) -> Pair {
        self.address
    }

    /// Asks `count` times by curl, one after the other, each time over a new connection.
    pub fn curl_n(&self, url: &str, count: usize) -> Result<Answers> {
        // After a failure the others would fail too, each after its whole time limit.
        self.curl(url, count, &["--fail-early"])
    }

    /// Asks `count` times by curl, over so many connections at the same time.
    pub fn curl_parallel(&self, url: &str, count: usize) -> Result<Answers> {
        self.curl(url, count, &["--parallel", "--parallel-immediate", "--parallel-max", &count.to_string()])
    }

    /// Asks once by curl, from this port.
    pub fn curl_from(&self, port: u16, url: &str) -> Result<Answers> {
        self.curl(url, 1, &["--local-port", &port.to_string()])
    }

    fn curl(&self, url: &str, count: usize, more: &[&str]) -> Result<Answers> {
        // curl's own counter makes one process ask many times; curl knows the brackets of an IPv6 address from those.
        let urls = format!("{url}?[1-{count}]");
        let mut words = vec!["curl", "--silent", "--output", "/dev/null", "--header", "Connection: close"];
        words.extend(LIMITS);
        words.extend(more);
        words.extend(["--write-out", REPORT, &urls]);
        let finished = self.namespace.run(&words)?;
        let mut answers = Answers::default();
        finished.stdout.lines().for_each(|line| count_report(&mut answers, line));
        let reported = (answers.total() + answers.failed_total()) as usize;
        if reported == 0 {
            answers.failed(format!("curl gave no report ({}) {}", finished.outcome(), finished.stderr.trim()));
        }
        answers.given_up(count.saturating_sub(reported.max(1)));
        Ok(answers)
    }

    /// Downloads by curl and gives the SHA-256 of what came.
    pub fn download(&self, url: &str) -> Result<String> {
        let path = self.directory.join("downloaded");
        let target = path.to_string_lossy();
        let mut words = vec!["curl", "--silent", "--show-error", "--fail", "--globoff", "--output", &target];
        words.extend(LIMITS);
        words.push(url);
        self.namespace.run(&words)?.ok()?;
        let sum = checksum(&path);
        let _ = fs::remove_file(&path);
        sum
    }

    /// Uploads a file by curl (PUT).
    pub fn upload(&self, path: &Path, url: &str) -> Result<Upload> {
        let file = path.to_string_lossy();
        let mut words = vec!["curl", "--silent", "--show-error", "--fail", "--globoff", "--upload-file", &file];
        words.extend(LIMITS);
        words.extend(["--header", "Expect:", "--write-out", "%header{x-server}", url]);
        let server = self.namespace.run(&words)?.ok()?;
        Ok(Upload { server: server.trim().to_owned() })
    }

    /// Asks by UDP: from `sockets` sockets one after the other, each `asks` times with a payload of `size` bytes. All
    /// answers to one socket must come from the same server, else they count as failures. No socket has the port of an
    /// earlier one, whose connection the director may remember, before all ports have had their turn.
    pub fn udp(&self, to: SocketAddr, sockets: usize, asks: usize, size: usize) -> Result<Answers> {
        self.ask_by_udp(to, sockets, asks, size, &[])
    }

    /// As [`Client::udp`], with every question in fragments, of which the last one is sent first.
    pub fn udp_reversed(&self, to: SocketAddr, sockets: usize, asks: usize, size: usize) -> Result<Answers> {
        self.ask_by_udp(to, sockets, asks, size, &["--reversed"])
    }

    fn ask_by_udp(&self, to: SocketAddr, sockets: usize, asks: usize, size: usize, words: &[&str]) -> Result<Answers> {
        ensure!(sockets <= PORTS.len(), "{sockets} sockets, and there are ports for {}", PORTS.len());
        let place = |next: usize| if next + sockets > PORTS.end { PORTS.start } else { next };
        let first =
            FREE_PORT.fetch_update(Relaxed, Relaxed, |next| Some(place(next) + sockets)).map_or_else(place, place);
        let numbers = [first, sockets, asks, size].map(|number| number.to_string());
        let [first, sockets, asks, size] = &numbers;
        let to = to.to_string();
        let mut all = vec!["udp", &to, "--first-port", first, "--sockets", sockets, "--asks", asks, "--size", size];
        all.extend(words);
        self.peer(&all)
    }

    /// Asks a DNS server so often for the text of a name, always from the same port; the text is who answered.
    pub fn dns(&self, to: SocketAddr, name: &str, asks: usize) -> Result<Answers> {
        self.peer(&["dns", &to.to_string(), "--name", name, "--asks", &asks.to_string()])
    }

    /// Makes file transfers of `size` bytes over one control connection to `to`; the server opens the connections for
    /// data if `active`. Only what the server of the control connection gave back unchanged counts as answered.
    pub fn files(&self, to: SocketAddr, transfers: usize, size: usize, active: bool) -> Result<Answers> {
        let (to, numbers) = (to.to_string(), [transfers, size].map(|number| number.to_string()));
        let mut words = vec!["files", &to, "--transfers", &numbers[0], "--size", &numbers[1]];
        words.extend(active.then_some("--active"));
        self.peer(&words)
    }

    /// Opens so many SCTP associations, from this port and the following ones, and asks over each; they stay open, or are
    /// shut down.
    pub fn sctp(&self, to: SocketAddr, first_port: u16, associations: usize, shut_down: bool) -> Result<Answers> {
        let (to, first, associations) = (to.to_string(), first_port.to_string(), associations.to_string());
        let mut words = vec!["sctp", &to, "--first-port", &first, "--associations", &associations];
        words.extend(shut_down.then_some("--shut-down"));
        self.peer(&words)
    }

    /// Opens `count` TCP connections, holds all of them open at the same time, and asks once over each.
    pub fn hold(&self, to: SocketAddr, count: usize) -> Result<Answers> {
        self.peer(&["hold", &to.to_string(), "--connections", &count.to_string()])
    }

    /// Puts a UDP question into a tunnel to the real server at `server`, as a director would. For the lab's own test.
    pub fn ask_through_tunnel(&self, server: std::net::IpAddr, to: SocketAddr) -> Result<Answers> {
        self.peer(&["tunnel", &self.address.to_text(to), &to.to_string(), "--server", &server.to_string()])
    }

    /// Sends so many numbered UDP packets over one socket, one each `pace`, and tells which of them came back.
    pub fn flow(&self, to: SocketAddr, packets: u64, pace: Duration) -> Result<Flow> {
        let (to, packets, pace) = (to.to_string(), packets.to_string(), pace.as_micros().to_string());
        self.peer(&["flow", &to, "--packets", &packets, "--pace-us", &pace])
    }

    fn peer<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        let program = binary("xvs-peer")?;
        let program = program.to_string_lossy();
        let mut all = vec![program.as_ref()];
        all.extend(words);
        let printed = self.namespace.run(&all)?.ok()?;
        serde_json::from_str(&printed).with_context(|| format!("the peer printed no counts but `{printed}`"))
    }

    /// Keeps asking over new connections, `parallel` at a time, until told to stop.
    pub fn keep_asking(&self, to: SocketAddr, parallel: usize) -> Result<Load> {
        self.load(&["ask", &to.to_string(), "--parallel", &parallel.to_string()])
    }

    /// Keeps `count` connections open and asks over each again and again, until told to stop. A connection that breaks
    /// or changes its server counts as a failure.
    pub fn keep_connections(&self, to: SocketAddr, count: usize) -> Result<Load> {
        self.load(&["ask", &to.to_string(), "--keep-alive", "--parallel", &count.to_string()])
    }

    fn load(&self, words: &[&str]) -> Result<Load> {
        let mut command = self.namespace.command(binary("xvs-peer")?);
        command.args(words);
        Load::start(command, &self.directory)
    }
}

impl Pair {
    /// The address of the same family as `like`, as text.
    fn to_text(self, like: SocketAddr) -> String {
        if like.is_ipv4() { self.v4.to_string() } else { self.v6.to_string() }
    }
}

fn count_report(answers: &mut Answers, line: &str) {
    let mut words = line.splitn(4, ' ');
    let (status, exit) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (server, message) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match (status, exit) {
        ("200", "0") if !server.is_empty() => answers.answered(server),
        _ => answers.failed(format!("status {status}, curl's exit code {exit} {message}")),
    }
}
