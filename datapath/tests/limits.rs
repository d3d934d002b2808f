//! The document of limits against the source: a constant that it names is there, and has the value that stands beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where constants are looked for.
const SOURCES: [&str; 5] = ["datapath/src", "datapath/engine/src", "datapath/host/src", "xdp-redirect/src", "sdk/src"];

/// The right sides of all `const NAME` and `#define NAME`.
fn constants() -> BTreeMap<String, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut constants = BTreeMap::new();
    SOURCES.iter().for_each(|source| look(&root.join(source), &mut constants));
    constants
}

fn look(path: &Path, constants: &mut BTreeMap<String, Vec<String>>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a directory").flatten();
        return entries.for_each(|entry| look(&entry.path(), constants));
    }
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let Some((name, value)) = constant(line) else { continue };
        constants.entry(name.to_owned()).or_default().push(value.to_owned());
    }
}

fn constant(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if let Some(defined) = line.strip_prefix("#define ") {
        return defined.split_once(' ').map(|(name, value)| (name, value.trim()));
    }
    let (before, rest) = line.split_once("const ")?;
    if !before.is_empty() && !before.starts_with("pub") {
        return None;
    }
    let (name, rest) = rest.split_once(':')?;
    Some((name, rest.split_once(" = ")?.1.trim_end_matches(';')))
}

/// What a right side comes to: a number, a product or shift of numbers, or a duration in milliseconds.
fn value(text: &str) -> Option<u64> {
    let text = text.trim();
    for (unit, factor) in [("Duration::from_secs(", 1000), ("Duration::from_millis(", 1)] {
        if let Some(inner) = text.strip_prefix(unit) {
            return Some(value(inner.strip_suffix(')')?)? * factor);
        }
    }
    if let Some((left, right)) = text.split_once("<<") {
        return value(left)?.checked_shl(u32::try_from(value(right)?).ok()?);
    }
    if let Some((left, right)) = text.split_once('*') {
        return value(left)?.checked_mul(value(right)?);
    }
    if let Some((left, right)) = text.split_once('-') {
        return value(left)?.checked_sub(value(right)?);
    }
    if text == "i32::MAX as i64" || text == "i32::MAX as u32" {
        return Some(i32::MAX as u64);
    }
    let digits = text.replace('_', "");
    let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    // A type may follow the digits, and nothing else.
    let rest = &digits[length..];
    let is_type =
        rest.is_empty() || rest.starts_with(['u', 'i']) && rest[1..].chars().all(|c| c.is_ascii_alphanumeric());
    digits[..length].parse().ok().filter(|_| is_type)
}

/// The forms in which a document may tell a value.
fn forms(name: &str, value: u64) -> Vec<String> {
    // The largest number below a bound, too.
    let mut forms: Vec<String> =
        [value, value.saturating_sub(1)].into_iter().flat_map(|number| [number.to_string(), commas(number)]).collect();
    if name.ends_with("BITS") {
        forms.extend([(1u64 << value.min(63)).to_string(), commas(1u64 << value.min(63))]);
    }
    if value > 0 && value.is_multiple_of(1 << 30) {
        forms.push(format!("{} GiB", value >> 30));
    }
    if value.is_power_of_two() {
        forms.push(format!("2^{}", value.trailing_zeros()));
    }
    if value > 0 && value.is_multiple_of(1 << 20) {
        forms.push(format!("{} MiB", value >> 20));
    }
    if value > 0 && value.is_multiple_of(1000) {
        let seconds = value / 1000;
        forms.extend([format!("{seconds} s"), format!("{seconds} seconds"), format!("{seconds} m")]);
        if seconds == 1 {
            forms.push("a second".to_owned());
        }
    }
    if value > 0 && value.is_multiple_of(60_000) && name.ends_with("_MS") {
        forms.push(format!("{} minutes", value / 60_000));
    }
    forms
}

fn commas(value: u64) -> String {
    let digits = value.to_string();
    let mut told = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

/// Does the text have this as words of its own, and not within a longer number?
fn says(text: &str, form: &str) -> bool {
    let is_part = |c: Option<&char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || *c == '^');
    // What follows a form, or comes before it from right to left: a comma between digits goes on with the number.
    let goes_on = |near: &[char]| {
        is_part(near.first()) || near.first() == Some(&',') && near.get(1).is_some_and(char::is_ascii_digit)
    };
    text.match_indices(form).any(|(at, _)| {
        let before: Vec<char> = text[..at].chars().rev().take(2).collect();
        let after: Vec<char> = text[at + form.len()..].chars().take(2).collect();
        !goes_on(&before) && !goes_on(&after)
    })
}

/// The constants that a row names: what stands between backticks, all in capitals, the last part of a path.
fn names(row: &str) -> BTreeSet<&str> {
    let quoted = row.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.rsplit("::").next());
    let is_name =
        |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    quoted.filter(is_name).collect()
}

/// Guards the operator who plans by this document: every constant that it names is in the source, and its value stands in
/// the same row.
#[test]
fn the_document_tells_the_limits_that_there_are() {
    let document = include_str!("../../docs/limits.md");
    let constants = constants();
    let (mut problems, mut checked) = (Vec::new(), 0);
    for row in document.lines().filter(|line| line.starts_with('|')) {
        for name in names(row) {
            let Some(texts) = constants.get(name) else {
                problems.push(format!("{name} is no constant of the source any more: {row}"));
                continue;
            };
            let values: Vec<u64> = texts.iter().filter_map(|text| value(text)).collect();
            checked += usize::from(!values.is_empty());
            let told = values.iter().any(|value| forms(name, *value).iter().any(|form| says(row, form)));
            // Several may have the name, and one of them may be no plain number.
            if !told && values.len() == texts.len() {
                problems.push(format!("{name} is {texts:?}, which does not stand in: {row}"));
            }
        }
    }
    assert!(problems.is_empty(), "docs/limits.md:\n{}", problems.join("\n"));
    assert!(checked >= 60, "only {checked} values were found in the document");
}

/// Guards this test: it reads what a constant is, and does not take a part of a number for the number.
#[test]
fn values_are_read_and_told() {
    assert_eq!(constant("pub(crate) const A_B: usize = 1 << 17;"), Some(("A_B", "1 << 17")));
    assert_eq!(constant("#define C 65536"), Some(("C", "65536")));
    assert_eq!(constant("// a const x: y = 3"), None);
    for (text, number) in
        [("1 << 17", 131_072), ("4_096", 4096), ("64 * 1024", 65_536), ("31u64", 31), ("Duration::from_secs(3)", 3000)]
    {
        assert_eq!(value(text), Some(number), "{text}");
    }
    assert_eq!(value("other()"), None);
    assert!(says("at most 131,072 (`X`)", &commas(131_072)) && says("a 64, or", "64") && says("2^30 (", "2^30"));
    assert!(!says("131,072", "131") && !says("1,024", "024") && !says("164", "64"));
    assert_eq!(
        names("| `Table::MAX_CAPACITY`, `-x`, `table_full`, `KICK` |"),
        BTreeSet::from(["KICK", "MAX_CAPACITY"])
    );
}
