//! What the packet path knows of the configuration: services by address, interfaces, routes.
//!
//! Invariant: immutable. A change makes a new snapshot, and workers swap to it between two batches. What changes from
//! connection to connection (server lists, scheduler state) is behind the services' own locks and shared by all
//! snapshots that hold the service.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::flow::{Address, Endpoint, Flow, Protocol};
use crate::hop::{Interface, InterfaceId, Port};
use crate::route::Routes;
use crate::service::{Service, ServiceKey};

/// Services, interfaces and routes at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with every change.
    pub generation: u64,
    services: HashMap<(Protocol, Endpoint), Arc<Service>>,
    virtual_addresses: HashSet<Address>,
    has_any_port: bool,
    interfaces: Vec<Interface>,
    routes: Routes,
}

impl Snapshot {
    /// Compiles a snapshot. Mark services are not looked up by address and do not appear.
    pub fn new(generation: u64, services: &[Arc<Service>], interfaces: Vec<Interface>, routes: Routes) -> Self {
        let mut snapshot = Snapshot { generation, interfaces, routes, ..Snapshot::default() };
        for service in services {
            if let ServiceKey::Address(protocol, endpoint) = service.key {
                snapshot.virtual_addresses.insert(endpoint.address);
                snapshot.has_any_port |= endpoint.port == 0;
                snapshot.services.insert((protocol, endpoint), service.clone());
            }
        }
        snapshot
    }

    /// The service that a client's packet is for: by its port, else by its address alone (a port-0 service).
    pub fn service(&self, flow: &Flow) -> Option<&Arc<Service>> {
        let exact = self.services.get(&(flow.protocol, flow.dst));
        if exact.is_some() || !self.has_any_port {
            return exact;
        }
        self.services.get(&(flow.protocol, Endpoint::new(flow.dst.address, 0)))
    }

    /// Is this the address of a service?
    pub fn is_virtual(&self, address: Address) -> bool {
        self.virtual_addresses.contains(&address)
    }

    /// An interface by its number.
    #[inline]
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(usize::from(id.0))
    }

    /// The first interface on a device: what a frame came in by, as far as answers to its sender go.
    pub fn interface_of(&self, port: Port) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.port == Some(port))
    }

    /// The routing table.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Family;
    use crate::hop::Tagging;
    use crate::sched::Builtin;

    fn endpoint(last: u8, port: u16) -> Endpoint {
        Endpoint::new(Address::v4([192, 0, 2, last]), port)
    }

    fn service(number: u32, key: ServiceKey) -> Arc<Service> {
        Arc::new(Service::new(number, key, Builtin::from_name("rr").unwrap(), Default::default()))
    }

    fn number(snapshot: &Snapshot, protocol: Protocol, dst: Endpoint) -> Option<u32> {
        let flow = Flow { protocol, src: endpoint(200, 4000), dst };
        snapshot.service(&flow).map(|service| service.number)
    }

    /// The exact port wins over "every port", protocols are apart, and a mark service is not found by an address.
    #[test]
    fn services_are_found_by_address() {
        let address = |protocol, last, port| ServiceKey::Address(protocol, endpoint(last, port));
        let services = [
            service(0, address(Protocol::TCP, 1, 80)),
            service(1, address(Protocol::TCP, 1, 0)),
            service(2, address(Protocol::UDP, 2, 53)),
            service(3, ServiceKey::Mark(7, Family::Inet)),
        ];
        let snapshot = Snapshot::new(1, &services, Vec::new(), Routes::default());
        assert_eq!(number(&snapshot, Protocol::TCP, endpoint(1, 80)), Some(0));
        assert_eq!(number(&snapshot, Protocol::TCP, endpoint(1, 81)), Some(1));
        assert_eq!(number(&snapshot, Protocol::UDP, endpoint(1, 80)), None);
        assert_eq!(number(&snapshot, Protocol::UDP, endpoint(2, 53)), Some(2));
        assert_eq!(number(&snapshot, Protocol::UDP, endpoint(2, 54)), None);
        assert!(snapshot.is_virtual(endpoint(2, 0).address));
        assert!(!snapshot.is_virtual(endpoint(3, 0).address));
    }

    /// Interfaces are found by number and by device; one that is not served has no device.
    #[test]
    fn interfaces_are_found() {
        let interface = |name: &str, port| {
            let (name, tagging) = (name.to_owned(), Tagging::Keep);
            Interface { name, port, mac: [0; 6], tagging, mtu: 1500, addresses: Vec::new() }
        };
        let interfaces =
            vec![interface("lo", None), interface("eth0", Some(Port(0))), interface("eth0.5", Some(Port(0)))];
        let snapshot = Snapshot::new(1, &[], interfaces, Routes::default());
        assert_eq!(snapshot.interface(InterfaceId(2)).map(|interface| &*interface.name), Some("eth0.5"));
        assert!(snapshot.interface(InterfaceId(3)).is_none());
        assert_eq!(snapshot.interface_of(Port(0)).map(|interface| &*interface.name), Some("eth0"));
        assert!(snapshot.interface_of(Port(1)).is_none());
    }
}
