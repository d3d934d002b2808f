//! The list of servers of one call, as a scheduler sees it: rows and facts that the director wrote.
//!
//! Invariant: an index beyond the list is a trap (a panic natively), as [`Reals`] has it; facts that a scheduler did not ask
//! for are all zero. Not here: where rows and facts are, and how many of them count (`guest`).

use crate::abi::{self, Row};
use crate::{Facts, Reals};

/// The rows and facts of a call, as a scheduler sees them. Without the need of facts there are none, and addresses are
/// zero; [`id`](Reals::id) is always there.
pub(crate) struct View<'a> {
    pub(crate) rows: &'a [Row],
    pub(crate) facts: &'a [abi::Facts],
}

impl View<'_> {
    #[inline(always)]
    fn row(&self, index: usize) -> &Row {
        match self.rows.get(index) {
            Some(row) => row,
            None => beyond(),
        }
    }
}

/// The trap for a look beyond the list: at once, because a panic's message would be most of a small module.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
fn beyond() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
#[cold]
fn beyond() -> ! {
    panic!("an index beyond the list of servers")
}

impl Reals for View<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline(always)]
    fn weight(&self, index: usize) -> i32 {
        self.row(index).weight
    }

    #[inline(always)]
    fn active(&self, index: usize) -> u32 {
        self.row(index).active
    }

    #[inline(always)]
    fn total(&self, index: usize) -> u32 {
        self.row(index).total
    }

    #[inline(always)]
    fn is_overloaded(&self, index: usize) -> bool {
        self.row(index).flags & abi::ROW_OVERLOADED != 0
    }

    #[inline(always)]
    fn is_usable(&self, index: usize) -> bool {
        self.row(index).flags & abi::ROW_USABLE != 0
    }

    #[inline(always)]
    fn last_weight(&self, index: usize) -> i32 {
        self.row(index).last_weight
    }

    #[inline(always)]
    fn id(&self, index: usize) -> u64 {
        self.row(index).id
    }

    fn address(&self, index: usize) -> ([u8; 16], u16) {
        self.facts.get(index).map_or(([0; 16], 0), |facts| (facts.address, facts.port))
    }

    #[inline(always)]
    fn facts(&self, index: usize) -> Facts<'_> {
        self.facts.get(index).map_or(Facts::default(), |facts| Facts {
            upper: facts.upper,
            lower: facts.lower,
            conns_per_s: facts.conns_per_s,
            packets_in: facts.packets_in,
            packets_out: facts.packets_out,
            bytes_in: facts.bytes_in,
            bytes_out: facts.bytes_out,
            metric: facts.metric,
            tags: &facts.tags[..abi::TAGS_MAX.min(facts.tags_len as usize)],
        })
    }
}
