//! The items that are looked at, in the order in which they are told and changed.
//!
//! Invariant: an item only looks; what it would change it says in its finding. The number of queues comes first, since
//! drivers set the hash table, the interrupts and the queues' files anew when it changes.

use std::io;

use super::finding::Finding;
use super::scene::Scene;

mod driver;
mod interrupts;
mod memory;
mod offloads;
mod polling;
mod processor;
mod queues;
mod rings;
mod spread;
mod steering;

/// One thing to look at.
pub(super) struct Item {
    /// The name, for `--only` and `--skip`.
    pub(super) name: &'static str,
    /// Looks.
    pub(super) look: fn(&Scene<'_>) -> io::Result<Finding>,
}

/// Of each interface.
pub(super) const OF_INTERFACE: &[Item] = &[
    Item { name: "driver", look: driver::driver },
    Item { name: "mtu", look: driver::mtu },
    Item { name: "queues", look: queues::queues },
    Item { name: "rings", look: rings::rings },
    Item { name: "lro", look: offloads::lro },
    Item { name: "gro-hw", look: offloads::gro_hw },
    Item { name: "gro", look: offloads::gro },
    Item { name: "rx-vlan", look: offloads::rx_vlan },
    Item { name: "checksums", look: offloads::checksums },
    Item { name: "rss-fields", look: spread::fields },
    Item { name: "rss-symmetry", look: spread::symmetry },
    Item { name: "rss-spread", look: spread::spread },
    Item { name: "ntuple", look: spread::ntuple },
    Item { name: "pause", look: rings::pause },
    Item { name: "interrupts", look: interrupts::interrupts },
    Item { name: "xps", look: steering::xps },
    Item { name: "rps", look: steering::rps },
    Item { name: "busy-poll", look: polling::polling },
    Item { name: "numa", look: processor::numa },
];

/// Of the machine.
pub(super) const OF_MACHINE: &[Item] = &[
    Item { name: "kernel", look: driver::kernel },
    Item { name: "irqbalance", look: interrupts::irqbalance },
    Item { name: "huge-pages", look: memory::huge_pages },
    Item { name: "transparent-huge-pages", look: memory::transparent },
    Item { name: "memlock", look: memory::memlock },
    Item { name: "governor", look: processor::governor },
    Item { name: "idle-states", look: processor::idle_states },
    Item { name: "smt", look: processor::smt },
    Item { name: "mitigations", look: processor::mitigations },
];

/// The names of all items.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OF_INTERFACE.iter().chain(OF_MACHINE).map(|item| item.name)
}
