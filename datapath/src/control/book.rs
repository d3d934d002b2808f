//! The rules in force: services, their servers, and what was removed but is not yet forgotten.
//!
//! The book carries out one action at a time on the engine's shared state, with IPVS's semantics: the newest server
//! first; an edit replaces everything but the key; a removed server waits in the trash, and adding it again brings
//! back its counts and connections.
//!
//! Invariant: an action is carried out whole or refused with nothing changed. The book knows no kernel: what has to be
//! steered to the workers, or not any more, it says by [`Effect`]s.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xvs_engine::counters::{Counters, Traffic};
use xvs_engine::engine::Shared;
use xvs_engine::flow::{self, Endpoint};
use xvs_engine::real::{self, RealId, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Service, ServiceKey};
use xvs_redirect::{Key, Protocol as Steered};

use crate::config::rules;

use super::estimate::{Estimator, difference};
use super::protocol::{
    self, Family, Method, Protocol, Refusal, RefusalKind, ServerSpec, ServiceId, ServiceSpec, Tunnel,
};

/// Milliseconds that a removed server without connections is kept, so that adding it again keeps its counters.
const TRASH_MS: u64 = 120_000;

/// What must happen outside of the book because of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Packets with this key go to the workers from now on: after the workers know what to do with them.
    Steer(Key),
    /// They do not any more.
    Unsteer(Key),
    /// The workers need a new snapshot.
    Publish,
    /// The way to this server must be found.
    Route(RealId),
}

/// A service and its servers.
#[derive(Debug)]
pub struct Entry {
    /// Its rules.
    pub spec: ServiceSpec,
    /// The engine's side of it.
    pub service: Arc<Service>,
    /// Its servers, newest first.
    pub members: Vec<Member>,
    /// Traffic of servers that are gone.
    retired: Traffic,
    zero: Traffic,
    rates: Estimator,
}

/// A server of a service.
#[derive(Debug)]
pub struct Member {
    /// Its rules.
    pub spec: ServerSpec,
    /// Its record in the engine's arena.
    pub real: RealId,
    /// The record's traffic when this server took it over from another one.
    base: Traffic,
    zero: Traffic,
    rates: Estimator,
    /// Its answers are steered to the workers.
    reply: Option<Key>,
}

#[derive(Debug)]
struct Trashed {
    service: ServiceId,
    /// Number of the service, which tells it from a later one with the same key.
    number: u32,
    member: Member,
    since_ms: u64,
}

/// A key that stays steered until the connections to these servers are over.
#[derive(Debug)]
struct Lingering {
    key: Key,
    reals: Vec<RealId>,
}

/// The rules in force.
#[derive(Debug)]
pub struct Book {
    shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    entries: HashMap<ServiceId, Entry>,
    /// Keys of `entries` in the order of their making.
    order: Vec<ServiceId>,
    trash: Vec<Trashed>,
    lingering: Vec<Lingering>,
    free: Vec<RealId>,
    used: u32,
    numbers: u32,
}

impl Book {
    /// An empty book over this state; `counters` are those of all workers.
    pub fn new(shared: Arc<Shared>, counters: Vec<Arc<Counters>>) -> Self {
        Book {
            shared,
            counters,
            entries: HashMap::new(),
            order: Vec::new(),
            trash: Vec::new(),
            lingering: Vec::new(),
            free: Vec::new(),
            used: 0,
            numbers: 0,
        }
    }

