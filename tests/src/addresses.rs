//! Who has which address in a lab. Every host has one of each family, and both end in the same digits.
//!
//! Invariant: an address is a pure function of the lab's shape and the host's number, so tests may write addresses
//! literally: the client is 10.1.0.2 and fd00:1::2, the first VIP 10.1.0.100 and fd00:1::100, and rs1 of a two-arm lab
//! is 10.2.0.11 and fd00:2::11 (of a one-arm lab 10.1.0.11 and fd00:1::11).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IP version of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Length of the IP header without options, in bytes.
    pub fn header_len(self) -> u64 {
        match self {
            Family::V4 => 20,
            Family::V6 => 40,
        }
    }

    /// `IPv4` or `IPv6`.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// The two addresses of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Host `host` of network `net`: 10.NET.0.HOST and fd00:NET::HOST, where the digits of the host are the same text.
    pub fn new(net: u8, host: u8) -> Self {
        let v6 = format!("fd00:{net}::{host}");
        Pair { v4: Ipv4Addr::new(10, net, 0, host), v6: v6.parse().expect("decimal digits are hexadecimal digits") }
    }

    /// The address of this family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// The address of this family with a port, as people write it: `10.1.0.100:80`, `[fd00:1::100]:80`.
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(family), port)
    }
}

/// The plan of addresses of one lab.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    one_arm: bool,
}

/// The network of clients and VIPs.
const CLIENT_NET: u8 = 1;
/// The network of real servers in a two-arm lab.
const SERVER_NET: u8 = 2;

impl Addresses {
    pub(crate) fn new(one_arm: bool) -> Self {
        Addresses { one_arm }
    }

    fn server_net(&self) -> u8 {
        if self.one_arm { CLIENT_NET } else { SERVER_NET }
    }

    /// Client `number`, counted from 1.
    pub fn client(&self, number: usize) -> Pair {
        Pair::new(CLIENT_NET, 1 + number as u8)
    }

    /// Virtual IP `number`, counted from 0.
    pub fn vip(&self, number: usize) -> Pair {
        Pair::new(CLIENT_NET, 100 + number as u8)
    }

    /// Real server `number`, counted from 1.
    pub fn server(&self, number: usize) -> Pair {
        Pair::new(self.server_net(), 10 + number as u8)
    }

    /// The director's own address towards clients.
    pub fn director_client_side(&self) -> Pair {
        Pair::new(CLIENT_NET, 1)
    }

    /// The director's own address towards real servers (DIP). In a one-arm lab it is the only one.
    pub fn director_server_side(&self) -> Pair {
        Pair::new(self.server_net(), 1)
    }

    /// The router's address towards clients.
    pub fn router_client_side(&self) -> Pair {
        Pair::new(CLIENT_NET, 254)
    }

    /// The router's address towards real servers, in a two-arm lab.
    pub fn router_server_side(&self) -> Pair {
        Pair::new(SERVER_NET, 254)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_the_documentation_says() {
        let plan = Addresses::new(false);
        assert_eq!(plan.vip(0).socket(Family::V4, 80).to_string(), "10.1.0.100:80");
        assert_eq!(plan.vip(0).socket(Family::V6, 80).to_string(), "[fd00:1::100]:80");
        assert_eq!(plan.server(1).of(Family::V6).to_string(), "fd00:2::11");
        assert_eq!(Addresses::new(true).server(4).of(Family::V4).to_string(), "10.1.0.14");
    }
}
