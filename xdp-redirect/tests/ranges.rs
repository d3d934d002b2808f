//! Ranges: which packets are steered where prefixes, ports and sources decide, tried on the program in the kernel.

mod common;
mod director;
mod frames;

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use director::{Dice, IFINDEX, SCTP, TCP, UDP, director, expect, outcome};
use frames::{Extension, Shape, World, ethernet, icmp, ip, transport};
use xvs_redirect::{Action, Error, InterfaceSpec, Prefix, Protocol, Range, Redirect};

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("an address and a length");
    Prefix { address: address.parse().expect("an address"), length: length.parse().expect("a length") }
}

/// A steered range of TCP ports.
fn tcp(destination: &str, first: u16, last: u16) -> Range {
    Range { protocol: Some(Protocol::Tcp), ..every(destination, first, last) }
}

/// A steered range of ports of all protocols.
fn every(destination: &str, first: u16, last: u16) -> Range {
    Range { destination: prefix(destination), source: None, protocol: None, first, last, steer: true }
}

fn spared(range: Range) -> Range {
    Range { steer: false, ..range }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A frame of this protocol and shape.
fn frame(w: &World, src: IpAddr, dst: IpAddr, ports: (u16, u16), protocol: u8, shape: &Shape) -> Vec<u8> {
    ethernet(&[], w.ethertype, &ip(src, dst, protocol, shape, transport(protocol, ports.0, ports.1))).bytes
}

/// The addresses that the ranges of these tests speak of: in a /24 and a /16 around it, or a /64 and a /48.
struct Net {
    near: IpAddr,
    host: IpAddr,
    far: IpAddr,
    outside: IpAddr,
    wide: &'static str,
    narrow: &'static str,
    single: &'static str,
    clients: &'static str,
    friend: IpAddr,
    stranger: IpAddr,
}

fn nets() -> [(World, Net); 2] {
    let v4 = Net {
        near: address("203.0.113.9"),
        host: address("203.0.113.7"),
        far: address("203.0.200.1"),
        outside: address("203.1.0.1"),
        wide: "203.0.0.0/16",
        narrow: "203.0.113.0/24",
        single: "203.0.113.7/32",
        clients: "198.51.100.0/25",
        friend: address("198.51.100.127"),
        stranger: address("198.51.100.128"),
    };
    let v6 = Net {
        near: address("2001:db8:9:1::9"),
        host: address("2001:db8:9:1::7"),
        far: address("2001:db8:9:2::1"),
        outside: address("2001:db8:a::1"),
        wide: "2001:db8:9::/48",
        narrow: "2001:db8:9:1::/64",
        single: "2001:db8:9:1::7/128",
        clients: "2001:db8:c:8000::/49",
        friend: address("2001:db8:c:ffff::1"),
        stranger: address("2001:db8:c:7fff::1"),
    };
    [(World::v4(), v4), (World::v6(), v6)]
}

const YES: &str = "redirected_service";
const NO: &str = "passed_not_steered";

/// Guards each part of a range and its edges, in both families: destination, port, protocol, source; and nothing else is
/// taken in.
#[test]
fn every_part_of_a_range_counts() {
    let Some((mut redirect, _socket)) = director() else { return };
    for (w, net) in nets() {
        let guarded = Range { source: Some(prefix(net.clients)), ..tcp(net.narrow, 8000, 8100) };
        redirect.set_ranges(&[guarded, every(net.single, 53, 53)]).unwrap();
        let try_it = |src, dst, port, protocol, wanted| {
            let bytes = frame(&w, src, dst, (4000, port), protocol, &Shape::default());
            expect(&redirect, &format!("IPv{}: {src} to {dst}:{port}, protocol {protocol}", w.version), &bytes, wanted);
        };
        for (port, wanted) in [(7999, NO), (8000, YES), (8050, YES), (8100, YES), (8101, NO), (22, NO), (0, NO)] {
            try_it(net.friend, net.near, port, TCP, wanted);
            // The list of the longer prefix has what the shorter one says.
            try_it(net.friend, net.host, port, TCP, wanted);
            try_it(net.stranger, net.near, port, TCP, NO);
            try_it(net.friend, net.near, port, UDP, NO);
            try_it(net.friend, net.far, port, TCP, NO);
            try_it(net.friend, net.outside, port, TCP, NO);
            // From the range, instead of to it.
            try_it(net.near, net.friend, port, TCP, NO);
        }
        for protocol in [TCP, UDP, SCTP] {
            try_it(net.stranger, net.host, 53, protocol, YES);
            try_it(net.stranger, net.near, 53, protocol, NO);
        }
        let echo = ip(net.friend, net.host, w.icmp, &Shape::default(), icmp(w.echo, &Default::default()));
        expect(&redirect, "echo", &ethernet(&[], w.ethertype, &echo).bytes, NO);
        let esp = ip(net.friend, net.host, 50, &Shape::default(), transport(UDP, 1, 53));
        expect(&redirect, "no ports", &ethernet(&[], w.ethertype, &esp).bytes, NO);
        // What keys steer is steered as before.
        try_it(w.client, w.vip, 80, TCP, YES);
        try_it(w.client, w.vip, 81, TCP, NO);
    }
}

/// Guards the order of ranges over prefixes of any length: the first one that fits decides, and an exception spares what
/// stands below it.
#[test]
fn the_first_range_that_fits_decides() {
    let Some((mut redirect, _socket)) = director() else { return };
    for (w, net) in nets() {
        let everything = if w.version == 4 { "0.0.0.0/0" } else { "::/0" };
        let ranges = [
            spared(tcp(everything, 22, 22)),
            every(net.narrow, 80, 90),
            spared(every(net.single, 0, u16::MAX)),
            every(net.wide, 22, 100),
        ];
        redirect.set_ranges(&ranges).unwrap();
        let try_it = |dst, port, protocol, wanted| {
            let bytes = frame(&w, w.client, dst, (4000, port), protocol, &Shape::default());
            expect(&redirect, &format!("IPv{}: {dst}:{port}, protocol {protocol}", w.version), &bytes, wanted);
        };
        for dst in [net.near, net.host, net.far, net.outside] {
            try_it(dst, 22, TCP, NO);
        }
        for (port, host, near, far) in
            [(22, NO, YES, YES), (80, YES, YES, YES), (90, YES, YES, YES), (91, NO, YES, YES)]
        {
            try_it(net.host, port, UDP, host);
            try_it(net.near, port, UDP, near);
            try_it(net.far, port, UDP, far);
            try_it(net.outside, port, UDP, NO);
        }
    }
}

/// Guards later fragments, which have no ports: all else decides, and an exception of some ports spares none of them.
#[test]
fn later_fragments_go_by_address_and_protocol() {
    let Some((mut redirect, _socket)) = director() else { return };
    for (w, net) in nets() {
        let from_clients = |range| Range { source: Some(prefix(net.clients)), ..range };
        let ranges = [
            spared(tcp(net.narrow, 22, 22)),
            spared(every(net.single, 0, u16::MAX)),
            from_clients(tcp(net.narrow, 80, 80)),
        ];
        redirect.set_ranges(&ranges).unwrap();
        let mut shapes = vec![Shape::fragment(1, true), Shape::fragment(8191, false)];
        if w.version == 6 {
            shapes.push(Shape::extensions(&[Extension::HopByHop(1), Extension::Fragment(5, false)]));
        }
        for shape in shapes {
            let try_it = |src, dst, protocol, wanted| {
                let bytes = frame(&w, src, dst, (1, 2), protocol, &shape);
                expect(&redirect, &format!("{shape:?}: {src} to {dst}, protocol {protocol}"), &bytes, wanted);
            };
            try_it(net.friend, net.near, TCP, "redirected_fragment");
            try_it(net.stranger, net.near, TCP, NO);
            try_it(net.friend, net.near, UDP, NO);
            try_it(net.friend, net.host, TCP, NO);
            try_it(net.friend, net.far, TCP, NO);
        }
        let first = frame(&w, net.friend, net.near, (1, 80), TCP, &Shape::fragment(0, true));
        expect(&redirect, "a first fragment has ports", &first, YES);
        let first = frame(&w, net.friend, net.near, (1, 81), TCP, &Shape::fragment(0, true));
        expect(&redirect, "and they count", &first, NO);
    }
}

/// Guards errors about connections of ranges: a client's about an answer, a router's about what went there; whole or in
/// fragments; and no error about anything else.
#[test]
fn errors_are_told_by_what_they_quote() {
    let Some((mut redirect, _socket)) = director() else { return };
    for (w, net) in nets() {
        let guarded = Range { source: Some(prefix(net.clients)), ..tcp(net.narrow, 80, 80) };
        redirect.set_ranges(&[guarded]).unwrap();
        for &kind in w.errors {
            for shape in [Shape::default(), Shape::fragment(3, true)] {
                let later = shape.fragment.is_some();
                let try_it = |to, src, sport, dst, dport, protocol, wanted| {
                    let quoted = ip(src, dst, protocol, &shape, transport(protocol, sport, dport));
                    let error = ip(w.router, to, w.icmp, &Shape::default(), icmp(kind, &quoted));
                    let says = format!("type {kind}, {shape:?}: {src}:{sport} to {dst}:{dport}, protocol {protocol}");
                    expect(&redirect, &says, &ethernet(&[], w.ethertype, &error).bytes, wanted);
                };
                let taken = "redirected_icmp";
                // The ports of a later fragment are not seen.
                let by_port = if later { taken } else { NO };
                try_it(net.near, net.near, 80, net.friend, 4000, TCP, taken);
                try_it(net.friend, net.friend, 4000, net.near, 80, TCP, taken);
                try_it(net.near, net.near, 22, net.friend, 4000, TCP, by_port);
                try_it(net.friend, net.friend, 4000, net.near, 22, TCP, by_port);
                try_it(net.near, net.near, 80, net.stranger, 4000, TCP, NO);
                try_it(net.near, net.near, 80, net.friend, 4000, UDP, NO);
                try_it(net.far, net.far, 80, net.friend, 4000, TCP, NO);
                // A client that happens to use the port.
                try_it(net.friend, net.friend, 80, net.far, 4000, TCP, NO);
            }
        }
    }
}

/// Guards changes: a set replaces the one before, an empty one costs nothing and steers nothing, a copy of the program
/// that comes later knows the ranges, and what is refused leaves what was.
#[test]
fn sets_replace_each_other() {
    let Some((mut redirect, _socket)) = director() else { return };
    let (w, net) = nets().into_iter().next().expect("two");
    let bytes = |dst, port| frame(&w, w.client, dst, (4000, port), TCP, &Shape::default());
    let steered = |redirect: &Redirect, dst, port| outcome(redirect, &bytes(dst, port)).0 == Action::Redirected;
    let check = |redirect: &Redirect, wanted: [bool; 3], says: &str| {
        let is = [(net.near, 80), (net.host, 80), (net.far, 80)].map(|(dst, port)| steered(redirect, dst, port));
        assert_eq!(is, wanted, "{says}");
    };
    check(&redirect, [false; 3], "nothing");
    redirect.set_ranges(&[tcp(net.narrow, 80, 80)]).unwrap();
    check(&redirect, [true, true, false], "narrow");
    redirect.set_ranges(&[tcp(net.wide, 80, 80), tcp(net.single, 81, 81)]).unwrap();
    check(&redirect, [true; 3], "wide");
    redirect.set_ranges(&[tcp(net.single, 80, 80)]).unwrap();
    check(&redirect, [false, true, false], "single");

    let many: Vec<Range> = (0..40).map(|n| tcp(net.narrow, 1000 + 2 * n, 1000 + 2 * n)).collect();
    let refused = redirect.set_ranges(&many).unwrap_err();
    assert!(matches!(refused, Error::TooManyRanges { limit: 32, ranges: 40, .. }), "{refused}");
    assert!(refused.to_string().contains(net.narrow), "{refused}");
    let wide: Vec<Range> = (0..8193u32)
        .map(|n| Range {
            destination: Prefix { address: IpAddr::V4((0x0a00_0000 + n).into()), length: 32 },
            ..tcp(net.wide, 80, 80)
        })
        .collect();
    let refused = redirect.set_ranges(&wide).unwrap_err();
    assert!(matches!(refused, Error::MapFull { map: "ranges", limit: 8192 }), "{refused}");
    check(&redirect, [false, true, false], "as before");
    redirect.set_ranges(&wide[..8192]).unwrap();
    assert!(steered(&redirect, address("10.0.31.255"), 80) && !steered(&redirect, address("10.0.32.0"), 80));
    // As many others: both sets are in the trie for a moment.
    let others: Vec<Range> = wide[..8192]
        .iter()
        .map(|range| {
            let IpAddr::V4(v4) = range.destination.address else { unreachable!() };
            let address = IpAddr::V4((v4.to_bits() + 0x0100_0000).into());
            Range { destination: Prefix { address, length: 32 }, ..*range }
        })
        .collect();
    redirect.set_ranges(&others).unwrap();
    assert!(steered(&redirect, address("11.0.31.255"), 80) && !steered(&redirect, address("10.0.31.255"), 80));

    redirect.set_ranges(&[tcp(net.narrow, 80, 80)]).unwrap();
    redirect.add(&InterfaceSpec { name: "lo".into(), ifindex: IFINDEX, queues: 1 }).unwrap();
    redirect.register(IFINDEX, 0, _socket.as_fd()).unwrap();
    check(&redirect, [true, true, false], "a later copy");
    redirect.set_ranges(&[]).unwrap();
    check(&redirect, [false; 3], "nothing again");
}

/// Guards the program and the folding together: any ranges, any packet, the verdict of a reader who goes through the
/// list from the top.
#[test]
fn any_ranges_decide_as_they_are_written() {
    let Some((mut redirect, _socket)) = director() else { return };
    let mut dice = Dice(7);
    let v4 = ["172.16.0.0", "172.16.0.1", "172.16.1.0", "172.17.0.1", "100.64.0.1"].map(address);
    let v6 = ["fd01::", "fd01::1", "fd01:0:0:1::", "fd01:1::1", "fe01::1"].map(address);
    let within = |prefix: &Prefix, address: IpAddr| {
        let (one, other, most) = match (prefix.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()) << 96, u128::from(b.to_bits()) << 96, 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        assert!(prefix.length <= most);
        (0..u32::from(prefix.length)).all(|bit| (one ^ other) << bit >> 127 == 0)
    };
    let (mut taken, mut tried) = (0, 0);
    for _ in 0..60 {
        let mut ranges = Vec::new();
        for _ in 0..dice.below(14) {
            let family: &[IpAddr] = if dice.below(2) == 0 { &v4 } else { &v6 };
            let lengths: &[u8] = if family[0].is_ipv4() {
                &[0, 1, 8, 15, 16, 23, 24, 31, 32]
            } else {
                &[0, 7, 8, 31, 32, 63, 64, 127, 128]
            };
            let prefix = |dice: &mut Dice| Prefix { address: dice.of(family), length: dice.of(lengths) };
            let destination = prefix(&mut dice);
            let source = (dice.below(3) == 0).then(|| prefix(&mut dice));
            let protocol = dice.of(&[None, None, Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Sctp)]);
            let first = dice.of(&[0, 0, 5, 6]);
            let last = dice.of(&[6, 7, 65535]);
            ranges.push(Range { destination, source, protocol, first, last, steer: dice.below(3) > 0 });
        }
        redirect.set_ranges(&ranges).unwrap();
        for _ in 0..60 {
            let w = if dice.below(2) == 0 { World::v4() } else { World::v6() };
            let family = if w.version == 4 { &v4 } else { &v6 };
            let (src, dst) = (dice.of(family), dice.of(family));
            let (protocol, port) = (dice.of(&[TCP, UDP, SCTP]), dice.of(&[4, 5, 6, 7, 8, 65535]));
            let fits = |range: &&Range| {
                within(&range.destination, dst)
                    && range.source.is_none_or(|source| within(&source, src))
                    && range.protocol.is_none_or(|one| one.number() == protocol)
                    && (range.first..=range.last).contains(&port)
            };
            let wanted = if ranges.iter().find(fits).is_some_and(|range| range.steer) { YES } else { NO };
            let bytes = frame(&w, src, dst, (4000, port), protocol, &Shape::default());
            expect(&redirect, &format!("{src} to {dst}:{port}, protocol {protocol}: {ranges:#?}"), &bytes, wanted);
            taken += u32::from(wanted == YES);
            tried += 1;
        }
    }
    assert!(taken > tried / 10 && taken < tried * 9 / 10, "{taken} of {tried}: both happen");
}

