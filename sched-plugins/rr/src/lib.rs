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

#[cfg(test)]
mod tests {
    use plugin_bench::List;

    use super::*;

    fn picks(scheduler: &mut RoundRobin, list: &List, times: usize) -> Vec<Option<usize>> {
        (0..times).map(|_| scheduler.pick(&Request::default(), list)).collect()
    }

    /// Every usable server in turn, and nobody else.
    #[test]
    fn one_after_the_other() {
        let list = List::plain(&[(1, 0, false), (0, 0, false), (9, 0, false), (1, 0, true)]);
        let mut scheduler = RoundRobin::default();
        assert_eq!(picks(&mut scheduler, &list, 4), [Some(0), Some(2), Some(0), Some(2)]);
        let nobody = List::plain(&[(0, 0, false), (1, 0, true)]);
        assert_eq!(picks(&mut scheduler, &nobody, 1), [None]);
        assert_eq!(picks(&mut scheduler, &List::plain(&[]), 1), [None]);
    }

    /// The cursor stays with its server while the list changes around it.
    #[test]
    fn the_cursor_follows_its_server() {
        let list = List::plain(&[(1, 0, false); 3]);
        let mut scheduler = RoundRobin::default();
        assert_eq!(picks(&mut scheduler, &list, 2), [Some(0), Some(1)]);
        let four = List::plain(&[(1, 0, false); 4]);
        scheduler.reals_changed(&four, Change::Added(0));
        assert_eq!(picks(&mut scheduler, &four, 1), [Some(3)]);
        scheduler.reals_changed(&list, Change::Removed(3));
        assert_eq!(picks(&mut scheduler, &list, 1), [Some(0)]);
        scheduler.reals_changed(&list, Change::All);
        assert_eq!(picks(&mut scheduler, &list, 1), [Some(0)]);
    }

    /// A list that shrank without a word must not lead beyond its end.
    #[test]
    fn a_shorter_list_is_safe() {
        let mut scheduler = RoundRobin::default();
        picks(&mut scheduler, &List::plain(&[(1, 0, false); 9]), 9);
        assert_eq!(picks(&mut scheduler, &List::plain(&[(1, 0, false); 2]), 1), [Some(0)]);
    }
}
