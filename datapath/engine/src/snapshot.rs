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
