//! A bench program under valgrind's callgrind: it starts itself anew, says when a case has ended, and reads what was
//! counted between two such ends.
//!
//! Invariant: the same counts in every run and on every machine of a kind (x86-64, one compiler): no clock is read, the
//! environment is empty, the layout of the memory is valgrind's, and the C library takes its oldest string functions,
//! whatever the processor has. What counts are functions with `counted_` in their name, and what they call.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;

/// No string function that only some processors have: the C library falls back to those of SSE2, which all have.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,\
                        -Fast_Unaligned_Copy,-SSSE3,-SSE4_1,-SSE4_2,-BMI2,-ERMS,-FSRM,-RTM";

/// Where callgrind counts, and after what it writes.
const COUNTED: &str = "*counted_*";
const WRITTEN: &str = "*case_ends*";

/// The end of a case: callgrind writes what it has counted.
#[inline(never)]
pub fn case_ends(name: &str) {
    println!("{}", black_box(name));
}

/// Runs this program with these words, which must lead it to [`case_ends`], with simulated caches of these sizes. Gives
/// the cases in their order; of each instructions, and what was not in the first and in the second cache.
pub fn count(caches: [&str; 3], words: &[&str]) -> Result<Vec<(String, [u64; 3])>, String> {
    let directory = std::env::temp_dir().join(format!("xvs-callgrind-{}-{}", std::process::id(), words.join("-")));
    std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let cases = run(&directory, caches, words).and_then(|cases| {
        let numbered = (1..).map(|number| directory.join(format!("count.{number}")));
        cases.into_iter().zip(numbered).map(|(case, file)| Ok((case, read(&file)?))).collect()
    });
    // What is left in a temporary directory harms nobody.
    let _ = std::fs::remove_dir_all(&directory);
    cases
}

/// Has callgrind write into this directory; gives the names of the cases in their order.
fn run(directory: &Path, caches: [&str; 3], words: &[&str]) -> Result<Vec<String>, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new("valgrind");
    // The size of the environment moves the stack, and a variable may change the C library.
    command.env_clear().env("GLIBC_TUNABLES", TUNABLES);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--tool=callgrind", "--cache-sim=yes"]).args(caches);
    command.arg(format!("--callgrind-out-file={}", directory.join("count").display()));
    command.arg(format!("--toggle-collect={COUNTED}")).arg(format!("--dump-after={WRITTEN}"));
    let output = command.arg(own).args(words).output().map_err(|error| {
        format!("valgrind could not be started: {error}; is it installed (apt-get install valgrind)?")
    })?;
    if !output.status.success() {
        return Err(format!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn read(file: &Path) -> Result<[u64; 3], String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::split_whitespace);
    let missing = || format!("{}: no counts", file.display());
    let (names, values) = line("events:").zip(line("totals:").or(line("summary:"))).ok_or_else(missing)?;
    let counts: Vec<(&str, u64)> = names.zip(values.map(|value| value.parse().unwrap_or(0))).collect();
    let sum = |of: &[&str]| counts.iter().filter(|(name, _)| of.contains(name)).map(|(_, value)| value).sum::<u64>();
    Ok([sum(&["Ir"]), sum(&["D1mr", "D1mw"]), sum(&["DLmr", "DLmw"])]).and_then(|all| match all[0] {
        0 => Err(missing()),
        _ => Ok(all),
    })
}
