//! The addresses of services, and how many services have each.
//!
//! Invariant: an address is told of when its first service comes and when its last one goes, and not for those between; so
//! what a change costs does not depend on how many services there are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::protocol::ServiceId;

/// The addresses of all services.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    services: HashMap<IpAddr, u32>,
    /// Those that came or went since they were last told of.
    moved: HashSet<IpAddr>,
}

impl Addresses {
    /// A service comes.
    pub(super) fn add(&mut self, id: &ServiceId) {
        let Some(address) = address(id) else { return };
        let services = self.services.entry(address).or_default();
        *services += 1;
        if *services == 1 {
            self.moved.insert(address);
        }
    }

    /// A service goes.
    pub(super) fn remove(&mut self, id: &ServiceId) {
        let Some((address, services)) =
            address(id).and_then(|address| Some((address, self.services.get_mut(&address)?)))
        else {
            return;
        };
        *services -= 1;
        if *services == 0 {
            self.services.remove(&address);
            self.moved.insert(address);
        }
    }

    /// What came or went since the last call, with whether it is there now.
    pub(super) fn take_moved(&mut self) -> Vec<(IpAddr, bool)> {
        self.moved.drain().map(|address| (address, self.services.contains_key(&address))).collect()
    }
}

fn address(id: &ServiceId) -> Option<IpAddr> {
    match id {
        ServiceId::Address { address, .. } => Some(address.ip()),
        ServiceId::Mark { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Protocol;

    /// Guards VIPs that are ours: an address stays until its last service goes, and what came and went again is told as gone.
    #[test]
    fn an_address_goes_with_its_last_service() {
        let id =
            |text: &str| ServiceId::Address { protocol: Protocol::Tcp, address: text.parse().expect("an address") };
        let (web, mail) = (id("192.0.2.1:80"), id("192.0.2.1:25"));
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let mut addresses = Addresses::default();
        addresses.add(&web);
        assert_eq!(addresses.take_moved(), [(address, true)]);
        addresses.add(&mail);
        addresses.remove(&web);
        assert_eq!(addresses.take_moved(), []);
        addresses.remove(&mail);
        assert_eq!(addresses.take_moved(), [(address, false)]);
        addresses.remove(&mail);
        addresses.add(&web);
        addresses.remove(&web);
        assert_eq!(addresses.take_moved(), [(address, false)]);
    }
}
