//! A deterministic simulation: two workers as values over one state, rings that misbehave, a configuration that changes
//! between any two breaths, next hops that come and go, clients and servers that talk. One seed decides everything,
//! time is virtual, and after every breath the invariants of `ARCHITECTURE.md` are checked.
//!
//! A failure prints its seed; `XVS_SEED=n cargo test -p xvs-engine --test simulation` plays it again.

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use common::packet::*;
use common::site::*;
use xvs_engine::counters::Counters;
use xvs_engine::flow::Protocol;
use xvs_engine::real::{Method, RealId};
use xvs_engine::rings::Rings;
use xvs_engine::rings::fault::FaultRings;
use xvs_engine::rings::memory::MemoryRings;
use xvs_engine::time::Now;
use xvs_engine::wire::{Fragment, Headers};
use xvs_engine::worker::Worker;

const WORKERS: usize = 2;
const SERVERS_EACH: u8 = 4;
/// Frames of a worker: few enough that reception runs dry.
const FRAMES: u32 = 48;
/// Some of them are kept for packets that are cut.
const SPARE: usize = 4;

/// A real server as the simulation knows it.
struct Server {
    id: RealId,
    service: usize,
    hop: xvs_engine::hop::HopId,
    member: bool,
    weight: i32,
}

struct Simulation {
    site: Site,
    workers: Vec<Worker<FaultRings<MemoryRings>>>,
    dice: FaultRings<()>,
    servers: Vec<Server>,
    /// Where each client's connection went first.
    went_to: HashMap<SocketAddr, u8>,
    open: Vec<Ip>,
    next_client: u32,
    next_id: u16,
    delivered: u64,
    /// Later fragments that left.
    later: u64,
    /// Ends connections behind the engine's back: a bug that the simulation must find.
    sabotage: bool,
}

impl Simulation {
    fn new(seed: u64, connections: u32) -> Self {
        let mut site = Site::new(connections);
        let mut servers = Vec::new();
        for (vip, protocol, scheduler) in [
            (VIP4, Protocol::TCP, "wrr"),
            (VIP4, Protocol::UDP, "rr"),
            (VIP6, Protocol::TCP, "wlc"),
            (VIP6, Protocol::UDP, "lc"),
        ] {
            let service = site.add_service(protocol, vip, scheduler);
            for last in 1..=SERVERS_EACH {
                let server = if vip == VIP4 { format!("10.0.0.{last}:8080") } else { format!("[fd00::{last}]:8080") };
                let method = [Method::Nat, Method::Dr, Method::Tun, Method::Nat][usize::from(last) - 1];
                let id = site.add_real(service, &server, method);
                let hop = site.hop(if vip == VIP4 { server.split(':').next().unwrap() } else { &server[1..8] });
                servers.push(Server { id, service, hop, member: true, weight: 1 });
            }
        }
        let workers = (0..WORKERS).map(|worker| {
            let counters = Arc::new(Counters::new(REALS));
            let engine = xvs_engine::engine::Engine::new(
                site.shared.clone(),
                site.snapshot(),
                counters,
                worker as u32,
                WORKERS as u32,
            );
            let mut rings = memory_rings(FRAMES);
            rings.set_room(SERVERS, 12);
            rings.set_spare(SPARE);
            Worker::new(engine, FaultRings::new(rings, seed ^ (worker as u64 + 1) << 32), 16)
        });
        let workers = workers.collect();
        Simulation {
            site,
            workers,
            dice: FaultRings::new((), seed),
            servers,
            went_to: HashMap::new(),
            open: Vec::new(),
            next_client: 0,
            next_id: 0,
            delivered: 0,
            later: 0,
            sabotage: false,
        }
    }

    fn draw(&mut self, bound: usize) -> usize {
        self.dice.draw(bound as u64) as usize
    }

