//! A service without a director: a list of servers and one scheduler, for native tests of schedulers.
//!
//! It tells the scheduler of the list, of health and of connections as the director does, and counts the connections
//! that its picks open. Nothing is checked here: a scheduler that answers with a server that is not there fails the
//! test with a panic, which is what a test wants.
//!
//! Invariant: everything repeats, the random numbers too. Not here: WebAssembly; this is for dev-dependencies only.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use xvs_sdk::{Change, Facts, Reals, Request, Rng, Scheduler};

/// What an IPv4 address begins with.
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];

/// A real server.
#[derive(Clone, Debug)]
pub struct Server {
    /// What the tests call it.
    pub name: char,
    /// Weight now.
    pub weight: i32,
    /// The last weight that was not 0, or the first one.
    pub last_weight: i32,
    /// Active connections.
    pub active: u32,
    /// All connections.
    pub total: u32,
    /// At its upper threshold?
    pub overloaded: bool,
    /// New connections a second, as the director sampled them.
    pub conns_per_s: u32,
    /// What an operator fed.
    pub metric: i64,
    /// Tags, as in `rack=7,zone=a`.
    pub tags: String,
}

impl Server {
    /// An idle one.
    pub fn new(name: char, weight: i32) -> Server {
        let last_weight = weight;
        let (active, total, overloaded, conns_per_s, metric, tags) = (0, 0, false, 0, 0, String::new());
        Server { name, weight, last_weight, active, total, overloaded, conns_per_s, metric, tags }
    }

    /// Its address: `A` is 192.168.0.65, and its port is 80.
    pub fn address(&self) -> ([u8; 16], u16) {
        let mut address = MAPPED;
        let number = 0xc0a8_0000 + self.name as u32;
        address[12..].copy_from_slice(&number.to_be_bytes());
        (address, 80)
    }

    /// Sets the weight and remembers the last one.
    pub fn set_weight(&mut self, weight: i32) {
        self.weight = weight;
        self.last_weight = if weight == 0 { self.last_weight } else { weight };
    }
}

/// A service's servers, the newest first.
#[derive(Clone, Debug, Default)]
pub struct List(pub Vec<Server>);

impl List {
    /// Servers of which a test cares for no more than weight, active connections, and whether they are at their
    /// thresholds.
    pub fn plain(servers: &[(i32, u32, bool)]) -> List {
        let server = |(name, &(weight, active, overloaded))| Server {
            active,
            total: active,
            overloaded,
            ..Server::new(name, weight)
        };
        List(('A'..).zip(servers).map(server).collect())
    }

    /// Where a server stands.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn at(&self, name: char) -> usize {
        self.0.iter().position(|server| server.name == name).expect("a server of this name")
    }
}

impl Reals for List {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, index: usize) -> i32 {
        self.0[index].weight
    }
    fn active(&self, index: usize) -> u32 {
        self.0[index].active
    }
    fn total(&self, index: usize) -> u32 {
        self.0[index].total
    }
    fn is_overloaded(&self, index: usize) -> bool {
        self.0[index].overloaded
    }
    fn last_weight(&self, index: usize) -> i32 {
        self.0[index].last_weight
    }
    fn address(&self, index: usize) -> ([u8; 16], u16) {
        self.0[index].address()
    }
    fn facts(&self, index: usize) -> Facts<'_> {
        let server = &self.0[index];
        let (conns_per_s, metric) = (server.conns_per_s, server.metric);
        Facts { conns_per_s, metric, tags: server.tags.as_bytes(), ..Facts::default() }
    }
}

/// A scheduler and its servers.
#[derive(Clone)]
pub struct Bench<S> {
    /// The scheduler.
    pub scheduler: S,
    /// Its servers. What is changed here directly, the scheduler does not hear of.
    pub servers: List,
    /// What the next request looks like. Its random number is drawn anew for each.
    pub request: Request,
    random: Rng,
}

impl<S: Scheduler + Default> Bench<S> {
    /// A service whose servers were added one after the other: the last one stands first.
    pub fn new(servers: &[(char, i32)]) -> Bench<S> {
        Bench::with("", servers).expect("a scheduler without options")
    }