    /// The services in the order of their making.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.order.iter().filter_map(|id| self.entries.get(id))
    }

    /// One service.
    pub fn entry(&self, id: &ServiceId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The engine's services, for a snapshot.
    pub fn services(&self) -> Vec<Arc<Service>> {
        self.entries().map(|entry| entry.service.clone()).collect()
    }

    /// Every server that packets may still go to, removed ones included: its record and its address.
    pub fn reals(&self) -> Vec<(RealId, SocketAddr)> {
        let present = self.entries().flat_map(|entry| &entry.members);
        let trashed = self.trash.iter().map(|trashed| &trashed.member);
        present.chain(trashed).map(|member| (member.real, member.spec.address)).collect()
    }

    /// Adds a service.
    ///
    /// # Errors
    /// It exists, or breaks a rule.
    pub fn add_service(&mut self, spec: ServiceSpec) -> Result<Vec<Effect>, Refusal> {
        if self.entries.contains_key(&spec.id) {
            let message = format!("service {} already exists; edit it with -E, or delete it first", rules::describe(&spec.id));
            return Err(Refusal::new(RefusalKind::ServiceExists, message));
        }
        let scheduler = self.check_service(&spec)?;
        let service = Arc::new(Service::new(self.numbers, key_of(&spec.id), scheduler, flags_of(&spec)));
        self.numbers += 1;
        let id = spec.id;
        let (retired, zero, rates) = Default::default();
        self.entries.insert(id, Entry { spec, service, members: Vec::new(), retired, zero, rates });
        self.order.push(id);
        Ok([Effect::Publish].into_iter().chain(service_key(&id).map(Effect::Steer)).collect())
    }

    /// Replaces everything of a service but its key.
    ///
    /// # Errors
    /// There is no such service, or the new rules break one.
    pub fn edit_service(&mut self, spec: ServiceSpec) -> Result<Vec<Effect>, Refusal> {
        if !self.entries.contains_key(&spec.id) {
            return Err(no_such_service(&spec.id, RefusalKind::NoSuchService));
        }
        let scheduler = self.check_service(&spec)?;
        let arena = &self.shared.arena;
        if let Some(entry) = self.entries.get_mut(&spec.id) {
            entry.service.edit(arena, scheduler, flags_of(&spec));
            entry.spec = spec;
        }
        Ok(Vec::new())
    }

    fn check_service(&self, spec: &ServiceSpec) -> Result<Builtin, Refusal> {
        rules::check_service(spec, Builtin::NAMES)?;
        let unsupported = |what: &str| Err(Refusal::new(RefusalKind::Unsupported, format!("{what} in this version of xvs")));
        match spec {
            ServiceSpec { id: ServiceId::Mark { .. }, .. } => return unsupported("firewall-mark services are not served"),
            ServiceSpec { id: ServiceId::Address { protocol: Protocol::Sctp, .. }, .. } => {
                return unsupported("SCTP services are not served");
            }
            ServiceSpec { persistence: Some(_), .. } => return unsupported("persistence (-p) is not served"),
            ServiceSpec { one_packet: true, .. } => return unsupported("one-packet scheduling (-o) is not served"),
            ServiceSpec { engine: Some(_), .. } => return unsupported("persistence engines (--pe) are not served"),
            _ => {}
        }
        let unknown = || Refusal::new(RefusalKind::NoSuchScheduler, format!("no scheduler is called {:?}", spec.scheduler));
        Builtin::from_name(&spec.scheduler).ok_or_else(unknown)
    }

    /// Deletes a service with its servers. Their connections are dropped silently from now on, as in IPVS.
    ///
    /// # Errors
    /// There is no such service.
    pub fn delete_service(&mut self, id: &ServiceId, now_ms: u64) -> Result<Vec<Effect>, Refusal> {
        let Some(mut entry) = self.entries.remove(id) else {
            return Err(no_such_service(id, RefusalKind::NoSuchService));
        };
        self.order.retain(|other| other != id);
        let members = std::mem::take(&mut entry.members);
        let reals = members.iter().map(|member| member.real).collect();
        for member in members {
            entry.service.remove(&self.shared.arena, member.real);
            self.discard(*id, entry.service.number, member, now_ms);
        }
        if let Some(key) = service_key(id) {
            self.lingering.push(Lingering { key, reals });
        }
        Ok(vec![Effect::Publish])
    }

    /// Deletes all services.
    pub fn flush(&mut self, now_ms: u64) -> Vec<Effect> {
        let all = self.order.clone();
        all.iter().flat_map(|id| self.delete_service(id, now_ms).unwrap_or_default()).collect()
    }

    /// Adds a server to a service, in front of the others.
    ///
    /// # Errors
    /// No such service, the server is there already, it breaks a rule, or the arena is full.
    pub fn add_server(&mut self, id: &ServiceId, spec: ServerSpec) -> Result<Vec<Effect>, Refusal> {
        let Some(entry) = self.entries.get(id) else {
            return Err(no_such_service(id, RefusalKind::ServiceNotDefined));
        };
        if entry.members.iter().any(|member| member.spec.address == spec.address) {
            let message = format!(
                "server {} is already in service {}; edit it with -e, or delete it first",
                spec.address,
                rules::describe(id)
            );
            return Err(Refusal::new(RefusalKind::ServerExists, message));
        }
        check_server(&entry.spec, &spec)?;
        let settings = settings_of(&spec);
        let mut member = match self.revive(id, &spec) {
            Some(member) => member,
            None => self.fresh(&spec)?,
        };
        let real = self.shared.arena.get(member.real);
        real.set(&settings);
        real.set_added_weight(settings.weight);
        member.spec = spec;
        let mut effects = vec![Effect::Route(member.real)];
        self.steer_reply(id, &mut member, &mut effects);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.service.add(&self.shared.arena, member.real);
            entry.members.insert(0, member);
        }
        Ok(effects)
    }

    /// Takes a server out of the trash, with its counts and connections.
    fn revive(&mut self, id: &ServiceId, spec: &ServerSpec) -> Option<Member> {
        let same = |trashed: &Trashed| trashed.service == *id && trashed.member.spec.address == spec.address;
        let at = self.trash.iter().position(same)?;
        let Trashed { number, mut member, .. } = self.trash.swap_remove(at);
        let traffic = self.traffic(&member);
        let entry = self.entries.get_mut(id)?;
        if entry.service.number == number {
            // Counted among those that are gone until now.
            entry.retired = difference(entry.retired, traffic);
        } else {
            // The service is another one with the same key: its counters begin at zero, the connections stay.
            member.base = self.record_traffic(member.real);
            (member.zero, member.rates) = Default::default();
        }
        Some(member)
    }

    /// A member over a record that nobody uses.
    fn fresh(&mut self, spec: &ServerSpec) -> Result<Member, Refusal> {
        let real = match self.free.pop() {
            Some(real) => real,
            None if (self.used as usize) < self.shared.arena.capacity() => {
                self.used += 1;
                RealId(self.used - 1)
            }
            None => {
                let message = format!(
                    "the director has no room for another real server: {} are in use, removed ones with connections included",
                    self.used
                );
                return Err(Refusal::new(RefusalKind::Limit, message));
            }
        };
        self.shared.arena.get(real).reset(&settings_of(spec));
        let base = self.record_traffic(real);
        Ok(Member { spec: *spec, real, base, zero: Traffic::default(), rates: Estimator::default(), reply: None })
    }

    /// Lets the workers have the answers of a NAT server.
    fn steer_reply(&mut self, id: &ServiceId, member: &mut Member, effects: &mut Vec<Effect>) {
        let wanted = reply_key(id, &member.spec);
        if member.reply == wanted {
            return;
        }
        if let Some(key) = member.reply.take() {
            // Connections by the former method go on.
            self.lingering.push(Lingering { key, reals: vec![member.real] });
        }
        effects.extend(wanted.clone().map(Effect::Steer));
        member.reply = wanted;
    }

    /// Replaces everything of a server but its key.
    ///
    /// # Errors
    /// No such service or server, or the new rules break one.
    pub fn edit_server(&mut self, id: &ServiceId, spec: ServerSpec) -> Result<Vec<Effect>, Refusal> {
        let at = self.find(id, spec.address)?;
        let Some(entry) = self.entries.get_mut(id) else { return Ok(Vec::new()) };
        check_server(&entry.spec, &spec)?;
        let mut member = entry.members.remove(at);
        member.spec = spec;
        let (arena, real) = (&self.shared.arena, member.real);
        entry.service.change(arena, real, || arena.get(real).set(&settings_of(&spec)));
        let mut effects = vec![Effect::Route(real)];
        self.steer_reply(id, &mut member, &mut effects);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.members.insert(at, member);
        }
        Ok(effects)
    }

    /// Deletes a server. Its connections' packets are dropped until it comes back or they time out, as in IPVS.
    ///
    /// # Errors
    /// No such service or server.
    pub fn delete_server(&mut self, id: &ServiceId, address: SocketAddr, now_ms: u64) -> Result<Vec<Effect>, Refusal> {
        let at = self.find(id, address)?;
        let Some(entry) = self.entries.get_mut(id) else { return Ok(Vec::new()) };
        let member = entry.members.remove(at);
        entry.service.remove(&self.shared.arena, member.real);
        let traffic = self.traffic(&member);
        let Some(entry) = self.entries.get_mut(id) else { return Ok(Vec::new()) };
        entry.retired += traffic;
        let number = entry.service.number;
        self.discard(*id, number, member, now_ms);
        Ok(Vec::new())
    }

    fn find(&self, id: &ServiceId, address: SocketAddr) -> Result<usize, Refusal> {
        let Some(entry) = self.entries.get(id) else {
            return Err(no_such_service(id, RefusalKind::ServiceNotDefined));
        };
        entry.members.iter().position(|member| member.spec.address == address).ok_or_else(|| {
            let message = format!("server {address} is not in service {}", rules::describe(id));
            Refusal::new(RefusalKind::NoSuchServer, message)
        })
    }

    fn discard(&mut self, service: ServiceId, number: u32, member: Member, since_ms: u64) {
        self.trash.push(Trashed { service, number, member, since_ms });
    }

    /// Forgets what nobody refers to any more: keys of ended connections, servers long in the trash.
    pub fn tidy(&mut self, now_ms: u64) -> Vec<Effect> {
        let arena = &self.shared.arena;
        let is_idle = |real: &RealId| arena.get(*real).counts().total == 0;
        let mut effects = Vec::new();
        self.lingering.retain(|lingering| {
            let over = lingering.reals.iter().all(is_idle);
            if over {
                effects.push(Effect::Unsteer(lingering.key.clone()));
            }
            !over
        });
        let lingering = &self.lingering;
        let free = &mut self.free;
        self.trash.retain_mut(|trashed| {
            let real = trashed.member.real;
            let referred = lingering.iter().any(|lingering| lingering.reals.contains(&real));
            let over = is_idle(&real) && !referred && now_ms.saturating_sub(trashed.since_ms) >= TRASH_MS;
            if over {
                effects.extend(trashed.member.reply.take().map(Effect::Unsteer));
                free.push(real);
            }
            !over
        });
        effects
    }

    /// Zeroes the counters of one service, or of all.
    ///
    /// # Errors
    /// There is no such service.
    pub fn zero(&mut self, id: Option<&ServiceId>) -> Result<(), Refusal> {
        if let Some(id) = id.filter(|id| !self.entries.contains_key(id)) {
            return Err(no_such_service(id, RefusalKind::NoSuchService));
        }
        for which in self.order.clone().iter().filter(|which| id.is_none_or(|id| id == *which)) {
            let Some(mut entry) = self.entries.remove(which) else { continue };
            for member in &mut entry.members {
                member.zero = self.traffic(member);
                member.rates = Estimator::starting_at(member.zero);
            }
            entry.zero = self.service_traffic(&entry);
            entry.rates = Estimator::starting_at(entry.zero);
            self.entries.insert(*which, entry);
        }
        Ok(())
    }

    /// Takes a sample for the rates, every [`PERIOD_S`](super::estimate::PERIOD_S) seconds.
    pub fn sample(&mut self) {
        for id in self.order.clone() {
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            for member in &mut entry.members {
                member.rates.sample(self.traffic(member));
            }
            entry.rates.sample(self.service_traffic(&entry));
            self.entries.insert(id, entry);
        }
    }

    fn record_traffic(&self, real: RealId) -> Traffic {
        self.counters.iter().fold(Traffic::default(), |mut sum, counters| {
            sum += counters.real(real);
            sum
        })
    }

    fn traffic(&self, member: &Member) -> Traffic {
        difference(self.record_traffic(member.real), member.base)
    }

    fn service_traffic(&self, entry: &Entry) -> Traffic {
        entry.members.iter().fold(entry.retired, |mut sum, member| {
            sum += self.traffic(member);
            sum
        })
    }

    /// A service as it is, for a listing. `path` tells how packets reach a server.
    pub fn view(&self, entry: &Entry, path: impl Fn(RealId) -> String) -> protocol::Service {
        let server = |member: &Member| {
            let real = self.shared.arena.get(member.real);
            let counts = real.counts();
            protocol::Server {
                spec: member.spec,
                active: counts.active,
                inactive: counts.inactive(),
                persistent: real.templates(),
                overloaded: real.is_overloaded(),
                path: path(member.real),
                stats: member.rates.stats(difference(self.traffic(member), member.zero)),
            }
        };
        protocol::Service {
            spec: entry.spec.clone(),
            stats: entry.rates.stats(difference(self.service_traffic(entry), entry.zero)),
            servers: entry.members.iter().map(server).collect(),
        }
    }
}

