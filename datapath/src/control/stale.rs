//! The addresses whose ways are to be found again: stretches of them, in the order in which they came into doubt.
//!
//! Invariant: no address waits twice, and none loses its turn when it comes into doubt again: news without end keep no
//! address from being looked at. Not here: who is at these addresses ([`ways`](super::ways)).

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use xvs_engine::flow::{Address, Family};

/// Stretches that are told apart. When there are more, everything is in doubt: to look at it is quicker then.
const STRETCHES_MAX: usize = 64;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// The first and the last address of each, as numbers.
    stretches: VecDeque<(u128, u128)>,
}

impl Stale {
    /// All of a prefix; that of length 0 is all of its family.
    pub(super) fn add_prefix(&mut self, prefix: Address, length: u8) {
        let width = if prefix.family() == Family::Inet { 32 } else { 128 };
        let host = u128::MAX.checked_shl(width - u32::from(length.min(width as u8))).map_or(u128::MAX, |mask| !mask);
        let first = prefix.bits() & !host;
        self.add(first, first | host);
    }

    /// All there are.
    pub(super) fn add_all(&mut self) {
        self.add(0, u128::MAX);
    }

    /// One address.
    pub(super) fn add_address(&mut self, address: Address) {
        self.add(address.bits(), address.bits());
    }

    fn add(&mut self, first: u128, last: u128) {
        let mut new = vec![(first, last)];
        for waiting in &self.stretches {
            new = new.into_iter().flat_map(|stretch| without(stretch, *waiting)).collect();
            if new.is_empty() {
                return;
            }
        }
        for (first, last) in new {
            match self.stretches.back_mut() {
                // So that a look at everything is one stretch again when it begins anew in the middle.
                Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
                _ => self.stretches.push_back((first, last)),
            }
        }
        if self.stretches.len() > STRETCHES_MAX {
            // The first one keeps its turn.
            self.stretches.truncate(1);
            self.add_all();
        }
    }

    /// The stretch whose turn it is.
    pub(super) fn first(&self) -> Option<RangeInclusive<Address>> {
        let &(first, last) = self.stretches.front()?;
        Some(Address::from_bits(first)..=Address::from_bits(last))
    }

    /// All addresses of that stretch up to this one have had their turn.
    pub(super) fn pass(&mut self, address: Address) {
        if let Some((first, last)) = self.stretches.pop_front()
            && let Some(next) = address.bits().checked_add(1).filter(|next| *next <= last)
        {
            self.stretches.push_front((first.max(next), last));
        }
    }
}

/// What is left of a stretch on both sides of another.
fn without((first, last): (u128, u128), (from, to): (u128, u128)) -> impl Iterator<Item = (u128, u128)> {
    let before = from.checked_sub(1).map(|end| (first, last.min(end)));
    let behind = to.checked_add(1).map(|begin| (first.max(begin), last));
    [before, behind].into_iter().flatten().filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn bits(text: &str) -> u128 {
        Address::from(text.parse::<std::net::IpAddr>().unwrap()).bits()
    }

    /// Guards what a route's news bring into doubt: all addresses of its prefix, at both ends, and no others.
    #[test]
    fn a_prefix_is_from_its_first_to_its_last_address() {
        let all = [
            ("10.64.3.4", 10, "10.64.0.0", "10.127.255.255"),
            ("0.0.0.0", 0, "0.0.0.0", "255.255.255.255"),
            ("192.0.2.7", 32, "192.0.2.7", "192.0.2.7"),
            ("2001:db8::1", 64, "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
            ("::", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ];
        for (prefix, length, first, last) in all {
            let mut stale = Stale::default();
            stale.add_prefix(Address::from_bits(bits(prefix)), length);
            assert_eq!(stale.stretches, [(bits(first), bits(last))], "{prefix}/{length}");
        }
    }

    /// Guards servers under a storm of news: one whose turn is near keeps it, however often all ways come into doubt.
    #[test]
    fn news_without_end_keep_no_address_waiting() {
        let mut stale = Stale::default();
        let mut turns = Vec::new();
        for address in (0..300).cycle().take(600) {
            stale.add(0, 299);
            assert!(stale.stretches.len() <= 2);
            turns.push(stale.stretches[0].0);
            stale.pass(Address::from_bits(stale.stretches[0].0));
            assert_eq!(turns.last(), Some(&address));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Guards the books of doubt: whatever comes, an address waits if it came into doubt after its last turn, and once
        /// only. Beyond the most stretches all do.
        #[test]
        fn an_address_waits_until_its_turn(
            steps in proptest::collection::vec((0u128..3000, 0u128..40, 0u128..60), 1..200),
        ) {
            let (mut stale, mut model) = (Stale::default(), BTreeSet::new());
            for (first, length, pass) in steps {
                let before = stale.stretches.len();
                stale.add(first, first + length);
                model.extend(first..=first + length);
                if stale.stretches.len() < before {
                    model.extend(0..4000);
                }
                if let Some(&(first, last)) = stale.stretches.front() {
                    let end = last.min(first + pass);
                    stale.pass(Address::from_bits(end));
                    model.retain(|address| !(first..=end).contains(address));
                }
                let waits: Vec<u128> = stale.stretches.iter().flat_map(|&(first, last)| first..=last.min(3999)).collect();
                let once: BTreeSet<u128> = waits.iter().copied().collect();
                prop_assert_eq!(once.len(), waits.len(), "nobody waits twice");
                model.retain(|address| *address < 4000);
                prop_assert_eq!(&once, &model);
            }
        }
    }
}
