//! What a virtual service and a real server must be like: IPVS's and ipvsadm's rules, once for all who ask.
//!
//! The configuration file and a single command on the control socket are judged by the same two functions,
//! [`service_violations`] and [`server_violations`]; so what one of them accepts, the other accepts.
//! [`check_service`] and [`check_server`] are the same as a yes or no: the first violation becomes the refusal.
//!
//! Invariant: pure and total. A rule looks at the values alone; what depends on the state (the service exists already,
//! the server is there twice) is for those who hold the state.
//! Not here: what a machine can tell (is this address ours? is there a route?), and what only the grammar of a file or
//! a command line can get wrong (`desired.rs`, the ipvsadm grammar). Deliberately without a rule: a NAT server on port
//! 0 of a service with a port, which IPVS takes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::plugins;
use super::problem::{did_you_mean, quote};
use crate::control::protocol::schedulers::plugin;
use crate::control::protocol::{
    Family, MarkRule, Mask, Method, Protocol, Refusal, RefusalKind, SchedFlags, ServerSpec, ServiceId, ServiceSpec,
    Timeouts, Tunnel, TunnelChecksum,
};

/// Greatest weight. IPVS keeps it in a C `int`; ipvsadm itself stops at 65535, other tools do not.
pub const WEIGHT_MAX: i64 = i32::MAX as i64;

/// Greatest connection threshold. IPVS compares it with counters of a C `int`.
pub const THRESHOLD_MAX: u32 = i32::MAX as u32;

/// Longest timeout in seconds, 31 days: ipvsadm's bound for `-p` and `--set`, and far below what overflows a timer.
pub const TIMEOUT_MAX_S: u32 = 31 * 24 * 60 * 60;

/// Rules for marks that a director has at most. A new connection may be compared with each that names its address.
pub const MARKS_MAX: usize = 4096;

/// Persistence engines that exist. The kernel has this one.
pub const ENGINES: &[&str] = &["sip"];

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key in the configuration file that it is about: `weight`, `address`, ...
    pub field: &'static str,
    /// What a tool is told.
    pub kind: RefusalKind,
    /// What is wrong and what would be right. Does not name the service or server.
    pub message: String,
}

impl Violation {
    fn new(field: &'static str, kind: RefusalKind, message: impl Into<String>) -> Self {
        Violation { field, kind, message: message.into() }
    }

    fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Violation::new(field, RefusalKind::Invalid, message)
    }
}

/// May this service be added, or an existing one be changed to it? `schedulers` are the names that exist.
pub fn check_service(service: &ServiceSpec, schedulers: &[&str]) -> Result<(), Refusal> {
    refuse(&describe(&service.id), service_violations(service, schedulers))
}

/// May this server be added to the service, or an existing one be changed to it?
pub fn check_server(service: &ServiceSpec, server: &ServerSpec) -> Result<(), Refusal> {
    refuse(&format!("server {} of {}", server.address, describe(&service.id)), server_violations(&service.id, server))
}

/// May these be the rules for marks, in this order?
pub fn check_marks(marks: &[MarkRule]) -> Result<(), Refusal> {
    let violations = mark_violations(marks);
    refuse("rules for marks", violations.into_iter().map(|(_, violation)| violation).collect())
}

/// May these timeouts be set?
pub fn check_timeouts(timeouts: &Timeouts) -> Result<(), Refusal> {
    let all = [("tcp", timeouts.tcp), ("tcpfin", timeouts.tcpfin), ("udp", timeouts.udp)];
    let wrong = all.into_iter().filter(|(_, seconds)| *seconds > TIMEOUT_MAX_S).map(|(name, seconds)| {
        Violation::invalid(name, format!("{name} {seconds} is out of range: 0 (keep) to {TIMEOUT_MAX_S} seconds"))
    });
    refuse("timeouts", wrong.collect())
}

fn refuse(subject: &str, violations: Vec<Violation>) -> Result<(), Refusal> {
    match violations.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Refusal::new(first.kind, format!("{subject}: {}", first.message))),
    }
}

