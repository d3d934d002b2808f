//! Real servers: an arena of records with stable numbers, shared by all workers and outliving configuration changes.
//!
//! Connections refer to a real server by its [`RealId`]. A removed server keeps its record while connections refer to
//! it, so its counts stay right and adding it again revives it (IPVS's "trash").
//!
//! Invariant: `active <= total`, both in one word, so no reader sees one without the other. They change when a
//! connection is made, changes between active and inactive, or ends: never per packet.

mod path;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::path::Path;

use crate::flow::{Address, Endpoint, Family};
use crate::lines::Lines;
use crate::time::Now;
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
    pub(super) const COUNTS: usize = 0; // active << 32 | total
    pub(super) const FLAGS: usize = 1; // path << 32 | flags
    pub(super) const WEIGHT: usize = 2; // last weight << 32 | weight
    pub(super) const THRESHOLDS: usize = 3; // upper << 32 | lower
    pub(super) const ADDRESS: usize = 4; // two words
    pub(super) const PORT: usize = 6; // mtu << 32 | method << 16 | port
    pub(super) const TEMPLATES: usize = 7; // persistence templates
    pub(super) const SOURCE: usize = 8; // two words: outer source address of a tunnel
    pub(super) const TUNNEL: usize = 10; // encapsulation
    pub(super) const LEARNED: usize = 11; // until, in seconds << 32 | mtu that a router told
    pub(super) const PLAIN: usize = 12; // source << 32 | RIP of IP in IP over IPv4, else 0
}

/// Seconds that a path MTU counts which a router told: the kernel's `ip_rt_mtu_expires`.
pub const LEARNED_S: u64 = 600;

const AVAILABLE: u64 = 1;
const OVERLOAD: u64 = 2;

/// All real servers.
#[derive(Debug)]
pub struct Arena {
    lines: Lines,
    capacity: usize,
    generation: Generation,
}

impl Arena {
    /// An arena for this many real servers.
    pub fn new(capacity: usize, generation: Generation) -> Self {
        let arena = Arena { lines: Lines::new((capacity + 1) * 2), capacity, generation };
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

    /// One record. Panics beyond the end.
    #[inline(always)]
    pub fn get(&self, id: RealId) -> Real<'_> {
        Real { words: self.lines.pair(id.0 as usize * 2), generation: self.generation }
    }
}

/// One real server's record.
#[derive(Clone, Copy, Debug)]
pub struct Real<'a> {
    words: &'a [AtomicU64; 16],
    generation: Generation,
}

/// Whether a real server is in its list, and the way to it, as they were at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach(u64);

impl Reach {
    /// Is it in its service's list?
    #[inline(always)]
    pub(crate) fn is_available(self) -> bool {
        self.0 & AVAILABLE != 0
    }

    /// The way to it, as a [path](Path)'s bits.
    #[inline(always)]
    pub(crate) fn path(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Numbers of connections of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In an active state.
    pub active: u32,
    /// Active and inactive.
    pub total: u32,
}

impl Counts {
    /// As LVS lists them: connections in an inactive state.
    pub fn inactive(self) -> u32 {
        self.total.saturating_sub(self.active)
    }
}

impl Real<'_> {
    /// Writes a new record: no connections, not available yet. Not for one that connections refer to.
    pub fn reset(&self, settings: &Settings) {
        self.words[word::COUNTS].store(0, Relaxed);
        self.words[word::TEMPLATES].store(0, Relaxed);
        self.words[word::FLAGS].store(u64::from(Path::NoRoute.bits()) << 32, Relaxed);
        let address = settings.endpoint.address.bits();
        self.words[word::ADDRESS].store((address >> 64) as u64, Relaxed);
        self.words[word::ADDRESS + 1].store(address as u64, Relaxed);
        self.words[word::PORT].store(settings.endpoint.port.into(), Relaxed);
        let weight = u64::from(settings.weight as u32);
        self.words[word::WEIGHT].store(weight << 32 | weight, Relaxed);
        self.words[word::THRESHOLDS].store(0, Relaxed);
        self.words[word::LEARNED].store(0, Relaxed);
        self.set(settings);
    }

