//! A real server: a namespace in which nginx answers by HTTP, and a peer answers UDP and opens tunnels.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::addresses::Pair;
use crate::binaries::binary;
use crate::command::run;
use crate::lab::{FILES_PORTS, SCTP_PORTS, UDP_PORTS, UDP_REVERSED_PORTS};
use crate::namespace::Namespace;
use crate::nginx::Nginx;
use crate::process::{Process, wait_until};

/// nginx and the peer need a few milliseconds; a busy machine may need more.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running real server.
#[derive(Debug)]
pub struct RealServer {
    nginx: Nginx,
    peer: Process,
    name: String,
    address: Pair,
    namespace: Arc<Namespace>,
    directory: PathBuf,
    /// For the names of their logs.
    iperf3_count: AtomicU32,
}

impl RealServer {
    pub(crate) fn start(number: usize, namespace: Arc<Namespace>, address: Pair, directory: &Path) -> Result<Self> {
        let name = format!("rs{number}");
        let nginx = Nginx::start(&name, &namespace, directory)?;
        let mut command = namespace.command(binary("xvs-peer")?);
        command.args(["serve", "--name", &name, "--decapsulate"]);
        let services = [
            ("--udp", UDP_PORTS),
            ("--udp-reversed", UDP_REVERSED_PORTS),
            ("--files", FILES_PORTS),
            ("--sctp", SCTP_PORTS),
        ];
        for (flag, port) in services.iter().flat_map(|(flag, ports)| ports.iter().map(move |port| (flag, port))) {
            command.args([flag, port.to_string().as_str()]);
        }
        let peer = Process::start(&format!("{name}-peer"), &mut command, directory)?;
        Ok(RealServer {
            nginx,
            peer,
            name,
            address,
            namespace,
            directory: directory.to_owned(),
            iperf3_count: AtomicU32::new(1),
        })
    }

    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        wait_until(&format!("nginx of {} starting", self.name), START_LIMIT, || self.nginx.is_ready())?;
        wait_until(&format!("the peer of {} starting", self.name), START_LIMIT, || self.peer.log().contains("ready"))
    }

    /// `rs1`, `rs2` and so on: what it answers with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own addresses (RIP).
    pub fn address(&self) -> Pair {
        self.address
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// SHA-256 of what was uploaded to it as `/upload/NAME`.
    pub fn checksum_of_upload(&self, name: &str) -> Result<String> {
        checksum(&self.directory.join(&self.name).join("upload").join(name))
    }

    /// Starts dnsmasq, which knows a text for one name: this server's own name. It ends with the value.
    pub fn dnsmasq(&self, name: &str) -> Result<Process> {
        let mut command = self.namespace.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--user=root",
            "--pid-file",
            "--conf-file=/dev/null",
        ]);
        command.args(["--no-resolv", "--no-hosts", &format!("--txt-record={name},{}", self.name)]);
        let process = Process::start(&format!("{}-dnsmasq", self.name), &mut command, &self.directory)?;
        wait_until("dnsmasq starting", START_LIMIT, || process.log().contains("started"))?;
        Ok(process)
    }

    /// Starts `iperf3` in server mode on its usual port of this address; it ends with the value. It answers UDP from the
    /// address that the route to the client suggests, so behind direct routing it must be bound to the VIP.
    pub fn iperf3(&self, address: IpAddr) -> Result<Process> {
        let mut command = self.namespace.command("iperf3");
        command.args(["--server", "--forceflush", "--bind", &address.to_string()]);
        let name = format!("{}-iperf3-{}", self.name, self.iperf3_count.fetch_add(1, Ordering::Relaxed));
        let process = Process::start(&name, &mut command, &self.directory)?;
        wait_until("iperf3 starting", START_LIMIT, || process.log().contains("listening"))?;
        Ok(process)
    }
}

/// SHA-256 of a file, as hexadecimal digits.
pub(crate) fn checksum(path: &Path) -> Result<String> {
    let printed = run("sha256sum", &[path])?.ok()?;
    Ok(printed.split_whitespace().next().unwrap_or_default().to_owned())
}
