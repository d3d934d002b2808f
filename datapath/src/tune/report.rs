//! What was found and done, as text and as JSON.
//!
//! Invariant: an item that is as it should be takes one line; one that is not takes as many as are needed to act.

use std::fmt::Write;
use std::path::Path;

use super::finding::Verdict;
use super::restore::{Fate, Restored};
use super::survey::{Done, Entry, Section, Survey};

/// Columns of a line.
const WIDTH: usize = 118;
/// Columns before the text of an item.
const INDENT: usize = 6;

pub(super) fn json(survey: &Survey) -> serde_json::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(&survey.sections)?))
}

/// `back` is the command that puts changes back; none if nothing was to be changed.
pub(super) fn text(survey: &Survey, back: Option<&str>) -> String {
    let mut text = String::new();
    for section in &survey.sections {
        told(&mut text, section, back.is_some());
    }
    text.push_str(&summary(survey, back));
    text
}

fn told(text: &mut String, section: &Section, applied: bool) {
    let _ = writeln!(text, "{}", section.interface.as_deref().unwrap_or("the machine"));
    if let Some(error) = &section.error {
        let _ = writeln!(text, "  {error}");
    }
    let width = section.items.iter().map(|entry| entry.item.len()).max().unwrap_or(0);
    for entry in &section.items {
        item(text, entry, width, applied);
    }
    text.push('\n');
}

fn item(text: &mut String, entry: &Entry, width: usize, applied: bool) {
    let (item, finding) = (entry.item, &entry.finding);
    let head = format!("  {item:width$}  {:15}  ", finding.verdict.words());
    wrapped(text, &head, &finding.now, head.len());
    if !matches!(finding.verdict, Verdict::CouldBeBetter | Verdict::Harmful) {
        return;
    }
    wrapped(text, &format!("{:INDENT$}right: ", ""), &finding.right, INDENT + 7);
    if applied && !entry.done.is_empty() {
        entry.done.iter().for_each(|done| change(text, done));
        return;
    }
    for command in &finding.by_hand {
        let _ = writeln!(text, "{:INDENT$}by hand: {command}", "");
    }
    if applied {
        let _ = writeln!(text, "{:INDENT$}not changed: it is left to you", "");
    }
}

fn change(text: &mut String, done: &Done) {
    let Done { setting, before, asked, after, error, .. } = done;
    let (before, asked) = (short(before), short(asked));
    let line = match (after, error) {
        (Some(after), None) if short(after) == asked => format!("changed: {setting}: {before} -> {asked}"),
        (Some(after), None) => format!("changed: {setting}: {before} -> {} (asked for {asked})", short(after)),
        (Some(after), Some(error)) => format!("CHANGED IN PART: {setting}: {before} -> {} ({error})", short(after)),
        (None, error) => format!("NOT CHANGED: {setting}: {}", error.as_deref().unwrap_or_default()),
    };
    wrapped(text, &format!("{:INDENT$}", ""), &line, INDENT + 2);
}

/// A value on a line: an indirection table is too long for one.
fn short(value: &str) -> String {
    let words: Vec<&str> = value.split(' ').collect();
    match words.len() {
        0..=12 if value.is_empty() => "empty".to_owned(),
        0..=12 => value.to_owned(),
        count => format!("{} ... ({count} entries)", words[..8].join(" ")),
    }
}

fn summary(survey: &Survey, back: Option<&str>) -> String {
    let count = |verdict| survey.count(verdict);
    let mut line = format!(
        "{} good, {} could be better, {} harmful, {} not applicable, {} unknown",
        count(Verdict::Good),
        count(Verdict::CouldBeBetter),
        count(Verdict::Harmful),
        count(Verdict::NotApplicable),
        count(Verdict::Unknown)
    );
    if let Some(back) = back {
        let made = survey.done().filter(|done| done.error.is_none()).count();
        let failed = survey.done().count() - made;
        let _ = match (made, failed) {
            (0, 0) => write!(line, "; nothing to change"),
            (made, 0) => write!(line, "; {made} changed (`{back}` puts them back)"),
            (made, failed) => write!(line, "; {made} changed, {failed} not (`{back}` puts the {made} back)"),
        };
    } else if survey.entries().any(|entry| !entry.finding.changes.is_empty()) {
        line.push_str("; nothing was changed, --apply does");
    }
    line + "\n"
}

/// `state` is the file that changes are noted in.
pub(super) fn restored(all: &[Restored], state: &Path) -> String {
    if all.is_empty() {
        return format!("nothing to put back: no change is noted in {}\n", state.display());
    }
    let mut text = String::new();
    for Restored { record, fate } in all {
        let place = record.interface.as_deref().unwrap_or("the machine");
        let setting = record.setting.name();
        let (before, after) = (short(&record.before), short(&record.after));
        let line = match fate {
            Fate::Restored => format!("{place}: {setting}: {after} -> {before}"),
            Fate::AlreadyBack => format!("{place}: {setting}: {before} already"),
            Fate::ChangedMeanwhile { now } => format!(
                "{place}: {setting}: LEFT ALONE: it is {} now, --apply made it {after} (from {before}): somebody changed it \
                 meanwhile",
                short(now)
            ),
            Fate::Gone => {
                format!("{place}: {setting}: GONE: there is no such device or setting any more (it was {before})")
            }
            Fate::Failed { error, .. } => format!("{place}: {setting}: NOT PUT BACK: {error} (it was {before})"),
        };
        wrapped(&mut text, "", &line, 2);
    }
    text
}

/// A paragraph, cut at blanks; lines after the first begin after so many columns.
fn wrapped(text: &mut String, head: &str, words: &str, indent: usize) {
    let mut line = head.to_owned();
    for word in words.split_whitespace() {
        let begun = !line.trim_end().is_empty() && !line.ends_with(' ');
        if begun && line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(indent);
            line.push_str(word);
        } else {
            if begun {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}
