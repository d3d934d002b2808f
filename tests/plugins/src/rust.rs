//! Plugins in Rust: one call of cargo for the workspace of plugins.
//!
//! Invariant: the directory of the sources is not part of a module (it is mapped away), so that the same compiler makes
//! the same bytes everywhere. Nothing is fetched: plugins have no dependency but the SDK.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::way::{TARGET, Way};

/// Builds all crates of a workspace that are modules; their names and files.
pub(crate) fn build(way: &Way, workspace: &Path, target: &Path) -> Result<Vec<(String, PathBuf)>> {
    let names = modules(workspace)?;
    // One directory for each way: their compilers do not share what they built.
    let target = target.join("plugins-build").join(way.letter.to_string());
    let mut command = command(way, workspace, &target);
    let output = command.output().with_context(|| format!("{} could not be started", way.cargo.display()))?;
    ensure!(
        output.status.success(),
        "the plugins do not build (way {way}):\n{}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    let directory = target.join(TARGET).join("release");
    Ok(names
        .into_iter()
        .map(|name| {
            let path = directory.join(name.replace('-', "_")).with_extension("wasm");
            (name, path)
        })
        .collect())
}

/// The call of cargo that builds the modules of a workspace, into a directory of its own.
pub fn command(way: &Way, workspace: &Path, target: &Path) -> Command {
    let mut command = Command::new(&way.cargo);
    command.current_dir(workspace).env("RUSTC", &way.rustc).env("CARGO_TARGET_DIR", target);
    // What is meant for the director's own build, or would replace the plugins' linker flags.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"]
    {
        command.env_remove(name);
    }
    command.args(["build", "--workspace", "--lib", "--release", "--offline", "--target", TARGET]);
    let root = workspace.parent().unwrap_or(workspace);
    let mapped = format!("--remap-path-prefix={}=.", root.display());
    command.arg("--config").arg(format!("target.{TARGET}.rustflags={:?}", [mapped]));
    if let Some(vendor) = &way.vendor {
        command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
        command.args(["-Zbuild-std=core,alloc", "--config", "source.crates-io.replace-with=\"vendored\""]);
        command.arg("--config").arg(format!("source.vendored.directory={:?}", vendor.display().to_string()));
    }
    command
}

/// The crates that are modules: those whose manifest names `cdylib`.
fn modules(workspace: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let folders = fs::read_dir(workspace).with_context(|| format!("{} can not be read", workspace.display()))?;
    for folder in folders {
        let folder = folder.context("sched-plugins can not be read")?;
        let manifest = fs::read_to_string(folder.path().join("Cargo.toml")).unwrap_or_default();
        if manifest.contains("\"cdylib\"") {
            names.push(folder.file_name().to_string_lossy().into_owned());
        }
    }
    ensure!(!names.is_empty(), "{} has no crate that is a module", workspace.display());
    names.sort();
    Ok(names)
}
