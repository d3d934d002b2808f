//! The first file system of the virtual machine, which is also its last: two archives that the kernel unpacks in turn.
//!
//! The *base* is Debian's programs and the kernel's modules that are needed, made once. The *load* is what is built
//! here and the scenarios of `tests/vm`, made at every start.
//!
//! Invariant: a base that is there is whole, and is of this list of modules: a changed list has another name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::Cpio;
use super::store::{self, Store};
use crate::cargo;

/// Modules that scenarios ask for; what these depend on comes along.
const MODULES: &[&str] = &[
    "virtio_net",
    "virtio_pci",
    "igb",
    "veth",
    "macvlan",
    "dummy",
    "ipip",
    "pktgen",
    "xsk_diag",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_wlc",
    "ip_vs_mh",
];

/// What no scenario reads. (`perl` and `dpkg` come along with packages and never run.)
const SKIP: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/perl",
    "usr/share/perl5",
    "usr/share/zoneinfo",
    "usr/share/i18n",
    "usr/share/bash-completion",
    "usr/share/lintian",
    "usr/share/common-licenses",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/perl5",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/locale",
    "usr/share/perl5",
    "usr/share/openssl",
    "usr/include",
    "var/lib/dpkg",
];

/// Directories that are mounted over, or written to.
const DIRECTORIES: &[&str] = &["dev", "proc", "run", "sys", "tmp", "root"];

/// busybox's programs that `init`, the scenarios and the scripts for pktgen call.
const APPLETS: &[&str] = &[
    "sh", "mkdir", "mount", "modprobe", "poweroff", "setsid", "sleep", "stty", "dmesg", "ls", "cat", "ps", "awk",
    "cut", "dirname", "find", "grep", "id", "mktemp", "rm", "sed", "sort", "sysctl", "tr", "uniq", "wc",
];

/// Where the load lies inside.
const LOAD: &str = "xvs";

/// Makes the base, if it is not there.
pub(super) fn base(store: &Store) -> Result<PathBuf> {
    let directory = store.directory();
    let path = directory.join(format!("base-{}-{:08x}.cpio", store.release()?, fingerprint()));
    if path.exists() {
        return Ok(path);
    }
    println!("making the virtual machine's base");
    let half = directory.join("base.part");
    let mut cpio = Cpio::create(&half).context("the base cannot be written")?;
    write_base(store, &mut cpio).and_then(|()| cpio.finish().context("the base cannot be finished"))?;
    for old in fs::read_dir(directory)?.flatten().filter(|old| old.file_name().to_string_lossy().starts_with("base-")) {
        let _ = fs::remove_file(old.path());
    }
    fs::rename(&half, &path).context("the base cannot be put to its place")?;
    Ok(path)
}

/// A number that changes with what lies in a base.
fn fingerprint() -> u32 {
    store::fingerprint([MODULES, SKIP, DIRECTORIES, APPLETS, store::GUEST].into_iter().flatten())
}

fn write_base(store: &Store, cpio: &mut Cpio) -> Result<()> {
    for name in DIRECTORIES {
        cpio.directory(name)?;
    }
    // The kernel opens it for the first program, before anything is mounted.
    cpio.device("dev/console", 5, 1)?;
    cpio.tree(&store.guest(), "", &|name| SKIP.contains(&name) || name.ends_with(".pyc"))
        .context("Debian's programs")?;
    for (name, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/nsswitch.conf", "hosts: files\npasswd: files\ngroup: files\n"),
    ] {
        cpio.file(name, 0o644, text.as_bytes())?;
    }
    let busybox = store.guest().join("usr/bin/busybox");
    for applet in APPLETS {
        if !store.guest().join("usr/bin").join(applet).exists() {
            cpio.link(&format!("usr/bin/{applet}"), Path::new("busybox"))?;
        }
    }
    write_modules(store, &busybox, cpio)
}

