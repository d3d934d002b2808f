//! The rules of the XDP program as a table: a sentence, a frame, what must become of it.
//!
//! The kernel runs the program over each frame (BPF_PROG_TEST_RUN), with a real AF_XDP socket in the map, so that
//! "redirected" is the kernel's own answer. After every frame all counters are compared: one moved, by one packet and
//! its bytes, and no other did.

mod common;
mod director;
mod frames;

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use director::{IFINDEX, SCTP, TCP, UDP, director, expect, outcome};
use frames::{Extension, Part, Shape, World, ethernet, icmp, ip, transport};
use xvs_redirect::{Absent, Action};

/// Longer frames span several buffers, which the kernel offers to other programs than ours.
const ONE_BUFFER: usize = 3400;

/// A sentence, the IP packet, and the outcome by its counter's name.
type Case = (String, Part, &'static str);

/// Rules (a) and (b), and what they must leave alone.
fn transport_cases(w: &World) -> Vec<Case> {
    let plain = Shape::default();
    let t = |src, sport, dst, dport, protocol| ip(src, dst, protocol, &plain, transport(protocol, sport, dport));
    let (service, reply) = ("redirected_service", "redirected_reply");
    let (not, local) = ("passed_not_steered", "passed_local");
    let table: Vec<(&str, Part, &'static str)> = vec![
        ("a TCP service", t(w.client, 4000, w.vip, 80, TCP), service),
        ("a UDP service", t(w.client, 4000, w.vip, 53, UDP), service),
        ("an SCTP service", t(w.client, 4000, w.vip, 9899, SCTP), service),
        ("a service of any port", t(w.client, 4000, w.vip_any, 12345, TCP), service),
        ("any port includes ssh", t(w.client, 4000, w.vip_any, 22, TCP), service),
        ("any port, but another protocol", t(w.client, 4000, w.vip_any, 12345, UDP), not),
        ("ssh to the VIP", t(w.client, 4000, w.vip, 22, TCP), not),
        ("another port of the VIP", t(w.client, 4000, w.vip, 81, TCP), not),
        ("the service's port with its bytes swapped", t(w.client, 4000, w.vip, 80_u16.swap_bytes(), TCP), not),
        ("the same VIP and port, another protocol", t(w.client, 4000, w.vip, 80, UDP), not),
        ("ssh to the director", t(w.client, 4000, w.dip, 22, TCP), not),
        ("the service's port at another address", t(w.client, 4000, w.rip, 80, TCP), not),
        ("from the VIP and port, instead of to it", t(w.vip, 80, w.client, 4000, TCP), not),
        ("a TCP reply of a real server", t(w.rip, 8080, w.client, 4000, TCP), reply),
        ("a UDP reply of a real server", t(w.rip, 53, w.client, 4000, UDP), reply),
        ("an SCTP reply of a real server", t(w.rip, 9899, w.client, 4000, SCTP), reply),
        ("a reply from any port", t(w.rip_any, 12345, w.client, 4000, TCP), reply),
        ("another port of the real server", t(w.rip, 8081, w.client, 4000, TCP), not),
        ("another protocol of the real server", t(w.rip, 8080, w.client, 4000, UDP), not),
        ("to the real server, instead of from it", t(w.client, 4000, w.rip, 8080, TCP), not),
        ("the answer to a health check", t(w.rip, 8080, w.dip, 4000, TCP), local),
        ("the answer to a health check, any port", t(w.rip_any, 12345, w.dip, 4000, TCP), local),
        ("a real server is a client of a service", t(w.rip, 8080, w.vip, 80, TCP), service),
        ("echo to the VIP", ip(w.client, w.vip, w.icmp, &plain, icmp(w.echo, &Part::default())), not),
        ("no transport that has ports", ip(w.client, w.vip, 47, &plain, transport(UDP, 4000, 80)), not),
        (
            "IPsec to a VIP whose key exchange is a service",
            ip(w.client, w.vip, 50, &plain, transport(UDP, 1, 2)),
            service,
        ),
        ("IPsec to a VIP with other services", ip(w.client, w.vip_any, 50, &plain, transport(UDP, 500, 500)), not),
        ("IPsec of a real server", ip(w.rip, w.client, 50, &plain, transport(UDP, 1, 2)), reply),
        ("IPsec between a real server and the director", ip(w.rip, w.dip, 50, &plain, transport(UDP, 1, 2)), local),
        ("IPsec of anybody else", ip(w.rip_any, w.client, 50, &plain, transport(UDP, 500, 500)), not),
    ];
    table.into_iter().map(|(says, packet, outcome)| (says.into(), packet, outcome)).collect()
}

/// Rule (c): every type of error, every place where the quoted packet can be ours.
fn icmp_cases(w: &World) -> Vec<Case> {
    let plain = Shape::default();
    let quoted = |src, sport, dst, dport, protocol: u8| {
        // Eight bytes of the transport is all that RFC 792 promises.
        let mut part = ip(src, dst, protocol, &plain, transport(protocol, sport, dport));
        let headers = part.headers - transport(protocol, 0, 0).headers;
        part.bytes.truncate(headers + 8);
        part.headers = headers + 4;
        part
    };
    let error = |dst, kind: u8, quoted: &Part| ip(w.router, dst, w.icmp, &plain, icmp(kind, quoted));
    let mut cases: Vec<Case> = Vec::new();
    for &kind in w.errors {
        let mut add = |says: &str, dst: IpAddr, quoted: Part, outcome| {
            cases.push((format!("ICMP type {kind}: {says}"), error(dst, kind, &quoted), outcome));
        };
        let icmp = "redirected_icmp";
        add("what the VIP sent", w.vip, quoted(w.vip, 80, w.client, 4000, TCP), icmp);
        add("what the VIP sent, UDP", w.vip, quoted(w.vip, 53, w.client, 4000, UDP), icmp);
        add("what the VIP sent, SCTP", w.vip, quoted(w.vip, 9899, w.client, 4000, SCTP), icmp);
        add("what the VIP of any port sent", w.vip_any, quoted(w.vip_any, 7, w.client, 4000, TCP), icmp);
        add("what went to the VIP", w.client, quoted(w.client, 4000, w.vip, 80, TCP), icmp);
        add("what went to the real server", w.client, quoted(w.client, 4000, w.rip, 8080, TCP), icmp);
        add("what went to the real server of any port", w.client, quoted(w.client, 4000, w.rip_any, 7, TCP), icmp);
        let not = "passed_not_steered";
        add("what another port of the VIP sent", w.vip, quoted(w.vip, 22, w.client, 4000, TCP), not);
        add("what another protocol of the VIP sent", w.vip, quoted(w.vip, 80, w.client, 4000, UDP), not);
        add("what went to another port of the real server", w.client, quoted(w.client, 4000, w.rip, 22, TCP), not);
        add("what the real server sent", w.rip, quoted(w.rip, 8080, w.client, 4000, TCP), not);
        add("a ping of the VIP", w.vip, quoted(w.vip, 80, w.client, 4000, w.icmp), not);
        add("a health check", w.dip, quoted(w.dip, 4000, w.rip, 8080, TCP), "passed_local");
        add("a quotation of another IP version", w.vip, w.alien.clone(), "passed_malformed");
    }
    let ours = quoted(w.vip, 80, w.client, 4000, TCP);
    for &kind in w.informative {
        let says = format!("ICMP type {kind} is not relayed, whatever it carries");
        cases.push((says, error(w.vip, kind, &ours), "passed_not_steered"));
    }
    cases
}

/// Rule (c) for the director's own tunnels: whichever protocol carries them, to a TUN real server, come home to the
/// director. IPv6 outside: of packets too big only.
fn tunnel_cases(w: &World) -> Vec<Case> {
    let plain = Shape::default();
    let inner = ip(w.client, w.vip, TCP, &plain, transport(TCP, 4000, 80));
    let bare = |src, dst, protocol| ip(src, dst, protocol, &plain, Part::payload(&inner.bytes[..28]));
    let datagram = |src, dst, port| {
        let mut part = ip(src, dst, UDP, &plain, transport(UDP, 40000, port));
        part.headers -= 4; // the ports are enough
        part
    };
    let mut cases: Vec<Case> = Vec::new();
    for &kind in w.errors {
        let mut add = |says: &str, to: IpAddr, quoted: Part, outcome| {
            let packet = ip(w.router, to, w.icmp, &plain, icmp(kind, &quoted));
            cases.push((format!("ICMP type {kind}: {says}"), packet, outcome));
        };
        let not = "passed_not_steered";
        let yes = if w.version == 4 || kind == 2 { "redirected_icmp" } else { not };
        add("about IPv4 in IP", w.dip, bare(w.dip, w.far, 4), yes);
        add("about IPv6 in IP", w.dip, bare(w.dip, w.far, 41), yes);
        add("about GRE", w.dip, bare(w.dip, w.far, 47), yes);
        add("about GUE", w.dip, datagram(w.dip, w.far, 6080), yes);
        add("about another tunnel protocol", w.dip, bare(w.dip, w.far, 50), not);
        add("about UDP to another port", w.dip, datagram(w.dip, w.far, 53), not);
        add("about somebody else's tunnel", w.dip, bare(w.dip, w.rip, 4), not);
        add("about a tunnel from the far end", w.dip, bare(w.far, w.dip, 4), not);
        add("about a tunnel of another director", w.client, bare(w.client, w.far, 4), not);
        let later = ip(w.dip, w.far, 4, &Shape::fragment(7, false), Part::payload(&inner.bytes));
        add("about a later fragment of a tunnel", w.dip, later, not);
    }
    cases
}

/// Guards rules (a), (b) and (c) in both families, and that VLAN tags change nothing.
#[test]
fn rules_hold_under_any_tags() {
    let Some((redirect, _socket)) = director() else { return };
    for world in [World::v4(), World::v6()] {
        let cases = [transport_cases(&world), icmp_cases(&world), tunnel_cases(&world)].concat();
        for (says, packet, outcome) in cases {
            for tags in frames::TAGS {
                let frame = ethernet(tags, world.ethertype, &packet);
                let says = format!("IPv{}, tags {tags:x?}: {says}", world.version);
                expect(&redirect, &says, &frame.bytes, outcome);
            }
        }
    }
}

/// All ways to lengthen a header or to cut a packet into fragments, each with what it makes of a steered packet: the
/// first is the suffix of the outcome's name, empty for the ordinary one.
fn shapes(world: &World) -> Vec<(&'static str, Shape)> {
    use Extension::*;
    let mut shapes = vec![
        ("", Shape::default()),
        ("", Shape::fragment(0, true)),
        ("fragment", Shape::fragment(1, true)),
        ("fragment", Shape::fragment(185, false)),
        // The highest bit of the offset alone, then all of them.
        ("fragment", Shape::fragment(4096, true)),
        ("fragment", Shape::fragment(8191, false)),
    ];
    if world.version == 4 {
        for words in 1..=10 {
            shapes.push(("", Shape::options(words)));
        }
        shapes.push(("fragment", Shape { options: 3, ..Shape::fragment(7, true) }));
    } else {
        for one in [HopByHop(0), HopByHop(3), Routing(2), Destination(1), Destination(255), Authentication(4)] {
            shapes.push(("", Shape::extensions(&[one])));
        }
        // A fragment header that fragments nothing (RFC 6946).
        shapes.push(("", Shape::fragment(0, false)));
        let most = [HopByHop(0), Destination(1), Routing(2), Fragment(0, true), Authentication(4), Destination(0)];
        shapes.push(("", Shape::extensions(&most)));
        let long = [HopByHop(255), Destination(2), Fragment(5, false)];
        shapes.push(("fragment", Shape::extensions(&long)));
    }
    shapes
}

/// Every steered packet in every shape: rules (a), (b), and (d).
fn steered(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (suffix, shape) in shapes(world) {
        for (src, sport, dst, dport, protocol, outcome) in [
            (world.client, 4000, world.vip, 80, TCP, "redirected_service"),
            (world.client, 4000, world.vip, 53, UDP, "redirected_service"),
            (world.client, 4000, world.vip, 9899, SCTP, "redirected_service"),
            (world.client, 4000, world.vip_any, 9, TCP, "redirected_service"),
            (world.rip, 8080, world.client, 4000, TCP, "redirected_reply"),
            (world.rip_any, 9, world.client, 4000, TCP, "redirected_reply"),
        ] {
            let packet = ip(src, dst, protocol, &shape, transport(protocol, sport, dport));
            let outcome = if suffix.is_empty() { outcome } else { "redirected_fragment" };
            cases.push((format!("{shape:?}, protocol {protocol}"), packet, outcome));
        }
    }
    cases
}

/// Guards that IP options, extension headers and fragmentation hide no steered packet, and rule (d).
#[test]
fn shapes_hide_nothing() {
    let Some((redirect, _socket)) = director() else { return };
    for world in [World::v4(), World::v6()] {
        for (says, packet, outcome) in steered(&world) {
            for tags in frames::TAGS {
                let frame = ethernet(tags, world.ethertype, &packet);
                expect(&redirect, &format!("IPv{}: {says}", world.version), &frame.bytes, outcome);
            }
        }
    }
}

/// Guards that a quoted packet is found behind options and extension headers, of the error and of the quotation, and
/// when it is a later fragment.
#[test]
fn quotations_have_shapes_too() {
    let Some((redirect, _socket)) = director() else { return };
    for world in [World::v4(), World::v6()] {
        let error = world.errors[0];
        for (_, outer) in shapes(&world).into_iter().filter(|(suffix, _)| suffix.is_empty()) {
            for (_, inner) in shapes(&world) {
                for (src, sport, dst, dport, to) in [
                    (world.vip, 80, world.client, 4000, world.vip),
                    (world.client, 4000, world.vip, 80, world.client),
                    (world.client, 4000, world.rip, 8080, world.client),
                ] {
                    let quoted = ip(src, dst, TCP, &inner, transport(TCP, sport, dport));
                    let packet = ip(world.router, to, world.icmp, &outer, icmp(error, &quoted));
                    let frame = ethernet(&[], world.ethertype, &packet);
                    if frame.bytes.len() > ONE_BUFFER {
                        continue;
                    }
                    expect(&redirect, &format!("{outer:?} quotes {inner:?}"), &frame.bytes, "redirected_icmp");
                }
            }
        }
    }
}

/// Guards that later fragments of other protocols and addresses, and those that a real server sends to the director,
/// stay with the kernel; as does a later fragment of an ICMP error, of which nothing is known.
#[test]
fn foreign_fragments_pass() {
    let Some((redirect, _socket)) = director() else { return };
    for w in [World::v4(), World::v6()] {
        let later = Shape::fragment(3, true);
        let quoted = ip(w.vip, w.client, TCP, &Shape::default(), transport(TCP, 80, 4000));
        let table = [
            ("another address", ip(w.client, w.dip, TCP, &later, transport(TCP, 4000, 80)), "passed_not_steered"),
            ("another protocol", ip(w.client, w.vip_any, UDP, &later, transport(UDP, 1, 2)), "passed_not_steered"),
            ("to a real server", ip(w.client, w.rip, TCP, &later, transport(TCP, 1, 8080)), "passed_not_steered"),
            ("to the director", ip(w.rip, w.dip, TCP, &later, transport(TCP, 8080, 1)), "passed_local"),
            ("of an error", ip(w.router, w.vip, w.icmp, &later, icmp(w.errors[0], &quoted)), "passed_not_steered"),
        ];
        for (says, packet, outcome) in table {
            expect(&redirect, says, &ethernet(&[], w.ethertype, &packet).bytes, outcome);
        }
    }
}

/// Guards against reading past the end: every steered frame, cut at every length, is redirected exactly when its headers
/// are complete, and counted as malformed (or as no IP at all) otherwise.
#[test]
fn truncated_frames_are_never_redirected() {
    let Some((redirect, _socket)) = director() else { return };
    for world in [World::v4(), World::v6()] {
        let cases = [steered(&world), icmp_cases(&world), tunnel_cases(&world)].concat().into_iter();
        for (says, packet, wanted) in cases.filter(|(_, _, outcome)| outcome.starts_with("redirected")) {
            for tags in [frames::TAGS[0], frames::TAGS[2]] {
                let frame = ethernet(tags, world.ethertype, &packet);
                let link = frame.bytes.len() - packet.bytes.len();
                for length in 14..=frame.bytes.len() {
                    let (action, name) = outcome(&redirect, &frame.bytes[..length]);
                    let says = format!("IPv{}: {says}, cut to {length} bytes of {}", world.version, frame.headers);
                    if length >= frame.headers {
                        assert_eq!((action, name), (Action::Redirected, wanted), "{says}");
                    } else {
                        assert_eq!(action, Action::Passed, "{says}");
                        let malformed = if length < link { "passed_not_ip" } else { "passed_malformed" };
                        assert_eq!(name, malformed, "{says}");
                    }
                }
            }
        }
    }
}

/// Guards the frames that no network can do without: ARP, neighbour discovery, spanning tree, three tags, and IP that
/// contradicts itself.
#[test]
fn everything_else_passes() {
    let Some((redirect, _socket)) = director() else { return };
    let (v4, v6) = (World::v4(), World::v6());
    let arp = Part::payload(&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    for tags in frames::TAGS {
        expect(&redirect, "ARP for the VIP", &ethernet(tags, 0x0806, &arp).bytes, "passed_not_ip");
    }
    expect(&redirect, "an 802.3 length", &ethernet(&[], 38, &arp).bytes, "passed_not_ip");
    expect(&redirect, "a bare Ethernet header", &ethernet(&[], 0x0800, &arp).bytes[..14], "passed_malformed");
    for kind in 133..=137 {
        let packet = ip(v6.client, v6.vip, v6.icmp, &Shape::default(), icmp(kind, &arp));
        expect(&redirect, "neighbour discovery", &ethernet(&[], 0x86dd, &packet).bytes, "passed_not_steered");
    }

    let service = |w: &World| ip(w.client, w.vip, TCP, &Shape::default(), transport(TCP, 4000, 80));
    let three = ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &service(&v4));
    expect(&redirect, "three tags", &three.bytes, "passed_not_ip");
    let swapped = ethernet(&[], 0x86dd, &service(&v4));
    expect(&redirect, "IPv4 that is announced as IPv6", &swapped.bytes, "passed_malformed");
    let swapped = ethernet(&[], 0x0800, &service(&v6));
    expect(&redirect, "IPv6 that is announced as IPv4", &swapped.bytes, "passed_malformed");

    let edited = |world: &World, at: usize, value: u8| {
        let mut packet = service(world);
        packet.bytes[at] = value;
        ethernet(&[], world.ethertype, &packet).bytes
    };
    expect(&redirect, "an IPv4 header of 16 bytes", &edited(&v4, 0, 0x44), "passed_malformed");
    expect(&redirect, "a total length short of the TCP header", &edited(&v4, 3, 39), "passed_malformed");
    expect(&redirect, "a total length short of the IP header", &edited(&v4, 3, 19), "passed_malformed");
    expect(&redirect, "a payload length short of the TCP header", &edited(&v6, 5, 19), "passed_malformed");

    let optioned = Shape::extensions(&[Extension::Destination(1)]);
    let mut short = ip(v6.client, v6.vip, TCP, &optioned, transport(TCP, 4000, 80));
    short.bytes[5] = 15;
    let short = ethernet(&[], 0x86dd, &short).bytes;
    expect(&redirect, "a payload length short of an extension header", &short, "passed_malformed");
    // Its data is data, though it looks like options with TCP behind them: what it is, only the first fragment says.
    let data = Shape::extensions(&[Extension::Fragment(5, false), Extension::Destination(0)]);
    let data = ip(v6.client, v6.vip, TCP, &data, transport(TCP, 4000, 80));
    expect(&redirect, "a later fragment of options", &ethernet(&[], 0x86dd, &data).bytes, "passed_not_steered");

    let seven = [Extension::Destination(0); 7];
    let deep = ip(v6.client, v6.vip, TCP, &Shape::extensions(&seven), transport(TCP, 4000, 80));
    expect(&redirect, "seven extension headers", &ethernet(&[], 0x86dd, &deep).bytes, "passed_deep");
    let six = ip(v6.client, v6.vip, TCP, &Shape::extensions(&seven[1..]), transport(TCP, 4000, 80));
    expect(&redirect, "six extension headers", &ethernet(&[], 0x86dd, &six).bytes, "redirected_service");
    let error = ip(v6.router, v6.vip, v6.icmp, &Shape::default(), icmp(1, &deep));
    expect(&redirect, "an error that quotes seven", &ethernet(&[], 0x86dd, &error).bytes, "passed_deep");
}

/// Guards that an IPv6 packet whose addresses look like the IPv4 keys in the maps is not taken for IPv4.
#[test]
fn mapped_addresses_do_not_alias() {
    let Some((redirect, _socket)) = director() else { return };
    let w = World::v4();
    let mapped = |address: IpAddr| match address {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 => v6,
    };
    for (src, sport, dst, dport) in [(w.client, 4000, w.vip, 80), (w.rip, 8080, w.client, 4000)] {
        for shape in [Shape::default(), Shape::fragment(3, false)] {
            let packet = ip(mapped(src), mapped(dst), TCP, &shape, transport(TCP, sport, dport));
            expect(&redirect, "mapped", &ethernet(&[], 0x86dd, &packet).bytes, "passed_not_steered");
        }
    }
}

/// Guards what happens without a worker, for every kind of steered frame: dropped by default, passed if so configured,
/// changed while the program is loaded, and redirected again once a worker is back.
#[test]
fn without_a_worker_the_operator_decides() {
    let Some((mut redirect, socket)) = director() else { return };
    for world in [World::v4(), World::v6()] {
        let cases = steered(&world).into_iter().chain(icmp_cases(&world));
        for (says, packet, wanted) in cases.filter(|(_, _, outcome)| outcome.starts_with("redirected")) {
            let frame = ethernet(&[], world.ethertype, &packet).bytes;
            redirect.unregister(IFINDEX, 0).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Dropped, "no_worker_dropped"), "{says}");
            redirect.set_absent(Absent::Pass).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Passed, "no_worker_passed"), "{says}");
            redirect.set_absent(Absent::Drop).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Dropped, "no_worker_dropped"), "{says}");
            redirect.register(IFINDEX, 0, socket.as_fd()).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Redirected, wanted), "{says}");
        }
    }
}

