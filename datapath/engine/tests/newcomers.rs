//! The short way of new connections against the long way: two directors that live through the same, one of which has only
//! the long one.

mod common;

use std::sync::{Arc, Mutex};

use common::packet::*;
use common::site::*;
use proptest::collection::vec;
use proptest::prelude::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Tally, Verdict};
use xvs_engine::flow::{Family, Protocol};
use xvs_engine::hop::InterfaceId;
use xvs_engine::mark::{Marks, Prefix, Rule};
use xvs_engine::real::{Arena, Method, RealId};
use xvs_engine::rings::memory::HEADROOM;
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::sched::Builtin;
use xvs_engine::sched::guest::{Advice, Guest, Opinion, Site as List};
use xvs_engine::service::{Persistence, Policy, Service, ServiceKey};
use xvs_engine::snapshot::Snapshot;
use xvs_engine::tunnel::Tunnel;
use xvs_engine::wire::Packet;
use xvs_sdk::{Change, Request};

/// Real servers of each service.
const SERVERS_EACH: u32 = 3;
/// Clients' gateways.
const GATEWAYS: [&str; 3] = ["203.0.113.254", "203.0.113.253", "2001:db8:f::fe"];
/// Next hops: servers, then gateways.
const NEIGHBOURS: [(u8, &str); 9] = [
    (1, "10.0.0.1"),
    (1, "10.0.0.2"),
    (1, "10.0.0.3"),
    (1, "fd00::1"),
    (1, "fd00::2"),
    (1, "fd00::3"),
    (0, GATEWAYS[0]),
    (0, GATEWAYS[1]),
    (0, GATEWAYS[2]),
];
/// Services: four of IPv4, three of IPv6.
const SERVICES: u32 = 7;
/// Connections that fit.
const ROOM: u32 = 12;

/// What the two directors are like.
#[derive(Clone, Debug)]
struct Plan {
    scheduler: &'static str,
    /// Of each server.
    methods: [Method; SERVERS_EACH as usize],
    /// The server's ports are the clients' own.
    keeps_port: bool,
    /// The last server is one of the other family, which only a tunnel reaches.
    mixed: bool,
    tunnel: Tunnel,
    policy: Policy,
    /// Every second service has a guest, which is active or not.
    guest: Option<bool>,
}

/// A guest whose word depends on the request and on how often it was asked, and which remembers all that it was told.
#[derive(Debug)]
struct Fickle {
    is_active: bool,
    log: Mutex<Vec<String>>,
    /// The version of the list that it knows, not always the last one; and how often it was asked.
    known: Mutex<(u64, u32)>,
}

impl Fickle {
    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }
}

