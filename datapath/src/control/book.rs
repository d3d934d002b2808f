//! The rules in force: services, their servers, and what was removed but is not yet forgotten.
//!
//! The book carries out one action at a time on the engine's shared state, with IPVS's semantics: the newest server
//! first; an edit replaces everything but the key; a removed server waits in the trash, and adding it again brings
//! back its counts and connections. With the rules it keeps the settings, which say how they are carried out.
//!
//! Invariant: an action is carried out whole or refused with nothing changed; what can fail comes before what changes.
//! A server is scheduled only after its way was looked for and its answers are steered; a service's packets are steered
//! only after the workers know it, and until the last connection is over. What lies outside the engine, it reaches
//! through [`Outside`]; it knows no kernel.

mod terms;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xvs_engine::conn::Class;
use xvs_engine::counters::Counters;
use xvs_engine::engine::{Cull, Shared};
use xvs_engine::mark::Marks;
use xvs_engine::real::RealId;
use xvs_engine::service::Service;
use xvs_engine::snapshot::Services;
use xvs_redirect::{Key, Range};

use crate::config::rules;

use super::addresses::Addresses;
use super::classes::Classes;
use super::entry::{Entry, Member};
use super::keys;
use super::protocol::schedulers::plugin;
use super::protocol::{Refusal, RefusalKind, ServiceId, ServiceSpec};
use super::round::Round;
use super::sysctl::Settings;
use super::totals::Totals;
use super::trash::{Trash, Trashed, is_idle};

mod accounts;
mod listing;
mod marks;
mod plugins;
mod removal;
mod schedulers;
mod servers;
mod steering;

use listing::Listing;
use marks::Marking;
pub use marks::{check_room, is_ranged};
use plugins::Plugins;
pub use schedulers::{Placement, candidate_name};
use steering::{note_steered, steer_all};

/// What the book moves beyond the engine's shared state.
pub trait Outside {
    /// Gives all workers these services, all that there are, and these rules for marks, and returns when they use them.
    fn publish(&mut self, services: &Services, marks: &Arc<Marks>);

    /// Packets with this key go to the workers from now on.
    ///
    /// # Errors
    /// There is no room for it; nothing has changed.
    fn steer(&mut self, key: &Key) -> Result<(), Refusal>;

    /// They do not any more.
    fn unsteer(&mut self, key: &Key);

    /// Packets of these ranges, and of no others, go to the workers from now on.
    ///
    /// # Errors
    /// There is no room for them; those before stay.
    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Refusal>;

    /// Finds the way to a server and writes it into its record.
    fn route(&mut self, real: RealId, server: IpAddr);

    /// Nobody uses this record any more.
    fn unroute(&mut self, _real: RealId) {}

    /// The way to a server, for a person; empty if there is nothing to tell.
    fn way(&self, _real: RealId) -> String {
        String::new()
    }
}

/// The rules in force.
#[derive(Debug)]
pub struct Book {
    shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    /// By their numbers, which is the order of their making.
    entries: BTreeMap<u32, Entry>,
    numbers: HashMap<ServiceId, u32>,
    /// The engine's side of them.
    services: Services,
    next_number: u32,
    /// The workers do not know of all services yet, or still know of removed ones.
    changed: bool,
    /// Services that are not steered yet.
    unsteered: Vec<ServiceId>,
    /// Removed services whose key stays steered until their connections are over.
    lingering: HashSet<ServiceId>,
    /// Servers whose method or tunnel was another one, and for which more stays steered until they are idle once.
    leaving: HashSet<(ServiceId, SocketAddr)>,
    trash: Trash,
    settings: Settings,
    classes: Classes,
    cull: Cull,
    marking: Marking,
    totals: Totals,
    /// How far the sample has come, and the look at the plugins.
    sampling: Round,
    tending: Round,
    listing: Listing,
    addresses: Addresses,
    plugins: Plugins,
    /// Answers of DR and TUN servers are steered, too.
    observes: bool,
}

