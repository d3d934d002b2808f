//! Builds the scheduler plugins of `sched-plugins` as WebAssembly, and finds them for tests.
//!
//! `cargo xtask plugins` prints what [`build`] returns. A test asks for a module by its folder's name:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let wlc = std::fs::read(xvs_plugins::module("wlc")?)?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: a module is what its source says now, or there is an error that says what is missing. No test passes
//! because there was nothing to test. Several processes may build at once: they wait for each other, and a module is
//! never seen half written.
//!
//! Not here: what a module may do (`xvs plugin check`), and the schedulers' own native tests (`sched-plugins`).

mod c;
mod rust;
mod way;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};

pub use rust::command;
pub use way::{Way, find};

/// The variable that names a directory of modules which are taken as they are, without building anything.
pub const DIRECTORY: &str = "XVS_PLUGIN_DIR";

/// A module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The name of its folder in `sched-plugins`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// How long it is, in bytes.
    pub size: usize,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// How it was built: a letter of [`Way`], or `C` for one that clang made.
    pub way: String,
}

/// Builds all plugins with the compiler that is there.
///
/// # Errors
/// No compiler is there (the error says what to install), or a plugin does not compile.
pub fn build() -> Result<Vec<Built>> {
    build_by(&find(None)?)
}

/// Builds all plugins in one way.
///
/// # Errors
/// As of [`build`].
pub fn build_by(way: &Way) -> Result<Vec<Built>> {
    let into = target().join("plugins");
    fs::create_dir_all(&into).with_context(|| format!("{} could not be made", into.display()))?;
    let lock = File::create(into.join(".lock")).context("the plugins' lock could not be made")?;
    lock.lock().context("the plugins' lock could not be had")?;
    let mut built = Vec::new();
    for (name, made) in rust::build(way, &sources(), &target())? {
        built.push(keep(&into, name, &made, way.letter.to_string())?);
    }
    for (name, made) in c::build(&sources(), &sdk(), &target())? {
        built.push(keep(&into, name, &made, "clang".to_owned())?);
    }
    built.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(built)
}

/// The path of a plugin's module, by its folder's name. In a test process the first call builds all that is not up to
/// date, unless the variable [`DIRECTORY`] says where the modules are.
///
/// # Errors
/// It can not be built, or there is no such plugin.
pub fn module(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = BUILT.get_or_init(|| match env::var_os(DIRECTORY) {
        Some(directory) => Ok(directory.into()),
        None => build().map(|_| target().join("plugins")).map_err(|error| format!("{error:#}")),
    });
    let directory = directory.as_ref().map_err(|error| anyhow!("{error}"))?;
    let path = directory.join(name).with_extension("wasm");
    ensure!(path.is_file(), "{} is not there: is `{name}` a folder of sched-plugins?", path.display());
    Ok(path)
}

/// Builds a plugin of one file in C, wherever it is.
///
/// # Errors
/// There is no clang, or it does not compile.
pub fn compile_c(source: &Path, module: &Path) -> Result<()> {
    c::compile(source, &sdk(), module)
}

/// Puts a module where it is looked for, and says what it is. One that did not change is not touched.
fn keep(into: &Path, name: String, made: &Path, way: String) -> Result<Built> {
    let bytes = fs::read(made).with_context(|| format!("{} could not be read", made.display()))?;
    let path = into.join(&name).with_extension("wasm");
    if fs::read(&path).ok().as_ref() != Some(&bytes) {
        let half = path.with_extension("half");
        fs::write(&half, &bytes).and_then(|()| fs::rename(&half, &path)).with_context(|| format!("{name}.wasm"))?;
    }
    let digest = Sha256::digest(&bytes);
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Built { name, path, size: bytes.len(), sha256, way })
}

/// The root of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap_or(Path::new("."))
}

fn sources() -> PathBuf {
    root().join("sched-plugins")
}

fn sdk() -> PathBuf {
    root().join("sdk")
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    let given = env::var_os("CARGO_TARGET_DIR").and_then(|given| std::path::absolute(given).ok());
    given.unwrap_or_else(|| root().join("target"))
}
