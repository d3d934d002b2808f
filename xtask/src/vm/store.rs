//! What the virtual machine is made of, kept in `target/vm`: an emulator, a kernel with its modules, programs for inside.
//!
//! ```text
//! target/vm/host      qemu and depmod, run on this machine by their own loader and libraries
//!           kernel    vmlinuz and the modules of one kernel
//!           guest-*   Debian's programs of this machine's own release, so that what is built here runs inside; the
//!                     name tells the list of them
//! ```
//! Invariant: each part is complete or absent: it is unpacked beside its place and renamed. A part that is there is
//! never asked for again, so after the first time no network is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::apt::{self, Apt};
use crate::cargo;

/// The release that emulator and kernel come from, whatever runs here.
const SUITE: &str = "trixie";
const BACKPORTS: &str = "trixie-backports";

/// The oldest kernel in which virtio-net binds in zero-copy mode and IPVS and pktgen are what they are today.
const KERNEL_MIN: (u32, u32) = (6, 18);

/// The emulator, and what makes an index of modules.
const HOST: &[&str] = &["qemu-system-x86", "kmod"];

/// What runs inside, besides what is built here.
pub(super) const GUEST: &[&str] = &[
    "busybox-static", // init, shell, modprobe and all that is small
    "iproute2",       // namespaces, macvlan, tunnels
    "ethtool",        // numbers of queues
    "ipvsadm",        // the kernel's IPVS, to compare with
    "curl",           // a client
    "dash",           // a shell that calls the programs of the other packages, where busybox calls its own
    "tcpdump",        // what pktgen sends
    "nginx-light",    // real servers
    "python3",        // the scenarios
    "libelf1",        // xvs is linked with it
    "zlib1g",         // and with this
];

/// The parts, all there.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Fetches what is missing.
    pub(super) fn open() -> Result<Self> {
        let output = Command::new("dpkg").arg("--print-architecture").output();
        let architecture = output.context("`dpkg` could not be started")?.stdout;
        ensure!(architecture.starts_with(b"amd64"), "the virtual machine is one of amd64, and so must this machine be");
        let store = Store { directory: cargo::root().join("target/vm") };
        store.part("host", |place, work| {
            let apt = Apt::update(work, &[SUITE.into()])?;
            apt::unpack(&apt.download_with_dependencies(HOST)?, place)
        })?;
        store.part("kernel", |place, work| {
            let apt = Apt::update(work, &[BACKPORTS.into()])?;
            let image = newest_patch(&apt.names("linux-image-")?)?;
            let mut wanted = vec![image.clone()];
            // Newer kernels come in several packages.
            let parts = apt.dependencies(&image)?.into_iter();
            wanted.extend(parts.filter(|name| ["linux-binary-", "linux-modules-"].iter().any(|p| name.starts_with(p))));
            apt::unpack(&apt.download(&wanted)?, place)
        })?;
        store.part(&guest_name(), |place, work| {
            let release = apt::release()?;
            let apt = Apt::update(work, &[release])?;
            apt::unpack(&apt.download_with_dependencies(GUEST)?, place)
        })?;
        let is_old = |name: &str| name.starts_with("guest") && name != guest_name();
        for old in fs::read_dir(&store.directory).context("no list of the parts")?.flatten() {
            if is_old(&old.file_name().to_string_lossy()) {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        Ok(store)
    }

    fn part(&self, name: &str, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
        let place = self.directory.join(name);
        if place.exists() {
            return Ok(());
        }
        let started = Instant::now();
        println!("fetching the virtual machine's {name} from Debian's mirror");
        let (half, work) = (self.directory.join(format!("{name}.part")), self.directory.join(format!("{name}.apt")));
        for directory in [&half, &work] {
            let _ = fs::remove_dir_all(directory);
            fs::create_dir_all(directory).with_context(|| format!("no directory {}", directory.display()))?;
        }
        make(&half, &work).with_context(|| format!("the virtual machine's {name} cannot be fetched"))?;
        fs::rename(&half, &place).context("a finished part cannot be put to its place")?;
        let _ = fs::remove_dir_all(&work);
        println!("  {name}: {:.0} s", started.elapsed().as_secs_f32());
        Ok(())
    }

    /// Where it all lies, with room for what is made of it.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Debian's programs for inside.
    pub(super) fn guest(&self) -> PathBuf {
        self.directory.join(guest_name())
    }

    /// The kernel's image.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let boot = self.directory.join("kernel/boot");
        let mut entries = fs::read_dir(&boot).context("the kernel's package has no /boot")?.flatten();
        let image = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
        Ok(image.context("the kernel's package has no image")?.path())
    }

    /// The kernel's release, as `uname -r` will tell it.
    pub(super) fn release(&self) -> Result<String> {
        let image = self.image()?;
        let name = image.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(name.trim_start_matches("vmlinuz-").to_owned())
    }

    /// The root of the kernel's modules: `lib/modules/RELEASE` is below it.
    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    /// A fetched program, with the loader and the libraries that it came with.
    pub(super) fn program(&self, path: &str, name: &str) -> Command {
        let host = self.directory.join("host");
        let mut command = Command::new(host.join("usr/lib64/ld-linux-x86-64.so.2"));
        let libraries = host.join("usr/lib/x86_64-linux-gnu");
        command.args(["--argv0", name, "--library-path"]).arg(libraries).arg(host.join(path));
        command
    }

    /// Directories in which qemu looks for firmware.
    pub(super) fn firmware(&self) -> [PathBuf; 2] {
        ["qemu", "seabios"].map(|name| self.directory.join("host/usr/share").join(name))
    }
}