fn write_modules(store: &Store, busybox: &Path, cpio: &mut Cpio) -> Result<()> {
    let (root, release) = (store.modules(), store.release()?);
    let status = store.program("usr/bin/kmod", "depmod").arg("-b").arg(&root).arg(&release).status();
    ensure!(status.context("depmod cannot be started")?.success(), "depmod failed");
    let home = root.join("usr/lib/modules").join(&release);
    let text = fs::read_to_string(home.join("modules.dep")).context("depmod wrote no list of dependencies")?;
    let builtin = fs::read_to_string(home.join("modules.builtin")).unwrap_or_default();
    let wanted = closure(&text, &builtin)?;
    let place = format!("usr/lib/modules/{release}");
    let mut directories = BTreeSet::from([place.clone()]);
    cpio.directory("usr/lib/modules")?;
    cpio.directory(&place)?;
    let mut index = String::new();
    for (path, needs) in &wanted {
        let plain = |path: &str| path.trim_end_matches(".xz").to_owned();
        let mut parent = place.clone();
        for piece in path.rsplit_once('/').map_or("", |(parent, _)| parent).split('/') {
            parent = format!("{parent}/{piece}");
            if directories.insert(parent.clone()) {
                cpio.directory(&parent)?;
            }
        }
        cpio.file(&format!("{place}/{}", plain(path)), 0o644, &unpacked(busybox, &home.join(path))?)?;
        let needs: Vec<_> = needs.iter().map(|path| plain(path)).collect();
        index += &format!("{}: {}\n", plain(path), needs.join(" "));
    }
    cpio.file(&format!("{place}/modules.dep"), 0o644, index.as_bytes())?;
    Ok(())
}

/// The modules of [`MODULES`] and all that they need, each with its needs; what is built in is left out.
fn closure(text: &str, builtin: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let lines = text.lines().filter_map(|line| line.split_once(": ").or(line.strip_suffix(':').map(|path| (path, ""))));
    let all: BTreeMap<&str, Vec<&str>> = lines.map(|(path, needs)| (path, needs.split(' ').collect())).collect();
    let mut wanted = BTreeMap::new();
    for module in MODULES {
        let is_it = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or_default();
            file.split('.').next().is_some_and(|name| name.replace('-', "_") == *module)
        };
        if builtin.lines().any(is_it) {
            continue;
        }
        let (path, needs) =
            all.iter().find(|(path, _)| is_it(path)).with_context(|| format!("the kernel has no module {module}"))?;
        // depmod lists needs with the needs of those.
        for path in needs.iter().filter(|path| !path.is_empty()).chain([path]) {
            let own: Vec<String> =
                all[path].iter().filter(|path| !path.is_empty()).map(|&path| path.to_owned()).collect();
            wanted.insert((*path).to_owned(), own);
        }
    }
    Ok(wanted)
}

fn unpacked(busybox: &Path, path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|end| end != "xz") {
        return fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    }
    let output = Command::new(busybox).args(["xz", "-dc"]).arg(path).output().context("busybox cannot be started")?;
    ensure!(output.status.success(), "{} cannot be unpacked", path.display());
    Ok(output.stdout)
}

/// Makes the load: the product of `binaries`, and the scenarios.
pub(super) fn load(store: &Store, binaries: &Path) -> Result<PathBuf> {
    let path = store.directory().join("load.cpio");
    let mut cpio = Cpio::create(&path).context("the load cannot be written")?;
    cpio.directory(LOAD)?;
    for name in ["xvs", "xvsadm", "xvs-peer"] {
        let binary = fs::read(binaries.join(name)).with_context(|| format!("{name} is not built"))?;
        cpio.file(&format!("{LOAD}/{name}"), 0o755, &binary)?;
    }
    let scenarios = cargo::root().join("tests/vm");
    for entry in fs::read_dir(&scenarios).context("there are no scenarios in tests/vm")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".py") {
            cpio.file(&format!("{LOAD}/{name}"), 0o644, &fs::read(entry.path()).context("a scenario cannot be read")?)?;
        }
    }
    for name in ["pktgen.sh", "check.sh"] {
        let script = fs::read(cargo::root().join("tests/bench/pktgen").join(name));
        cpio.file(&format!("{LOAD}/{name}"), 0o755, &script.with_context(|| format!("{name} cannot be read"))?)?;
    }
    cpio.file("init", 0o755, &fs::read(scenarios.join("init")).context("tests/vm/init cannot be read")?)?;
    cpio.finish().context("the load cannot be finished")?;
    Ok(path)
}
