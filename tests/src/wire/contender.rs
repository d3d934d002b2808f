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
use super::kernel::{Manner, Rules};
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
    /// xvs by NAT with busy polling: a worker that never sleeps, and so is never waited for.
    XvsSpinning,
    /// xvs by NAT whose worker stays awake for a moment after each packet.
    XvsLingering,
    /// The kernel's nftables.
    Nft,
    /// The kernel's nftables with GRO, GSO and TSO off at the director: every packet is one of the wire's size, as it is
    /// for all others. A veth without GRO takes no frames of the generator, so there are only streams.
    NftBare,
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
            Contender::XvsSpinning => "xvs NAT, spinning",
            Contender::XvsLingering => "xvs NAT, lingering",
            Contender::Nft => "nftables",
            Contender::NftBare => "nftables, no offloads",
            Contender::NftRps => "nftables, RPS",
            Contender::Haproxy => "haproxy",
            Contender::Testpmd => "testpmd",
        }
    }

    /// Can it be flooded? haproxy forwards what packets carry and not packets; the other one has no way in for them.
    pub fn takes_floods(self) -> bool {
        !matches!(self, Contender::Haproxy | Contender::NftBare)
    }

    /// Does it make sense with so many queues? On two CPUs with two queues there is none left to spin on or to steer to.
    pub fn suits(self, queues: u32) -> bool {
        queues == 1 || !matches!(self, Contender::XvsSpinning | Contender::XvsLingering | Contender::NftRps)
    }

    /// Do connections end at nginx? Plain forwarding is direct routing with one server.
    pub fn serves_tcp(self) -> bool {
        !matches!(self, Contender::Nobody | Contender::Testpmd | Contender::Xvs(Method::Tun))
    }

    /// Is it xvs, in one way or another?
    pub fn is_xvs(self) -> bool {
        matches!(self, Contender::Xvs(_) | Contender::XvsSpinning | Contender::XvsLingering)
    }

    /// Does it remember connections?
    pub fn knows_connections(self) -> bool {
        self.is_xvs() || matches!(self, Contender::Nft | Contender::NftRps)
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

/// Microseconds that the lingering worker stays awake.
const LINGER_US: u32 = 400;

/// Time for the first ARP and the last line of a log.
const SETTLE: Duration = Duration::from_millis(200);

/// Configuration of a worker that lingers for longer than a round trip and a pause take here.
fn lingering(more: &str) -> String {
    let line = format!("[frames]\nlinger_us = {LINGER_US}\n");
    if more.contains("[frames]") { more.replacen("[frames]\n", &line, 1) } else { format!("{more}\n{line}") }
}

impl Ground {
    /// Lets somebody stand there. `more` is a piece of configuration for xvs.
    pub fn stand(&self, who: Contender, more: &str) -> Result<Standing> {
        let body = match who {
            Contender::Nobody => Body::Forwarder(Box::new(self.forwarder(&["--blackhole"])?)),
            Contender::Plain => Body::Forwarder(Box::new(self.forwarder(&[])?)),
            Contender::Xvs(method) => Body::Xvs(self.xvs(method, more, &[])?),
            Contender::XvsSpinning => Body::Xvs(self.xvs(Method::Nat, more, &["--busy-poll"])?),
            Contender::XvsLingering => Body::Xvs(self.xvs(Method::Nat, &lingering(more), &[])?),
            Contender::Nft => Body::Kernel { _rules: Rules::enter(self, Manner::Usual)? },
            Contender::NftBare => Body::Kernel { _rules: Rules::enter(self, Manner::Bare)? },
            Contender::NftRps => Body::Kernel { _rules: Rules::enter(self, Manner::Rps)? },
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

    fn xvs(&self, method: Method, more: &str, words: &[&str]) -> Result<Running> {
        let interface = |name: &&str| format!("[[interface]]\nname = \"{name}\"\nqueues = {}\n", self.queues());
        let interfaces: String = self.director().interfaces().iter().map(interface).collect();
        let site = format!("[connections]\ncapacity = 2097152\n\n{more}\n{interfaces}");
        let ds = self.director().start_with_words(&site, words)?;
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
