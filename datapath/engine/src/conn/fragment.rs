//! Whom later fragments belong to.
//!
//! Only the first fragment of a packet has ports. When it passes, (source, destination, protocol, identification) is
//! noted with its [`Owner`]; later fragments follow the note, on whatever queue they arrive.
//!
//! Invariant: fixed memory, shared by all workers, no locks. A note is two words: its data, and the 64-bit hash of the
//! packet's key xor the data. A note that is half written by one worker and half by another fits no key, so an owner
//! is never taken for another packet's; who follows a note to a connection checks that one's addresses as well. A full
//! bucket gives up its oldest note.
//!
//! Not here: fragments that arrive before their first one. They wait in their worker, which asks again when
//! [`Fragments::notes`] has moved.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crate::flow::{Endpoint, Flow, HashKey};
use crate::lines::{Lines, WORDS};
use crate::real::RealId;
use crate::time::Now;

use super::ConnId;

/// Notes that are kept; a packet is in fragments for milliseconds, so this covers some ten thousand a second.
const NOTES: usize = 1 << 15;
/// Notes that share a bucket, which is a cache line.
const WAYS: usize = WORDS / 2;
const BUCKETS: usize = NOTES / WAYS;
/// A note counts for so long. A sender may use an identification again after 65,536 packets, so longer is not safer;
/// fragments of one packet are apart by far less.
const LIFE_MS: u32 = 4000;
/// Workers look at their clocks at different moments: a note may come from so far ahead.
const AHEAD_MS: u32 = 1000;

/// Whom a packet in fragments belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A connection.
    Connection(ConnId),
    /// A real server that was chosen for this packet alone: there is no connection (one-packet scheduling).
    Once(RealId),
}

impl Owner {
    /// Connections leave this bit free: bit 31 is the family, the index lies below it.
    const ONCE: u32 = 1 << 30;

    fn pack(self) -> u32 {
        match self {
            Owner::Connection(conn) => conn.0,
            Owner::Once(real) => real.0 | Self::ONCE,
        }
    }

    fn unpack(word: u32) -> Self {
        match word & Self::ONCE {
            0 => Owner::Connection(ConnId(word)),
            _ => Owner::Once(RealId(word & !Self::ONCE)),
        }
    }
}

/// What the fragments of one packet have in common, as a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketKey(u64);

/// Notes on packets in fragments.
#[derive(Debug)]
pub struct Fragments {
    buckets: Lines,
    notes: AtomicU64,
    key: HashKey,
}

impl Fragments {
    /// An empty book of notes, hashed under this key.
    pub fn new(key: HashKey) -> Self {
        Fragments { buckets: Lines::new(BUCKETS), notes: AtomicU64::new(0), key }
    }

    /// The key of the packet with this identification; ports of the flow do not count.
    #[inline]
    pub fn key(&self, flow: &Flow, id: u32) -> PacketKey {
        // The identification takes the place of the ports.
        let src = Endpoint::new(flow.src.address, id as u16);
        let dst = Endpoint::new(flow.dst.address, (id >> 16) as u16);
        PacketKey(self.key.hash(&Flow { protocol: flow.protocol, src, dst }).0)
    }

    #[inline]
    fn bucket(&self, key: PacketKey) -> &[AtomicU64; WORDS] {
        self.buckets.line(key.0 as usize % BUCKETS)
    }

    /// How long ago a note was made, less what clocks may differ; `None` if it does not count any more.
    #[inline]
    fn age(data: u64, now: Now) -> Option<u32> {
        let age = (now.millis() as u32).wrapping_add(AHEAD_MS).wrapping_sub(data as u32);
        (age < LIFE_MS + AHEAD_MS).then_some(age)
    }

    /// Notes the owner of a packet, when its first fragment passes.
    pub fn note(&self, flow: &Flow, id: u32, owner: Owner, now: Now) {
        let key = self.key(flow, id);
        let (notes, _) = self.bucket(key).as_chunks::<2>();
        let read = |[data, check]: &[AtomicU64; 2]| (data.load(Relaxed), check.load(Relaxed));
        // The packet's own note if there is one (its first fragment came twice), else the one that counts least.
        let worth = |note: &&[AtomicU64; 2]| match read(note) {
            (data, check) if data ^ check == key.0 => u32::MAX,
            (0, 0) => u32::MAX - 1, // never used
            (data, _) => Self::age(data, now).unwrap_or(u32::MAX - 1),
        };
        let data = u64::from(owner.pack()) << 32 | u64::from(now.millis() as u32);
        if let Some([first, second]) = notes.iter().max_by_key(worth) {
            first.store(data, Relaxed);
            second.store(data ^ key.0, Relaxed);
        }
        // Who sees the count move sees the note.
        self.notes.fetch_add(1, Release);
    }

    /// The owner of the packet with this key, if its first fragment has passed.
    #[inline]
    pub fn find(&self, key: PacketKey, now: Now) -> Option<Owner> {
        let (notes, _) = self.bucket(key).as_chunks::<2>();
        notes.iter().find_map(|[data, check]| {
            let data = data.load(Relaxed);
            let ours = data ^ check.load(Relaxed) == key.0;
            (ours && Self::age(data, now).is_some()).then(|| Owner::unpack((data >> 32) as u32))
        })
    }

    /// How many notes were made so far. A search that failed need not be repeated while this stands still.
    #[inline]
    pub fn notes(&self) -> u64 {
        self.notes.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Address, Protocol};

