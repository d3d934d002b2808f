//! The names of the machine that the recordings were made on.

use std::net::IpAddr;

use xvs::control::protocol::Protocol;
use xvs::ipvsadm::names::Names;

/// Its hosts and ports.
pub(crate) struct Recorded;

impl Names for Recorded {
    fn address(&self, host: &str) -> Option<IpAddr> {
        HOSTS.iter().find(|(_, name)| *name == host).and_then(|(address, _)| address.parse().ok())
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        HOSTS.iter().find(|(text, _)| text.parse() == Ok(address)).map(|(_, name)| (*name).to_owned())
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        PORTS.iter().find(|(name, _, of)| *name == service && *of == protocol).map(|(_, port, _)| *port)
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        PORTS.iter().find(|(_, number, of)| *number == port && *of == protocol).map(|(name, _, _)| (*name).to_owned())
    }
}

const HOSTS: [(&str, &str); 4] = [
    ("192.0.2.1", "vip-nat.example"),
    ("10.1.0.11", "rs1.example"),
    ("2001:db8:ff::1", "vip6.example"),
    ("127.0.0.1", "localhost"),
];

const PORTS: [(&str, u16, Protocol); 5] = [
    ("http", 80, Protocol::Tcp),
    ("https", 443, Protocol::Tcp),
    ("domain", 53, Protocol::Tcp),
    ("domain", 53, Protocol::Udp),
    ("sip", 5060, Protocol::Udp),
];