/// Guards against balancing twice: a frame for another host that a switch flooded here (on its way from this director to
/// a DR real server, say) still carries the VIP, and must be left alone; one for any of our MACs must not.
#[test]
fn frames_for_another_mac_are_left_alone() {
    let Some((mut redirect, _socket)) = director() else { return };
    let own = [2, 0, 0, 0, 0, 2];
    let other = |n: u8| [2, 0, 0, 0, n, 3];
    for world in [World::v4(), World::v6()] {
        let cases = steered(&world).into_iter().chain(icmp_cases(&world));
        for (says, packet, wanted) in cases.filter(|(_, _, outcome)| outcome.starts_with("redirected")) {
            let frame = ethernet(&[], world.ethertype, &packet).bytes;
            redirect.set_macs(IFINDEX, &[other(1)]).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Passed, "passed_other_host"), "{says}");
            let all: Vec<_> = (0..7).map(other).chain([own]).collect();
            redirect.set_macs(IFINDEX, &all).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Redirected, wanted), "{says}");
            redirect.set_macs(IFINDEX, &[]).unwrap();
            assert_eq!(outcome(&redirect, &frame), (Action::Redirected, wanted), "{says}: no MAC is known");
        }
    }
    assert!(
        redirect.set_macs(IFINDEX, &[own; xvs_redirect::Redirect::MACS_MAX + 1]).is_err(),
        "more than fit are refused"
    );
}