fn no_such_service(id: &ServiceId, kind: RefusalKind) -> Refusal {
    Refusal::new(kind, format!("there is no service {}; `xvsadm -L -n` lists those that are", rules::describe(id)))
}

fn check_server(service: &ServiceSpec, spec: &ServerSpec) -> Result<(), Refusal> {
    rules::check_server(service, spec)?;
    match spec.method {
        Method::Tun(Tunnel::Gue { .. } | Tunnel::Gre { .. }) => {
            let message = "GUE and GRE tunnels are not served in this version of xvs; use ipip";
            Err(Refusal::new(RefusalKind::Unsupported, message))
        }
        _ => Ok(()),
    }
}

fn settings_of(spec: &ServerSpec) -> Settings {
    let method = match spec.method {
        Method::Nat => real::Method::Nat,
        Method::Dr => real::Method::Dr,
        Method::Tun(_) => real::Method::Tun,
    };
    let weight = i32::try_from(spec.weight).unwrap_or(i32::MAX);
    Settings { endpoint: spec.address.into(), method, weight, upper: spec.upper, lower: spec.lower }
}

fn flags_of(spec: &ServiceSpec) -> u8 {
    u8::from(spec.flags.one) | u8::from(spec.flags.two) << 1 | u8::from(spec.flags.three) << 2
}

