//! Who answered how often, and what went wrong: the result of many requests.
//!
//! Invariant: every request ends in exactly one place, in `from` under the server's name or in `failures`.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Counted answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Answers by the name of the server that gave them.
    pub from: BTreeMap<String, u64>,
    /// Failed requests, by the sentence that says why.
    pub failures: BTreeMap<String, u64>,
}

/// An expected count of answers: exactly so many, or anything in a range.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// Exactly.
    Exactly(u64),
    /// From the first to the second, both included.
    Between(u64, u64),
}

impl Answers {
    /// Counts an answer of `server`.
    pub fn answered(&mut self, server: &str) {
        *self.from.entry(server.to_owned()).or_default() += 1;
    }

    /// Counts a failed request.
    pub fn failed(&mut self, why: impl fmt::Display) {
        *self.failures.entry(why.to_string()).or_default() += 1;
    }

    /// Counts `count` requests that were not made because those before them failed.
    pub fn given_up(&mut self, count: usize) {
        if count > 0 {
            *self.failures.entry("not asked after the failures before".to_owned()).or_default() += count as u64;
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Answers) {
        for (server, count) in &other.from {
            *self.from.entry(server.clone()).or_default() += count;
        }
        for (why, count) in &other.failures {
            *self.failures.entry(why.clone()).or_default() += count;
        }
    }

    /// What came since `earlier`, which must be a former state of the same counts.
    pub fn since(&self, earlier: &Answers) -> Answers {
        let minus = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            now.iter()
                .map(|(key, count)| (key.clone(), count - then.get(key).copied().unwrap_or(0)))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        Answers { from: minus(&self.from, &earlier.from), failures: minus(&self.failures, &earlier.failures) }
    }

    /// How often `server` answered.
    pub fn share(&self, server: &str) -> u64 {
        self.from.get(server).copied().unwrap_or(0)
    }

    /// Requests that were answered.
    pub fn total(&self) -> u64 {
        self.from.values().sum()
    }

    /// Requests that failed.
    pub fn failed_total(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Demands that no request failed and that at least one was made.
    pub fn all_answered(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{} of {} requests failed: {self}", self.failed_total(), self.requests());
        ensure!(self.total() > 0, "no request was made, so nothing was proven");
        Ok(())
    }

    /// Demands that no request failed and that exactly these servers answered, each within its expected count.
    pub fn are(&self, expected: &[(&str, Expected)]) -> Result<()> {
        self.all_answered()?;
        for (server, count) in expected {
            let got = self.share(server);
            let fits = match count {
                Expected::Exactly(wanted) => got == *wanted,
                Expected::Between(low, high) => (*low..=*high).contains(&got),
            };
            ensure!(fits, "{server} answered {got} times, expected {count:?}; all answers: {self}");
        }
        for server in self.from.keys() {
            ensure!(
                expected.iter().any(|(name, _)| name == server),
                "{server} answered uninvited; all answers: {self}"
            );
        }
        Ok(())
    }

    /// Demands that no request failed and that each of `servers`, and nobody else, answered `each` times.
    pub fn are_even(&self, servers: &[&str], each: u64) -> Result<()> {
        let expected: Vec<_> = servers.iter().map(|server| (*server, Expected::Exactly(each))).collect();
        self.are(&expected)
    }

    fn requests(&self) -> u64 {
        self.total() + self.failed_total()
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered = self.from.iter().map(|(server, count)| format!("{server}={count}"));
        let failed = self.failures.iter().map(|(why, count)| format!("failed={count} ({why})"));
        let parts: Vec<_> = answered.chain(failed).collect();
        if parts.is_empty() { f.write_str("no requests") } else { f.write_str(&parts.join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uninvited_server_and_a_failure_are_both_noticed() {
        let mut answers = Answers::default();
        answers.answered("rs1");
        answers.answered("rs2");
        assert!(answers.are_even(&["rs1", "rs2"], 1).is_ok());
        assert!(answers.are_even(&["rs1"], 1).is_err());
        answers.failed("connection refused");
        assert!(answers.are_even(&["rs1", "rs2"], 1).is_err());
        assert!(Answers::default().all_answered().is_err(), "an empty run proves nothing");
    }

    #[test]
    fn since_shows_only_what_came_later() {
        let mut answers = Answers::default();
        answers.answered("rs1");
        let earlier = answers.clone();
        answers.answered("rs2");
        assert_eq!(answers.since(&earlier).to_string(), "rs2=1");
    }
}
