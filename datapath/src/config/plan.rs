//! The way from the rules that are to the rules that should be: the fewest actions, in an order that is safe.
//!
//! Order: services are added before their servers, what exists is edited in place, and removal comes last, servers
//! before their service. So capacity grows before it shrinks, and at no moment does a service that was there and stays
//! have fewer servers than before and after.
//!
//! Invariant: carrying out a [`Plan`] leaves exactly the services and servers of the [`Desired`], and a plan for what
//! is already so is empty. The *order* of servers that stay is theirs: moving one would mean to remove it, and its
//! connections with it. New ones are added in the file's order.
//! Not here: carrying it out, and the state itself. Everything is a function of its arguments.

mod plugins;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Display;
use std::net::SocketAddr;

use super::desired::{Desired, ServiceState};
use super::rules::{describe, flag_names, method_name};
use crate::control::protocol::{
    Action, ByState, FALLBACK, MarkRule, Method, Persistence, ServerSpec, ServiceId, ServiceSpec, StateTimeout, Tunnel,
    TunnelChecksum,
};
use crate::control::sysctl::Settings;

pub use plugins::{Found, diff_plugins};

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// The same for a person, one sentence.
    pub sentence: String,
}

/// Changes, to be carried out in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The changes; none if everything is as it should be.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A sentence for each change.
    pub fn sentences(&self) -> Vec<String> {
        self.steps.iter().map(|step| step.sentence.clone()).collect()
    }

    fn push(&mut self, action: Action, sentence: String) {
        self.steps.push(Step { action, sentence });
    }
}

/// What makes `next` of the services that are there.
pub fn diff(current: &[ServiceState], next: &Desired) -> Plan {
    let mut plan = Plan::default();
    let before: HashMap<ServiceId, &ServiceState> = current.iter().map(|state| (state.spec.id, state)).collect();
    let after: HashMap<ServiceId, &ServiceState> = next.services().iter().map(|state| (state.spec.id, state)).collect();
    for state in next.services() {
        match before.get(&state.spec.id) {
            None => add_service(&mut plan, state),
            Some(old) => change_service(&mut plan, old, state),
        }
    }
    for old in current {
        match after.get(&old.spec.id) {
            None => remove_service(&mut plan, old),
            Some(state) => {
                let kept: HashSet<SocketAddr> = state.servers.iter().map(|server| server.address).collect();
                remove_servers(&mut plan, old, |server| !kept.contains(&server.address));
            }
        }
    }
    plan
}

/// The step that makes the rules for marks what `next` says, if they are not. It belongs in front of those of [`diff`]:
/// it comes into force together with the services that those add.
pub fn diff_marks(current: &[MarkRule], next: &Desired) -> Option<Step> {
    let wanted = next.marks();
    if current == wanted {
        return None;
    }
    let (old, new): (HashSet<&MarkRule>, HashSet<&MarkRule>) = (current.iter().collect(), wanted.iter().collect());
    let added = wanted.iter().filter(|rule| !old.contains(rule)).map(|rule| format!("add {rule}"));
    let removed = current.iter().filter(|rule| !new.contains(rule)).map(|rule| format!("remove {rule}"));
    let mut changes: Vec<String> = added.chain(removed).collect();
    let kept = |rules: &[MarkRule], other: &HashSet<&MarkRule>| -> Vec<MarkRule> {
        rules.iter().filter(|rule| other.contains(rule)).cloned().collect()
    };
    if kept(current, &new) != kept(wanted, &old) || changes.is_empty() {
        changes.push("order them as in the file".to_owned());
    }
    let sentence = format!("Change the rules for marks: {}.", changes.join(", "));
    Some(Step { action: Action::ReplaceMarks(wanted.to_vec()), sentence })
}

/// The step that sets the director's timeouts, if `next` wants others than those in force.
pub fn diff_timeouts(current: &[StateTimeout], next: &Desired) -> Option<Step> {
    let mut changes = Changes::default();
    let mut timeouts = ByState::new();
    for StateTimeout { state, seconds, .. } in current {
        let Some(&wanted) = next.timeouts().get(state).filter(|wanted| **wanted != 0 && *wanted != seconds) else {
            continue;
        };
        changes.note(state, format!("{seconds} s"), format!("{wanted} s"));
        timeouts.insert(state.clone(), wanted);
    }
    if timeouts.is_empty() {
        return None;
    }
    let action = Action::SetStateTimeouts { service: None, timeouts, replace: false };
    Some(Step { action, sentence: changes.sentence("Set the timeouts") })
}

