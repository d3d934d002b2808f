//! `cargo xtask plugins`: the schedulers of `sched-plugins` as modules, and what they came to.
//!
//! Invariant: it fails if one does not build, or if there is nothing to build with; the error says what to install.

use anyhow::Result;

use crate::paint::{good, title};

/// Digits of the SHA-256 that are shown.
const DIGITS: usize = 12;

/// Builds them in the first way that is open, or in the one with the letter, and prints a table.
pub(crate) fn run(letter: Option<char>) -> Result<()> {
    println!("{}", title("scheduler plugins"));
    let way = xvs_plugins::find(letter)?;
    println!("way {way}");
    let built = xvs_plugins::build_by(&way)?;
    let widest = built.iter().map(|module| module.name.len()).max().unwrap_or(0);
    println!("{:widest$}  {:>7}  {:DIGITS$}  way", "name", "bytes", "sha256");
    for module in &built {
        let (name, sha256) = (&module.name, module.sha256.get(..DIGITS).unwrap_or(&module.sha256));
        println!("{name:widest$}  {:>7}  {sha256}  {}", module.size, module.way);
    }
    if let Some(directory) = built.first().and_then(|module| module.path.parent()) {
        println!("{} modules in {}", good(built.len()), directory.display());
    }
    Ok(())
}
