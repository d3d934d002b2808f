//! A virtual service with its real servers, as the lines of `xvsadm` that make it, and the counters that it shall move.
//!
//! Invariant: a value describes; nothing happens until its lines are given to a director.

use std::net::SocketAddr;

use anyhow::Result;

use crate::addresses::Family;
use crate::director::Running;
use crate::lab::Lab;

/// A forwarding method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Masquerading.
    Nat,
    /// Gatewaying.
    Dr,
    /// Tunnelling.
    Tun,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 3] = [Method::Nat, Method::Dr, Method::Tun];

    /// The flag of `xvsadm`.
    pub fn flag(self) -> &'static str {
        match self {
            Method::Nat => "-m",
            Method::Dr => "-g",
            Method::Tun => "-i",
        }
    }

    /// `NAT`, `DR` or `TUN`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Nat => "NAT",
            Method::Dr => "DR",
            Method::Tun => "TUN",
        }
    }

    /// True if replies pass the director.
    pub fn sees_replies(self) -> bool {
        self == Method::Nat
    }
}

/// A virtual service.
#[derive(Debug, Clone)]
pub struct Service {
    flag: &'static str,
    protocol: &'static str,
    address: SocketAddr,
    /// In place of protocol and address.
    mark: Option<u32>,
    scheduler: String,
    servers: Vec<(SocketAddr, String)>,
}

impl Service {
    /// TCP at this VIP and port.
    pub fn tcp(address: SocketAddr) -> Self {
        Service { flag: "-t", protocol: "TCP", address, mark: None, scheduler: "rr".into(), servers: Vec::new() }
    }

    /// UDP at this VIP and port.
    pub fn udp(address: SocketAddr) -> Self {
        Service { flag: "-u", protocol: "UDP", ..Service::tcp(address) }
    }

    /// SCTP at this VIP and port.
    pub fn sctp(address: SocketAddr) -> Self {
        Service { flag: "--sctp-service", protocol: "SCTP", ..Service::tcp(address) }
    }

    /// What has this mark by the director's rules, such as packets to this address.
    pub fn mark(mark: u32, address: SocketAddr) -> Self {
        Service { mark: Some(mark), ..Service::tcp(address) }
    }

    /// The scheduler and its options, as after `-s`; `rr` if nothing is said.
    pub fn scheduler(mut self, words: &str) -> Self {
        self.scheduler = words.to_owned();
        self
    }

    /// One more real server, with these further words of `xvsadm`.
    pub fn server(mut self, address: SocketAddr, method: Method, words: &str) -> Self {
        self.servers.push((address, format!("{} {words}", method.flag()).trim().to_owned()));
        self
    }

    /// All real servers of a lab, at their addresses of this family and at this port.
    pub fn all_servers(self, lab: &Lab, family: Family, port: u16, method: Method) -> Self {
        let addresses = lab.servers().iter().map(|server| server.address().socket(family, port));
        addresses.fold(self, |service, address| service.server(address, method, ""))
    }

    /// VIP and port; of a mark, such as were named.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How `xvsadm` is told which service: `-t 10.1.0.100:80`, `-f 7`, `-f 7 -6`.
    pub fn key(&self) -> String {
        match self.mark {
            Some(mark) if self.address.is_ipv6() => format!("-f {mark} -6"),
            Some(mark) => format!("-f {mark}"),
            None => format!("{} {}", self.flag, self.address),
        }
    }

    /// How listings name the service: `TCP 10.1.0.100:80`, `FWM 7`, `FWM 7 IPv6`.
    pub fn listed(&self) -> String {
        match self.mark {
            Some(mark) if self.address.is_ipv6() => format!("FWM {mark} IPv6"),
            Some(mark) => format!("FWM {mark}"),
            None => format!("{} {}", self.protocol, self.address),
        }
    }

    /// The lines that make it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("-A {} -s {}", self.key(), self.scheduler)];
        lines.extend(self.servers.iter().map(|(server, words)| format!("-a {} -r {server} {words}", self.key())));
        lines
    }

    /// Makes it.
    pub fn add(&self, director: &Running) -> Result<()> {
        director.xvsadm_all(self.lines())
    }

    /// Takes it away.
    pub fn remove(&self, director: &Running) -> Result<()> {
        director.xvsadm(&format!("-D {}", self.key())).map(drop)
    }

    /// Makes it, does these steps, and takes it away, whatever the steps came to.
    pub fn during<T>(&self, director: &Running, steps: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = self.add(director).and_then(|()| steps());
        let removed = self.remove(director);
        let value = result?;
        removed.map(|()| value)
    }

    /// The complete movement of counters when `conns` connections, evenly spread, carried these packets and bytes:
    /// for the service, and for every server its share.
    pub fn movement(&self, conns: i64, inbound: (i64, i64), outbound: (i64, i64)) -> Vec<(String, i64)> {
        let columns = [
            ("conns", conns),
            ("inpkts", inbound.0),
            ("inbytes", inbound.1),
            ("outpkts", outbound.0),
            ("outbytes", outbound.1),
        ];
        let share = self.servers.len() as i64;
        let names = self.servers.iter().map(|(server, _)| (format!("{} > {server}", self.listed()), share));
        let all = names.chain([(self.listed(), 1)]);
        all.flat_map(|(name, share)| columns.map(|(column, total)| (format!("{name} {column}"), total / share)))
            .filter(|(_, delta)| *delta != 0)
            .collect()
    }
}