fn key_of(id: &ServiceId) -> ServiceKey {
    match *id {
        ServiceId::Address { protocol, address } => {
            let protocol = match protocol {
                Protocol::Tcp => flow::Protocol::TCP,
                Protocol::Udp => flow::Protocol::UDP,
                Protocol::Sctp => flow::Protocol::SCTP,
            };
            ServiceKey::Address(protocol, Endpoint::from(address))
        }
        ServiceId::Mark { mark, family } => {
            ServiceKey::Mark(mark, if family == Family::Inet { flow::Family::Inet } else { flow::Family::Inet6 })
        }
    }
}

fn steered(protocol: Protocol) -> Steered {
    match protocol {
        Protocol::Tcp => Steered::Tcp,
        Protocol::Udp => Steered::Udp,
        Protocol::Sctp => Steered::Sctp,
    }
}

/// What must be steered for a service.
fn service_key(id: &ServiceId) -> Option<Key> {
    match *id {
        ServiceId::Address { protocol, address } => {
            Some(Key::Service { protocol: steered(protocol), address: address.ip(), port: address.port() })
        }
        ServiceId::Mark { .. } => None,
    }
}

/// What must be steered for the answers of a server.
fn reply_key(id: &ServiceId, server: &ServerSpec) -> Option<Key> {
    match (*id, server.method) {
        (ServiceId::Address { protocol, .. }, Method::Nat) => Some(Key::Reply {
            protocol: steered(protocol),
            address: server.address.ip(),
            port: server.address.port(),
        }),
        _ => None,
    }
}