    /// Gives a packet to some worker, as RSS would: to any.
    fn arrive(&mut self, port: xvs_engine::hop::Port, frame: Vec<u8>) {
        let worker = self.draw(WORKERS);
        self.workers[worker].rings.inner.put(port, frame);
    }

    /// A client does something: opens, talks, closes, or is a nuisance.
    fn client(&mut self) {
        let packet = match self.draw(8) {
            0..3 => {
                self.next_client += 1;
                let (v4, port) = (self.draw(2) == 0, 1024 + self.next_client % 60_000);
                let client = if v4 { format!("198.51.100.7:{port}") } else { format!("[2001:db8:c::7]:{port}") };
                let vip = if v4 { VIP4 } else { VIP6 };
                let packet = if self.draw(2) == 0 { tcp(&client, vip, SYN) } else { udp(&client, vip, b"hello") };
                self.open.push(packet.clone());
                packet
            }
            3..7 if !self.open.is_empty() => {
                let index = self.draw(self.open.len());
                let packet = self.open[index].clone();
                match packet.body {
                    Body::Udp { .. } => packet,
                    Body::Tcp { sequence, .. } => {
                        let flags = [ACK, ACK, ACK, FIN | ACK, RST][self.draw(5)];
                        if flags != ACK {
                            self.open.swap_remove(index); // never used again, so a connection has one server
                        }
                        Ip { body: Body::Tcp { flags, sequence }, ..packet }
                    }
                    Body::Sctp { .. } | Body::Raw(_) => packet,
                }
            }
            _ => match self.draw(4) {
                0 => tcp("198.51.100.9:99", VIP4, ACK),
                1 => tcp("198.51.100.9:98", VIP4, SYN).ttl(1),
                2 => udp("198.51.100.9:97", "192.0.2.1:9", b"no service"),
                _ => udp(CLIENT6, VIP6, &vec![0; 1453]),
            },
        };
        if matches!(packet.body, Body::Udp { .. }) && self.draw(4) == 0 {
            return self.fragments(packet);
        }
        let mut bytes = packet.payload(vec![7; self.draw(64)]).bytes();
        if self.draw(4) == 0 {
            make_partial(&mut bytes);
        }
        self.arrive(CLIENTS, from_client(&bytes));
    }

    /// A datagram comes in fragments, in any order and now and then not all of them, on any queues; or whole, and is too
    /// large for a tunnel.
    fn fragments(&mut self, packet: Ip) {
        self.next_id = self.next_id.wrapping_add(1);
        let packet = Ip { id: self.next_id, ..packet.may_fragment() };
        if packet.src.is_ipv4() && self.draw(2) == 0 {
            return self.arrive(CLIENTS, from_client(&packet.payload(vec![3; 1460]).bytes()));
        }
        let mut pieces = packet.payload(vec![7; 300 + self.draw(64)]).fragments_at(&[104, 200]);
        while !pieces.is_empty() {
            let piece = pieces.swap_remove(self.draw(pieces.len()));
            if self.draw(8) != 0 {
                self.arrive(CLIENTS, from_client(&piece));
            }
        }
    }

    /// The operator or the network changes something.
    fn change(&mut self) {
        let index = self.draw(self.servers.len());
        let action = self.draw(8);
        let server = &mut self.servers[index];
        let (service, arena) = (&self.site.services[server.service], &self.site.shared.arena);
        match action {
            0 if server.member => {
                service.remove(arena, server.id);
                server.member = false;
            }
            0 | 1 if !server.member => {
                service.add(arena, server.id);
                server.member = true;
            }
            2 | 3 => {
                server.weight = if server.weight == 0 { 1 + index as i32 % 3 } else { 0 };
                let real = arena.get(server.id);
                let endpoint = real.endpoint();
                let (method, weight) = (real.method(), server.weight);
                let settings =
                    xvs_engine::real::Settings { endpoint, method, tunnel: real.tunnel(), weight, upper: 0, lower: 0 };
                service.change(arena, server.id, || real.set(&settings));
            }
            4 => self.site.shared.hops.forget(server.hop),
            5 => self.site.shared.hops.fail(server.hop),
            _ => {
                let mac = [2, 0, 0, self.next_client as u8, 0x10, index as u8 % SERVERS_EACH + 1];
                self.site.shared.hops.resolve(server.hop, mac);
            }
        }
        if self.draw(3) == 0 {
            let snapshot = self.site.snapshot();
            let worker = self.draw(WORKERS);
            let _old = self.workers[worker].engine.swap(snapshot);
        }
    }

