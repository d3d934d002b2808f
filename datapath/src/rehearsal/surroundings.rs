//! What lies around a rehearsed director: one interface, one gateway for all clients, and every server on the link.
//!
//! Invariant: each server address has a MAC of its own, so that the frame alone tells whom it is for; and a key that is
//! steered is remembered, so that nothing is unsteered that was not steered.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use xvs_engine::engine::Shared;
use xvs_engine::flow::{Address, Family};
use xvs_engine::hop::{Interface, InterfaceId, Port, Tagging};
use xvs_engine::mark::Marks;
use xvs_engine::real::{Path, RealId};
use xvs_engine::route::{Route, Routes, Target};
use xvs_engine::snapshot::{Services, Snapshot};
use xvs_engine::wire::Mac;
use xvs_redirect::{Key, Range};

use crate::control::book::Outside;
use crate::control::protocol::Refusal;

/// The one interface.
const LINK: InterfaceId = InterfaceId(0);
const MTU: u32 = 1500;
/// The director's MAC, locally administered.
pub const OWN_MAC: Mac = [0x02, 0x78, 0x76, 0x73, 0x00, 0x01];
/// The MAC of the clients' gateway.
pub(super) const GATEWAY_MAC: Mac = [0x02, 0x78, 0x76, 0x73, 0x00, 0x02];
/// The director's addresses: where tunnels start.
const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);
/// The gateway's addresses.
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 253);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfd);

/// What lies around a rehearsed director.
#[derive(Debug)]
pub struct Surroundings {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    /// How often each key is steered.
    steered: BTreeMap<Key, u32>,
    macs: HashMap<IpAddr, Mac>,
}

impl Surroundings {
    /// With the way to every client known.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        for gateway in [IpAddr::from(GATEWAY4), GATEWAY6.into()] {
            if let Some(hop) = shared.hops.intern(LINK, gateway.into()) {
                shared.hops.resolve(hop, GATEWAY_MAC);
            }
        }
        let (steered, macs, snapshot) = Default::default();
        let mut surroundings = Surroundings { shared, snapshot, steered, macs };
        surroundings.publish(&Services::default(), &Arc::default());
        surroundings
    }

    /// What the workers use.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Counts up with every snapshot.
    pub(super) fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// Whose MAC this is, if it is a server's.
    pub(super) fn owner(&self, mac: Mac) -> Option<IpAddr> {
        self.macs.iter().find(|(_, known)| **known == mac).map(|(address, _)| *address)
    }

    /// The keys whose packets go to the workers.
    pub fn steered(&self) -> impl Iterator<Item = &Key> {
        self.steered.keys()
    }
}

impl Outside for Surroundings {
    fn publish(&mut self, services: &Services, marks: &Arc<Marks>) {
        let generation = self.snapshot.generation + 1;
        let snapshot = Snapshot::of(generation, services.clone(), [interface()].into(), routes().into());
        self.snapshot = Arc::new(snapshot.with_marks(marks.clone()));
    }

    fn steer(&mut self, key: &Key) -> Result<(), Refusal> {
        *self.steered.entry(*key).or_default() += 1;
        Ok(())
    }

    fn unsteer(&mut self, key: &Key) {
        match self.steered.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(self.steered.remove(key)),
            None => debug_assert!(false, "{key:?} was not steered"),
        }
    }

    fn ranges(&mut self, _ranges: &[Range]) -> Result<(), Refusal> {
        // Every packet goes to the workers here.
        Ok(())
    }

    fn route(&mut self, real: RealId, server: IpAddr) {
        let [_, _, a, b] = (self.macs.len() as u32 + 1).to_be_bytes();
        let mac = *self.macs.entry(server).or_insert([0x02, 0x78, 0x76, 0x01, a, b]);
        let source = if server.is_ipv4() { IpAddr::from(OWN4) } else { OWN6.into() };
        if let Some(hop) = self.shared.hops.intern(LINK, server.into()) {
            self.shared.hops.resolve(hop, mac);
            self.shared.arena.get(real).set_path(Path::Hop(hop), MTU, Some(source.into()));
        }
    }
}

fn interface() -> Interface {
    Interface {
        name: "rehearsal".to_owned(),
        port: Some(Port(0)),
        mac: OWN_MAC,
        tagging: Tagging::Keep,
        mtu: MTU,
        partial: true,
        addresses: vec![Address::v4(OWN4.octets()), Address::v6(OWN6.octets())],
    }
}

/// Everybody but the servers is behind the gateway.
fn routes() -> Routes {
    let default = |family| {
        let (prefix, gateway) = match family {
            Family::Inet => (Address::v4([0; 4]), Address::v4(GATEWAY4.octets())),
            Family::Inet6 => (Address::v6([0; 16]), Address::v6(GATEWAY6.octets())),
        };
        let target = Target::Via { interface: LINK, gateway: Some(gateway), mtu: MTU, source: None };
        Route { prefix, length: 0, target }
    };
    Routes::new([default(Family::Inet), default(Family::Inet6)])
}
