//! One scheduler twice: natively, and as a module in an instance. Both hear the same, and must answer the same.
//!
//! Invariant: the instance is told as a worker tells it: the rows are rewritten before each request, and after a change
//! of the list the facts as well. Random steps repeat by seed.

use std::sync::Arc;

use plugin_bench::{List, Server};
use xvs_host::{Grants, Host, Instance, Limits, Module};
use xvs_sdk::abi::{self, Facts, Flow, ROW_OVERLOADED, ROW_QUIESCED, ROW_USABLE, Row};
use xvs_sdk::{Change, Reals, Request, Rng, Scheduler};

/// Seed of the instance's random numbers.
const INSTANCE_SEED: u64 = 77;
/// Most servers of a history.
const SERVERS: usize = 24;

/// A kind of scheduler, in both forms.
pub(crate) struct Kind<S> {
    pub(crate) make: fn() -> S,
    pub(crate) module: Arc<Module>,
    pub(crate) options: String,
}

/// A module of `sched-plugins`.
pub(crate) fn module(name: &str, grants: Grants) -> Arc<Module> {
    let path = xvs_plugins::module(name).unwrap_or_else(|error| panic!("{error:#}"));
    let bytes = std::fs::read(path).unwrap();
    let host = Host::new(Limits::default()).unwrap();
    host.load(&bytes, grants).unwrap_or_else(|rejected| panic!("{name}: {rejected}"))
}

/// A service whose every request goes to both.
pub(crate) struct Twins<S> {
    kind: Kind<S>,
    native: S,
    instance: Instance,
    pub(crate) servers: List,
    open: Vec<char>,
    request: Request,
    steps: Rng,
    random: Rng,
    fresh: u32,
    /// Requests that a server was found for.
    pub(crate) picks: u64,
    /// The most fuel of a request, in hundredths of its budget.
    pub(crate) worst_percent: u64,
}

impl<S: Scheduler> Twins<S> {
    /// Without servers.
    pub(crate) fn new(kind: Kind<S>, seed: u64) -> Twins<S> {
        let (native, instance) = born(&kind, &List::default());
        Twins {
            kind,
            native,
            instance,
            servers: List::default(),
            open: Vec::new(),
            request: Request::default(),
            steps: Rng::new(seed),
            random: Rng::new(INSTANCE_SEED),
            fresh: 0,
            picks: 0,
            worst_percent: 0,
        }
    }

    /// Takes so many random steps.
    pub(crate) fn live(&mut self, steps: u64) {
        for step in 0..steps {
            let kind = self.steps.below(100);
            self.step(kind, step);
        }
    }

    fn step(&mut self, kind: usize, step: u64) {
        let count = self.servers.0.len();
        let index = self.steps.below(count);
        match kind {
            0..=1 if count < SERVERS => self.add(),
            2..=3 if count > 0 => {
                let gone = self.servers.0.remove(index).name;
                self.open.retain(|&name| name != gone);
                self.changed(Change::Removed(index));
            }
            4..=7 if count > 0 => {
                let weight = self.weight();
                self.servers.0[index].set_weight(weight);
                self.changed(Change::Edited(index));
            }
            8 if count > 0 => {
                self.servers.0[index].tags = self.tags();
                self.changed(Change::Edited(index));
            }
            9..=11 if count > 0 => self.servers.0[index].overloaded ^= true,
            12 if count > 0 => self.sample(),
            13..=15 => self.request.now_ms += self.steps.below(4000) as u64,
            16..=40 if !self.open.is_empty() => self.close(),
            41 if self.steps.below(50) == 0 => self.renew(),
            _ => self.ask(step),
        }
    }

    fn add(&mut self) {
        self.fresh = (self.fresh + 1) % 20_000;
        let name = char::from_u32(0x4e00 + self.fresh).unwrap();
        let weight = self.weight();
        let tags = self.tags();
        self.servers.0.insert(0, Server { tags, ..Server::new(name, weight) });
        self.changed(Change::Added(0));
    }

    fn weight(&mut self) -> i32 {
        match self.steps.below(20) {
            0..=3 => 0,
            4 => 65_535,
            5 => 1 + self.steps.below(1000) as i32,
            _ => 1 + self.steps.below(4) as i32,
        }
    }

    fn tags(&mut self) -> String {
        ["", "zone=a", "rack=7,zone=a", "zone=b"][self.steps.below(4)].to_owned()
    }

    /// What the director samples and what an operator feeds, for all servers.
    fn sample(&mut self) {
        let fed = self.steps.below(3) > 0;
        for server in &mut self.servers.0 {
            server.conns_per_s = self.steps.below(2000) as u32;
            server.metric = if fed { self.steps.below(500) as i64 - 50 } else { 0 };
        }
        write_facts(&mut self.instance, &self.servers);
    }

    fn close(&mut self) {
        let name = self.open.swap_remove(self.steps.below(self.open.len()));
        let index = self.servers.at(name);
        let server = &mut self.servers.0[index];
        // First inactive, then gone: a closed connection is one of the two.
        if server.active == server.total {
            server.active -= 1;
            self.open.push(name);
        } else {
            server.total -= 1;
        }
    }

