//! Real servers: an arena of records with stable numbers, shared by all workers and outliving configuration changes.
//!
//! Connections refer to a real server by its [`RealId`]. A removed server keeps its record while connections refer to
//! it, so its counts stay right and adding it again revives it (IPVS's "trash").
//!
//! Invariant: `active <= total`, both in one word, so no reader sees one without the other. They change when a
//! connection is made, changes between active and inactive, or ends: never per packet.
//!
//! What a scheduler asks of every server stands apart from the records, in two columns: the counts, and the
//! [open weights](Real::open_weight). A look at many servers reads 16 bytes of each, eight servers a line, and who counts a
//! connection disturbs nobody who reads a record or a weight.

mod counts;
mod path;
mod way;

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

pub use self::counts::Counts;
pub use self::path::Path;
pub use self::way::LEARNED_S;

use crate::flow::{Address, Endpoint};
use crate::lines::{Columns, Lines, WORDS};
use crate::tunnel::Tunnel;

/// Number of a real server's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealId(pub u32);

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// Rewrite the destination, and the source of the answers (masquerading).
    Nat = 0,
    /// Wrap the packet into another IP header (tunnelling).
    Tun = 2,
    /// Change only the frame's MAC addresses (direct routing).
    Dr = 3,
    /// There is no real server: the packet is routed to its own destination (`cache_bypass`).
    Bypass = 4,
}

impl Method {
    /// From IPVS's number for it (the low three bits of a connection's flags).
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 7 {
            0 => Some(Method::Nat),
            2 => Some(Method::Tun),
            3 => Some(Method::Dr),
            4 => Some(Method::Bypass),
            _ => None,
        }
    }
}

/// What an operator sets of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// RIP and port; port 0 keeps the client's.
    pub endpoint: Endpoint,
    /// Forwarding method.
    pub method: Method,
    /// How packets are wrapped, if the method is [`Method::Tun`].
    pub tunnel: Tunnel,
    /// Weight, 0 quiesces.
    pub weight: i32,
    /// Upper connection threshold, 0 for none.
    pub upper: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    pub lower: u32,
}

/// Which generation of the kernel's counting rules applies (IPVS changed them in 2026).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Overhead counts 257 for an active connection; thresholds act at the exact crossing.
    #[default]
    New,
    /// Overhead counts 256 for an active connection; thresholds are judged at every change.
    Old,
}

/// The words of a record: two cache lines. The first one is all that a packet on its way needs.
mod word {
    pub(super) const FLAGS: usize = 1; // path << 32 | flags
    pub(super) const LAST_WEIGHT: usize = 2;
    pub(super) const THRESHOLDS: usize = 3; // upper << 32 | lower
    pub(super) const ADDRESS: usize = 4; // two words
    pub(super) const PORT: usize = 6; // mtu << 32 | method << 16 | port
    pub(super) const TEMPLATES: usize = 7; // persistence templates
    pub(super) const SOURCE: usize = 8; // two words: outer source address of a tunnel
    pub(super) const TUNNEL: usize = 10; // encapsulation
    pub(super) const LEARNED: usize = 11; // until, in seconds << 32 | mtu that a router told
    pub(super) const PLAIN: usize = 12; // source << 32 | RIP of IP in IP over IPv4, else 0
}

const AVAILABLE: u64 = 1;

/// All real servers.
#[derive(Debug)]
pub struct Arena {
    lines: Lines,
    /// How often a way to one of them, or whether it is in its list, has changed.
    changes: AtomicU64,
    /// Left the counts, active << 32 | total; right the open weights.
    columns: Box<Lines>,
    capacity: usize,
    generation: Generation,
}

impl Arena {
    /// An arena for this many real servers.
    pub fn new(capacity: usize, generation: Generation) -> Self {
        let columns = Box::new(Lines::new((capacity + 1).div_ceil(WORDS / 2).next_power_of_two()));
        let (lines, changes) = (Lines::new((capacity + 1) * 2), AtomicU64::new(0));
        let arena = Arena { lines, changes, columns, capacity, generation };
        let nobody = arena.get(arena.nobody());
        let endpoint = Endpoint::new(Address::v4([0; 4]), 0);
        let tunnel = Tunnel::default();
        nobody.reset(&Settings { endpoint, method: Method::Bypass, tunnel, weight: 1, upper: 0, lower: 0 });
        nobody.set_available(true);
        arena
    }

