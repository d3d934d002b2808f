//! `cache_bypass`: packets of a mark service that has no usable server go to their own destination (IPVS-REFERENCE 4.3,
//! 4.5.5).

mod common;

use std::sync::Arc;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::Conn;
use xvs_engine::conn::tcp::State;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::explain::explain;
use xvs_engine::flow::{Endpoint, Family, Flow, Protocol};
use xvs_engine::hop::InterfaceId;
use xvs_engine::mark::{Marks, Prefix, Rule};
use xvs_engine::real::{Method, Path, RealId, Settings};
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Persistence, Policy, Service, ServiceKey};
use xvs_engine::snapshot::Snapshot;

/// Clients' packets come in at the back here, and the net is in front.
const NET: Verdict = Verdict::Transmit(CLIENTS);
const WEB: &str = "203.0.113.80:80";
const WEB6: &str = "[2001:db8:80::1]:80";

fn routes() -> Routes {
    let via =
        |gateway| Target::Via { interface: InterfaceId(0), gateway: Some(address(gateway)), mtu: 1500, source: None };
    Routes::new(
        [
            ("0.0.0.0", 0, via("203.0.113.254")),
            ("::", 0, via("2001:db8:f::fe")),
            ("192.0.2.1", 32, Target::Local),
            ("192.0.2.66", 32, Target::Nowhere),
        ]
        .map(|(prefix, length, target)| Route { prefix: address(prefix), length, target }),
    )
}

fn snapshot(site: &Site) -> Arc<Snapshot> {
    let rule = |mark, prefix: &str| {
        let destination = Prefix::new(address(prefix), 0);
        Rule { mark, destination, source: None, protocol: None, ports: Vec::new() }
    };
    let snapshot = Snapshot::new(2, &site.services, site.interfaces.clone(), routes());
    Arc::new(snapshot.with_marks(Arc::new(Marks::new(vec![rule(7, "0.0.0.0"), rule(8, "::")]))))
}

/// A site whose two services, of marks 7 and 8, have every packet and one server each, which is quiesced.
fn site(policy: Policy) -> Site {
    let mut site = Site::new(64);
    for (mark, family, server) in [(7, Family::Inet, "10.0.0.1:0"), (8, Family::Inet6, "[fd00::1]:0")] {
        let number = site.services.len();
        let scheduler = Builtin::from_name("rr").unwrap();
        site.services.push(Arc::new(Service::new(number as u32, ServiceKey::Mark(mark, family), scheduler, policy)));
        site.add_real_with(number, server, Method::Dr, |settings| settings.weight = 0);
    }
    let snapshot = snapshot(&site);
    let _old = site.engine.swap(snapshot);
    site.shared.switches.cache_bypass.set(1);
    site
}

/// Sends a client's packet; it must leave as it came, but for its TTL.
fn goes_on(site: &Site, packet: &Ip) {
    let expected = (NET, to_client(&packet.clone().ttl(packet.ttl - 1).bytes()));
    assert_eq!(site.forward(&from_client(&packet.bytes())), expected);
}

fn only(site: &Site) -> Conn<'_> {
    let mut all = site.shared.table.iter();
    let conn = all.next().expect("a connection");
    assert!(all.next().is_none(), "one only");
    conn
}

fn back(site: &Site) {
    let real = site.shared.arena.get(RealId(0));
    let endpoint = real.endpoint();
    let settings = Settings { endpoint, method: Method::Dr, tunnel: Default::default(), weight: 1, upper: 0, lower: 0 };
    site.services[0].change(&site.shared.arena, RealId(0), || real.set(&settings));
}

