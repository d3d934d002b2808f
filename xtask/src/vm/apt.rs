//! Debian packages for the virtual machine: fetched by apt with a state of its own, unpacked, never installed.
//!
//! Invariant: the system's package database, lists and cache are read by nobody and changed by nobody here; only the
//! mirror and the key that the machine's own apt sources name are taken over. Everything lies below one directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Debian's keys, where the package debian-archive-keyring puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Directories that are symbolic links into /usr in a system of today.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// An apt that knows some suites of the machine's mirror and has nothing installed.
#[derive(Debug)]
pub(super) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Lists of these suites, fetched into `directory`.
    pub(super) fn update(directory: &Path, suites: &[String]) -> Result<Self> {
        let apt = Apt { directory: directory.to_owned() };
        for sub in ["lists/partial", "cache/archives/partial", "none"] {
            fs::create_dir_all(directory.join(sub)).with_context(|| format!("no directory {sub}"))?;
        }
        let mirror = mirror()?;
        let lines = suites.iter().map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"));
        fs::write(directory.join("sources.list"), lines.collect::<String>()).context("no list of sources")?;
        File::create(directory.join("status")).context("no list of installed packages")?;
        run(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::Etc::preferencesparts", "none"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::State::extended_states", "extended"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{name}={}", self.directory.join(path).display()));
        }
        // Root's own files are to be written, not those of apt's user.
        command.args(["-o", "APT::Sandbox::User=root"]).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Names of packages that begin so.
    pub(super) fn names(&self, begin: &str) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["pkgnames", begin]).output().context("apt-cache does not run")?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Downloads packages with all that they depend on.
    pub(super) fn download_with_dependencies(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let words = ["--quiet=2", "--yes", "--no-install-recommends", "--download-only", "install"];
        run(self.command("apt-get").args(words).args(packages))?;
        archives(&self.directory.join("cache/archives"))
    }

    /// Downloads these packages alone.
    pub(super) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let alone = self.directory.join("alone");
        fs::create_dir_all(&alone).context("no directory for packages")?;
        run(self.command("apt-get").args(["--quiet=2", "download"]).args(packages).current_dir(&alone))?;
        archives(&alone)
    }

    /// What a package depends on directly, by name.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["depends", package]).output().context("apt-cache does not run")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let name = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
        Ok(text.lines().filter_map(name).collect())
    }
}

/// Debian's suite that this machine was installed from, as its sources call it.
pub(super) fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release cannot be read")?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        (id, _) => bail!("the virtual machine is made of Debian's packages, and this machine is not Debian but {id:?}"),
    }
}

/// The Debian mirror of the machine's own sources.
fn mirror() -> Result<String> {
    let words = ["indextargets", "--format", "$(COMPONENT) $(RELEASE) $(REPO_URI)", "Created-By: Packages"];
    let output = Command::new("apt-get").args(words).output().context("`apt-get` could not be started")?;
    let (text, release) = (String::from_utf8_lossy(&output.stdout).into_owned(), release()?);
    let own = text.lines().find_map(|line| line.strip_prefix(&format!("main {release} ")));
    own.map(str::to_owned).with_context(|| format!("apt's sources name no mirror of Debian {release}"))
}

/// Unpacks packages over each other into one tree, as a system has them.
pub(super) fn unpack(archives: &[PathBuf], tree: &Path) -> Result<()> {
    for name in MERGED {
        fs::create_dir_all(tree.join("usr").join(name)).context("no directory to unpack into")?;
        let link = tree.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link).context("no symbolic link")?;
        }
    }
    for archive in archives {
        let mut reader = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(archive)
            .stdout(Stdio::piped())
            .spawn()
            .context("`dpkg-deb` could not be started")?;
        let tar = reader.stdout.take().context("no output of dpkg-deb")?;
        let unpacked =
            run(Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(tree).stdin(Stdio::from(tar)));
        let read = reader.wait().context("dpkg-deb cannot be waited for")?;
        unpacked?;
        ensure!(read.success(), "{} is no whole package", archive.display());
    }
    Ok(())
}

fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).context("no downloaded packages")?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    found.sort();
    Ok(found)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    // apt's complaints are shown; what it says on success is nobody's concern.
    let output = command.stdout(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
    let output = output.with_context(|| format!("`{name}` could not be started"))?;
    if !output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        bail!("`{name}` failed ({}); the virtual machine needs Debian's mirror once", output.status);
    }
    Ok(())
}
