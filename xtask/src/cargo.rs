//! cargo, called by cargo's own child: which one, from where, into which directory.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paint::typed;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A cargo command in the root of the workspace.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root());
    command
}

/// Runs cargo with its progress on the terminal.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    println!("{}", typed(format!("$ cargo {}", words.join(" "))));
    let status = command(words).status().context("cargo could not be started")?;
    ensure!(status.success(), "`cargo {}` failed ({status})", words.join(" "));
    Ok(())
}

/// Builds what the laboratory runs, and gives the directory of the programs. If `XVS_BIN_DIR` names a directory, nothing
/// is built: what lies there is taken.
pub(crate) fn build_release() -> Result<PathBuf> {
    if let Some(given) = env::var_os("XVS_BIN_DIR") {
        return Ok(given.into());
    }
    run(&["build", "--release", "--bins", "--package", "xvs", "--package", "xvs-tests", "--package", "xvs-wire"])?;
    // This program is in a profile of the same target directory, wherever that is.
    let own = env::current_exe().context("the running executable has no path")?;
    let target = own.parent().and_then(Path::parent).context("the running executable is in no target directory")?;
    Ok(target.join("release"))
}

/// Runs a judge over a directory of recordings; a relative one is meant from where the person is.
pub(crate) fn judge(which: &str, directory: Option<&Path>, own: &str) -> Result<()> {
    let directory = match directory {
        Some(directory) => std::path::absolute(directory).context("the directory has no absolute path")?,
        None => root().join(own),
    };
    let directory = directory.to_str().context("the directory's name is not UTF-8")?;
    run(&["run", "--quiet", "--package", "xvs", "--example", "judge", "--", which, directory])
}

/// Runs a package's bench program, with words of its own.
pub(crate) fn bench(package: &str, program: &str, own: &[&str]) -> Result<()> {
    let mut words = vec!["bench", "--package", package, "--bench", program];
    if !own.is_empty() {
        words.push("--");
        words.extend(own);
    }
    run(&words)
}
