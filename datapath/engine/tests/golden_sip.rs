//! The persistence engine for SIP: calls instead of clients, and connections that servers begin, by the rules of IPVS
//! (IPVS-REFERENCE 3.5, 3.8, 4.4, 6.1).

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::Conn;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::explain::explain;
use xvs_engine::flow::{Flow, Protocol};
use xvs_engine::real::{Method, RealId};
use xvs_engine::service::{Persistence, PersistenceEngine, Policy};

const VIP: &str = "192.0.2.1:5060";
const ALICE: &str = "198.51.100.7:5060";
const BOB: &str = "198.51.100.8:5060";
/// Bits of IPv4 that are the client's network, in the mapped form.
const HOST: u32 = 32;

fn policy(prefix: u32) -> Policy {
    let mask = !((1u128 << (32 - prefix)) - 1);
    let persistence = Some(Persistence { timeout_s: 60, mask });
    Policy { persistence, engine: Some(PersistenceEngine::Sip), ..Policy::default() }
}

fn one_packet() -> Policy {
    Policy { one_packet: true, ..policy(HOST) }
}

/// A site with one SIP service over three servers 10.0.0.1 to 10.0.0.3, picks in the order 3, 2, 1.
fn site(policy: Policy, method: Method) -> Site {
    let mut site = Site::new(256);
    let service = site.add_service_with(Protocol::UDP, VIP, "rr", policy);
    for last in 1..=3 {
        site.add_real(service, &format!("10.0.0.{last}:5060"), method);
    }
    site
}

fn message(call: &str) -> Vec<u8> {
    format!(
        "INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7\r\n{call}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn invite(client: &str, call: &str) -> Ip {
    udp(client, VIP, &message(&format!("Call-ID: {call}")))
}

/// The server that a client's packet goes to, by its MAC.
fn goes(site: &Site, packet: &Ip) -> Option<u8> {
    let (verdict, bytes) = site.forward(&from_client(&packet.bytes()));
    (verdict == Verdict::Transmit(SERVERS)).then_some(bytes[5])
}

fn reason(site: &Site, packet: &Ip) -> Verdict {
    site.forward(&from_client(&packet.bytes())).0
}

fn templates(site: &Site) -> Vec<Conn<'_>> {
    site.shared.table.iter().filter(Conn::is_template).collect()
}

/// A server's message to a client, and what of it leaves.
fn sends(site: &Site, last: u8, client: &str, call: &str) -> (Verdict, Vec<u8>) {
    let packet = udp(&format!("10.0.0.{last}:5060"), client, &message(&format!("Call-ID: {call}")));
    site.forward(&from_server(last, &packet.bytes()))
}

/// The same message as it must arrive: from the VIP.
fn from_vip(client: &str, call: &str) -> (Verdict, Vec<u8>) {
    let packet = udp(VIP, client, &message(&format!("Call-ID: {call}"))).ttl(63);
    (Verdict::Transmit(CLIENTS), to_client(&packet.bytes()))
}

/// One client's calls are scheduled each by itself; a call stays with its server, whatever port its messages come from.
#[test]
fn a_call_is_a_client_of_its_own() {
    let site = site(policy(HOST), Method::Dr);
    let calls = ["a@x", "b@x", "c@x", "d@x"];
    let picks = |port: u16| {
        let client = |at: usize| format!("198.51.100.7:{}", usize::from(port) + at);
        [0, 1, 2, 3].map(|at| goes(&site, &invite(&client(at), calls[at])))
    };
    assert_eq!(picks(1000), [3, 2, 1, 3].map(Some));
    assert_eq!(picks(2000), [3, 2, 1, 3].map(Some), "by their templates");
    assert_eq!((templates(&site).len(), site.shared.table.calls()), (4, 4));
    let template = templates(&site).into_iter().find(|conn| conn.real() == RealId(1)).unwrap();
    let key = template.flow();
    assert_eq!((key.src.to_string(), key.dst.to_string()), ("198.51.100.7:0".into(), VIP.into()));
    assert_eq!((site.shared.table.call_id(&template).as_deref(), template.children()), (Some("b@x"), 2));
    assert_eq!(
        goes(&site, &invite("198.51.100.7:1000", "b@x")),
        Some(3),
        "a connection that lives is not asked for its call"
    );
}