impl Book {
    /// An empty book over this state; `counters` are those of all workers.
    pub fn new(shared: Arc<Shared>, counters: Vec<Arc<Counters>>) -> Self {
        Book {
            shared,
            counters,
            entries: BTreeMap::new(),
            numbers: HashMap::new(),
            services: Services::default(),
            next_number: 0,
            changed: false,
            unsteered: Vec::new(),
            lingering: HashSet::new(),
            leaving: HashSet::new(),
            trash: Trash::default(),
            settings: Settings::default(),
            classes: Classes::default(),
            cull: Cull::default(),
            marking: Marking::default(),
            totals: Totals::default(),
            sampling: Round::default(),
            tending: Round::default(),
            listing: Listing::default(),
            addresses: Addresses::default(),
            plugins: Plugins::default(),
            observes: false,
        }
    }

    /// From now on, servers that are added have their answers watched, whatever their method (`observe_replies`).
    pub fn observe_replies(&mut self, observes: bool) {
        self.observes = observes;
    }

    /// The services in the order of their making.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One service.
    pub fn entry(&self, id: &ServiceId) -> Option<&Entry> {
        self.entries.get(self.numbers.get(id)?)
    }

    /// The engine's services, for a snapshot.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The addresses that got their first service since the last call (true), or lost their last one.
    pub fn take_moved_addresses(&mut self) -> Vec<(IpAddr, bool)> {
        self.addresses.take_moved()
    }

    /// Every server that packets may still go to, removed ones included: its record and its address.
    pub fn reals(&self) -> Vec<(RealId, IpAddr)> {
        let present = self.entries().flat_map(|entry| &entry.members);
        present.chain(self.trash.members()).map(|member| (member.real, member.spec.address.ip())).collect()
    }

    /// Adds a service and brings it into force.
    ///
    /// # Errors
    /// It exists, breaks a rule, or there is no room for its key.
    pub fn add_service(&mut self, spec: ServiceSpec, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let id = spec.id;
        self.open_service(spec)?;
        self.settle(outside).inspect_err(|_| {
            self.remove_entry(&id);
            self.announce(outside);
        })
    }

    /// Adds a service that gets no packets before [`settle`](Book::settle), so that many can be added in one step.
    ///
    /// # Errors
    /// It exists, or breaks a rule.
    pub fn open_service(&mut self, spec: ServiceSpec) -> Result<(), Refusal> {
        let id = spec.id;
        if self.numbers.contains_key(&id) {
            let message =
                format!("service {} already exists; edit it with -E, or delete it first", rules::describe(&id));
            return Err(Refusal::new(RefusalKind::ServiceExists, message));
        }
        let spec = spec.kept();
        let scheduler = keys::scheduler(&spec)?;
        let version = self.plugin_of(&spec)?;
        let number = self.next_number;
        self.next_number += 1;
        let service =
            Arc::new(Service::new(number, keys::service(&id), scheduler, keys::policy(&spec, Class::DIRECTOR)));
        remember(&self.shared, &service);
        let mut entry = Entry::new(spec, service, false);
        plugins::prove_at(&entry, version.as_ref())?;
        plugins::give(&mut entry, &self.shared.arena, &self.counters, version)?;
        // A removed one with this key may still have its packets steered.
        let steered = self.lingering.remove(&id);
        entry.steered = steered;
        self.services.insert(entry.service.clone());
        self.entries.insert(number, entry);
        self.numbers.insert(id, number);
        self.addresses.add(&id);
        self.changed = true;
        self.marking.stale |= is_ranged(&id);
        if !steered {
            self.unsteered.push(id);
        }
        Ok(())
    }

    /// Brings into force what was opened: the workers hear of it once, then its packets are steered to them.
    ///
    /// # Errors
    /// There is no room for a key. Services whose keys had room are in force; the others get no packets.
    pub fn settle(&mut self, outside: &mut dyn Outside) -> Result<(), Refusal> {
        match self.steer_opened(outside).into_iter().next() {
            Some((_, refusal)) => Err(refusal),
            None => self.steer_marks(outside),
        }
    }

    /// The same without marks. Gives the services whose keys had no room.
    pub fn steer_opened(&mut self, outside: &mut dyn Outside) -> Vec<(ServiceId, Refusal)> {
        self.announce(outside);
        let mut refused = Vec::new();
        for id in std::mem::take(&mut self.unsteered) {
            let Some(entry) = self.numbers.get(&id).and_then(|number| self.entries.get_mut(number)) else { continue };
            let Some(key) = keys::inbound(&id).filter(|_| !entry.steered) else { continue };
            match outside.steer(&key) {
                Ok(()) => entry.steered = true,
                Err(refusal) => refused.push((id, refusal)),
            }
        }
        refused
    }

