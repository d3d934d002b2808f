//! The quick tables and the maps behind them: whichever of them answers, the verdict is that of the rules.
//!
//! Frames come twice, plain and with a VLAN tag. The tag changes no verdict, but only a plain frame is looked for in the
//! quick tables.

mod common;
mod director;
mod frames;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use director::{Dice, IFINDEX, director, expect};
use frames::{Shape, ethernet, ip, transport};
use xvs_redirect::{Action, InterfaceSpec, Key, Prefix, Protocol, Range, Redirect};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// One end of a flow.
type End = (IpAddr, u16);

/// A packet from here to there, plain and with a tag.
fn both(protocol: Protocol, from: End, to: End) -> [Vec<u8>; 2] {
    let number = protocol.number();
    let packet = ip(from.0, to.0, number, &Shape::default(), transport(number, from.1, to.1));
    let ethertype = if from.0.is_ipv4() { 0x0800 } else { 0x86dd };
    [&[][..], &[0x8100]].map(|tags| ethernet(tags, ethertype, &packet).bytes)
}

/// The rules, in the words of the documentation.
#[derive(Default)]
struct Rules {
    /// How many want a key.
    wanted: BTreeMap<Key, u32>,
    /// Ports of TCP that a range steers, to whichever address.
    ranges: Option<(u16, u16)>,
}

impl Rules {
    fn has(&self, kind: impl Fn(IpAddr, u16) -> Key, (address, port): End) -> bool {
        self.wanted.contains_key(&kind(address, port)) || self.wanted.contains_key(&kind(address, 0))
    }

    fn verdict(&self, protocol: Protocol, from: End, to: End) -> &'static str {
        let in_range = |(first, last)| protocol == Protocol::Tcp && (first..=last).contains(&to.1);
        if self.has(|address, port| Key::Service { protocol, address, port }, to) || self.ranges.is_some_and(in_range) {
            "redirected_service"
        } else if !self.has(|address, port| Key::Reply { protocol, address, port }, from) {
            "passed_not_steered"
        } else if self.wanted.contains_key(&Key::Local { address: to.0 }) {
            "passed_local"
        } else {
            "redirected_reply"
        }
    }
}

