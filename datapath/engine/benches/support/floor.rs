//! The floor: the least that a forwarder with a connection table can do with a packet, and nothing else.
//!
//! A table of the same memory as the engine's (an entry is a line of 64 bytes, a bucket of the index another, as many of
//! each), and three passes over a batch: parse and hash, and touch the bucket; find the entry in the bucket, and touch
//! it; compare its key, store twelve bytes of MAC, lower the TTL and mend the IP checksum. No states, no time, no
//! counters, no rings, no verdicts, IPv4 without options only, one way of forwarding.
//!
//! Invariant: a packet that is in the table is found; [`Floor::pass`] tells how many were.

use std::sync::atomic::Ordering::Relaxed;

use xvs_engine::lines::{Lines, prefetch_for_writing};
use xvs_engine::wire::Mac;

use super::common::packet::{BACK, server_mac};
use super::stream::{SMALLEST, Stream};
use super::umem::Umem;

const BATCH: usize = 64;
/// Words of a bucket: eight tags of 16 bits in two, eight entries of 32 bits in the next four.
const TAGS: usize = 2;
const LANES: u64 = 0x0001_0001_0001_0001;
const HOPS: usize = 16;

pub struct Floor {
    buckets: Lines,
    entries: Lines,
    hops: [[u8; 12]; HOPS],
}

/// Addresses; ports and protocol.
type Key = (u64, u64);

#[derive(Clone, Copy, Default)]
struct Work {
    key: Key,
    hash: u64,
    entry: u32,
}

impl Floor {
    /// A table with room for `capacity` connections, and the first `count` clients' in it.
    pub fn new(count: u32, capacity: u32) -> Self {
        // As many buckets as the engine has for so many connections.
        let buckets = (capacity as usize / 2).next_power_of_two();
        let hop = |number| -> [u8; 12] {
            let macs: [Mac; 2] = [server_mac(number as u8), BACK];
            macs.as_flattened().try_into().expect("two MACs are twelve bytes")
        };
        let hops = std::array::from_fn(hop);
        let floor = Floor { buckets: Lines::new(buckets), entries: Lines::new(capacity as usize), hops };
        let stream = Stream::from_clients(true, 0, SMALLEST);
        let mut frame = [0; SMALLEST];
        for client in 0..count {
            stream.write(client, 0, &mut frame);
            floor.insert(parse(&frame).expect("a packet of TCP"), client);
        }
        floor
    }

    fn insert(&self, key: Key, number: u32) {
        let entry = self.entries.line(number as usize);
        entry[0].store(key.0, Relaxed);
        entry[1].store(key.1, Relaxed);
        entry[2].store(u64::from(number) % HOPS as u64, Relaxed);
        let hash = hash(key);
        let mut bucket = self.bucket_of(hash);
        for _ in 0..64 {
            let line = self.buckets.line(bucket);
            for slot in 0..8 {
                let word = &line[TAGS + slot / 2];
                let shift = slot as u32 % 2 * 32;
                if (word.load(Relaxed) >> shift) as u32 == 0 {
                    word.fetch_or(u64::from(number + 1) << shift, Relaxed);
                    line[slot / 4].fetch_or(tag_of(hash) << (slot % 4 * 16), Relaxed);
                    return;
                }
            }
            bucket = (bucket + 1) & (self.buckets.len() - 1);
        }
        panic!("the floor's index is full");
    }

