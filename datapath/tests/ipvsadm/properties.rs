//! What holds for all rules and all command lines.

use std::net::SocketAddr;

use proptest::prelude::*;
use xvs::control::protocol::{
    Family, Mask, Method, Persistence, Protocol, SchedFlags, Server, ServerSpec, Service, ServiceId, ServiceSpec,
    Stats, Tunnel, TunnelChecksum,
};
use xvs::ipvsadm::options::ENTRIES;
use xvs::ipvsadm::{Dialect, parse};

use crate::model::Model;
use crate::names::Recorded;
use crate::recording::run;

fn checksum() -> impl Strategy<Value = TunnelChecksum> {
    prop_oneof![Just(TunnelChecksum::None), Just(TunnelChecksum::Full), Just(TunnelChecksum::Remote)]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Nat),
        Just(Method::Dr),
        Just(Method::Tun(Tunnel::Ipip)),
        (1u16.., checksum()).prop_map(|(port, checksum)| Method::Tun(Tunnel::Gue { port, checksum })),
        prop_oneof![Just(TunnelChecksum::None), Just(TunnelChecksum::Full)]
            .prop_map(|checksum| Method::Tun(Tunnel::Gre { checksum })),
    ]
}

fn id() -> impl Strategy<Value = ServiceId> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let family = prop_oneof![Just(Family::Inet), Just(Family::Inet6)];
    prop_oneof![
        3 => (protocol, any::<SocketAddr>()).prop_map(|(protocol, address)| {
            // Scope and flow have no place in a rule.
            let address = SocketAddr::new(address.ip(), address.port());
            ServiceId::Address { protocol, address }
        }),
        1 => (1u32.., family).prop_map(|(mark, family)| ServiceId::Mark { mark, family }),
    ]
}

/// Services that ipvsadm's grammar can express.
fn service() -> impl Strategy<Value = Service> {
    let scheduler = prop_oneof![Just("rr"), Just("sh"), Just("mh"), Just("wlc")];
    let flags = any::<[bool; 3]>().prop_map(|[one, two, three]| SchedFlags { one, two, three });
    let persistence = proptest::option::of((1u32..=2_678_400, any::<u32>()));
    let attributes = (scheduler, flags, persistence, any::<bool>(), any::<bool>());
    let server = (any::<SocketAddr>(), method(), 0..=i64::from(i32::MAX), 0..=i32::MAX as u32, any::<u32>());
    (id(), attributes, proptest::collection::vec(server, 0..6)).prop_map(|(id, attributes, servers)| {
        let (scheduler, flags, persistence, engine, one_packet) = attributes;
        let port = match id {
            ServiceId::Address { address, .. } => Some(address.port()),
            ServiceId::Mark { .. } => None,
        };
        let mask = |bits: u32| match id.family() {
            Family::Inet => Mask::Dotted(bits.into()),
            Family::Inet6 => Mask::Prefix((bits % 128 + 1) as u8),
        };
        let every_port = port == Some(0);
        let persistence = persistence.or(every_port.then_some((1, u32::MAX)));
        let persistence = persistence.map(|(timeout_s, bits)| Persistence { timeout_s, mask: mask(bits) });
        let udp = matches!(id, ServiceId::Mark { .. } | ServiceId::Address { protocol: Protocol::Udp, .. });
        let spec = ServiceSpec {
            id,
            scheduler: scheduler.to_owned(),
            flags,
            persistence,
            engine: engine.then(|| "sip".to_owned()),
            one_packet: one_packet && udp,
            fallback: None,
            options: None,
        };
        let server = |(address, method, weight, upper, lower): (SocketAddr, Method, i64, u32, u32)| {
            let same = ServiceId::Address { protocol: Protocol::Tcp, address }.family() == id.family();
            let method = if same { method } else { Method::Tun(Tunnel::Ipip) };
            let port = port.filter(|_| method != Method::Nat).unwrap_or(address.port());
            let address = SocketAddr::new(address.ip(), port);
            ServerSpec { address, method, weight, upper, lower: lower.checked_rem(upper).unwrap_or(0), tags: None }
        };
        let mut seen = std::collections::HashSet::new();
        let servers = servers.into_iter().map(server).filter(|spec| seen.insert(spec.address)).map(|spec| Server {
            spec,
            active: 0,
            inactive: 0,
            persistent: 0,
            overloaded: false,
            path: String::new(),
            stats: Stats::default(),
        });
        Service { spec, timeouts: Default::default(), stats: Stats::default(), servers: servers.collect() }
    })
}

/// What may stand on a command line, and what may not.
fn word() -> impl Strategy<Value = String> {
    let known = (0..ENTRIES.len()).prop_map(|index| &ENTRIES[index]);
    prop_oneof![
        4 => (known, any::<bool>()).prop_map(|(entry, long)| match entry.short {
            Some(letter) if !long => format!("-{letter}"),
            _ => format!("--{}", entry.long),
        }),
        3 => prop::sample::select(vec![
            "192.0.2.1:80", "[2001:db8::1]:80", "10.1.0.1", "[::]:", "[", "]:80", ":", "::", "1", "0", "-1", "rr", "gue",
            "6080", "sh-port,", "255.255.255.0", "64", "vip-nat.example:http", "master", "backup", "--", "-", "",
        ]).prop_map(str::to_owned),
        1 => "-{0,2}[a-zA-Z0-9=:\\[\\].é]{0,6}",
        1 => any::<String>(),
    ]
}

proptest! {
    /// Guards save and restore: the rules come back, whatever they are. (In another order: saved rules are sorted.)
    #[test]
    fn restore_undoes_save(services in proptest::collection::vec(service(), 0..6)) {
        let mut model = Model::default();
        let mut seen = std::collections::HashSet::new();
        model.services.services = services.into_iter().filter(|service| seen.insert(service.spec.id)).collect();
        let saved = run(&mut model, "xvsadm -S -n --thresholds", "").stdout;
        let mut again = Model::default();
        let outcome = run(&mut again, "xvsadm -R", &saved);
        prop_assert_eq!((outcome.exit, outcome.stderr.as_str()), (0, ""), "{}", saved);
        for model in [&mut model, &mut again] {
            model.services.services.sort_by_key(|service| service.spec.id);
            for service in &mut model.services.services {
                service.servers.sort_by_key(|server| server.spec.address);
            }
        }
        prop_assert_eq!(model.services, again.services);
    }

    /// Guards against a panic: every command line is understood or refused with a status and a sentence.
    #[test]
    fn parse_never_panics(words in proptest::collection::vec(word(), 0..12)) {
        for dialect in [Dialect::Ipvsadm, Dialect::Xvsadm] {
            if let Err(usage) = parse(&words, dialect, &Recorded) {
                prop_assert!(matches!(usage.exit, 2 | 255) && !usage.message.is_empty());
            }
        }
    }

    /// Guards against a panic in a restore of anything.
    #[test]
    fn restore_never_panics(text: String, words in proptest::collection::vec(word(), 0..12)) {
        let mut model = Model::default();
        run(&mut model, "xvsadm -R", &text);
        run(&mut model, "xvsadm-restore", &words.join(" "));
    }
}
