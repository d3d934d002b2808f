//! `rr`: one after the other.
//!
//! A cursor walks the list; the next usable server behind it gets the connection. After the last one the walk begins
//! again at the head, so a server added meanwhile (at the head) is served when the cursor wraps. Weights count only as
//! "above 0". When the server under the cursor is removed, the cursor steps back, so that its successor is next.
//!
//! Invariant: the cursor is below the length of the list, or there is none. It looks at no counts and no facts.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Needs, Reals, Request, Scheduler};

/// State of `rr`.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// The server that was served last; none stands before the head of the list.
    cursor: Option<usize>,
}

impl Scheduler for RoundRobin {
    const NEEDS: Needs = Needs::NOTHING;

    fn reals_changed<R: Reals + ?Sized>(&mut self, _reals: &R, change: Change) {
        self.cursor = match (self.cursor, change) {
            (Some(_), Change::All) => None,
            (Some(cursor), Change::Added(index)) if index <= cursor => Some(cursor + 1),
            (Some(cursor), Change::Removed(index)) if index <= cursor => cursor.checked_sub(1),
            (cursor, _) => cursor,
        };
    }

    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        let first = self.cursor.map_or(0, |cursor| cursor + 1);
        let behind = (first..reals.len()).find(|&index| reals.is_usable(index));
        let picked = behind.or_else(|| (0..first.min(reals.len())).find(|&index| reals.is_usable(index)))?;
        self.cursor = Some(picked);
        Some(picked)
    }
}

export_scheduler!(RoundRobin);
