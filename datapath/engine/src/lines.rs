//! A flat, fixed-size array of cache lines of atomics: the memory under every shared table.
//!
//! It comes from the kernel as zeroed pages, with huge ones asked for, because a table of a million connections has more
//! small pages than a processor remembers the places of. A fresh page is untouched, so an unused part costs no memory.
//!
//! Invariant: it never grows, never moves, and every line is 64-byte aligned. It is not a data structure: who may write
//! what is its user's business.

// The one home of unsafe code in the engine (decision record 0014).
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapMut};

/// Words in a line.
pub const WORDS: usize = 8;

/// A cache line.
pub type Line = [AtomicU64; WORDS];

/// From this size on, huge pages are worth their while: two of them.
const LARGE: usize = 4 << 20;

/// Cache lines of eight `AtomicU64`.
pub struct Lines {
    memory: MmapMut,
    count: usize,
    /// The last line's number.
    last: usize,
}

impl Lines {
    /// This many lines, all zero. Panics if the kernel has no room for them.
    pub fn new(count: usize) -> Self {
        let bytes = count.max(1) * size_of::<Line>();
        let memory = match MmapMut::map_anon(bytes) {
            Ok(memory) => memory,
            Err(error) => panic!("{bytes} bytes of memory: {error}"),
        };
        if bytes >= LARGE {
            // A kernel without huge pages gives small ones.
            let _ = memory.advise(Advice::HugePage);
        }
        Lines { memory, count, last: count.max(1) - 1 }
    }

    /// Has the kernel give the memory of some lines, which otherwise it gives to who touches them first. They are as they were. A
    /// kernel that can not (before 5.14), or has none left, gives it then.
    pub fn populate(&self, lines: Range<usize>) {
        let [start, end] = [lines.start, lines.end].map(|line| line.min(self.count) * size_of::<Line>());
        if start < end {
            let _ = self.memory.advise_range(Advice::PopulateWrite, start, end - start);
        }
    }

    /// How many lines.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// No line at all?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One line. Panics beyond the end.
    #[inline(always)]
    pub fn line(&self, index: usize) -> &Line {
        assert!(index < self.count, "a line beyond the last one");
        // SAFETY: the mapping is page-aligned, has room for `count` lines, and lives as long as `self`. Zeros are values of
        // atomics, and nobody has another kind of reference to these bytes.
        unsafe { &*self.memory.as_ptr().cast::<Line>().add(index) }
    }

    /// One line, if there is one of this number.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&Line> {
        self.all().get(index)
    }

    /// One word, if there is one of this number.
    #[inline(always)]
    pub fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.all().as_flattened().get(index)
    }

    /// The line that the low bits of a number name: of as many lines as there are, which should be a power of two.
    #[inline(always)]
    pub fn wrapped(&self, bits: usize) -> &Line {
        self.wrapper()(bits)
    }

    /// The same for many, with where the lines are at hand.
    #[inline(always)]
    pub fn wrapper<'l>(&'l self) -> impl Fn(usize) -> &'l Line {
        let (first, last) = (self.memory.as_ptr().cast::<Line>(), self.last);
        // SAFETY: as for one line: whatever the bits, what is left of them is at most the last line's number (the mapping
        // has at least one line).
        move |bits| unsafe { &*first.add(bits & last) }
    }

    /// The words as two columns of the same length, at hand for a loop.
    #[inline(always)]
    pub fn columns(&self) -> Columns<'_> {
        // At least one line is there.
        let last = self.last * (WORDS / 2) + (WORDS / 2 - 1);
        Columns { first: self.memory.as_ptr().cast(), last, of: PhantomData }
    }

    /// All lines. A loop that has them at hand does not ask where they are for each.
    #[inline(always)]
    pub fn all(&self) -> &[Line] {
        // SAFETY: as for one line, and they lie one behind the other.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.count) }
    }

    /// Two neighbouring lines, if both are there.
    #[inline(always)]
    pub fn get_pair(&self, index: usize) -> Option<&[AtomicU64; 2 * WORDS]> {
        self.all().get(index..index.checked_add(2)?)?.as_flattened().first_chunk()
    }

    /// Two neighbouring lines, `index` and the next. Panics beyond the end.
    #[inline(always)]
    pub fn pair(&self, index: usize) -> &[AtomicU64; 2 * WORDS] {
        assert!(index.saturating_add(1) < self.count, "a line beyond the last one");
        // SAFETY: as for one line; both are inside, one behind the other.
        unsafe { &*self.memory.as_ptr().cast::<Line>().add(index).cast() }
    }

    /// Starts to bring a line into the cache. Nobody waits for it, and beyond the end nothing happens.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        if let Some(line) = self.get(index) {
            prefetch(line);
        }
    }

    /// The same for a line that will be written.
    #[inline(always)]
    pub fn prefetch_for_writing(&self, index: usize) {
        if let Some(line) = self.get(index) {
            prefetch_for_writing(line);
        }
    }
}

