//! The files of IPVS below `/proc/net`, as text: dashboards and exporters read them.
//!
//! Addresses, ports and totals are hexadecimal there, persistence is in jiffies, and IPv6 services do not tell that
//! they are one-packet services (IPVS-REFERENCE 5.2). Invariant: a function of the director's answer, to the byte what
//! the kernel prints for the same rules, connections and counters, but for the order, which is that of its hash tables
//! there and that of making here.
//!
//! Not here: `ip_vs_stats_percpu`, whose CPUs would be workers, and `ip_vs_app`: there are no helpers.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::listing::{IPVS_VERSION, method_name};
use crate::control::protocol::{Action, Answer, Connection, Mask, Protocol, ServiceId, ServiceSpec, Services, Stats};

/// Jiffies in a second: what Debian's kernels have.
const HZ: u64 = 250;

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `ip_vs`: the rules.
    Rules,
    /// `ip_vs_conn`: the connections.
    Connections,
    /// `ip_vs_conn_sync`: the connections, and where they come from.
    Origins,
    /// `ip_vs_stats`: totals and rates.
    Totals,
}

impl File {
    /// The names of all files.
    pub const NAMES: [&str; 4] = ["ip_vs", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats"];

    /// The file of this name.
    pub fn by_name(name: &str) -> Option<File> {
        let at = File::NAMES.iter().position(|known| *known == name)?;
        [File::Rules, File::Connections, File::Origins, File::Totals].get(at).copied()
    }

    /// What the director is asked for it.
    pub fn question(self) -> Action {
        match self {
            File::Rules | File::Totals => Action::Services(None),
            File::Connections | File::Origins => Action::Connections,
        }
    }

    /// The file's text; none if the answer is to another question.
    pub fn text(self, answer: &Answer) -> Option<String> {
        match (self, answer) {
            (File::Rules, Answer::Services(services)) => Some(rules(services)),
            (File::Totals, Answer::Services(services)) => Some(totals(&services.totals)),
            (File::Connections, Answer::Connections(table)) => Some(connections(table)),
            (File::Origins, Answer::Connections(table)) => Some(origins(table)),
            _ => None,
        }
    }
}

fn rules(services: &Services) -> String {
    let mut out = format!(
        "IP Virtual Server version {IPVS_VERSION} (size={})\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
        services.size
    );
    for service in &services.services {
        out += &rule(&service.spec);
        for server in &service.servers {
            let (address, method) = (endpoint(server.spec.address), method_name(server.spec.method));
            let (weight, active, inactive) = (server.spec.weight, server.active, server.inactive);
            // Writing to a string cannot fail.
            let _ = writeln!(out, "  -> {address}      {method:<7} {weight:<6} {active:<10} {inactive:<10}");
        }
    }
    out
}

fn rule(spec: &ServiceSpec) -> String {
    let ops = if spec.one_packet { "ops " } else { "" };
    let scheduler = &spec.scheduler;
    let mut line = match spec.id {
        ServiceId::Mark { mark, .. } => format!("FWM  {mark:08X} {scheduler} {ops}"),
        ServiceId::Address { protocol, address } => {
            let name = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            match address {
                SocketAddr::V4(_) => format!("{name}  {} {scheduler} {ops} ", endpoint(address)),
                SocketAddr::V6(_) => format!("{name}  {} {scheduler} ", endpoint(address)),
            }
        }
    };
    if let Some(persistence) = spec.persistence {
        let mask = match persistence.mask {
            Mask::Dotted(mask) => u32::from(mask),
            // A length where a mask would be, read in network order.
            Mask::Prefix(length) => u32::from(length).swap_bytes(),
        };
        line += &format!("persistent {} {mask:08X}", u64::from(persistence.timeout_s) * HZ);
    }
    line + "\n"
}

fn address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => format!("{:08X}", u32::from(v4)),
        IpAddr::V6(v6) => v6.segments().map(|word| format!("{word:04x}")).join(":"),
    }
}

fn endpoint(end: SocketAddr) -> String {
    match end {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from(*v4.ip()), v4.port()),
        SocketAddr::V6(_) => format!("[{}]:{:04X}", address(end.ip()), end.port()),
    }
}

/// The beginning of a connection's row, which both of its files have.
fn row(connection: &Connection) -> String {
    let end = |end: SocketAddr| format!("{} {:04X}", address(end.ip()), end.port());
    let (client, target) = (end(connection.client), end(connection.virtual_address));
    let (protocol, _) = super::connections::protocol(connection.protocol);
    format!("{protocol:<3} {client} {target} {} {:<11}", end(connection.server), connection.state)
}

fn connections(table: &[Connection]) -> String {
    let line = |connection: &Connection| {
        let engine = connection.engine.as_ref().map_or(String::new(), |(name, data)| format!(" {name} {data}"));
        format!("{} {:>7}{engine}\n", row(connection), connection.expires_s)
    };
    let titles = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
    titles.to_owned() + &table.iter().map(line).collect::<String>()
}

/// No connection was told by another director.
fn origins(table: &[Connection]) -> String {
    let line = |connection: &Connection| format!("{} {:<6} {:>7}\n", row(connection), "LOCAL", connection.expires_s);
    let titles = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
    titles.to_owned() + &table.iter().map(line).collect::<String>()
}

fn totals(stats: &Stats) -> String {
    let Stats { conns, in_packets, out_packets, in_bytes, out_bytes, cps, in_pps, out_pps, in_bps, out_bps } = stats;
    format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n\
         {conns:>8X} {in_packets:>8X} {out_packets:>8X} {in_bytes:>16X} {out_bytes:>16X}\n\n \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
         {cps:>8X} {in_pps:>8X} {out_pps:>8X} {in_bps:>16X} {out_bps:>16X}\n"
    )
}
