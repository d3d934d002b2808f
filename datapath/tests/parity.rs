//! `docs/lvs-parity.md` keeps its word: each test that it names exists, no trap is left out, and nothing is missing
//! without a reason.
//!
//! What this does not do: judge whether a named test tests what the line says. That is for its reader.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Traps of the reference: the marks `[T]` in its text.
const TRAPS: usize = 82;
/// Groups of test vectors in it: the marks `[V]` of its section 2, by what they are about.
const VECTORS: usize = 27;
/// Items of its check list, 10.1.
const ITEMS: usize = 26;
/// What stands for a test where there can be none.
const NONE: &str = "none: ";
/// A reason that says something has so many characters.
const REASON: usize = 25;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    fs::read_to_string(project().join("docs/lvs-parity.md")).expect("docs/lvs-parity.md")
}

/// The rows of all tables with this many columns below headings of this kind, as cells. Titles and rules are left out.
fn rows(text: &str, columns: usize) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_title = lines.peek().is_some_and(|next| next.starts_with("| ---"));
        if !line.starts_with("| ") || line.starts_with("| ---") || is_title {
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!((2..=5).contains(&cells.len()), "a stray column: {line}");
        if cells.len() == columns {
            rows.push(cells);
        }
    }
    rows
}

/// The tests that a text names: `file.rs::name` between backticks.
fn named(text: &str) -> Vec<(&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::").map(|_| word)).map(split).collect()
}

fn split(word: &str) -> (&str, &str) {
    word.rsplit_once("::").expect("a file and a name")
}

/// Is there a test of this name in the file: a function with `#[test]` on it?
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let head = format!("fn {name}(");
    let heads = lines.iter().enumerate().filter(|(_, line)| line.starts_with(&head)).map(|(at, _)| at);
    heads.into_iter().any(|at| {
        let above = lines[..at].iter().rev();
        above.take_while(|line| line.starts_with("#[") || line.starts_with("//")).any(|line| *line == "#[test]")
    })
}

/// Guards readers against names of tests that were renamed or are gone.
#[test]
fn named_tests_exist() {
    let text = document();
    let all = named(&text);
    assert!(all.len() > 200, "{} tests are named", all.len());
    let wrong: BTreeSet<String> = all
        .into_iter()
        .filter(|(file, name)| !fs::read_to_string(project().join(file)).is_ok_and(|source| is_test(&source, name)))
        .map(|(file, name)| format!("{file}::{name}"))
        .collect();
    assert!(wrong.is_empty(), "no such tests: {wrong:#?}");
}

/// Guards the list of traps and of vectors: none is left out, each has a test or says why there can be none.
#[test]
fn every_trap_and_vector_has_its_line() {
    let text = document();
    let rows = rows(&text, 5);
    let lines = |letter: char| -> Vec<&Vec<&str>> {
        let is = |cells: &&Vec<&str>| {
            cells[0].strip_prefix(letter).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        rows.iter().filter(is).collect()
    };
    for (letter, count) in [('T', TRAPS), ('V', VECTORS)] {
        let found = lines(letter);
        let numbers: Vec<String> = found.iter().map(|cells| cells[0].to_owned()).collect();
        let expected: Vec<String> = (1..=count).map(|number| format!("{letter}{number}")).collect();
        assert_eq!(numbers, expected);
        for cells in found {
            let test = cells[4];
            let reason = test.strip_prefix(NONE).is_some_and(|reason| reason.len() >= REASON);
            assert!(reason || !named(test).is_empty(), "{cells:?} names no test");
            assert!(letter == 'T' || !reason, "{cells:?}: a vector can be tested");
        }
    }
}

/// Guards the reference's own check list: each item leads to traps or tests.
#[test]
fn the_check_list_is_whole() {
    let text = document();
    let rows = rows(&text, 3);
    let items: Vec<&Vec<&str>> = rows.iter().filter(|cells| cells[0].parse::<usize>().is_ok()).collect();
    let numbers: Vec<usize> = items.iter().filter_map(|cells| cells[0].parse().ok()).collect();
    assert_eq!(numbers, (1..=ITEMS).collect::<Vec<_>>());
    for cells in items {
        let words = cells[2].split([',', ' ']).filter(|word| !word.is_empty());
        let traps: Vec<&str> =
            words.filter(|word| word.starts_with('T') && word[1..].parse::<usize>().is_ok()).collect();
        assert!(!traps.is_empty() || !named(cells[2]).is_empty(), "{cells:?} leads nowhere");
        for trap in traps {
            assert!((1..=TRAPS).contains(&trap[1..].parse().expect("a number")), "{cells:?}: {trap}");
        }
    }
}

/// Guards operators against a feature that is missing without a word: each line says one of four things, what is not
/// exact says why or how, and what works has a test.
#[test]
fn nothing_is_missing_without_a_reason() {
    let text = document();
    let rows = rows(&text, 4);
    assert!(rows.len() > 100, "{} features", rows.len());
    for cells in rows {
        let [feature, ipvs, here, test] = cells[..] else { panic!("four cells") };
        assert!(!feature.is_empty() && !ipvs.is_empty(), "{cells:?}");
        let (verdict, rest) = here.strip_prefix("**").and_then(|here| here.split_once("**")).expect("a verdict");
        match verdict {
            "exact" => assert!(!named(test).is_empty(), "{feature} is exact, and no test says so"),
            "cured" => {
                assert!(rest.len() >= REASON, "{feature}: how?");
                assert!(!named(test).is_empty(), "{feature} is cured, and no test says so");
            }
            "not applicable" | "missing" => assert!(rest.len() >= REASON, "{feature}: why?"),
            other => panic!("{feature}: {other}?"),
        }
    }
}

/// Guards the guards: a table that they could not read would satisfy them all.
#[test]
fn the_reader_can_read() {
    let text = "| a | b | c |\n| --- | --- | --- |\n| 1 | `x/y.rs::z` and `n` | T2 |\n\nprose | with bars | in it\n";
    assert_eq!(rows(text, 3), [["1", "`x/y.rs::z` and `n`", "T2"]]);
    assert_eq!(named(text), [("x/y.rs", "z")]);
    let source = "/// z\n#[test]\nfn z() {}\nfn y() {}\n// #[test]\nfn x() {}\n    #[test]\n    #[cfg(unix)]\n    fn w(a in 1..2) {}";
    assert_eq!(["z", "y", "x", "w", "v"].map(|name| is_test(source, name)), [true, false, false, true, false]);
}
