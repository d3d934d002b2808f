//! What a plugin may use, and what it may ask.
//!
//! Invariant: the defaults keep a packet from waiting longer than 50 us for a plugin, whatever the plugin does
//! (measured: `prices`).

use std::fmt;
use std::str::FromStr;

/// What plugins may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a module's file.
    pub module_bytes: usize,
    /// Bytes of an instance's memory.
    pub memory_bytes: usize,
    /// Bytes of the stack that WebAssembly runs on (not the stack in its memory, which is the plugin's).
    pub stack_bytes: usize,
    /// Most rows of a table.
    pub rows: usize,
    /// Fuel of a pick, whatever the number of servers.
    pub fuel_base: u64,
    /// Fuel of a pick for each server besides.
    pub fuel_per_row: u64,
    /// Most fuel of a pick.
    pub fuel_most: u64,
    /// Fuel of what does not run on a worker: configure, take in a new list, save and restore.
    pub fuel_setup: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            module_bytes: 1 << 20,
            memory_bytes: 2 << 20,
            stack_bytes: 64 << 10,
            rows: 4096,
            fuel_base: 2_000,
            fuel_per_row: 150,
            fuel_most: 45_000,
            fuel_setup: 200_000_000,
        }
    }
}

impl Limits {
    /// Fuel of a pick among so many servers.
    pub fn budget(&self, rows: usize) -> u64 {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.fuel_per_row.saturating_mul(rows).saturating_add(self.fuel_base).min(self.fuel_most)
    }
}

/// What an operator lets a plugin ask of the director. Written `time,random,log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grants {
    /// The time: import `now`.
    pub time: bool,
    /// Random numbers: import `random`.
    pub random: bool,
    /// Lines in the director's log: import `log`.
    pub log: bool,
}

impl Grants {
    /// Everything that can be granted.
    pub const ALL: Grants = Grants { time: true, random: true, log: true };
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.time, "time"), (self.random, "random"), (self.log, "log")];
        let words: Vec<&str> = words.iter().filter(|(granted, _)| *granted).map(|&(_, word)| word).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for Grants {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut grants = Grants::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "time" => grants.time = true,
                "random" => grants.random = true,
                "log" => grants.log = true,
                _ => return Err(format!("{word:?} can not be granted: what can is time, random and log")),
            }
        }
        Ok(grants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grants are written as they are read, and a wrong word is named with those that are right.
    #[test]
    fn grants_read_what_they_write() {
        for text in ["", "time", "time,log", "time,random,log"] {
            assert_eq!(text.parse::<Grants>().unwrap().to_string(), text);
        }
        assert_eq!(" log , time".parse::<Grants>().unwrap().to_string(), "time,log");
        assert!("time,disk".parse::<Grants>().unwrap_err().contains("\"disk\" can not be granted"));
    }

    /// The budget grows with the servers and never beyond its most.
    #[test]
    fn the_budget_has_an_end() {
        let limits = Limits::default();
        assert_eq!(limits.budget(0), limits.fuel_base);
        assert_eq!(limits.budget(2), limits.fuel_base + 2 * limits.fuel_per_row);
        assert_eq!(limits.budget(usize::MAX), limits.fuel_most);
    }
}
