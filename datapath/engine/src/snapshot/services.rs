//! All services, as the packet path finds them.
//!
//! Invariant: a copy is made in the time of some hundred words, whatever it holds, and shares all but what is changed
//! afterwards; so each change makes a snapshot of its own, with ten thousand services as with one. In which order services
//! are asked is the snapshot's business.

use std::sync::Arc;

use super::pages::{Item, Pages, fold};
use crate::flow::{Address, Endpoint, Family, Protocol};
use crate::service::{FTP, Service, ServiceKey};

/// Factors of the hash of keys, which nobody but the operator chooses: digits of e.
const FACTORS: [u64; 3] = [0xadf8_5458_a2bb_4a9a, 0xafdc_5620_273d_3cf1, 0xd8b9_c583_ce2d_3695];

/// All services.
#[derive(Clone, Debug, Default)]
pub struct Services {
    by_key: Pages<Arc<Service>>,
    addresses: Pages<VirtualAddress>,
    /// A bit for each address that services have or had: most others are told by it alone.
    hints: u64,
    /// Services of marks, on FTP's port, and on every port.
    marked: usize,
    ftp: usize,
    any_port: usize,
    /// Services of UDP on one port with a persistence engine, whose servers may begin connections.
    outward: Arc<[Arc<Service>]>,
}

/// An address, and how many services have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct VirtualAddress {
    address: Address,
    services: u32,
}

impl Item for Arc<Service> {
    type Key = ServiceKey;

    #[inline(always)]
    fn key(&self) -> ServiceKey {
        self.key
    }

    #[inline(always)]
    fn hash(key: ServiceKey) -> u64 {
        match key {
            ServiceKey::Address(protocol, Endpoint { address, port }) => {
                let ports = u64::from(protocol.0) << 16 | u64::from(port);
                let bits = address.bits();
                fold((bits >> 64) as u64 ^ FACTORS[2] ^ ports, bits as u64 ^ FACTORS[1])
            }
            ServiceKey::Mark(mark, family) => {
                let family = u64::from(family == Family::Inet6);
                fold(FACTORS[0] ^ u64::from(mark), FACTORS[1] ^ family)
            }
        }
    }
}

impl Item for VirtualAddress {
    type Key = Address;

    #[inline]
    fn key(&self) -> Address {
        self.address
    }

    #[inline]
    fn hash(key: Address) -> u64 {
        hash_address(key)
    }
}

#[inline(always)]
fn hash_address(address: Address) -> u64 {
    let bits = address.bits();
    fold((bits >> 64) as u64 ^ FACTORS[0], bits as u64 ^ FACTORS[1])
}

/// One bit of a word for an address.
#[inline]
fn hint(address: Address) -> u64 {
    let bits = address.bits();
    1 << ((bits as u64 ^ (bits >> 64) as u64).wrapping_mul(FACTORS[0]) >> 58)
}

impl Services {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The service of a key.
    #[inline(always)]
    pub fn get(&self, key: ServiceKey) -> Option<&Arc<Service>> {
        self.by_key.get(key)
    }

    /// Adds a service, in the place of that with the same key.
    pub fn insert(&mut self, service: Arc<Service>) {
        self.remove(service.key);
        self.count(service.key, 1);
        self.by_key.insert(service.clone());
        self.refresh(&service);
    }

    /// Removes the service of a key.
    pub fn remove(&mut self, key: ServiceKey) -> Option<Arc<Service>> {
        let service = self.by_key.remove(key)?;
        self.count(key, -1);
        self.outward = self.outward.iter().filter(|other| other.key != key).cloned().collect();
        Some(service)
    }

    /// Looks again whether a service has a persistence engine; tells if that has changed.
    pub fn refresh(&mut self, service: &Arc<Service>) -> bool {
        let one_port = |(protocol, port)| protocol == Protocol::UDP && port != 0;
        let is =
            address(service.key).is_some_and(|(protocol, at)| one_port((protocol, at.port))) && service.has_engine();
        let was = self.outward.iter().any(|other| other.key == service.key);
        if is != was {
            let others = self.outward.iter().filter(|other| other.key != service.key).cloned();
            self.outward = others.chain(is.then(|| service.clone())).collect();
        }
        is != was
    }

    fn count(&mut self, key: ServiceKey, step: isize) {
        let add = |count: &mut usize| *count = count.saturating_add_signed(step);
        let Some((protocol, Endpoint { address, port })) = address(key) else { return add(&mut self.marked) };
        if protocol == Protocol::TCP && port == FTP {
            add(&mut self.ftp);
        }
        if port == 0 {
            add(&mut self.any_port);
        }
        self.hints |= hint(address);
        let services = self.addresses.get(address).map_or(0, |known| known.services);
        match services.saturating_add_signed(step as i32) {
            0 => drop(self.addresses.remove(address)),
            services => self.addresses.insert(VirtualAddress { address, services }),
        }
    }

