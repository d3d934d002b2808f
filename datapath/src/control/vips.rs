//! VIP addresses that the director owns: added to an interface, announced, and taken away at the end.
//!
//! Only with `own_vips = true`; otherwise the addresses are the operator's and nothing here happens. Invariant: an
//! address that was there before is not ours, and stays when we leave.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::kernel;

use super::network::Network;

/// A new address is announced so often, once a second: one announcement may be lost.
const ANNOUNCEMENTS: u8 = 3;

/// The VIPs that are ours, and how often each is still to be announced.
#[derive(Debug)]
pub struct Vips {
    interface: Option<String>,
    owned: HashMap<IpAddr, u8>,
}

impl Vips {
    /// On this interface; none if the addresses are the operator's.
    pub fn new(interface: Option<String>) -> Self {
        Vips { interface, owned: HashMap::new() }
    }

    /// Adds and removes addresses so that exactly these are ours.
    pub fn follow(&mut self, wanted: HashSet<IpAddr>, network: &mut Network) {
        let Some(name) = self.interface.clone() else { return };
        let Some(link) = network.view().link_by_name(&name).map(|link| link.index) else {
            tracing::error!(interface = name, "there is no such interface for the VIPs");
            return;
        };
        let gone: Vec<IpAddr> = self.owned.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            self.owned.remove(&address);
            delete(network, link, address);
        }
        for address in wanted {
            if self.owned.contains_key(&address) {
                continue;
            }
            match network.mirror_mut().add_address(link, address, host_prefix(address)) {
                Ok(true) => {
                    self.owned.insert(address, ANNOUNCEMENTS);
                }
                Ok(false) => tracing::info!(%address, "the VIP was there already; it stays when xvs ends"),
                Err(error) => tracing::error!(%error, %address, "the VIP could not be added"),
            }
        }
        self.tick(network);
    }

    /// Announces what is new, once a call.
    pub fn tick(&mut self, network: &Network) {
        let Some(link) = self.interface.as_ref().and_then(|name| network.view().link_by_name(name)) else { return };
        for (&address, left) in self.owned.iter_mut().filter(|(_, left)| **left > 0) {
            *left -= 1;
            if let Err(error) = kernel::announce(link, address) {
                tracing::warn!(%error, %address, "the VIP could not be announced");
            }
        }
    }

    /// Takes all of our addresses away.
    pub fn release(&mut self, network: &mut Network) {
        let Some(link) = self.interface.as_ref().and_then(|name| network.view().link_by_name(name)) else { return };
        let link = link.index;
        for (address, _) in self.owned.drain() {
            delete(network, link, address);
        }
    }
}

fn delete(network: &mut Network, link: u32, address: IpAddr) {
    if let Err(error) = network.mirror_mut().delete_address(link, address, host_prefix(address)) {
        tracing::warn!(%error, %address, "the VIP could not be taken away");
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
