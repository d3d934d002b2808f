//! A director full of connections, and packets of theirs, at random.
//!
//! The clock of the director goes as fast as the processor time that its breaths took ([`Load::breathe_timed`]), so it
//! does as much of what goes by time (looking for expired connections, noting when one was last seen) as at full speed.
//! Where nothing may depend on how fast the machine is, it goes a millisecond for 4096 packets ([`Load::breathe_counted`]).
//!
//! Invariant: every packet is forwarded; one that is dropped or left behind ends the bench.

use std::sync::Arc;

use xvs_engine::conn::Conn;
use xvs_engine::engine::Shared;
use xvs_engine::flow::{Address, Endpoint, Flow, Protocol};
use xvs_engine::hop::Port;
use xvs_engine::real::Method;
use xvs_engine::service::Service;
use xvs_engine::time::Now;
use xvs_engine::worker::Worker;

use super::common::packet::{ACK, SYN, verify};
use super::common::site::{CLIENTS, SERVERS, Site, VIP4, VIP6};
use super::stream::{SERVER_PORT, SMALLEST, Stream, client4, client6};
use super::timing::{Random, cpu_ns};
use super::umem::Umem;

/// Packets that arrive at a time.
pub const ARRIVALS: usize = 4096;
/// Packets of a breath, unless a bench sets [`Umem::batch`] lower.
pub const BATCH: usize = 64;

/// What the director is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub is_v4: bool,
    pub method: Method,
    pub scheduler: &'a str,
    pub servers: u32,
    /// Live connections, and how many fit.
    pub connections: u32,
    pub capacity: u32,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan {
            is_v4: true,
            method: Method::Dr,
            scheduler: "wrr",
            servers: 16,
            connections: 1000,
            capacity: capacity_for(1000),
        }
    }
}

/// Room for so many connections, and for new ones.
pub const fn capacity_for(connections: u32) -> u32 {
    connections + connections / 8 + (1 << 17)
}

/// A worker whose table is full of established connections.
pub struct Load {
    pub worker: Worker<Umem>,
    pub shared: Arc<Shared>,
    /// The service that all connections are of.
    pub service: Arc<Service>,
    plan: Plan<'static>,
    /// Nanoseconds since the director's start.
    clock: u64,
    random: Random,
    /// Last byte of the server's address, of each connection.
    servers: Vec<u8>,
    /// The next client that has no connection.
    newcomer: u32,
}

impl Load {
    /// Makes the director, and its connections, which have talked: each has had ten packets, most of them the last one within the
    /// last second.
    pub fn new(plan: Plan<'static>) -> Self {
        let mut load = Self::of_young(plan);
        for _ in 0..8 {
            load.all_say(&[ACK]);
        }
        load
    }

    /// The same with young connections: they have had two packets each, and these seconds ago.
    pub fn of_young(plan: Plan<'static>) -> Self {
        let mut site = Site::new(plan.capacity);
        // NICs, not virtual devices.
        site.interfaces.iter_mut().for_each(|interface| interface.partial = false);
        let vip = if plan.is_v4 { VIP4 } else { VIP6 };
        let service = site.add_service(Protocol::TCP, vip, plan.scheduler);
        for number in 1..=plan.servers {
            let server = match plan.is_v4 {
                true => format!("10.0.{}.{}:{SERVER_PORT}", number >> 8, number & 255),
                false => format!("[fd00::{:x}]:{SERVER_PORT}", number),
            };
            site.add_real_with(service, &server, plan.method, |real| real.weight = 1 + number as i32 % 4);
        }
        let (shared, clock) = (site.shared.clone(), site.now.millis() * 1_000_000);
        let service = site.services[service].clone();
        let mut worker = site.into_worker(Umem::new(), BATCH);
        worker.rings.batch = BATCH;
        let (servers, newcomer) = (Vec::new(), plan.connections);
        let mut load = Load { worker, shared, service, plan, clock, random: Random::new(), servers, newcomer };
        load.open();
        load
    }

    /// A packet from each client with each of these flags.
    fn all_say(&mut self, flags: &[u8]) {
        let Plan { is_v4, connections, .. } = self.plan;
        let streams: Vec<_> = flags.iter().map(|&flags| Stream::from_clients(is_v4, flags, SMALLEST)).collect();
        for first in (0..connections).step_by(ARRIVALS) {
            let count = ARRIVALS.min((connections - first) as usize);
            for stream in &streams {
                let mut client = first;
                self.worker.rings.arrive(CLIENTS, count, |into| {
                    client += 1;
                    stream.write(client - 1, 0, into)
                });
                self.breathe(count);
            }
        }
    }

