//! Plugins in a configuration: `[[scheduler]]`, and what names and options must be like.
//!
//! Invariant: pure, like all rules. Whether a file is a plugin, only reading it tells; that is the director's work and
//! `xvs check`'s.

use std::collections::HashMap;
use std::path::PathBuf;

use super::document::SchedulerTable;
use super::problem::{Problems, did_you_mean, quote};
use crate::control::protocol::schedulers::{Grants, Options};

/// Longest name of a plugin in characters. IPVS stops at 15; `wasm:NAME` is a name of ours, which no kernel has to hold.
pub const NAME_MAX: usize = 32;

/// Most bytes of a service's options as the plugin reads them: `name=value`, a line each.
pub const OPTIONS_MAX: usize = 4096;

/// Longest name of an option in characters.
const OPTION_NAME_MAX: usize = 64;

/// A plugin that the file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFile {
    /// Its name.
    pub name: String,
    /// The module.
    pub file: PathBuf,
    /// What it may import.
    pub grants: Grants,
}

/// Can this be the name of a plugin?
///
/// # Errors
/// A sentence: what a name is like.
pub fn check_name(name: &str) -> Result<(), String> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if first && name.len() <= NAME_MAX && name.bytes().all(letter) {
        return Ok(());
    }
    Err(format!(
        "{} can not be the name of a plugin: it has 1 to {NAME_MAX} characters of a-z, 0-9, - and _, and begins with a \
         letter or a figure",
        quote(name)
    ))
}

/// Can these be the options of a service?
///
/// # Errors
/// A sentence: which one can not, or that there are too many.
pub fn check_options(options: &Options) -> Result<(), String> {
    for (name, value) in options {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > OPTION_NAME_MAX || !name.bytes().all(letter) {
            return Err(format!(
                "{} can not be the name of an option: it has 1 to {OPTION_NAME_MAX} letters, figures, -, _ and .",
                quote(name)
            ));
        }
        if value.contains(char::is_control) {
            return Err(format!("the value of option {name} has control characters: it is one line of text"));
        }
    }
    let length = text(options).len();
    if length > OPTIONS_MAX {
        return Err(format!("the options have {length} bytes as text: {OPTIONS_MAX} at most"));
    }
    Ok(())
}

/// Options as the plugin reads them: `name=value`, a line each, in the order of the names.
pub fn text(options: &Options) -> String {
    options.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// The plugins of a file, in its order.
pub(super) fn read(tables: &[SchedulerTable], problems: &mut Problems<'_>) -> Vec<PluginFile> {
    let mut first = HashMap::new();
    let mut plugins = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let path = format!("scheduler[{index}]");
        match &table.name {
            None => problems.push(format!("{path}.name"), "missing: which name? A service says wasm:NAME then"),
            Some(name) => {
                if let Err(message) = check_name(name) {
                    problems.push(format!("{path}.name"), message);
                }
                let before = *first.entry(name).or_insert(index);
                if before != index {
                    problems.push(format!("{path}.name"), format!("{} is scheduler[{before}] already", quote(name)));
                }
            }
        }
        if table.file.as_ref().is_none_or(|file| file.is_empty() || file.contains('\0')) {
            let message = "missing: which module, as in file = \"/etc/xvs/schedulers/mine.wasm\"?";
            problems.push(format!("{path}.file"), message);
        }
        let grants = read_grants(table.grants.as_deref().unwrap_or_default(), &path, problems);
        if let (Some(name), Some(file)) = (&table.name, &table.file) {
            plugins.push(PluginFile { name: name.clone(), file: file.into(), grants });
        }
    }
    plugins
}

fn read_grants(words: &[String], path: &str, problems: &mut Problems<'_>) -> Grants {
    let mut grants = Grants::default();
    for (index, word) in words.iter().enumerate() {
        match word.as_str() {
            "time" => grants.time = true,
            "random" => grants.random = true,
            "log" => grants.log = true,
            _ => {
                let hint = did_you_mean(word, &Grants::NAMES);
                let message = format!("nothing {}{hint} can be granted; there are: time, random, log", quote(word));
                problems.push(format!("{path}.grants[{index}]"), message);
            }
        }
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards names: what goes into a file's name, a command line and a listing without a second look.
    #[test]
    fn names_are_plain() {
        for name in ["a", "0", "least-response_2", &"x".repeat(NAME_MAX)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "-a", "_a", "A", "a.b", "a/b", "a b", "ä", &"x".repeat(NAME_MAX + 1)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    /// Guards the text that a plugin reads: a line an option, none of which can become two.
    #[test]
    fn options_are_lines() {
        let options = |pairs: &[(&str, &str)]| -> Options {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let right = options(&[("zone", "a b=c"), ("limit", "3")]);
        assert_eq!(check_options(&right), Ok(()));
        assert_eq!(text(&right), "limit=3\nzone=a b=c\n");
        let long = "x".repeat(OPTIONS_MAX);
        for wrong in [[("", "1")], [("a b", "1")], [("a=b", "1")], [("a", "1\nb=2")], [("a", &long)]] {
            assert!(check_options(&options(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