    /// Applies an operator's settings to a record in use. The endpoint is its key and does not change.
    pub fn set(&self, settings: &Settings) {
        let new = u64::from(settings.weight as u32);
        self.update(word::WEIGHT, |old| if new == 0 { old & !0xffff_ffff } else { new << 32 | new });
        self.update(word::PORT, |old| old & !0x00ff_0000 | u64::from(settings.method as u8) << 16);
        self.words[word::TUNNEL].store(settings.tunnel.bits().into(), Relaxed);
        self.note_plain_tunnel();
        let thresholds = u64::from(settings.upper) << 32 | u64::from(settings.lower);
        let before = self.words[word::THRESHOLDS].swap(thresholds, Relaxed);
        match self.generation {
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
        let weight = u64::from(weight as u32);
        self.words[word::WEIGHT].store(weight << 32 | weight, Relaxed);
    }

    fn update(&self, word: usize, change: impl Fn(u64) -> u64) -> u64 {
        // The closure always gives a value, so the update can not fail.
        self.words[word].fetch_update(Relaxed, Relaxed, |old| Some(change(old))).unwrap_or_default()
    }

    /// Weight; 0 means quiesced.
    #[inline]
    pub fn weight(&self) -> i32 {
        self.words[word::WEIGHT].load(Relaxed) as u32 as i32
    }

    /// The last weight that was not 0 (or the one that the server was added with).
    #[inline]
    pub fn last_weight(&self) -> i32 {
        (self.words[word::WEIGHT].load(Relaxed) >> 32) as u32 as i32
    }

    /// Connections now.
    #[inline]
    pub fn counts(&self) -> Counts {
        let word = self.words[word::COUNTS].load(Relaxed);
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
    }

    /// Whether it is in its list, and the way to it: one load.
    #[inline(always)]
    pub(crate) fn reach(&self) -> Reach {
        Reach(self.words[word::FLAGS].load(Relaxed))
    }

    /// At its upper threshold?
    #[inline]
    pub fn is_overloaded(&self) -> bool {
        self.words[word::FLAGS].load(Relaxed) & OVERLOAD != 0
    }

    /// The way to it.
    #[inline]
    pub fn path(&self) -> Path {
        Path::from_bits((self.words[word::FLAGS].load(Relaxed) >> 32) as u32)
    }

    /// Sets the way to it: next hop, largest IP packet, and for tunnels the outer source address. What was learned of
    /// another way is forgotten.
    pub fn set_path(&self, path: Path, mtu: u32, source: Option<Address>) {
        if (self.path(), self.mtu()) != (path, mtu as usize) {
            self.words[word::LEARNED].store(0, Relaxed);
        }
        let source = source.map_or(0, Address::bits);
        self.words[word::SOURCE].store((source >> 64) as u64, Relaxed);
        self.words[word::SOURCE + 1].store(source as u64, Relaxed);
        self.note_plain_tunnel();
        self.update(word::PORT, |old| old & 0xffff_ffff | u64::from(mtu) << 32);
        self.update(word::FLAGS, |old| old & 0xffff_ffff | u64::from(path.bits()) << 32);
    }

    /// Largest IP packet on the way to it, in bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        (self.words[word::PORT].load(Relaxed) >> 32) as usize
    }

    /// Largest IP packet on the way to it as far as is known now: a router may have told of a narrow place.
    #[inline]
    pub fn path_mtu(&self, now: Now) -> usize {
        let word = self.words[word::LEARNED].load(Relaxed);
        let mtu = self.mtu();
        if word == 0 || now.millis() / 1000 >= word >> 32 { mtu } else { mtu.min(word as u32 as usize) }
    }

    /// A router tells of a narrow place on the way to it, which counts for [`LEARNED_S`] seconds. Whatever it says, the
    /// way is not taken for wider than it was, nor for narrower than `least`.
    pub fn learn_mtu(&self, mtu: u32, least: u32, now: Now) {
        let mtu = mtu.max(least);
        if (mtu as usize) < self.path_mtu(now) {
            let until = now.millis() / 1000 + LEARNED_S;
            self.words[word::LEARNED].store(until << 32 | u64::from(mtu), Relaxed);
        }
    }

    /// The encapsulation on the way to it, for connections that it serves by [`Method::Tun`].
    #[inline]
    pub fn tunnel(&self) -> Tunnel {
        Tunnel::from_bits(self.words[word::TUNNEL].load(Relaxed) as u32)
    }

    /// The director's address that tunnels to it start from.
    #[inline]
    pub fn source(&self) -> Option<Address> {
        let bits = |index: usize| u128::from(self.words[index].load(Relaxed));
        let source = bits(word::SOURCE) << 64 | bits(word::SOURCE + 1);
        (source != 0).then_some(Address::from_bits(source))
    }