    fn open(&mut self) {
        let connections = self.plan.connections;
        self.all_say(&[SYN, ACK]);
        assert_eq!(self.shared.table.len(), connections);
        self.servers = (0..connections)
            .map(|client| {
                let conn = self.conn(client).expect("it was opened");
                assert_eq!(conn.status().state, 1, "established");
                conn.server().address.bits() as u8
            })
            .collect();
        // No connection was seen in the last seconds, and the search for expired ones has caught up.
        for _ in 0..8 {
            self.clock += 250_000_000;
            for _ in 0..1 + connections / 1024 {
                self.worker.engine.expire(self.now());
            }
        }
        assert_eq!(self.shared.table.len(), connections);
    }

    fn now(&self) -> Now {
        Now::from_millis(self.clock / 1_000_000)
    }

    /// The connection of a client.
    fn conn(&self, client: u32) -> Option<Conn<'_>> {
        let (src, dst) = if self.plan.is_v4 {
            let (address, port) = client4(client);
            (Endpoint::new(Address::v4(address), port), VIP4)
        } else {
            let (address, port) = client6(client);
            (Endpoint::new(Address::v6(address), port), VIP6)
        };
        let dst = dst.parse::<std::net::SocketAddr>().expect("an address").into();
        let flow = Flow { protocol: Protocol::TCP, src, dst };
        let table = &self.shared.table;
        table.lookup(&flow, table.hash(&flow)).map(|(conn, _)| conn)
    }

    /// Packets of random connections arrive, each as one of these streams has it, in turn.
    pub fn arrive(&mut self, streams: &[Stream]) {
        let Load { worker, random, servers, .. } = self;
        let port = if streams[0].is_from_servers() { SERVERS } else { CLIENTS };
        let mut turn = streams.iter().cycle();
        worker.rings.arrive(port, ARRIVALS, |into| {
            let client = random.below(servers.len() as u32);
            turn.next().expect("it has no end").write(client, servers[client as usize], into)
        });
    }

    /// First packets of new connections arrive.
    pub fn arrive_new(&mut self, stream: &Stream) {
        let Load { worker, newcomer, .. } = self;
        worker.rings.arrive(CLIENTS, ARRIVALS, |into| {
            *newcomer += 1;
            stream.write(*newcomer - 1, 0, into)
        });
    }

    /// Forwards all that has arrived; gives the nanoseconds that it took.
    pub fn breathe_timed(&mut self, arrived: usize) -> u64 {
        let sent = self.sent();
        let start = cpu_ns();
        self.breaths(arrived);
        let spent = cpu_ns() - start;
        self.clock += spent;
        self.must_have_sent(sent, arrived);
        spent
    }

    /// Forwards all that has arrived.
    pub fn breathe(&mut self, arrived: usize) {
        self.breathe_by(arrived, Self::breaths);
    }

    /// The same, where callgrind counts.
    pub fn breathe_counted(&mut self, arrived: usize) {
        self.breathe_by(arrived, Self::counted_breaths);
    }

    fn breathe_by(&mut self, arrived: usize, breaths: fn(&mut Self, usize)) {
        let sent = self.sent();
        breaths(self, arrived);
        self.clock += 1_000_000 * arrived as u64 / ARRIVALS as u64;
        self.must_have_sent(sent, arrived);
    }

    /// Callgrind knows it by its name.
    #[inline(never)]
    fn counted_breaths(&mut self, arrived: usize) {
        self.breaths(arrived);
    }

    fn breaths(&mut self, arrived: usize) {
        let now = self.now();
        for _ in 0..arrived.div_ceil(self.worker.rings.batch) {
            self.worker.step(now);
        }
    }

    fn sent(&self) -> u64 {
        self.worker.engine.counters().transmitted.get()
    }

    fn must_have_sent(&self, before: u64, arrived: usize) {
        assert_eq!(self.sent() - before, arrived as u64, "{:?}", self.worker.engine.counters().named());
    }

    /// Ends the connections that were not there at the start.
    pub fn forget_new(&mut self) {
        for client in self.plan.connections..self.newcomer {
            let mut conn = self.conn(client).expect("it was opened");
            assert!(self.shared.table.remove(&mut conn));
            self.shared.settle(&conn);
        }
        self.newcomer = self.plan.connections;
    }

    /// The packets that were sent last are right, and leave by the device that they should.
    pub fn check_sent(&self) {
        let rings = &self.worker.rings;
        assert!(!rings.sent.is_empty());
        for &descriptor in &rings.sent {
            let packet = rings.sent_packet(descriptor);
            if let Err(error) = verify(packet) {
                panic!("{error}: {packet:02x?}");
            }
        }
    }

    /// Where clients' packets come in, and servers'.
    pub const PORTS: [Port; 2] = [CLIENTS, SERVERS];
}