    fn changed(&mut self, change: Change) {
        self.native.reals_changed(&self.servers, change);
        let (kind, index) = match change {
            Change::All => (abi::CHANGED_ALL, 0),
            Change::Added(index) => (abi::CHANGED_ADDED, index),
            Change::Removed(index) => (abi::CHANGED_REMOVED, index),
            Change::Edited(index) => (abi::CHANGED_EDITED, index),
        };
        write(&mut self.instance, &self.servers);
        let fuel = self.kind.module.budget(self.servers.len());
        let rebuild = self.instance.changed(kind, index as i32, fuel);
        assert_eq!(rebuild, Ok(false), "{change:?} of {} servers within {fuel}", self.servers.len());
    }

    /// The next version takes over, with the state of the one before.
    fn renew(&mut self) {
        let (mut native, mut instance) = born(&self.kind, &self.servers);
        let mut state = [0; abi::TEXT_MAX];
        let saved = self.native.save(&mut state).map(|len| state[..len].to_vec());
        // A worker may be waiting for its seat while it saves.
        let fuel = self.kind.module.limits().fuel_most;
        let told = self.instance.save(fuel).unwrap();
        match (saved, told) {
            (None, None) => {}
            // A built-in hands nothing over: it goes on itself.
            (None, Some(told)) => {
                assert!(instance.restore(&told).unwrap());
                std::mem::swap(&mut native, &mut self.native);
            }
            (Some(saved), told) => {
                assert_eq!(told.as_ref(), Some(&saved), "the saved states differ");
                assert!(native.restore(&self.servers, &saved) && instance.restore(&saved).unwrap());
            }
        }
        (self.native, self.instance) = (native, instance);
        self.random = Rng::new(INSTANCE_SEED);
    }

    fn ask(&mut self, step: u64) {
        for (index, server) in self.servers.0.iter().enumerate() {
            let Row { active, total, flags, health, .. } = row(&self.servers, index, server);
            self.instance.set_counts(index, active, total, flags, health);
        }
        self.request.client[15] = self.steps.below(256) as u8;
        self.request.client_port = self.steps.below(65_536) as u16;
        self.request.hash = self.steps.next_u64();
        let wants_random = self.kind.module.grants().random;
        let random = if wants_random { self.random.next_u64() } else { 0 };
        let now_ms = if self.kind.module.grants().time { self.request.now_ms } else { 0 };
        let native = self.native.pick(&Request { random, now_ms, ..self.request }, &self.servers);
        let Request { client, client_port, hash, .. } = self.request;
        self.instance.set_now(now_ms);
        let fuel = self.kind.module.budget(self.servers.len());
        let picked = self.instance.pick(&Flow { client, client_port, hash, ..Flow::default() }, fuel);
        let expected = native.map_or(abi::NOBODY, |index| index as i32);
        assert_eq!(picked, Ok(expected), "at step {step}, of {:?}", self.servers);
        self.worst_percent = self.worst_percent.max(100 * self.instance.fuel_used() / fuel);
        if let Some(index) = native {
            let server = &mut self.servers.0[index];
            server.active += 1;
            server.total += 1;
            self.open.push(server.name);
            self.picks += 1;
        }
    }
}

/// A scheduler in both forms, that knows its options and the list.
fn born<S: Scheduler>(kind: &Kind<S>, servers: &List) -> (S, Instance) {
    let mut native = (kind.make)();
    native.configure(kind.options.as_bytes()).unwrap();
    native.reals_changed(servers, Change::All);
    let mut instance = kind.module.instantiate(INSTANCE_SEED).unwrap();
    instance.configure(&kind.options).unwrap();
    write(&mut instance, servers);
    let fuel = kind.module.limits().fuel_setup;
    assert_eq!(instance.changed(abi::CHANGED_ALL, 0, fuel), Ok(false));
    (native, instance)
}

/// Writes the whole list.
pub(crate) fn write(instance: &mut Instance, servers: &List) {
    instance.set_count(servers.len()).unwrap();
    for (index, server) in servers.0.iter().enumerate() {
        instance.write_row(index, &row(servers, index, server));
    }
    write_facts(instance, servers);
}

fn row(servers: &List, index: usize, server: &Server) -> Row {
    let usable = servers.is_usable(index);
    let flags = [(usable, ROW_USABLE), (server.overloaded, ROW_OVERLOADED), (server.weight == 0, ROW_QUIESCED)];
    Row {
        weight: server.weight,
        active: server.active,
        total: server.total,
        flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum(),
        last_weight: server.last_weight,
        health: if usable { 100 } else { 0 },
        id: servers.id(index),
    }
}

fn write_facts(instance: &mut Instance, servers: &List) {
    for (index, server) in servers.0.iter().enumerate() {
        let (address, port) = server.address();
        let (conns_per_s, metric) = (server.conns_per_s, server.metric);
        let mut facts = Facts { address, port, family: 4, conns_per_s, metric, ..Facts::NONE };
        facts.tags[..server.tags.len()].copy_from_slice(server.tags.as_bytes());
        facts.tags_len = server.tags.len() as u32;
        instance.write_facts(index, &facts);
    }
}
