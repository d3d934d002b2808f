//! `[[service]]` and its servers, from what is written to what is right.
//!
//! Invariant: what is given back has no problem that was not reported; a service without a key that can be told is
//! judged by the rules that do not ask for one. The rules themselves are `rules.rs`'s.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::desired::{SCHEDULER, ServiceState, read_seconds};
use super::document::{MethodName, Netmask, ServerTable, ServiceTable, TunnelName};
use super::problem::{Problems, quote};
use super::rules::{self, THRESHOLD_MAX};
use crate::control::protocol::{
    Family, Mask, Method, Persistence, Protocol, SchedFlags, ServerSpec, ServiceId, ServiceSpec, Tags, Tunnel,
};

/// The services of a file, in its order.
pub(super) fn read(tables: &[ServiceTable], schedulers: &[&str], problems: &mut Problems<'_>) -> Vec<ServiceState> {
    let mut first = HashMap::new();
    let mut services = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let path = format!("service[{index}]");
        let id = read_id(table, &path, problems);
        if let Some(id) = id {
            let before = *first.entry(id).or_insert(index);
            if before != index {
                let field = if table.mark.is_some() { "mark" } else { "address" };
                let message = format!("{} is service[{before}] already", rules::describe(&id));
                problems.push(format!("{path}.{field}"), message);
            }
        }
        let spec = read_service(table, id, &path, schedulers, problems);
        let servers = read_servers(&table.server, id, &path, problems);
        let mut timeouts = read_seconds(&table.timeouts, &format!("{path}.timeouts"), "is the director's", problems);
        timeouts.retain(|_, seconds| *seconds != 0);
        services.push(ServiceState { spec, timeouts, servers });
    }
    services
}

/// The key of a service; none, and a problem, if it cannot be told.
fn read_id(table: &ServiceTable, path: &str, problems: &mut Problems<'_>) -> Option<ServiceId> {
    match (&table.address, table.mark) {
        (Some(_), Some(_)) => {
            problems.push(format!("{path}.mark"), "a service has an address or a mark, not both");
            None
        }
        (None, None) => {
            let message = "missing: which address, as in \"192.0.2.10:80\"? Or which firewall mark?";
            problems.push(format!("{path}.address"), message);
            None
        }
        (Some(text), None) => {
            if table.family.is_some() {
                problems.push(format!("{path}.family"), "the address tells it: leave family out");
            }
            let address = read_address(text, 0, &format!("{path}.address"), problems)?;
            Some(ServiceId::Address { protocol: table.protocol.unwrap_or(Protocol::Tcp), address })
        }
        (None, Some(mark)) => {
            if table.protocol.is_some() {
                problems.push(format!("{path}.protocol"), "a mark stands for every protocol: leave protocol out");
            }
            let Ok(mark) = u32::try_from(mark) else {
                problems.push(format!("{path}.mark"), format!("{mark} is out of range: 1 to {}", u32::MAX));
                return None;
            };
            Some(ServiceId::Mark { mark, family: table.family.unwrap_or(Family::Inet) })
        }
    }
}

/// An address of the file. Without a port it gets this one.
fn read_address(text: &str, port: u16, path: &str, problems: &mut Problems<'_>) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    let message = format!(
        "{} is no address: write it in figures with its port, as in \"192.0.2.10:80\" or \"[2001:db8::1]:80\"",
        quote(text)
    );
    problems.push(path, message);
    None
}

/// The service itself. Without a key only the rules that do not ask for it are applied.
fn read_service(
    table: &ServiceTable,
    id: Option<ServiceId>,
    path: &str,
    schedulers: &[&str],
    problems: &mut Problems<'_>,
) -> ServiceSpec {
    let scheduler = table.scheduler.clone().unwrap_or_else(|| SCHEDULER.to_owned());
    let flags = table.flags.as_deref().unwrap_or_default().iter().map(String::as_str);
    let flags = rules::flags_by_name(&scheduler, flags).unwrap_or_else(|message| {
        problems.push(format!("{path}.flags"), message);
        SchedFlags::default()
    });
    // A mark is the key that no other value can contradict.
    let family = id.map_or(Family::Inet6, |id| id.family());
    let spec = ServiceSpec {
        id: id.unwrap_or(ServiceId::Mark { mark: 1, family }),
        scheduler,
        flags,
        persistence: read_persistence(table, id, path, problems),
        engine: table.engine.clone(),
        one_packet: table.one_packet.unwrap_or(false),
        fallback: table.fallback.clone(),
        options: Some(table.options.clone()),
    };
    for violation in rules::service_violations(&spec, schedulers) {
        problems.push(format!("{path}.{}", violation.field), violation.message);
    }
    spec.kept()
}

fn read_persistence(
    table: &ServiceTable,
    id: Option<ServiceId>,
    path: &str,
    problems: &mut Problems<'_>,
) -> Option<Persistence> {
    let Some(seconds) = table.persistent else {
        if table.netmask.is_some() {
            let message = "it groups the clients of a persistent service: add persistent, or leave netmask out";
            problems.push(format!("{path}.netmask"), message);
        }
        return None;
    };
    let timeout_s = u32::try_from(seconds).unwrap_or_else(|_| {
        problems.push(format!("{path}.persistent"), rules::bad_persistence(seconds));
        1
    });
    let Some(family) = id.map(|id| id.family()) else {
        // Without a key nobody knows what the number would have to be.
        return Some(Persistence { timeout_s, mask: Mask::full(Family::Inet6) });
    };
    let mask = match &table.netmask {
        None => Ok(Mask::full(family)),
        Some(Netmask::Length(length)) => rules::mask_of_length(*length, family),
        Some(Netmask::Dotted(text)) => {
            let wrong = || format!("{} is not an IPv4 mask such as \"255.255.255.0\"", quote(text));
            text.parse().map(Mask::Dotted).map_err(|_| wrong())
        }
    };
    let mask = mask.unwrap_or_else(|message| {
        problems.push(format!("{path}.netmask"), message);
        Mask::full(family)
    });
    Some(Persistence { timeout_s, mask })
}

