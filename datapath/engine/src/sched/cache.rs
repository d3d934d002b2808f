//! What `lblc` and `lblcr` remember: where each virtual address was sent.
//!
//! Invariant: all memory is reserved when the scheduler hears of its servers, and a pick never allocates; when the
//! memory is full a new address is not remembered, which changes nothing but where it goes next time. Reserved memory
//! costs nothing until it is used.
//!
//! As in the kernel a timer looks every minute: at every thirtieth look, entries that were idle for a day go; at the
//! others, and only above the soft limit, those idle for six minutes, bucket after bucket, until enough are gone. There
//! is no timer here: a pick makes up for the looks that were due, counted from the service's first pick.

use xvs_sdk::Reals;

use super::hash::{fold, golden};

const BUCKET_BITS: u32 = 10;
/// Above this many entries the idle ones go early.
const SOFT_LIMIT: usize = 16_384;
/// No new entry beyond this: once and a half the soft limit.
const LIMIT: usize = SOFT_LIMIT / 2 * 3;
/// Seconds between two looks.
const LOOK_S: u64 = 60;
/// Every so many looks a full one.
const LOOKS: u64 = 30;
/// Idle for so long, an entry may go early.
const EARLY_S: u64 = 6 * 60;
/// A day: entries idle for so long go (`lblc_expiration`, `lblcr_expiration`), and sets unchanged for so long shrink.
pub(super) const EXPIRATION_S: u64 = 24 * 60 * 60;
/// The end of a list.
pub(super) const END: u32 = u32::MAX;

/// A server that is remembered: by address and port, which name it for as long as anybody cares, also when it is
/// removed and comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    name: ([u8; 16], u16),
    /// Where it was in the list.
    hint: u32,
}

impl Member {
    pub(super) fn new<R: Reals + ?Sized>(reals: &R, index: usize) -> Self {
        Member { name: reals.address(index), hint: index as u32 }
    }

    /// Where it is in the list, if it is there.
    pub(super) fn index<R: Reals + ?Sized>(&mut self, reals: &R) -> Option<usize> {
        let is_here = |index: usize| index < reals.len() && reals.address(index) == self.name;
        let hint = self.hint as usize;
        let index = if is_here(hint) { hint } else { (0..reals.len()).find(|&index| is_here(index))? };
        self.hint = index as u32;
        Some(index)
    }

    pub(super) fn is_same(&self, other: &Member) -> bool {
        self.name == other.name
    }
}

/// Is the server overloaded in the sense of `lblc` and `lblcr`: more active connections than weight, while another
/// server, whatever its state, has less than half of its own?
pub(super) fn is_hot<R: Reals + ?Sized>(reals: &R, index: usize) -> bool {
    let load = |index: usize| (i64::from(reals.active(index)), i64::from(reals.weight(index)));
    let (active, weight) = load(index);
    active > weight && (0..reals.len()).map(load).any(|(active, weight)| 2 * active < weight)
}

/// Lists in one block of memory, which is reserved once. Whoever has a list keeps the number of its first element.
#[derive(Clone, Debug)]
pub(super) struct Lists<T> {
    elements: Vec<Element<T>>,
    /// List of elements that are in no list.
    free: u32,
    used: usize,
}

#[derive(Clone, Copy, Debug)]
struct Element<T> {
    value: T,
    next: u32,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Lists { elements: Vec::new(), free: END, used: 0 }
    }
}

impl<T: Copy> Lists<T> {
    pub(super) fn reserve(&mut self, capacity: usize) {
        self.elements.reserve_exact(capacity.saturating_sub(self.elements.len()));
    }

    /// Elements in lists.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Puts a value in front of a list; false if there is no room.
    pub(super) fn push(&mut self, head: &mut u32, value: T) -> bool {
        let element = Element { value, next: *head };
        if self.free != END {
            *head = self.free;
            self.free = std::mem::replace(&mut self.elements[*head as usize], element).next;
        } else if self.elements.len() < self.elements.capacity() {
            *head = self.elements.len() as u32;
            self.elements.push(element);
        } else {
            return false;
        }
        self.used += 1;
        true
    }

