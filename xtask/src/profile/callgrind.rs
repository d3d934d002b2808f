//! callgrind: every instruction of a program, with the functions that led there.
//!
//! It tells the costs by address, so what the compiler put into a function is told from it; of the callers it knows the
//! functions that were really called.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::stacks::Stacks;
use super::symbols::{Symbols, short};

/// Callers that a cost is told apart by.
const CALLERS: &str = "--separate-callers=24";

/// A program from its start to its end.
pub(super) fn of_program(program: &Path, words: &[String], directory: &Path) -> Result<Stacks> {
    let data = directory.join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--demangle=no", "--dump-instr=yes", "--dump-line=no", CALLERS]);
    command
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", data.display()));
    let status = command.arg(program).args(words).stdin(Stdio::null()).status();
    let status = status.context("callgrind could not be started; Debian has it in valgrind")?;
    ensure!(status.success(), "callgrind ended with {status}");
    let text = fs::read(&data).context("callgrind wrote nothing")?;
    Ok(parse(&String::from_utf8_lossy(&text), &mut Symbols::default()))
}

/// Lines: `ob=FILE`, `fn=NAME'CALLER'CALLER`, `0xADDRESS COST`; and `calls=...`, whose next line is the cost of the callee,
/// which is told there.
fn parse(text: &str, symbols: &mut Symbols) -> Stacks {
    let mut stacks = Stacks::default();
    let (mut file, mut function, mut is_callee) = ("", "", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            file = name;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            is_callee = true;
        } else if line.starts_with("0x") {
            if std::mem::take(&mut is_callee) {
                continue;
            }
            if let Some((address, cost)) = cost(line) {
                stacks.add(stack(file, function, address, symbols), cost);
            }
        }
    }
    stacks
}

fn cost(line: &str) -> Option<(u64, u64)> {
    let (address, cost) = line.split_once(' ')?;
    let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some((address, cost.trim().parse().ok()?))
}

fn stack(file: &str, function: &str, address: u64, symbols: &mut Symbols) -> Vec<String> {
    // A number among the callers is the depth of a recursion.
    let mut names = function.split('\'').filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit()));
    let own = symbols.at_address(file, address, names.next().unwrap_or("unknown"));
    let mut stack: Vec<String> = names.map(short).collect();
    stack.reverse();
    stack.extend(own);
    stack
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the reading of callgrind's file: a callee's cost is not its caller's, callers stand outside, recursion is no
    /// function.
    #[test]
    fn costs_are_read() {
        let text = "events: Ir\nob=/none/x\nfl=???\nfn=_ZN1a1bE'main\n0x10 7\ncfn=c'_ZN1a1bE'main\ncalls=3 0x30 \n0x14 90\n\
                    0x15 1\n\nfn=c'2'_ZN1a1bE'main\n0x30 90\ntotals: 98\n";
        let stacks = parse(text, &mut Symbols::default());
        let seen: Vec<(String, u64)> = stacks.iter().map(|(stack, count)| (stack.join(" < "), count)).collect();
        let expected = [("main < a::b", 8), ("main < a::b < c", 90)];
        assert_eq!(seen, expected.map(|(stack, count)| (stack.to_owned(), count)));
    }
}
