//! Next hops: where a frame leaves, and to which MAC.
//!
//! A hop is an interface of the director and a neighbour's address behind it. Its MAC comes from outside (the kernel's
//! neighbour table, or a configured gateway) and may change or be missing at any time.
//!
//! Invariant: everything that the packet path needs of a hop is one 64-bit word, read in one load, so a MAC is never
//! seen half old and half new. A [`HopId`] stays valid for good; the table never shrinks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, PoisonError};

use crate::flow::Address;
use crate::lines::{Lines, WORDS};
use crate::wire::{Mac, Tags};

/// Number of an AF_XDP-bound device, as the rings count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u8);

/// Number of an interface in the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u8);

/// What to do with VLAN tags when a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagging {
    /// Leave as they came in.
    Keep,
    /// Write these (perhaps none).
    Set(Tags),
}

/// A layer-3 interface of the director: a device, or a VLAN on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name, for people.
    pub name: String,
    /// The device that its frames go through; `None` if the director does not serve it.
    pub port: Option<Port>,
    /// Its MAC.
    pub mac: Mac,
    /// Tags of frames that leave.
    pub tagging: Tagging,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Its device may hand over packets of neighbours in this machine, whose checksums were left to hardware
    /// ([`checksum`](crate::forward::checksum)).
    pub partial: bool,
    /// Addresses of the director on it.
    pub addresses: Vec<Address>,
}

/// What an untagged frame gets on its way out by an interface, for the express lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    /// The first two bytes of the interface's MAC, which share a word with the next hop's.
    head: u64,
    tail: [u8; 4],
    pub(crate) mtu: u32,
    pub(crate) port: Port,
}

impl Interface {
    /// The way out for an untagged frame that leaves untagged; `None` if there is none.
    pub(crate) fn exit(&self) -> Option<Exit> {
        let is_plain = match &self.tagging {
            Tagging::Keep => true,
            Tagging::Set(tags) => tags.as_slice().is_empty(),
        };
        let [a, b, tail @ ..] = self.mac;
        let port = self.port.filter(|_| is_plain)?;
        Some(Exit { head: u16::from_be_bytes([a, b]).into(), tail, mtu: self.mtu, port })
    }
}

/// Number of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HopId(pub u32);

/// A hop as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The interface to leave by.
    pub interface: InterfaceId,
    /// The next hop's MAC, if it is known.
    pub mac: Option<Mac>,
    /// The neighbour was asked and did not answer.
    pub failed: bool,
}

/// A hop whose MAC is known, in one word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved(u64);

impl Resolved {
    /// The interface to leave by.
    #[inline(always)]
    pub(crate) fn interface(self) -> InterfaceId {
        InterfaceId((self.0 >> INTERFACE_SHIFT) as u8)
    }

    /// Is it [marked](Hops::mark_used) already?
    #[inline(always)]
    pub(crate) fn is_marked(self) -> bool {
        self.0 & USED != 0
    }

    /// The MACs of a frame that leaves for it, receiver first: two stores.
    #[inline(always)]
    pub(crate) fn address(self, exit: &Exit, macs: &mut [u8; 12]) {
        let head = self.0 >> MAC_SHIFT << MAC_SHIFT | exit.head;
        let (first, second) = macs.split_at_mut(8);
        first.copy_from_slice(&head.to_be_bytes());
        second.copy_from_slice(&exit.tail);
    }
}

const RESOLVED: u64 = 1;
const FAILED: u64 = 2;
const WANTED: u64 = 4;
const USED: u64 = 8;
const INTERFACE_SHIFT: u32 = 8;
const MAC_SHIFT: u32 = 16;

/// All hops.
#[derive(Debug)]
pub struct Hops {
    words: Lines,
    book: Mutex<Book>,
    pending: AtomicBool,
    /// How often a hop has changed, or the mark of one that is in use was taken off.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Book {
    keys: Vec<(InterfaceId, Address)>,
    ids: HashMap<(InterfaceId, Address), HopId>,
}

