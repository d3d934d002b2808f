//! perf: samples by the kernel's clock, with the stack of each.
//!
//! Stacks are read from the unwinding tables, which every Rust program has; frame pointers are not needed. perf itself
//! would ask for inlined functions by a process a frame, so it is asked for places alone, and they are looked up here.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::stacks::Stacks;
use super::symbols::Symbols;

/// Looks a second; no divisor of a timer's rate.
const FREQUENCY: &str = "499";
/// Bytes of the stack that are kept with each sample.
const STACK: &str = "dwarf,16384";

/// Why perf does not work here, in words; none if it does.
pub(super) fn obstacle() -> Option<String> {
    let mut command = Command::new("perf");
    command.args(["record", "--quiet", "-e", "cpu-clock", "-o", "/dev/null", "--", "true"]);
    match command.stdin(Stdio::null()).output() {
        Err(error) => Some(format!("{error}; Debian has it in linux-perf")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            Some(line.unwrap_or("it says nothing").trim_end_matches(':').to_owned())
        }
    }
}

/// A program from its start to its end.
pub(super) fn of_program(program: &Path, words: &[String], directory: &Path) -> Result<Stacks> {
    record(directory, |command| {
        command.arg("--").arg(program).args(words);
    })
}

/// A running process for a while.
pub(super) fn of_process(pid: u32, seconds: u64, directory: &Path) -> Result<Stacks> {
    record(directory, |command| {
        command.args(["-p", &pid.to_string(), "--", "sleep", &seconds.to_string()]);
    })
}

fn record(directory: &Path, what: impl FnOnce(&mut Command)) -> Result<Stacks> {
    let data = directory.join("perf.data");
    let mut command = Command::new("perf");
    command.args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "--call-graph", STACK, "-o"]).arg(&data);
    what(&mut command);
    let status = command.stdin(Stdio::null()).status().context("perf could not be started")?;
    ensure!(status.success(), "perf record ended with {status}");
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "--no-demangle", "-F", "comm,tid,ip,sym,dso", "-i"]).arg(&data);
    let output = command.output().context("perf could not be started")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "perf script ended with {}: {}", output.status, message.trim());
    Ok(parse(&String::from_utf8_lossy(&output.stdout), &mut Symbols::default()))
}

/// A sample is a line with the thread's name and number, a line a frame, the innermost first, and an empty line.
fn parse(text: &str, symbols: &mut Symbols) -> Stacks {
    let mut stacks = Stacks::default();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().skip_while(|line| line.trim().is_empty());
        let Some(thread) = lines.next().and_then(|line| line.trim().rsplit_once(' ')) else { continue };
        let frames: Vec<_> = lines.enumerate().filter_map(|(index, line)| frame(line, index > 0, symbols)).collect();
        if frames.is_empty() {
            continue;
        }
        let stack = [thread.0.trim().to_owned()].into_iter().chain(frames.into_iter().rev().flatten()).collect();
        stacks.add(stack, 1);
    }
    stacks
}

/// `  34d6b name (/path/of/file)`; a frame that called another holds the address behind the call.
fn frame(line: &str, called: bool, symbols: &mut Symbols) -> Option<Vec<String>> {
    let (address, rest) = line.trim().split_once(' ')?;
    let place = u64::from_str_radix(address, 16).ok()?.saturating_sub(u64::from(called));
    let (name, file) = rest.rsplit_once(" (")?;
    let file = file.trim_end_matches(')');
    if file.starts_with('[') {
        return Some(vec![format!("{name} [kernel]")]);
    }
    let name = if name == "[unknown]" { file.rsplit('/').next().unwrap_or(name) } else { name };
    Some(symbols.at_offset(file, place, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the reading of perf's text: names with blanks, the kernel's frames, unknown ones, and the order.
    #[test]
    fn samples_are_read() {
        let text = "worker-0  12 \n\tffffffff81 clear_page ([kernel.kallsyms])\n\t  10 _ZN1a1bE (/none/x)\n\n\
                    my tool 13 \n\t  10 [unknown] (/none/lib.so)\n\n\
                    worker-0  12 \n\tffffffff81 clear_page ([kernel.kallsyms])\n\t  10 _ZN1a1bE (/none/x)\n\n\
                    idle 14 \n\n";
        let stacks = parse(text, &mut Symbols::default());
        let seen: Vec<(String, u64)> = stacks.iter().map(|(stack, count)| (stack.join(" < "), count)).collect();
        let expected = [("my tool < lib.so", 1), ("worker-0 < a::b < clear_page [kernel]", 2)];
        assert_eq!(seen, expected.map(|(stack, count)| (stack.to_owned(), count)));
    }
}
