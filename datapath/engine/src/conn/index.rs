//! From the hash of a flow to the number of a connection: buckets of one cache line.
//!
//! A bucket holds seven slots of (tag, connection) and a word of its own: a byte of each slot's tag, so that one look at
//! one word tells which slots are worth a look; a lock bit for those who change it; and how many keys that belong here
//! were put into their second bucket instead.
//!
//! Invariant: lookups take no lock. A key is published after its connection is complete, and a key that moves to its
//! second bucket is written there, and counted here, before it leaves here: a lookup that runs beside a change finds
//! it in one place or the other. The index knows no keys, only tags: who looks up compares the connection.

use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crate::flow::FlowHash;
use crate::lines::{Line, Lines, WORDS, prefetch};

use super::guess::Guess;

/// Slots of a bucket.
const SLOTS: usize = WORDS - 1;
/// The bucket's own word: lock, guests, and a byte for each slot.
const META: usize = SLOTS;
/// Somebody changes the bucket.
const LOCK: u64 = 1 << 63;
/// One key of this bucket that is in its second one.
const ABSENT: u64 = 1 << 56;
/// All of them.
const ABSENTS: u64 = LOCK - ABSENT;
/// The lowest bit of each slot's byte.
const BYTES: u64 = 0x0001_0101_0101_0101;
/// Bits of a slot that name the connection, plus one, so that an empty slot is 0.
const ID: u64 = 0xffff_ffff;
/// The key is in its second bucket.
const GUEST: u64 = 1 << 32;
/// Bits of a slot that tell its key from most others.
const TAG: u64 = !(ID | GUEST);
/// Where the byte of them begins that the bucket's own word holds as well.
const BYTE_SHIFT: u32 = 56;

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two, two at least.
    buckets: Lines,
}

/// A locked bucket; unlocks when dropped.
struct Locked<'a> {
    bucket: &'a Line,
    /// The bucket's own word. Nobody else changes more of it than the lock bit, which is set.
    meta: u64,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.bucket[META].store(self.meta & !LOCK, Release);
    }
}

impl<'a> Locked<'a> {
    #[inline(always)]
    fn take(bucket: &'a Line) -> Self {
        loop {
            if let Some(locked) = Self::try_take(bucket) {
                return locked;
            }
            std::hint::spin_loop();
        }
    }

    #[inline(always)]
    fn try_take(bucket: &'a Line) -> Option<Self> {
        // All of the word is asked for, not the bit alone: that would be one instruction, and a slow one.
        let meta = bucket[META].fetch_or(LOCK, Acquire);
        // Made only if it is ours: what is dropped unlocks.
        (meta & LOCK == 0).then(|| Locked { bucket, meta: meta | LOCK })
    }

    /// Lookups see the bucket's own word as it is now.
    fn publish(&self) {
        self.bucket[META].store(self.meta, Release);
    }

    /// The slot that holds this value; 0 is a free one.
    #[inline(always)]
    fn slot_of(&self, value: u64) -> Option<usize> {
        let mut likely = likely(self.meta, value);
        while likely != 0 {
            let slot = first_of(likely);
            if self.bucket[slot].load(Relaxed) == value {
                return Some(slot);
            }
            likely &= likely - 1;
        }
        None
    }

    /// Puts a key into a free slot; `false` if there is none.
    fn put(&mut self, value: u64) -> bool {
        let is_put = self.put_for_later(value);
        if is_put {
            self.publish();
        }
        is_put
    }

    /// The same, and lookups see it when the bucket is unlocked.
    #[inline(always)]
    fn put_for_later(&mut self, value: u64) -> bool {
        let Some(slot) = self.slot_of(0) else { return false };
        // That of a free slot is 0.
        self.meta |= value >> BYTE_SHIFT << (slot * 8);
        self.bucket[slot].store(value, Release);
        true
    }

    /// Clears the slot of a key; `false` if there is none.
    fn clear(&mut self, value: u64) -> bool {
        let Some(slot) = self.slot_of(value) else { return false };
        self.meta &= !(0xff << (slot * 8));
        self.bucket[slot].store(0, Release);
        true
    }

    /// Counts a key that will be in its second bucket, before it is there; `false` if no more can be counted.
    fn count_absent(&mut self) -> bool {
        let counts = self.meta & ABSENTS != ABSENTS;
        if counts {
            self.meta += ABSENT;
            self.publish();
        }
        counts
    }

    fn uncount_absent(&mut self) {
        self.meta -= ABSENT;
    }
}

impl Index {
    /// For this many keys.
    pub(super) fn new(keys: usize) -> Self {
        // Four keys of seven slots on average, when every entry is taken: one in fifty keys lives in its second bucket.
        let count = (keys / 4).next_power_of_two().max(2);
        Index { buckets: Lines::new(count) }
    }

    /// Has the kernel give its memory, a gigabyte at most.
    pub(super) fn populate(&self) {
        self.buckets.populate(0..1 << 24);
    }

