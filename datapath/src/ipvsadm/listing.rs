//! `-L`: services and servers as ipvsadm prints them.
//!
//! Invariant: a function of the director's answer, the format and the names; to the byte what ipvsadm 1.31 prints for
//! the same rules and counters, its signed marks and its cut names among it. Not kept: per-server counters that wrap at
//! 2^32.
//!
//! Not here: the connection table ([`super::connections`]) and the rules as commands ([`super::save`]).

use std::fmt::Write;
use std::net::IpAddr;

use super::command::{Columns, Format};
use super::names::Names;
use super::numbers::{counter, cut, endpoint};
use super::sort;
use crate::control::protocol::{
    Family, Mask, Method, Persistence, Protocol, SchedFlags, Server, Service, ServiceId, Services, Stats, Timeouts,
    Tunnel, TunnelChecksum,
};

/// The version of IPVS whose behaviour this is.
pub const IPVS_VERSION: &str = "1.2.1";

/// ipvsadm's buffer for an endpoint, without the final NUL.
pub const ENDPOINT_MAX: usize = 59;

/// Where ipvsadm cuts the name of an IPv4 service, and of an IPv4 server.
const SERVICE_WIDTH: usize = 33;
const SERVER_WIDTH: usize = 28;

/// Every service, under the line that names the version and the size of the connection table.
pub fn all(services: &Services, format: &Format, names: &dyn Names) -> String {
    let mut out = format!("IP Virtual Server version {IPVS_VERSION} (size={})\n", services.size);
    out += title(format.columns);
    let sorted = if format.unsorted { services.services.iter().collect() } else { sort::services(&services.services) };
    for service in sorted {
        self::service(&mut out, service, format, names);
    }
    out
}

/// One service.
pub fn one(service: &Service, format: &Format, names: &dyn Names) -> String {
    let mut out = title(format.columns).to_owned();
    self::service(&mut out, service, format, names);
    out
}

/// The timeouts.
pub fn timeouts(timeouts: &Timeouts) -> String {
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", timeouts.tcp, timeouts.tcpfin, timeouts.udp)
}

fn title(columns: Columns) -> &'static str {
    match columns {
        Columns::Rules => {
            "Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        Columns::TunInfo => {
            "Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
        Columns::Stats => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n\
             \x20 -> RemoteAddress:Port\n"
        }
        Columns::Rate => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n\
             \x20 -> RemoteAddress:Port\n"
        }
        Columns::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n\
             \x20 -> RemoteAddress:Port\n"
        }
        Columns::PersistentConn => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n\
             \x20 -> RemoteAddress:Port\n"
        }
    }
}

fn service(out: &mut String, service: &Service, format: &Format, names: &dyn Names) {
    let name = service_name(&service.spec.id, format.numeric, names);
    let numbers = |counters: [u64; 5]| counters.map(|value| counter(value, format.exact)).concat();
    // Writing to a string cannot fail.
    let _ = match format.columns {
        Columns::Stats => writeln!(out, "{name:<SERVICE_WIDTH$}{}", numbers(totals(&service.stats))),
        Columns::Rate => writeln!(out, "{name:<SERVICE_WIDTH$}{}", numbers(rates(&service.stats))),
        _ => writeln!(out, "{name} {}", attributes(service)),
    };
    let sorted = if format.unsorted { service.servers.iter().collect() } else { sort::servers(&service.servers) };
    for server in sorted {
        self::server(out, server, port_protocol(&service.spec.id), format, names);
    }
}

fn totals(stats: &Stats) -> [u64; 5] {
    [stats.conns, stats.in_packets, stats.out_packets, stats.in_bytes, stats.out_bytes]
}

fn rates(stats: &Stats) -> [u64; 5] {
    [stats.cps, stats.in_pps, stats.out_pps, stats.in_bps, stats.out_bps]
}

/// The protocol by which ports have names: none for a mark, which counts for all.
pub(super) fn port_protocol(id: &ServiceId) -> Option<Protocol> {
    match id {
        ServiceId::Address { protocol, .. } => Some(*protocol),
        ServiceId::Mark { .. } => None,
    }
}

