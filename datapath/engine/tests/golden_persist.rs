//! Persistence, one-packet scheduling, reuse and removed servers: what a service does with new connections, by the rules
//! of IPVS (IPVS-REFERENCE 3.5, 3.8, 3.9, 3.10). Each test is one of the reference's traps.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::Conn;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::{Method, RealId};
use xvs_engine::service::{Persistence, Policy};

fn persistent(timeout_s: u32, prefix: u32) -> Policy {
    let host = (1u128 << (32 - prefix)) - 1;
    Policy { persistence: Some(Persistence { timeout_s, mask: !host }), ..Policy::default() }
}

/// A site with one persistent TCP service over three NAT servers 10.0.0.1 to 10.0.0.3, picks in the order 3, 2, 1.
fn site(policy: Policy, vip: &str) -> (Site, usize) {
    let mut site = Site::new(1 << 12);
    let service = site.add_service_with(Protocol::TCP, vip, "rr", policy);
    for last in 1..=3 {
        site.add_real(service, &format!("10.0.0.{last}:8080"), Method::Nat);
    }
    (site, service)
}

/// Where a client's packet goes: last byte and port.
fn goes(site: &Site, packet: &Ip) -> Option<(u8, u16)> {
    let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
    let port = u16::from_be_bytes([bytes[36], bytes[37]]);
    (verdict == Verdict::Transmit(SERVERS)).then_some((bytes[33], port))
}

fn opens(site: &Site, client: &str, vip: &str) -> u8 {
    let (server, _) = goes(site, &tcp(client, vip, SYN)).unwrap();
    assert_eq!(goes(site, &tcp(client, vip, ACK)).map(|(server, _)| server), Some(server));
    server
}

fn template<'s>(site: &'s Site) -> Option<Conn<'s>> {
    site.shared.table.iter().find(Conn::is_template)
}

fn life(site: &Site) -> u64 {
    template(site).map_or(0, |template| template.expires_in(site.now).div_ceil(1000))
}

/// A client's connections go to one server, whatever their ports; another client's to the next; a netmask makes one
/// client of many.
#[test]
fn a_client_stays_with_its_server() {
    let (host, _) = site(persistent(300, 32), VIP4);
    assert_eq!([1001, 1002, 1003].map(|port| opens(&host, &format!("198.51.100.7:{port}"), VIP4)), [3, 3, 3]);
    assert_eq!(opens(&host, "198.51.100.8:1001", VIP4), 2);
    let (network, _) = site(persistent(300, 24), VIP4);
    let clients = ["198.51.100.7:1001", "198.51.100.250:1", "198.51.101.7:1", "198.51.101.8:1"];
    assert_eq!(clients.map(|client| opens(&network, client, VIP4)), [3, 3, 2, 2]);
    let key = template(&network).unwrap().flow();
    assert_eq!((key.src.to_string(), key.dst.to_string()), ("198.51.100.0:0".into(), VIP4.into()));
    assert_eq!(network.shared.arena.get(RealId(2)).templates(), 1, "templates are counted by server");
    assert_eq!(network.counts(RealId(2)), (2, 0), "and are no connections");
}

/// Trap: the window is renewed by new connections, not by packets.
#[test]
fn a_template_lives_by_new_connections() {
    let (mut site, _) = site(persistent(300, 32), VIP4);
    opens(&site, "198.51.100.7:1001", VIP4);
    site.pass_seconds(200);
    goes(&site, &tcp("198.51.100.7:1001", VIP4, ACK));
    assert_eq!(life(&site), 100, "a packet of a child renews nothing");
    opens(&site, "198.51.100.7:1002", VIP4);
    assert_eq!(life(&site), 300, "a new connection does");
}

/// Trap: a template that expires while it has children lives on a minute at a time, and a new connection gives it a
/// minute, too, not the service's timeout.
#[test]
fn sixty_seconds_stick() {
    let (mut site, _) = site(persistent(300, 32), VIP4);
    opens(&site, "198.51.100.7:1001", VIP4);
    site.pass_seconds(302);
    let left = life(&site);
    assert!((55..=60).contains(&left), "it had a child when it expired: {left}");
    site.pass_seconds(100);
    assert_eq!(opens(&site, "198.51.100.7:1002", VIP4), 3);
    assert_eq!(life(&site), 60);
    // The children end in TIME_WAIT and are gone after two minutes; the template follows within another.
    for port in [1001, 1002] {
        goes(&site, &tcp(&format!("198.51.100.7:{port}"), VIP4, RST));
    }
    site.pass_seconds(75);
    assert!(template(&site).is_none() && site.shared.table.is_empty());
    assert_eq!(site.shared.arena.get(RealId(2)).templates(), 0);
}