/// A call is one client's: the network that the mask gives is a part of what a template is known by, in IPVS as here. A
/// mask over both of them makes two clients with one Call-ID one.
#[test]
fn a_call_is_known_within_its_network() {
    let apart = site(policy(HOST), Method::Dr);
    assert_eq!([ALICE, BOB].map(|client| goes(&apart, &invite(client, "a@x"))), [Some(3), Some(2)]);
    for prefix in [24, 0] {
        let together = site(policy(prefix), Method::Dr);
        assert_eq!([ALICE, BOB].map(|client| goes(&together, &invite(client, "a@x"))), [Some(3), Some(3)]);
        assert_eq!(templates(&together).len(), 1);
        assert_eq!(goes(&together, &invite("198.51.100.9:5060", "b@x")), Some(2), "another call");
    }
}

/// Names of headers have any case, and the compact form is one; a message without a Call-ID, or with one that is cut off
/// or too long, opens nothing, in silence; nor does what is no UDP.
#[test]
fn what_has_no_call_id_opens_nothing() {
    let mut site = site(policy(HOST), Method::Dr);
    let other = site.add_service_with(Protocol::TCP, VIP, "rr", policy(HOST));
    site.add_real(other, "10.0.0.1:5060", Method::Dr);
    for (at, header) in ["CALL-ID: a@x", "call-id:a@x", "i: a@x", "Call-Id :  a@x"].iter().enumerate() {
        assert_eq!(
            goes(&site, &udp(&format!("198.51.100.7:{}", 1000 + at), VIP, &message(header))),
            Some(3),
            "{header}"
        );
    }
    let long = format!("Call-ID: {}", "x".repeat(256));
    let longest = format!("Call-ID: {}", "x".repeat(255));
    let headers = ["Subject: none", "Call-ID:", "Call-ID: a@", "Call-ID: a b", &long];
    let mut bodies: Vec<Vec<u8>> = headers.iter().map(|header| message(header)).collect();
    bodies.push(b"INVITE sip:bob SIP/2.0\r\nCall-ID: a@x".to_vec());
    bodies.push(Vec::new());
    for body in &bodies {
        assert_eq!(reason(&site, &udp(BOB, VIP, body)), dropped(DropReason::NoCallId), "{body:?}");
    }
    assert_eq!(reason(&site, &tcp(BOB, VIP, SYN).payload(message("Call-ID: a@x"))), dropped(DropReason::NoCallId));
    assert_eq!(goes(&site, &udp(BOB, VIP, &message(&longest))), Some(2));
    assert_eq!(templates(&site).len(), 2);
}

/// A template goes with its timeout, when its last child has gone, and gives the place of its Call-ID back.
#[test]
fn the_end_of_a_call_frees_its_place() {
    let mut site = site(one_packet(), Method::Dr);
    assert_eq!(["a@x", "b@x"].map(|call| goes(&site, &invite(ALICE, call))), [Some(3), Some(2)]);
    site.pass_seconds(40);
    assert_eq!(goes(&site, &invite(ALICE, "a@x")), Some(3), "renewed");
    site.pass_seconds(30);
    assert_eq!((templates(&site).len(), site.shared.table.calls()), (1, 1));
    assert_eq!(goes(&site, &invite(ALICE, "b@x")), Some(1), "forgotten, and scheduled anew");
    site.pass_seconds(62);
    assert!(site.shared.table.calls() == 0 && site.shared.table.is_empty());
    assert_eq!(site.shared.arena.get(RealId(2)).templates(), 0);
}

/// When all places are taken a new call is dropped with a reason of its own; calls that are known go on, and a place that
/// comes free is taken. Nothing is evicted for it.
#[test]
fn a_full_store_has_a_name() {
    let mut site = site(one_packet(), Method::Dr);
    let call = |number: usize| invite(ALICE, &format!("{number}@x"));
    assert!((0..64).all(|number| goes(&site, &call(number)).is_some()), "a quarter of 256");
    assert_eq!(reason(&site, &call(64)), dropped(DropReason::CallsFull));
    assert!(goes(&site, &call(0)).is_some());
    assert_eq!((site.shared.table.calls(), site.engine.counters().evicted.get()), (64, 0));
    site.pass_seconds(62);
    assert!(goes(&site, &call(64)).is_some());
}

/// Without persistence the engine counts for nothing on the way in.
#[test]
fn no_persistence_no_calls() {
    let site = site(Policy { persistence: None, ..policy(HOST) }, Method::Dr);
    assert_eq!(
        [1000, 1001].map(|port| goes(&site, &invite(&format!("198.51.100.7:{port}"), "a@x"))),
        [Some(3), Some(2)]
    );
    assert!(goes(&site, &udp(BOB, VIP, b"x")).is_some() && site.shared.table.calls() == 0);
}

