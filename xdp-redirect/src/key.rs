//! What can be steered: a virtual service, a NAT real server's replies, errors about a tunnel, an address of the
//! director's own.
//!
//! Invariant: a key is written for the kernel in exactly one way (`struct key` of `bpf/maps.h`), so that equal keys
//! are equal bytes. A key knows nothing of schedulers, weights or forwarding methods.

use std::mem::{offset_of, size_of};
use std::net::IpAddr;

use crate::skeleton::types;

/// The transports that are balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// Something the XDP program shall know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Packets to this address and port are for a worker. A director that sends with addresses of its own (full NAT)
    /// steers those here as well.
    Service {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The VIP.
        address: IpAddr,
        /// 0 is any port.
        port: u16,
    },
    /// Packets from this address and port are replies for a worker, unless they go to a [`Key::Local`].
    Reply {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The RIP of a NAT real server.
        address: IpAddr,
        /// 0 is any port, for services that leave the client's port as it is.
        port: u16,
    },
    /// Errors about the director's own packets through a tunnel to this address are for a worker.
    Tunnel {
        /// The RIP of a TUN real server.
        address: IpAddr,
        /// The UDP port that the tunnel goes to; 0 for one without ports (IP in IP, GRE).
        port: u16,
    },
    /// An address of the director itself: what real servers send there is the kernel's, health checks for instance.
    Local {
        /// The address.
        address: IpAddr,
    },
}

/// A kind of key that has ports, in the order of the flags of addresses and of the quick tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    Reply,
}

/// A key as the kernel's maps hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry([u8; Entry::SIZE]);

impl Entry {
    const SIZE: usize = size_of::<types::key>();

    /// Writes the fields where the program reads them.
    pub(crate) fn new(address: IpAddr, port: u16, protocol: u8) -> Entry {
        let (octets, family) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 4),
            IpAddr::V6(v6) => (v6.octets(), 6),
        };
        let mut bytes = [0; Entry::SIZE];
        let at = offset_of!(types::key, address);
        bytes[at..at + octets.len()].copy_from_slice(&octets);
        let at = offset_of!(types::key, port);
        bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
        bytes[offset_of!(types::key, protocol)] = protocol;
        bytes[offset_of!(types::key, family)] = family;
        Entry(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

// No padding: the kernel hashes every byte, and we write only the fields.
const _: () = assert!(Entry::SIZE == 16 + 2 + 1 + 1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards that an IPv4 address and the IPv6 address that maps it are different keys.
    #[test]
    fn mapped_addresses_do_not_alias() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_ne!(Entry::new(v4, 80, 6), Entry::new(v6, 80, 6));
    }

    /// Guards the port's byte order, which the compiler cannot see.
    #[test]
    fn ports_are_in_network_order() {
        let entry = Entry::new("192.0.2.1".parse().unwrap(), 0x1234, 6);
        assert_eq!(entry.bytes()[16..18], [0x12, 0x34]);
    }
}
