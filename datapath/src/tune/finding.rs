//! What was found about one item: how it is, what would be right and why, and what to do about it.
//!
//! Invariant: a finding with changes is one that `--apply` may carry out; whatever else helps is a command for people
//! alone. Not here: how the facts are had.

use std::io;

use serde::Serialize;

use super::setting::Setting;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and would work better otherwise.
    CouldBeBetter,
    /// Packets are lost or wrong, or the director does not start.
    Harmful,
    /// There is no such thing here.
    NotApplicable,
    /// It could not be found out.
    Unknown,
}

impl Verdict {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::CouldBeBetter => "could be better",
            Verdict::Harmful => "HARMFUL",
            Verdict::NotApplicable => "not applicable",
            Verdict::Unknown => "unknown",
        }
    }
}

/// A setting and the value that it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which one.
    pub setting: Setting,
    /// The value.
    pub to: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub verdict: Verdict,
    /// How it is now.
    pub now: String,
    /// What would be right, and why.
    pub right: String,
    /// Commands that make it so.
    pub by_hand: Vec<String>,
    /// What `--apply` would change.
    pub changes: Vec<Change>,
}

impl Finding {
    fn new(verdict: Verdict, now: impl Into<String>, right: impl Into<String>) -> Finding {
        Finding { verdict, now: now.into(), right: right.into(), by_hand: Vec::new(), changes: Vec::new() }
    }

    /// As it should be.
    pub fn good(now: impl Into<String>, right: impl Into<String>) -> Finding {
        Finding::new(Verdict::Good, now, right)
    }

    /// It could be better.
    pub fn better(now: impl Into<String>, right: impl Into<String>) -> Finding {
        Finding::new(Verdict::CouldBeBetter, now, right)
    }

    /// It does harm.
    pub fn harmful(now: impl Into<String>, right: impl Into<String>) -> Finding {
        Finding::new(Verdict::Harmful, now, right)
    }

    /// There is no such thing here.
    pub fn absent(now: impl Into<String>) -> Finding {
        Finding::new(Verdict::NotApplicable, now, "")
    }

    /// It can not be found out.
    pub fn unknown(now: impl Into<String>) -> Finding {
        Finding::new(Verdict::Unknown, now, "")
    }

    /// What an error says about an item.
    pub fn of_error(error: &io::Error) -> Finding {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENODATA) => Finding::absent("the driver has no such setting"),
            _ if error.kind() == io::ErrorKind::NotFound => Finding::absent("there is no such setting here"),
            _ => Finding::unknown(error.to_string()),
        }
    }

    /// With a change, and the command for it.
    pub fn change(mut self, interface: &str, setting: Setting, to: impl Into<String>) -> Finding {
        let to = to.into();
        self.by_hand.push(setting.by_hand(interface, &to));
        self.changes.push(Change { setting, to });
        self
    }

    /// With a command, or what to do in words, that only people should carry out.
    pub fn hand(mut self, command: impl Into<String>) -> Finding {
        self.by_hand.push(command.into());
        self
    }
}
