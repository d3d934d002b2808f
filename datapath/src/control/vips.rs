//! VIP addresses that the director owns: added to an interface, announced, and taken away at the end.
//!
//! Only with `own_vips = true`; otherwise the addresses are the operator's and nothing here happens. Invariant: an
//! address that was there before is not ours, and stays when we leave.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::kernel;

use super::network::Network;

/// A new address is announced so often, once a second: one announcement may be lost.
const ANNOUNCEMENTS: u8 = 3;
/// So many addresses are announced again, or tried again, in one second: requests wait meanwhile.
const ANNOUNCED_AT_ONCE: usize = 100;

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

    fn link(&self, network: &Network) -> Option<u32> {
        network.view().link_by_name(self.interface.as_ref()?).map(|link| link.index)
    }

    /// Adds addresses that came, and takes away those of ours that went (false).
    pub fn follow(&mut self, moved: Vec<(IpAddr, bool)>, network: &mut Network) {
        let Some(name) = self.interface.as_ref().filter(|_| !moved.is_empty()) else { return };
        let link = self.link(network);
        if link.is_none() {
            tracing::error!(interface = name, "there is no such interface for the VIPs; it is looked for every second");
        }
        // Those that go make room for others.
        for (address, _) in moved.iter().filter(|(_, wanted)| !wanted) {
            self.others.remove(address);
            if let (Some(_), Some(link)) = (self.owned.remove(address), link) {
                delete(network, link, *address);
            }
        }
        for (address, _) in moved.into_iter().filter(|(_, wanted)| *wanted) {
            match link {
                _ if self.owned.contains_key(&address) || self.others.contains_key(&address) => {}
                Some(link) => self.add(link, address, network),
                None => drop(self.others.insert(address, Other::Failed)),
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
        let new: Vec<IpAddr> = new.map(|(address, _)| *address).take(ANNOUNCED_AT_ONCE).collect();
        for address in new {
            self.announce(address, network);
        }
        let Some(link) = self.link(network) else { return };
        for address in failed.into_iter().take(ANNOUNCED_AT_ONCE) {
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