/// Without the switch the client is refused, as ever. With it its packets go where they were sent, by an entry without a
/// server that has the states of a one-way connection and is counted in no server's or service's statistics.
#[test]
fn without_a_server_packets_go_on() {
    for (client, web, none) in [(CLIENT4, WEB, "0.0.0.0:0"), (CLIENT6, WEB6, "[::]:0")] {
        let mut site = site(Policy::default());
        site.shared.switches.cache_bypass.set(0);
        let syn = tcp(client, web, SYN);
        assert_eq!(site.forward(&from_client(&syn.bytes())).0, Verdict::Reflect);
        assert_eq!(site.engine.counters().drops(DropReason::NoServer), 1);
        site.shared.switches.cache_bypass.set(1);
        goes_on(&site, &syn);
        let state = |site: &Site| State::from_bits(only(site).status().state);
        assert_eq!((state(&site), only(&site).status().flags.method() as u8), (State::SynRecv, 4));
        assert_eq!((only(&site).server().to_string(), only(&site).flow().dst.to_string()), (none.into(), web.into()));
        goes_on(&site, &tcp(client, web, ACK));
        goes_on(&site, &tcp(client, web, FIN | ACK));
        assert_eq!(state(&site), State::FinWait, "as one-way connections do");
        let counters = site.engine.counters();
        assert_eq!((counters.bypassed.get(), counters.opened.get(), counters.inbound.get()), (3, 1, 0));
        for real in [RealId(0), RealId(1)] {
            assert_eq!((counters.real(real), site.counts(real)), (Default::default(), (0, 0)));
        }
        site.pass_seconds(122);
        assert!(site.shared.table.is_empty());
        assert_eq!(site.counts(site.shared.arena.nobody()), (0, 0), "what was counted for nobody is settled");
    }
}

/// A connection that was begun without a server stays without one when a server is back; new ones go to the server. What
/// removes servers' connections leaves it alone, and a SYN does not end it.
#[test]
fn it_stays_without_a_server() {
    let site = site(Policy::default());
    site.shared.switches.expire_nodest_conn.set(1);
    goes_on(&site, &tcp(CLIENT4, WEB, SYN));
    goes_on(&site, &tcp(CLIENT4, WEB, ACK));
    back(&site);
    assert_eq!(site.shared.end_nodest(), 0);
    goes_on(&site, &tcp(CLIENT4, WEB, SYN));
    let other = site.forward(&from_client(&tcp("198.51.100.7:2", WEB, SYN).bytes())).0;
    assert_eq!((other, site.counts(RealId(0))), (Verdict::Transmit(SERVERS), (1, 0)));
}

/// With persistence no template is made for nobody; with one-packet scheduling there is no entry at all. A full table drops.
#[test]
fn by_every_policy() {
    let persistence = Some(Persistence { timeout_s: 60, mask: u128::MAX });
    let site1 = site(Policy { persistence, ..Policy::default() });
    goes_on(&site1, &tcp(CLIENT4, WEB, SYN));
    assert!(!only(&site1).is_template());
    let once = site(Policy { one_packet: true, ..Policy::default() });
    goes_on(&once, &udp(CLIENT4, WEB, b"q"));
    goes_on(&once, &udp(CLIENT6, WEB6, b"q"));
    assert!(once.shared.table.is_empty());
    let full = site(Policy::default());
    for port in 0..64 {
        goes_on(&full, &udp(&format!("198.51.100.7:{}", 1000 + port), WEB, b"q"));
    }
    assert_eq!(full.forward(&from_client(&udp(CLIENT4, WEB, b"q").bytes())).0, dropped(DropReason::TableFull));
}

/// Only for services by mark, and only to a host that is not the director: what is for many, or for itself, is refused as
/// ever. Without a route it is dropped by that name.
#[test]
fn where_nothing_goes_on_to() {
    let mut site = site(Policy::default());
    let verdict = |site: &Site, vip: &str| site.forward(&from_client(&tcp(CLIENT4, vip, SYN).bytes())).0;
    assert_eq!(verdict(&site, "192.0.2.1:80"), Verdict::Reflect, "the director's own");
    assert_eq!(verdict(&site, "224.0.0.5:80"), Verdict::Reflect, "for many");
    assert!(site.shared.table.is_empty());
    assert_eq!(verdict(&site, "192.0.2.66:80"), dropped(DropReason::NoRoute));
    site.services.clear();
    let service = site.add_service(Protocol::TCP, WEB, "rr");
    site.add_real_with(service, "10.0.0.1:80", Method::Dr, |settings| settings.weight = 0);
    assert_eq!(verdict(&site, WEB), Verdict::Reflect, "a service by address");
    assert_eq!(site.engine.counters().drops(DropReason::NoServer), 3);
}