    /// The same with options: lines `name=value`.
    ///
    /// # Errors
    /// The scheduler refuses the options: its sentence.
    pub fn with(options: &str, servers: &[(char, i32)]) -> Result<Bench<S>, &'static str> {
        let mut scheduler = S::default();
        scheduler.configure(options.as_bytes())?;
        let (request, random) = (Request::default(), Rng::new(1));
        let mut bench = Bench { scheduler, servers: List::default(), request, random };
        bench.scheduler.reals_changed(&bench.servers, Change::All);
        servers.iter().for_each(|&(name, weight)| bench.add(name, weight));
        Ok(bench)
    }
}

impl<S: Scheduler> Bench<S> {
    /// A server, to look at or to change without telling the scheduler.
    pub fn server(&mut self, name: char) -> &mut Server {
        let index = self.servers.at(name);
        &mut self.servers.0[index]
    }

    /// Adds a server.
    pub fn add(&mut self, name: char, weight: i32) {
        self.add_tagged(name, weight, "");
    }

    /// Adds a server with tags.
    pub fn add_tagged(&mut self, name: char, weight: i32, tags: &str) {
        self.servers.0.insert(0, Server { tags: tags.into(), ..Server::new(name, weight) });
        self.scheduler.reals_changed(&self.servers, Change::Added(0));
    }

    /// Removes a server.
    pub fn remove(&mut self, name: char) {
        let index = self.servers.at(name);
        self.servers.0.remove(index);
        self.scheduler.reals_changed(&self.servers, Change::Removed(index));
    }

    /// Sets a weight.
    pub fn edit(&mut self, name: char, weight: i32) {
        let index = self.servers.at(name);
        self.servers.0[index].set_weight(weight);
        self.scheduler.reals_changed(&self.servers, Change::Edited(index));
    }

    /// Sets tags.
    pub fn tag(&mut self, name: char, tags: &str) {
        let index = self.servers.at(name);
        self.servers.0[index].tags = tags.into();
        self.scheduler.reals_changed(&self.servers, Change::Edited(index));
    }

    /// Has a server reach its upper threshold, or leave it.
    pub fn overload(&mut self, name: char, overloaded: bool) {
        let index = self.servers.at(name);
        self.servers.0[index].overloaded = overloaded;
        self.scheduler.health_changed(&self.servers, index);
    }

    /// Sets a server's number of connections, all active.
    pub fn load(&mut self, name: char, active: u32) {
        let index = self.servers.at(name);
        let before = self.servers.0[index].total;
        self.servers.0[index].active = active;
        self.servers.0[index].total = active;
        self.scheduler.connections_changed(&self.servers, index, active.wrapping_sub(before) as i32);
    }

    /// Has the next request come from an address of 10.0.0.0/8.
    pub fn from(&mut self, client: u32, port: u16) -> &mut Self {
        self.request.client = MAPPED;
        self.request.client[12..].copy_from_slice(&(0x0a00_0000 + client).to_be_bytes());
        self.request.client_port = port;
        self
    }

    /// Who would get the next request. No connection is counted.
    pub fn ask(&mut self) -> Option<char> {
        self.request.random = self.random.next_u64();
        let index = self.scheduler.pick(&self.request, &self.servers)?;
        Some(self.servers.0[index].name)
    }

    /// Who gets the next request; the connection stays open.
    pub fn serve(&mut self) -> Option<char> {
        let name = self.ask()?;
        let active = self.server(name).active;
        self.load(name, active + 1);
        Some(name)
    }

    /// The names of the next servers, `-` for none; their connections stay open.
    pub fn picks(&mut self, count: usize) -> String {
        (0..count).map(|_| self.serve().unwrap_or('-')).collect()
    }

    /// Who would get the first connections of so many clients of 10.0.0.0/8. No connection is counted.
    pub fn clients(&mut self, count: u32) -> Vec<Option<char>> {
        (0..count).map(|client| self.from(client, 40_000).ask()).collect()
    }
}

/// How many of the picks a server got.
pub fn share(picks: &[Option<char>], name: char) -> usize {
    picks.iter().filter(|&&picked| picked == Some(name)).count()
}