    /// The ends of an IP-in-IP tunnel to it, if it is one of IPv4: source and destination.
    #[inline(always)]
    pub(crate) fn plain_tunnel(&self) -> Option<(u32, u32)> {
        let ends = self.words[word::PLAIN].load(Relaxed);
        (ends != 0).then_some(((ends >> 32) as u32, ends as u32))
    }

    fn note_plain_tunnel(&self) {
        let server = self.endpoint().address;
        let source = self.source().filter(|source| [*source, server].iter().all(|end| end.family() == Family::Inet));
        let ends = source.filter(|_| self.tunnel() == Tunnel::Ipip);
        let ends = ends.map_or(0, |source| u64::from(source.low32()) << 32 | u64::from(server.low32()));
        self.words[word::PLAIN].store(ends, Relaxed);
    }

    /// A connection was made.
    pub fn bind(&self) {
        self.bind_as(false);
    }

    /// The same of one that its first packet made active, or not: one step.
    #[inline(always)]
    pub fn bind_as(&self, active: bool) {
        let one = u64::from(active) << 32 | 1;
        let total = self.words[word::COUNTS].fetch_add(one, Relaxed) as u32 + 1;
        let (upper, low) = self.stored_thresholds();
        match self.generation {
            Generation::New if total == upper => self.set_overload(total >= low),
            Generation::New => {}
            Generation::Old if upper != 0 && total >= upper => self.set_overload(true),
            Generation::Old => {}
        }
    }

    /// A connection ended; `active` says in which kind of state it was.
    pub fn unbind(&self, active: bool) {
        let one = if active { 1 << 32 | 1 } else { 1 };
        let before = self.words[word::COUNTS].fetch_sub(one, Relaxed) as u32;
        let (upper, low) = self.stored_thresholds();
        match self.generation {
            Generation::New if before == low => self.set_overload(upper != 0 && before > upper),
            Generation::New => {}
            Generation::Old => self.judge_old(before.wrapping_sub(1)),
        }
    }

    /// A connection changed between active and inactive.
    pub fn set_active(&self, active: bool) {
        match active {
            true => self.words[word::COUNTS].fetch_add(1 << 32, Relaxed),
            false => self.words[word::COUNTS].fetch_sub(1 << 32, Relaxed),
        };
    }

    /// Persistence templates that lead to it.
    pub fn templates(&self) -> u32 {
        self.words[word::TEMPLATES].load(Relaxed) as u32
    }

    /// A template was made.
    pub fn bind_template(&self) {
        self.words[word::TEMPLATES].fetch_add(1, Relaxed);
    }

    /// A template ended.
    pub fn unbind_template(&self) {
        self.words[word::TEMPLATES].fetch_sub(1, Relaxed);
    }

    /// Does nothing refer to it, neither a connection nor a template?
    pub fn is_idle(&self) -> bool {
        self.counts().total == 0 && self.templates() == 0
    }

    /// Upper threshold, and the lower one in force: three quarters of the upper one when none is set.
    #[inline(always)]
    fn stored_thresholds(&self) -> (u32, u32) {
        let (upper, lower) = self.thresholds();
        (upper, if lower == 0 { upper - (upper >> 2) } else { lower })
    }

    fn set_overload(&self, overload: bool) {
        match overload {
            true => self.words[word::FLAGS].fetch_or(OVERLOAD, Relaxed),
            false => self.words[word::FLAGS].fetch_and(!OVERLOAD, Relaxed),
        };
    }

    fn judge_old(&self, total: u32) {
        let (upper, lower) = self.thresholds();
        let clear = match (upper, lower) {
            (_, 1..) => total < lower,
            (1.., 0) => u64::from(total) * 4 < u64::from(upper) * 3,
            (0, 0) => true,
        };
        if clear {
            self.set_overload(false);
        }
    }

