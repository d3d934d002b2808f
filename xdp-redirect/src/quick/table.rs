//! One quick table: words in buckets of one line of the cache, and what found no room in its bucket.
//!
//! Invariants: a key stands in its own bucket only, and once; it never moves. Slots with something in them come before
//! empty ones, so a reader stops at the first empty one; what a key leaves behind is [`GONE`] as long as anything follows
//! it. A bucket that something was left out of has a key in each slot, so a reader never concludes that this is not
//! wanted.
//!
//! It is not the memory, which it is handed for each step, and knows nothing of what a key means.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::quick::{SLOTS, SPREAD};

/// Nothing is in this slot, nor in those behind it. A key is never 0, as its protocol is not.
const EMPTY: u64 = 0;
/// A key was in this slot, and another one may be behind it.
const GONE: u64 = u64::MAX;

pub(super) struct Table {
    /// The first word of the first bucket.
    start: usize,
    /// The number of buckets is two to the power of this.
    bits: u32,
    /// What found no room, by bucket.
    left_out: HashMap<usize, Vec<u64>>,
}

impl Table {
    /// An empty table in `buckets` empty buckets, a power of two of them, of which the first begins at word `start`.
    pub(super) fn new(start: usize, buckets: usize) -> Table {
        debug_assert!(buckets.is_power_of_two() && buckets > 1, "{buckets}");
        Table { start, bits: buckets.trailing_zeros(), left_out: HashMap::new() }
    }

    fn bucket(&self, key: u64) -> usize {
        (key.wrapping_mul(SPREAD) >> (u64::BITS - self.bits)) as usize
    }