/// A part that is there is never asked for again, so another list of programs is another part.
fn guest_name() -> String {
    format!("guest-{:08x}", fingerprint(GUEST))
}

/// A number that changes with a list of names (FNV-1a).
pub(super) fn fingerprint<'n>(names: impl IntoIterator<Item = &'n &'n str>) -> u32 {
    let bytes = names.into_iter().flat_map(|name| name.bytes().chain([0]));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The newest patch of the oldest kernel that is good enough, by the names of Debian's packages.
fn newest_patch(names: &[String]) -> Result<String> {
    let mut kernels: Vec<((u32, u32, u32), &String)> =
        names.iter().filter_map(|name| Some((version(name)?, name))).collect();
    kernels.retain(|((major, minor, _), _)| (*major, *minor) >= KERNEL_MIN);
    let oldest = kernels.iter().map(|((major, minor, _), _)| (*major, *minor)).min();
    kernels.retain(|((major, minor, _), _)| Some((*major, *minor)) == oldest);
    let (major, minor) = KERNEL_MIN;
    let newest = kernels.into_iter().max_by_key(|(version, _)| *version);
    Ok(newest.with_context(|| format!("{BACKPORTS} has no kernel {major}.{minor} or newer"))?.1.clone())
}

/// The version of a plain kernel of amd64: `linux-image-6.18.15+deb13-amd64`.
fn version(name: &str) -> Option<(u32, u32, u32)> {
    let (version, rest) = name.strip_prefix("linux-image-")?.split_once('+')?;
    if rest.matches('-').count() != 1 || !rest.ends_with("-amd64") {
        return None;
    }
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the choice of a kernel against flavours, signed twins, meta packages and the order of names.
    #[test]
    fn the_oldest_kernel_that_will_do_in_its_newest_patch() {
        let names = [
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-6.18.5+deb13-amd64",
            "linux-image-6.18.15+deb13-amd64",
            "linux-image-6.18.99+deb13-cloud-amd64",
            "linux-image-6.18.99+deb13-amd64-unsigned",
            "linux-image-7.3.4+deb13-amd64",
            "linux-image-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest_patch(&names).expect("a kernel"), "linux-image-6.18.15+deb13-amd64");
        assert_eq!(newest_patch(&names[5..]).expect("a kernel"), "linux-image-7.3.4+deb13-amd64");
        assert!(newest_patch(&names[..1]).is_err());
    }
}
