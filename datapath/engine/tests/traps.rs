//! Traps of the reference that no other file's subject covers: what a re-implementation of IPVS gets wrong if it goes by
//! documentation, names or common sense. `docs/lvs-parity.md` has the whole list, with the test of each.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::Conn;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::{Address, Endpoint, Protocol};
use xvs_engine::real::{Arena, Generation, Method, Path, RealId, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Persistence, Policy, Service, ServiceKey};

const IN: Verdict = Verdict::Transmit(SERVERS);

fn client(packet: &Ip) -> Vec<u8> {
    from_client(&packet.bytes())
}

/// A chunk of SCTP: its type and the least it may carry.
fn chunk(kind: u8) -> Vec<u8> {
    [&[kind, 0, 0, 20][..], &[7; 16]].concat()
}

/// IPVS-REFERENCE 0.1, 2.0: a connection of the old kernels costs 256 if it is active and 1 if it is not; the new ones
/// count an active one among all as well, which makes it 257. `lc` shows the difference.
#[test]
fn trap_overhead_is_257_or_256_by_generation() {
    let pick = |generation, inactive: u32| {
        let arena = Arena::new(2, generation);
        let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
        let service = Service::new(0, key, Builtin::from_name("lc").unwrap(), Policy::default());
        for id in [RealId(0), RealId(1)] {
            let endpoint = Endpoint::new(Address::v4([10, 0, 0, id.0 as u8 + 1]), 80);
            let (method, tunnel) = (Method::Dr, Default::default());
            arena.get(id).reset(&Settings { endpoint, method, tunnel, weight: 1, upper: 0, lower: 0 });
            service.add(&arena, id);
        }
        // The older server has an active connection, the newer one so many that are not.
        arena.get(RealId(0)).bind();
        arena.get(RealId(0)).set_active(true);
        (0..inactive).for_each(|_| arena.get(RealId(1)).bind());
        service.turn().pick(&arena, &Default::default()).map(|id| id.0)
    };
    for (generation, cost) in [(Generation::New, 257), (Generation::Old, 256)] {
        assert_eq!(pick(generation, cost), Some(1), "a tie, and the newest wins");
        assert_eq!(pick(generation, cost + 1), Some(0));
    }
}

/// IPVS-REFERENCE 1.4 [T]: thresholds count connections that are closing as well, until they time out.
#[test]
fn trap_closing_connections_count_against_the_threshold() {
    let mut site = Site::new(64);
    let service = site.add_service(Protocol::TCP, VIP4, "rr");
    let real = site.add_real_with(service, "10.0.0.1:80", Method::Dr, |settings| settings.upper = 1);
    for flags in [SYN, ACK, FIN | ACK] {
        assert_eq!(site.forward(&client(&tcp(CLIENT4, VIP4, flags))).0, IN);
    }
    assert_eq!(site.counts(real), (0, 1), "FIN_WAIT");
    let other = client(&tcp("198.51.100.8:1", VIP4, SYN));
    assert_eq!(site.forward(&other).0, Verdict::Reflect, "nobody is active, and the door is closed");
    site.pass_seconds(122);
    assert_eq!(site.forward(&other).0, IN);
}

/// IPVS-REFERENCE 2.10 [T]: of an error that is scheduled (`schedule_icmp`) `dh` hashes the destination that the quoted
/// packet has, which is the client, not the VIP. `lblc` and `lblcr` remember by it as well.
#[test]
fn trap_an_error_is_hashed_by_the_destination_that_it_quotes() {
    let server = |scheduler: &str, clients: [&str; 5]| {
        clients.map(|client| {
            let mut site = Site::new(64);
            let service = site.add_service(Protocol::UDP, VIP4, scheduler);
            for last in 1..=3 {
                site.add_real(service, &format!("10.0.0.{last}:80"), Method::Dr);
            }
            site.shared.switches.schedule_icmp.set(1);
            let quoted = udp(VIP4, &format!("{client}:4000"), &[0; 8]).bytes();
            let error = icmp_error("203.0.113.9", "192.0.2.1", [3, 4], 1400, &quoted);
            let (verdict, bytes) = site.forward(&from_client(&error.bytes()));
            assert_eq!(verdict, IN);
            bytes[5] // the last byte of the server's MAC
        })
    };
    let clients = ["192.168.1.10", "192.168.1.11", "10.1.2.3", "203.0.113.77", "8.8.8.8"];
    // Slots 248, 90, 2, 57 and 188 modulo three servers, the newest first (2.11 [V] has the hashes).
    assert_eq!(server("dh", clients), [2, 0, 2, 0, 2].map(|index| 3 - index));
    // Source hashing goes by the client of the connection, as always: 2.11 [V] for equal weights.
    assert_eq!(server("sh", clients), [1, 3, 1, 3, 1]);
}

