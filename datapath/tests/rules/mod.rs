//! The rules in force, over a real engine and a world that only writes down: what is steered, published and routed.
#![allow(dead_code, unreachable_pub, reason = "each test file takes what it needs")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xvs::control::book::{Book, Outside};
use xvs::control::change::Scene;
use xvs::control::protocol::{
    self, Action, Method, Protocol, Refusal, RefusalKind, SchedFlags, ServerSpec, ServiceId, ServiceSpec, Stats,
};
use xvs_engine::counters::Counters;
use xvs_engine::engine::{Engine, Shared, Sizes, Verdict};
use xvs_engine::flow::{Address, HashKey};
use xvs_engine::hop::{Interface, InterfaceId, Port, Tagging};
use xvs_engine::mark::Marks;
use xvs_engine::real::{Generation, Path, RealId};
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::snapshot::{Services, Snapshot};
use xvs_engine::time::Now;
use xvs_engine::wire::Packet;
use xvs_redirect::{Key, Range};

const HEADROOM: usize = 256;

/// Everything that the book reaches outside of the engine.
pub struct World {
    shared: Arc<Shared>,
    /// How often each key is steered. A key that is unsteered more often than steered is a failure at once.
    pub steered: BTreeMap<Key, u32>,
    /// How many keys have room.
    pub room: usize,
    pub published: u32,
    pub services: Services,
    pub marks: Arc<Marks>,
    /// The ranges that are steered, and how many have room.
    pub ranges: Vec<Range>,
    pub ranges_room: usize,
    /// What was told in which order, by the names of the methods.
    pub told: Vec<&'static str>,
    pub routed: Vec<IpAddr>,
}

impl Outside for World {
    fn publish(&mut self, services: &Services, marks: &Arc<Marks>) {
        self.published += 1;
        self.services = services.clone();
        self.marks = marks.clone();
        self.told.push("publish");
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Refusal> {
        if ranges.len() > self.ranges_room {
            return Err(Refusal::new(RefusalKind::Limit, "too many ranges"));
        }
        self.ranges = ranges.to_vec();
        self.told.push("ranges");
        Ok(())
    }

    fn steer(&mut self, key: &Key) -> Result<(), Refusal> {
        if !self.steered.contains_key(key) && self.steered.len() >= self.room {
            return Err(Refusal::new(RefusalKind::Limit, "the map is full"));
        }
        *self.steered.entry(*key).or_default() += 1;
        Ok(())
    }

    fn unsteer(&mut self, key: &Key) {
        let count = self.steered.get_mut(key).unwrap_or_else(|| panic!("{key:?} was not steered"));
        *count -= 1;
        if *count == 0 {
            self.steered.remove(key);
        }
    }

    fn route(&mut self, real: RealId, server: IpAddr) {
        let record = self.shared.arena.get(real);
        assert!(!record.is_available(), "{server} could be scheduled before its way was known");
        let hop = self.shared.hops.intern(InterfaceId(0), server.into()).expect("room for a hop");
        self.shared.hops.resolve(hop, [2, 0, 0, 0, 1, 1]);
        record.set_path(Path::Hop(hop), 1500, Some(Address::v4([10, 0, 0, 254])));
        self.routed.push(server);
    }
}

/// Rules, engine, world, and time by hand.
pub struct Site {
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
    pub book: Book,
    pub world: World,
    pub engine: Engine,
    pub now: Now,
    compiled: u32,
}

impl Site {
    /// Room for this many server records.
    pub fn new(reals: usize) -> Site {
        let sizes = Sizes { connections: 1024, reals, hops: 1024.max(reals) };
        let shared = Arc::new(Shared::new(sizes, HashKey::from_bytes([7; 32]), Generation::New));
        // The way back to every client.
        let gateway = shared.hops.intern(InterfaceId(0), Address::v4([10, 0, 0, 253])).expect("room for a hop");
        shared.hops.resolve(gateway, crate::frames::PEER);
        let counters = Arc::new(Counters::new(reals));
        let book = Book::new(shared.clone(), vec![counters.clone()]);
        let engine = Engine::new(shared.clone(), Arc::default(), counters.clone(), 0, 1);
        let world = World {
            shared: shared.clone(),
            steered: BTreeMap::new(),
            room: usize::MAX,
            published: 0,
            services: Services::default(),
            marks: Arc::default(),
            ranges: Vec::new(),
            ranges_room: usize::MAX,
            told: Vec::new(),
            routed: Vec::new(),
        };
        Site { shared, counters, book, world, engine, now: Now::from_secs(1000), compiled: 0 }
    }

    pub fn scene(&mut self) -> Scene<'_> {
        Scene {
            book: &mut self.book,
            shared: &self.shared,
            outside: &mut self.world,
            now_ms: self.now.millis(),
            who: "test",
        }
    }

    pub fn try_change(&mut self, action: Action) -> Result<(), Refusal> {
        let outcome = self.scene().change(action);
        self.compile();
        outcome
    }

    pub fn change_all(&mut self, actions: Vec<Action>) -> Result<(), Refusal> {
        let outcome = self.scene().change_all(actions);
        self.compile();
        outcome
    }

