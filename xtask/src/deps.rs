//! System packages: which are missing, and how they come.
//!
//! Invariant: only root installs; everybody else is shown the exact command. No service is started by an installation:
//! nginx would take port 80 of the machine, and the laboratory runs its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::packages::{BUILD, Package, TEST, WIRE, all, plugins};
use crate::paint::{bad, good, title, typed};

/// Debian's hook that is asked before a service is started; exit code 101 forbids.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Prints the list and what is installed.
pub(crate) fn list() -> Result<()> {
    for (heading, packages) in [
        ("to build", BUILD),
        ("to build scheduler plugins", plugins()),
        ("to test and demonstrate", TEST),
        ("to measure beside others", WIRE),
    ] {
        println!("{}", title(heading));
        for package in packages {
            let state = if is_installed(package.name) { good("installed") } else { bad("missing  ") };
            println!("  {state}  {:22} {}", package.name, package.why);
        }
    }
    Ok(())
}

/// Fails if anything is missing.
pub(crate) fn check() -> Result<()> {
    list()?;
    let missing = missing();
    ensure!(missing.is_empty(), "{} missing; `{}` brings them", count(&missing), command_line(&missing));
    Ok(())
}

/// Installs what is missing, if this is root; else an error that shows the command.
pub(crate) fn install() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("all system packages are installed");
        return Ok(());
    }
    if !xvs_tests::is_root() {
        bail!("{} missing; as root, type: {}", count(&missing), command_line(&missing));
    }
    println!("{}", typed(format!("# {}", command_line(&missing))));
    let _no_service = NoService::begin()?;
    apt(&["update", "--quiet"])?;
    let mut words = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    words.extend(missing.iter().map(|package| package.name));
    apt(&words)
}

fn missing() -> Vec<Package> {
    all().filter(|package| !is_installed(package.name)).collect()
}

fn count(missing: &[Package]) -> String {
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    match names.as_slice() {
        [name] => format!("the package {name} is"),
        names => format!("the packages {} are", names.join(", ")),
    }
}

fn command_line(missing: &[Package]) -> String {
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    format!("apt-get update && apt-get install --yes --no-install-recommends {}", names.join(" "))
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["--show", "--showformat=${Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"install ok installed")
}

fn apt(words: &[&str]) -> Result<()> {
    let status =
        Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive").status().context(
            "`apt-get` could not be started; on other systems than Debian install by hand what `deps` lists",
        )?;
    ensure!(status.success(), "`apt-get {}` failed ({status})", words.join(" "));
    Ok(())
}

/// While it lives, installed services are not started. A policy of the machine's owner is left as it is.
struct NoService {
    ours: bool,
}

impl NoService {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(NoService { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("{POLICY} could not be written"))?;
        fs::set_permissions(POLICY, Permissions::from_mode(0o755)).with_context(|| format!("{POLICY}: no mode"))?;
        Ok(NoService { ours: true })
    }
}

impl Drop for NoService {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