fn service_name(id: &ServiceId, numeric: bool, names: &dyn Names) -> String {
    match id {
        // ipvsadm prints marks as signed numbers.
        ServiceId::Mark { mark, family: Family::Inet } => format!("FWM  {}", mark.cast_signed()),
        ServiceId::Mark { mark, family: Family::Inet6 } => format!("FWM  {} IPv6", mark.cast_signed()),
        ServiceId::Address { protocol, address } => {
            let protocol_name = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            let name = endpoint(*address, Some(*protocol), numeric, names);
            let name = format!("{protocol_name:<4} {}", cut(&name, ENDPOINT_MAX));
            cut_for(address.ip(), &name, SERVICE_WIDTH)
        }
    }
}

/// Names of IPv4 endpoints are cut; those of IPv6 push the columns to the right.
fn cut_for(address: IpAddr, name: &str, width: usize) -> String {
    if address.is_ipv4() { cut(name, width).to_owned() } else { name.to_owned() }
}

/// What stands behind a service's name: scheduler, flags, persistence.
fn attributes(service: &Service) -> String {
    let spec = &service.spec;
    let mut out = spec.scheduler.clone();
    let flags = flag_names(&spec.scheduler, spec.flags).join(",");
    if !flags.is_empty() {
        out += &format!(" ({flags})");
    }
    if let Some(persistence) = spec.persistence {
        out += &format!(" persistent {}", persistence.timeout_s);
        if let Some(mask) = mask(persistence, spec.id.family()) {
            out += &format!(" mask {mask}");
        }
        if let Some(engine) = &spec.engine {
            out += &format!(" pe {engine}");
        }
    }
    if spec.one_packet {
        out += " ops";
    }
    out
}

/// The mask of a persistent service, unless it is the whole address.
pub(super) fn mask(persistence: Persistence, family: Family) -> Option<String> {
    Some(persistence.mask).filter(|mask| *mask != Mask::full(family)).map(|mask| mask.to_string())
}

/// A scheduler's flags, by its own names for them if it has any.
pub(super) fn flag_names(scheduler: &str, flags: SchedFlags) -> Vec<&'static str> {
    let [one, two] = match scheduler {
        "sh" => ["sh-fallback", "sh-port"],
        "mh" => ["mh-fallback", "mh-port"],
        _ => ["flag-1", "flag-2"],
    };
    let all = [(flags.one, one), (flags.two, two), (flags.three, "flag-3")];
    all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

fn server(out: &mut String, server: &Server, protocol: Option<Protocol>, format: &Format, names: &dyn Names) {
    let address = server.spec.address;
    let name = endpoint(address, protocol, format.numeric, names);
    let name = cut_for(address.ip(), cut(&name, ENDPOINT_MAX), SERVER_WIDTH);
    let _ = write!(out, "  -> {name:<SERVER_WIDTH$}");
    let Server { spec, active, inactive, persistent, .. } = server;
    let weight = spec.weight;
    let cell = |value: u64| counter(value, format.exact);
    let _ = match format.columns {
        Columns::Stats => writeln!(out, "{}", totals(&server.stats).map(cell).concat()),
        Columns::Rate => {
            // Connections and packets are never shortened here, as everywhere else.
            let [cps, in_pps, out_pps, in_bps, out_bps] = rates(&server.stats);
            writeln!(out, " {cps:>8} {in_pps:>8} {out_pps:>8}{}{}", cell(in_bps), cell(out_bps))
        }
        Columns::Thresholds => {
            writeln!(out, " {:<10} {:<10} {active:<10} {inactive:<10}", spec.upper, spec.lower)
        }
        Columns::PersistentConn => writeln!(out, " {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"),
        Columns::TunInfo => {
            let (method, tunnel) = (method_name(spec.method), tunnel_info(spec.method));
            writeln!(out, " {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        Columns::Rules => {
            writeln!(out, " {:<7} {weight:<6} {active:<10} {inactive:<10}", method_name(spec.method))
        }
    };
}

pub(super) fn method_name(method: Method) -> &'static str {
    match method {
        Method::Nat => "Masq",
        Method::Dr => "Route",
        Method::Tun(_) => "Tunnel",
    }
}

fn tunnel_info(method: Method) -> String {
    let checksum = |checksum| match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match method {
        Method::Nat | Method::Dr => "n/a".to_owned(),
        Method::Tun(Tunnel::Ipip) => "ipip".to_owned(),
        Method::Tun(Tunnel::Gue { port, checksum: sum }) => format!("gue:{port}:{}", checksum(sum)),
        Method::Tun(Tunnel::Gre { checksum: sum }) => format!("gre:{}", checksum(sum)),
    }
}