    const CONN: Owner = Owner::Connection(ConnId(5));

    fn book() -> (Fragments, Flow) {
        let end = |last| Endpoint::new(Address::v4([10, 0, 0, last]), 0);
        (Fragments::new(HashKey::from_bytes([9; 32])), Flow { protocol: Protocol::UDP, src: end(1), dst: end(2) })
    }

    /// A later fragment must find its packet's owner, and only within its time and by its own identification.
    #[test]
    fn later_fragments_follow_the_first() {
        let (fragments, flow) = book();
        let now = Now::from_secs(100);
        let find = |flow: &Flow, id, now| fragments.find(fragments.key(flow, id), now);
        assert_eq!(find(&flow, 77, now), None);
        fragments.note(&flow, 77, CONN, now);
        assert_eq!(find(&flow, 77, now), Some(CONN));
        assert_eq!(find(&flow, 77, now.plus_millis(3999)), Some(CONN));
        assert_eq!(find(&flow, 77, now.plus_millis(4000)), None);
        let behind = Now::from_millis(now.millis() - 1000);
        assert_eq!(find(&flow, 77, behind), Some(CONN), "a worker whose clock is behind");
        assert_eq!(find(&flow, 77, Now::from_millis(behind.millis() - 1)), None);
        assert_eq!(find(&flow, 78, now), None);
        assert_eq!(find(&flow, 77 | 1 << 16, now), None, "all 32 bits of IPv6's identification count");
        assert_eq!(find(&flow.reversed(), 77, now), None);
        let with_ports = Flow { src: Endpoint::new(flow.src.address, 9), ..flow };
        assert_eq!(fragments.key(&with_ports, 77), fragments.key(&flow, 77), "only the first one has ports");
    }

    /// The clock of the notes has 32 bits: after 49 days it wraps, and nothing may be lost or revived there.
    #[test]
    fn the_clock_wraps() {
        let (fragments, flow) = book();
        let wrap = Now::from_millis(u64::from(u32::MAX) - 10);
        fragments.note(&flow, 1, CONN, wrap);
        let key = fragments.key(&flow, 1);
        assert_eq!(fragments.find(key, wrap.plus_millis(20)), Some(CONN));
        assert_eq!(fragments.find(key, wrap.plus_millis(5000)), None);
    }

    /// What owns a packet comes out as it went in, also at the ends of its range.
    #[test]
    fn owners_keep_their_kind() {
        let (fragments, flow) = book();
        let now = Now::from_secs(1);
        let ends = [0, 1, (1 << 30) - 1];
        let conns = ends.into_iter().flat_map(|index| [index, index | 1 << 31]).map(|id| Owner::Connection(ConnId(id)));
        for (id, owner) in (0..).zip(conns.chain(ends.map(|real| Owner::Once(RealId(real))))) {
            fragments.note(&flow, id, owner, now);
            assert_eq!(fragments.find(fragments.key(&flow, id), now), Some(owner));
        }
    }

    /// A flood of first fragments costs the oldest notes of a bucket; a note is never taken for another packet's, and
    /// one packet takes one note however often its first fragment comes.
    #[test]
    fn a_flood_costs_the_oldest() {
        let (fragments, flow) = book();
        let owner = |id: u32| Owner::Connection(ConnId(id));
        let mut now = Now::from_secs(1);
        for id in 0..4 * NOTES as u32 {
            for _ in 0..2 {
                fragments.note(&flow, id, owner(id), now);
            }
            now = now.plus_millis(u64::from(id % 128 == 0));
            assert_eq!(fragments.find(fragments.key(&flow, id), now), Some(owner(id)));
            let quarter = NOTES as u32 / 4;
            if let Some(before) = id.checked_sub(quarter).filter(|before| before % 1000 == 0) {
                // Of four ways three are newer only if three of a quarter's notes fell into the same bucket.
                let found = fragments.find(fragments.key(&flow, before), now);
                assert!(found.is_none_or(|found| found == owner(before)));
            }
        }
        let last = 4 * NOTES as u32;
        let kept =
            (last - NOTES as u32 / 4..last).filter(|&id| fragments.find(fragments.key(&flow, id), now).is_some());
        let kept = kept.count();
        assert!(kept > NOTES / 4 * 95 / 100, "{kept} of the newest {}", NOTES / 4);
    }

    /// Two workers that write into one bucket at once leave notes that are whole or fit nobody.
    #[test]
    fn torn_notes_fit_nobody() {
        const PACKETS: usize = 16;
        let (fragments, flow) = book();
        let now = Now::from_secs(1);
        let bucket = |id: u32| fragments.bucket(fragments.key(&flow, id)).as_ptr();
        let ids: Vec<u32> = (0..).filter(|&id| bucket(id) == bucket(0)).take(PACKETS).collect();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (fragments, flow, ids) = (&fragments, &flow, &ids);
                scope.spawn(move || {
                    for round in 0..200_000 {
                        let id = ids[(round * 2 + thread) % PACKETS];
                        fragments.note(flow, id, Owner::Connection(ConnId(id)), now);
                        let other = ids[(round + thread) % PACKETS];
                        let found = fragments.find(fragments.key(flow, other), now);
                        assert!(found.is_none_or(|owner| owner == Owner::Connection(ConnId(other))), "{found:?}");
                    }
                });
            }
        });
        assert_eq!(fragments.notes(), 400_000);
    }
}