/// Guards the whole: keys of all kinds, addresses of the director and ranges come and go at random, the same addresses in
/// all parts, on an interface that is loaded again now and then; every packet's verdict is that of the rules.
#[test]
fn verdicts_follow_the_rules_whatever_comes_and_goes() {
    let Some((mut redirect, socket)) = director() else { return };
    let v4 = ["172.16.0.1", "172.16.0.2", "172.16.1.1", "100.64.0.1", "203.0.113.5"].map(|text| text.parse().unwrap());
    let v6 =
        ["fd01::1", "fd01::2", "fd01:0:1::1", "2001:db8:77::1", "::ffff:172.16.0.1"].map(|text| text.parse().unwrap());
    let (mut rules, mut dice) = (Rules::default(), Dice(3));
    let mut seen: BTreeMap<(bool, bool, &str), u32> = BTreeMap::new();
    for step in 0..4_000 {
        let family: &[IpAddr; 5] = if dice.below(3) > 0 { &v4 } else { &v6 };
        let (protocol, address, port) = (dice.of(&PROTOCOLS), dice.of(family), dice.of(&[0, 80, 80, 81, 81, 4000]));
        let key = match dice.below(9) {
            0..4 => Key::Service { protocol, address, port },
            4..8 => Key::Reply { protocol, address, port },
            _ => Key::Local { address },
        };
        // More go than come: of each kind some are there, not all.
        match rules.wanted.get_mut(&key) {
            Some(count) if dice.below(8) > 0 || matches!(key, Key::Local { .. }) => {
                redirect.unsteer(&key).unwrap();
                *count -= 1;
                rules.wanted.retain(|_, count| *count > 0);
            }
            None if dice.below(4) > 0 => {}
            _ => {
                redirect.steer(key).unwrap();
                *rules.wanted.entry(key).or_default() += 1;
            }
        }
        if dice.below(20) == 0 {
            rules.ranges = (rules.ranges.is_none()).then(|| dice.of(&[(81, 4000), (80, 80)]));
            let range = |text: &str, (first, last)| Range {
                destination: Prefix { address: text.parse().unwrap(), length: 0 },
                source: None,
                protocol: Some(Protocol::Tcp),
                first,
                last,
                steer: true,
            };
            let all: Vec<Range> =
                rules.ranges.iter().flat_map(|&ports| ["0.0.0.0", "::"].map(|text| range(text, ports))).collect();
            redirect.set_ranges(&all).unwrap();
        }
        if step % 500 == 0 {
            redirect.add(&InterfaceSpec { name: "lo".into(), ifindex: IFINDEX, queues: 1 }).unwrap();
            redirect.register(IFINDEX, 0, socket.as_fd()).unwrap();
        }
        for _ in 0..4 {
            let protocol = dice.of(&PROTOCOLS);
            let mut end = || (dice.of(family), dice.of(&[0, 80, 81, 4000, 5000]));
            let (from, to) = (end(), end());
            let verdict = rules.verdict(protocol, from, to);
            for bytes in both(protocol, from, to) {
                let says = format!("step {step}: {protocol:?} {from:?} to {to:?}, ranges {:?}", rules.ranges);
                expect(&redirect, &says, &bytes, verdict);
            }
            *seen.entry((family[0].is_ipv4(), rules.ranges.is_some(), verdict)).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 2 * 2 * 4, "{seen:?}");
    assert!(
        seen.values().all(|&times| times > 50),
        "every verdict in both families, with ranges and without: {seen:?}"
    );
}

/// What becomes of a packet must be the same, with a tag and without.
fn is_redirected(redirect: &Redirect, protocol: Protocol, from: End, to: End) -> bool {
    let actions = both(protocol, from, to).map(|bytes| redirect.try_frame(IFINDEX, 0, &bytes).unwrap());
    assert_eq!(actions[0], actions[1], "{protocol:?} {from:?} to {to:?}");
    actions[0] == Action::Redirected
}

/// Guards against a key that is lost because it finds no room in the quick tables: more replies than these have slots,
/// and as many services as there may be. Then half of them go, which leaves room, and then the rest.
#[test]
fn full_buckets_hide_no_key() {
    let Some((mut redirect, _socket)) = director() else { return };
    let client: End = ("198.51.100.9".parse().unwrap(), 4000);
    let address = |number: u32| IpAddr::V4((0x0a40_0000 + number).into());
    // 8,192 buckets of 8 slots: with fewer keys the pigeons might all find a hole.
    let reply = |number: u32| (address(number % 2), 1 + (number / 2) as u16);
    let service = |number: u32| (address(2 + number % 4_000), 1 + (number / 4_000) as u16);
    let key = |number: u32, is_reply| match is_reply {
        true => Key::Reply { protocol: Protocol::Tcp, address: reply(number).0, port: reply(number).1 },
        false => Key::Service { protocol: Protocol::Udp, address: service(number).0, port: service(number).1 },
    };
    for (is_reply, count) in [(true, 70_000), (false, 16_000)] {
        let mut wanted: BTreeSet<u32> = (0..count).collect();
        wanted.iter().for_each(|&number| redirect.steer(key(number, is_reply)).unwrap());
        let rounds: [fn(u32) -> bool; 3] = [|_| false, |number| number / 3 % 2 == 0, |_| true];
        for is_going in rounds {
            for number in wanted.extract_if(.., |&number| is_going(number)) {
                redirect.unsteer(&key(number, is_reply)).unwrap();
            }
            for number in 0..count {
                let is = match is_reply {
                    true => is_redirected(&redirect, Protocol::Tcp, reply(number), client),
                    false => is_redirected(&redirect, Protocol::Udp, client, service(number)),
                };
                assert_eq!(is, wanted.contains(&number), "{:?}, {} are left", key(number, is_reply), wanted.len());
            }
        }
        assert!(wanted.is_empty());
    }
}