    fn slots<'w>(&self, words: &'w [AtomicU64], bucket: usize) -> &'w [AtomicU64] {
        &words[self.start + bucket * SLOTS..][..SLOTS]
    }

    /// Puts a key that is not there into the first slot that has none; if all have one, leaves it out.
    pub(super) fn add(&mut self, words: &[AtomicU64], key: u64) {
        let bucket = self.bucket(key);
        let mut slots = self.slots(words, bucket).iter();
        match slots.find(|slot| matches!(slot.load(Relaxed), EMPTY | GONE)) {
            Some(slot) => slot.store(key, Release),
            None => self.left_out.entry(bucket).or_default().push(key),
        }
    }

    /// Takes a key away. One that was left out gets its slot at once: the bucket must not look as if it had had room.
    pub(super) fn remove(&mut self, words: &[AtomicU64], key: u64) {
        let bucket = self.bucket(key);
        let slots = self.slots(words, bucket);
        let slot = slots.iter().find(|slot| slot.load(Relaxed) == key);
        let left_out = self.left_out.get_mut(&bucket);
        match (slot, left_out) {
            (Some(slot), Some(waiting)) => slot.store(waiting.pop().unwrap_or(GONE), Release),
            (Some(slot), None) => {
                slot.store(GONE, Release);
                // Nothing follows the last ones: from the end, so that nothing is ever behind an empty slot.
                let mut last = slots.iter().rev().skip_while(|slot| slot.load(Relaxed) == EMPTY);
                while let Some(slot) = last.next().filter(|slot| slot.load(Relaxed) == GONE) {
                    slot.store(EMPTY, Release);
                }
            }
            (None, Some(waiting)) => waiting.retain(|&other| other != key),
            (None, None) => {}
        }
        if self.left_out.get(&bucket).is_some_and(Vec::is_empty) {
            self.left_out.remove(&bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Search {
        Absent,
        Found,
        Full,
    }

    /// What the program does (`quick_search`).
    fn search(table: &Table, words: &[AtomicU64], key: u64) -> Search {
        for slot in table.slots(words, table.bucket(key)) {
            match slot.load(std::sync::atomic::Ordering::Acquire) {
                slot if slot == key => return Search::Found,
                EMPTY => return Search::Absent,
                _ => {}
            }
        }
        Search::Full
    }

    /// Keys come and go at random, in so few buckets that some overflow.
    struct Walk {
        state: u64,
        wanted: BTreeSet<u64>,
    }

    impl Walk {
        fn number(&mut self, below: u64) -> u64 {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.state >> 33) % below
        }

        fn key(number: u64) -> u64 {
            number << 32 | 80 << 16 | 6
        }

        fn step(&mut self, table: &mut Table, words: &[AtomicU64], keys: u64) {
            let key = Walk::key(self.number(keys));
            if self.wanted.remove(&key) {
                table.remove(words, key);
            } else {
                self.wanted.insert(key);
                table.add(words, key);
            }
        }
    }

    /// Guards what the program concludes: found is wanted, absent is not wanted; nothing around the table is touched.
    #[test]
    fn a_search_is_never_wrong() {
        let words = words(3 + 4 * SLOTS + 3);
        let mut table = Table::new(3, 4);
        let mut walk = Walk { state: 5, wanted: BTreeSet::new() };
        let mut seen = [0; 3];
        // From many keys, most buckets full, to few, and back.
        for step in 0..6_000 {
            let keys = if step / 1_000 % 2 == 0 { 90 } else { 12 };
            if keys == 12 && step % 1_000 == 0 {
                for number in 12..90 {
                    if walk.wanted.remove(&Walk::key(number)) {
                        table.remove(&words, Walk::key(number));
                    }
                }
            }
            walk.step(&mut table, &words, keys);
            for key in (0..90).map(Walk::key) {
                let (search, wanted) = (search(&table, &words, key), walk.wanted.contains(&key));
                match search {
                    Search::Found => assert!(wanted, "step {step}: {key:x} is not wanted"),
                    Search::Absent => assert!(!wanted, "step {step}: {key:x} is wanted"),
                    Search::Full => {}
                }
                seen[search as usize] += 1;
            }
        }
        assert!(seen.iter().all(|&times| times > 10_000), "all answers come up: {seen:?}");
        let around = words[..3].iter().chain(&words[3 + 4 * SLOTS..]);
        assert!(around.into_iter().all(|word| word.load(Relaxed) == 0));
    }

    /// Guards the way back: after all keys went the table is as it began, and each has room again.
    #[test]
    fn nothing_stays_behind() {
        let words = words(2 * SLOTS);
        let mut table = Table::new(0, 2);
        let keys = (1..60).map(Walk::key);
        keys.clone().for_each(|key| table.add(&words, key));
        assert!(!table.left_out.is_empty());
        keys.clone().for_each(|key| table.remove(&words, key));
        assert!(table.left_out.is_empty() && words.iter().all(|word| word.load(Relaxed) == EMPTY));
        for key in keys {
            table.add(&words, key);
            assert_eq!(search(&table, &words, key), Search::Found);
            table.remove(&words, key);
            table.remove(&words, key);
        }
    }

    /// Guards readers against a writer: a key that stays is never absent, one that never came is never found, whatever
    /// comes and goes beside them.
    #[test]
    fn a_key_that_stays_is_always_there() {
        let words = words(2 * SLOTS);
        let mut table = Table::new(0, 2);
        let mut walk = Walk { state: 9, wanted: BTreeSet::new() };
        // Behind others that go.
        let (others, stays, never) = (20, Walk::key(1_000), Walk::key(2_000));
        (0..5).map(Walk::key).for_each(|key| table.add(&words, key));
        table.add(&words, stays);
        (0..5).map(Walk::key).for_each(|key| table.remove(&words, key));
        let reader = Table::new(0, 2);
        let ended = AtomicBool::new(false);
        let (words, ended) = (&words, &ended);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..300_000 {
                    walk.step(&mut table, words, others);
                }
                ended.store(true, Release);
            });
            let mut reads = 0;
            while !ended.load(Relaxed) {
                assert_ne!(search(&reader, words, stays), Search::Absent);
                assert_ne!(search(&reader, words, never), Search::Found);
                reads += 1;
            }
            assert!(reads > 0);
        });
    }
}