/// With one-packet scheduling by NAT the answers of a server find their way by the engine: each is translated, counted,
/// renews the call's template, and leaves no connection.
#[test]
fn answers_to_single_packets_are_translated() {
    let mut site = site(one_packet(), Method::Nat);
    assert_eq!(goes(&site, &invite(ALICE, "a@x")), Some(3));
    site.pass_seconds(40);
    assert_eq!(sends(&site, 3, ALICE, "a@x"), from_vip(ALICE, "a@x"));
    site.pass_seconds(40);
    assert_eq!(sends(&site, 3, "198.51.100.7:9999", "a@x"), from_vip("198.51.100.7:9999", "a@x"), "to any port");
    assert_eq!((site.shared.table.len(), templates(&site)[0].children()), (1, 0), "the template alone");
    assert_eq!(goes(&site, &invite(ALICE, "a@x")), Some(3));
    let counters = site.engine.counters();
    let traffic = counters.real(RealId(2));
    assert_eq!((traffic.conns, traffic.in_packets, traffic.out_packets), (4, 2, 2));
    assert_eq!((counters.outward.get(), counters.outbound.get(), site.counts(RealId(2))), (2, 2, (0, 0)));
}

/// A server may begin a call itself: its template leads the client's messages to it. One that led elsewhere is retired.
#[test]
fn a_server_begins_a_call() {
    let site = site(one_packet(), Method::Nat);
    assert_eq!(sends(&site, 1, BOB, "out@y"), from_vip(BOB, "out@y"));
    assert_eq!(goes(&site, &invite(BOB, "out@y")), Some(1), "not the scheduler's 3");
    assert_eq!(sends(&site, 2, BOB, "out@y"), from_vip(BOB, "out@y"));
    assert_eq!(goes(&site, &invite(BOB, "out@y")), Some(2));
    assert_eq!(templates(&site).len(), 2, "the old one waits for its end");
    assert_eq!(goes(&site, &invite(BOB, "in@y")), Some(3));
}

/// Without one-packet scheduling a server's message makes a connection in both directions, a child of the call. A client's
/// connection that lives stays with its server all the same; the other server's messages are translated.
#[test]
fn a_server_begins_a_connection() {
    let mut site = site(policy(HOST), Method::Nat);
    assert_eq!(sends(&site, 2, BOB, "out@y"), from_vip(BOB, "out@y"));
    assert_eq!((site.counts(RealId(1)), site.engine.counters().opened.get()), ((0, 1), 0));
    assert_eq!((templates(&site)[0].children(), templates(&site)[0].is_assured()), (1, true));
    assert_eq!(goes(&site, &udp(BOB, VIP, b"\r\n\r\n")), Some(2), "it is the connection of both");
    assert_eq!(sends(&site, 1, BOB, "more@y"), from_vip(BOB, "more@y"));
    assert_eq!(goes(&site, &udp(BOB, VIP, b"\r\n\r\n")), Some(2));
    assert_eq!(sends(&site, 1, BOB, "more@y"), from_vip(BOB, "more@y"), "by the note");
    assert_eq!((site.counts(RealId(0)), site.counts(RealId(1))), ((0, 0), (0, 1)));
    site.pass_seconds(302 + 62);
    assert!(site.shared.table.calls() == 0 && site.shared.table.is_empty());
    assert_eq!(site.counts(RealId(1)), (0, 0));
}