    /// First bucket, tag and second bucket of a hash. The tag alone leads from one bucket to the other and back.
    #[inline]
    fn place(&self, hash: FlowHash) -> (usize, u64, usize) {
        let first = hash.0 as usize & (self.buckets.len() - 1);
        let tag = hash.0 & TAG;
        (first, tag, self.other(first, tag))
    }

    #[inline]
    fn other(&self, bucket: usize, tag: u64) -> usize {
        // Odd, so the two always differ.
        let distance = ((tag >> 33).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize | 1;
        (bucket ^ distance) & (self.buckets.len() - 1)
    }

    /// Starts to bring the first bucket of a hash into the cache.
    #[inline(always)]
    pub(super) fn touch(&self, hash: FlowHash) {
        prefetch(self.buckets.wrapped(hash.0 as usize));
    }

    /// Tells the connection that is probably the one of a hash, from the first likely slot of the first bucket alone; none if
    /// that slot is empty or another's. It may still be another's: who asks compares the connection.
    #[inline(always)]
    pub(super) fn guesser(&self) -> impl Fn(FlowHash) -> Guess {
        let bucket_of = self.buckets.wrapper();
        move |FlowHash(hash)| {
            let bucket = bucket_of(hash as usize);
            let slot = bucket[first_of(likely(bucket[META].load(Acquire), hash))].load(Acquire);
            Guess((slot ^ hash & TAG).wrapping_sub(1))
        }
    }

    /// The first connection under this hash that the caller accepts.
    #[inline]
    pub(super) fn find<T>(&self, hash: FlowHash, mut accept: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let bucket = self.buckets.wrapped(hash.0 as usize);
        if let Some(found) = scan(bucket, hash.0, &mut accept) {
            return Some(found);
        }
        // Read after the slots: a key that left meanwhile was counted before.
        if bucket[META].load(Acquire) & ABSENTS == 0 {
            return None;
        }
        let (_, _, second) = self.place(hash);
        scan(self.buckets.line(second), hash.0, &mut accept)
    }

    /// Is there nothing at all under this hash? One look at one word: no says nothing.
    #[inline(always)]
    pub(super) fn lacks(&self, hash: FlowHash) -> bool {
        let meta = self.buckets.wrapped(hash.0 as usize)[META].load(Acquire);
        likely(meta, hash.0) | meta & ABSENTS == 0
    }

    /// Puts a connection under a hash; `false` if there is no place.
    #[inline]
    pub(super) fn insert(&self, hash: FlowHash, id: u32) -> bool {
        self.insert_inline(hash, id)
    }

    /// The same as part of its caller.
    #[inline(always)]
    pub(super) fn insert_inline(&self, hash: FlowHash, id: u32) -> bool {
        let slot = hash.0 & TAG | (u64::from(id) + 1);
        Locked::take(self.buckets.wrapped(hash.0 as usize)).put_for_later(slot) || self.insert_second(hash, slot)
    }

    /// The same if there is nothing at all under this hash; `false`, and nothing done, if there may be or there is no place.
    #[inline(always)]
    pub(super) fn insert_alone(&self, hash: FlowHash, id: u32) -> bool {
        let slot = hash.0 & TAG | (u64::from(id) + 1);
        let mut bucket = Locked::take(self.buckets.wrapped(hash.0 as usize));
        likely(bucket.meta, hash.0) | bucket.meta & ABSENTS == 0 && bucket.put_for_later(slot)
    }

    /// The same if the first bucket was full.
    #[cold]
    #[inline(never)]
    fn insert_second(&self, hash: FlowHash, slot: u64) -> bool {
        let (first, _, second) = self.place(hash);
        let (mut home, mut other) = self.lock_both(first, second);
        if home.put(slot) {
            return true;
        }
        // Counted first, and taken back if it was in vain: a lookup may see the count too early, never too late.
        if !home.count_absent() {
            return false;
        }
        if other.put(slot | GUEST) {
            return true;
        }
        home.uncount_absent();
        drop(other);
        self.displace(first, &mut home) && home.put(slot)
    }

    /// Makes room in a full bucket by moving one of its own keys to that key's second bucket.
    fn displace(&self, first: usize, home: &mut Locked<'_>) -> bool {
        for at in 0..SLOTS {
            let slot = home.bucket[at].load(Relaxed);
            if slot & GUEST != 0 {
                continue;
            }
            // A second lock in any order: only if it is free right now, so nobody waits in a circle.
            let other = self.buckets.line(self.other(first, slot & TAG));
            let Some(mut other) = Locked::try_take(other) else { continue };
            if !home.count_absent() {
                return false;
            }
            if other.put(slot | GUEST) {
                return home.clear(slot);
            }
            home.uncount_absent();
        }
        false
    }

    /// Takes a connection from under a hash.
    pub(super) fn remove(&self, hash: FlowHash, id: u32) -> bool {
        let (first, tag, second) = self.place(hash);
        let slot = tag | (u64::from(id) + 1);
        if Locked::take(self.buckets.line(first)).clear(slot) {
            return true;
        }
        let (mut home, mut other) = self.lock_both(first, second);
        if home.clear(slot) {
            return true;
        }
        let removed = other.clear(slot | GUEST);
        if removed {
            home.uncount_absent();
        }
        removed
    }

    /// Writes to a bucket what stands there.
    #[cfg(test)]
    pub(super) fn touch_for_test(&self, bucket: usize) {
        self.buckets.line(bucket)[0].fetch_or(0, Relaxed);
    }

    /// Is there no key at all, no count of guests, no lock?
    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        (0..self.buckets.len()).all(|bucket| self.buckets.line(bucket).iter().all(|word| word.load(Relaxed) == 0))
    }

