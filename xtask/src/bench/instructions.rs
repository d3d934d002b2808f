//! `cargo xtask bench instructions`: counts instructions, and holds them against what was accepted last.
//!
//! The counts are the same in every run on every x86-64 processor (see `datapath/engine/benches/instructions.rs`), so a
//! few percent more are a change of the code and no noise. Another compiler makes other code of the same source: then the
//! limit is wider, and it is said.
//!
//! Invariant: a case that is not in the baseline, or not measured any more, is a failure too: a list that nobody looks
//! after proves nothing. Misses are shown and judge nobody, because they also follow from where memory lies.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::paint::{bad, good, title, typed};

/// What was accepted, from the root of the workspace.
const BASELINE: &str = "datapath/engine/benches/instructions.tsv";
/// A case may cost so many percent more than was accepted; and so many if another compiler has built it.
const LIMIT: f64 = 3.0;
const LIMIT_OF_ANOTHER_COMPILER: f64 = 10.0;
const HEAD: &str = "# Instructions a packet, and misses of simulated caches, as they were accepted last.\n\
                    # `cargo xtask bench instructions --accept` writes this file.\n";
const COMPILER: &str = "# compiler: ";

/// Instructions, and misses of the first and the second cache, a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts([f64; 3]);

/// Cases in the order in which they were measured.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    compiler: String,
    cases: Vec<(String, Counts)>,
}

/// Counts and compares; or counts and writes down.
pub(crate) fn run(accept: bool) -> Result<()> {
    let counted = count()?;
    let path = cargo::root().join(BASELINE);
    if accept {
        fs::write(&path, counted.to_text()).with_context(|| format!("{} can not be written", path.display()))?;
        println!("{} holds {} cases of {}", path.display(), counted.cases.len(), counted.compiler);
        return Ok(());
    }
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{} can not be read; `cargo xtask bench instructions --accept` writes it", path.display())
    })?;
    let baseline = Counted::from_text(&text).with_context(|| format!("{} is not as it should be", path.display()))?;
    let (table, wrong) = compare(&counted, &baseline);
    print!("{table}");
    if counted.compiler != baseline.compiler {
        println!(
            "{} the baseline is of {}, this is {}: other code from the same source, so the limit is {LIMIT_OF_ANOTHER_COMPILER} % \
             instead of {LIMIT} %",
            bad("ANOTHER COMPILER:"),
            baseline.compiler,
            counted.compiler,
        );
    }
    ensure!(
        wrong.is_empty(),
        "{}. If that is meant, `cargo xtask bench instructions --accept` writes the new figures into {BASELINE}; say why in \
         the commit",
        wrong.join("; ")
    );
    println!("{} cases, {}", counted.cases.len(), good("none costs more than was accepted"));
    Ok(())
}

/// Runs the bench.
fn count() -> Result<Counted> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the baseline counts instructions of x86-64; on this processor `cargo bench -p xvs-engine --bench instructions` \
         counts, and there is nothing to compare with"
    );
    let words = ["bench", "--package", "xvs-engine", "--bench", "instructions"];
    println!("{}", typed(format!("$ cargo {}", words.join(" "))));
    let output = cargo::command(&words).stderr(Stdio::inherit()).output().context("cargo could not be started")?;
    ensure!(output.status.success(), "the bench failed ({})", output.status);
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").current_dir(cargo::root()).output();
    let version = version.context("rustc could not be asked for its version")?;
    let compiler = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    Ok(Counted { compiler, cases: cases(&String::from_utf8_lossy(&output.stdout))? })
}

/// Reads a table of a name and three numbers a line, under a head.
fn cases(text: &str) -> Result<Vec<(String, Counts)>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let cases: Vec<_> = lines.skip(1).map(case).collect::<Result<_>>()?;
    ensure!(!cases.is_empty(), "no case");
    Ok(cases)
}

fn case(line: &str) -> Result<(String, Counts)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [name, numbers @ ..] = words.as_slice() else { bail!("an empty line") };
    let numbers: Vec<f64> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    let counts = numbers.try_into().ok().with_context(|| format!("not a case and three numbers: `{line}`"))?;
    Ok(((*name).to_owned(), Counts(counts)))
}

impl Counted {
    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}{COMPILER}{}\ncase\tinstructions\tl1_misses\tl2_misses\n", self.compiler);
        for (name, Counts([instructions, l1, l2])) in &self.cases {
            let _ = writeln!(text, "{name}\t{instructions:.1}\t{l1:.2}\t{l2:.2}");
        }
        text
    }

    fn from_text(text: &str) -> Result<Self> {
        let compiler = text.lines().find_map(|line| line.strip_prefix(COMPILER));
        let compiler = compiler.with_context(|| format!("no line `{COMPILER}...`"))?;
        Ok(Counted { compiler: compiler.to_owned(), cases: cases(text)? })
    }
}