impl Guest for Fickle {
    fn is_active(&self) -> bool {
        self.is_active
    }
    fn advise(&self, _arena: &Arena, request: &Request) -> Opinion {
        self.note(format!("{request:?}"));
        let mut known = self.known.lock().unwrap();
        known.1 += 1;
        let (version, count) = *known;
        let (own, listens) = (RealId(request.service * SERVERS_EACH + count % SERVERS_EACH), !count.is_multiple_of(4));
        let (advice, version) = match count % 7 {
            0 => (Advice::Native, version),
            1 => (Advice::Nobody, version),
            // Another service's, perhaps.
            2 => (Advice::Real(RealId(count % (SERVICES * SERVERS_EACH))), u64::MAX),
            _ => (Advice::Real(own), version),
        };
        Opinion { advice, version, listens }
    }
    fn hear(&self, _arena: &Arena, request: &Request, chosen: Option<RealId>) {
        self.note(format!("{} {chosen:?}", request.client_port));
    }
    fn overruled(&self, request: &Request) {
        self.note(format!("{} overruled", request.client_port));
    }
    fn changed(&self, site: &List<'_>, _change: Change) {
        if !site.version.is_multiple_of(3) {
            self.known.lock().unwrap().0 = site.version;
        }
    }
    fn preview(&self, _site: &List<'_>, _request: &Request) -> Advice {
        Advice::Native
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let method = || prop::sample::select(vec![Method::Nat, Method::Dr, Method::Tun]);
    let persistence = Some(Persistence { timeout_s: 30, mask: u128::MAX });
    let policy = prop_oneof![
        6 => (0u8..3).prop_map(|class| Policy { class, ..Policy::default() }),
        1 => Just(Policy { one_packet: true, ..Policy::default() }),
        1 => Just(Policy { persistence, ..Policy::default() }),
    ];
    let scheduler = prop::sample::select(Builtin::NAMES.to_vec());
    let methods = [method(), method(), method()];
    let odd = || prop::bool::weighted(0.2);
    let tunnel = prop_oneof![4 => Just(Tunnel::Ipip), 1 => Just(Tunnel::Gre { checksum: false })];
    let guest = prop_oneof![4 => Just(None), 3 => Just(Some(true)), 1 => Just(Some(false))];
    (scheduler, methods, odd(), odd(), tunnel, policy, guest).prop_map(
        |(scheduler, methods, keeps_port, mixed, tunnel, policy, guest)| Plan {
            scheduler,
            methods,
            keeps_port,
            mixed,
            tunnel,
            policy,
            guest,
        },
    )
}

/// Clients behind two gateways, one that is a neighbour, and one that cannot be reached.
fn routes() -> Routes {
    let via = |gateway: Option<&str>| {
        let gateway = gateway.map(address);
        Target::Via { interface: InterfaceId(0), gateway, mtu: 1500, source: None }
    };
    let routes = [
        ("0.0.0.0", 0, via(Some(GATEWAYS[0]))),
        ("198.51.100.2", 32, via(Some(GATEWAYS[1]))),
        ("198.51.100.3", 32, via(None)),
        ("198.51.100.4", 32, Target::NotServed),
        ("::", 0, via(Some(GATEWAYS[2]))),
        ("2001:db8:c:0:2::", 80, via(None)),
        ("2001:db8:d::", 48, Target::NotServed),
    ];
    Routes::new(routes.map(|(prefix, length, target)| Route { prefix: address(prefix), length, target }))
}

fn site(plan: &Plan) -> Site {
    let mut site = Site::new(ROOM);
    let at = |protocol, vip: &str| {
        let vip: std::net::SocketAddr = vip.parse().unwrap();
        ServiceKey::Address(protocol, vip.into())
    };
    let keys = [
        at(Protocol::TCP, VIP4),
        at(Protocol::UDP, VIP4),
        at(Protocol::TCP, "192.0.2.1:21"),
        ServiceKey::Mark(7, Family::Inet),
        at(Protocol::TCP, VIP6),
        at(Protocol::UDP, VIP6),
        ServiceKey::Mark(7, Family::Inet6),
    ];
    assert_eq!(keys.len(), SERVICES as usize);
    for (number, key) in keys.into_iter().enumerate() {
        let (service, scheduler) = (site.services.len(), Builtin::from_name(plan.scheduler).unwrap());
        site.services.push(Arc::new(Service::new(service as u32, key, scheduler, plan.policy)));
        if let Some(is_active) = plan.guest.filter(|_| number % 2 == 0) {
            let guest = Fickle { is_active, log: Mutex::default(), known: Mutex::default() };
            assert!(site.services[service].set_guest(Arc::new(guest)));
        }
        for (server, &method) in (1..=SERVERS_EACH).zip(&plan.methods) {
            let port = if plan.keeps_port { 0 } else { 8000 + number };
            let is_v6 = number >= 4;
            let endpoint = match (plan.mixed && server == SERVERS_EACH) != is_v6 {
                true => format!("[fd00::{server}]:{port}"),
                false => format!("10.0.0.{server}:{port}"),
            };
            site.add_real_with(service, &endpoint, method, |real| {
                real.tunnel = plan.tunnel;
                real.weight = server as i32;
                real.upper = if server == 2 { 3 } else { 0 };
            });
        }
    }
    let rules = [("192.0.2.9", 32), ("2001:db8::9", 128)].map(|(destination, length)| {
        let destination = Prefix::new(address(destination), length);
        Rule { mark: 7, destination, source: None, protocol: None, ports: Vec::new() }
    });
    let snapshot = Snapshot::new(1, &site.services, site.interfaces.clone(), routes());
    let snapshot = snapshot.with_marks(Arc::new(Marks::new(rules.to_vec())));
    let _old = site.engine.swap(Arc::new(snapshot));
    site
}

/// Something that happens to both directors.
#[derive(Clone, Debug)]
enum Event {
    /// A packet of a client, or of whoever has this address.
    Packet { udp: bool, from: &'static str, to: &'static str, flags: u8, payload: u16 },
    /// Milliseconds pass.
    Wait(u32),
    /// A server: its weight, and whether it is in its list.
    Server(u32, i32, bool),
    /// The MAC of the next hop of this number is known, or not.
    Neighbour(usize, bool),
    /// A switch and what it is set to.
    Switch(u8, u32),
}

const SWITCHES: u8 = 7;

fn events() -> impl Strategy<Value = Event> {
    let from = prop::sample::select(vec![
        "198.51.100.1:40001",
        "198.51.100.1:40002",
        "198.51.100.2:40001",
        "198.51.100.2:40002",
        "198.51.100.3:40001",
        "198.51.100.3:20",
        "198.51.100.4:40001",
        "127.0.0.1:40001",
        "224.0.0.1:40001",
        "192.0.2.1:80",
        "192.0.2.9:443",
        "10.0.0.1:8000",
    ]);
    let to = prop::sample::select(vec![
        VIP4,
        VIP4,
        VIP4,
        "192.0.2.1:21",
        "192.0.2.1:5000",
        "192.0.2.9:443",
        "192.0.2.77:80",
        "198.51.100.1:40001",
    ]);
    let from6 = prop::sample::select(vec![
        "[2001:db8:c::1]:40001",
        "[2001:db8:c::1]:40002",
        "[2001:db8:c::2]:40001",
        "[2001:db8:c::2]:20",
        "[2001:db8:c:0:2::3]:40001",
        "[2001:db8:d::4]:40001",
        "[::1]:40001",
        "[ff02::1]:40001",
        "[2001:db8::1]:80",
        "[2001:db8::9]:443",
        "[fd00::1]:8004",
    ]);
    let to6 = prop::sample::select(vec![
        VIP6,
        VIP6,
        VIP6,
        "[2001:db8::1]:5000",
        "[2001:db8::9]:443",
        "[2001:db8::77]:80",
        "[2001:db8:c::1]:40001",
    ]);
    let ends = prop_oneof![3 => (from, to), 2 => (from6, to6)];
    let flags =
        prop_oneof![8 => Just(SYN), 2 => Just(ACK), 1 => Just(SYN | ACK), 1 => Just(SYN | RST), 1 => any::<u8>()];
    let payload = prop_oneof![6 => 18u16..40, 1 => 1400u16..1470];
    let packet = (prop::bool::weighted(0.4), ends, flags, payload)
        .prop_map(|(udp, (from, to), flags, payload)| Event::Packet { udp, from, to, flags, payload });
    let server = (0..SERVICES * SERVERS_EACH, 0..4i32, prop::bool::weighted(0.8));
    prop_oneof![
        30 => packet,
        2 => prop_oneof![0u32..2000, 0u32..400_000].prop_map(Event::Wait),
        3 => server.prop_map(|(server, weight, is)| Event::Server(server, weight, is)),
        1 => (0..NEIGHBOURS.len(), any::<bool>()).prop_map(|(number, is)| Event::Neighbour(number, is)),
        2 => (0..SWITCHES, 0..3u32).prop_map(|(switch, value)| Event::Switch(switch, value)),
    ]
}

fn frame_of(event: &Event) -> Option<Vec<u8>> {
    let &Event::Packet { udp: is_udp, from, to, flags, payload } = event else { return None };
    let payload: Vec<u8> = (0..payload).map(|at| at as u8).collect();
    Some(from_client(&if is_udp { udp(from, to, &payload) } else { tcp(from, to, flags).payload(payload) }.bytes()))
}

fn apply(site: &mut Site, event: &Event, fast: bool) -> Option<(Verdict, Vec<u8>)> {
    if let Some(frame) = frame_of(event) {
        return Some(if fast { site.forward(&frame) } else { site.forward_long(&site.engine, &frame) });
    }
    match *event {
        Event::Packet { .. } => {}
        Event::Wait(millis) => {
            site.now = site.now.plus_millis(millis.into());
            site.engine.expire(site.now);
        }
        Event::Server(number, weight, is) => {
            let (id, arena) = (RealId(number), &site.shared.arena);
            let service = &site.services[(number / SERVERS_EACH) as usize];
            let real = arena.get(id);
            let settings = xvs_engine::real::Settings {
                endpoint: real.endpoint(),
                method: real.method(),
                tunnel: real.tunnel(),
                weight,
                upper: real.thresholds().0,
                lower: real.thresholds().1,
            };
            match (is, service.members().contains(&id)) {
                (true, false) => service.add(arena, id),
                (true, true) => service.change(arena, id, || real.set(&settings)),
                (false, _) => service.remove(arena, id),
            }
        }
        Event::Neighbour(number, is) => {
            let (interface, neighbour) = NEIGHBOURS[number];
            let hop = site.shared.hops.find(InterfaceId(interface), address(neighbour));
            hop.into_iter().for_each(|hop| match is {
                true => site.shared.hops.resolve(hop, server_mac(number as u8)),
                false => site.shared.hops.forget(hop),
            });
        }
        Event::Switch(number, value) => {
            let switches = &site.shared.switches;
            let all: [&xvs_engine::switches::Switch; SWITCHES as usize] = [
                &switches.secure_tcp_active,
                &switches.half_open_inactive,
                &switches.drop_rate,
                &switches.sloppy_tcp,
                &switches.cache_bypass,
                &switches.one_packet_replies,
                &switches.mss_clamp,
            ];
            all[usize::from(number)].set(value);
        }
    }
    None
}

/// Everything that a packet may have moved.
fn state(site: &Site) -> impl PartialEq + std::fmt::Debug {
    let conns: Vec<String> = (site.shared.table.iter())
        .map(|conn| {
            let seen = (conn.status(), conn.packets(), conn.last_seen(), conn.expires_in(site.now));
            let own = (conn.id(), conn.real(), conn.service(), conn.class(), conn.parent(), conn.reply_path());
            format!("{:?} {:?} {seen:?} {own:?}", conn.flow(), conn.server())
        })
        .collect();
    let reals = (0..SERVICES * SERVERS_EACH).map(RealId);
    let counters = site.engine.counters();
    let record = |real| (counters.real(real), site.counts(real), site.shared.arena.get(real).is_overloaded());
    let drops: Vec<u64> = DropReason::ALL.iter().map(|&reason| counters.drops(reason)).collect();
    // What they print is all that they know.
    let guests: Vec<_> =
        site.services.iter().flat_map(|service| service.guest()).map(|guest| format!("{guest:?}")).collect();
    (guests, conns, reals.map(record).collect::<Vec<_>>(), counters.named(), drops, site.shared.hops.take_wanted())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// The short way is an optimisation and nothing else: which server, which entry, verdicts, bytes, states, timers and
    /// counts are those of the long way, whatever came before.
    #[test]
    fn the_short_way_does_what_the_long_way_does(plan in plans(), events in vec(events(), 1..80)) {
        let [mut fast, mut slow] = [(); 2].map(|()| site(&plan));
        for event in &events {
            let (by_the_short_way, by_the_long_way) = (apply(&mut fast, event, true), apply(&mut slow, event, false));
            prop_assert_eq!(by_the_short_way, by_the_long_way, "{:?}", event);
            prop_assert_eq!(state(&fast), state(&slow), "{:?}", event);
        }
    }
}

/// A worker takes the short way for what it is made for; the same packet twice in a batch makes one connection; and when the
/// batch has ended the answers find it.
#[test]
fn a_batch_makes_a_connection_once() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let site = Site::with_service(method, 8080);
        for (number, frame) in [tcp(CLIENT4, VIP4, SYN), udp(CLIENT4, VIP4, &[7; 18])].into_iter().enumerate() {
            let frame = from_client(&frame.bytes());
            let mut candidates = [(); 2].map(|()| site.engine.glance(&frame).expect("it is one of most"));
            site.engine.begin_batch();
            site.engine.guess(&mut candidates);
            for candidate in &candidates {
                let mut chunk = vec![0; 4096];
                chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(&frame);
                let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()).unwrap();
                let verdict = site.engine.forward_seen(&mut packet, candidate, site.now);
                assert_eq!(verdict, Verdict::Transmit(SERVERS));
                verify(packet.bytes()).unwrap();
            }
            let answer = from_server(
                1,
                &[tcp("10.0.0.1:8080", CLIENT4, SYN | ACK), udp("10.0.0.1:8080", CLIENT4, b"a")][number].bytes(),
            );
            if method == Method::Nat {
                assert_ne!(
                    site.forward_long(&site.engine, &answer).0,
                    Verdict::Transmit(CLIENTS),
                    "nobody can answer yet"
                );
            }
            site.engine.settle_tally(Tally::default());
            assert_eq!(site.shared.table.len(), 1 + number as u32);
            if method == Method::Nat {
                let (verdict, bytes) = site.forward_long(&site.engine, &answer);
                assert_eq!(verdict, Verdict::Transmit(CLIENTS));
                verify(&bytes).unwrap();
            }
        }
        assert_eq!(site.engine.counters().opened.get(), 2);
    }
}

