//! One scheduler's service, its servers and their numbers of connections, driven by hand.
//!
//! It does what a worker does for a new connection and nothing else: takes the service's turn, picks, binds; later the
//! connection becomes inactive and is unbound. The engine's own [`Arena`] and [`Service`] keep the list, the weights,
//! the thresholds and the lock. Changes of the list go the same way as an operator's.
//!
//! Invariant: what was opened is closed once, unless the server broke in between (its epoch tells). Not here: time.

use std::sync::Arc;

use xvs_engine::flow::{Family, Flow, HashKey};
use xvs_engine::real::{Arena, Generation, Method, RealId, Settings};
use xvs_engine::sched::guest::Site;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_host::{Fault, Post, PostStatus};
use xvs_sdk::{Request, abi};

use super::contestant::Contestant;
use super::event::{Change, Event};
use super::lineup::Lineup;

/// The key of flow hashes: fixed, so that a simulation repeats.
const KEY: [u8; 32] = [0x78; 32];

/// How a server stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// In the list?
    present: bool,
    /// Has it failed?
    down: bool,
    /// The weight that the operator wants.
    weight: i32,
    upper: u32,
    lower: u32,
    speed: f64,
    capacity: u32,
    /// How often it broke.
    epoch: u32,
}

/// A scheduler with its servers.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    lineup: &'a Lineup,
    contestant: &'a Contestant,
    arena: Arena,
    service: Service,
    standing: Vec<Standing>,
    key: HashKey,
    /// A plugin's post beside the service.
    post: Option<Arc<Post>>,
    /// New connections a second, by server: sampled and smoothed as in a director.
    rates: Vec<f64>,
}

impl<'a> Stage<'a> {
    /// The servers as the lineup has them at the beginning.
    ///
    /// # Errors
    /// The plugin refuses its options or its servers.
    pub(super) fn new(contestant: &'a Contestant, lineup: &'a Lineup, key: ServiceKey) -> Result<Self, Fault> {
        let standing = lineup.servers().iter().map(|server| Standing {
            present: server.present,
            down: false,
            weight: server.weight,
            upper: server.upper,
            lower: server.lower,
            speed: server.speed,
            capacity: server.capacity,
            epoch: 0,
        });
        let mut stage = Self::empty(contestant, lineup, key, standing.collect());
        for server in 0..stage.standing.len() {
            if stage.standing[server].present {
                stage.join(server);
            }
        }
        stage.engage(0)?;
        Ok(stage)
    }

    fn empty(contestant: &'a Contestant, lineup: &'a Lineup, key: ServiceKey, standing: Vec<Standing>) -> Self {
        let policy = Policy { flags: contestant.flags(), ..Policy::default() };
        let service = Service::new(0, key, contestant.scheduler(), policy);
        let arena = Arena::new(standing.len(), Generation::New);
        let rates = vec![0.0; standing.len()];
        Stage { lineup, contestant, arena, service, standing, key: HashKey::from_bytes(KEY), post: None, rates }
    }

    /// Puts the plugin to work, if it is one.
    fn engage(&mut self, now_ms: u64) -> Result<(), Fault> {
        let Some(plugin) = self.contestant.plugin() else { return Ok(()) };
        let post = Post::new(1, plugin.seed);
        self.post = Some(post.clone());
        // Before it hears of the servers: that is when it reads their tags.
        self.tell_facts();
        self.service.with_site(&self.arena, |site| {
            post.tick(site, now_ms);
            post.set_live(site, Some(plugin.version.clone()), &plugin.options)
        })?;
        self.service.set_guest(post);
        Ok(())
    }

    /// Tells what is known of all servers, of those too that are not in the list yet: a plugin knows them when it hears
    /// that they came.
    fn tell_facts(&self) {
        let Some(post) = &self.post else { return };
        let facts = |id: RealId| {
            let mut facts = abi::Facts { conns_per_s: self.rates[id.0 as usize] as u32, ..abi::Facts::NONE };
            let tags = self.lineup.servers()[id.0 as usize].tags.as_bytes();
            facts.tags[..tags.len()].copy_from_slice(tags);
            facts.tags_len = tags.len() as u32;
            facts
        };
        let all: Vec<RealId> = (0..self.standing.len()).map(id).collect();
        self.service.with_site(&self.arena, |site| post.set_facts(&Site { members: &all, ..*site }, &facts));
    }

    /// Is it a plugin, which wants to be looked after?
    pub(super) fn is_plugin(&self) -> bool {
        self.post.is_some()
    }

    /// Does what the control side does often: replaces what broke, ends quarantines. Nothing without a plugin.
    pub(super) fn tick(&self, now_ms: u64) {
        if let Some(post) = &self.post {
            self.service.with_site(&self.arena, |site| post.tick(site, now_ms));
        }
    }

    /// Samples the rates: so many connections began at each server in `seconds`.
    pub(super) fn sample(&mut self, begun: &[u64], seconds: f64) {
        for (rate, &begun) in self.rates.iter_mut().zip(begun) {
            *rate += (begun as f64 / seconds - *rate) / 4.0;
        }
        self.tell_facts();
    }