/// What begins nothing: a message without a Call-ID, of another port, of a server by DR, of a removed one, of another
/// protocol, to the VIP, or of a service without the engine.
#[test]
fn who_may_not_begin() {
    let denied = dropped(DropReason::NoConnectionReply);
    let out = |site: &Site, packet: Ip| site.forward(&from_server(1, &packet.bytes())).0;
    let call = message("Call-ID: a@x");
    let nat = site(one_packet(), Method::Nat);
    assert_eq!(out(&nat, udp("10.0.0.1:5060", ALICE, b"no SIP")), denied);
    assert_eq!(out(&nat, udp("10.0.0.1:5061", ALICE, &call)), denied);
    assert_eq!(out(&nat, tcp("10.0.0.1:5060", ALICE, ACK).payload(call.clone())), denied);
    assert_eq!(out(&nat, udp("10.0.0.1:5060", "192.0.2.1:9", &call)), dropped_to_vip(&nat, &call));
    nat.services[0].remove(&nat.shared.arena, RealId(0));
    assert_eq!(out(&nat, udp("10.0.0.1:5060", ALICE, &call)), denied);
    assert_eq!(out(&site(one_packet(), Method::Dr), udp("10.0.0.1:5060", ALICE, &call)), denied);
    let mut plain = site(Policy { engine: None, ..one_packet() }, Method::Nat);
    assert_eq!(out(&plain, udp("10.0.0.1:5060", ALICE, &call)), denied);
    let scheduler = xvs_engine::sched::Builtin::from_name("rr").unwrap();
    plain.services[0].edit(&plain.shared.arena, scheduler, one_packet());
    plain.compile();
    assert_eq!(out(&plain, udp("10.0.0.1:5060", ALICE, &call)), Verdict::Transmit(CLIENTS), "an edit is enough");
    assert!(nat.shared.table.is_empty());
}

/// What anybody's packet to a port of the VIP gets that no service has.
fn dropped_to_vip(site: &Site, call: &[u8]) -> Verdict {
    reason(site, &udp("203.0.113.77:5060", "192.0.2.1:9", call))
}

/// A large message in fragments: the Call-ID stands in the first one, and the later ones follow it, in either direction.
#[test]
fn fragments_of_a_message_follow() {
    let site = site(one_packet(), Method::Nat);
    let mut body = message("Call-ID: a@x");
    body.resize(2400, b'v');
    let pieces = udp(ALICE, VIP, &body).may_fragment().fragments(1200);
    for piece in &pieces {
        let (verdict, bytes) = site.forward(&from_client(piece));
        assert_eq!((verdict, bytes[33]), (Verdict::Transmit(SERVERS), 3));
    }
    let pieces = udp("10.0.0.3:5060", ALICE, &body).may_fragment().fragments(1200);
    for piece in &pieces {
        let (verdict, bytes) = site.forward(&from_server(3, piece));
        assert_eq!((verdict, &bytes[26..34]), (Verdict::Transmit(CLIENTS), &[192, 0, 2, 1, 198, 51, 100, 7][..]));
    }
}

/// Calls of IPv6 clients are known within their prefix, and are answered in the same way.
#[test]
fn calls_by_ipv6() {
    const VIP: &str = "[2001:db8::1]:5060";
    let mut site = Site::new(64);
    let persistence = Some(Persistence { timeout_s: 60, mask: !0 << 64 });
    let service = site.add_service_with(Protocol::UDP, VIP, "rr", Policy { persistence, ..one_packet() });
    for last in 1..=2 {
        site.add_real(service, &format!("[fd00::{last}]:5060"), Method::Nat);
    }
    let call = |client: &str, call: &str| goes(&site, &udp(client, VIP, &message(&format!("Call-ID: {call}"))));
    assert_eq!(call("[2001:db8:c::7]:5060", "a@x"), Some(2));
    assert_eq!(call("[2001:db8:c::7]:5060", "b@x"), Some(1));
    assert_eq!(call("[2001:db8:c::8]:5060", "b@x"), Some(1));
    assert_eq!(call("[2001:db8:d::7]:5060", "b@x"), Some(2), "another network");
    let answer = |src: &str| udp(src, "[2001:db8:c::8]:5060", &message("Call-ID: b@x"));
    let sent = site.forward(&from_server(1, &answer("[fd00::1]:5060").bytes()));
    assert_eq!(sent, (Verdict::Transmit(CLIENTS), to_client(&answer(VIP).ttl(63).bytes())));
    assert_eq!(site.shared.table.calls(), 3);
}

/// `xvs explain` tells of the engine, in both directions.
#[test]
fn explain_tells_of_the_engine() {
    let site = site(one_packet(), Method::Nat);
    let tells = |src: &str, dst: &str| {
        let [src, dst] = [src, dst].map(|text| text.parse::<std::net::SocketAddr>().unwrap().into());
        explain(&site.shared, &site.snapshot(), &Flow { protocol: Protocol::UDP, src, dst }, site.now)
    };
    let text = tells(ALICE, VIP);
    assert!(
        text.contains("by the Call-ID") && text.contains("no_call_id") && text.contains("rr picks 10.0.0.3"),
        "{text}"
    );
    let text = tells("10.0.0.3:5060", ALICE);
    assert!(text.contains("outward") && text.contains(VIP), "{text}");
}