fn read_servers(
    tables: &[ServerTable],
    service: Option<ServiceId>,
    path: &str,
    problems: &mut Problems<'_>,
) -> Vec<ServerSpec> {
    let mut first = HashMap::new();
    let mut servers = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let path = format!("{path}.server[{index}]");
        let Some(server) = read_server(table, service, &path, problems) else { continue };
        let before = *first.entry(server.address).or_insert(index);
        if before != index {
            problems.push(format!("{path}.address"), format!("{} is server[{before}] already", server.address));
        }
        servers.push(server);
    }
    servers
}

/// A server; none, and a problem, if its address cannot be told.
fn read_server(
    table: &ServerTable,
    service: Option<ServiceId>,
    path: &str,
    problems: &mut Problems<'_>,
) -> Option<ServerSpec> {
    let port = match service {
        Some(ServiceId::Address { address, .. }) => address.port(),
        Some(ServiceId::Mark { .. }) | None => 0,
    };
    let address = match &table.address {
        Some(text) => read_address(text, port, &format!("{path}.address"), problems),
        None => {
            problems.push(format!("{path}.address"), "missing: which server, as in \"10.0.0.11:8080\"?");
            None
        }
    };
    let server = ServerSpec {
        // Where there is none, one that breaks no rule, so that the other fields are judged all the same.
        address: address.unwrap_or(SocketAddr::new(IpAddr::V4([192, 0, 2, 1].into()), port)),
        method: read_method(table, path, problems),
        weight: table.weight.unwrap_or(1),
        upper: read_threshold(table.upper, THRESHOLD_MAX, &format!("{path}.upper"), problems),
        lower: read_threshold(table.lower, 0, &format!("{path}.lower"), problems),
        tags: read_tags(table, path, problems),
    };
    let family = if server.address.is_ipv4() { Family::Inet } else { Family::Inet6 };
    let service = service.unwrap_or(ServiceId::Mark { mark: 1, family });
    for violation in rules::server_violations(&service, &server) {
        if address.is_some() || violation.field != "address" {
            problems.push(format!("{path}.{}", violation.field), violation.message);
        }
    }
    address.map(|_| server)
}

/// The tags of a server; none if it has none.
fn read_tags(table: &ServerTable, path: &str, problems: &mut Problems<'_>) -> Option<Tags> {
    let pairs = table.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let tags = Tags::new(pairs).unwrap_or_else(|message| {
        problems.push(format!("{path}.tags"), message);
        Tags::default()
    });
    Some(tags).filter(|tags| !tags.is_empty())
}

/// A threshold. One that does not even fit the type is replaced by one that the other threshold cannot contradict.
fn read_threshold(value: Option<i64>, harmless: u32, path: &str, problems: &mut Problems<'_>) -> u32 {
    let Some(value) = value else { return 0 };
    u32::try_from(value).unwrap_or_else(|_| {
        problems.push(path, rules::bad_threshold(value));
        harmless
    })
}

/// The forwarding method, and that the tunnel's keys are those that it has.
fn read_method(table: &ServerTable, path: &str, problems: &mut Problems<'_>) -> Method {
    let method = table.method.unwrap_or_default();
    let tunnel = table.tunnel.unwrap_or_default();
    let port_fits = method == MethodName::Tun && tunnel == TunnelName::Gue;
    let checksum_fits = method == MethodName::Tun && tunnel != TunnelName::Ipip;
    let misfits = [
        ("tunnel", table.tunnel.is_some() && method != MethodName::Tun, "the method tun"),
        ("tunnel_port", table.tunnel_port.is_some() && !port_fits, "the method tun with tunnel gue"),
        ("tunnel_checksum", table.tunnel_checksum.is_some() && !checksum_fits, "the method tun with tunnel gue or gre"),
    ];
    for (key, _, owner) in misfits.into_iter().filter(|(_, wrong, _)| *wrong) {
        problems.push(format!("{path}.{key}"), format!("it goes with {owner} only: leave {key} out, or change that"));
    }
    let checksum = table.tunnel_checksum.unwrap_or_default();
    match (method, tunnel) {
        (MethodName::Nat, _) => Method::Nat,
        (MethodName::Dr, _) => Method::Dr,
        (MethodName::Tun, TunnelName::Ipip) => Method::Tun(Tunnel::Ipip),
        (MethodName::Tun, TunnelName::Gre) => Method::Tun(Tunnel::Gre { checksum }),
        (MethodName::Tun, TunnelName::Gue) => {
            let port = table.tunnel_port.unwrap_or(0);
            let port = u16::try_from(port).unwrap_or_else(|_| {
                problems.push(format!("{path}.tunnel_port"), format!("{port} is out of range: 1 to {}", u16::MAX));
                1
            });
            Method::Tun(Tunnel::Gue { port, checksum })
        }
    }
}
