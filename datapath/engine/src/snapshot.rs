//! What the packet path knows of the configuration: services by address and by mark, interfaces, routes.
//!
//! Invariant: immutable. A change makes a new snapshot, which shares what did not change with the one before, and workers
//! swap to it between two batches. What changes from
//! connection to connection (server lists, scheduler state) is behind the services' own locks and shared by all
//! snapshots that hold the service.

mod pages;
mod services;

use std::sync::Arc;

pub use self::services::Services;

use crate::flow::{Address, Endpoint, Flow, Protocol};
use crate::hop::{Exit, Interface, InterfaceId, Port};
use crate::mark::Marks;
use crate::route::Routes;
use crate::service::{FTP, Service, ServiceKey};

/// Where FTP's active data connections come from.
const FTP_DATA: u16 = 20;
/// The least port that anybody may listen on, as passive FTP servers do.
const UNPRIVILEGED: u16 = 1024;

/// Numbers that an interface may have ([`InterfaceId`]).
const INTERFACES: usize = 1 << 8;

/// Services, marks, interfaces and routes at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every change.
    pub generation: u64,
    services: Services,
    marks: Arc<Marks>,
    interfaces: Arc<[Interface]>,
    /// Of each interface, for the express lane.
    exits: Box<[Option<Exit>; INTERFACES]>,
    /// Packets may come with checksums that were left to hardware.
    partial: bool,
    routes: Arc<Routes>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::of(0, Services::default(), Arc::default(), Arc::default())
    }
}

impl Snapshot {
    /// Compiles a snapshot without rules for marks.
    pub fn new(generation: u64, services: &[Arc<Service>], interfaces: Vec<Interface>, routes: Routes) -> Self {
        Self::of(generation, services.iter().cloned().collect(), interfaces.into(), routes.into())
    }

    /// The same of parts that others have, too.
    pub fn of(generation: u64, services: Services, interfaces: Arc<[Interface]>, routes: Arc<Routes>) -> Self {
        let exits = Box::new(std::array::from_fn(|number| interfaces.get(number).and_then(Interface::exit)));
        let partial = interfaces.iter().any(|interface| interface.port.is_some() && interface.partial);
        Snapshot { generation, services, marks: Arc::default(), interfaces, exits, partial, routes }
    }

    /// The same with these rules for marks.
    pub fn with_marks(mut self, marks: Arc<Marks>) -> Self {
        self.marks = marks;
        self
    }

    /// The service that a client's packet is for, in IPVS's order: that of its mark, that of its port, FTP's for what may
    /// be a data connection of it, that of its address alone (port 0). A mark without a service counts for nothing.
    #[inline(always)]
    pub fn service(&self, flow: &Flow) -> Option<&Arc<Service>> {
        let exact = self.services.get(key_of(flow, flow.dst.port));
        if exact.is_some() && !self.services.has_marked() { exact } else { self.service_in_order(*flow) }
    }

    /// It is given a copy, so that the flow need not be in memory where this is not asked.
    #[inline(never)]
    fn service_in_order(&self, flow: Flow) -> Option<&Arc<Service>> {
        let flow = &flow;
        let port = flow.dst.port;
        let services = &self.services;
        let at = |port| services.get(key_of(flow, port));
        let is_data = || flow.protocol == Protocol::TCP && (port == FTP_DATA || port >= UNPRIVILEGED);
        self.marked_service(flow)
            .or_else(|| at(port))
            .or_else(|| (services.has_ftp() && is_data()).then(|| at(FTP)).flatten())
            .or_else(|| services.has_any_port().then(|| at(0)).flatten())
    }

    #[inline]
    fn marked_service(&self, flow: &Flow) -> Option<&Arc<Service>> {
        if !self.services.has_marked() {
            return None;
        }
        match self.marks.of(flow) {
            0 => None,
            mark => self.services.get(ServiceKey::Mark(mark, flow.family())),
        }
    }

    /// The rules for marks.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Services whose NAT servers may begin connections outwards, which their persistence engines see to.
    pub fn outward(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.outward().iter().filter(|service| service.has_engine())
    }

    /// Is this the address of a service, or one that rules mark packets to?
    #[inline(always)]
    pub fn is_virtual(&self, address: Address) -> bool {
        (self.services.may_have_address(address) || !self.marks.rules().is_empty()) && self.is_virtual_indeed(address)
    }

    #[inline(never)]
    fn is_virtual_indeed(&self, address: Address) -> bool {
        self.services.has_address(address) || self.marks.mentions(address)
    }