/// The same of IPv6: what is no first packet any more is left alone.
#[test]
fn a_batch_makes_a_connection_of_ipv6_once() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let site = Site::with_service(method, 8080);
        let frame = from_client(&tcp(CLIENT6, VIP6, SYN).bytes());
        let mut candidates = [(); 2].map(|()| site.engine.glance6(&frame).expect("it is one of most"));
        site.engine.begin_batch();
        candidates.iter_mut().for_each(|candidate| site.engine.guess6(candidate));
        for (candidate, expected) in candidates.iter().zip([Some(Verdict::Transmit(SERVERS)), None]) {
            let mut chunk = vec![0; 4096];
            chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(&frame);
            let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()).unwrap();
            assert_eq!(site.engine.welcome6(&mut packet, candidate, site.now), expected);
            verify(packet.bytes()).unwrap();
        }
        let answer = from_server(1, &tcp("[fd00::1]:8080", CLIENT6, SYN | ACK).bytes());
        let is_nat = method == Method::Nat;
        assert_ne!(site.forward_long(&site.engine, &answer).0, Verdict::Transmit(CLIENTS), "nobody can answer yet");
        site.engine.settle_tally(Tally::default());
        assert_eq!(site.forward_long(&site.engine, &answer).0 == Verdict::Transmit(CLIENTS), is_nat);
        assert_eq!((site.shared.table.len(), site.engine.counters().opened.get()), (1, 1));
    }
}