/// TTL and size are judged as for any packet; what the director says of them it says as itself.
#[test]
fn errors_come_from_the_director() {
    let mut site = site(Policy::default());
    site.interfaces[0].addresses = vec![address("203.0.113.1"), address("2001:db8:f::1")];
    site.interfaces[0].mtu = 1400;
    let snapshot = snapshot(&site);
    let _old = site.engine.swap(snapshot);
    let from = |packet: &Ip| {
        let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
        assert_eq!(verdict, Verdict::Reflect);
        bytes[26..30].to_vec()
    };
    goes_on(&site, &udp(CLIENT4, WEB, b"q"));
    assert_eq!(from(&udp(CLIENT4, WEB, b"q").ttl(1)), [203, 0, 113, 1]);
    assert_eq!(from(&udp(CLIENT4, WEB, &[0; 1400])), [203, 0, 113, 1], "too large, and not to be cut");
    let large = udp(CLIENT4, WEB, &[0; 1400]).may_fragment();
    let verdict = site.forward(&from_client(&large.bytes())).0;
    assert_eq!(verdict, Verdict::Split { port: CLIENTS, mtu: 1400 });
}

/// Fragments follow, with an entry and without; an error that the client sends about an answer goes to where the answer came
/// from; and an answer that crosses the director goes to the client.
#[test]
fn what_belongs_to_it_follows() {
    for one_packet in [false, true] {
        for (client, web) in [(CLIENT4, WEB), (CLIENT6, WEB6)] {
            let site = site(Policy { one_packet, ..Policy::default() });
            for piece in udp(client, web, &[7; 100]).may_fragment().fragments(40) {
                assert_eq!(site.forward(&from_client(&piece)).0, NET);
            }
        }
    }
    let site = site(Policy::default());
    goes_on(&site, &udp(CLIENT4, WEB, b"q"));
    let answer = udp(WEB, CLIENT4, b"a");
    goes_on(&site, &icmp_error("198.51.100.7", "203.0.113.80", [3, 3], 0, &answer.bytes()));
    goes_on(&site, &answer);
    goes_on(&site, &udp(CLIENT4, WEB, b"q"));
    assert_eq!(site.shared.table.len(), 1, "the answer belongs to the connection");
}

/// When routes change, so does the way of what has no server.
#[test]
fn routes_are_followed() {
    let site = site(Policy::default());
    goes_on(&site, &udp(CLIENT4, WEB, b"q"));
    let target = Target::Via { interface: InterfaceId(1), gateway: Some(address("10.0.0.1")), mtu: 1500, source: None };
    site.shared.reroute_replies(&Routes::new([Route { prefix: address("203.0.113.0"), length: 24, target }]));
    assert_eq!(only(&site).reply_path(), Path::Hop(site.hop("10.0.0.1")));
    assert_eq!(site.forward(&from_client(&udp(CLIENT4, WEB, b"q").bytes())).0, Verdict::Transmit(SERVERS));
    site.shared.reroute_replies(&routes());
    goes_on(&site, &udp(CLIENT4, WEB, b"q"));
}

/// `xvs explain` tells of it before and after the first packet.
#[test]
fn explain_tells_of_it() {
    let site = site(Policy::default());
    let tells = |dst: &str| {
        let flow = Flow { protocol: Protocol::TCP, src: endpoint(CLIENT4), dst: endpoint(dst) };
        explain(&site.shared, &snapshot(&site), &flow, site.now)
    };
    let text = tells(WEB);
    assert!(text.contains("cache_bypass") && text.contains("next hop 203.0.113.254"), "{text}");
    assert!(tells("192.0.2.1:80").contains("no_server"));
    goes_on(&site, &tcp(CLIENT4, WEB, SYN));
    let text = tells(WEB);
    assert!(text.contains("exists") && text.contains("cache_bypass") && text.contains("203.0.113.254"), "{text}");
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}
