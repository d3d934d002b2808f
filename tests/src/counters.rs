//! Named counters, and complete statements about what moved: these did, by so much, and nothing else did.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};
use serde_json::Value;

/// Deviations that an error shows; they tend to have one cause.
const SHOWN: usize = 6;

/// Counters by name, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    values: BTreeMap<String, i64>,
}

impl Counters {
    /// Every number in a JSON document, named by its path. Lists of named counts (`name` or `reason` beside the number)
    /// are named by those, other list elements by their position.
    pub fn from_json(json: &Value) -> Self {
        let mut counters = Counters::default();
        counters.collect("", json);
        counters
    }

    fn collect(&mut self, path: &str, json: &Value) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path} {key}") };
        match json {
            Value::Number(number) => {
                // Beyond i64 no counter of a test goes; such a value would be a fault worth seeing.
                self.values.insert(path.to_owned(), number.as_i64().unwrap_or(i64::MAX));
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.collect(&join(key), value);
                }
            }
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let name = element.get("name").or_else(|| element.get("reason")).and_then(Value::as_str);
                    let count = element.get("value").or_else(|| element.get("packets"));
                    match (name, count) {
                        (Some(name), Some(count)) => self.collect(&join(name), count),
                        (Some(name), None) => self.collect(&join(name), element),
                        _ => self.collect(&join(&index.to_string()), element),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }

    /// Sets a counter.
    pub fn set(&mut self, name: impl Into<String>, value: i64) {
        self.values.insert(name.into(), value);
    }

    /// The value of a counter; what does not exist is 0.
    pub fn get(&self, name: &str) -> i64 {
        self.values.get(name).copied().unwrap_or(0)
    }

    /// The sum of all.
    pub fn sum(&self) -> i64 {
        self.values.values().sum()
    }

    /// These counters and `others`, whose names get a prefix.
    pub fn with(mut self, prefix: &str, others: Counters) -> Self {
        self.values.extend(others.values.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        self
    }

    /// What moved from here to `later`.
    pub fn moved(&self, later: &Counters) -> Moved {
        let names = self.values.keys().chain(later.values.keys());
        let deltas = names.map(|name| (name.clone(), later.get(name) - self.get(name)));
        Moved { deltas: deltas.filter(|(_, delta)| *delta != 0).collect() }
    }
}

/// The counters that moved, and by how much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    deltas: BTreeMap<String, i64>,
}

impl Moved {
    /// Leaves out counters whose names start so.
    pub fn without(mut self, prefix: &str) -> Self {
        self.deltas.retain(|name, _| !name.starts_with(prefix));
        self
    }

    /// By how much a counter moved.
    pub fn by(&self, name: &str) -> i64 {
        self.deltas.get(name).copied().unwrap_or(0)
    }

    /// Demands that exactly these moved, each by so much, and no other.
    pub fn exactly<S: AsRef<str>>(&self, expected: &[(S, i64)]) -> Result<()> {
        let expected: BTreeMap<&str, i64> = expected.iter().map(|(name, delta)| (name.as_ref(), *delta)).collect();
        let mut wrong = Vec::new();
        for (name, wanted) in &expected {
            let got = self.by(name);
            if got != *wanted {
                wrong.push(format!("`{name}` moved by {got}, expected {wanted}"));
            }
        }
        for (name, got) in &self.deltas {
            if !expected.contains_key(name.as_str()) {
                wrong.push(format!("`{name}` moved by {got}, expected to stand still"));
            }
        }
        if !wrong.is_empty() {
            let more = wrong.len().saturating_sub(SHOWN);
            wrong.truncate(SHOWN);
            let and = if more > 0 { format!("; and {more} more") } else { String::new() };
            bail!("the counters tell another story: {}{and}", wrong.join("; "));
        }
        Ok(())
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.deltas.iter().map(|(name, delta)| format!("{name} {delta:+}")).collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_counter_that_nobody_expected_is_an_error() {
        let before = Counters::from_json(&json!([{"reason": "no-route", "packets": 1, "help": "x"}]));
        let after = Counters::from_json(&json!([{"reason": "no-route", "packets": 3, "help": "x"},
                                               {"reason": "ttl", "packets": 1, "help": "y"}]));
        let moved = before.moved(&after);
        assert!(moved.exactly(&[("no-route", 2), ("ttl", 1)]).is_ok());
        assert!(moved.exactly(&[("no-route", 2)]).is_err());
        assert!(moved.exactly(&[("no-route", 2), ("ttl", 1), ("other", 1)]).is_err());
        assert!(moved.without("ttl").exactly(&[("no-route", 2)]).is_ok());
    }
}