/// The step that makes the settings what `next` says. Those that it does not name stay as they are.
pub fn diff_settings(current: &Settings, next: &Desired) -> Option<Step> {
    let mut changes = Changes::default();
    let mut assignments = Vec::new();
    for wish in next.wishes().iter().filter(|wish| !current.fulfils(wish)) {
        let Some(old) = current.get(wish.name()) else { continue };
        changes.note(wish.name(), old, wish.value());
        assignments.push(wish.assignment());
    }
    if assignments.is_empty() {
        return None;
    }
    Some(Step { action: Action::Set(assignments), sentence: changes.sentence("Set") })
}

/// The settings that differ and that a running director does not change: it has to be started again for them.
pub fn needs_restart(current: &Desired, next: &Desired) -> Vec<&'static str> {
    let (was, will) = (current.director(), next.director());
    let (old, new) = (current.frames(), next.frames());
    let all = [
        ("director.control", was.control != will.control),
        ("director.own_vips", was.own_vips != will.own_vips),
        ("director.observe_replies", was.observe_replies != will.observe_replies),
        ("director.vip_interface", was.vip_interface != will.vip_interface),
        ("director.absent_worker", was.absent_worker != will.absent_worker),
        ("director.xdp_mode", was.xdp_mode != will.xdp_mode),
        ("director.compat", was.compat != will.compat),
        ("director.kernel", was.kernel != will.kernel),
        ("director.pin", was.pin != will.pin),
        ("director.cpus", was.cpus != will.cpus),
        ("director.scheduler_dir", was.scheduler_dir != will.scheduler_dir),
        ("director.watch_schedulers", was.watch_schedulers != will.watch_schedulers),
        ("connections.capacity", current.capacity() != next.capacity()),
        ("frames", old != new),
        ("interface", current.interfaces() != next.interfaces()),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

fn add_service(plan: &mut Plan, state: &ServiceState) {
    let spec = &state.spec;
    let sentence = format!("Add service {} with scheduler {}{}.", describe(&spec.id), spec.scheduler, extras(spec));
    plan.push(Action::AddService(spec.clone()), sentence);
    change_timeouts(plan, spec.id, &ByState::new(), &state.timeouts);
    for server in &state.servers {
        add_server(plan, spec.id, server);
    }
}

fn change_service(plan: &mut Plan, old: &ServiceState, new: &ServiceState) {
    let id = new.spec.id;
    if old.spec != new.spec {
        let sentence = service_changes(&old.spec, &new.spec).sentence(&format!("Change service {}", describe(&id)));
        plan.push(Action::EditService(new.spec.clone().explicit()), sentence);
    }
    change_timeouts(plan, id, &old.timeouts, &new.timeouts);
    let before: HashMap<SocketAddr, &ServerSpec> = old.servers.iter().map(|server| (server.address, server)).collect();
    for server in &new.servers {
        let Some(old) = before.get(&server.address) else {
            add_server(plan, id, server);
            continue;
        };
        if *old != server {
            let subject = format!("Change server {} of {}", server.address, describe(&id));
            let sentence = server_changes(old, server).sentence(&subject);
            plan.push(Action::EditServer { service: id, server: server.explicit() }, sentence);
        }
    }
}

fn change_timeouts(plan: &mut Plan, id: ServiceId, old: &ByState, new: &ByState) {
    if old == new {
        return;
    }
    let mut changes = Changes::default();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let told = |seconds: Option<&u32>| seconds.map_or_else(|| "the director's".to_owned(), |s| format!("{s} s"));
    names.into_iter().for_each(|name| changes.note(name, told(old.get(name)), told(new.get(name))));
    let sentence = changes.sentence(&format!("Set the timeouts of {}", describe(&id)));
    plan.push(Action::SetStateTimeouts { service: Some(id), timeouts: new.clone(), replace: true }, sentence);
}

fn add_server(plan: &mut Plan, service: ServiceId, server: &ServerSpec) {
    let mut sentence = format!(
        "Add server {} to {}: {}, weight {}",
        server.address,
        describe(&service),
        describe_method(&server.method),
        server.weight
    );
    if server.upper != 0 {
        sentence += &format!(", thresholds {} and {}", server.upper, lower(server));
    }
    if let Some(tags) = server.tags {
        sentence += &format!(", tags {tags}");
    }
    // A server that comes back from the trash keeps nothing that is not said.
    plan.push(Action::AddServer { service, server: server.explicit() }, sentence + ".");
}

fn remove_service(plan: &mut Plan, old: &ServiceState) {
    remove_servers(plan, old, |_| true);
    let id = old.spec.id;
    plan.push(Action::DeleteService(id), format!("Remove service {}.", describe(&id)));
}

fn remove_servers(plan: &mut Plan, old: &ServiceState, gone: impl Fn(&ServerSpec) -> bool) {
    let service = old.spec.id;
    for server in old.servers.iter().filter(|server| gone(server)) {
        let address = server.address;
        let sentence = format!("Remove server {address} from {}.", describe(&service));
        plan.push(Action::DeleteServer { service, address }, sentence);
    }
}

/// Attributes that differ, in words.
#[derive(Debug, Default)]
struct Changes(Vec<String>);

impl Changes {
    fn note(&mut self, name: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.0.push(format!("{name} {old} to {new}"));
        }
    }

    fn sentence(self, subject: &str) -> String {
        format!("{subject}: {}.", self.0.join(", "))
    }
}