/// IPVS-REFERENCE 2.0 [T]: what follows a key exchange is never active either.
#[test]
fn trap_ipsec_is_never_active() {
    let mut site = Site::new(64);
    let service = site.add_service(Protocol::UDP, "192.0.2.1:500", "rr");
    let real = site.add_real(service, "10.0.0.1:500", Method::Nat);
    assert_eq!(site.forward(&client(&udp("198.51.100.7:500", "192.0.2.1:500", b"keys"))).0, IN);
    for protocol in [50, 51] {
        assert_eq!(site.forward(&client(&raw("198.51.100.7", "192.0.2.1", protocol, vec![7; 40]))).0, IN);
        assert_eq!(site.counts(real), (0, 1));
    }
}

/// IPVS-REFERENCE 3.2 [T]: SYN alone is asked for, so a SYN+ACK opens a connection, too; nothing with RST does.
#[test]
fn trap_syn_ack_opens_a_connection() {
    let site = Site::with_service(Method::Nat, 8080);
    assert_eq!(site.forward(&client(&tcp(CLIENT4, VIP4, SYN | ACK | RST))).0, dropped(DropReason::NoConnectionTcp));
    assert_eq!(site.forward(&client(&tcp(CLIENT4, VIP4, SYN | ACK))).0, IN);
    let conn = site.shared.table.iter().next().expect("a connection");
    assert_eq!((conn.client().to_string().as_str(), site.counts(RealId(0))), (CLIENT4, (1, 0)));
}

/// IPVS-REFERENCE 3.2 [T]: source port 20 is never scheduled, by no protocol and no kind of service; a port beside it is.
#[test]
fn trap_source_port_20_is_never_scheduled() {
    let persistence = Some(Persistence { timeout_s: 300, mask: u128::MAX });
    let policies = [
        Policy::default(),
        Policy { persistence, ..Policy::default() },
        Policy { one_packet: true, ..Policy::default() },
    ];
    for policy in policies {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            let mut site = Site::new(64);
            let service = site.add_service_with(protocol, VIP4, "rr", policy);
            site.add_real(service, "10.0.0.1:80", Method::Nat);
            let opens = |port: u16| {
                let source = format!("198.51.100.7:{port}");
                let packet = match protocol {
                    Protocol::TCP => tcp(&source, VIP4, SYN),
                    Protocol::UDP => udp(&source, VIP4, b"x"),
                    _ => sctp(&source, VIP4, &chunk(1)),
                };
                site.forward(&client(&packet)).0
            };
            assert_eq!(opens(20), dropped(DropReason::SourcePort20), "{protocol:?}");
            assert!(site.shared.table.is_empty());
            assert_eq!([opens(19), opens(21)], [IN; 2], "{protocol:?}");
        }
    }
}

/// IPVS-REFERENCE 3.5 [T], its own example: an hour of persistence, and a connection that is kept for two. After the
/// first hour the template lives a minute at a time, and a new connection at 1 h 55 gives it no more than that.
#[test]
fn trap_an_hour_of_persistence_becomes_a_minute() {
    let mut site = Site::new(64);
    let persistence = Some(Persistence { timeout_s: 3600, mask: u128::MAX });
    let service = site.add_service_with(Protocol::TCP, VIP4, "rr", Policy { persistence, ..Policy::default() });
    for last in 1..=2 {
        site.add_real(service, &format!("10.0.0.{last}:80"), Method::Nat);
    }
    let send = |site: &Site, port: u16, flags: u8| {
        let (verdict, bytes) = site.forward(&client(&tcp(&format!("198.51.100.7:{port}"), VIP4, flags)));
        assert_eq!(verdict, IN);
        bytes[5]
    };
    let life = |site: &Site| {
        let template = site.shared.table.iter().find(Conn::is_template);
        template.map(|template| template.expires_in(site.now).div_ceil(1000))
    };
    assert_eq!((send(&site, 1000, SYN), send(&site, 1000, ACK)), (2, 2), "the newest server");
    assert_eq!(life(&site), Some(3600));
    for _ in 0..23 {
        site.pass_seconds(300);
        assert_eq!(send(&site, 1000, ACK), 2, "the first connection is in use for 1 h 55");
    }
    assert_eq!((send(&site, 1001, SYN), send(&site, 1001, ACK)), (2, 2), "a new one goes where the first one is");
    assert_eq!(life(&site), Some(60), "and renews a minute, not the hour");
    // Both end; CLOSE lasts 10 s, and what is left of the template a minute at most.
    assert_eq!((send(&site, 1000, RST), send(&site, 1001, RST)), (2, 2));
    site.pass_seconds(75);
    assert_eq!(life(&site), None);
    assert_eq!(send(&site, 1002, SYN), 1, "a minute after his last connection the client is anybody's");
}