    /// How the plugin did, if it is one.
    pub(super) fn status(&self) -> Option<PostStatus> {
        self.post.as_ref().map(|post| post.status())
    }

    /// Another director with the same list, weights and numbers of connections. Its scheduler is of the same kind and
    /// just told of them, so nothing that is done to it is felt here.
    ///
    /// # Errors
    /// There can be no second instance of the plugin.
    pub(super) fn rehearse(&self, now_ms: u64) -> Result<Stage<'a>, Fault> {
        let mut other = Self::empty(self.contestant, self.lineup, self.service.key, self.standing.clone());
        for id in self.service.members().into_iter().rev() {
            other.join(id.0 as usize);
            let counts = self.arena.get(id).counts();
            for number in 0..counts.total {
                other.open(id.0 as usize, number < counts.active);
            }
        }
        other.rates.clone_from(&self.rates);
        other.engage(now_ms)?;
        Ok(other)
    }

    fn settings(&self, server: usize) -> Settings {
        let Standing { down, weight, upper, lower, .. } = self.standing[server];
        Settings {
            endpoint: self.lineup.servers()[server].address.into(),
            method: Method::Dr,
            tunnel: Default::default(),
            weight: if down { 0 } else { weight },
            upper,
            lower,
        }
    }

    /// Puts a server into the list, in front of all others.
    fn join(&mut self, server: usize) {
        let real = self.arena.get(id(server));
        let settings = self.settings(server);
        // A record that connections refer to is revived as it is, as the director does.
        if real.is_idle() {
            real.reset(&settings);
        } else {
            real.set(&settings);
        }
        real.set_added_weight(settings.weight);
        self.standing[server].present = true;
        self.service.add(&self.arena, id(server));
    }

    /// What the scheduler is asked for a flow, `now_ms` milliseconds after some start.
    pub(super) fn request(&self, flow: &Flow, now_ms: u64) -> Request {
        Request {
            client: flow.src.address.octets16(),
            virtual_address: flow.dst.address.octets16(),
            client_port: flow.src.port,
            virtual_port: flow.dst.port,
            protocol: flow.protocol.0,
            family: if flow.family() == Family::Inet { 4 } else { 6 },
            hash: self.key.hash(flow).0,
            now_ms,
            ..Request::default()
        }
    }

    /// Asks the scheduler; nothing is bound.
    pub(super) fn pick(&self, request: &Request) -> Option<usize> {
        self.service.turn().pick(&self.arena, request).map(|id| id.0 as usize)
    }

    /// A connection begins at a server.
    pub(super) fn open(&self, server: usize, active: bool) {
        let real = self.arena.get(id(server));
        real.bind();
        if active {
            real.set_active(true);
        }
    }

    /// A connection is inactive from now on.
    pub(super) fn quiet(&self, server: usize) {
        self.arena.get(id(server)).set_active(false);
    }

    /// A connection is forgotten.
    pub(super) fn close(&self, server: usize, active: bool) {
        self.arena.get(id(server)).unbind(active);
    }

    /// How often a server broke. A connection of an earlier epoch is gone.
    pub(super) fn epoch(&self, server: usize) -> u32 {
        self.standing[server].epoch
    }

    /// How many times as long a connection lasts that begins at this server now, of which `live` are alive there.
    pub(super) fn stretch(&self, server: usize, live: u32) -> f64 {
        let Standing { speed, capacity, .. } = self.standing[server];
        let crowd = if capacity == 0 { 1.0 } else { (f64::from(live) / f64::from(capacity)).max(1.0) };
        crowd / speed
    }

    /// The weight by which a server takes new connections: 0 if it takes none.
    pub(super) fn weight(&self, server: usize) -> i32 {
        let Standing { present, down, weight, .. } = self.standing[server];
        if present && !down { weight } else { 0 }
    }

    /// An event happens.
    pub(super) fn apply(&mut self, event: &Event) {
        let server = event.server;
        let standing = &mut self.standing[server];
        match event.change {
            Change::Down => standing.down = true,
            Change::Up => standing.down = false,
            Change::Weight(weight) => standing.weight = weight,
            Change::Threshold(upper, lower) => (standing.upper, standing.lower) = (upper, lower),
            // The scheduler hears nothing of that: it can only see it.
            Change::Speed(speed) => return standing.speed = speed,
            Change::Add(weight) => {
                (standing.weight, standing.down) = (weight, false);
                return self.join(server);
            }
            Change::Remove => {
                standing.present = false;
                return self.service.remove(&self.arena, id(server));
            }
        }
        let settings = self.settings(server);
        let real = self.arena.get(id(server));
        self.service.change(&self.arena, id(server), || real.set(&settings));
        if event.change == Change::Down {
            self.standing[server].epoch += 1;
            let counts = real.counts();
            for number in 0..counts.total {
                real.unbind(number < counts.active);
            }
        }
    }
}

fn id(server: usize) -> RealId {
    RealId(server as u32)
}
