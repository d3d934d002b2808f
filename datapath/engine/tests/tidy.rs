//! House rules that a machine can check: the order of the modules, the length of files, no unsafe code.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a source file may have without its tests.
const LINES: usize = 450;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Every Rust file below a directory, with its text.
fn files(directory: &str) -> Vec<(PathBuf, String)> {
    let mut waiting = vec![root().join(directory)];
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// A file's text without its unit tests, which stand at its end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests")
        .next()
        .and_then(|text| text.split("#[cfg(test)]\npub(crate) mod").next())
        .unwrap()
}

/// The modules in the order of `lib.rs`'s essay, each with its rank; those between two `<` are equals.
fn order() -> HashMap<String, usize> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let essay = text.split("A module may use only what stands to its left:").nth(1).expect("the essay's order");
    let order = essay.split("```").nth(1).expect("in a block").trim_start_matches("text");
    let order = order.replace("//!", " ");
    let rank = |(rank, group): (usize, &str)| -> Vec<(String, usize)> {
        group.split(',').map(|name| (name.trim().to_string(), rank)).collect()
    };
    order.split('<').enumerate().flat_map(rank).collect()
}

/// The first part of each path behind `crate::` in a text.
fn used(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split("crate::").skip(1).flat_map(|rest| {
        let end = rest.find(|c: char| c != '_' && c != '{' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let first = &rest[..end];
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = &group[..group.find('}').unwrap_or(group.len())];
                let names = group.split(", ").map(|name| name.split("::").next().unwrap_or(name).trim().to_string());
                names.collect::<Vec<_>>()
            }
            None => vec![first.to_string()],
        }
    })
}

/// A module uses only what stands to its left in the essay, and the essay knows every module.
#[test]
fn modules_keep_their_order() {
    let order = order();
    assert!(order.len() > 15, "{order:?}");
    for (path, text) in files("src") {
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let rank = order.get(module).unwrap_or_else(|| panic!("lib.rs gives `{module}` no place in the order"));
        let text: String = without_tests(&text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for name in used(&text).filter(|name| name != module) {
            match order.get(&name) {
                Some(other) => assert!(other < rank, "{}: `{module}` may not use `{name}`", inside.display()),
                // A macro or a name that the crate's root has.
                None => assert!(!root().join(format!("src/{name}.rs")).exists(), "`{name}` has no place"),
            }
        }
    }
}

/// No file is a giant: of sources the tests at the end do not count, tests and benches count as they are.
#[test]
fn files_are_short() {
    for directory in ["src", "tests", "benches"] {
        for (path, text) in files(directory) {
            let lines = without_tests(&text).lines().count();
            assert!(lines <= LINES, "{} has {lines} lines: a noun is missing", path.display());
        }
    }
}

/// Every file begins by saying what it is.
#[test]
fn files_say_what_they_are() {
    for directory in ["src", "tests", "benches"] {
        for (path, text) in files(directory) {
            assert!(text.starts_with("//! "), "{} has no head", path.display());
        }
    }
}

/// Every test says in a sentence what it guards.
#[test]
fn tests_say_what_they_guard() {
    for directory in ["src", "tests"] {
        for (path, text) in files(directory) {
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            for (number, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
                let before = lines[..number].iter().rev().find(|line| !line.starts_with("#["));
                let says = before.is_some_and(|line| line.starts_with("/// "));
                assert!(says, "{}:{}: what does it guard?", path.display(), number + 1);
            }
        }
    }
}

/// The one home of unsafe code in the engine (decision record 0014).
const UNSAFE: &str = "lines.rs";

/// The engine denies unsafe code but in one file, and no source of it asks for a clock.
#[test]
fn no_unsafe_code_and_no_clock() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.lines().any(|line| line.starts_with("#![deny(unsafe_code)]")));
    for (path, text) in files("src") {
        let is_home = path.file_name().is_some_and(|name| name == UNSAFE);
        for word in ["allow(unsafe_code)", "unsafe {", "unsafe fn", "unsafe impl"] {
            assert!(is_home || !text.contains(word), "{} has `{word}`", path.display());
        }
        for word in ["Instant::now", "SystemTime", "std::net::Tcp", "std::net::Udp"] {
            assert!(!text.contains(word), "{} has `{word}`", path.display());
        }
    }
}
