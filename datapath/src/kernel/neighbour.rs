//! A neighbour as the kernel's ARP and ND tables know it.
//!
//! Invariant: `mac` is present only if the kernel believes in it. Not here: proxy entries, bridge forwarding entries
//! and groups (multicast, broadcast), which share the netlink messages but are no next hops.
//!
//! Two transitions are not announced by the kernel: that it began to ask (`Incomplete`) and that a stale entry is in
//! use (`Delay`). A followed view shows them only after a fresh dump. Neither changes whether or where packets may be
//! sent.

use std::net::IpAddr;

/// How much the kernel trusts a neighbour entry (NUD states of `ip neigh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    /// Created, nothing asked yet.
    None,
    /// Asked, no answer yet.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Was confirmed once; still usable.
    Stale,
    /// In use, to be probed soon; still usable.
    Delay,
    /// Being probed; still usable.
    Probe,
    /// Did not answer.
    Failed,
    /// The link needs no resolution.
    NoArp,
    /// Set by hand.
    Permanent,
}

impl NeighbourState {
    /// The kernel's bit for a state; the kernel never sets two.
    pub(super) fn from_bits(bits: u16) -> NeighbourState {
        match bits {
            0x01 => NeighbourState::Incomplete,
            0x02 => NeighbourState::Reachable,
            0x04 => NeighbourState::Stale,
            0x08 => NeighbourState::Delay,
            0x10 => NeighbourState::Probe,
            0x20 => NeighbourState::Failed,
            0x40 => NeighbourState::NoArp,
            0x80 => NeighbourState::Permanent,
            _ => NeighbourState::None,
        }
    }

    /// Whether it is as it is by somebody's hand or by the link's nature, and the kernel never asks about it.
    pub fn is_fixed(self) -> bool {
        matches!(self, NeighbourState::Permanent | NeighbourState::NoArp)
    }

    /// Whether packets may be sent to the address that goes with it.
    pub fn is_usable(self) -> bool {
        use NeighbourState::{Delay, NoArp, Permanent, Probe, Reachable, Stale};
        matches!(self, Reachable | Stale | Delay | Probe | NoArp | Permanent)
    }
}

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// IP address of the neighbour.
    pub address: IpAddr,
    /// Its ethernet address, if known and usable.
    pub mac: Option<[u8; 6]>,
    /// How much the kernel trusts it.
    pub state: NeighbourState,
}
