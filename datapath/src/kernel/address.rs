//! An address of this machine, as the kernel reports it.
//!
//! Invariant: one per (link, address, prefix). Not here: the peer of a point-to-point address, labels and lifetimes,
//! which nobody in the director asks for.

use std::net::IpAddr;

/// An IP address configured on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length of its network.
    pub prefix: u8,
    /// Scope: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// IPv4: not the first of its network. IPv6: a temporary address.
    pub secondary: bool,
    /// IPv6: duplicate detection still runs (or found a duplicate), so it must not be used yet.
    pub tentative: bool,
    /// Not to be chosen as a source for new conversations.
    pub deprecated: bool,
}

impl Address {
    /// Whether `other` lies in the network of this address.
    pub fn contains(&self, other: IpAddr) -> bool {
        super::table::network(self.address, self.prefix) == super::table::network(other, self.prefix)
    }

    /// Whether the prefix covers this one address only, the habit for virtual addresses.
    pub fn is_host(&self) -> bool {
        self.prefix == super::table::bits(self.address)
    }
}