/// Two columns of words, the right one behind the left one in memory: see [`Lines::columns`].
#[derive(Clone, Copy, Debug)]
pub struct Columns<'l> {
    /// The left one's first word.
    first: *const AtomicU64,
    /// The last row's number.
    last: usize,
    of: PhantomData<&'l Lines>,
}

impl<'l> Columns<'l> {
    /// The row that the low bits of a number name, of as many rows as there are: four for each line, which should be a
    /// power of two.
    #[inline(always)]
    pub fn row(self, bits: usize) -> (&'l AtomicU64, &'l AtomicU64) {
        let row = bits & self.last;
        // SAFETY: whatever the bits, what is left of them is at most the last row's number, and the mapping has two words for
        // each row. It lives as long as the lines that are borrowed; else as for one line.
        unsafe { (&*self.first.add(row), &*self.first.add(self.last + 1).add(row)) }
    }
}

/// Starts to bring what is at an address, which need not be one, into the cache. Nobody waits for it.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing that a program could see, and fails silently at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(at);
}

/// The same for what will be written: nobody else has the line then.
#[inline(always)]
pub fn prefetch_for_writing<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: as for reading.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(at);
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("count", &self.count).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// A line that straddles two cache lines would cost every lookup a second miss; and each must be apart from the others.
    #[test]
    fn lines_are_aligned_zeroed_and_apart() {
        for count in [1, 2, 7, 1000, LARGE / 64 + 3] {
            let lines = Lines::new(count);
            for index in 0..count {
                let line = lines.line(index);
                assert_eq!(line.as_ptr().addr() % size_of::<Line>(), 0);
                assert!(line.iter().all(|word| word.swap(index as u64 + 1, Relaxed) == 0));
            }
            assert!(
                (0..count).all(|index| lines.line(index).iter().all(|word| word.load(Relaxed) == index as u64 + 1))
            );
            if count > 1 {
                let pair = lines.pair(count - 2).each_ref().map(|word| word.load(Relaxed) as usize);
                assert_eq!(pair, std::array::from_fn(|word| count - 1 + word / WORDS));
            }
        }
    }

    /// Two rows in one word would mix the counts of two servers; and a number beyond the end must stay inside.
    #[test]
    fn rows_of_columns_are_apart_and_wrap() {
        for count in [0, 1, 2, 64] {
            let lines = Lines::new(count);
            let rows = count.max(1) * WORDS / 2;
            for row in 0..rows {
                let (left, right) = lines.columns().row(row);
                assert_eq!((left.swap(row as u64 + 1, Relaxed), right.swap(row as u64 + 1000, Relaxed)), (0, 0));
            }
            for row in 0..rows {
                let (left, right) = lines.columns().row(row + 5 * rows);
                assert_eq!((left.load(Relaxed), right.load(Relaxed)), (row as u64 + 1, row as u64 + 1000));
            }
        }
        let three = Lines::new(3);
        for bits in (0..100).chain([usize::MAX]) {
            let (left, right) = three.columns().row(bits);
            assert!([left, right].iter().all(|word| (0..3).any(|line| three.line(line).as_ptr_range().contains(&std::ptr::from_ref(*word)))));
        }
    }

    /// The bounds are what stands between a wrong number and other memory.
    #[test]
    fn lines_beyond_the_end_are_refused() {
        let lines = Lines::new(64);
        let refused =
            |what: fn(&Lines)| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| what(&lines))).is_err();
        assert!(refused(|lines| assert!(!lines.line(64).is_empty())));
        assert!(refused(|lines| assert!(!lines.pair(63).is_empty())));
        assert!(refused(|lines| assert!(!lines.pair(usize::MAX).is_empty())));
        lines.prefetch(64);
        lines.prefetch(usize::MAX);
        assert!(Lines::new(0).is_empty());
    }
}