    pub fn change(&mut self, action: Action) {
        self.try_change(action).expect("it is right");
    }

    /// The kind of refusal that an action meets.
    pub fn refused(&mut self, action: Action) -> RefusalKind {
        self.try_change(action).expect_err("it is wrong").kind
    }

    /// The engine takes what was published into use.
    fn compile(&mut self) {
        if self.world.published == self.compiled {
            return;
        }
        self.compiled = self.world.published;
        let route = Route {
            prefix: Address::v4([0; 4]),
            length: 0,
            target: Target::Via {
                interface: InterfaceId(0),
                gateway: Some(Address::v4([10, 0, 0, 253])),
                mtu: 1500,
                source: None,
            },
        };
        let interface = Interface {
            name: "eth0".into(),
            port: Some(Port(0)),
            mac: crate::frames::DIRECTOR,
            tagging: Tagging::Keep,
            mtu: 1500,
            partial: true,
            addresses: Vec::new(),
        };
        let snapshot = Snapshot::of(1, self.world.services.clone(), [interface].into(), Routes::new([route]).into())
            .with_marks(self.world.marks.clone());
        let _old = self.engine.swap(Arc::new(snapshot));
    }

    /// Sends a frame through the engine.
    pub fn forward(&self, frame: &[u8]) -> Verdict {
        let mut chunk = vec![0; 4096];
        chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let inspected = match self.engine.inspect(frame) {
            Ok(inspected) => inspected,
            Err(reason) => return Verdict::Drop(reason),
        };
        let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()).expect("it fits");
        self.engine.forward(&mut packet, inspected, self.now)
    }

    /// A SYN of this client to a service.
    pub fn connect(&self, client: &str, virtual_address: &str) -> Verdict {
        self.forward(&crate::frames::tcp(client, virtual_address, crate::frames::SYN, b""))
    }

    /// Lets time pass, and forgets what is over.
    pub fn pass_seconds(&mut self, seconds: u64) {
        for _ in 0..seconds * 4 {
            self.now = self.now.plus_millis(250);
            self.engine.expire(self.now);
        }
        self.book.tidy(self.now.millis(), &mut self.world);
    }

    pub fn view(&self, virtual_address: &str) -> protocol::Service {
        let entry = self.book.entry(&tcp(virtual_address)).expect("the service");
        self.book.view(entry, |_| String::new())
    }

    pub fn stats(&self, virtual_address: &str) -> Stats {
        self.view(virtual_address).stats
    }

    /// The addresses of a service's servers, as listed.
    pub fn servers(&self, virtual_address: &str) -> Vec<String> {
        self.view(virtual_address).servers.iter().map(|server| server.spec.address.to_string()).collect()
    }

    /// Everything that the rules say, and what is steered for them.
    pub fn rules(&self) -> String {
        let entries = self.book.entries().map(|entry| {
            let servers: Vec<_> = entry.members().map(|member| member.spec).collect();
            format!("{:?} {servers:?}\n", entry.spec)
        });
        let marks = (self.book.mark_rules(), self.world.marks.rules(), &self.world.ranges);
        entries.collect::<String>() + &format!("{:?} {marks:?}", self.world.steered)
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

pub fn tcp(virtual_address: &str) -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: address(virtual_address) }
}

pub fn service(virtual_address: &str) -> ServiceSpec {
    ServiceSpec {
        id: tcp(virtual_address),
        scheduler: "rr".into(),
        flags: SchedFlags::default(),
        persistence: None,
        engine: None,
        one_packet: false,
        fallback: None,
        options: None,
    }
}

pub fn server(real: &str, method: Method) -> ServerSpec {
    ServerSpec { address: address(real), method, weight: 1, upper: 0, lower: 0, tags: None }
}

pub fn add_service(virtual_address: &str) -> Action {
    Action::AddService(service(virtual_address))
}

pub fn delete_service(virtual_address: &str) -> Action {
    Action::DeleteService(tcp(virtual_address))
}

pub fn add(virtual_address: &str, real: &str, method: Method) -> Action {
    Action::AddServer { service: tcp(virtual_address), server: server(real, method) }
}

pub fn edit(virtual_address: &str, real: &str, method: Method) -> Action {
    Action::EditServer { service: tcp(virtual_address), server: server(real, method) }
}

pub fn delete(virtual_address: &str, real: &str) -> Action {
    Action::DeleteServer { service: tcp(virtual_address), address: address(real) }
}

/// The keys of a service and of a server's answers.
pub fn inbound(virtual_address: &str) -> Key {
    let address = address(virtual_address);
    Key::Service { protocol: xvs_redirect::Protocol::Tcp, address: address.ip(), port: address.port() }
}

/// The key of errors about the tunnel to a server.
pub fn tunnel(real: &str, port: u16) -> Key {
    Key::Tunnel { address: address(real).ip(), port }
}

pub fn reply(real: &str) -> Key {
    let address = address(real);
    Key::Reply { protocol: xvs_redirect::Protocol::Tcp, address: address.ip(), port: address.port() }
}