    /// The number of the first element that fits.
    pub(super) fn find(&self, head: u32, fits: impl Fn(&T) -> bool) -> Option<u32> {
        let mut at = head;
        while at != END {
            let element = &self.elements[at as usize];
            if fits(&element.value) {
                return Some(at);
            }
            at = element.next;
        }
        None
    }

    /// Shows every value of a list, and lets go of those that are not to be kept.
    pub(super) fn retain(&mut self, head: &mut u32, mut keep: impl FnMut(&mut T) -> bool) {
        let (mut at, mut before) = (*head, END);
        while at != END {
            let element = &mut self.elements[at as usize];
            let next = element.next;
            if keep(&mut element.value) {
                before = at;
            } else {
                element.next = self.free;
                self.free = at;
                self.used -= 1;
                match before {
                    END => *head = next,
                    before => self.elements[before as usize].next = next,
                }
            }
            at = next;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry<V> {
    address: [u8; 16],
    used_s: u64,
    value: V,
}

/// Virtual addresses, each with what is remembered of it.
#[derive(Clone, Debug)]
pub(super) struct Cache<V> {
    buckets: Vec<u32>,
    entries: Lists<Entry<V>>,
    /// When the next look is due.
    look_s: Option<u64>,
    /// Looks since the last full one.
    looks: u64,
    /// The bucket where the last look ended.
    rover: usize,
    /// Idle for so long, an entry goes at a full look.
    expiration_s: u64,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Cache {
            buckets: Vec::new(),
            entries: Lists::default(),
            look_s: None,
            looks: 0,
            rover: 0,
            expiration_s: EXPIRATION_S,
        }
    }
}

impl<V: Copy> Cache<V> {
    /// Makes sure that there is memory. Before the first call nothing is remembered.
    pub(super) fn reserve(&mut self) {
        self.buckets.resize(1 << BUCKET_BITS, END);
        self.entries.reserve(LIMIT);
    }

    /// Seconds after which an idle entry goes.
    pub(super) fn expiration_s(&self) -> u64 {
        self.expiration_s
    }

    /// Sets them.
    pub(super) fn expire_after(&mut self, seconds: u64) {
        self.expiration_s = seconds;
    }

    fn bucket(address: &[u8; 16]) -> usize {
        golden(fold(address), BUCKET_BITS)
    }

    /// What is remembered of an address; it was used now.
    pub(super) fn get(&mut self, address: &[u8; 16], now_s: u64) -> Option<&mut V> {
        let head = *self.buckets.get(Self::bucket(address))?;
        let found = self.entries.find(head, |entry| entry.address == *address)?;
        let entry = &mut self.entries.elements[found as usize].value;
        entry.used_s = now_s;
        Some(&mut entry.value)
    }

    /// Remembers a new address; false if there is no room.
    pub(super) fn insert(&mut self, address: &[u8; 16], now_s: u64, value: V) -> bool {
        match self.buckets.get_mut(Self::bucket(address)) {
            Some(head) if self.entries.used() < LIMIT => {
                self.entries.push(head, Entry { address: *address, used_s: now_s, value })
            }
            _ => false,
        }
    }

    /// Makes up for the looks that were due; `release` hears of what is forgotten.
    pub(super) fn look(&mut self, now_s: u64, mut release: impl FnMut(V)) {
        let mut due = *self.look_s.get_or_insert(now_s + LOOK_S);
        // The looks of two days are enough to forget everything; leaving out whole rounds keeps the rhythm.
        let silence_s = now_s.saturating_sub(due).saturating_sub(2 * self.expiration_s);
        due += silence_s / (LOOKS * LOOK_S) * (LOOKS * LOOK_S);
        while due <= now_s {
            let used = self.entries.used();
            if self.looks == LOOKS - 1 {
                self.looks = 0;
                // Of several full looks that are due the last one does the work of all.
                if due + LOOKS * LOOK_S > now_s {
                    self.sweep(due, self.expiration_s, usize::MAX, &mut release);
                }
            } else if used > SOFT_LIMIT {
                let goal = ((used - SOFT_LIMIT) * 4 / 3).min(SOFT_LIMIT / 2);
                self.sweep(due, EARLY_S, goal, &mut release);
            } else {
                self.looks += 1;
            }
            due += LOOK_S;
        }
        self.look_s = Some(due);
    }

    /// Forgets what was idle for so long, bucket after bucket, until the goal is reached.
    fn sweep(&mut self, now_s: u64, idle_s: u64, goal: usize, release: &mut impl FnMut(V)) {
        let mut gone = 0;
        for _ in 0..self.buckets.len() {
            self.rover = (self.rover + 1) % self.buckets.len();
            self.entries.retain(&mut self.buckets[self.rover], |entry| {
                let keep = now_s < entry.used_s + idle_s;
                if !keep {
                    gone += 1;
                    release(entry.value);
                }
                keep
            });
            if gone >= goal {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> [u8; 16] {
        super::super::tests::v4(number.to_be_bytes())
    }

    fn filled(count: usize, now_s: u64) -> Cache<u32> {
        let mut cache = Cache::default();
        cache.reserve();
        cache.look(0, |_| ());
        for number in 0..count as u32 {
            assert!(cache.insert(&address(number), now_s, number));
        }
        cache
    }

    /// Never more entries than the limit, never another block of memory, and what is in stays.
    #[test]
    fn full_is_full() {
        let mut cache = filled(LIMIT, 0);
        let block = cache.entries.elements.as_ptr();
        assert!(!cache.insert(&address(LIMIT as u32), 0, 7));
        assert_eq!(cache.get(&address(LIMIT as u32), 0), None);
        assert_eq!(cache.get(&address(LIMIT as u32 - 1), 0), Some(&mut (LIMIT as u32 - 1)));
        assert_eq!(cache.entries.elements.as_ptr(), block);
        assert!(!Cache::default().insert(&address(1), 0, 7), "no memory yet");
    }

    /// IPVS-REFERENCE 2.13: below the soft limit an entry goes at the first full look after a day without use.
    #[test]
    fn idle_entries_go_after_a_day() {
        let full = LOOKS * LOOK_S;
        let mut cache = filled(10, 0);
        for now_s in (0..EXPIRATION_S).step_by(50) {
            cache.look(now_s, |_| panic!("too early"));
            cache.get(&address(3), now_s);
        }
        let mut gone = Vec::new();
        cache.look(EXPIRATION_S, |number| gone.push(number));
        gone.sort_unstable();
        assert_eq!(gone, [0, 1, 2, 4, 5, 6, 7, 8, 9], "a day is a multiple of half an hour");
        cache.look(2 * EXPIRATION_S - 50, |_| panic!("too early"));
        cache.look(2 * EXPIRATION_S + full, |number| assert_eq!(number, 3));
        assert_eq!(cache.entries.used, 0);
    }

    /// IPVS-REFERENCE 2.13: above the soft limit the idle ones go early, down to a goal and no further than the bucket.
    #[test]
    fn too_many_entries_go_early() {
        let count = SOFT_LIMIT + 300;
        let mut cache = filled(count, 0);
        cache.look(5 * LOOK_S, |_| panic!("not idle for six minutes"));
        assert_eq!(cache.looks, 0, "looks with work to do do not count");
        let mut gone = 0;
        cache.look(6 * LOOK_S, |_| gone += 1);
        assert!((400..450).contains(&gone), "{gone}");
        cache.look(20 * LOOK_S, |_| panic!("below the limit again"));
        assert_eq!((cache.looks, cache.entries.used), (14, count - gone));
        assert!(cache.insert(&address(u32::MAX), 0, 1));
    }

    /// Years without a pick are made up for in one.
    #[test]
    fn a_long_silence_forgets_everything() {
        let mut cache = filled(LIMIT, 0);
        let mut gone = 0;
        cache.look(u64::MAX / 1000, |_| gone += 1);
        assert_eq!((gone, cache.entries.used), (LIMIT, 0));
        assert!(cache.insert(&address(1), 0, 1));
        assert_eq!(cache.entries.elements.len(), LIMIT, "memory is used again");
    }
}