/// All rules that a service breaks, in the order in which ipvsadm and the kernel would meet them.
pub fn service_violations(service: &ServiceSpec, schedulers: &[&str]) -> Vec<Violation> {
    let mut broken = Vec::new();
    key_violations(service, &mut broken);
    if let Some(persistence) = &service.persistence {
        let seconds = persistence.timeout_s;
        if seconds == 0 || seconds > TIMEOUT_MAX_S {
            broken.push(Violation::invalid("persistent", bad_persistence(seconds.into())));
        }
        broken.extend(mask_violation(persistence.mask, service.id.family()));
    }
    scheduler_violations(service, schedulers, &mut broken);
    if let Some(engine) = service.engine.as_deref().filter(|engine| !ENGINES.contains(engine)) {
        let message = format!("no persistence engine {}; there is: {}", quote(engine), ENGINES.join(", "));
        broken.push(Violation::new("engine", RefusalKind::NoSuchScheduler, message));
    }
    broken
}

/// Whether a plugin of this name is loaded is for those who hold the state.
fn scheduler_violations(service: &ServiceSpec, schedulers: &[&str], broken: &mut Vec<Violation>) {
    let unknown = |name: &str| -> String {
        let hint = did_you_mean(name, schedulers);
        format!("no scheduler {}{hint}; there are: {}, and wasm:NAME for a plugin", quote(name), schedulers.join(", "))
    };
    match plugin(&service.scheduler) {
        Some(name) => {
            if let Err(message) = plugins::check_name(name) {
                broken.push(Violation::new("scheduler", RefusalKind::NoSuchScheduler, message));
            }
        }
        None if !schedulers.contains(&service.scheduler.as_str()) => {
            let message = unknown(&service.scheduler);
            broken.push(Violation::new("scheduler", RefusalKind::NoSuchScheduler, message));
        }
        None => {}
    }
    match service.fallback.as_deref() {
        Some(name) if plugin(name).is_some() => {
            let message = format!("a plugin such as {} can not be the fallback: name a native scheduler", quote(name));
            broken.push(Violation::new("fallback", RefusalKind::NoSuchScheduler, message));
        }
        Some(name) if !schedulers.contains(&name) => {
            broken.push(Violation::new("fallback", RefusalKind::NoSuchScheduler, unknown(name)));
        }
        _ => {}
    }
    if let Some(Err(message)) = service.options.as_ref().map(plugins::check_options) {
        broken.push(Violation::invalid("options", message));
    }
}

fn key_violations(service: &ServiceSpec, broken: &mut Vec<Violation>) {
    match service.id {
        ServiceId::Mark { mark: 0, .. } => {
            broken.push(Violation::invalid("mark", "mark 0 is the mark of unmarked packets: use 1 or more"));
        }
        ServiceId::Mark { .. } => {}
        ServiceId::Address { protocol, address } => {
            if let Some(message) = not_unicast(&address).or_else(|| scoped(&address)) {
                broken.push(Violation::invalid("address", format!("a virtual service cannot have {message}")));
            }
            if address.port() == 0 && service.persistence.is_none() {
                let message = "port 0 stands for every port, and only a persistent service can have that: name a port \
                               or make it persistent";
                broken.push(Violation::invalid("address", message));
            }
            if service.one_packet && protocol != Protocol::Udp {
                let message = format!("one-packet scheduling is for udp only, this is {}", protocol.name());
                broken.push(Violation::invalid("one_packet", message));
            }
        }
    }
}

/// All rules that a server of this service breaks, in the order in which ipvsadm and the kernel would meet them.
pub fn server_violations(service: &ServiceId, server: &ServerSpec) -> Vec<Violation> {
    let mut broken = Vec::new();
    way_violations(service, server, &mut broken);
    if !(0..=WEIGHT_MAX).contains(&server.weight) {
        let message = format!("weight {} is out of range: 0 (no new connections) to {WEIGHT_MAX}", server.weight);
        broken.push(Violation::new("weight", RefusalKind::OutOfRange, message));
    }
    if server.lower > server.upper {
        let message = format!(
            "the lower threshold {} is above the upper one, which is {}: it must not be",
            server.lower, server.upper
        );
        broken.push(Violation::new("lower", RefusalKind::OutOfRange, message));
    }
    if server.upper > THRESHOLD_MAX {
        broken.push(Violation::invalid("upper", bad_threshold(server.upper.into())));
    }
    if let Method::Tun(tunnel) = server.method {
        tunnel_violations(tunnel, &mut broken);
    }
    let address = &server.address;
    if let Some(message) = not_unicast(address).or_else(|| scoped(address)).or_else(|| link_local(address)) {
        broken.push(Violation::invalid("address", format!("a real server cannot have {message}")));
    }
    broken
}