/// Trap: the timeout of a template is that of the moment when it was made.
#[test]
fn the_timeout_is_the_makers() {
    let (mut site, service) = site(persistent(300, 32), VIP4);
    opens(&site, "198.51.100.7:1001", VIP4);
    let scheduler = xvs_engine::sched::Builtin::from_name("rr").unwrap();
    site.services[service].edit(&site.shared.arena, scheduler, persistent(1000, 32));
    site.pass_seconds(10);
    opens(&site, "198.51.100.7:1002", VIP4);
    assert_eq!(life(&site), 300);
}

/// Trap: a template is followed without looking at weight or threshold; `expire_quiescent_template` changes the first.
#[test]
fn templates_ignore_weight_and_threshold() {
    let (site, service) = site(persistent(300, 32), VIP4);
    let real = site.shared.arena.get(RealId(2));
    let set = |weight, upper| {
        let endpoint = real.endpoint();
        let settings = xvs_engine::real::Settings {
            endpoint,
            method: Method::Nat,
            tunnel: Default::default(),
            weight,
            upper,
            lower: 0,
        };
        site.services[service].change(&site.shared.arena, RealId(2), || real.set(&settings));
    };
    opens(&site, "198.51.100.7:1001", VIP4);
    set(1, 1);
    assert!(real.is_overloaded());
    assert_eq!(opens(&site, "198.51.100.7:1002", VIP4), 3, "at its threshold");
    set(0, 0);
    assert_eq!(opens(&site, "198.51.100.7:1003", VIP4), 3, "quiesced");
    site.shared.switches.expire_quiescent_template.set(1);
    assert_eq!(opens(&site, "198.51.100.7:1004", VIP4), 2, "and now it leads nowhere any more");
    assert_eq!(site.shared.table.iter().filter(Conn::is_template).count(), 2, "the old one waits for its children");
}

/// A removed server's template leads nowhere; a new one is made, and the old one is not asked when the server is back.
#[test]
fn a_removed_servers_template_is_retired() {
    let (site, service) = site(persistent(300, 32), VIP4);
    opens(&site, "198.51.100.7:1001", VIP4);
    site.services[service].remove(&site.shared.arena, RealId(2));
    assert_eq!(opens(&site, "198.51.100.7:1002", VIP4), 2);
    site.services[service].add(&site.shared.arena, RealId(2));
    assert_eq!(opens(&site, "198.51.100.7:1003", VIP4), 2);
}

/// Port 0: one template for all ports, the client's port is kept unless the server has one of its own and it is that of
/// the service (which port 0 never is).
#[test]
fn a_port_0_service_keeps_the_port() {
    let mut site = Site::new(64);
    let service = site.add_service_with(Protocol::TCP, "192.0.2.1:0", "rr", persistent(300, 32));
    site.add_real(service, "10.0.0.1:0", Method::Nat);
    site.add_real(service, "10.0.0.2:8080", Method::Nat);
    let ports = ["192.0.2.1:80", "192.0.2.1:443", "192.0.2.1:8443"].map(|vip| goes(&site, &tcp(CLIENT4, vip, SYN)));
    assert_eq!(ports, [80, 443, 8443].map(|port| Some((2, port))));
    assert_eq!(template(&site).unwrap().flow().dst.to_string(), "192.0.2.1:0");
}

/// A template is assured when a child of it gets established, and not before.
#[test]
fn a_template_is_assured_by_an_established_child() {
    let (site, _) = site(persistent(300, 32), VIP4);
    goes(&site, &tcp(CLIENT4, VIP4, SYN));
    assert!(!template(&site).unwrap().is_assured(), "half open");
    goes(&site, &tcp(CLIENT4, VIP4, ACK));
    assert!(template(&site).unwrap().is_assured());
}

