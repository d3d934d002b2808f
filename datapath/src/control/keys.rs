//! From the rules' words to the engine's and the XDP program's. No state, no decisions.

use xvs_engine::conn::Class;
use xvs_engine::flow::{self, Endpoint};
use xvs_engine::real::{self, Settings};
use xvs_engine::service::{Persistence, Policy, ServiceKey};
use xvs_engine::tunnel::{self, GueChecksum};
use xvs_redirect::{Key, Protocol as Steered};

use super::protocol::{Family, Method, Protocol, ServerSpec, ServiceId, ServiceSpec, Tunnel, TunnelChecksum};

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

/// How the service treats new connections.
pub(super) fn policy(spec: &ServiceSpec, class: Class) -> Policy {
    let flags = u8::from(spec.flags.one) | u8::from(spec.flags.two) << 1 | u8::from(spec.flags.three) << 2;
    let persistence = spec.persistence.map(|asked| Persistence { timeout_s: asked.timeout_s, mask: asked.mask.bits() });
    Policy { flags, persistence, one_packet: spec.one_packet, class: class.number() }
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

/// What must be steered for a service.
pub(super) fn inbound(id: &ServiceId) -> Option<Key> {
    match *id {
        ServiceId::Address { protocol, address } => {
            Some(Key::Service { protocol: steered(protocol), address: address.ip(), port: address.port() })
        }
        ServiceId::Mark { .. } => None,
    }
}

/// What must be steered for a server besides its service's key: the answers of a NAT server, and errors about the tunnel
/// to a TUN server.
pub(super) fn of_server(id: &ServiceId, server: &ServerSpec) -> Option<Key> {
    let (address, port) = (server.address.ip(), server.address.port());
    match (*id, server.method) {
        (ServiceId::Address { protocol, .. }, Method::Nat) => {
            Some(Key::Reply { protocol: steered(protocol), address, port })
        }
        (_, Method::Tun(Tunnel::Gue { port, .. })) => Some(Key::Tunnel { address, port }),
        (_, Method::Tun(Tunnel::Ipip | Tunnel::Gre { .. })) => Some(Key::Tunnel { address, port: 0 }),
        _ => None,
    }
}
