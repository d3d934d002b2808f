//! A scheduler that takes part: a built-in by `NAME`, or a plugin by its file; `LABEL=...` gives it another label.
//!
//! Invariant: no two of them have the same label, and each is known to exist, or was loaded and checked by the same host
//! as in a director, before anything is simulated. Plugins are granted all that can be: time is the simulation's, and
//! random numbers come from its seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xvs_engine::sched::Builtin;
use xvs_host::{Grants, Host, Limits, Version};

use crate::config::problem::{did_you_mean, quote};
use crate::config::rules;
use crate::control::protocol::SchedFlags;

use super::error::SimulateError;

/// Most schedulers of one simulation: there are colours for so many.
pub(super) const MOST: usize = 8;
/// What serves where a plugin does not.
const FALLBACK: &str = "wlc";

/// A scheduler that takes part.
#[derive(Clone, Debug)]
pub(super) struct Contestant {
    label: String,
    /// The native scheduler: of a plugin its fallback.
    builtin: Builtin,
    flags: SchedFlags,
    plugin: Option<Plugin>,
}

/// A plugin, loaded.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    /// Its file.
    pub(super) path: PathBuf,
    /// The module.
    pub(super) version: Arc<Version>,
    /// Its options, a line each.
    pub(super) options: String,
    /// Which random numbers it gets.
    pub(super) seed: u32,
}

/// An option: whose, its name and its value.
type Choice<'w> = (&'w str, &'w str, &'w str);

/// What all contestants are read with.
struct Reader<'a> {
    configured: Option<(&'a str, SchedFlags)>,
    seed: u64,
    /// Made for the first plugin.
    host: Option<Host>,
}

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
        seed: u64,
    ) -> Result<Vec<Contestant>, SimulateError> {
        let mut contestants: Vec<Contestant> = Vec::with_capacity(words.len());
        if words.len() > MOST {
            return Err(SimulateError::Usage(format!("{} schedulers are too many: at most {MOST}", words.len())));
        }
        let choices = options.iter().map(|option| choice(option)).collect::<Result<Vec<_>, _>>()?;
        let mut reader = Reader { configured, seed, host: None };
        for word in words {
            let (label, name) = split(word);
            if label.is_empty() || contestants.iter().any(|other| other.label == label) {
                let what = format!(
                    "two schedulers are called {}: name one of them, as in --scheduler other={name}",
                    quote(label)
                );
                return Err(SimulateError::Usage(what));
            }
            let own: Vec<_> = choices.iter().filter(|(whose, ..)| *whose == label).copied().collect();
            let contestant =
                if is_file(name) { reader.plugin(label, name, &own) } else { reader.builtin(label, name, &own) };
            contestants.push(contestant?);
        }
        if let Some((whose, ..)) = choices.iter().find(|(whose, ..)| contestants.iter().all(|one| one.label != *whose))
        {
            let what = format!("--options {whose}:...: no --scheduler is called {}", quote(whose));
            return Err(SimulateError::Usage(what));
        }
        Ok(contestants)
    }

    /// What the report calls it.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The scheduler's own name, or the plugin's file.
    pub(super) fn name(&self) -> String {
        match &self.plugin {
            Some(plugin) => plugin.path.display().to_string(),
            None => self.builtin.name().to_owned(),
        }
    }

    /// Its options in words; empty without any.
    pub(super) fn options(&self) -> String {
        match &self.plugin {
            Some(plugin) => plugin.options.replace('\n', ", "),
            None => rules::flag_names(self.builtin.name(), self.flags).join("+"),
        }
    }

    /// The native scheduler without state.
    pub(super) fn scheduler(&self) -> Builtin {
        self.builtin.clone()
    }

    /// The plugin, if it is one.
    pub(super) fn plugin(&self) -> Option<&Plugin> {
        self.plugin.as_ref()
    }

    /// The service's scheduler flags.
    pub(super) fn flags(&self) -> u8 {
        u8::from(self.flags.one) | u8::from(self.flags.two) << 1 | u8::from(self.flags.three) << 2
    }
}

impl Reader<'_> {
    fn builtin(&mut self, label: &str, name: &str, options: &[Choice<'_>]) -> Result<Contestant, SimulateError> {
        let usage = SimulateError::Usage;
        let builtin = named(name).map_err(usage)?;
        let own = self.configured.filter(|(scheduler, _)| *scheduler == name);
        let mut flags = own.map(|(_, flags)| flags).unwrap_or_default();
        for (_, option, value) in options {
            if *option != "flags" {
                return Err(usage(format!("{name} has one option, flags, and no {}", quote(option))));
            }
            let names = value.split('+').filter(|name| !name.is_empty());
            flags = rules::flags_by_name(name, names).map_err(|what| usage(format!("--options {label}: {what}")))?;
        }
        Ok(Contestant { label: label.to_owned(), builtin, flags, plugin: None })
    }

    fn plugin(&mut self, label: &str, file: &str, options: &[Choice<'_>]) -> Result<Contestant, SimulateError> {
        let path = PathBuf::from(file);
        let wrong = |what: String| SimulateError::Plugin { path: path.clone(), what };
        let bytes = std::fs::read(&path).map_err(|source| SimulateError::File { path: path.clone(), source })?;
        let host = match &mut self.host {
            Some(host) => host,
            none => none.insert(Host::new(Limits::default()).map_err(|error| wrong(error.to_string()))?),
        };
        let module = host.load(&bytes, Grants::ALL).map_err(|error| wrong(error.to_string()))?;
        let version = Arc::new(Version { name: label.to_owned(), number: 1, module });
        let options: BTreeMap<&str, &str> = options.iter().map(|(_, option, value)| (*option, *value)).collect();
        let lines: Vec<String> = options.iter().map(|(option, value)| format!("{option}={value}")).collect();
        let plugin = Plugin { path, version, options: lines.join("\n"), seed: self.seed as u32 };
        let builtin = named(FALLBACK).map_err(SimulateError::Usage)?;
        Ok(Contestant { label: label.to_owned(), builtin, flags: SchedFlags::default(), plugin: Some(plugin) })
    }
}

fn named(name: &str) -> Result<Builtin, String> {
    Builtin::from_name(name).ok_or_else(|| {
        let near = did_you_mean(name, Builtin::NAMES);
        let all = Builtin::NAMES.join(", ");
        format!(
            "there is no scheduler {}{near}; there are: {all}, and plugins by their files, as in ./mine.wasm",
            quote(name)
        )
    })
}

fn is_file(name: &str) -> bool {
    name.contains('/') || name.ends_with(".wasm")
}

/// Label and name. A plugin's label is its file's name, without what follows the point.
fn split(word: &str) -> (&str, &str) {
    match word.split_once('=') {
        Some((label, name)) if !label.contains('/') => (label, name),
        _ if is_file(word) => (Path::new(word).file_stem().and_then(|stem| stem.to_str()).unwrap_or(word), word),
        _ => (word, word),
    }
}

/// `NAME:OPTION=VALUE`
fn choice(text: &str) -> Result<Choice<'_>, SimulateError> {
    let parts = text.split_once(':').and_then(|(whose, rest)| {
        let (option, value) = rest.split_once('=')?;
        Some((whose, option, value))
    });
    parts.ok_or_else(|| {
        SimulateError::Usage(format!("--options {text}: it must be NAME:OPTION=VALUE, as in mh:flags=mh-port"))
    })
}
