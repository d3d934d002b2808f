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

/// The VIPs, on the interface that holds them.
#[derive(Debug)]
pub struct Vips {
    interface: Option<String>,
    /// Those that are ours, and how often each is still to be announced.
    owned: HashMap<IpAddr, u8>,
    /// Those that are wanted and could not be added, or were there before.
    others: HashMap<IpAddr, Other>,
}

/// Why a wanted address is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// It was there already.
    Foreign,
    /// It could not be added; it is tried again.
    Failed,
}

impl Vips {
    /// On this interface; none if the addresses are the operator's.
    pub fn new(interface: Option<String>) -> Self {
        Vips { interface, owned: HashMap::new(), others: HashMap::new() }
    }

    /// Is there anything to do here at all?
    pub fn are_ours(&self) -> bool {
        self.interface.is_some()
    }

    fn link(&self, network: &Network) -> Option<u32> {
        network.view().link_by_name(self.interface.as_ref()?).map(|link| link.index)
    }

    /// Adds and removes addresses so that exactly these are ours.
    pub fn follow(&mut self, wanted: HashSet<IpAddr>, network: &mut Network) {
        let Some(name) = &self.interface else { return };
        let Some(link) = self.link(network) else {
            tracing::error!(interface = name, "there is no such interface for the VIPs");
            return;
        };
        let gone: Vec<IpAddr> = self.owned.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            self.owned.remove(&address);
            delete(network, link, address);
        }
        self.others.retain(|address, _| wanted.contains(address));
        for address in wanted {
            if !self.owned.contains_key(&address) && !self.others.contains_key(&address) {
                self.add(link, address, network);
            }
        }
    }

    fn add(&mut self, link: u32, address: IpAddr, network: &mut Network) {
        let before = self.others.remove(&address);
        match network.mirror_mut().add_address(link, address, host_prefix(address)) {
            Ok(true) => {
                self.owned.insert(address, ANNOUNCEMENTS);
                self.announce(address, network);
            }
            Ok(false) => {
                self.others.insert(address, Other::Foreign);
                tracing::info!(%address, "the VIP was there already; it stays when xvs ends");
            }
            Err(error) => {
                self.others.insert(address, Other::Failed);
                if before != Some(Other::Failed) {
                    tracing::error!(%error, %address, "the VIP could not be added; it is tried again every second");
                }
            }
        }
    }

    /// Announces what is new once more, and tries again what failed: once a second.
    pub fn tick(&mut self, network: &mut Network) {
        let failed = self.others.iter().filter(|(_, other)| **other == Other::Failed);
        let failed: Vec<IpAddr> = failed.map(|(address, _)| *address).collect();
        let new = self.owned.iter().filter(|(_, left)| **left > 0);
        let new: Vec<IpAddr> = new.map(|(address, _)| *address).collect();
        for address in new {
            self.announce(address, network);
        }
        let Some(link) = self.link(network) else { return };
        for address in failed {
            self.add(link, address, network);
        }
    }

    fn announce(&mut self, address: IpAddr, network: &Network) {
        let link = self.interface.as_ref().and_then(|name| network.view().link_by_name(name));
        let Some((link, left)) = link.zip(self.owned.get_mut(&address)) else { return };
        *left -= 1;
        if let Err(error) = kernel::announce(link, address) {
            tracing::warn!(%error, %address, "the VIP could not be announced");
        }
    }

    /// Takes all of our addresses away.
    pub fn release(&mut self, network: &mut Network) {
        let Some(link) = self.link(network) else { return };
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