    /// Tells the workers of the services and the rules for marks, if there is anything new to tell.
    fn announce(&mut self, outside: &mut dyn Outside) {
        if std::mem::take(&mut self.changed) {
            outside.publish(&self.services, self.marks());
        }
    }

    fn remove_entry(&mut self, id: &ServiceId) -> Option<Entry> {
        let entry = self.entries.remove(&self.numbers.remove(id)?)?;
        self.services.remove(entry.service.key);
        self.addresses.remove(id);
        self.changed = true;
        self.marking.stale |= is_ranged(id);
        Some(entry)
    }

    /// Replaces everything of a service but its key.
    ///
    /// # Errors
    /// There is no such service, the new rules break one, or there is no room for what they ask to be steered.
    pub fn edit_service(&mut self, spec: ServiceSpec, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let entry = self.entry(&spec.id).ok_or_else(|| no_such_service(&spec.id, RefusalKind::NoSuchService))?;
        let spec = keep_unsaid(&entry.spec, spec);
        let scheduler = keys::scheduler(&spec)?;
        let version = match entry.beside.live() {
            Some(version) if plugin(&spec.scheduler) == Some(&version.name) => Some(version.clone()),
            _ => self.plugin_of(&spec)?,
        };
        let Some(entry) = self.numbers.get(&spec.id).and_then(|number| self.entries.get_mut(number)) else {
            return Ok(());
        };
        let (service, policy) = (entry.service.clone(), keys::policy(&spec, entry.class));
        let number = service.number;
        // Persistence decides about FTP's data connections, and about the ports that answers come from.
        let steered = steer_all(&spec, &entry.members, self.observes, outside)?;
        self.marking.stale |= is_ranged(&spec.id);
        let old = std::mem::replace(&mut entry.spec, spec);
        // In a plan, the workers hear of what was opened first.
        let mut outcome = if self.changed { Ok(()) } else { self.steer_marks(outside) };
        let Some(entry) = self.entries.get_mut(&number) else { return outcome };
        // Ranges for the new rules are in force if it is the plugin that fails.
        let ranged = outcome.is_ok() && is_ranged(&entry.spec.id) && !self.changed;
        if outcome.is_ok() && !plugins::is_same(&entry.spec, &old) {
            outcome = plugins::prove_at(entry, version.as_ref());
            outcome = outcome.and_then(|()| plugins::give(entry, &self.shared.arena, &self.counters, version));
        }
        if outcome.is_err() {
            steered.iter().flatten().for_each(|key| outside.unsteer(key));
            entry.spec = old;
            if ranged {
                self.marking.stale = true;
                self.unsteer_marks(outside);
            }
            return outcome;
        }
        for (member, new) in entry.members.iter_mut().zip(steered) {
            member.steered.extend(new);
            note_steered(&mut self.leaving, &entry.spec, member, self.observes);
        }
        service.edit(&self.shared.arena, scheduler, policy);
        remember(&self.shared, &service);
        let planned = self.changed;
        self.changed |= self.services.refresh(&service);
        if !planned {
            self.announce(outside);
        }
        Ok(())
    }

    /// Tells all schedulers that remember for how long, after that was changed.
    pub fn remember(&self) {
        self.entries().for_each(|entry| remember(&self.shared, &entry.service));
    }
}

/// An edit keeps what ipvsadm can not say.
fn keep_unsaid(old: &ServiceSpec, new: ServiceSpec) -> ServiceSpec {
    let fallback = new.fallback.or_else(|| old.fallback.clone());
    let options = new.options.or_else(|| old.options.clone());
    ServiceSpec { fallback, options, ..new }.kept()
}

/// Tells a service's scheduler for how long to remember, if it does.
fn remember(shared: &Shared, service: &Service) {
    service.remember_for(shared.switches.lblc_expiration.get(), shared.switches.lblcr_expiration.get());
}

fn no_such_service(id: &ServiceId, kind: RefusalKind) -> Refusal {
    Refusal::new(kind, format!("there is no service {}; `xvsadm -L -n` lists those that are", rules::describe(id)))
}

fn no_such_server(id: &ServiceId, address: SocketAddr) -> Refusal {
    let message = format!("server {address} is not in service {}", rules::describe(id));
    Refusal::new(RefusalKind::NoSuchServer, message)
}