/// Guards every other packet against the cost of ranges (no more than 20 microseconds, on any machine), and prints it:
/// `XVS_RUNS=1000000 cargo test --release -p xvs-redirect --test ranges cost -- --nocapture` for good figures.
#[test]
fn cost_per_frame() {
    let Some((mut redirect, _socket)) = director() else { return };
    let runs = std::env::var("XVS_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1000);
    let full =
        |destination: &str| -> Vec<Range> { (0..32).map(|n| tcp(destination, 100 + 2 * n, 100 + 2 * n)).collect() };
    for (w, net) in nets() {
        let other = frame(&w, w.client, net.outside, (4000, 80), TCP, &Shape::default());
        let service = frame(&w, w.client, w.vip, (4000, 80), TCP, &Shape::default());
        let last = frame(&w, w.client, net.near, (4000, 162), TCP, &Shape::default());
        let cases = [
            ("no ranges: not ours", Vec::new(), &other),
            ("no ranges: a service", Vec::new(), &service),
            ("one range: a service", vec![tcp(net.narrow, 80, 80)], &service),
            ("one range: not ours", vec![tcp(net.narrow, 80, 80)], &other),
            ("32 ranges: the last one", full(net.narrow), &last),
        ];
        for (says, ranges, bytes) in cases {
            redirect.set_ranges(&ranges).unwrap();
            let time = redirect.time_frame(IFINDEX, bytes, runs).unwrap();
            println!("IPv{} {time:>6.0?}  {says}", w.version);
            assert!(time < std::time::Duration::from_micros(20), "{says}: {time:?}");
        }
    }
}