/// One-packet scheduling: each datagram by itself, no entry, counted as a connection each; TCP is as always.
#[test]
fn one_packet_scheduling() {
    let mut site = Site::new(64);
    let policy = Policy { one_packet: true, ..Policy::default() };
    let service = site.add_service_with(Protocol::UDP, VIP4, "rr", policy);
    for last in 1..=3 {
        site.add_real(service, &format!("10.0.0.{last}:8080"), Method::Nat);
    }
    let picks = [(); 5].map(|()| goes(&site, &udp(CLIENT4, VIP4, b"q")).unwrap());
    assert_eq!(picks, [3, 2, 1, 3, 2].map(|last| (last, 8080)));
    assert!(site.shared.table.is_empty());
    let counters = site.engine.counters();
    let traffic = counters.real(RealId(2));
    assert_eq!((traffic.conns, traffic.in_packets, site.counts(RealId(2))), (2, 2, (0, 0)));
    assert_eq!((counters.one_packet.get(), counters.opened.get()), (5, 0));
    // Trap: answers by NAT find no connection.
    let answer = from_server(3, &udp("10.0.0.3:8080", CLIENT4, b"a").bytes());
    assert_eq!(site.forward(&answer).0, dropped(DropReason::NoConnectionReply));
}

/// One-packet scheduling with persistence: the template decides, and has no children afterwards.
#[test]
fn one_packet_with_persistence() {
    let mut site = Site::new(64);
    let policy = Policy { one_packet: true, ..persistent(60, 32) };
    let service = site.add_service_with(Protocol::UDP, VIP4, "rr", policy);
    for last in 1..=2 {
        site.add_real(service, &format!("10.0.0.{last}:8080"), Method::Nat);
    }
    let picks =
        ["198.51.100.7:1", "198.51.100.7:2", "198.51.100.8:1"].map(|client| goes(&site, &udp(client, VIP4, b"q")));
    assert_eq!(picks.map(|pick| pick.unwrap().0), [2, 2, 1]);
    assert_eq!(template(&site).unwrap().children(), 0);
    site.pass_seconds(62);
    assert!(site.shared.table.is_empty());
}

/// Trap: by default a client's port opens again after TIME_WAIT and CLOSE, not after FIN_WAIT; mode 0 never, bit 1 after
/// a one-way FIN_WAIT, too; a connection under persistence is never given up for it.
#[test]
fn reuse_modes() {
    let after = |method: Method, mode: u32, policy: Policy, end: &[u8]| {
        let mut site = Site::new(64);
        site.shared.switches.conn_reuse_mode.set(mode);
        let service = site.add_service_with(Protocol::TCP, VIP4, "rr", policy);
        for last in 1..=2 {
            site.add_real(service, &format!("10.0.0.{last}:80"), method);
        }
        for &flags in [SYN, ACK].iter().chain(end) {
            goes(&site, &tcp(CLIENT4, VIP4, flags));
        }
        goes(&site, &tcp(CLIENT4, VIP4, SYN));
        site.counts(RealId(0)).0 == 1 // the second pick
    };
    let plain = Policy::default();
    assert_eq!([0, 1, 2, 3].map(|mode| after(Method::Nat, mode, plain, &[RST])), [false, true, true, true]);
    assert_eq!([0, 1, 2, 3].map(|mode| after(Method::Dr, mode, plain, &[FIN | ACK])), [false, false, true, true]);
    assert_eq!([1, 3].map(|mode| after(Method::Dr, mode, plain, &[])), [false; 2], "an established one stays");
    assert_eq!([1, 3].map(|mode| after(Method::Dr, mode, persistent(300, 32), &[RST])), [false; 2]);
}