fn service_changes(old: &ServiceSpec, new: &ServiceSpec) -> Changes {
    let mut changes = Changes::default();
    changes.note("scheduler", &old.scheduler, &new.scheduler);
    changes.note("fallback", fallback(old), fallback(new));
    changes.note("options", options(old), options(new));
    // Each name of the flags is told by its own scheduler: the same flags of two schedulers have not changed.
    if old.flags != new.flags {
        changes.note("flags", flags(old), flags(new));
    }
    changes.note("persistence", persistence(&old.persistence), persistence(&new.persistence));
    changes.note("persistence engine", engine(old), engine(new));
    changes.note("one-packet scheduling", on(old.one_packet), on(new.one_packet));
    changes
}

fn server_changes(old: &ServerSpec, new: &ServerSpec) -> Changes {
    let mut changes = Changes::default();
    changes.note("method", describe_method(&old.method), describe_method(&new.method));
    changes.note("weight", old.weight, new.weight);
    changes.note("upper threshold", threshold(old.upper), threshold(new.upper));
    changes.note("lower threshold", lower(old), lower(new));
    let tags = |server: &ServerSpec| server.tags.map_or_else(|| "none".to_owned(), |tags| tags.to_string());
    changes.note("tags", tags(old), tags(new));
    changes
}

/// What an added service has beyond its scheduler.
fn extras(spec: &ServiceSpec) -> String {
    let mut extras = String::new();
    if spec.fallback.is_some() {
        extras += &format!(", fallback {}", fallback(spec));
    }
    if spec.options.is_some() {
        extras += &format!(", options {}", options(spec));
    }
    if spec.flags != Default::default() {
        extras += &format!(", flags {}", flags(spec));
    }
    if spec.persistence.is_some() {
        extras += &format!(", persistent for {}", persistence(&spec.persistence));
    }
    if spec.engine.is_some() {
        extras += &format!(", persistence engine {}", engine(spec));
    }
    if spec.one_packet {
        extras += ", each packet for itself";
    }
    extras
}

fn fallback(spec: &ServiceSpec) -> &str {
    spec.fallback.as_deref().unwrap_or(FALLBACK)
}

fn options(spec: &ServiceSpec) -> String {
    let words = spec.options.iter().flatten().map(|(name, value)| format!("{name}={value}"));
    let words: Vec<String> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

fn flags(spec: &ServiceSpec) -> String {
    let names = flag_names(&spec.scheduler, spec.flags);
    if names.is_empty() { "none".to_owned() } else { names.join("+") }
}

fn persistence(persistence: &Option<Persistence>) -> String {
    match persistence {
        None => "off".to_owned(),
        Some(Persistence { timeout_s, mask }) => match mask.length() {
            Some(length) => format!("{timeout_s} s by /{length}"),
            None => format!("{timeout_s} s by mask {mask}"),
        },
    }
}

fn engine(spec: &ServiceSpec) -> &str {
    spec.engine.as_deref().unwrap_or("none")
}

fn on(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

fn threshold(value: u32) -> String {
    if value == 0 { "none".to_owned() } else { value.to_string() }
}

fn lower(server: &ServerSpec) -> String {
    if server.lower == 0 { "by default".to_owned() } else { server.lower.to_string() }
}

fn describe_method(method: &Method) -> String {
    let name = method_name(method);
    match method {
        Method::Nat | Method::Dr => name.to_owned(),
        Method::Tun(Tunnel::Ipip) => format!("{name} (ipip)"),
        Method::Tun(Tunnel::Gue { port, checksum }) => format!("{name} (gue to port {port}, {})", sum(*checksum)),
        Method::Tun(Tunnel::Gre { checksum }) => format!("{name} (gre, {})", sum(*checksum)),
    }
}

fn sum(checksum: TunnelChecksum) -> &'static str {
    match checksum {
        TunnelChecksum::None => "no checksum",
        TunnelChecksum::Full => "full checksum",
        TunnelChecksum::Remote => "remote checksum",
    }
}
