//! Which compiler builds for WebAssembly on this machine.
//!
//! Invariant: a way that is returned has its standard library (or its source) and a linker. The order is: the Rust that
//! one works with; Debian's packages; Debian's newer compiler for browsers, which builds the core library itself.

use std::env;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// What plugins are built for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// What is told where no way is open.
const HELP: &str = "no Rust compiler on this machine builds for wasm32-unknown-unknown, so no scheduler plugin can be \
built. One of these helps:
  A  rustup target add wasm32-unknown-unknown
  B  apt-get install --yes --no-install-recommends rustc cargo libstd-rust-dev-wasm32 lld
     (Debian; `cargo xtask deps --install` does it)
  C  apt-get install --yes --no-install-recommends cargo-web rust-web-src lld   (Debian 12, without B's packages)";

/// A compiler and how it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `A` the Rust that runs this, `B` Debian's packages, `C` Debian's compiler for browsers.
    pub letter: char,
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its compiler.
    pub(crate) rustc: PathBuf,
    /// The vendored sources that `C` builds the core library from.
    pub(crate) vendor: Option<PathBuf>,
}

impl Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.letter, version(&self.rustc).unwrap_or_else(|| self.rustc.display().to_string()))
    }
}

/// The first way that is open, or the one with the letter.
///
/// # Errors
/// None is open, or not that one: the error says what to install.
pub fn find(letter: Option<char>) -> Result<Way> {
    let mut ways = [rustup, debian, browsers].into_iter().filter_map(|way| way());
    match ways.find(|way| letter.is_none_or(|letter| way.letter == letter.to_ascii_uppercase())) {
        Some(way) => Ok(way),
        None => match letter {
            Some(letter) => bail!("way {} is not open here. {HELP}", letter.to_ascii_uppercase()),
            None => bail!("{HELP}"),
        },
    }
}

/// The toolchain that runs this, or the one in the path.
fn rustup() -> Option<Way> {
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    // Beside it, because a cargo of one toolchain may not understand the compiler of another.
    let beside = cargo.with_file_name("rustc");
    let rustc = if beside.is_file() { beside } else { PathBuf::from("rustc") };
    has_target(&sysroot(&rustc)?).then_some(Way { letter: 'A', cargo, rustc, vendor: None })
}

fn debian() -> Option<Way> {
    let (cargo, rustc) = system()?;
    (has_target(&sysroot(&rustc)?) && has_linker()).then_some(Way { letter: 'B', cargo, rustc, vendor: None })
}

fn browsers() -> Option<Way> {
    let (cargo, rustc) = system()?;
    let vendor = sysroot(&rustc)?.join("lib/rustlib/src/rust/library/vendor");
    (vendor.is_dir() && has_linker()).then_some(Way { letter: 'C', cargo, rustc, vendor: Some(vendor) })
}

/// Debian's own, by its full name: another one may come first in the path.
fn system() -> Option<(PathBuf, PathBuf)> {
    let [cargo, rustc] = ["/usr/bin/cargo", "/usr/bin/rustc"].map(PathBuf::from);
    (cargo.is_file() && rustc.is_file()).then_some((cargo, rustc))
}

fn has_target(sysroot: &Path) -> bool {
    let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    library.read_dir().is_ok_and(|mut files| files.next().is_some())
}

fn has_linker() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join("wasm-ld").is_file())
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    said(rustc, &["--print", "sysroot"]).map(PathBuf::from)
}

fn version(rustc: &Path) -> Option<String> {
    said(rustc, &["--version"])
}

fn said(rustc: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new(rustc).args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine without a compiler must hear what to install, whichever way was asked for.
    #[test]
    fn a_closed_way_says_what_opens_it() {
        let error = find(Some('x')).unwrap_err().to_string();
        assert!(error.starts_with("way X is not open here"), "{error}");
        for word in ["rustup target add", "libstd-rust-dev-wasm32", "cargo-web"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
