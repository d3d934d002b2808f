//! Where the programs under test are.
//!
//! [`use_binaries_in`] decides if it was called, then `XVS_BIN_DIR` if it is set. Otherwise they are looked for beside the running executable and in the profiles
//! `release` and `debug` of the same target directory, and the newest wins: a stale release build must not be tested
//! in place of what was just compiled.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Takes all programs from this directory and from nowhere else, until the process ends.
pub fn use_binaries_in(directory: &Path) {
    // A second choice would be a mistake of the caller's; the first one stands.
    let _ = CHOSEN.set(directory.to_owned());
}

/// Path of the program `name`: `xvs`, `xvsadm`, `xvs-peer`, or one of `xvs-wire`. An error says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let package = match name {
        "xvs-peer" => "xvs-tests",
        "xvs-generator" | "xvs-sink" | "xvs-forwarder" | "xvs-probe" => "xvs-wire",
        _ => "xvs",
    };
    let cure = format!("build it with `cargo build --release -p {package}`, or set XVS_BIN_DIR to where it is");
    let directories = directories()?;
    let found = directories.iter().map(|directory| directory.join(name)).filter_map(|path| Some((built(&path)?, path)));
    match found.max_by_key(|(built, _)| *built) {
        Some((_, path)) => Ok(path),
        None => {
            let places: Vec<_> = directories.iter().map(|directory| directory.display().to_string()).collect();
            bail!("the program `{name}` is neither in {}; {cure}", places.join(" nor in "))
        }
    }
}

fn directories() -> Result<Vec<PathBuf>> {
    if let Some(directory) = CHOSEN.get() {
        return Ok(vec![directory.clone()]);
    }
    if let Some(directory) = env::var_os("XVS_BIN_DIR") {
        return Ok(vec![directory.into()]);
    }
    let executable = env::current_exe().context("the running executable has no path")?;
    let beside = executable.parent().unwrap_or(Path::new("/"));
    // Test executables live in `target/PROFILE/deps`, programs in `target/PROFILE`.
    let profile = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let target = profile.parent().unwrap_or(profile);
    let mut directories = vec![profile.to_owned()];
    directories.extend(["release", "debug"].iter().map(|name| target.join(name)).filter(|path| path != profile));
    Ok(directories)
}

fn built(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}
