//! `sdk/ABI.md` is right: its tables are the structures, and its examples work.

use std::env;
use std::fs;

use xvs_sdk::abi::{Flow, ROW_QUIESCED, ROW_USABLE, Row};

use crate::plain::Plain;

const TEXT: &str = include_str!("../../../../sdk/ABI.md");
const SOURCE: &str = include_str!("../../../../sdk/src/abi.rs");

/// The block of code in a language.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    TEXT.split(fence.as_str()).nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

/// Bytes of a type of the tables: `u8[16]`, `i32`.
fn size(type_name: &str) -> usize {
    let (one, many) = type_name.split_once('[').map_or((type_name, 1), |(one, many)| {
        let many = many.trim_end_matches(']');
        (one, if many.is_empty() { 0 } else { many.parse().unwrap() })
    });
    one[1..].parse::<usize>().unwrap() / 8 * many
}

/// Whoever writes a plugin in another language goes by these offsets; the names and order are those of the source, whose
/// own offsets the compiler checks.
#[test]
fn the_tables_are_the_structures() {
    let structures = [
        ("Table head", "TableHead", 32),
        ("Row", "Row", 32),
        ("Facts head", "FactsHead", 16),
        ("Facts", "Facts", 192),
        ("Flow", "Flow", 64),
        ("Text buffer", "TextHead", 8),
    ];
    for (title, name, bytes) in structures {
        let table = TEXT.split(&format!("**{title}**, {bytes} bytes")).nth(1).unwrap().split("\n\n").nth(1).unwrap();
        let source = SOURCE.split(&format!("pub struct {name} {{")).nth(1).unwrap().split("\n}").next().unwrap();
        let mut fields = source.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
        let mut end = 0;
        for line in table.lines().skip(2) {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            assert_eq!(cells[1].parse::<usize>().unwrap(), end, "{line}");
            // A text's bytes stand behind the structure.
            assert_eq!(fields.next().unwrap_or("bytes"), cells[3], "{line}");
            end += size(cells[2]);
        }
        assert_eq!((end, fields.next()), (bytes, None), "{title}");
    }
}

/// The example in C and the one by hand are complete, and are the same scheduler.
#[test]
fn the_examples_work() {
    let directory = env::temp_dir().join(format!("xvs-plugins-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (source, module) = (directory.join("mine.c"), directory.join("mine.wasm"));
    fs::write(&source, block("c")).unwrap();
    xvs_plugins::compile_c(&source, &module).unwrap_or_else(|error| panic!("{error:#}"));
    let in_c = fs::read(&module).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    for bytes in [in_c, wat::parse_str(block("wat")).unwrap()] {
        let mut plain = Plain::of(&bytes);
        assert_eq!(plain.capacity, 256);
        assert_eq!(plain.pick(&Flow::default(), 2000).unwrap(), -1);
        plain.set_count(3);
        (0..3).for_each(|index| plain.set_row(index, &Row { weight: 1, flags: ROW_USABLE, ..Row::default() }));
        plain.set_row(1, &Row { flags: ROW_QUIESCED, ..Row::default() });
        let picks: Vec<_> = (0..4).map(|_| plain.pick(&Flow::default(), 2000).unwrap()).collect();
        assert_eq!(picks, [2, 0, 2, 0]);
    }
}
