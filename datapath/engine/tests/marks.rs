//! Firewall-mark services at work: packets of any port and protocol that rules mark, through the whole engine.

mod common;

use std::sync::Arc;

use common::packet::*;
use common::site::*;
use xvs_engine::engine::Verdict;
use xvs_engine::explain::explain;
use xvs_engine::flow::{Endpoint, Family, Flow, Protocol};
use xvs_engine::mark::{Marks, Prefix, Rule};
use xvs_engine::real::Method;
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Service, ServiceKey};
use xvs_engine::snapshot::Snapshot;

const IN: Verdict = Verdict::Transmit(SERVERS);
const OUT: Verdict = Verdict::Transmit(CLIENTS);

fn rule(mark: u32, destination: &str, length: u8, ports: &[(u16, u16)]) -> Rule {
    let destination = Prefix::new(address(destination), length);
    Rule { mark, destination, source: None, protocol: None, ports: ports.to_vec() }
}

/// Takes rules for marks into use; gives the snapshot that has them.
fn mark(site: &mut Site, rules: Vec<Rule>) -> Arc<Snapshot> {
    let snapshot = Arc::into_inner(site.snapshot()).expect("nobody else has it");
    let snapshot = Arc::new(snapshot.with_marks(Arc::new(Marks::new(rules))));
    let _old = site.engine.swap(snapshot.clone());
    snapshot
}

/// A site with a service of mark 7 for IPv4, with one server, before any rule.
fn site(server: &str, method: Method) -> Site {
    let mut site = Site::new(1 << 12);
    let scheduler = Builtin::from_name("rr").expect("a scheduler");
    let key = ServiceKey::Mark(7, Family::Inet);
    site.services.push(Arc::new(Service::new(0, key, scheduler, Default::default())));
    site.add_real(0, server, method);
    site
}

/// Guards port choice (IPVS-REFERENCE 3.3): a server on port 0 gets the client's port, one on a port gets that, and the
/// answers find the way back to the address that the client asked, which is any of the prefix.
#[test]
fn a_mark_service_serves_every_port_and_address() {
    for (server, seen) in [("10.0.0.1:0", None), ("10.0.0.1:8080", Some(8080))] {
        let mut site = site(server, Method::Nat);
        mark(&mut site, vec![rule(7, "192.0.2.0", 24, &[(80, 90)])]);
        for (client, last, port) in [(1000, 1, 80), (1001, 1, 90), (1002, 200, 85)] {
            let (client, vip) = (format!("198.51.100.7:{client}"), format!("192.0.2.{last}:{port}"));
            let real = format!("10.0.0.1:{}", seen.unwrap_or(port));
            let (verdict, sent) = site.forward(&from_client(&tcp(&client, &vip, SYN).bytes()));
            assert_eq!(verdict, IN, "{vip}");
            assert_eq!(sent, to_server(1, &tcp(&client, &real, SYN).ttl(63).bytes()), "{vip}");
            let (verdict, sent) = site.forward(&from_server(1, &tcp(&real, &client, SYN | ACK).bytes()));
            assert_eq!(verdict, OUT, "{vip}");
            assert_eq!(sent, to_client(&tcp(&vip, &client, SYN | ACK).ttl(63).bytes()), "{vip}");
        }
        for vip in ["192.0.2.1:79", "192.0.2.1:91", "192.0.3.1:80"] {
            let frame = from_client(&tcp(CLIENT4, vip, SYN).bytes());
            assert_eq!(site.forward(&frame).0, Verdict::Reflect, "{vip}: nobody serves it, and the client is told");
        }
        let query = from_client(&udp(CLIENT4, "192.0.2.1:80", b"q").bytes());
        assert_eq!(site.forward(&query).0, IN, "a mark service is of every protocol");
    }
}

/// Guards the trap of IPVS-REFERENCE 3.1: the mark is not part of a connection's key. A connection stays where it is when
/// rules change its mark, or take it away.
#[test]
fn connections_keep_their_server_whatever_the_rules_become() {
    let mut site = site("10.0.0.1:0", Method::Nat);
    let second = site.add_service(Protocol::TCP, VIP4, "rr");
    site.add_real(second, "10.0.0.2:80", Method::Nat);
    mark(&mut site, vec![rule(7, "192.0.2.1", 32, &[])]);
    let packet = |client: u16, flags| from_client(&tcp(&format!("198.51.100.7:{client}"), VIP4, flags).bytes());
    let server = |frame: &[u8]| frame[..6].to_vec();
    assert_eq!(server(&site.forward(&packet(1, SYN)).1), server_mac(1), "the mark's service beats the exact one");
    mark(&mut site, Vec::new());
    assert_eq!(server(&site.forward(&packet(1, ACK)).1), server_mac(1), "it lives on");
    assert_eq!(server(&site.forward(&packet(2, SYN)).1), server_mac(2), "new ones are of the exact service");
    mark(&mut site, vec![rule(7, "192.0.2.1", 32, &[])]);
    assert_eq!(server(&site.forward(&packet(2, ACK)).1), server_mac(2), "a mark moves no connection");
}

/// Guards what `xvs explain` says of marks: which, by which rule, and whether anybody has it.
#[test]
fn explain_tells_the_mark_and_its_rule() {
    let mut site = site("10.0.0.1:0", Method::Nat);
    let told = |site: &Site, snapshot: &Snapshot, port: u16| {
        let dst = Endpoint::new(address("192.0.2.1"), port);
        let flow = Flow { protocol: Protocol::TCP, src: Endpoint::new(address("198.51.100.7"), 40000), dst };
        explain(&site.shared, snapshot, &flow, site.now)
    };
    let rules = mark(&mut site, vec![rule(9, "192.0.2.1", 32, &[(22, 22)]), rule(7, "192.0.2.0", 24, &[(1, 99)])]);
    let text = told(&site, &rules, 80);
    assert!(text.contains("mark: 7 by rule 2 (to 192.0.2.0/24 port 1-99)\n"), "{text}");
    assert!(text.contains("service: mark 7 (inet), scheduler rr"), "{text}");
    assert!(text.contains("picks 10.0.0.1:0"), "{text}");
    let text = told(&site, &rules, 22);
    assert!(text.contains("mark: 9 by rule 1 (to 192.0.2.1/32 port 22); no service has this mark"), "{text}");
    assert!(text.contains("service: none"), "{text}");
    let text = told(&site, &rules, 443);
    assert!(text.contains("mark: none; there are rules for its destination"), "{text}");
    let rules = mark(&mut site, Vec::new());
    assert!(!told(&site, &rules, 80).contains("mark"), "nothing is told of marks where there are none");
}
