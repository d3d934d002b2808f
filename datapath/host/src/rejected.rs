//! Why a module is not loaded, or the host does not start.
//!
//! Invariant: each problem is a sentence that says what is wrong and what would be right; all that can be found are told
//! at once. Not here: faults of a module that was loaded (`fault`).

use std::fmt;

use thiserror::Error;

/// What is wrong with a module.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Rejected {
    /// A sentence each; there is at least one.
    pub problems: Vec<String>,
}

impl Rejected {
    /// One problem.
    pub fn because(problem: impl Into<String>) -> Rejected {
        Rejected { problems: vec![problem.into()] }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

/// The machinery did not start.
#[derive(Clone, Debug, Error)]
#[error("the host of plugins can not start: {0}")]
pub struct HostError(pub(crate) String);