    /// Both buckets of a key, locked in ascending order so that no two threads wait for each other.
    fn lock_both(&self, first: usize, second: usize) -> (Locked<'_>, Locked<'_>) {
        let lock = |bucket| Locked::take(self.buckets.line(bucket));
        if first < second {
            let first = lock(first);
            (first, lock(second))
        } else {
            let second = lock(second);
            (lock(first), second)
        }
    }
}

/// The slots whose bytes in a bucket's own word may be that of this hash: the highest bit of each such byte. The lowest
/// one always is; above it there may be a wrong one.
#[inline(always)]
fn likely(meta: u64, hash: u64) -> u64 {
    let differs = meta ^ ((hash >> BYTE_SHIFT) * BYTES);
    differs.wrapping_sub(BYTES) & !differs & BYTES << 7
}

/// The first of these slots; without one, any.
#[inline(always)]
fn first_of(likely: u64) -> usize {
    (likely.trailing_zeros() as usize / 8) & (WORDS - 1)
}

#[inline]
fn scan<T>(bucket: &Line, hash: u64, accept: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
    let mut likely = likely(bucket[META].load(Acquire), hash);
    while likely != 0 {
        let slot = bucket[first_of(likely)].load(Acquire);
        if (slot ^ hash) & TAG == 0
            && let Some(found) = (slot as u32).checked_sub(1).and_then(&mut *accept)
        {
            return Some(found);
        }
        likely &= likely - 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> FlowHash {
        let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        FlowHash(x ^ x >> 29)
    }

    /// The index must hold as many keys as it was made for, find each, and be empty after they are taken out.
    #[test]
    fn holds_what_it_was_made_for() {
        const KEYS: u32 = 1 << 16;
        let index = Index::new(KEYS as usize);
        for id in 0..KEYS {
            assert!(index.insert(hash(id.into()), id), "{id}");
        }
        for id in 0..KEYS {
            assert_eq!(index.find(hash(id.into()), |found| (found == id).then_some(found)), Some(id));
        }
        assert_eq!(index.find(hash(1 << 40), Some), None);
        for id in 0..KEYS {
            assert!(index.remove(hash(id.into()), id));
            assert!(!index.remove(hash(id.into()), id));
        }
        for bucket in 0..index.buckets.len() {
            assert!(index.buckets.line(bucket).iter().all(|word| word.load(Relaxed) == 0), "bucket {bucket}");
        }
    }

    /// Keys of one bucket beyond its slots spill over and come back: none may be lost on the way.
    #[test]
    fn a_crowded_bucket_spills_over() {
        let index = Index::new(1024);
        let crowd: Vec<_> = (0..12u64).map(|n| FlowHash(n << 40 | 5)).collect();
        for (id, &hash) in (0..).zip(&crowd) {
            assert!(index.insert(hash, id));
        }
        assert_eq!(index.guesser()(crowd[0]), Guess(0), "the first of many with the same byte");
        for (id, &hash) in (0..12).zip(&crowd).rev() {
            assert_eq!(index.find(hash, |found| (found == id).then_some(())), Some(()));
            assert!(index.remove(hash, id));
        }
        assert!(index.buckets.line(5).iter().all(|word| word.load(Relaxed) == 0));
    }

    /// A guess is right for nearly every key, and never names a connection under a key that is not there.
    #[test]
    fn guesses_are_mostly_right() {
        const KEYS: u32 = 1 << 14;
        let index = Index::new(KEYS as usize);
        assert!(index.guesser()(hash(0)).is_none());
        assert!((0..KEYS).all(|id| index.insert(hash(id.into()), id)));
        let guess = index.guesser();
        let guessed = |n: u32| guess(hash(n.into()));
        let right = (0..KEYS).filter(|&id| guessed(id) == Guess(id.into())).count();
        let wrong = (0..KEYS).filter(|&id| !guessed(id).is_none()).count() - right;
        assert!(right > KEYS as usize * 95 / 100 && wrong == 0, "{right} right, {wrong} wrong of {KEYS}");
        assert!((KEYS..2 * KEYS).all(|other| guessed(other).is_none()));
    }
}