/// A table of all cases, and what is wrong.
fn compare(counted: &Counted, baseline: &Counted) -> (String, Vec<String>) {
    let limit = if counted.compiler == baseline.compiler { LIMIT } else { LIMIT_OF_ANOTHER_COMPILER };
    let mut accepted: BTreeMap<_, _> = baseline.cases.iter().map(|(name, counts)| (name.as_str(), *counts)).collect();
    let mut wrong = Vec::new();
    let head = ["case", "instructions", "accepted", "change", "L1 misses", "L2 misses"];
    let mut table = format!("{}\n", title(row(head.map(str::to_owned))));
    for (name, Counts([instructions, l1, l2])) in &counted.cases {
        let before = accepted.remove(name.as_str());
        let (before_text, change_text) = match before {
            Some(Counts([before, ..])) => {
                let change = 100.0 * (instructions - before) / before;
                if change > limit {
                    wrong.push(format!(
                        "{name} costs {change:.1} % more instructions than was accepted ({limit} % may be)"
                    ));
                }
                (format!("{before:.1}"), format!("{change:+.1} %"))
            }
            None => {
                wrong.push(format!("{name} was never accepted"));
                ("-".to_owned(), "new".to_owned())
            }
        };
        let figures = [format!("{instructions:.1}"), before_text, change_text, format!("{l1:.2}"), format!("{l2:.2}")];
        let [instructions, before, change, l1, l2] = figures;
        let _ = writeln!(table, "{}", row([name.clone(), instructions, before, change, l1, l2]));
    }
    wrong.extend(accepted.keys().map(|name| format!("{name} is in the baseline and was not measured")));
    (table, wrong)
}

fn row([case, instructions, accepted, change, l1, l2]: [String; 6]) -> String {
    format!("{case:<18} {instructions:>12} {accepted:>10} {change:>9} {l1:>10} {l2:>10}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(compiler: &str, cases: &[(&str, f64)]) -> Counted {
        let cases = cases.iter().map(|(name, count)| ((*name).to_owned(), Counts([*count, 1.5, 0.25]))).collect();
        Counted { compiler: compiler.to_owned(), cases }
    }

    /// What is written down is read back as it was.
    #[test]
    fn the_baseline_is_read_as_it_was_written() {
        let counted = counted("rustc 1.95.0", &[("hit/dr", 1459.3), ("new/rr", 3484.2)]);
        assert_eq!(Counted::from_text(&counted.to_text()).unwrap(), counted);
        for broken in ["", "case\tinstructions\n", "# compiler: x\ncase\n", "# compiler: x\ncase\nhit 1 2\n"] {
            assert!(Counted::from_text(broken).is_err(), "{broken:?}");
        }
    }

    /// The baseline of the project is whole.
    #[test]
    fn the_projects_baseline_can_be_read() {
        let text = fs::read_to_string(cargo::root().join(BASELINE)).unwrap();
        assert!(Counted::from_text(&text).unwrap().cases.len() > 20);
    }

    /// Three percent more pass and four do not; less is no failure.
    #[test]
    fn a_regression_is_a_failure() {
        let baseline = counted("a", &[("one", 1000.0), ("two", 1000.0)]);
        let wrong = |one, two| compare(&counted("a", &[("one", one), ("two", two)]), &baseline).1;
        assert_eq!(wrong(1030.0, 500.0), Vec::<String>::new());
        let found = wrong(1000.0, 1040.0);
        assert!(found.len() == 1 && found[0].starts_with("two costs 4.0 % more"), "{found:?}");
    }

    /// Another compiler gets more room, but not any.
    #[test]
    fn another_compiler_gets_more_room() {
        let baseline = counted("a", &[("one", 1000.0)]);
        assert!(compare(&counted("b", &[("one", 1090.0)]), &baseline).1.is_empty());
        assert_eq!(compare(&counted("b", &[("one", 1110.0)]), &baseline).1.len(), 1);
    }

    /// A case that is gone, and one that is new, are failures.
    #[test]
    fn the_cases_must_be_the_same() {
        let (_, wrong) = compare(&counted("a", &[("new", 1.0)]), &counted("a", &[("gone", 1.0)]));
        assert_eq!(wrong, ["new was never accepted", "gone is in the baseline and was not measured"]);
    }
}
