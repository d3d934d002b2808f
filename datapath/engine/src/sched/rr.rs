//! `rr`: one after the other.
//!
//! A cursor walks the list; the next usable server behind it gets the connection. After the last one the walk begins
//! again at the head, so a server added meanwhile (at the head) is served when the cursor wraps. Weights count only as
//! "above 0". When the server under the cursor is removed, the cursor steps back, so that its successor is next.

use xvs_sdk::{Change, Reals, Request, Scheduler};

/// State of `rr`.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// The server that was served last; `None` stands before the head of the list.
    cursor: Option<usize>,
}

impl Scheduler for RoundRobin {
    fn reals_changed<R: Reals + ?Sized>(&mut self, _reals: &R, change: Change) {
        self.cursor = super::follow(self.cursor, change);
    }

    #[inline]
    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        let first = self.cursor.map_or(0, |cursor| cursor + 1);
        let is_usable = |index: &usize| reals.is_usable(*index);
        let picked = (first..reals.len()).find(is_usable).or_else(|| (0..first.min(reals.len())).find(is_usable))?;
        self.cursor = Some(picked);
        Some(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, picks};
    use super::*;

    /// IPVS-REFERENCE 2.1 [V]: three equal servers, newest first.
    #[test]
    fn serves_newest_first_and_wraps() {
        let mut bench = Bench::new(RoundRobin::default(), &[("A", 1), ("B", 1), ("C", 1)]);
        assert_eq!(picks(&mut bench, 5), "CBACB");
    }

    /// IPVS-REFERENCE 2.1 [V]: removing the server under the cursor serves its successor next.
    #[test]
    fn removal_steps_the_cursor_back() {
        let mut bench = Bench::new(RoundRobin::default(), &[("A", 1), ("B", 1), ("C", 1)]);
        assert_eq!(picks(&mut bench, 2), "CB");
        bench.remove("B");
        assert_eq!(picks(&mut bench, 3), "ACA");
    }

    /// IPVS-REFERENCE 2.1 [V]: a server added at the head waits for the wrap.
    #[test]
    fn an_added_server_waits_for_the_wrap() {
        let mut bench = Bench::new(RoundRobin::default(), &[("A", 1), ("B", 1), ("C", 1)]);
        assert_eq!(picks(&mut bench, 2), "CB");
        bench.add("D", 1);
        assert_eq!(picks(&mut bench, 5), "ADCBA");
    }

    /// A quiesced server gets nothing; all quiesced means none.
    #[test]
    fn quiesced_servers_are_skipped() {
        let mut bench = Bench::new(RoundRobin::default(), &[("A", 1), ("B", 0), ("C", 1)]);
        assert_eq!(picks(&mut bench, 4), "CACA");
        bench.edit("A", 0);
        bench.edit("C", 0);
        assert_eq!(picks(&mut bench, 2), "--");
    }
}
