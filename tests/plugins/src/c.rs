//! Plugins in C: one call of clang for each folder that has a `.c` file of its own name.
//!
//! Invariant: warnings are errors, no C library is there, and the stack lies below the data, so that a stack that
//! overflows is a trap and not a scribble.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const FLAGS: &[&str] = &[
    "--target=wasm32",
    "-std=c11",
    "-ffreestanding",
    "-nostdlib",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,--stack-first",
    "-Wl,-z,stack-size=16384",
];

/// Compilers, the plainest name first; versions since Debian 12's.
const COMPILERS: &[&str] =
    &["clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19", "clang-20", "clang-21"];

/// Builds all folders that have a `NAME/NAME.c`; their names and files.
pub(crate) fn build(sources: &Path, sdk: &Path, target: &Path) -> Result<Vec<(String, PathBuf)>> {
    let into = target.join("plugins-build").join("clang");
    fs::create_dir_all(&into).with_context(|| format!("{} could not be made", into.display()))?;
    let mut built = Vec::new();
    for folder in fs::read_dir(sources).with_context(|| format!("{} can not be read", sources.display()))? {
        let folder = folder.context("sched-plugins can not be read")?;
        let name = folder.file_name().to_string_lossy().into_owned();
        let source = folder.path().join(&name).with_extension("c");
        if !source.is_file() {
            continue;
        }
        let module = into.join(&name).with_extension("wasm");
        compile(&source, sdk, &module)?;
        built.push((name, module));
    }
    Ok(built)
}

/// Builds one file.
pub(crate) fn compile(source: &Path, sdk: &Path, module: &Path) -> Result<()> {
    let mut command = Command::new(compiler()?);
    command.args(FLAGS).arg("-I").arg(sdk).arg("-o").args([module, source]);
    let output = command.output().context("clang could not be started")?;
    ensure!(
        output.status.success(),
        "{} does not build (clang with the linker `wasm-ld`, of the packages clang and lld):\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}

/// The first clang that is there.
fn compiler() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = COMPILERS.iter().find_map(|name| {
        env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
    });
    match found {
        Some(found) => Ok(found),
        None => bail!("no clang is here, so plugins in C can not be built: apt-get install --yes clang lld"),
    }
}