    #[inline(always)]
    fn bucket_of(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// Where a slot of this tag leads, in the first bucket; without comparing the key, and without a branch.
    #[inline(always)]
    fn guess(&self, hash: u64) -> u32 {
        let line = self.buckets.line(self.bucket_of(hash));
        let tags = tag_of(hash) * LANES;
        let same = |word: u64| {
            let differs = word ^ tags;
            differs.wrapping_sub(LANES) & !differs & (LANES << 15)
        };
        let (low, high) = (same(line[0].load(Relaxed)), same(line[1].load(Relaxed)));
        let slot = if low != 0 { low.trailing_zeros() / 16 } else { 4 + high.trailing_zeros() / 16 };
        let word = line[TAGS + (slot as usize / 2 % 4)].load(Relaxed);
        ((word >> (slot % 2 * 32)) as u32).wrapping_sub(1)
    }

    #[inline(always)]
    fn holds(&self, entry: u32, key: Key) -> bool {
        let line = self.entries.line(entry as usize);
        line[0].load(Relaxed) == key.0 && line[1].load(Relaxed) == key.1
    }

    /// A key of the same tag stood before it, or its bucket was full.
    #[cold]
    #[inline(never)]
    fn search(&self, work: &Work) -> Option<u32> {
        let start = self.bucket_of(work.hash);
        for bucket in start..start + 64 {
            let line = self.buckets.line(bucket & (self.buckets.len() - 1));
            let entries = line[TAGS..TAGS + 4].iter().flat_map(|word| {
                let word = word.load(Relaxed);
                [word as u32, (word >> 32) as u32]
            });
            let found = entries.filter_map(|id| id.checked_sub(1)).find(|&entry| self.holds(entry, work.key));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Forwards all packets that have arrived, which must be of connections in the table. Callgrind knows it by its name.
    #[inline(never)]
    pub fn counted_pass(&self, umem: &mut Umem, arrived: usize) {
        assert_eq!(self.pass::<false>(umem), arrived);
    }

    /// Forwards all packets that have arrived; gives how many were in the table. `FETCH`: a batch's frames are asked for before
    /// the first is read, as rings do it.
    #[inline(never)]
    pub fn pass<const FETCH: bool>(&self, umem: &mut Umem) -> usize {
        let (memory, arrived) = umem.bare();
        let mut work = [Work::default(); BATCH];
        let mut found = 0;
        for batch in arrived.chunks(BATCH) {
            if FETCH {
                batch.iter().for_each(|packet| prefetch_for_writing(memory[packet.at as usize..].as_ptr()));
            }
            for (work, packet) in work.iter_mut().zip(batch) {
                let frame: &[u8; SMALLEST] = memory[packet.at as usize..].first_chunk().expect("it is whole");
                let Some(key) = parse(frame) else { continue };
                *work = Work { key, hash: hash(key), entry: 0 };
                self.buckets.prefetch(self.bucket_of(work.hash));
            }
            for work in &mut work[..batch.len()] {
                work.entry = self.guess(work.hash).min(self.entries.len() as u32 - 1);
                self.entries.prefetch(work.entry as usize);
            }
            for (work, packet) in work.iter().zip(batch) {
                let entry = if self.holds(work.entry, work.key) { Some(work.entry) } else { self.search(work) };
                let Some(entry) = entry else { continue };
                let frame = &mut memory[packet.at as usize..];
                let frame: &mut [u8; SMALLEST] = frame.first_chunk_mut().expect("it is whole");
                let hop = self.entries.line(entry as usize)[2].load(Relaxed) as usize % HOPS;
                frame[..12].copy_from_slice(&self.hops[hop]);
                frame[22] -= 1;
                let sum = u32::from(u16::from_be_bytes([frame[24], frame[25]])) + 0x0100;
                let sum = (sum + (sum >> 16)) as u16;
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                found += 1;
            }
        }
        umem.bare_done();
        found
    }
}

#[inline(always)]
fn parse(frame: &[u8; SMALLEST]) -> Option<Key> {
    let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let is_plain = frame[12..15] == [8, 0, 0x45] && frame[20] & 0x3f == 0 && frame[21] == 0 && frame[22] > 1;
    let addresses = u64::from(word(26)) << 32 | u64::from(word(30));
    is_plain.then(|| (addresses, u64::from(word(34)) << 8 | u64::from(frame[23])))
}

#[inline(always)]
fn hash((addresses, rest): Key) -> u64 {
    let product = u128::from(addresses ^ 0x9e37_79b9_7f4a_7c15) * u128::from(rest ^ 0xbf58_476d_1ce4_e5b9);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn tag_of(hash: u64) -> u64 {
    hash >> 48
}
