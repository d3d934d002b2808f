//! `[[mark]]`: rules for firewall marks, from what is written to what is right.
//!
//! Invariant: what is given back has no problem that was not reported. The rules about rules are `rules.rs`'s.

use std::str::FromStr;

use super::document::MarkTable;
use super::problem::{Problems, quote};
use super::rules;
use crate::control::protocol::{MarkRule, Prefix};

/// The rules of a file, in its order.
pub(super) fn read(tables: &[MarkTable], problems: &mut Problems<'_>) -> Vec<MarkRule> {
    // The number of a rule in the file: one that can not be told leaves a gap.
    let mut numbers = Vec::with_capacity(tables.len());
    let mut marks = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        if let Some(rule) = read_mark(table, &format!("mark[{index}]"), problems) {
            numbers.push(index);
            marks.push(rule);
        }
    }
    for (number, violation) in rules::mark_violations(&marks) {
        let index = numbers.get(number).copied().unwrap_or_default();
        problems.push(format!("mark[{index}].{}", violation.field), violation.message);
    }
    marks
}

/// A rule for a mark; none, and a problem for each thing that is wrong, if it can not be told.
fn read_mark(table: &MarkTable, path: &str, problems: &mut Problems<'_>) -> Option<MarkRule> {
    let mark = match table.mark {
        None => {
            problems.push(format!("{path}.mark"), "missing: which mark? as in mark = 1");
            None
        }
        Some(mark) => u32::try_from(mark).ok().or_else(|| {
            problems.push(format!("{path}.mark"), format!("{mark} is out of range: 1 to {}", u32::MAX));
            None
        }),
    };
    if table.destination.is_none() {
        problems.push(format!("{path}.destination"), "missing: packets to where, as in \"192.0.2.0/24\"?");
    }
    let destination: Option<Option<Prefix>> = read_text(&table.destination, &format!("{path}.destination"), problems);
    let source = read_text(&table.source, &format!("{path}.source"), problems);
    let ports = read_text(&table.ports, &format!("{path}.ports"), problems);
    Some(MarkRule { mark: mark?, destination: destination??, source: source?, protocol: table.protocol, ports: ports? })
}

/// A value that is written as text: `None`, and a problem, if it is wrong.
fn read_text<T>(text: &Option<String>, path: &str, problems: &mut Problems<'_>) -> Option<Option<T>>
where
    T: FromStr<Err = String>,
{
    let Some(text) = text else { return Some(None) };
    match text.parse() {
        Ok(value) => Some(Some(value)),
        Err(message) => {
            problems.push(path, format!("{}: {message}", quote(text)));
            None
        }
    }
}
