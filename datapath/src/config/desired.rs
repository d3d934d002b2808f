//! What the director should be: a whole configuration that is known to be right.
//!
//! Invariant: a [`Desired`] exists only if every rule of `rules.rs` and `settings.rs` holds for every part of it, no
//! service stands in it twice and no server twice in a service. [`Desired::validate`] is the only way to one, and it
//! reports everything that is in the way, each with its field and its place.
//! Not here: the way from the present state to this one (`plan.rs`), and whether the machine can do it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::document::{
    Document, InterfaceTable, MethodName, Netmask, ServerTable, ServiceTable, SettingLine, TunnelName,
};
use super::marks;
use super::problem::{Problem, Problems, quote};
use super::rules::{self, THRESHOLD_MAX, TIMEOUT_MAX_S};
use super::settings::{self, DirectorSettings, FrameSettings, InterfaceSettings};
use crate::control::protocol::{
    self, ByState, Family, MarkRule, Mask, Method, Persistence, Protocol, SchedFlags, ServerSpec, Service, ServiceId,
    ServiceSpec, Tunnel,
};
use crate::control::sysctl::{Settings, Wish};
use crate::control::timeouts;

/// Scheduler of a service that does not name one; ipvsadm's default.
pub const SCHEDULER: &str = "wlc";

/// A virtual service and its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    /// The service.
    pub spec: ServiceSpec,
    /// Timeouts of its own, by the states' own names.
    pub timeouts: ByState,
    /// Its servers, in the order in which they are added: that of a file. The director's own order is the reverse.
    pub servers: Vec<ServerSpec>,
}

impl From<&Service> for ServiceState {
    /// The rules of a listed service. A listing has the newest server first, a file the oldest.
    fn from(service: &Service) -> Self {
        let servers = service.servers.iter().rev().map(|server| server.spec).collect();
        ServiceState { spec: service.spec.clone(), timeouts: service.timeouts.clone(), servers }
    }
}

/// A configuration that is known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    director: DirectorSettings,
    capacity: u32,
    timeouts: ByState,
    wishes: Vec<Wish>,
    frames: FrameSettings,
    interfaces: Vec<InterfaceSettings>,
    marks: Vec<MarkRule>,
    services: Vec<ServiceState>,
    notes: Vec<Problem>,
}

impl Desired {
    /// Checks a document against all rules. `schedulers` are the names that exist in this director.
    ///
    /// Nothing is half right: either the whole document is, or all of its problems come back.
    pub fn validate(document: Document, schedulers: &[&str]) -> Result<Desired, Vec<Problem>> {
        let mut problems = Problems::new(&document.source);
        let mut desired = Desired {
            director: DirectorSettings::read(&document.director, &mut problems),
            capacity: settings::read_capacity(&document.connections, &mut problems),
            timeouts: read_timeouts(&document.timeouts, &mut problems),
            wishes: read_settings(&document.sysctl, &mut problems),
            frames: FrameSettings::read(&document.frames, &mut problems),
            interfaces: read_interfaces(&document.interface, &mut problems),
            marks: marks::read(&document.mark, &mut problems),
            services: read_services(&document.service, schedulers, &mut problems),
            notes: Vec::new(),
        };
        desired.notes = problems.take_notes();
        problems.or(desired)
    }

    /// [`Document::parse`] and [`Desired::validate`] in one. `file` names the text in messages; it may be empty.
    pub fn read(text: &str, file: &str, schedulers: &[&str]) -> Result<Desired, Vec<Problem>> {
        Desired::validate(Document::parse(text, file)?, schedulers)
    }

    /// Settings of the process.
    pub fn director(&self) -> &DirectorSettings {
        &self.director
    }

    /// Entries of the connection table.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Timeouts of all states, in seconds; 0 keeps what the director has.
    pub fn timeouts(&self) -> &ByState {
        &self.timeouts
    }

    /// Settings that the file names, each once.
    pub fn wishes(&self) -> &[Wish] {
        &self.wishes
    }

    /// The settings to begin with: the profile's, and over them those that the file names.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.director.compat);
        settings.take(&self.wishes);
        settings
    }

    /// What is right and should be known all the same.
    pub fn notes(&self) -> &[Problem] {
        &self.notes
    }

    /// Packet memory and rings.
    pub fn frames(&self) -> &FrameSettings {
        &self.frames
    }

    /// The interfaces, in the file's order; no name twice.
    pub fn interfaces(&self) -> &[InterfaceSettings] {
        &self.interfaces
    }

    /// The rules for marks, in the file's order; of two for the same packets there is one.
    pub fn marks(&self) -> &[MarkRule] {
        &self.marks
    }

    /// The services, in the file's order; no key twice.
    pub fn services(&self) -> &[ServiceState] {
        &self.services
    }
}

/// The director's timeouts: IPVS's where the file is silent.
fn read_timeouts(table: &BTreeMap<String, i64>, problems: &mut Problems<'_>) -> ByState {
    let mut all = timeouts::defaults();
    all.extend(read_seconds(table, "timeouts", "keeps what is", problems));
    all
}

/// Timeouts by the states' own names. `zero` says what 0 does.
fn read_seconds(table: &BTreeMap<String, i64>, path: &str, zero: &str, problems: &mut Problems<'_>) -> ByState {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let unit = format!("seconds, where 0 {zero}");
    let mut read = ByState::new();
    for (word, &value) in table {
        let path = format!("{path}.{word}");
        let Some(name) = timeouts::canonical(word) else {
            problems.push(path, "there is no such timeout");
            continue;
        };
        if let Some(before) = first.insert(name, word) {
            problems.push(&path, format!("this is {} already, by another name", quote(before)));
        }
        let range = (0, i64::from(TIMEOUT_MAX_S));
        read.insert(name.to_owned(), settings::number(problems, &path, Some(value), 0, range, &unit));
    }
    read
}

fn read_settings(lines: &BTreeMap<String, SettingLine>, problems: &mut Problems<'_>) -> Vec<Wish> {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let mut wishes = Vec::with_capacity(lines.len());
    for (name, SettingLine { value, path }) in lines {
        let wish = match Wish::read(name, value) {
            Ok(wish) => wish,
            Err(refusal) => {
                problems.push(path, refusal.message);
                continue;
            }
        };
        if let Some(before) = first.insert(wish.name(), name) {
            problems.push(path, format!("this is {} already, by another name", quote(before)));
        }
        if let Some(note) = wish.futile() {
            problems.note(path, note);
        }
        wishes.push(wish);
    }
    wishes
}

fn read_interfaces(tables: &[InterfaceTable], problems: &mut Problems<'_>) -> Vec<InterfaceSettings> {
    let mut first = HashMap::new();
    let mut interfaces = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let path = format!("interface[{index}]");
        interfaces.push(InterfaceSettings::read(table, &path, problems));
        let Some(name) = &table.name else { continue };
        let before = *first.entry(name).or_insert(index);
        if before != index {
            problems.push(format!("{path}.name"), format!("{} is interface[{before}] already", quote(name)));
        }
    }
    interfaces
}

fn read_services(tables: &[ServiceTable], schedulers: &[&str], problems: &mut Problems<'_>) -> Vec<ServiceState> {
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
    };
    for violation in rules::service_violations(&spec, schedulers) {
        problems.push(format!("{path}.{}", violation.field), violation.message);
    }
    spec
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

/// All problems for a person: one a line.
pub fn report(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl From<&[Problem]> for protocol::Refusal {
    /// A director's answer to a document with these problems.
    fn from(problems: &[Problem]) -> Self {
        protocol::Refusal::new(protocol::RefusalKind::Document, report(problems))
    }
}
