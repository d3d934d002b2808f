//! A link as the kernel reports it, and the port that a VLAN interface stands for.
//!
//! Invariant: a [`Port`] is always an ethernet device that AF_XDP can drive, with the tags a frame must bear to be that
//! interface's frame, outermost first. What it is not: a bridge, bond or tunnel is never a port, because what leaves it
//! is decided by code (forwarding database, hash, encapsulation) that the director does not run.

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Index, unique in the network namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; zeros if it has none.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up and able to carry packets (carrier present).
    pub running: bool,
    /// Speaks ethernet frames.
    pub ethernet: bool,
    /// The loopback device.
    pub loopback: bool,
    /// Driver kind of a virtual device ("vlan", "veth", "bridge", ...); `None` for hardware.
    pub kind: Option<String>,
    /// VLAN identifier, if the kind is "vlan".
    pub vlan: Option<u16>,
    /// Ethertype of the VLAN tag (0x8100 or 0x88a8); 0 if the kind is not "vlan".
    pub vlan_protocol: u16,
    /// The link below (for a VLAN: the one that carries it), if there is one and it is in this namespace.
    pub parent: Option<u32>,
    /// The bridge, bond, team or VRF that this link belongs to.
    pub master: Option<u32>,
    /// Receive queues that the driver created, used or not.
    pub receive_queues: u32,
}

/// Kinds of virtual devices that are ethernet ports of their own. A link without a kind is hardware and counts as well.
const PORT_KINDS: [&str; 4] = ["veth", "tun", "dummy", "netdevsim"];

impl Link {
    /// Whether frames put on this link leave by it unchanged, so that AF_XDP can stand in for the kernel.
    pub fn is_port(&self) -> bool {
        let kind = self.kind.as_deref();
        self.ethernet && !self.loopback && kind.is_none_or(|kind| PORT_KINDS.contains(&kind))
    }

    /// Whether this is a VLAN interface with a known tag.
    pub fn tag(&self) -> Option<Tag> {
        let id = self.vlan?;
        Some(Tag { ethertype: self.vlan_protocol, id })
    }

    /// A word for what kind of link it is, for messages.
    pub fn kind_name(&self) -> String {
        match &self.kind {
            Some(kind) => kind.clone(),
            None if self.loopback => "loopback".to_owned(),
            None if self.ethernet => "ethernet".to_owned(),
            None => "not ethernet".to_owned(),
        }
    }
}

/// One VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// Ethertype that announces the tag: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub ethertype: u16,
    /// VLAN identifier.
    pub id: u16,
}

/// A physical port and the tags that lead to an interface on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Port {
    /// Index of the ethernet device.
    pub link: u32,
    /// Tags, outermost first; empty for the device itself.
    pub tags: Vec<Tag>,
}
