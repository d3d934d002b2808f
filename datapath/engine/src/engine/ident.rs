//! Identifications of the IP packets that the director makes itself: outer headers, fragments.
//!
//! Invariant: workers count in steps, so that two never give the same one at the same time.

use std::cell::Cell;

use super::Engine;

/// One worker's identifications.
#[derive(Debug)]
pub(super) struct Idents {
    last: Cell<u32>,
    step: u32,
}

impl Idents {
    /// Those of this worker of so many.
    pub(super) fn new(worker: u32, workers: u32) -> Self {
        Idents { last: Cell::new(worker), step: workers.max(1) }
    }
}

impl Engine {
    /// An identification for fragments that the director makes.
    #[inline]
    pub(crate) fn next_fragment_id(&self) -> u32 {
        let Idents { last, step } = &self.idents;
        last.set(last.get().wrapping_add(*step));
        last.get()
    }

    /// An identification for the outer header of a tunnel.
    #[inline]
    pub(super) fn next_ident(&self) -> u16 {
        self.next_fragment_id() as u16
    }
}
