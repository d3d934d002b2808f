//! What the director serves in the soak, as a document for `xvs run` and `xvs apply`.
//!
//! Invariant: the servers of steady services stay for the whole time, with weights above 0; only those of [`Dynamic`]
//! come and go.

use std::fmt::Write;
use std::net::SocketAddr;

use xvs_tests::{Family, Lab, Method, Service};

/// Real servers of the lab: rs1 to rs3 stay, rs4 is torn away, rs5 is drained; rs6 is for services that come and go.
pub(crate) const REAL_SERVERS: usize = 6;

/// Closed connections are forgotten soon, so that the table reaches its level within the first minute.
const TIMEOUTS: &str = "[timeouts]\ntcpfin = 10\ntime_wait = 10\nclose = 5\nudp = 10\n\n";

/// A service that is there all the time.
#[derive(Debug, Clone)]
pub(crate) struct Steady {
    /// VIP and port.
    pub(crate) service: Service,
    protocol: &'static str,
    scheduler: &'static str,
    servers: Vec<(SocketAddr, Method)>,
}

/// What comes and goes; a document has it or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dynamic {
    /// rs5 serves the drained service.
    pub(crate) drained: bool,
    /// rs4 serves the torn service.
    pub(crate) torn: bool,
    /// There is one service more.
    pub(crate) extra: bool,
}

impl Dynamic {
    /// All servers, and no service more: how the soak begins.
    pub(crate) const ALL: Dynamic = Dynamic { drained: true, torn: true, extra: false };
    /// The other way round.
    pub(crate) const NONE: Dynamic = Dynamic { drained: false, torn: false, extra: true };
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Site {
    machine: String,
    /// TCP by NAT, IPv4, under weights and schedulers that change.
    pub(crate) nat: Steady,
    /// TCP by direct routing, IPv4.
    pub(crate) dr: Steady,
    /// TCP by tunnel, IPv6.
    pub(crate) tun: Steady,
    /// UDP by NAT, IPv4.
    pub(crate) udp: Steady,
    /// TCP by NAT: its second server is drained, removed and added again.
    pub(crate) drained: Steady,
    /// TCP by NAT: its second server is removed without a drain and added again.
    pub(crate) torn: Steady,
    extra: Steady,
}

impl Site {
    /// In this lab. No two services by NAT share a server's port: the client's kernel takes one port for connections to
    /// two VIPs, and a server that is reached by NAT could not tell these apart, whatever balances.
    pub(crate) fn new(lab: &Lab) -> Self {
        let steady = |protocol, vip: usize, family, port, scheduler, method, (at, servers): (u16, &[usize])| {
            let address = lab.vip(vip).socket(family, port);
            let service = if protocol == "udp" { Service::udp(address) } else { Service::tcp(address) };
            let server = |number: &usize| (lab.server(*number).address().socket(family, at), method);
            Steady { service, protocol, scheduler, servers: servers.iter().map(server).collect() }
        };
        Site {
            machine: format!("{TIMEOUTS}{}", lab.director().site()),
            nat: steady("tcp", 0, Family::V4, 80, "wrr", Method::Nat, (80, &[1, 2])),
            dr: steady("tcp", 1, Family::V4, 80, "wlc", Method::Dr, (80, &[1, 3])),
            tun: steady("tcp", 2, Family::V6, 80, "rr", Method::Tun, (80, &[2, 3])),
            udp: steady("udp", 3, Family::V4, 5353, "rr", Method::Nat, (5353, &[1, 2, 3])),
            drained: steady("tcp", 4, Family::V4, 80, "rr", Method::Nat, (8080, &[1, 5])),
            torn: steady("tcp", 5, Family::V4, 80, "rr", Method::Nat, (8081, &[3, 4])),
            extra: steady("tcp", 7, Family::V4, 8081, "lc", Method::Nat, (8081, &[6])),
        }
    }

    /// The document that asks for this.
    pub(crate) fn document(&self, dynamic: &Dynamic) -> String {
        let mut text = self.machine.clone();
        for steady in [&self.nat, &self.dr, &self.tun, &self.udp] {
            steady.write(&mut text, steady.servers.len());
        }
        self.drained.write(&mut text, 1 + usize::from(dynamic.drained));
        self.torn.write(&mut text, 1 + usize::from(dynamic.torn));
        if dynamic.extra {
            self.extra.write(&mut text, 1);
        }
        text
    }
}

impl Steady {
    /// A server of it.
    pub(crate) fn server(&self, index: usize) -> SocketAddr {
        self.servers[index].0
    }

    fn write(&self, text: &mut String, servers: usize) {
        let Steady { service, protocol, scheduler, .. } = self;
        let address = service.address();
        // Writing to a string can not fail.
        let _ = writeln!(text, "[[service]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"");
        let _ = writeln!(text, "scheduler = \"{scheduler}\"");
        for (server, method) in self.servers.iter().take(servers) {
            let method = method.name().to_lowercase();
            let _ = writeln!(text, "[[service.server]]\naddress = \"{server}\"\nmethod = \"{method}\"\nweight = 1");
        }
    }
}
