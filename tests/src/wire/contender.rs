//! Those who stand between client and server, one at a time.
//!
//! Invariant: a contender is gone with its value, with rules and settings of the kernel that it needed.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::binaries::binary;
use crate::director::Running;
use crate::process::Process;
use crate::service::{Method, Service};

use super::ground::{Ground, SINK_PORT};
use super::haproxy;
use super::kernel::Rules;
use super::testpmd;
use super::tool::Tool;

/// Who balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// Nobody: all is dropped at the director's door. What generator and wire cost.
    Nobody,
    /// AF_XDP without any logic: the ceiling.
    Plain,
    /// xvs by this method.
    Xvs(Method),
    /// The kernel's nftables.
    Nft,
    /// The kernel's nftables, with RPS to CPU 0: receiving on CPU 1 and forwarding on CPU 0, as AF_XDP has it.
    NftRps,
    /// haproxy, TCP mode.
    Haproxy,
    /// DPDK's testpmd over its AF_XDP driver, without any logic.
    Testpmd,
}

impl Contender {
    /// How tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Nobody => "nobody (drop)",
            Contender::Plain => "plain AF_XDP",
            Contender::Xvs(Method::Dr) => "xvs DR",
            Contender::Xvs(Method::Nat) => "xvs NAT",
            Contender::Xvs(Method::Tun) => "xvs TUN",
            Contender::Nft => "nftables",
            Contender::NftRps => "nftables, RPS",
            Contender::Haproxy => "haproxy",
            Contender::Testpmd => "testpmd",
        }
    }

    /// Does it forward packets, or only what they carry?
    pub fn forwards_packets(self) -> bool {
        self != Contender::Haproxy
    }

    /// Do connections end at nginx? Plain forwarding is direct routing with one server.
    pub fn serves_tcp(self) -> bool {
        !matches!(self, Contender::Nobody | Contender::Testpmd | Contender::Xvs(Method::Tun))
    }

    /// Does it remember connections?
    pub fn knows_connections(self) -> bool {
        matches!(self, Contender::Xvs(_) | Contender::Nft | Contender::NftRps)
    }
}

/// A contender that stands.
#[derive(Debug)]
pub struct Standing {
    who: Contender,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Forwarder(Box<Tool>),
    Xvs(Running),
    Kernel { _rules: Rules },
    Program(Process),
}

/// Time for the first ARP and the last line of a log.
const SETTLE: Duration = Duration::from_millis(200);

impl Ground {
    /// Lets somebody stand there. `more` is a piece of configuration for xvs.
    pub fn stand(&self, who: Contender, more: &str) -> Result<Standing> {
        let body = match who {
            Contender::Nobody => Body::Forwarder(Box::new(self.forwarder(&["--blackhole"])?)),
            Contender::Plain => Body::Forwarder(Box::new(self.forwarder(&[])?)),
            Contender::Xvs(method) => Body::Xvs(self.xvs(method, more)?),
            Contender::Nft | Contender::NftRps => {
                Body::Kernel { _rules: Rules::enter(self, who == Contender::NftRps)? }
            }
            Contender::Haproxy => Body::Program(haproxy::start(self)?),
            Contender::Testpmd => Body::Program(testpmd::start(self)?),
        };
        std::thread::sleep(SETTLE);
        Ok(Standing { who, body })
    }

    fn forwarder(&self, more: &[&str]) -> Result<Tool> {
        let mut command = self.director().namespace().command(binary("xvs-forwarder")?);
        command.arg("--side").arg(format!("eth0={}", self.client_mac()));
        command.arg("--side").arg(format!("eth1={}", self.server_mac()));
        command.args(["--queues", &self.queues().to_string()]).args(more);
        let mut tool = Tool::start("forwarder", &mut command, self.directory())?;
        ensure!(tool.hear()? == "ready", "the forwarder is not ready");
        Ok(tool)
    }

    fn xvs(&self, method: Method, more: &str) -> Result<Running> {
        let interface = |name: &&str| format!("[[interface]]\nname = \"{name}\"\nqueues = {}\n", self.queues());
        let interfaces: String = self.director().interfaces().iter().map(interface).collect();
        let ds = self.director().start(&format!("[connections]\ncapacity = 2097152\n\n{more}\n{interfaces}"))?;
        let rips = self.rips();
        let (vip, address) = (self.vip(), |ip: &str, port: u16| format!("{ip}:{port}").parse());
        let mut services = vec![Service::udp(address(vip, SINK_PORT)?)];
        services.extend([Service::tcp(address(vip, SINK_PORT)?), Service::tcp(address(vip, 80)?)]);
        for service in services {
            let port = service.address().port();
            let servers = rips.iter().map(|rip| address(rip, port)).collect::<Result<Vec<_>, _>>()?;
            ds.xvsadm_all(servers.iter().fold(service, |service, rip| service.server(*rip, method, "")).lines())?;
        }
        // iperf3's control and data connections must meet the same server.
        let iperf3 = Service::tcp(address(vip, 5201)?).server(address(&rips[0], 5201)?, method, "");
        ds.xvsadm_all(iperf3.lines())?;
        Ok(ds)
    }
}

impl Standing {
    /// Who stands there.
    pub fn who(&self) -> Contender {
        self.who
    }

    /// The processes that do its work; none if the kernel does it.
    pub fn pids(&self) -> Vec<u32> {
        match &self.body {
            Body::Forwarder(tool) => vec![tool.pid()],
            Body::Xvs(ds) => vec![ds.pid()],
            Body::Kernel { .. } => Vec::new(),
            Body::Program(process) => vec![process.pid()],
        }
    }

    /// The director, if it is xvs.
    pub fn xvs(&self) -> Option<&Running> {
        match &self.body {
            Body::Xvs(ds) => Some(ds),
            _ => None,
        }
    }

    /// What the forwarder counted, if it is the one.
    pub fn forwarder(&mut self) -> Option<Result<Value>> {
        match &mut self.body {
            Body::Forwarder(tool) => Some(tool.ask()),
            _ => None,
        }
    }
}