impl Hops {
    /// A table for this many hops.
    pub fn new(capacity: usize) -> Self {
        Hops {
            words: Lines::new(capacity.div_ceil(WORDS)),
            book: Mutex::default(),
            pending: AtomicBool::new(false),
            changes: AtomicU64::new(0),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn word(&self, id: HopId) -> &AtomicU64 {
        let index = id.0 as usize;
        &self.words.line(index / WORDS)[index % WORDS]
    }

    /// The hop of a neighbour, made if it is new; `None` when the table is full. Takes a lock: not per packet.
    pub fn intern(&self, interface: InterfaceId, neighbour: Address) -> Option<HopId> {
        let mut book = self.book();
        if let Some(&id) = book.ids.get(&(interface, neighbour)) {
            return Some(id);
        }
        let id = HopId(u32::try_from(book.keys.len()).ok()?);
        if book.keys.len() >= self.words.len() * WORDS {
            return None;
        }
        book.keys.push((interface, neighbour));
        book.ids.insert((interface, neighbour), id);
        self.word(id).store(u64::from(interface.0) << INTERFACE_SHIFT, Relaxed);
        Some(id)
    }

    /// The hop of a neighbour, if there is one.
    pub fn find(&self, interface: InterfaceId, neighbour: Address) -> Option<HopId> {
        self.book().ids.get(&(interface, neighbour)).copied()
    }

    /// Interface and neighbour of a hop.
    pub fn key(&self, id: HopId) -> Option<(InterfaceId, Address)> {
        self.book().keys.get(id.0 as usize).copied()
    }

    /// Every hop, with its key.
    pub fn all(&self) -> Vec<(HopId, InterfaceId, Address)> {
        let book = self.book();
        (0..).zip(&book.keys).map(|(id, &(interface, neighbour))| (HopId(id), interface, neighbour)).collect()
    }

    /// How often a hop has changed, or the mark of one that is in use was taken off.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }

    /// What is known of a hop: one load.
    #[inline]
    pub fn get(&self, id: HopId) -> Hop {
        let word = self.word(id).load(Relaxed);
        let mac = (word & RESOLVED != 0).then(|| {
            let [_, _, mac @ ..] = (word >> MAC_SHIFT).to_be_bytes();
            mac
        });
        Hop { interface: InterfaceId((word >> INTERFACE_SHIFT) as u8), mac, failed: word & FAILED != 0 }
    }

    /// The hop of a [path](crate::real::Path)'s bits, if it is one and its MAC is known: one load. Bits of a path that leads
    /// to no hop are beyond the last hop's number.
    #[inline(always)]
    pub(crate) fn resolved(&self, path: u32) -> Option<Resolved> {
        let word = self.words.word(path as usize)?.load(Relaxed);
        (word & RESOLVED != 0).then_some(Resolved(word))
    }

    /// Marks a hop as in use, so that it is kept fresh. Writes only if it was not marked.
    #[inline]
    pub fn mark_used(&self, id: HopId) {
        let word = self.word(id);
        if word.load(Relaxed) & USED == 0 {
            word.fetch_or(USED, Relaxed);
        }
    }

    /// Asks for a hop's MAC. The director sees it by [`take_pending`](Hops::take_pending).
    pub fn want(&self, id: HopId) {
        if self.word(id).fetch_or(WANTED | USED, Relaxed) & WANTED == 0 {
            self.pending.store(true, Relaxed);
        }
    }

    /// Did a worker ask for a MAC since the last call?
    #[inline]
    pub fn take_pending(&self) -> bool {
        self.pending.load(Relaxed) && self.pending.swap(false, Relaxed)
    }

    /// The hops that workers asked for since the last call.
    pub fn take_wanted(&self) -> Vec<HopId> {
        self.take_flag(WANTED)
    }

    /// The hops that were in use since the last call.
    pub fn take_used(&self) -> Vec<HopId> {
        let used = self.take_flag(USED);
        if !used.is_empty() {
            self.changes.fetch_add(1, Release);
        }
        used
    }

    fn take_flag(&self, flag: u64) -> Vec<HopId> {
        let count = self.book().keys.len() as u32;
        (0..count).map(HopId).filter(|&id| self.word(id).fetch_and(!flag, Relaxed) & flag != 0).collect()
    }

    /// The neighbour's MAC is known, or has changed.
    pub fn resolve(&self, id: HopId, mac: Mac) {
        let [a, b, c, d, e, f] = mac;
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) << MAC_SHIFT;
        self.rewrite(id, |word| word & 0xff00 | word & USED | mac | RESOLVED);
    }

    /// The neighbour does not answer.
    pub fn fail(&self, id: HopId) {
        self.rewrite(id, |word| word & 0xff00 | FAILED);
    }

    /// The neighbour's MAC is not known any more.
    pub fn forget(&self, id: HopId) {
        self.rewrite(id, |word| word & 0xff00);
    }

    fn rewrite(&self, id: HopId, change: impl Fn(u64) -> u64) {
        // The closure always gives a value, so the update can not fail.
        let old = self.word(id).fetch_update(Relaxed, Relaxed, |word| Some(change(word))).unwrap_or_default();
        if change(old) != old {
            self.changes.fetch_add(1, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame must leave by the right interface with the right MAC, through every change of state.
    #[test]
    fn a_hop_keeps_its_interface_and_follows_its_mac() {
        let hops = Hops::new(8);
        let neighbour = Address::v4([10, 0, 0, 1]);
        let id = hops.intern(InterfaceId(3), neighbour).unwrap();
        assert_eq!(hops.intern(InterfaceId(3), neighbour), Some(id));
        assert_ne!(hops.intern(InterfaceId(4), neighbour), Some(id));
        assert_eq!(hops.get(id), Hop { interface: InterfaceId(3), mac: None, failed: false });

        hops.want(id);
        hops.want(id);
        assert!(hops.take_pending());
        assert!(!hops.take_pending());
        assert_eq!(hops.take_wanted(), [id]);
        assert_eq!(hops.take_wanted(), []);

        let mac = [2, 0xff, 0, 0xff, 0x80, 1];
        hops.resolve(id, mac);
        assert_eq!(hops.get(id), Hop { interface: InterfaceId(3), mac: Some(mac), failed: false });
        hops.mark_used(id);
        hops.fail(id);
        assert_eq!(hops.get(id), Hop { interface: InterfaceId(3), mac: None, failed: true });
        hops.resolve(id, [0; 6]);
        assert_eq!(hops.get(id).mac, Some([0; 6]));
    }

    /// A full table refuses new neighbours and keeps the old ones.
    #[test]
    fn a_full_table_says_so() {
        let hops = Hops::new(8);
        for n in 0..8 {
            assert!(hops.intern(InterfaceId(0), Address::v4([10, 0, 0, n])).is_some());
        }
        assert_eq!(hops.intern(InterfaceId(0), Address::v4([10, 0, 1, 0])), None);
        assert!(hops.intern(InterfaceId(0), Address::v4([10, 0, 0, 7])).is_some());
    }
}