    /// The record that connections without a real server have: behind the others, always available, never in a list.
    #[inline]
    pub fn nobody(&self) -> RealId {
        RealId(self.capacity as u32)
    }

    /// How many records there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The counting rules in force.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How often a way to a server, or whether one is in its list, has changed.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }

    /// One record. Panics beyond the end.
    #[inline(always)]
    pub fn get(&self, id: RealId) -> Real<'_> {
        Real { words: self.lines.pair(id.0 as usize * 2), arena: self, id }
    }

    /// What schedulers ask of every server.
    #[inline(always)]
    pub(crate) fn loads(&self) -> Loads<'_> {
        Loads(self.columns.columns())
    }
}

/// Counts and open weights of all real servers, at hand for a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loads<'a>(Columns<'a>);

impl Loads<'_> {
    /// Numbers of connections: the active ones in the upper half, all in the lower one. Of a number that no server has, those
    /// of another one.
    #[inline(always)]
    pub(crate) fn counts(self, id: RealId) -> u64 {
        self.0.row(id.0 as usize).0.load(Relaxed)
    }

    /// As [`Real::open_weight`].
    #[inline(always)]
    pub(crate) fn open_weight(self, id: RealId) -> i64 {
        self.0.row(id.0 as usize).1.load(Relaxed) as i64
    }
}

/// One real server's record.
#[derive(Clone, Copy, Debug)]
pub struct Real<'a> {
    words: &'a [AtomicU64; 16],
    arena: &'a Arena,
    id: RealId,
}

