//! A director for tests: two interfaces, a route to everywhere, services and real servers, and time by hand.
//!
//! ```text
//! clients -- gateway (GATEWAY) ==[port 0, FRONT]== director ==[port 1, BACK]== 10.0.0.N, fd00::N (server_mac(N))
//! ```
//! VIPs are 192.0.2.1 and 2001:db8::1; tunnels start from 10.0.0.254 and fd00::fe.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xvs_engine::counters::Counters;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Engine, Shared, Sizes, Tally, Verdict};
use xvs_engine::flow::{Address, Family, HashKey, Protocol};
use xvs_engine::hop::{HopId, Interface, InterfaceId, Port, Tagging};
use xvs_engine::real::{Generation, Method, Path, RealId, Settings};
use xvs_engine::rings::Rings;
use xvs_engine::rings::memory::{HEADROOM, MemoryRings};
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_engine::snapshot::Snapshot;
use xvs_engine::time::Now;
use xvs_engine::tunnel::Tunnel;
use xvs_engine::wire::{Mac, Packet};
use xvs_engine::worker::Worker;

use super::packet::{BACK, FRONT, GATEWAY, server_mac};

pub const CLIENTS: Port = Port(0);
pub const SERVERS: Port = Port(1);
pub const VIP4: &str = "192.0.2.1:80";
pub const VIP6: &str = "[2001:db8::1]:80";
pub const CLIENT4: &str = "198.51.100.7:40000";
pub const CLIENT6: &str = "[2001:db8:c::7]:40000";

/// An address from its text.
pub fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// A director and what tests change of it.
pub struct Site {
    pub shared: Arc<Shared>,
    pub services: Vec<Arc<Service>>,
    pub interfaces: Vec<Interface>,
    pub engine: Engine,
    pub now: Now,
    pub gateways: [HopId; 2],
    next_real: u32,
    workers: u32,
}

/// The director's addresses towards the real servers.
pub const DIP: [&str; 2] = ["10.0.0.254", "fd00::fe"];

/// The numbers of real servers that a site has room for.
pub const REALS: usize = 512;

impl Site {
    /// A director without services, with room for this many connections.
    pub fn new(connections: u32) -> Self {
        let sizes = Sizes { connections, reals: REALS, hops: 1024 };
        let shared = Arc::new(Shared::new(sizes, HashKey::from_bytes([0x5a; 32]), Generation::New));
        let interface = |name: &str, port, mac: Mac| Interface {
            name: name.into(),
            port: Some(port),
            mac,
            tagging: Tagging::Keep,
            partial: true,
            mtu: 1500,
            addresses: Vec::new(),
        };
        let gateways = ["203.0.113.254", "2001:db8:f::fe"].map(|gateway| {
            let hop = shared.hops.intern(InterfaceId(0), address(gateway)).unwrap();
            shared.hops.resolve(hop, GATEWAY);
            hop
        });
        let mut interfaces = vec![interface("front", CLIENTS, FRONT), interface("back", SERVERS, BACK)];
        interfaces[1].addresses = DIP.map(address).to_vec();
        let engine = Engine::new(shared.clone(), Arc::default(), Arc::new(Counters::new(REALS)), 0, 1);
        let services = Vec::new();
        let now = Now::from_secs(1000);
        let mut site = Site { shared, services, interfaces, engine, now, gateways, next_real: 0, workers: 1 };
        site.compile();
        site
    }

    /// A director with a service on both VIPs for TCP, UDP and SCTP, and one real server each, number 1 at `port`.
    pub fn with_service(method: Method, port: u16) -> Self {
        Self::with_tunnel(method, Tunnel::Ipip, port)
    }

