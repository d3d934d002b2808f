//! The way to a real server: its next hop, how wide it is, and the tunnel that leads there.
//!
//! Invariant: whether the server is in its list and where it is are one word, so that a packet asks once; what was learned of
//! one way does not count for another. Not here: who finds the way ([`Path`]).

use std::sync::atomic::Ordering::Relaxed;

use super::{AVAILABLE, Path, Real, word};
use crate::flow::{Address, Family};
use crate::time::Now;
use crate::tunnel::Tunnel;

/// Seconds that a path MTU counts which a router told: the kernel's `ip_rt_mtu_expires`.
pub const LEARNED_S: u64 = 600;

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

impl Real<'_> {
    /// Whether it is in its list, and the way to it: one load.
    #[inline(always)]
    pub(crate) fn reach(&self) -> Reach {
        Reach(self.words[word::FLAGS].load(Relaxed))
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
        self.has_changed();
    }

    /// Largest IP packet on the way to it, in bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        (self.words[word::PORT].load(Relaxed) >> 32) as usize
    }

    /// Has a router told of a narrow place on the way to it, at any time?
    #[inline(always)]
    pub(crate) fn has_learned(&self) -> bool {
        self.words[word::LEARNED].load(Relaxed) != 0
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

    /// The encapsulation on the way to it, for connections that it serves by [`Method::Tun`](super::Method::Tun).
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

    pub(super) fn note_plain_tunnel(&self) {
        let server = self.endpoint().address;
        let source = self.source().filter(|source| [*source, server].iter().all(|end| end.family() == Family::Inet));
        let ends = source.filter(|_| self.tunnel() == Tunnel::Ipip);
        let ends = ends.map_or(0, |source| u64::from(source.low32()) << 32 | u64::from(server.low32()));
        self.words[word::PLAIN].store(ends, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::super::{Arena, Generation, Method, RealId, Settings};
    use super::*;
    use crate::hop::HopId;

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
