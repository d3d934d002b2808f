//! Arguments into options, as popt splits them.
//!
//! Scripts rely on the finer points of that library, so they are kept: short options in a bundle (`-Ln`), a value
//! that sticks to its option (`-srr`, `-s=rr`, `--scheduler=rr`), an optional value that is taken only when the next
//! argument does not start with a dash, `--` before plain arguments, no abbreviations of long options.
//!
//! Invariant: every argument is consumed exactly once, as an option, as a value or as a plain argument.
//!
//! Not here: what the options mean, and whether they may stand together.

use super::options::{Dialect, Entry, Value, by_long, by_short};

/// An option and its value.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// The option.
    pub entry: &'static Entry,
    /// Its value. Always there if the option demands one.
    pub value: Option<&'a str>,
}

/// An option that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The option as it was typed, without a value.
    pub typed: String,
    /// What is wrong with it.
    pub kind: MistakeKind,
}

/// What is wrong with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MistakeKind {
    /// No such option.
    Unknown,
    /// It needs a value and the line is at its end.
    NoValue,
    /// It takes no value and was given one.
    UnwantedValue,
}

/// Reads options from left to right.
#[derive(Debug)]
pub struct Tokens<'a> {
    args: &'a [String],
    dialect: Dialect,
    next: usize,
    /// What is left of a bundle of short options.
    bundle: &'a str,
    /// After `--`: no more options.
    closed: bool,
    plain: Vec<&'a str>,
}

impl<'a> Tokens<'a> {
    /// Reads these arguments, which do not contain the program's name.
    pub fn new(args: &'a [String], dialect: Dialect) -> Self {
        Tokens { args, dialect, next: 0, bundle: "", closed: false, plain: Vec::new() }
    }

    /// The arguments that are neither options nor their values. Complete once the options have come to their end.
    pub fn into_plain(self) -> Vec<&'a str> {
        self.plain
    }

    fn long(&mut self, text: &'a str) -> Result<Token<'a>, Mistake> {
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match by_long(name, self.dialect) {
            Some(entry) => self.value(entry, format!("--{name}"), attached),
            None => Err(Mistake { typed: format!("--{name}"), kind: MistakeKind::Unknown }),
        }
    }

    fn short(&mut self, letter: char) -> Result<Token<'a>, Mistake> {
        let rest = &self.bundle[letter.len_utf8()..];
        self.bundle = "";
        let typed = format!("-{letter}");
        let Some(entry) = by_short(letter) else {
            return Err(Mistake { typed, kind: MistakeKind::Unknown });
        };
        match (entry.value, rest.strip_prefix('=')) {
            (Value::None, None) => {
                self.bundle = rest;
                Ok(Token { entry, value: None })
            }
            (_, Some(value)) => self.value(entry, typed, Some(value)),
            (_, None) if rest.is_empty() => self.value(entry, typed, None),
            (_, None) => self.value(entry, typed, Some(rest)),
        }
    }

    fn value(&mut self, entry: &'static Entry, typed: String, attached: Option<&'a str>) -> Result<Token<'a>, Mistake> {
        let following = self.args.get(self.next).map(String::as_str);
        match (entry.value, attached) {
            (Value::None, Some(_)) => Err(Mistake { typed, kind: MistakeKind::UnwantedValue }),
            (_, Some(value)) => Ok(Token { entry, value: Some(value) }),
            (Value::None, None) => Ok(Token { entry, value: None }),
            // A mandatory value may start with a dash: `-w -1` is the weight -1, and wrong for that reason.
            (Value::Required, None) if following.is_none() => Err(Mistake { typed, kind: MistakeKind::NoValue }),
            (Value::Optional, None) if following.is_none_or(|text| text.starts_with('-')) => {
                Ok(Token { entry, value: None })
            }
            (Value::Required | Value::Optional, None) => {
                self.next += 1;
                Ok(Token { entry, value: following })
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Token<'a>, Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.bundle.is_empty() {
            let arg = self.args.get(self.next)?;
            self.next += 1;
            if self.closed || arg == "-" || !arg.starts_with('-') {
                self.plain.push(arg);
            } else if arg == "--" {
                self.closed = true;
            } else if let Some(long) = arg.strip_prefix("--") {
                return Some(self.long(long));
            } else {
                self.bundle = &arg[1..];
            }
        }
        let letter = self.bundle.chars().next()?;
        Some(self.short(letter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> (Vec<String>, Vec<String>) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut tokens = Tokens::new(&args, Dialect::Ipvsadm);
        let options = tokens
            .by_ref()
            .map(|token| match token {
                Ok(Token { entry, value: None }) => entry.long.to_owned(),
                Ok(Token { entry, value: Some(value) }) => format!("{}={value}", entry.long),
                Err(Mistake { typed, kind }) => format!("{typed} {kind:?}"),
            })
            .collect();
        (options, tokens.into_plain().into_iter().map(str::to_owned).collect())
    }

    /// Guards the ways in which one option and its value may be written.
    #[test]
    fn values_in_all_spellings() {
        for args in [&["-s", "rr"][..], &["-srr"], &["-s=rr"], &["--scheduler", "rr"], &["--scheduler=rr"]] {
            assert_eq!(read(args).0, ["scheduler=rr"], "{args:?}");
        }
        assert_eq!(read(&["-Lnc"]).0, ["list", "numeric", "connection"]);
        assert_eq!(read(&["-nsrr"]).0, ["numeric", "scheduler=rr"]);
        assert_eq!(read(&["-s="]).0, ["scheduler="]);
    }

    /// Guards the optional value: taken when it looks like one, a negative number does not.
    #[test]
    fn optional_value() {
        assert_eq!(read(&["-p", "300"]).0, ["persistent=300"]);
        assert_eq!(read(&["-p300"]).0, ["persistent=300"]);
        assert_eq!(read(&["-p"]).0, ["persistent"]);
        assert_eq!(read(&["-p", "-o"]).0, ["persistent", "ops"]);
        assert_eq!(read(&["-p", "-1"]).0, ["persistent", "-1 Unknown"]);
        assert_eq!(read(&["-w", "-1"]).0, ["weight=-1"]);
    }

    /// Guards what is reported as wrong, and under which name.
    #[test]
    fn mistakes() {
        assert_eq!(read(&["--nosuch=3"]).0, ["--nosuch Unknown"]);
        assert_eq!(read(&["--tcp"]).0, ["--tcp Unknown"], "long options have no abbreviations");
        assert_eq!(read(&["-Lé"]).0, ["list", "-é Unknown"]);
        assert_eq!(read(&["-s"]).0, ["-s NoValue"]);
        assert_eq!(read(&["--list=3"]).0, ["--list UnwantedValue"]);
        assert_eq!(read(&["-n=3"]).0, ["-n UnwantedValue"]);
    }

    /// Guards that plain arguments are collected from everywhere and that `--` ends the options.
    #[test]
    fn plain_arguments() {
        let (options, plain) = read(&["--set", "1", "-n", "2", "-", "--", "-3"]);
        assert_eq!(options, ["set", "numeric"]);
        assert_eq!(plain, ["1", "2", "-", "-3"]);
    }
}