    /// One breath of one worker, with everything that must hold after it.
    fn breathe(&mut self, index: usize, now: Now) -> Result<(), String> {
        let worker = &mut self.workers[index];
        let before: Vec<_> = self.servers.iter().map(|server| worker.engine.counters().real(server.id)).collect();
        worker.step(now);
        let counters = worker.engine.counters();
        for (server, before) in self.servers.iter().zip(before) {
            let after = counters.real(server.id);
            if after.conns != before.conns && !(server.member && server.weight > 0) {
                return Err(format!("{:?} got a connection that it should not", server.id));
            }
            if after.in_packets != before.in_packets && !server.member {
                return Err(format!("{:?} is removed and got a packet", server.id));
            }
        }
        let ledger = worker.rings.ledger();
        if !ledger.is_balanced() || ledger.lent as usize != worker.held() + worker.backlog() {
            return Err(format!("frames are not conserved: {ledger:?}"));
        }
        let waiting = (worker.held() + worker.backlog()) as u64;
        let made = counters.fragments_made.get() - counters.split.get();
        let (came, went) = (
            counters.received.get() + counters.icmp_sent.get() + counters.resets_sent.get() + made,
            counters.transmitted.get() + counters.dropped.get() + waiting,
        );
        if came != went {
            return Err(format!("packets are not accounted for: {came} came, {went} went"));
        }
        self.deliver(index)
    }