impl Real<'_> {
    /// Its counts: active << 32 | total.
    #[inline(always)]
    fn counts_word(&self) -> &AtomicU64 {
        self.arena.columns.columns().row(self.id.0 as usize).0
    }

    /// Its open weight.
    #[inline(always)]
    fn open_word(&self) -> &AtomicU64 {
        self.arena.columns.columns().row(self.id.0 as usize).1
    }

    /// Writes a new record: no connections, not available yet. Not for one that connections refer to.
    pub fn reset(&self, settings: &Settings) {
        self.counts_word().store(0, Relaxed);
        self.words[word::TEMPLATES].store(0, Relaxed);
        self.words[word::FLAGS].store(u64::from(Path::NoRoute.bits()) << 32, Relaxed);
        let address = settings.endpoint.address.bits();
        self.words[word::ADDRESS].store((address >> 64) as u64, Relaxed);
        self.words[word::ADDRESS + 1].store(address as u64, Relaxed);
        self.words[word::PORT].store(settings.endpoint.port.into(), Relaxed);
        self.open_word().store(0, Relaxed);
        self.set_added_weight(settings.weight);
        self.words[word::THRESHOLDS].store(0, Relaxed);
        self.words[word::LEARNED].store(0, Relaxed);
        self.set(settings);
        self.has_changed();
    }

    /// Applies an operator's settings to a record in use. The endpoint is its key and does not change.
    pub fn set(&self, settings: &Settings) {
        self.set_weight(settings.weight);
        if settings.weight != 0 {
            self.words[word::LAST_WEIGHT].store(settings.weight as u64, Relaxed);
        }
        self.update(word::PORT, |old| old & !0x00ff_0000 | u64::from(settings.method as u8) << 16);
        self.words[word::TUNNEL].store(settings.tunnel.bits().into(), Relaxed);
        self.note_plain_tunnel();
        let thresholds = u64::from(settings.upper) << 32 | u64::from(settings.lower);
        let before = self.words[word::THRESHOLDS].swap(thresholds, Relaxed);
        match self.arena.generation {
            Generation::New if before != thresholds => self.thresholds_changed(),
            Generation::New => {}
            // An edit only opened the door; closing it was left to the next connection.
            Generation::Old if settings.upper == 0 || u64::from(settings.upper) > before >> 32 => {
                self.set_overload(false);
            }
            Generation::Old => {}
        }
    }

    /// The last weight is also set to 0 by adding a server with weight 0 (unlike by editing one).
    pub fn set_added_weight(&self, weight: i32) {
        self.set_weight(weight);
        self.words[word::LAST_WEIGHT].store(weight as u64, Relaxed);
    }

    fn update(&self, word: usize, change: impl Fn(u64) -> u64) -> u64 {
        // The closure always gives a value, so the update can not fail.
        self.words[word].fetch_update(Relaxed, Relaxed, |old| Some(change(old))).unwrap_or_default()
    }

    /// Weight; 0 means quiesced.
    #[inline]
    pub fn weight(&self) -> i32 {
        let open = self.open_weight();
        (if open < 0 { !open } else { open }) as i32
    }

    /// The weight as far as the door is open: of a server at its upper threshold it is the complement of the weight, which is
    /// below 0. So one comparison tells whether a new connection may go there.
    #[inline(always)]
    pub fn open_weight(&self) -> i64 {
        self.open_word().load(Relaxed) as i64
    }

    /// The door stays as it is. There is no weight below 0, as there is none in IPVS.
    fn set_weight(&self, weight: i32) {
        let weight = u64::from(weight.max(0) as u32);
        self.change_open(|old| if (old as i64) < 0 { !weight } else { weight });
    }

    fn change_open(&self, change: impl Fn(u64) -> u64) {
        // The closure always gives a value, so the update can not fail.
        let _ = self.open_word().fetch_update(Relaxed, Relaxed, |old| Some(change(old)));
    }

    /// The last weight that was not 0 (or the one that the server was added with).
    #[inline]
    pub fn last_weight(&self) -> i32 {
        self.words[word::LAST_WEIGHT].load(Relaxed) as i32
    }

    /// Connections now.
    #[inline]
    pub fn counts(&self) -> Counts {
        let word = self.counts_word().load(Relaxed);
        Counts { active: (word >> 32) as u32, total: word as u32 }
    }

    /// RIP and port.
    #[inline]
    pub fn endpoint(&self) -> Endpoint {
        let bits = |index: usize| u128::from(self.words[index].load(Relaxed));
        let address = Address::from_bits(bits(word::ADDRESS) << 64 | bits(word::ADDRESS + 1));
        Endpoint::new(address, self.words[word::PORT].load(Relaxed) as u16)
    }

    /// Forwarding method for new connections.
    #[inline]
    pub fn method(&self) -> Method {
        Method::from_bits((self.words[word::PORT].load(Relaxed) >> 16) as u8).unwrap_or(Method::Dr)
    }

    /// Upper and lower threshold as set.
    #[inline]
    pub fn thresholds(&self) -> (u32, u32) {
        let word = self.words[word::THRESHOLDS].load(Relaxed);
        ((word >> 32) as u32, word as u32)
    }

    /// Is it in its service's list (and not removed)?
    #[inline]
    pub fn is_available(&self) -> bool {
        self.words[word::FLAGS].load(Relaxed) & AVAILABLE != 0
    }

    /// It joined its service's list, or left it.
    pub fn set_available(&self, available: bool) {
        match available {
            true => self.words[word::FLAGS].fetch_or(AVAILABLE, Relaxed),
            false => self.words[word::FLAGS].fetch_and(!AVAILABLE, Relaxed),
        };
        self.has_changed();
    }

    /// The way to it, or whether it is in its list, is another one since this moment.
    fn has_changed(&self) {
        self.arena.changes.fetch_add(1, Release);
    }

    /// At its upper threshold?
    #[inline]
    pub fn is_overloaded(&self) -> bool {
        self.open_weight() < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings(upper: u32, lower: u32) -> Settings {
        let endpoint = Endpoint::new(Address::v4([10, 0, 0, 1]), 80);
        Settings { endpoint, method: Method::Nat, tunnel: Tunnel::Ipip, weight: 1, upper, lower }
    }

    /// Editing a weight to 0 remembers the last one (maglev needs it); adding with 0 does not.
    #[test]
    fn the_last_weight_survives_quiescing() {
        let arena = Arena::new(2, Generation::New);
        let real = arena.get(RealId(1));
        real.reset(&Settings { weight: 7, ..settings(0, 0) });
        real.set(&Settings { weight: 0, ..settings(0, 0) });
        assert_eq!((real.weight(), real.last_weight()), (0, 7));
        real.set_added_weight(0);
        assert_eq!((real.weight(), real.last_weight()), (0, 0));
    }
}
