//! `cargo xtask soak`: the soak of the laboratory (`tests/tests/soak`) for as long as one wants, against the release build.

use anyhow::{Context, Result, ensure};

use crate::cargo;
use crate::deps;

pub(crate) fn run(minutes: f64) -> Result<()> {
    ensure!((0.5..=1440.0).contains(&minutes), "--minutes {minutes}: from 0.5 to 1440 would be right");
    ensure!(xvs_tests::is_root(), "network namespaces need root: type `sudo -E env PATH=$PATH cargo xtask soak`");
    deps::install()?;
    let binaries = cargo::build_release()?;
    let mut command = cargo::command(&["test", "--package", "xvs-tests", "--test", "soak", "--", "--nocapture"]);
    command.env("XVS_BIN_DIR", binaries).env("XVS_SOAK_MINUTES", minutes.to_string()).env("XVS_CI", "1");
    let status = command.status().context("cargo could not be started")?;
    ensure!(status.success(), "the soak found something; it says what, above");
    Ok(())
}