/// Does the forwarding method lead from this service to this server?
fn way_violations(service: &ServiceId, server: &ServerSpec, broken: &mut Vec<Violation>) {
    let tunnelled = matches!(server.method, Method::Tun(_));
    if !tunnelled && (service.family() == Family::Inet) != server.address.is_ipv4() {
        let message = "service and server are of different address families, which only a tunnel joins: use tun";
        broken.push(Violation::invalid("address", message));
    }
    let ServiceId::Address { address, .. } = service else {
        // A mark stands for any port, so there is none that the server's could differ from.
        return;
    };
    if server.method != Method::Nat && server.address.port() != address.port() {
        let message = format!(
            "{} does not translate ports: port {} must be the service's port {}, or the method nat",
            method_name(&server.method),
            server.address.port(),
            address.port()
        );
        broken.push(Violation::invalid("address", message));
    }
}

fn tunnel_violations(tunnel: Tunnel, broken: &mut Vec<Violation>) {
    match tunnel {
        Tunnel::Gue { port: 0, .. } => {
            broken.push(Violation::invalid("tunnel_port", "gue needs the port that the server decapsulates on"));
        }
        Tunnel::Gre { checksum: TunnelChecksum::Remote } => {
            broken.push(Violation::invalid("tunnel_checksum", "gre has no remote checksum: use none or full"));
        }
        Tunnel::Ipip | Tunnel::Gue { .. } | Tunnel::Gre { .. } => {}
    }
}

fn mask_violation(mask: Mask, family: Family) -> Option<Violation> {
    let message = match mask {
        Mask::Prefix(length) if family == Family::Inet6 => mask_of_length(length.into(), family).err()?,
        Mask::Dotted(_) if family == Family::Inet => return None,
        Mask::Dotted(mask) => format!("{mask} is an IPv4 mask, and the service is IPv6: use a prefix length"),
        Mask::Prefix(length) => {
            format!("{length} is an IPv6 prefix length, and the service is IPv4: use a mask such as 255.255.255.0")
        }
    };
    Some(Violation::invalid("netmask", message))
}

/// The mask of so many leading bits, or what is wrong with the number.
pub(super) fn mask_of_length(length: i64, family: Family) -> Result<Mask, String> {
    let (least, most) = prefix_range(family);
    let fits = u8::try_from(length).ok().filter(|length| (least..=most).contains(length));
    fits.map(|length| Mask::leading(family, length)).ok_or_else(|| bad_prefix(length, family))
}

/// All that is wrong with a list of rules for marks, each with the number of its rule.
pub fn mark_violations(marks: &[MarkRule]) -> Vec<(usize, Violation)> {
    let mut broken = Vec::new();
    let mut first = HashMap::new();
    for (number, rule) in marks.iter().enumerate() {
        if rule.mark == 0 {
            broken.push((number, Violation::invalid("mark", "mark 0 is the mark of unmarked packets: use 1 or more")));
        }
        if rule.source.is_some_and(|source| source.family() != rule.destination.family()) {
            let message = "source and destination are of different address families: no packet has both";
            broken.push((number, Violation::invalid("source", message)));
        }
        // The mark aside: of two rules for the same packets the second one never counts.
        let before = first.entry(MarkRule { mark: 0, ..rule.clone() }).or_insert(number);
        if *before != number {
            let other = marks[*before].mark;
            let message = format!("the same packets have mark {other} already: two rules for them can not both count");
            broken.push((number, Violation::new("destination", RefusalKind::MarkExists, message)));
        }
    }
    if marks.len() > MARKS_MAX {
        let message = format!("{} rules for marks are too many: {MARKS_MAX} at most", marks.len());
        broken.push((MARKS_MAX, Violation::new("mark", RefusalKind::Limit, message)));
    }
    broken
}

/// Prefix lengths that a persistent service may group clients by, least and greatest.
pub fn prefix_range(family: Family) -> (u8, u8) {
    match family {
        Family::Inet => (0, 32),
        // The kernel refuses 0 here, and takes the IPv4 mask 0.0.0.0.
        Family::Inet6 => (1, 128),
    }
}

