//! `-S`: the rules as commands that make them again.
//!
//! Invariant: restoring what was saved gives the same rules, but for what ipvsadm's format has no room for: the order in
//! which servers were added (they come sorted, so that the greatest address becomes the newest) and, unless asked for,
//! the connection thresholds.
//!
//! Different from ipvsadm: a mark above 2^31 is written as it is typed, not as a negative number that cannot be
//! restored; names are never cut.

use std::fmt::Write;

use super::listing::{flag_names, mask, port_protocol};
use super::names::Names;
use super::numbers::endpoint;
use super::sort;
use crate::control::protocol::{
    Family, Method, Protocol, Server, Service, ServiceId, Services, Tunnel, TunnelChecksum,
};

/// The rules, one command a line.
pub fn rules(services: &Services, numeric: bool, thresholds: bool, names: &dyn Names) -> String {
    let mut out = String::new();
    for service in sort::services(&services.services) {
        let target = target(&service.spec.id, numeric, names);
        out += &add_service(&target, service);
        for server in sort::servers(&service.servers) {
            let name = endpoint(server.spec.address, port_protocol(&service.spec.id), numeric, names);
            out += &add_server(&target, &name, server, thresholds);
        }
    }
    out
}

fn target(id: &ServiceId, numeric: bool, names: &dyn Names) -> String {
    match id {
        ServiceId::Mark { mark, family: Family::Inet } => format!("-f {mark}"),
        ServiceId::Mark { mark, family: Family::Inet6 } => format!("-f {mark} -6"),
        ServiceId::Address { protocol, address } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", endpoint(*address, Some(*protocol), numeric, names))
        }
    }
}

fn add_service(target: &str, service: &Service) -> String {
    let spec = &service.spec;
    let mut line = format!("-A {target} -s {}", spec.scheduler);
    if let Some(persistence) = spec.persistence {
        line += &format!(" -p {}", persistence.timeout_s);
        if let Some(mask) = mask(persistence, spec.id.family()) {
            line += &format!(" -M {mask}");
        }
    }
    if let Some(engine) = &spec.engine {
        line += &format!(" --pe {engine}");
    }
    if spec.one_packet {
        line += " -o";
    }
    let flags = flag_names(&spec.scheduler, spec.flags).join(",");
    if !flags.is_empty() {
        line += &format!(" -b {flags}");
    }
    line + "\n"
}

fn add_server(target: &str, name: &str, server: &Server, thresholds: bool) -> String {
    let spec = &server.spec;
    let method = match spec.method {
        Method::Nat => "-m",
        Method::Dr => "-g",
        Method::Tun(_) => "-i",
    };
    let mut line = format!("-a {target} -r {name} {method} -w {}", spec.weight);
    if let Method::Tun(tunnel) = spec.method {
        line += &self::tunnel(tunnel);
    }
    for (option, value) in [("-x", spec.upper), ("-y", spec.lower)] {
        if thresholds && value != 0 {
            // Writing to a string cannot fail.
            let _ = write!(line, " {option} {value}");
        }
    }
    line + "\n"
}

fn tunnel(tunnel: Tunnel) -> String {
    let checksum = |checksum| match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match tunnel {
        Tunnel::Ipip => " --tun-type ipip".to_owned(),
        Tunnel::Gue { port, checksum: sum } => format!(" --tun-type gue --tun-port {port} {}", checksum(sum)),
        Tunnel::Gre { checksum: sum } => format!(" --tun-type gre {}", checksum(sum)),
    }
}