/// `expire_nodest_conn`: packets of a removed server's connections are scheduled anew; what TCP can not open in its
/// middle is reset. A SYN on a connection of a quiesced server is, too, whatever its state.
#[test]
fn expire_nodest_conn() {
    let mut site = Site::new(64);
    let tcp_service = site.add_service(Protocol::TCP, VIP4, "rr");
    let udp_service = site.add_service(Protocol::UDP, VIP4, "rr");
    let reals = [tcp_service, udp_service]
        .map(|service| [1, 2].map(|last| site.add_real(service, &format!("10.0.0.{last}:8080"), Method::Nat)));
    site.shared.switches.expire_nodest_conn.set(1);
    opens(&site, CLIENT4, VIP4);
    assert_eq!(goes(&site, &udp(CLIENT4, VIP4, b"x")).unwrap().0, 2);
    for (service, real) in [(tcp_service, reals[0][1]), (udp_service, reals[1][1])] {
        site.services[service].remove(&site.shared.arena, real);
    }
    assert_eq!(goes(&site, &udp(CLIENT4, VIP4, b"x")).unwrap().0, 1);
    assert_eq!(site.forward(&from_client(&tcp(CLIENT4, VIP4, ACK).bytes())).0, Verdict::Reflect);
    assert_eq!(site.counts(reals[0][1]), (0, 0), "the connection is over");
    assert_eq!(opens(&site, CLIENT4, VIP4), 1);
    let real = site.shared.arena.get(reals[0][0]);
    let endpoint = real.endpoint();
    let settings = xvs_engine::real::Settings {
        endpoint,
        method: Method::Nat,
        tunnel: Default::default(),
        weight: 0,
        upper: 0,
        lower: 0,
    };
    site.services[tcp_service].change(&site.shared.arena, reals[0][0], || real.set(&settings));
    assert_eq!(goes(&site, &tcp(CLIENT4, VIP4, ACK)).unwrap().0, 1, "it goes on");
    let (verdict, _) = site.forward(&from_client(&tcp(CLIENT4, VIP4, SYN).bytes()));
    assert_eq!(verdict, Verdict::Reflect, "but is not opened again: nobody has a weight");
    assert_eq!(site.engine.counters().drops(DropReason::NoServer), 1);
}

/// `sloppy_tcp`: any segment but a reset opens a connection.
#[test]
fn sloppy_tcp() {
    let (site, _) = site(Policy::default(), VIP4);
    assert_eq!(site.forward(&from_client(&tcp(CLIENT4, VIP4, ACK).bytes())).0, Verdict::Reflect);
    site.shared.switches.sloppy_tcp.set(1);
    assert_eq!(goes(&site, &tcp(CLIENT4, VIP4, ACK)), Some((3, 8080)));
    assert_eq!(goes(&site, &tcp("198.51.100.7:9", VIP4, RST | ACK)), None);
}

/// `drop_packet`: the first new connection is dropped, then one of so many; packets of known connections never are.
#[test]
fn one_of_so_many_new_connections_is_dropped() {
    let (site, _) = site(Policy::default(), VIP4);
    opens(&site, CLIENT4, VIP4);
    site.shared.switches.drop_rate.set(3);
    let lucky: Vec<bool> =
        (1..=7).map(|port| goes(&site, &tcp(&format!("198.51.100.7:{port}"), VIP4, SYN)).is_some()).collect();
    assert_eq!(lucky, [false, true, true, false, true, true, false]);
    assert_eq!(site.forward(&from_client(&tcp("198.51.100.7:70", VIP4, SYN).bytes())).0, Verdict::Transmit(SERVERS));
    assert!((0..9).all(|_| goes(&site, &tcp(CLIENT4, VIP4, ACK)).is_some()));
}

/// `drop_entry`: half-open connections go at once; established ones only if they were silent for a minute and said
/// little; closing ones never; a template goes unless it was assured, and not while it has children.
#[test]
fn drop_entry_sacrifices_what_never_was() {
    let (mut site, _) = site(persistent(3000, 32), VIP4);
    goes(&site, &tcp("198.51.100.1:1", VIP4, SYN));
    for _ in 0..12 {
        opens(&site, "198.51.100.2:1", VIP4);
    }
    opens(&site, "198.51.100.3:1", VIP4);
    opens(&site, "198.51.100.4:1", VIP4);
    goes(&site, &tcp("198.51.100.4:1", VIP4, RST));
    let mut cull = xvs_engine::engine::Cull::default();
    let mut second = |site: &Site| (0..32).map(|_| site.shared.sacrifice(&mut cull, site.now)).sum::<u32>();
    assert_eq!(second(&site), 2, "the half-open one, with its template");
    site.now = site.now.plus_millis(59_000);
    assert_eq!(second(&site), 0, "silent for less than a minute");
    site.now = site.now.plus_millis(2000);
    assert_eq!(second(&site), 1, "of the established ones that which said little");
    let left: Vec<_> =
        site.shared.table.iter().filter(|conn| !conn.is_template()).map(|conn| conn.client().to_string()).collect();
    assert_eq!(left, ["198.51.100.2:1", "198.51.100.4:1"]);
    assert_eq!((0..3).map(|real| site.shared.arena.get(RealId(real)).counts().total).sum::<u32>(), 2);
}