/// Guards the program's distance from the verifier's limit of a million instructions: a change that comes near it works
/// here, and fails on the next kernel.
#[test]
fn the_verifier_is_not_strained() {
    let Some((redirect, _socket)) = director() else { return };
    let fd = redirect.program(IFINDEX).unwrap().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let Some(line) = info.lines().find_map(|line| line.strip_prefix("verified_insns:")) else {
        common::skipped("this kernel does not tell how much it verified");
        return;
    };
    let instructions: u32 = line.trim().parse().unwrap();
    println!("the verifier followed {instructions} instructions");
    assert!(instructions < 50_000, "{instructions}");
}

/// Guards against an outcome that costs out of proportion (no more than 20 microseconds a frame, on any machine), and
/// prints what each costs: `XVS_RUNS=1000000 cargo test --release -p xvs-redirect cost -- --nocapture` for good figures.
#[test]
fn cost_per_frame() {
    let Some((redirect, _socket)) = director() else { return };
    let runs = std::env::var("XVS_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1000);
    for world in [World::v4(), World::v6()] {
        for (says, packet, outcome) in transport_cases(&world).into_iter().chain(icmp_cases(&world).into_iter().take(7))
        {
            let frame = ethernet(&[], world.ethertype, &packet).bytes;
            let time = redirect.time_frame(IFINDEX, &frame, runs).unwrap();
            assert!(time < std::time::Duration::from_micros(20), "{says}: {time:?}");
            println!("IPv{} {outcome:20} {time:>6.0?}  {says}", world.version);
        }
    }
}
