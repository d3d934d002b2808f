//! What is wrong with a document, in words that a person can act on, and where it stands.
//!
//! Invariant: a [`Problem`] prints as one line, whatever the document held: text from outside is quoted, shortened
//! and escaped before it becomes part of a sentence. There are never more than [`PROBLEMS_MAX`] of them and one.
//!
//! Not here: the rules (`rules.rs`, `settings.rs`) and the reading (`reader.rs`). This file only collects and prints.

use std::collections::HashMap;
use std::fmt;

/// Problems that are listed before the rest is only counted. Nobody reads more of them at once, and a hostile document
/// must not turn a few megabytes into gigabytes of complaints.
pub const PROBLEMS_MAX: usize = 100;

/// Characters of foreign text that a message quotes. Enough to recognise a name or an address by.
const QUOTE_MAX: usize = 48;

/// Longest word for which a near miss is looked up. Every key and name of ours is shorter, and the search costs the
/// product of both lengths.
const NEAR_MAX: usize = 32;

/// A place in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Name of the file, if the document came from one.
    pub file: Option<String>,
    /// Where it stands, if it stands anywhere: a missing key has the place of the table that misses it.
    pub place: Option<Place>,
    /// The field, as in `service[1].server[0].weight`; indices count from 0. Empty for an error of syntax.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.place) {
            (Some(file), Some(place)) => write!(f, "{file}:{}:{}: ", place.line, place.column)?,
            (Some(file), None) => write!(f, "{file}: ")?,
            (None, Some(place)) => write!(f, "line {}, column {}: ", place.line, place.column)?,
            (None, None) => {}
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The text behind a document and where each of its fields begins: turns a field path into a [`Place`].
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    file: Option<String>,
    text: String,
    offsets: HashMap<String, usize>,
}

impl Source {
    pub(super) fn new(text: &str, file: &str) -> Self {
        let file = (!file.is_empty()).then(|| file.escape_debug().to_string());
        Source { file, text: text.to_owned(), offsets: HashMap::new() }
    }

    /// Remembers that the field `path` begins at byte `offset` of the text.
    pub(super) fn record(&mut self, path: String, offset: usize) {
        self.offsets.insert(path, offset);
    }

    /// The place of a byte of the text; none in a document that was not read from text.
    fn place_at(&self, offset: usize) -> Option<Place> {
        if self.text.is_empty() {
            return None;
        }
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Some(Place { line, column: before[start..].chars().count() + 1 })
    }

    /// Where a field begins, or the nearest table around it that the text does have.
    fn offset_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(offset) = self.offsets.get(path) {
                return Some(*offset);
            }
            // `a.b[2]` is a part of `a.b`, and that of `a`.
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Collects problems in the order in which they are found.
#[derive(Debug)]
pub(super) struct Problems<'s> {
    source: &'s Source,
    list: Vec<Problem>,
    notes: Vec<Problem>,
    unlisted: usize,
}

impl<'s> Problems<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        Problems { source, list: Vec::new(), notes: Vec::new(), unlisted: 0 }
    }

    /// A problem with the field `path`.
    pub(super) fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        let offset = self.source.offset_of(&path);
        self.push_at(offset, path, message);
    }

    /// Something about the field `path` that is right and should be known all the same.
    pub(super) fn note(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.notes.len() < PROBLEMS_MAX {
            let path = path.into();
            let offset = self.source.offset_of(&path);
            let note = self.place(offset, path, message.into());
            self.notes.push(note);
        }
    }

    /// What was noted, in the order of the text.
    pub(super) fn take_notes(&mut self) -> Vec<Problem> {
        self.notes.sort_by_key(|note| note.place);
        std::mem::take(&mut self.notes)
    }

    fn place(&self, offset: Option<usize>, path: String, message: String) -> Problem {
        // Counting lines takes a walk through the text: only for what is listed.
        let place = offset.and_then(|offset| self.source.place_at(offset));
        Problem { file: self.source.file.clone(), place, path, message: one_line(&message) }
    }

    /// A problem with the field `path` that shows at this byte of the text.
    pub(super) fn push_at(&mut self, offset: Option<usize>, path: impl Into<String>, message: impl Into<String>) {
        if self.list.len() >= PROBLEMS_MAX {
            self.unlisted += 1;
            return;
        }
        let problem = self.place(offset, path.into(), message.into());
        self.list.push(problem);
    }

    /// How many were found, listed or not.
    pub(super) fn len(&self) -> usize {
        self.list.len() + self.unlisted
    }

    /// All problems in the order of the text, or `value` when there is none.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Vec<Problem>> {
        self.list.sort_by_key(|problem| problem.place.map_or((1, None), |place| (0, Some(place))));
        if self.unlisted > 0 {
            let message = format!("{} more problems are not listed", self.unlisted);
            let file = self.source.file.clone();
            self.list.push(Problem { file, place: None, path: String::new(), message });
        }
        if self.list.is_empty() { Ok(value) } else { Err(self.list) }
    }
}