// Sentences that a file needs, too, for numbers that do not even fit the types of a specification.

pub(super) fn bad_persistence(seconds: i64) -> String {
    format!("a persistence of {seconds} seconds is out of range: 1 to {TIMEOUT_MAX_S} (31 days)")
}

fn bad_prefix(prefix: i64, family: Family) -> String {
    let (least, most) = prefix_range(family);
    format!("prefix length {prefix} is out of range: {least} to {most}")
}

pub(super) fn bad_threshold(threshold: i64) -> String {
    format!("threshold {threshold} is out of range: 0 (none) to {THRESHOLD_MAX}")
}

/// What the address is instead of a unicast one, as the kernel sees it. Broadcast addresses of subnets are not known
/// here.
fn not_unicast(address: &SocketAddr) -> Option<String> {
    let ip = address.ip();
    let what = match ip {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 clothes",
        _ => return None,
    };
    Some(format!("{what} ({ip}): it must be unicast"))
}

/// Zones and flow labels are part of Rust's socket addresses and of no key of IPVS: two services that differ in them
/// alone would be one.
fn scoped(address: &SocketAddr) -> Option<String> {
    let SocketAddr::V6(v6) = address else { return None };
    (v6.scope_id() != 0 || v6.flowinfo() != 0).then(|| format!("a zone or flow label ({address}): leave it out"))
}

/// A link-local address does not say on which link, and IPVS takes it for its own addresses only.
fn link_local(address: &SocketAddr) -> Option<String> {
    let SocketAddr::V6(v6) = address else { return None };
    v6.ip().is_unicast_link_local().then(|| format!("a link-local address ({}): use a routable one", v6.ip()))
}

/// The flags of `-b` and of the file's `flags`, read by name for this scheduler: `sh-fallback`, `mh-port`, `flag-3`...
///
/// The error is a sentence. A name that belongs to another scheduler is one, as with ipvsadm.
pub fn flags_by_name<'n>(scheduler: &str, names: impl IntoIterator<Item = &'n str>) -> Result<SchedFlags, String> {
    let mut flags = SchedFlags::default();
    for name in names {
        match name {
            "flag-1" => flags.one = true,
            "flag-2" => flags.two = true,
            "flag-3" => flags.three = true,
            "sh-fallback" | "mh-fallback" if scheduler == &name[..2] => flags.one = true,
            "sh-port" | "mh-port" if scheduler == &name[..2] => flags.two = true,
            "sh-fallback" | "mh-fallback" | "sh-port" | "mh-port" => {
                let owner = &name[..2];
                return Err(format!("flag {name} is of scheduler {owner}, not of {}", quote(scheduler)));
            }
            _ => {
                let known = ["flag-1", "flag-2", "flag-3", "sh-fallback", "sh-port", "mh-fallback", "mh-port"];
                let hint = did_you_mean(name, &known);
                return Err(format!("no scheduler flag {}{hint}; there are: {}", quote(name), known.join(", ")));
            }
        }
    }
    Ok(flags)
}

/// The names of these flags for this scheduler: the reverse of [`flags_by_name`].
pub fn flag_names(scheduler: &str, flags: SchedFlags) -> Vec<&'static str> {
    let (one, two) = match scheduler {
        "sh" => ("sh-fallback", "sh-port"),
        "mh" => ("mh-fallback", "mh-port"),
        _ => ("flag-1", "flag-2"),
    };
    let all = [(flags.one, one), (flags.two, two), (flags.three, "flag-3")];
    all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

/// A service's key in a sentence: `tcp 192.0.2.10:80`, `mark 1 (inet6)`.
pub fn describe(id: &ServiceId) -> String {
    match id {
        ServiceId::Address { protocol, address } => format!("{} {address}", protocol.name()),
        ServiceId::Mark { mark, family: Family::Inet } => format!("mark {mark} (inet)"),
        ServiceId::Mark { mark, family: Family::Inet6 } => format!("mark {mark} (inet6)"),
    }
}

/// A forwarding method in a sentence: `nat`, `dr`, `tun`.
pub(super) fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Nat => "nat",
        Method::Dr => "dr",
        Method::Tun(_) => "tun",
    }
}
