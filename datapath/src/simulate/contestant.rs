//! A scheduler that takes part: `NAME` or `LABEL=NAME`, with its options.
//!
//! Invariant: no two of them have the same label, and each is known to exist before anything is simulated.

use xvs_engine::sched::Builtin;

use crate::config::problem::{did_you_mean, quote};
use crate::config::rules;
use crate::control::protocol::SchedFlags;

use super::error::SimulateError;

/// Most schedulers of one simulation: there are colours for so many.
pub(super) const MOST: usize = 8;

/// A scheduler that takes part.
#[derive(Clone, Debug)]
pub(super) struct Contestant {
    label: String,
    builtin: Builtin,
    flags: SchedFlags,
}

/// An option: whose, its name and its value.
type Choice<'w> = (&'w str, &'w str, &'w str);

impl Contestant {
    /// All that the command line names. `configured` is a service's scheduler and its flags, which are in force where
    /// no option says otherwise.
    ///
    /// # Errors
    /// One does not exist, or its options are not its own.
    pub(super) fn all(
        words: &[String],
        options: &[String],
        configured: Option<(&str, SchedFlags)>,
    ) -> Result<Vec<Contestant>, SimulateError> {
        let mut contestants: Vec<Contestant> = Vec::with_capacity(words.len());
        if words.len() > MOST {
            return Err(SimulateError::Usage(format!("{} schedulers are too many: at most {MOST}", words.len())));
        }
        let choices = options.iter().map(|option| choice(option)).collect::<Result<Vec<_>, _>>()?;
        for word in words {
            let (label, name) = word.split_once('=').unwrap_or((word, word));
            if contestants.iter().any(|other| other.label == label) {
                let what = format!("two schedulers are called {label}: name one of them, as in --scheduler other={name}");
                return Err(SimulateError::Usage(what));
            }
            let own: Vec<_> = choices.iter().filter(|(whose, ..)| *whose == label).copied().collect();
            contestants.push(Contestant::read(label, name, &own, configured)?);
        }
        if let Some((whose, ..)) = choices.iter().find(|(whose, ..)| contestants.iter().all(|one| one.label != *whose)) {
            let what = format!("--options {whose}:...: no --scheduler is called {}", quote(whose));
            return Err(SimulateError::Usage(what));
        }
        Ok(contestants)
    }

    fn read(
        label: &str,
        name: &str,
        options: &[Choice<'_>],
        configured: Option<(&str, SchedFlags)>,
    ) -> Result<Contestant, SimulateError> {
        let usage = SimulateError::Usage;
        let builtin = Builtin::from_name(name).ok_or_else(|| {
            let near = did_you_mean(name, Builtin::NAMES);
            usage(format!("there is no scheduler {}{near}; there are: {}", quote(name), Builtin::NAMES.join(", ")))
        })?;
        let mut flags = configured.filter(|(scheduler, _)| *scheduler == name).map(|(_, flags)| flags).unwrap_or_default();
        for (_, option, value) in options {
            if *option != "flags" {
                return Err(usage(format!("{name} has one option, flags, and no {}", quote(option))));
            }
            let names = value.split('+').filter(|name| !name.is_empty());
            flags = rules::flags_by_name(name, names).map_err(|what| usage(format!("--options {label}: {what}")))?;
        }
        Ok(Contestant { label: label.to_owned(), builtin, flags })
    }

    /// What the report calls it.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The scheduler's own name.
    pub(super) fn name(&self) -> &str {
        self.builtin.name()
    }

    /// Its options in words; empty without any.
    pub(super) fn options(&self) -> String {
        rules::flag_names(self.builtin.name(), self.flags).join("+")
    }

    /// A scheduler without state.
    pub(super) fn scheduler(&self) -> Builtin {
        self.builtin.clone()
    }

    /// The service's scheduler flags.
    pub(super) fn flags(&self) -> u8 {
        u8::from(self.flags.one) | u8::from(self.flags.two) << 1 | u8::from(self.flags.three) << 2
    }
}

/// `NAME:OPTION=VALUE`
fn choice(text: &str) -> Result<Choice<'_>, SimulateError> {
    let parts = text.split_once(':').and_then(|(whose, rest)| {
        let (option, value) = rest.split_once('=')?;
        Some((whose, option, value))
    });
    parts.ok_or_else(|| SimulateError::Usage(format!("--options {text}: it must be NAME:OPTION=VALUE, as in mh:flags=mh-port")))
}