    /// An interface by its number.
    #[inline]
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(usize::from(id.0))
    }

    /// May packets come with [partial](Interface::partial) checksums?
    #[inline(always)]
    pub fn may_be_partial(&self) -> bool {
        self.partial
    }

    /// The way out by an interface for an untagged frame.
    #[inline(always)]
    pub(crate) fn exit(&self, id: InterfaceId) -> Option<&Exit> {
        self.exits[usize::from(id.0)].as_ref()
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

/// The key of a service of a packet's protocol and destination, on this port.
#[inline]
fn key_of(flow: &Flow, port: u16) -> ServiceKey {
    ServiceKey::Address(flow.protocol, Endpoint::new(flow.dst.address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Family;
    use crate::hop::Tagging;
    use crate::mark::{Prefix, Rule};
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

    /// The exact port wins over "every port", protocols are apart, and a mark service is not found without a mark.
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

    fn marks(mark: u32, last: u8) -> Arc<Marks> {
        let destination = Prefix::new(endpoint(last, 0).address, 32);
        Arc::new(Marks::new(vec![Rule { mark, destination, source: None, protocol: None, ports: vec![(20, 8080)] }]))
    }

    /// The trap of IPVS-REFERENCE 4.2: a firewall-mark service beats the exact one, for every protocol. A mark that no
    /// service of the family has is no mark.
    #[test]
    fn fwmark_service_beats_exact_service() {
        let services = [
            service(0, ServiceKey::Address(Protocol::TCP, endpoint(1, 80))),
            service(1, ServiceKey::Mark(7, Family::Inet)),
            service(2, ServiceKey::Mark(8, Family::Inet6)),
        ];
        let snapshot = |marks| Snapshot::new(1, &services, Vec::new(), Routes::default()).with_marks(marks);
        let marked = snapshot(marks(7, 1));
        assert_eq!(number(&marked, Protocol::TCP, endpoint(1, 80)), Some(1));
        assert_eq!(number(&marked, Protocol::UDP, endpoint(1, 81)), Some(1));
        assert_eq!(number(&marked, Protocol::TCP, endpoint(1, 8081)), None, "beyond the rule's ports");
        for mark in [8, 9] {
            let other = snapshot(marks(mark, 1));
            assert_eq!(number(&other, Protocol::TCP, endpoint(1, 80)), Some(0), "mark {mark} has no service here");
            assert_eq!(number(&other, Protocol::TCP, endpoint(1, 81)), None);
        }
        assert!(marked.is_virtual(endpoint(1, 0).address));
        assert!(snapshot(marks(7, 5)).is_virtual(endpoint(5, 0).address), "a destination of marks is one of ours");
        assert!(!marked.is_virtual(endpoint(5, 0).address));
    }

    /// The whole order of IPVS-REFERENCE 4.2: mark, exact port, FTP's data, every port. FTP is TCP's and its own VIP's.
    #[test]
    fn services_are_looked_up_in_ipvs_order() {
        let address = |protocol, last, port| ServiceKey::Address(protocol, endpoint(last, port));
        let services = [
            service(0, address(Protocol::TCP, 1, 21)),
            service(1, address(Protocol::TCP, 1, 8080)),
            service(2, address(Protocol::TCP, 1, 0)),
            service(3, address(Protocol::TCP, 2, 0)),
            service(4, address(Protocol::UDP, 1, 0)),
            service(5, ServiceKey::Mark(7, Family::Inet)),
        ];
        let snapshot = Snapshot::new(1, &services, Vec::new(), Routes::default());
        let tcp = |last, port| number(&snapshot, Protocol::TCP, endpoint(last, port));
        assert_eq!((tcp(1, 21), tcp(1, 20), tcp(1, 1024), tcp(1, 65535)), (Some(0), Some(0), Some(0), Some(0)));
        assert_eq!(tcp(1, 8080), Some(1), "the exact port before FTP");
        assert_eq!((tcp(1, 19), tcp(1, 22), tcp(1, 1023)), (Some(2), Some(2), Some(2)), "no ports of FTP's");
        assert_eq!((tcp(2, 20), tcp(2, 1024)), (Some(3), Some(3)), "the other VIP has no FTP");
        assert_eq!(number(&snapshot, Protocol::UDP, endpoint(1, 1024)), Some(4), "FTP is TCP's");
        let marked = snapshot.with_marks(marks(7, 1));
        for port in [20, 21, 80, 8080] {
            assert_eq!(number(&marked, Protocol::TCP, endpoint(1, port)), Some(5), "{port}");
        }
    }

    /// Interfaces are found by number and by device; one that is not served has no device.
    #[test]
    fn interfaces_are_found() {
        let interface = |name: &str, port| {
            let (name, tagging) = (name.to_owned(), Tagging::Keep);
            Interface { name, port, mac: [0; 6], tagging, mtu: 1500, partial: true, addresses: Vec::new() }
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
