//! Names for addresses and ports, and back.
//!
//! Behind a trait, because listings without `-n` depend on the machine they are made on: its hosts file, its name
//! servers, its list of services. Tests bring their own.
//!
//! Invariant: no answer is an error. What has no name is shown as a number.
//!
//! Not here: how names and numbers are put together ([`super::numbers`]).

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use crate::control::protocol::Protocol;

/// Names for addresses and ports, and back.
pub trait Names {
    /// The address of a host: IPv4 if it has one.
    fn address(&self, host: &str) -> Option<IpAddr>;
    /// The name of a host.
    fn host(&self, address: IpAddr) -> Option<String>;
    /// The port of a service.
    fn port(&self, service: &str, protocol: Protocol) -> Option<u16>;
    /// The name of a port.
    fn service(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// Where the names of ports are.
const SERVICES: &str = "/etc/services";

/// Room for a host's name; the libc's own NI_MAXHOST.
const HOST_MAX: usize = 1025;

/// The names of this machine.
///
/// Each address is looked up once: a connection table names the same few clients and servers thousands of times, and a
/// name server that does not answer would be waited for at each of them.
#[derive(Debug, Default)]
pub struct System {
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
    services: OnceCell<Vec<Service>>,
}

/// A line of the list of services.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    /// Its name, then its aliases.
    names: Vec<String>,
    port: u16,
    protocol: String,
}

impl Names for System {
    fn address(&self, host: &str) -> Option<IpAddr> {
        let found: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
        found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        self.hosts.borrow_mut().entry(address).or_insert_with(|| reverse(address)).clone()
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        let mut lines = self.services().iter().filter(|line| line.protocol == protocol_name(protocol));
        lines.find(|line| line.names.iter().any(|name| name == service)).map(|line| line.port)
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        let mut lines = self.services().iter().filter(|line| line.protocol == protocol_name(protocol));
        lines.find(|line| line.port == port).and_then(|line| line.names.first().cloned())
    }
}

impl System {
    fn services(&self) -> &[Service] {
        self.services.get_or_init(|| std::fs::read_to_string(SERVICES).map(|text| services(&text)).unwrap_or_default())
    }
}

/// The protocol as `/etc/services` writes it.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Reads the list of services; lines that are none are skipped.
fn services(text: &str) -> Vec<Service> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let names = std::iter::once(name).chain(words).map(str::to_owned).collect();
        Some(Service { names, port: port.parse().ok()?, protocol: protocol.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

/// Asks the system's resolver for the name of an address.
fn reverse(address: IpAddr) -> Option<String> {
    let socket = SockaddrStorage::from(SocketAddr::new(address, 0));
    let mut host = [0u8; HOST_MAX];
    // JUSTIFICATION: neither std nor nix can turn an address into a name, and the name must be the one that the
    // machine's own resolver gives (hosts file, name servers, in the order of nsswitch.conf).
    // SAFETY: `socket` is a valid socket address and `len` its length; `host` is writable for the length given, and
    // getnameinfo ends what it writes there with a NUL; the null buffer of length 0 asks for no service name.
    let failed = unsafe {
        libc::getnameinfo(
            socket.as_ptr(),
            socket.len(),
            host.as_mut_ptr().cast(),
            HOST_MAX as libc::socklen_t,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failed != 0 {
        return None;
    }
    CStr::from_bytes_until_nul(&host).ok()?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the reading of the list of services: aliases, comments, several protocols, nonsense.
    #[test]
    fn list_of_services() {
        let text = "# comment\n\nhttp 80/tcp www # WorldWideWeb\ndomain\t53/udp\nbroken\nworse 1x/tcp\n";
        let list = services(text);
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].names[1].as_str(), list[0].port, list[0].protocol.as_str()), ("www", 80, "tcp"));
        assert_eq!((list[1].names[0].as_str(), list[1].port, list[1].protocol.as_str()), ("domain", 53, "udp"));
    }

    /// Guards the way to the system's resolver and back: addresses for documentation have no name anywhere.
    #[test]
    fn resolver() {
        let system = System::default();
        assert_eq!(system.address("127.0.0.1"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(system.address("no such host"), None);
        assert_eq!(system.address("\0"), None);
        if let Some(name) = system.host(IpAddr::from([127, 0, 0, 1])) {
            assert!(!name.is_empty() && name != "127.0.0.1");
        }
    }
}