    /// Packets reach their servers, which answer, and their clients.
    fn deliver(&mut self, index: usize) -> Result<(), String> {
        for port in [CLIENTS, SERVERS] {
            while let Some(frame) = self.workers[index].rings.inner.take(port) {
                verify(&frame).map_err(|wrong| format!("a packet left with a wrong {wrong}"))?;
                let outer = Headers::parse(&frame).map_err(|reason| format!("{reason:?} left"))?;
                let is_later = |headers: &Headers| matches!(headers.fragment, Fragment::Later(_));
                let inner = match outer.flow.protocol {
                    _ if is_later(&outer) => outer,
                    Protocol::IPV4 | Protocol::IPV6 => Headers::parse_quoted(&frame[outer.l4..]).unwrap(),
                    _ => outer,
                };
                if is_later(&inner) {
                    self.later += 1;
                    continue; // it has no ports to tell whose it is
                }
                let (src, dst) = (SocketAddr::from(inner.flow.src), SocketAddr::from(inner.flow.dst));
                if port == CLIENTS {
                    let from_vip = [VIP4, VIP6].iter().any(|vip| vip.parse::<SocketAddr>().unwrap().ip() == src.ip());
                    if !from_vip {
                        return Err(format!("a client sees {src}"));
                    }
                    continue;
                }
                self.delivered += 1;
                let server = frame[5];
                let first = *self.went_to.entry(src).or_insert(server);
                if first != server {
                    return Err(format!("{src} went to server {first} and now goes to {server}"));
                }
                if dst.port() == 8080 {
                    let answer = match inner.flow.protocol {
                        Protocol::TCP => tcp(&dst.to_string(), &src.to_string(), ACK | SYN),
                        _ => udp(&dst.to_string(), &src.to_string(), b"answer"),
                    };
                    self.arrive(SERVERS, from_server(server, &answer.bytes()));
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, rounds: usize) -> Result<(), String> {
        let mut now = Now::from_secs(10);
        for _ in 0..rounds {
            for _ in 0..self.draw(12) {
                self.client();
            }
            if self.draw(4) == 0 {
                self.change();
            }
            now = now.plus_millis(self.draw(60) as u64);
            let worker = self.draw(WORKERS);
            self.breathe(worker, now)?;
            if self.sabotage && self.draw(8) == 0 {
                let table = &self.site.shared.table;
                if let Some(mut conn) = table.iter().next() {
                    let _ = table.remove(&mut conn);
                    self.site.shared.settle(&conn);
                }
            }
        }
        self.drain(now)
    }

    /// Everybody falls silent: all frames come home, all connections end, and all counts go back to 0.
    fn drain(&mut self, mut now: Now) -> Result<(), String> {
        for _ in 0..6000 {
            now = now.plus_millis(500);
            for worker in 0..WORKERS {
                self.breathe(worker, now)?;
            }
        }
        for worker in &mut self.workers {
            worker.rings.inner.replenish();
            let ledger = worker.rings.ledger();
            if ledger.fill + ledger.free != ledger.total || ledger.free > SPARE as u64 {
                return Err(format!("frames did not come home: {ledger:?}"));
            }
        }
        if !self.site.shared.table.is_empty() {
            return Err(format!("{} connections live on", self.site.shared.table.len()));
        }
        let counts = |server: &Server| self.site.shared.arena.get(server.id).counts();
        match self.servers.iter().find(|server| counts(server).total != 0 || counts(server).active != 0) {
            Some(server) => Err(format!("{:?} counts {:?}", server.id, counts(server))),
            None => Ok(()),
        }
    }
}

impl Drop for Simulation {
    /// A simulation that failed has frames on their way.
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(Worker::finish);
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("XVS_SEED") {
        Ok(seed) => vec![seed.parse().expect("XVS_SEED is a number")],
        Err(_) => (1..=if cfg!(debug_assertions) { 8 } else { 40 }).collect(),
    }
}

/// Frames and packets are conserved, every packet that leaves is valid, no live connection changes its server, no
/// quiesced or removed server gets a new one, and in the end every count is 0: under every fault, for every seed.
#[test]
fn nothing_is_lost_or_moved() {
    for seed in seeds() {
        let mut simulation = Simulation::new(seed, 1 << 15);
        if let Err(wrong) = simulation.run(3000) {
            panic!("seed {seed}: {wrong}");
        }
        assert!(simulation.delivered > 1000, "seed {seed} did too little: {}", simulation.delivered);
        let sum = |count: fn(&Counters) -> u64| -> u64 {
            simulation.workers.iter().map(|worker| count(worker.engine.counters())).sum()
        };
        let (held, split) = (sum(|counters| counters.fragments_held.get()), sum(|counters| counters.split.get()));
        assert!(
            held > 50 && split > 10 && simulation.later > 200,
            "seed {seed}: {held}, {split}, {}",
            simulation.later
        );
    }
}

/// The same with a table that is always full: half-open connections give way, new ones are refused, counts stay right.
#[test]
fn a_full_table_loses_no_count() {
    for seed in seeds() {
        let mut simulation = Simulation::new(seed, 40);
        if let Err(wrong) = simulation.run(2000) {
            panic!("seed {seed}: {wrong}");
        }
        let evicted: u64 = simulation.workers.iter().map(|worker| worker.engine.counters().evicted.get()).sum();
        assert!(evicted > 10, "seed {seed}: {evicted}");
    }
}

/// A simulation that never fails proves nothing: this one has a bug put in, and must find it.
#[test]
fn a_planted_bug_is_found() {
    let found = seeds().into_iter().any(|seed| {
        let mut simulation = Simulation::new(seed, 1 << 12);
        simulation.sabotage = true;
        simulation.run(2000).is_err_and(|wrong| wrong.contains("now goes to"))
    });
    assert!(found);
}