/// IPVS-REFERENCE 4.3: a port that is perhaps FTP's data is the host's if nobody takes it, and a host resets; FTP's own
/// port without a server is "port unreachable" like any other.
#[test]
fn trap_ftps_data_ports_are_the_hosts_without_a_server() {
    let mut site = Site::new(64);
    let persistence = Some(Persistence { timeout_s: 300, mask: u128::MAX });
    let policy = Policy { persistence, ..Policy::default() };
    let service = site.add_service_with(Protocol::TCP, "192.0.2.1:21", "rr", policy);
    let data = client(&tcp(CLIENT4, "192.0.2.1:50000", SYN));
    let told = |site: &Site, frame: &[u8]| {
        let (verdict, bytes) = site.forward(frame);
        assert_eq!(verdict, Verdict::Reflect);
        bytes[23] // the protocol of the answer
    };
    assert_eq!(told(&site, &data), 6, "a reset");
    assert_eq!(told(&site, &client(&tcp(CLIENT4, "192.0.2.1:21", SYN))), 1, "ICMP");
    let counters = site.engine.counters();
    assert_eq!([DropReason::NoService, DropReason::NoServer].map(|reason| counters.drops(reason)), [1, 1]);
    site.add_real(service, "10.0.0.1:21", Method::Dr);
    assert_eq!(site.forward(&data).0, IN);
}

/// IPVS-REFERENCE 4.4 [T]: what a NAT server sends outside of any connection would leave IPVS untranslated, with the
/// server's own address. Here it does not leave; with `nat_icmp_send` the server is told, unless it gives up by itself.
#[test]
fn trap_late_packets_of_a_nat_server_do_not_leak() {
    let site = Site::with_service(Method::Nat, 8080);
    let sends = |packet: &Ip| site.forward(&from_server(1, &packet.bytes()));
    let late = [
        tcp("10.0.0.1:8080", CLIENT4, ACK),
        udp("10.0.0.1:8080", CLIENT4, b"late"),
        sctp("10.0.0.1:8080", CLIENT4, &chunk(3)),
    ];
    let over = [tcp("10.0.0.1:8080", CLIENT4, RST), sctp("10.0.0.1:8080", CLIENT4, &[6, 0, 0, 4])];
    for packet in late.iter().chain(&over) {
        assert_eq!(sends(packet).0, dropped(DropReason::NoConnectionReply));
    }
    site.shared.switches.nat_icmp_send.set(1);
    for packet in &late {
        let (verdict, bytes) = sends(packet);
        assert_eq!(verdict, Verdict::Reflect);
        assert_eq!((bytes[23], bytes[34], bytes[35]), (1, 3, 3), "ICMP, port unreachable");
        assert_eq!(bytes[30..34], [10, 0, 0, 1], "to the server");
    }
    for packet in &over {
        assert_eq!(sends(packet).0, dropped(DropReason::NoConnectionReply), "a reset is not answered");
    }
}

/// IPVS-REFERENCE 4.5.4: a real server that is the director itself can not be reached by AF_XDP: its packets are dropped
/// by name, by every method, and not sent into the network.
#[test]
fn trap_a_local_real_server_is_named() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let site = Site::with_service(method, 80);
        site.shared.arena.get(RealId(0)).set_path(Path::Local, 1500, None);
        let syn = client(&tcp(CLIENT4, VIP4, SYN));
        assert_eq!(site.forward(&syn).0, dropped(DropReason::LocalServer), "{method:?}");
    }
}
