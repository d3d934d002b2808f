//! Sets of CPUs as the kernel writes them: lists (`0-3,8`) and masks (`0000000f`).
//!
//! Invariant: sorted, each CPU once. Not here: which set is right.

use std::fmt;
use std::str::FromStr;

/// More CPUs than Linux can have.
const MOST: u32 = 8192;

/// A set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpus(Vec<u32>);

impl Cpus {
    /// These ones.
    pub fn new(cpus: impl IntoIterator<Item = u32>) -> Cpus {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Cpus(cpus)
    }

    /// Reads a mask: groups of 32 bits, the highest first.
    pub fn from_mask(text: &str) -> Option<Cpus> {
        let groups = text.trim().split(',').rev().map(|group| u32::from_str_radix(group, 16));
        let groups: Vec<u32> = groups.collect::<Result<_, _>>().ok()?;
        let bits = groups
            .iter()
            .zip(0..)
            .flat_map(|(group, at)| (0..32).filter(move |bit| group & (1 << bit) != 0).map(move |bit| at * 32 + bit));
        Some(Cpus(bits.collect()))
    }

    /// As a mask.
    pub fn mask(&self) -> String {
        let groups = self.0.last().map_or(1, |last| last / 32 + 1);
        let group =
            |at: u32| self.0.iter().filter(|cpu| **cpu / 32 == at).fold(0_u32, |all, cpu| all | 1 << (cpu % 32));
        let mut groups = (0..groups).rev().map(group);
        let first = format!("{:x}", groups.next().unwrap_or(0));
        groups.fold(first, |text, group| format!("{text},{group:08x}"))
    }

    /// In order.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of these are in `other`.
    pub fn within(&self, other: &Cpus) -> bool {
        self.0.iter().all(|cpu| other.0.contains(cpu))
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let wrong = || format!("{text:?} is no list of CPUs, as in 0-3,8");
        let mut cpus = Vec::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) =
                (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
            if first > last || last >= MOST {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(Cpus::new(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        while let [first, ..] = rest {
            let length = rest.iter().zip(*first..).take_while(|(cpu, expected)| *cpu == expected).count();
            let comma = if rest.len() == self.0.len() { "" } else { "," };
            match length {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", rest[length - 1])?,
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards lists and masks both ways, across groups of 32.
    #[test]
    fn lists_and_masks() {
        for (list, mask) in [("0", "1"), ("0-3,8", "10f"), ("1,33", "2,00000002"), ("31-32", "1,80000000"), ("", "0")] {
            let cpus: Cpus = list.parse().expect("a list");
            assert_eq!((cpus.to_string().as_str(), cpus.mask().as_str()), (list, mask));
            assert_eq!(Cpus::from_mask(mask), Some(cpus));
        }
        assert_eq!(Cpus::from_mask("00000000,00000003"), Some(Cpus::new([0, 1])), "with the kernel's zeros");
        for wrong in ["a", "3-1", "1-", "-1", "0-99999999"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong}");
        }
    }
}