/// Text from outside, for a sentence: in double quotes, escaped, shortened.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("\"{}...\"", text[..end].escape_debug()),
        None => format!("\"{}\"", text.escape_debug()),
    }
}

/// `a, b or c`.
pub(super) fn either(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// ` (did you mean "x"?)` if one of `known` is a slip of the pen away from `word`, else nothing.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!(" (did you mean {}?)", quote(near)))
}

/// The known word that `word` was probably meant to be.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let letters: Vec<char> = word.chars().take(NEAR_MAX + 1).flat_map(char::to_lowercase).collect();
    if letters.is_empty() || letters.len() > NEAR_MAX {
        return None;
    }
    // A third of the letters may be wrong: more, and any short word would be near any other.
    let allowed = (letters.len() / 3).max(1);
    let distance = |candidate: &&&'k str| distance(&letters, candidate);
    let best = known.iter().filter(|candidate| candidate.len() <= NEAR_MAX).min_by_key(distance)?;
    (distance(&best) <= allowed).then_some(best)
}

/// Slips that make one word the other: a letter inserted, deleted, replaced, or two neighbours swapped.
fn distance(word: &[char], other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut rows = vec![vec![0; word.len() + 1]; other.len() + 1];
    rows[0] = (0..=word.len()).collect();
    for i in 1..=other.len() {
        rows[i][0] = i;
        for j in 1..=word.len() {
            let same = other[i - 1] == word[j - 1];
            let mut least = (rows[i - 1][j - 1] + usize::from(!same)).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && other[i - 1] == word[j - 2] && other[i - 2] == word[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[other.len()][word.len()]
}

/// Messages of libraries may hold line breaks and pieces of the document; a problem is one line.
fn one_line(message: &str) -> String {
    if message.chars().any(char::is_control) { message.escape_debug().to_string() } else { message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip is recognised, an unrelated word is not: a wrong suggestion is worse than none.
    #[test]
    fn nearest_finds_slips_only() {
        let known = ["weight", "address", "upper", "rr", "wlc"];
        assert_eq!(nearest("wieght", &known), Some("weight"));
        assert_eq!(nearest("Adress", &known), Some("address"));
        assert_eq!(nearest("wcl", &known), Some("wlc"));
        assert_eq!(nearest("wl", &known), Some("wlc"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"w".repeat(1000), &known), None);
    }

    /// Offsets beyond the text or inside a character must not panic, and columns count characters.
    #[test]
    fn places_are_counted_in_characters() {
        let source = Source::new("a\näöü = 1\n", "");
        assert_eq!(source.place_at(0), Some(Place { line: 1, column: 1 }));
        assert_eq!(source.place_at(6), Some(Place { line: 2, column: 3 }));
        assert_eq!(source.place_at(5), Some(Place { line: 2, column: 2 }));
        assert_eq!(source.place_at(999), Some(Place { line: 3, column: 1 }));
    }

    /// A missing field is reported where its table stands.
    #[test]
    fn a_missing_field_has_the_place_of_its_table() {
        let mut source = Source::new("\n\nservice", "site.toml");
        source.record("service[0]".into(), 2);
        let mut problems = Problems::new(&source);
        problems.push("service[0].server[3].weight", "no\nline\u{1b}break");
        let list = problems.or(()).unwrap_err();
        assert_eq!(list[0].to_string(), "site.toml:3:1: service[0].server[3].weight: no\\nline\\u{1b}break");
    }

    /// A document with a million mistakes yields a screenful of sentences and a count.
    #[test]
    fn problems_are_bounded() {
        let source = Source::default();
        let mut problems = Problems::new(&source);
        for _ in 0..1000 {
            problems.push("x", "y");
        }
        let list = problems.or(()).unwrap_err();
        assert_eq!(list.len(), PROBLEMS_MAX + 1);
        assert_eq!(list[PROBLEMS_MAX].to_string(), "900 more problems are not listed");
    }
}
