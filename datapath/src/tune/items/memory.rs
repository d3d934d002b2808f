//! Memory: huge pages under the frames and the connection table, and what may be locked.

use std::io;

use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::Setting;

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// A line `NAME: NUMBER [kB]` of /proc/meminfo.
fn meminfo(scene: &Scene<'_>, name: &str) -> io::Result<u64> {
    let text = scene.machine.tree.read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or(io::ErrorKind::NotFound.into())
}

/// Bytes of all workers' frames.
fn frames(scene: &Scene<'_>) -> u64 {
    u64::from(scene.wishes.frame_count) * u64::from(scene.wishes.frame_size)
}

pub(super) fn huge_pages(scene: &Scene<'_>) -> io::Result<Finding> {
    let (total, free) = (meminfo(scene, "HugePages_Total")?, meminfo(scene, "HugePages_Free")?);
    let page = meminfo(scene, "Hugepagesize")? * 1024;
    let need = frames(scene).div_ceil(page) * u64::from(scene.queues);
    let now = format!("{total} of {} KiB, {free} of them free", page / 1024);
    let right = format!(
        "{need} for the frames of {} workers: fewer misses of the TLB. Without, the director takes small pages (unless \
         `huge_pages = \"require\"`)",
        scene.queues
    );
    let used = total.saturating_sub(free);
    if free >= need || used >= need {
        return Ok(Finding::good(now, right));
    }
    let have: u64 = scene.machine.tree.number(RESERVED)?;
    Ok(Finding::better(now, right).change("", Setting::file(RESERVED), (have + need - free).to_string()))
}

pub(super) fn transparent(scene: &Scene<'_>) -> io::Result<Finding> {
    let chosen = scene.machine.tree.chosen(TRANSPARENT)?;
    let right = "always or madvise: the connection table is large and read at random, and with `never` no program can have \
                 huge pages under such memory";
    if chosen != "never" {
        return Ok(Finding::good(chosen, right));
    }
    Ok(Finding::better(chosen, right).change("", Setting::Choice { path: TRANSPARENT.to_owned() }, "madvise"))
}

pub(super) fn memlock(scene: &Scene<'_>) -> io::Result<Finding> {
    let text = scene.machine.tree.read("/proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let soft = line.and_then(|line| line.split_whitespace().next()).ok_or(io::ErrorKind::NotFound)?;
    let need = frames(scene) * u64::from(scene.queues);
    let right = format!(
        "{} KiB for the frames of {} workers, or no limit, as root and CAP_IPC_LOCK have none. The director's own limit \
         counts: LimitMEMLOCK=infinity in its systemd unit",
        need / 1024,
        scene.queues
    );
    match soft.parse::<u64>() {
        Err(_) => Ok(Finding::good(format!("{soft} in this shell"), right)),
        Ok(bytes) if bytes >= need => Ok(Finding::good(format!("{} KiB in this shell", bytes / 1024), right)),
        Ok(bytes) => Ok(Finding::better(format!("{} KiB in this shell", bytes / 1024), right)
            .hand("ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit")),
    }
}