    /// Are there services of marks?
    #[inline]
    pub(super) fn has_marked(&self) -> bool {
        self.marked > 0
    }

    /// Are there services on FTP's port?
    #[inline]
    pub(super) fn has_ftp(&self) -> bool {
        self.ftp > 0
    }

    /// Are there services on every port?
    #[inline]
    pub(super) fn has_any_port(&self) -> bool {
        self.any_port > 0
    }

    /// Has a service this address, perhaps?
    #[inline(always)]
    pub(super) fn may_have_address(&self, address: Address) -> bool {
        self.hints & hint(address) != 0
    }

    /// Has a service this address?
    pub(super) fn has_address(&self, address: Address) -> bool {
        self.addresses.get(address).is_some()
    }

    /// Services whose NAT servers may begin connections outwards, oldest first.
    pub(super) fn outward(&self) -> &[Arc<Service>] {
        &self.outward
    }
}

fn address(key: ServiceKey) -> Option<(Protocol, Endpoint)> {
    match key {
        ServiceKey::Address(protocol, endpoint) => Some((protocol, endpoint)),
        ServiceKey::Mark(..) => None,
    }
}

impl FromIterator<Arc<Service>> for Services {
    fn from_iter<I: IntoIterator<Item = Arc<Service>>>(services: I) -> Self {
        let mut all = Services::default();
        services.into_iter().for_each(|service| all.insert(service));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::Builtin;
    use crate::service::{PersistenceEngine, Policy};

    fn service(number: u32, key: ServiceKey, policy: Policy) -> Arc<Service> {
        Arc::new(Service::new(number, key, Builtin::from_name("rr").unwrap(), policy))
    }

    fn at(protocol: Protocol, last: u8, port: u16) -> ServiceKey {
        ServiceKey::Address(protocol, Endpoint::new(Address::v4([192, 0, 2, last]), port))
    }

    /// Guards what the snapshot asks before it looks: an address, FTP and "every port" are there until the last service
    /// that has them is gone, and a service that comes twice counts once.
    #[test]
    fn what_services_have_in_common_goes_with_the_last() {
        let mut services = Services::default();
        let keys = [
            at(Protocol::TCP, 1, 21),
            at(Protocol::TCP, 1, 0),
            at(Protocol::UDP, 2, 21),
            ServiceKey::Mark(1, Family::Inet),
        ];
        for (number, key) in (0..).zip(keys).chain((4..).zip(keys)) {
            services.insert(service(number, key, Policy::default()));
        }
        let told =
            |services: &Services| (services.len(), services.has_ftp(), services.has_any_port(), services.has_marked());
        assert_eq!(told(&services), (4, true, true, true));
        assert_eq!(services.get(keys[0]).map(|service| service.number), Some(4));
        let address = Address::v4([192, 0, 2, 1]);
        services.remove(keys[0]);
        assert!(services.has_address(address), "the other service has it");
        services.remove(keys[1]);
        assert!(!services.has_address(address));
        assert_eq!(told(&services), (2, false, false, true));
        services.remove(keys[3]);
        services.remove(keys[3]);
        assert_eq!(told(&services), (1, false, false, false), "UDP has no FTP");
    }

    /// Guards calls that servers begin (IPVS-REFERENCE 3.8): a service is asked for them while it has an engine, also when it
    /// got that by an edit, and in the order of the services' making.
    #[test]
    fn services_with_an_engine_are_known() {
        let engine = Policy { engine: Some(PersistenceEngine::Sip), ..Policy::default() };
        let arena = crate::real::Arena::new(1, Default::default());
        let list = [
            service(0, at(Protocol::UDP, 1, 5060), engine),
            service(1, at(Protocol::UDP, 2, 5060), Policy::default()),
            service(2, at(Protocol::UDP, 3, 0), engine),
            service(3, ServiceKey::Mark(1, Family::Inet), engine),
        ];
        let mut services: Services = list.iter().cloned().collect();
        let copy = services.clone();
        let numbers = |services: &Services| services.outward().iter().map(|service| service.number).collect::<Vec<_>>();
        assert_eq!(numbers(&services), [0], "one port, UDP, an address");
        list[1].edit(&arena, Builtin::from_name("rr").unwrap(), engine);
        assert!(services.refresh(&list[1]));
        assert!(!services.refresh(&list[1]));
        assert_eq!((numbers(&services), numbers(&copy)), (vec![0, 1], vec![0]));
        list[0].edit(&arena, Builtin::from_name("rr").unwrap(), Policy::default());
        assert!(services.refresh(&list[0]));
        assert_eq!(numbers(&services), [1]);
        services.remove(list[1].key);
        assert!(services.outward().is_empty());
    }
}
