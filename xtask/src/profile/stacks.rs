//! Call stacks and how often each was seen.
//!
//! Invariant: a stack is not empty; its first frame is the outermost.

use std::collections::{BTreeMap, BTreeSet};

/// Stacks with their weights.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    counts: BTreeMap<Vec<String>, u64>,
}

impl Stacks {
    /// A stack was seen so often.
    pub(super) fn add(&mut self, stack: Vec<String>, count: u64) {
        if !stack.is_empty() && count > 0 {
            *self.counts.entry(stack).or_default() += count;
        }
    }

    /// All stacks, neighbours sorted together.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.counts.iter().map(|(stack, count)| (stack.as_slice(), *count))
    }

    /// The sum of all.
    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Functions with their own weight and that of all stacks that they are in, once each; the heaviest own first.
    pub(super) fn functions(&self) -> Vec<(&str, u64, u64)> {
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (stack, count) in self.iter() {
            for name in stack.iter().map(String::as_str).collect::<BTreeSet<_>>() {
                sums.entry(name).or_default().1 += count;
            }
            if let Some(last) = stack.last() {
                sums.entry(last).or_default().0 += count;
            }
        }
        let mut functions: Vec<_> = sums.into_iter().map(|(name, (own, all))| (name, own, all)).collect();
        functions.sort_by_key(|(name, own, all)| (std::cmp::Reverse((*own, *all)), *name));
        functions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the table: recursion counts once, and a caller's own weight is not that of what it calls.
    #[test]
    fn functions_are_summed() {
        let mut stacks = Stacks::default();
        let stack = |names: &str| names.split(' ').map(str::to_owned).collect::<Vec<_>>();
        stacks.add(stack("main a a b"), 5);
        stacks.add(stack("main a"), 2);
        stacks.add(stack("main a a b"), 1);
        stacks.add(Vec::new(), 9);
        assert_eq!(stacks.total(), 8);
        assert_eq!(stacks.functions(), [("b", 6, 6), ("a", 2, 8), ("main", 0, 8)]);
    }
}