    /// The same, with an encapsulation.
    pub fn with_tunnel(method: Method, tunnel: Tunnel, port: u16) -> Self {
        let mut site = Site::new(1 << 12);
        let both = |protocol| [(VIP4, protocol), (VIP6, protocol)];
        let [tcp4, tcp6] = both(Protocol::TCP);
        let [udp4, udp6] = both(Protocol::UDP);
        let [sctp4, sctp6] = both(Protocol::SCTP);
        for (vip, protocol) in [tcp4, udp4, tcp6, udp6, sctp4, sctp6] {
            let service = site.add_service(protocol, vip, "rr");
            let server = if vip == VIP4 { format!("10.0.0.1:{port}") } else { format!("[fd00::1]:{port}") };
            site.add_real_with(service, &server, method, |settings| settings.tunnel = tunnel);
        }
        site
    }

    /// The snapshot of the configuration now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let routes = [("0.0.0.0", "203.0.113.254"), ("::", "2001:db8:f::fe")].map(|(prefix, gateway)| Route {
            prefix: address(prefix),
            length: 0,
            target: Target::Via { interface: InterfaceId(0), gateway: Some(address(gateway)), mtu: 1500, source: None },
        });
        Arc::new(Snapshot::new(1, &self.services, self.interfaces.clone(), Routes::new(routes)))
    }

    /// Takes the configuration into use.
    pub fn compile(&mut self) {
        let snapshot = self.snapshot();
        let _old = self.engine.swap(snapshot);
    }

    /// Another worker's engine over the same state.
    pub fn another_engine(&mut self) -> Engine {
        self.workers += 1;
        let counters = Arc::new(Counters::new(REALS));
        Engine::new(self.shared.clone(), self.snapshot(), counters, self.workers - 1, self.workers)
    }

    /// Adds a service; gives its index.
    pub fn add_service(&mut self, protocol: Protocol, vip: &str, scheduler: &str) -> usize {
        self.add_service_with(protocol, vip, scheduler, Policy::default())
    }

    /// The same, with a say in how it treats new connections.
    pub fn add_service_with(&mut self, protocol: Protocol, vip: &str, scheduler: &str, policy: Policy) -> usize {
        let key = ServiceKey::Address(protocol, vip.parse::<SocketAddr>().unwrap().into());
        let scheduler = Builtin::from_name(scheduler).unwrap();
        let number = self.services.len();
        self.services.push(Arc::new(Service::new(number as u32, key, scheduler, policy)));
        self.compile();
        number
    }

    /// Adds a real server of weight 1, whose MAC is that of the last byte of its address.
    pub fn add_real(&mut self, service: usize, server: &str, method: Method) -> RealId {
        self.add_real_with(service, server, method, |_| ())
    }

    /// The same, with a say in its settings.
    pub fn add_real_with(
        &mut self,
        service: usize,
        server: &str,
        method: Method,
        adjust: impl FnOnce(&mut Settings),
    ) -> RealId {
        let endpoint = server.parse::<SocketAddr>().unwrap().into();
        let mut settings = Settings { endpoint, method, tunnel: Tunnel::Ipip, weight: 1, upper: 0, lower: 0 };
        adjust(&mut settings);
        let id = RealId(self.next_real);
        self.next_real += 1;
        let arena = &self.shared.arena;
        arena.get(id).reset(&settings);
        let hop = self.shared.hops.intern(InterfaceId(1), endpoint.address).unwrap();
        self.shared.hops.resolve(hop, server_mac(endpoint.address.bits() as u8));
        let source = address(if endpoint.address.family() == Family::Inet { "10.0.0.254" } else { "fd00::fe" });
        arena.get(id).set_path(Path::Hop(hop), 1500, Some(source));
        self.services[service].add(arena, id);
        id
    }

    /// The hop of a real server.
    pub fn hop(&self, server: &str) -> HopId {
        self.shared.hops.find(InterfaceId(1), address(server)).unwrap()
    }

    /// Sends one frame through the engine: its verdict, and what became of the frame.
    pub fn forward(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.forward_by(&self.engine, frame)
    }

    /// The same by another worker's engine: as a worker does it, through the express lane if that takes it.
    pub fn forward_by(&self, engine: &Engine, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.express_by(engine, frame).unwrap_or_else(|| match engine.glance(frame) {
            Some(candidate) => {
                let mut chunk = vec![0; 4096];
                chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
                let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()).unwrap();
                let verdict = engine.forward_seen(&mut packet, &candidate, self.now);
                engine.settle_tally(Tally::default());
                (verdict, packet.bytes().to_vec())
            }
            None => self.welcome6_by(engine, frame).unwrap_or_else(|| self.forward_long(engine, frame)),
        })
    }

    /// By the short way of new IPv6 connections; `None` if that leaves the packet alone.
    fn welcome6_by(&self, engine: &Engine, frame: &[u8]) -> Option<(Verdict, Vec<u8>)> {
        let mut candidate = engine.glance6(frame)?;
        engine.guess6(&mut candidate);
        let mut chunk = vec![0; 4096];
        chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len())?;
        let verdict = engine.welcome6(&mut packet, &candidate, self.now);
        if verdict.is_none() {
            assert_eq!(packet.bytes(), frame, "a packet that is left alone is as it was");
        }
        engine.settle_tally(Tally::default());
        Some((verdict?, packet.bytes().to_vec()))
    }

    /// Through the express lane; `None` if that leaves the packet alone.
    pub fn express_by(&self, engine: &Engine, frame: &[u8]) -> Option<(Verdict, Vec<u8>)> {
        engine.begin_batch();
        let (mut four, mut six) = (engine.glance(frame), engine.glance6(frame));
        assert!(four.is_none() || six.is_none(), "a packet has one family");
        four.iter_mut().for_each(|candidate| engine.guess(std::slice::from_mut(candidate)));
        six.iter_mut().for_each(|candidate| engine.guess6(candidate));
        let (mut rings, mut batch, mut tally) = (MemoryRings::new(2, 1, 4096), Vec::new(), Tally::default());
        rings.put(CLIENTS, frame);
        rings.replenish();
        rings.receive(1, &mut batch);
        let mut lent = batch.pop().unwrap();
        let port = match (four, six) {
            (Some(candidate), _) => engine.express(&mut rings, &mut lent, &candidate, self.now, &mut tally),
            (_, Some(candidate)) => engine.express6(&mut rings, &mut lent, &candidate, self.now, &mut tally),
            _ => None,
        };
        tally.count(usize::from(port.is_some()));
        engine.settle_tally(tally);
        let packet = rings.packet(&lent).to_vec();
        rings.recycle(lent);
        if port.is_none() {
            assert_eq!(packet, frame, "a packet that is left alone is as it was");
        }
        port.map(|port| (Verdict::Transmit(port), packet))
    }

    /// The long way.
    pub fn forward_long(&self, engine: &Engine, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut chunk = vec![0; 4096];
        chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let inspected = match engine.inspect(frame) {
            Ok(inspected) => inspected,
            Err(reason) => return (Verdict::Drop(reason), frame.to_vec()),
        };
        let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()).unwrap();
        let verdict = engine.forward(&mut packet, inspected, self.now);
        (verdict, packet.bytes().to_vec())
    }

    /// Active and inactive connections of a real server.
    pub fn counts(&self, real: RealId) -> (u32, u32) {
        let counts = self.shared.arena.get(real).counts();
        (counts.active, counts.inactive())
    }

    /// Lets time pass, in steps short enough for a full sweep of the table.
    pub fn pass_seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.now = self.now.plus_millis(250);
            self.engine.expire(self.now);
        }
    }

    /// Turns the director into a worker over these rings.
    pub fn into_worker<R: Rings>(self, rings: R, batch: usize) -> Worker<R> {
        Worker::new(self.engine, rings, batch)
    }
}

/// Rings of two devices for a site's worker.
pub fn memory_rings(chunks: u32) -> MemoryRings {
    MemoryRings::new(2, chunks, 2048)
}

/// Drops for this reason, for tests' eyes.
pub fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}