    fn thresholds_changed(&self) {
        let (upper, low) = self.stored_thresholds();
        let total = self.counts().total;
        if upper == 0 || total < low {
            self.set_overload(false);
        } else if total >= upper {
            self.set_overload(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::HopId;

    fn settings(upper: u32, lower: u32) -> Settings {
        let endpoint = Endpoint::new(Address::v4([10, 0, 0, 1]), 80);
        Settings { endpoint, method: Method::Nat, tunnel: Tunnel::Ipip, weight: 1, upper, lower }
    }

    fn overload_after(generation: Generation, upper: u32, lower: u32, steps: &[i32]) -> Vec<bool> {
        let arena = Arena::new(1, generation);
        let real = arena.get(RealId(0));
        real.reset(&settings(upper, lower));
        let step = |&step: &i32| {
            for _ in 0..step.abs() {
                if step > 0 { real.bind() } else { real.unbind(false) }
            }
            real.is_overloaded()
        };
        steps.iter().map(step).collect()
    }

    /// IPVS-REFERENCE 1.4: with an upper threshold of 4 the door closes at 4 and opens again at 2.
    #[test]
    fn thresholds_close_and_open_at_the_exact_crossing() {
        assert_eq!(
            overload_after(Generation::New, 4, 0, &[3, 1, 1, -1, -1, -1]),
            [false, true, true, true, true, false]
        );
        assert_eq!(overload_after(Generation::New, 1, 0, &[1, -1, 1]), [true, false, true]);
        assert_eq!(overload_after(Generation::New, 0, 0, &[100, -100]), [false, false]);
        assert_eq!(overload_after(Generation::New, 10, 2, &[10, -8, -1]), [true, true, false]);
    }

    /// Kernels before 2026 opened the door below three quarters, judged at every change.
    #[test]
    fn the_old_generation_judges_by_three_quarters() {
        assert_eq!(overload_after(Generation::Old, 4, 0, &[3, 1, -1, -1]), [false, true, true, false]);
        assert_eq!(overload_after(Generation::Old, 5, 0, &[5, -1, -1]), [true, true, false]);
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

    /// Path, MTU and tunnel source share words with method and flags: none may disturb another.
    #[test]
    fn settings_and_path_do_not_disturb_each_other() {
        let arena = Arena::new(1, Generation::New);
        let real = arena.get(RealId(0));
        real.reset(&settings(0, 0));
        assert_eq!(real.path(), Path::NoRoute);
        real.set_available(true);
        let source = Address::from_bits(0x2001_0db8 << 96 | 1);
        real.set_path(Path::Hop(HopId(9)), 9000, Some(source));
        real.set(&Settings { method: Method::Tun, weight: 3, ..settings(5, 1) });
        assert_eq!((real.path(), real.mtu(), real.source()), (Path::Hop(HopId(9)), 9000, Some(source)));
        assert_eq!((real.method(), real.weight(), real.endpoint().port), (Method::Tun, 3, 80));
        assert!(real.is_available());
        real.set_path(Path::Local, 1500, None);
        assert_eq!((real.path(), real.source(), real.method()), (Path::Local, None, Method::Tun));
    }

    /// Editing a server's tunnel must reach its record, and a record that is used again must forget the one before.
    #[test]
    fn the_tunnel_is_set_and_reset() {
        let arena = Arena::new(1, Generation::New);
        let real = arena.get(RealId(0));
        let gre = Tunnel::Gre { checksum: true };
        real.reset(&Settings { tunnel: gre, ..settings(0, 0) });
        assert_eq!(real.tunnel(), gre);
        real.set(&settings(0, 0));
        assert_eq!(real.tunnel(), Tunnel::Ipip);
    }

    /// A path MTU that a router told counts for its time and on its way only; it never widens a way, and what nobody
    /// can need is not believed.
    #[test]
    fn a_learned_mtu_is_bounded_and_forgotten() {
        let arena = Arena::new(1, Generation::New);
        let real = arena.get(RealId(0));
        real.reset(&settings(0, 0));
        let way = |mtu| real.set_path(Path::Hop(HopId(1)), mtu, None);
        let at = Now::from_secs;
        way(1500);
        real.learn_mtu(9000, 552, at(10));
        assert_eq!(real.path_mtu(at(10)), 1500);
        real.learn_mtu(1400, 552, at(10));
        real.learn_mtu(1450, 552, at(300));
        way(1500);
        assert_eq!((real.path_mtu(at(10)), real.path_mtu(at(609)), real.mtu()), (1400, 1400, 1500));
        assert_eq!(real.path_mtu(at(610)), 1500, "the later and wider word did not make it last");
        real.learn_mtu(0, 552, at(700));
        assert_eq!(real.path_mtu(at(700)), 552);
        way(1400);
        assert_eq!(real.path_mtu(at(700)), 1400, "another way");
        real.learn_mtu(600, 552, at(700));
        real.reset(&settings(0, 0));
        way(1500);
        assert_eq!(real.path_mtu(at(700)), 1500, "another server");
    }
}
