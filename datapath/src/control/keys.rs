//! From the rules' words to the engine's and the XDP program's. No state, no decisions.

use xvs_engine::conn::Class;
use xvs_engine::flow::{self, Endpoint};
use xvs_engine::mark;
use xvs_engine::real::{self, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Persistence, PersistenceEngine, Policy, ServiceKey};
use xvs_engine::tunnel::{self, GueChecksum};
use xvs_redirect::{Key, Protocol as Steered, Range};

use crate::config::rules;

use super::protocol::{
    Family, MarkRule, Method, Prefix, Protocol, Refusal, RefusalKind, ServerSpec, ServiceId, ServiceSpec, Tunnel,
    TunnelChecksum,
};

/// A server's settings for its record.
pub(super) fn settings(spec: &ServerSpec) -> Settings {
    // Without TUN, IPVS has a server's tunnel fall back to the default, for its older connections too.
    let (method, tunnel) = match spec.method {
        Method::Nat => (real::Method::Nat, tunnel::Tunnel::Ipip),
        Method::Dr => (real::Method::Dr, tunnel::Tunnel::Ipip),
        Method::Tun(spec) => (real::Method::Tun, encapsulation(spec)),
    };
    let weight = i32::try_from(spec.weight).unwrap_or(i32::MAX);
    Settings { endpoint: spec.address.into(), method, tunnel, weight, upper: spec.upper, lower: spec.lower }
}

fn encapsulation(spec: Tunnel) -> tunnel::Tunnel {
    match spec {
        Tunnel::Ipip => tunnel::Tunnel::Ipip,
        Tunnel::Gue { port, checksum } => {
            let checksum = match checksum {
                TunnelChecksum::None => GueChecksum::None,
                TunnelChecksum::Full => GueChecksum::Full,
                TunnelChecksum::Remote => GueChecksum::Remote,
            };
            tunnel::Tunnel::Gue { port, checksum }
        }
        // The rules refuse `Remote`.
        Tunnel::Gre { checksum } => tunnel::Tunnel::Gre { checksum: checksum != TunnelChecksum::None },
    }
}

/// The service's native scheduler, which is the fallback of a plugin.
///
/// # Errors
/// The service breaks a rule.
pub(super) fn scheduler(spec: &ServiceSpec) -> Result<Builtin, Refusal> {
    rules::check_service(spec, Builtin::NAMES)?;
    let unknown = || Refusal::new(RefusalKind::NoSuchScheduler, format!("no scheduler is called {:?}", spec.native()));
    Builtin::from_name(spec.native()).ok_or_else(unknown)
}

/// How the service treats new connections.
pub(super) fn policy(spec: &ServiceSpec, class: Class) -> Policy {
    let flags = u8::from(spec.flags.one) | u8::from(spec.flags.two) << 1 | u8::from(spec.flags.three) << 2;
    let persistence = spec.persistence.map(|asked| Persistence { timeout_s: asked.timeout_s, mask: asked.mask.bits() });
    // The rules know no other name.
    let engine = spec.engine.as_ref().map(|_| PersistenceEngine::Sip);
    Policy { flags, persistence, engine, one_packet: spec.one_packet, class: class.number() }
}

/// The key of a service in the engine.
pub(super) fn service(id: &ServiceId) -> ServiceKey {
    match *id {
        ServiceId::Address { protocol, address } => ServiceKey::Address(number(protocol), Endpoint::from(address)),
        ServiceId::Mark { mark, family } => {
            ServiceKey::Mark(mark, if family == Family::Inet { flow::Family::Inet } else { flow::Family::Inet6 })
        }
    }
}

/// IP protocol.
pub(super) fn number(protocol: Protocol) -> flow::Protocol {
    match protocol {
        Protocol::Tcp => flow::Protocol::TCP,
        Protocol::Udp => flow::Protocol::UDP,
        Protocol::Sctp => flow::Protocol::SCTP,
    }
}

fn steered(protocol: Protocol) -> Steered {
    match protocol {
        Protocol::Tcp => Steered::Tcp,
        Protocol::Udp => Steered::Udp,
        Protocol::Sctp => Steered::Sctp,
    }
}

/// A rule for a mark in the engine.
pub(super) fn mark(rule: &MarkRule) -> mark::Rule {
    mark::Rule {
        mark: rule.mark,
        destination: prefix(rule.destination),
        source: rule.source.map(prefix),
        protocol: rule.protocol.map(number),
        ports: rule.ports.as_ref().map(|ports| ports.ranges().to_vec()).unwrap_or_default(),
    }
}

/// A prefix in the engine.
pub(super) fn prefix(prefix: Prefix) -> mark::Prefix {
    mark::Prefix::new(prefix.address().into(), prefix.length())
}

/// The ranges of a rule, steered or spared.
pub(super) fn ranges(rule: &mark::Rule, steer: bool) -> Vec<Range> {
    let every = [(0, u16::MAX)];
    let ports = if rule.ports.is_empty() { &every[..] } else { &rule.ports };
    let prefix =
        |prefix: mark::Prefix| xvs_redirect::Prefix { address: prefix.address().into(), length: prefix.length() };
    let (destination, source) = (prefix(rule.destination), rule.source.map(prefix));
    let protocol = rule.protocol.and_then(|number| PROTOCOLS.into_iter().find(|one| self::number(*one) == number));
    let protocol = protocol.map(steered);
    let range = |&(first, last): &(u16, u16)| Range { destination, source, protocol, first, last, steer };
    ports.iter().map(range).collect()
}

/// All protocols: those of a mark service.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The key that must be steered for a service. A mark has none: its rules' ranges are steered.
pub(super) fn inbound(id: &ServiceId) -> Option<Key> {
    match *id {
        ServiceId::Address { protocol, address } => {
            Some(Key::Service { protocol: steered(protocol), address: address.ip(), port: address.port() })
        }
        ServiceId::Mark { .. } => None,
    }
}

/// What must be steered for a server besides its service's key: the answers of a NAT server, one key for each protocol
/// that the service has, and errors about the tunnel to a TUN server.
///
/// A persistent service of many ports (a mark, port 0, FTP) leaves the client's port as it is, whatever port its server
/// was given (IPVS-REFERENCE 3.3): answers come from any.
pub(super) fn of_server(service: &ServiceSpec, server: &ServerSpec, observes: bool) -> Vec<Key> {
    let (address, port) = (server.address.ip(), server.address.port());
    // DR and TUN servers answer from the VIP.
    let answers = match service.id {
        ServiceId::Address { protocol, address } if observes => {
            Some(Key::Reply { protocol: steered(protocol), address: address.ip(), port: address.port() })
        }
        _ => None,
    };
    match server.method {
        Method::Dr => answers.into_iter().collect(),
        Method::Tun(tunnel) => {
            let port = if let Tunnel::Gue { port, .. } = tunnel { port } else { 0 };
            answers.into_iter().chain([Key::Tunnel { address, port }]).collect()
        }
        Method::Nat => {
            let (protocols, own) = match &service.id {
                ServiceId::Address { protocol, address } => (std::slice::from_ref(protocol), address.port()),
                ServiceId::Mark { .. } => (&PROTOCOLS[..], 0),
            };
            let keeps = service.persistence.is_some() && (own == 0 || own == FTP);
            let port = if keeps { 0 } else { port };
            protocols.iter().map(|&protocol| Key::Reply { protocol: steered(protocol), address, port }).collect()
        }
    }
}

/// FTP's control port.
pub(super) const FTP: u16 = 21;
