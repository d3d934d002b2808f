//! Packets that follow other packets' connections: answers of DR and TUN servers that cross the director, IPsec, and ICMP
//! errors that open one (IPVS-REFERENCE 3.1, 3.2, 3.4.1, 4.4, 4.6).

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::tcp::State;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::{Method, RealId};

const IN: Verdict = Verdict::Transmit(SERVERS);
const OUT: Verdict = Verdict::Transmit(CLIENTS);

fn state(site: &Site) -> State {
    State::from_bits(site.shared.table.iter().next().expect("a connection").status().state)
}

/// Trap: the first answer of a DR or TUN server that crosses the director makes the connection two-way for good: its
/// states are those of NAT, the answer is counted, and only routed.
#[test]
fn answers_that_cross_the_director() {
    for method in [Method::Dr, Method::Tun] {
        for (client, vip, real) in [(CLIENT4, VIP4, RealId(0)), (CLIENT6, VIP6, RealId(2))] {
            let site = Site::with_service(method, 80);
            let walk = |frame: Vec<u8>, verdict: Verdict| assert_eq!(site.forward(&frame).0, verdict);
            walk(from_client(&tcp(client, vip, SYN).bytes()), IN);
            let answer = tcp(vip, client, SYN | ACK);
            let (verdict, bytes) = site.forward(&from_server(1, &answer.bytes()));
            let expected = to_client(&tcp(vip, client, SYN | ACK).ttl(63).bytes());
            assert_eq!((verdict, bytes), (OUT, expected), "only the TTL changes");
            walk(from_client(&tcp(client, vip, ACK).bytes()), IN);
            walk(from_client(&tcp(client, vip, FIN | ACK).bytes()), IN);
            assert_eq!(state(&site), State::CloseWait, "one-way it would be FIN_WAIT");
            walk(from_server(1, &tcp(vip, client, FIN | ACK).bytes()), OUT);
            assert_eq!(state(&site), State::TimeWait);
            let traffic = site.engine.counters().real(real);
            assert_eq!((traffic.in_packets, traffic.out_packets), (3, 2));
        }
    }
    let site = Site::with_service(Method::Dr, 80);
    let stray = site.forward(&from_server(1, &tcp(VIP4, CLIENT4, ACK).bytes()));
    assert_eq!(stray.0, dropped(DropReason::NoConnectionReply), "an answer makes no connection");
}

/// AH and ESP follow the connection of UDP port 500 in both directions, keep it alive, and never make one.
#[test]
fn ipsec_follows_its_key_exchange() {
    let (client, vip, rip) = ("198.51.100.7", "192.0.2.1", "10.0.0.1");
    for method in [Method::Nat, Method::Dr] {
        let mut site = Site::new(64);
        let service = site.add_service(Protocol::UDP, "192.0.2.1:500", "rr");
        let real = site.add_real(service, "10.0.0.1:500", method);
        let esp = from_client(&raw(client, vip, 50, vec![7; 40]).bytes());
        assert_eq!(site.forward(&esp).0, dropped(DropReason::NoConnectionIpsec));
        let keys = udp("198.51.100.7:500", "192.0.2.1:500", b"keys");
        assert_eq!(site.forward(&from_client(&keys.bytes())).0, IN);
        for protocol in [50, 51] {
            let (verdict, bytes) = site.forward(&from_client(&raw(client, vip, protocol, vec![7; 40]).bytes()));
            let to = if method == Method::Nat { rip } else { vip };
            let expected = to_server(1, &raw(client, to, protocol, vec![7; 40]).ttl(63).bytes());
            assert_eq!((verdict, bytes), (IN, expected), "addresses alone are translated");
        }
        if method == Method::Nat {
            let (verdict, bytes) = site.forward(&from_server(1, &raw(rip, client, 50, vec![9; 8]).bytes()));
            assert_eq!((verdict, bytes), (OUT, to_client(&raw(vip, client, 50, vec![9; 8]).ttl(63).bytes())));
        }
        for _ in 0..3 {
            site.pass_seconds(250);
            assert_eq!(site.forward(&esp).0, IN, "it keeps the connection alive");
        }
        assert_eq!(site.engine.counters().real(real).conns, 1);
    }
}

/// `schedule_icmp`: an error about a packet of no connection opens one by that packet, reversed, and goes to its server.
#[test]
fn an_error_can_open_a_connection() {
    let site = Site::with_service(Method::Dr, 80);
    let quoted = udp(VIP4, CLIENT4, &[0; 8]).bytes();
    let error = from_client(&icmp_error("203.0.113.9", "192.0.2.1", [3, 4], 1400, &quoted).bytes());
    assert_eq!(site.forward(&error).0, dropped(DropReason::IcmpUnrelated));
    site.shared.switches.schedule_icmp.set(1);
    assert_eq!(site.forward(&error).0, IN);
    let conn = site.shared.table.iter().next().expect("a connection");
    assert_eq!((conn.client().to_string(), conn.virtual_endpoint().to_string()), (CLIENT4.into(), VIP4.into()));
    assert_eq!(conn.expires_in(site.now), 3000, "it lives by its own packets");
}