/// A removed server's entries are ended as a whole, templates with their children; others stay.
#[test]
fn ending_what_has_no_server() {
    let (site, service) = site(persistent(300, 32), VIP4);
    for client in 1..=6 {
        opens(&site, &format!("198.51.100.{client}:1"), VIP4);
    }
    site.services[service].remove(&site.shared.arena, RealId(1));
    assert_eq!(site.shared.end_nodest(), 4);
    let real = site.shared.arena.get(RealId(1));
    assert!(real.is_idle() && site.shared.table.len() == 8);
}

/// `xvs explain` tells of persistence what the next connection would meet: the scheduler, then the template.
#[test]
fn explain_tells_of_templates() {
    let (site, _) = site(persistent(300, 32), VIP4);
    let flow = |client: &str| xvs_engine::flow::Flow {
        protocol: Protocol::TCP,
        src: client.parse::<std::net::SocketAddr>().unwrap().into(),
        dst: VIP4.parse::<std::net::SocketAddr>().unwrap().into(),
    };
    let told =
        |client: &str| xvs_engine::explain::explain(&site.shared, site.engine.snapshot(), &flow(client), site.now);
    assert!(told("198.51.100.7:1002").contains("rr picks 10.0.0.3:8080"), "{}", told("198.51.100.7:1002"));
    opens(&site, "198.51.100.7:1001", VIP4);
    let text = told("198.51.100.7:1002");
    assert!(text.contains("template leads to 10.0.0.3:8080 for 300 s") && !text.contains("picks"), "{text}");
    assert!(told("198.51.100.8:1").contains("rr picks 10.0.0.2:8080"));
}

/// The cure `half_open_inactive`: a SYN does not count as active, the handshake's end does.
#[test]
fn half_open_connections_need_not_count() {
    let (site, _) = site(Policy::default(), VIP4);
    site.shared.switches.half_open_inactive.set(1);
    goes(&site, &tcp(CLIENT4, VIP4, SYN));
    assert_eq!(site.counts(RealId(2)), (0, 1));
    goes(&site, &tcp(CLIENT4, VIP4, ACK));
    assert_eq!(site.counts(RealId(2)), (1, 0));
    goes(&site, &tcp(CLIENT4, VIP4, RST));
    assert_eq!(site.counts(RealId(2)), (0, 1));
}

/// The cure `template_renewal`: a new connection renews the whole timeout, also of a template that had expired once.
#[test]
fn templates_can_be_renewed() {
    let (mut site, _) = site(persistent(300, 32), VIP4);
    site.shared.switches.template_renewal.set(1);
    opens(&site, "198.51.100.7:1001", VIP4);
    site.pass_seconds(302);
    assert!(life(&site) <= 60);
    assert_eq!((opens(&site, "198.51.100.7:1002", VIP4), life(&site)), (3, 300));
}

/// The cure `one_packet_replies`: answers to packets that were scheduled one by one are translated for some seconds, and
/// the notes that see to it count nowhere.
#[test]
fn answers_to_single_packets_pass() {
    let mut site = Site::new(64);
    let policy = Policy { one_packet: true, ..Policy::default() };
    let service = site.add_service_with(Protocol::UDP, VIP4, "rr", policy);
    for last in 1..=2 {
        site.add_real(service, &format!("10.0.0.{last}:8080"), Method::Nat);
    }
    site.shared.switches.one_packet_replies.set(1);
    let query = udp(CLIENT4, VIP4, b"q");
    assert_eq!([(); 4].map(|()| goes(&site, &query).unwrap().0), [2, 1, 2, 1], "each is scheduled by itself");
    for last in [1, 2, 1] {
        let answer = from_server(last, &udp(&format!("10.0.0.{last}:8080"), CLIENT4, b"a").bytes());
        let expected = to_client(&udp(VIP4, CLIENT4, b"a").ttl(63).bytes());
        assert_eq!(site.forward(&answer), (Verdict::Transmit(CLIENTS), expected));
    }
    assert_eq!((site.shared.table.len(), site.counts(RealId(0)), site.counts(RealId(1))), (2, (0, 0), (0, 0)));
    site.pass_seconds(7);
    assert!(site.shared.table.is_empty());
    let late = from_server(1, &udp("10.0.0.1:8080", CLIENT4, b"a").bytes());
    assert_eq!(site.forward(&late).0, dropped(DropReason::NoConnectionReply));
    assert_eq!(site.shared.arena.get(RealId(0)).counts().total, 0);
}
