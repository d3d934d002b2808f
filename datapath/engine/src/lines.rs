//! A flat, fixed-size array of cache lines of atomics: the memory under every shared table.
//!
//! Invariant: it never grows, never moves, and every line is 64-byte aligned. A fresh one is all zeros and untouched,
//! so an unused part costs no memory. It is not a data structure: who may write what is its user's business.

use std::sync::atomic::AtomicU64;

/// Words in a line.
pub const WORDS: usize = 8;

/// Bytes in a line, and its alignment.
const LINE: usize = WORDS * size_of::<u64>();

/// Cache lines of eight `AtomicU64`.
pub struct Lines {
    words: Box<[AtomicU64]>,
    skip: usize,
    count: usize,
}

impl Lines {
    /// This many lines, all zero.
    pub fn new(count: usize) -> Self {
        let words = bytemuck::zeroed_slice_box::<AtomicU64>((count + 1) * WORDS);
        let skip = (LINE - words.as_ptr().addr() % LINE) % LINE / size_of::<u64>();
        Lines { words, skip, count }
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
    #[inline]
    pub fn line(&self, index: usize) -> &[AtomicU64; WORDS] {
        self.span(index)
    }

    /// Two neighbouring lines, `index` and the next. Panics beyond the end.
    #[inline]
    pub fn pair(&self, index: usize) -> &[AtomicU64; 2 * WORDS] {
        self.span(index)
    }

    #[inline]
    fn span<const N: usize>(&self, index: usize) -> &[AtomicU64; N] {
        match self.words[self.skip + index * WORDS..].first_chunk() {
            Some(span) => span,
            None => panic!("line {index} of {}", self.count),
        }
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("count", &self.count).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that straddles two cache lines would cost every lookup a second miss.
    #[test]
    fn lines_are_aligned() {
        for count in [1, 2, 7, 1000] {
            let lines = Lines::new(count);
            for index in 0..count {
                assert_eq!(lines.line(index).as_ptr().addr() % LINE, 0);
            }
        }
    }
}
