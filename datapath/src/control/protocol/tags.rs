//! Tags of a server: what an operator says of it to plugins, as `zone=a,rack=7`.
//!
//! Invariant: a [`Tags`] is well formed: names in their order, none twice, neither `,` nor `=` nor control characters
//! in a name or a value, and [`Tags::MAX`] bytes at most. It is a plain value that can be copied, like the rest of a
//! server.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};

/// Tags of a server.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Tags(ArrayString<{ Tags::MAX }>);

impl Tags {
    /// Most bytes of all tags together.
    pub const MAX: usize = 112;

    /// Tags of these names and values.
    ///
    /// # Errors
    /// A sentence: which one can not be a tag, or that there are too many.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Tags, String> {
        let mut sorted = BTreeMap::new();
        for (name, value) in pairs {
            if name.is_empty() {
                return Err("a tag has a name, as in zone=a".to_owned());
            }
            let bad = |c: char| c == ',' || c == '=' || c.is_control();
            for part in [name, value] {
                if part.contains(bad) {
                    return Err(format!(
                        "{:?} can not be part of a tag: no comma, no equal sign, no control characters",
                        part
                    ));
                }
            }
            if sorted.insert(name, value).is_some() {
                return Err(format!("the tag {name:?} stands here twice"));
            }
        }
        let words: Vec<String> = sorted.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = words.join(",");
        let too_long = || format!("the tags have {} bytes as text: {} at most", text.len(), Tags::MAX);
        ArrayString::from(&text).map(Tags).map_err(|_| too_long())
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As text: `zone=a,rack=7`, in the order of the names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(',').filter_map(|word| word.split_once('='))
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tags({})", self.0)
    }
}

impl FromStr for Tags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |word: &str| format!("{word:?} is no tag: it is NAME=VALUE, as in zone=a");
        let words = text.split(',').filter(|word| !word.is_empty());
        let pairs: Result<Vec<_>, _> = words.map(|word| word.split_once('=').ok_or_else(|| wrong(word))).collect();
        Tags::new(pairs?)
    }
}

impl From<Tags> for String {
    fn from(tags: Tags) -> String {
        tags.to_string()
    }
}

impl TryFrom<String> for Tags {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the form that plugins read: sorted, one name once, never longer than its place.
    #[test]
    fn tags_are_sorted_and_bounded() {
        let tags: Tags = "zone=a,rack=7".parse().expect("right");
        assert_eq!(tags.as_str(), "rack=7,zone=a");
        assert_eq!(tags.pairs().collect::<Vec<_>>(), [("rack", "7"), ("zone", "a")]);
        for wrong in ["zone", "=a", "a=b=c", "a=1,a=2", "a=\n", &format!("a={}", "x".repeat(Tags::MAX - 1))] {
            assert!(wrong.parse::<Tags>().is_err(), "{wrong:?}");
        }
        assert!(format!("a={}", "x".repeat(Tags::MAX - 2)).parse::<Tags>().is_ok());
        assert!("".parse::<Tags>().is_ok_and(|tags| tags.is_empty()));
    }
}
