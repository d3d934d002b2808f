//! A hash map whose copies share their pages: a copy costs a word for each page, a change of a copy one page.
//!
//! A page is a small table of its own: linear probing over slots of a tag and an item. A look-up touches a word of the
//! directory, a slot, and the item where it has the tag, however many items there are.
//!
//! Invariant: a copy never sees what becomes of another one; every page has a free slot, so that each probe ends. Not
//! here: what is kept.

use std::sync::Arc;

/// Items of a page on average, before the directory grows: a page and the directory are copied at about the same cost
/// when there are thousands.
const ITEMS_EACH: usize = 32;
/// Slots of the smallest page.
const SLOTS_MIN: usize = 8;

/// What is kept, found by its key.
pub(super) trait Item: Clone {
    type Key: Copy + PartialEq;

    fn key(&self) -> Self::Key;

    /// Its upper and its lower half choose a slot and a page, so both must be good.
    fn hash(key: Self::Key) -> u64;
}

#[derive(Clone, Debug)]
struct Slot<T> {
    tag: u32,
    item: Option<T>,
}

type Page<T> = Arc<[Slot<T>]>;

/// The map.
#[derive(Clone, Debug)]
pub(super) struct Pages<T> {
    /// None, or a power of two of them.
    pages: Vec<Page<T>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new(), len: 0 }
    }
}

impl<T: Item> Pages<T> {
    /// How many items.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The item of a key.
    #[inline(always)]
    pub(super) fn get(&self, key: T::Key) -> Option<&T> {
        let hash = T::hash(key);
        // Without pages the mask leads nowhere.
        let page = self.pages.get(hash as usize & self.pages.len().wrapping_sub(1))?;
        let (tag, mask) = (tag(hash), page.len() - 1);
        let mut at = tag as usize;
        while let Slot { tag: other, item: Some(item) } = &page[at & mask] {
            if *other == tag && item.key() == key {
                return Some(item);
            }
            at += 1;
        }
        None
    }

    /// Puts an item in, in the place of that with the same key.
    pub(super) fn insert(&mut self, item: T) {
        let key = item.key();
        if self.get(key).is_some() {
            self.remove(key);
        }
        if self.len >= self.pages.len() * ITEMS_EACH {
            self.grow();
        }
        let hash = T::hash(key);
        let at = self.place(hash);
        let page = &mut self.pages[at];
        let taken = page.iter().flat_map(|slot| &slot.item).count();
        if (taken + 1) * 4 > page.len() * 3 {
            let items: Vec<T> = page.iter().filter_map(|slot| slot.item.clone()).collect();
            *page = page_of(items.into_iter(), page.len() * 2);
        }
        put(Arc::make_mut(page), tag(hash), item);
        self.len += 1;
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, key: T::Key) -> Option<T> {
        let gone = self.get(key)?.clone();
        let at = self.place(T::hash(key));
        let page = &mut self.pages[at];
        let rest: Vec<T> = page.iter().filter_map(|slot| slot.item.clone()).filter(|item| item.key() != key).collect();
        *page = page_of(rest.into_iter(), page.len());
        self.len -= 1;
        Some(gone)
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.pages.len() - 1)
    }

    /// Twice as many pages.
    fn grow(&mut self) {
        let count = (self.pages.len() * 2).max(1);
        let mut items: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
        for item in self.pages.iter().flat_map(|page| page.iter()).flat_map(|slot| &slot.item) {
            items[T::hash(item.key()) as usize & (count - 1)].push(item.clone());
        }
        self.pages = items.into_iter().map(|items| page_of(items.into_iter(), SLOTS_MIN)).collect();
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A page of these items, with this many slots at least, of which no more than three in four are taken.
fn page_of<T: Item>(items: impl ExactSizeIterator<Item = T>, least: usize) -> Page<T> {
    let slots = (items.len() * 4).div_ceil(3).next_power_of_two().max(least);
    let mut page: Vec<Slot<T>> = (0..slots).map(|_| Slot { tag: 0, item: None }).collect();
    items.for_each(|item| put(&mut page, tag(T::hash(item.key())), item));
    page.into()
}

fn put<T>(page: &mut [Slot<T>], tag: u32, item: T) {
    let mask = page.len() - 1;
    let free = (0..page.len()).map(|step| (tag as usize + step) & mask).find(|&at| page[at].item.is_none());
    debug_assert!(free.is_some(), "a page is never full");
    if let Some(at) = free {
        page[at] = Slot { tag, item: Some(item) };
    }
}

/// Mixes two words into one.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A key whose hash leaves as many bits as the test wants, so that keys collide.
    #[derive(Clone, Debug, PartialEq)]
    struct Weak(u16, u32);

    impl Item for Weak {
        type Key = u16;

        fn key(&self) -> u16 {
            self.0
        }

        fn hash(key: u16) -> u64 {
            let poor = u64::from(key % 40);
            poor << 32 | u64::from(key)
        }
    }

    /// Guards the packet path's look-up of services: whatever comes and goes, in pages whose keys collide, a map holds what
    /// a plain one holds, and a copy of an hour ago still holds what it held then.
    #[test]
    fn it_is_a_map_and_so_are_its_copies() {
        let steps = proptest::collection::vec((0u16..600, any::<bool>()), 1..1500);
        proptest!(ProptestConfig::with_cases(64), |(steps in steps)| {
            let (mut pages, mut plain) = (Pages::<Weak>::default(), HashMap::new());
            let mut kept = Vec::new();
            for (step, (key, adds)) in (0..).zip(steps) {
                if adds {
                    pages.insert(Weak(key, step));
                    plain.insert(key, Weak(key, step));
                } else {
                    prop_assert_eq!(pages.remove(key), plain.remove(&key));
                }
                if step % 250 == 0 {
                    kept.push((pages.clone(), plain.clone()));
                }
            }
            kept.push((pages, plain));
            for (pages, plain) in kept {
                prop_assert_eq!(pages.len(), plain.len());
                for key in 0..600 {
                    prop_assert_eq!(pages.get(key), plain.get(&key));
                }
            }
        });
    }

    /// Guards the cost of a change: it makes one page anew and leaves all others shared with the copies.
    #[test]
    fn a_change_copies_one_page() {
        let mut pages = Pages::<Weak>::default();
        (0..20_000).for_each(|key| pages.insert(Weak(key, 0)));
        let copy = pages.clone();
        let others = |pages: &Pages<Weak>| {
            pages.pages.iter().zip(&copy.pages).filter(|(page, old)| !Arc::ptr_eq(page, old)).count()
        };
        pages.insert(Weak(20_000, 1));
        assert_eq!(others(&pages), 1);
        pages.insert(Weak(7, 1));
        pages.remove(8);
        assert_eq!(others(&pages), 3);
    }
}
