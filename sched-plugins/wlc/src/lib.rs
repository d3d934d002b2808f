//! `wlc`: the server with the least load in proportion to its weight. The director's own `wlc`, as a plugin.
//!
//! Load is [`Reals::overhead`]: an active connection counts 257, an inactive one 1. A later server in the list must be
//! strictly better, so the newest wins among equals.
//!
//! Invariant: it remembers nothing, and picks what the built-in `wlc` picks. Two products are compared instead of two
//! quotients; they fit into 64 bits until a server has 2^25 active connections, and then 128 bits are used.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Needs, Reals, Request, Scheduler};

/// `wlc` has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    const NEEDS: Needs = Needs::COUNTS;

    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        // A server that can bear nothing and bears something: every usable one is better than this.
        let (mut picked, mut cost, mut weight) = (usize::MAX, 1u64, 0u64);
        let mut seen = 0;
        for index in 0..reals.len() {
            let own_cost = reals.overhead(index);
            let own_weight = bearing(reals, index);
            seen |= own_cost;
            if own_cost.wrapping_mul(weight) < cost.wrapping_mul(own_weight) {
                picked = index;
                cost = own_cost;
                weight = own_weight;
            }
        }
        if seen >> 33 != 0 {
            return pick_wide(reals);
        }
        Some(picked).filter(|&index| index != usize::MAX)
    }
}

/// The weight of a usable server, else 0: one of weight 0 is never better than another. A mask and not a branch, since
/// the director counts fuel from branch to branch.
#[inline(always)]
fn bearing<R: Reals + ?Sized>(reals: &R, index: usize) -> u64 {
    let all_or_none = u32::from(reals.is_usable(index)).wrapping_neg();
    u64::from(reals.weight(index) as u32 & all_or_none)
}

/// The same with numbers that do not fit into 64 bits.
#[cold]
#[inline(never)]
fn pick_wide<R: Reals + ?Sized>(reals: &R) -> Option<usize> {
    let (mut picked, mut cost, mut weight) = (None, 1u128, 0u128);
    for index in 0..reals.len() {
        let own_cost = u128::from(reals.overhead(index));
        let own_weight = u128::from(bearing(reals, index));
        if own_cost * weight < cost * own_weight {
            picked = Some(index);
            cost = own_cost;
            weight = own_weight;
        }
    }
    picked
}

export_scheduler!(WeightedLeastConnection);

#[cfg(test)]
mod tests {
    use plugin_bench::List;

    use super::*;

    fn pick(list: &List) -> Option<usize> {
        WeightedLeastConnection.pick(&Request::default(), list)
    }

    /// Connections that never close spread as the weights.
    #[test]
    fn shares_follow_the_weights() {
        let mut list = List::plain(&[(3, 0, false), (2, 0, false), (1, 0, false)]);
        for _ in 0..600 {
            let index = pick(&list).unwrap();
            list.0[index].active += 1;
            list.0[index].total += 1;
        }
        assert_eq!(list.0.iter().map(|server| server.active).collect::<Vec<_>>(), [300, 200, 100]);
    }

    /// Among equals the newest wins, and idle servers are equals whatever their weights.
    #[test]
    fn the_newest_of_equals_wins() {
        assert_eq!(pick(&List::plain(&[(1, 0, false), (900, 0, false)])), Some(0));
        assert_eq!(pick(&List::plain(&[(2, 4, false), (1, 2, false)])), Some(0));
    }

    /// Who may get nothing gets nothing, even if idle.
    #[test]
    fn unusable_servers_never_win() {
        assert_eq!(pick(&List::plain(&[(0, 0, false), (5, 0, true), (1, 99, false)])), Some(2));
        assert_eq!(pick(&List::plain(&[(0, 0, false), (5, 0, true)])), None);
        assert_eq!(pick(&List::plain(&[])), None);
    }

    /// Products beyond 64 bits are compared as they are: a wrapped one would look small.
    #[test]
    fn the_largest_numbers_compare() {
        let list = List::plain(&[(i32::MAX - 1, u32::MAX, false), (i32::MAX, u32::MAX, false)]);
        assert_eq!(pick(&list), Some(1));
        let list = List::plain(&[(1, 1 << 25, false), (i32::MAX, 1 << 26, false), (1, 1, false)]);
        assert_eq!(pick(&list), Some(1));
    }
}
