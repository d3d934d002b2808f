//! From the hash of a flow to the number of a connection: buckets of one cache line.
//!
//! A bucket holds seven slots of (tag, connection) and a word of its own: a lock bit for those who change it, and how
//! many keys that belong here were put into their second bucket instead.
//!
//! Invariant: lookups take no lock. A key is published after its connection is complete, and a key that moves to its
//! second bucket is written there, and counted here, before it leaves here: a lookup that runs beside a change finds
//! it in one place or the other. The index knows no keys, only tags: who looks up compares the connection.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use crate::flow::FlowHash;
use crate::lines::{Lines, WORDS};

/// Slots of a bucket.
const SLOTS: usize = WORDS - 1;
/// The bucket's own word.
const META: usize = SLOTS;
/// Somebody changes the bucket.
const LOCK: u64 = 1 << 63;
/// Bits of a slot that name the connection, plus one, so that an empty slot is 0.
const ID: u64 = 0xffff_ffff;
/// The key is in its second bucket.
const GUEST: u64 = 1 << 32;
/// Bits of a slot that tell its key from most others.
const TAG: u64 = !(ID | GUEST);

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Lines,
    mask: usize,
}

/// A locked bucket; unlocks when dropped.
struct Locked<'a> {
    bucket: &'a [AtomicU64; WORDS],
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.bucket[META].fetch_and(!LOCK, Release);
    }
}

impl<'a> Locked<'a> {
    fn take(bucket: &'a [AtomicU64; WORDS]) -> Self {
        while bucket[META].fetch_or(LOCK, Acquire) & LOCK != 0 {
            std::hint::spin_loop();
        }
        Locked { bucket }
    }

    fn try_take(bucket: &'a [AtomicU64; WORDS]) -> Option<Self> {
        (bucket[META].fetch_or(LOCK, Acquire) & LOCK == 0).then(|| Locked { bucket })
    }

    fn put(&self, slot: u64) -> bool {
        let free = self.bucket[..SLOTS].iter().find(|word| word.load(Relaxed) == 0);
        if let Some(word) = free {
            word.store(slot, Release);
        }
        free.is_some()
    }

    fn clear(&self, slot: u64) -> bool {
        let found = self.bucket[..SLOTS].iter().find(|word| word.load(Relaxed) == slot);
        if let Some(word) = found {
            word.store(0, Release);
        }
        found.is_some()
    }
}

impl Index {
    /// For this many keys.
    pub(super) fn new(keys: usize) -> Self {
        // Four keys of seven slots on average, when every entry is taken: one in fifty keys lives in its second bucket.
        let count = (keys / 4).next_power_of_two().max(2);
        Index { buckets: Lines::new(count), mask: count - 1 }
    }

    /// First bucket, tag and second bucket of a hash. The tag alone leads from one bucket to the other and back.
    #[inline]
    fn place(&self, hash: FlowHash) -> (usize, u64, usize) {
        let first = hash.0 as usize & self.mask;
        let tag = hash.0 & TAG;
        (first, tag, self.other(first, tag))
    }

    #[inline]
    fn other(&self, bucket: usize, tag: u64) -> usize {
        // Odd, so the two always differ.
        let distance = ((tag >> 33).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize | 1;
        (bucket ^ distance) & self.mask
    }

    /// Brings the first bucket of a hash into the cache: the load of its first word starts, and nobody waits for it.
    #[inline]
    pub(super) fn touch(&self, hash: FlowHash) -> u64 {
        self.buckets.line(hash.0 as usize & self.mask)[0].load(Relaxed)
    }

    /// The first connection under this hash that the caller accepts.
    #[inline]
    pub(super) fn find<T>(&self, hash: FlowHash, mut accept: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let (first, tag, second) = self.place(hash);
        let bucket = self.buckets.line(first);
        if let Some(found) = scan(bucket, tag, &mut accept) {
            return Some(found);
        }
        // Read after the slots: a key that left meanwhile was counted before.
        if bucket[META].load(Acquire) & !LOCK == 0 {
            return None;
        }
        scan(self.buckets.line(second), tag, &mut accept)
    }

    /// Puts a connection under a hash; `false` if there is no place.
    pub(super) fn insert(&self, hash: FlowHash, id: u32) -> bool {
        let (first, tag, second) = self.place(hash);
        let slot = tag | (u64::from(id) + 1);
        if Locked::take(self.buckets.line(first)).put(slot) {
            return true;
        }
        let (home, other) = self.lock_both(first, second);
        if home.put(slot) {
            return true;
        }
        // Counted first, and taken back if it was in vain: a lookup may see the count too early, never too late.
        home.bucket[META].fetch_add(1, Release);
        if other.put(slot | GUEST) {
            return true;
        }
        home.bucket[META].fetch_sub(1, Release);
        drop(other);
        self.displace(first, &home) && home.put(slot)
    }

    /// Makes room in a full bucket by moving one of its own keys to that key's second bucket.
    fn displace(&self, first: usize, home: &Locked<'_>) -> bool {
        for word in &home.bucket[..SLOTS] {
            let slot = word.load(Relaxed);
            if slot & GUEST != 0 {
                continue;
            }
            // A second lock in any order: only if it is free right now, so nobody waits in a circle.
            let Some(other) = Locked::try_take(self.buckets.line(self.other(first, slot & TAG))) else { continue };
            home.bucket[META].fetch_add(1, Release);
            if other.put(slot | GUEST) {
                word.store(0, Release);
                return true;
            }
            home.bucket[META].fetch_sub(1, Release);
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
        let (home, other) = self.lock_both(first, second);
        if home.clear(slot) {
            return true;
        }
        let removed = other.clear(slot | GUEST);
        if removed {
            home.bucket[META].fetch_sub(1, Release);
        }
        removed
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

#[inline]
fn scan<T>(bucket: &[AtomicU64; WORDS], tag: u64, accept: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
    for word in &bucket[..SLOTS] {
        let slot = word.load(Acquire);
        if slot & TAG == tag
            && slot != 0
            && let Some(found) = accept((slot & ID) as u32 - 1)
        {
            return Some(found);
        }
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
        for (id, &hash) in (0..12).zip(&crowd).rev() {
            assert_eq!(index.find(hash, |found| (found == id).then_some(())), Some(()));
            assert!(index.remove(hash, id));
        }
        assert!(index.buckets.line(5).iter().all(|word| word.load(Relaxed) == 0));
    }
}
