//! Which CPU is interrupted for which queue, and whether a daemon moves that about.

use std::collections::BTreeMap;
use std::io;

use crate::tune::cpus::Cpus;
use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::Setting;
use crate::tune::tree::trailing;

/// Words in the names of interrupts that are no queue's.
const OTHERS: [&str; 12] =
    ["config", "async", "ctrl", "control", "cmd", "fdir", "misc", "mbx", "mailbox", "event", "mgmnt", "adminq"];

pub(super) fn interrupts(scene: &Scene<'_>) -> io::Result<Finding> {
    scene.demand_sysfs()?;
    let queues = of_queues(scene)?;
    if queues.is_empty() {
        return Ok(Finding::absent("no interrupts of queues are known: the device is virtual, or has others than MSI"));
    }
    let cpus = scene.cpus()?;
    let mut all = Vec::new();
    for (queue, numbers) in &queues {
        for number in numbers {
            let path = format!("/proc/irq/{number}/smp_affinity_list");
            let now = scene.machine.tree.read(&path)?.parse().map_err(io::Error::other)?;
            all.push(Affinity { queue: *queue, path, now, wanted: cpus[*queue as usize % cpus.len()] });
        }
    }
    let mut told: Vec<String> = all.iter().map(|one| format!("{}: {}", one.queue, one.now)).collect();
    // A queue may have an interrupt for each direction.
    told.dedup();
    let now = format!("CPUs of the queues {}", told.join(", "));
    let right = "one CPU for each queue, and no two queues on one: then its packets stay in one cache, and no CPU is flooded \
                 while others idle. Take the worker's own for the fewest CPUs or with busy polling, others for the highest \
                 rate (--cpus)";
    let single = all.iter().all(|one| one.now.count() == 1);
    let shared = queues.len() <= cpus.len()
        && all.iter().any(|one| all.iter().any(|other| one.queue < other.queue && one.now == other.now));
    let wished = scene.wishes.cpus.is_none() || all.iter().all(Affinity::is_right);
    if single && !shared && wished {
        return Ok(Finding::good(now, right));
    }
    let finding = Finding::better(now, right);
    if has_irqbalance(scene) {
        return Ok(finding.hand("systemctl stop irqbalance   # else it undoes what you set; then look again"));
    }
    let change =
        |finding: Finding, one: Affinity| finding.change(scene.name, Setting::file(one.path), one.wanted.to_string());
    Ok(all.into_iter().filter(|one| !one.is_right()).fold(finding, change))
}

/// An interrupt of a queue.
struct Affinity {
    queue: u32,
    path: String,
    now: Cpus,
    wanted: u32,
}

impl Affinity {
    fn is_right(&self) -> bool {
        self.now.as_slice() == [self.wanted]
    }
}

/// The interrupts of each queue, told by their names: `eth0-TxRx-3`, `mlx5_comp3@pci:0000:01:00.0`, `virtio1-input.3`.
fn of_queues(scene: &Scene<'_>) -> io::Result<BTreeMap<u32, Vec<u32>>> {
    let table = scene.machine.tree.read("/proc/interrupts")?;
    let numbers = scene.interrupts();
    let mut queues: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for line in table.lines() {
        let Some((number, rest)) = line.trim_start().split_once(':') else { continue };
        let Some(number) = number.parse().ok().filter(|number| numbers.contains(number)) else { continue };
        let Some(name) = rest.split_whitespace().last().and_then(|name| name.split('@').next()) else { continue };
        let lower = name.to_lowercase();
        if let Some(queue) = trailing(name)
            && !OTHERS.iter().any(|other| lower.contains(other))
        {
            queues.entry(queue).or_default().push(number);
        }
    }
    Ok(queues)
}

fn has_irqbalance(scene: &Scene<'_>) -> bool {
    let tree = &scene.machine.tree;
    let processes = tree.names("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    processes.into_iter().any(|pid| tree.read(&format!("/proc/{pid}/comm")).is_ok_and(|name| name == "irqbalance"))
}

pub(super) fn irqbalance(scene: &Scene<'_>) -> io::Result<Finding> {
    let right = "stopped, or told to leave the NIC's interrupts alone: it moves them from CPU to CPU under load";
    if has_irqbalance(scene) {
        return Ok(Finding::better("runs", right)
            .hand("systemctl disable --now irqbalance")
            .hand("or in /etc/default/irqbalance: OPTIONS=--banirq=NUMBER, for each interrupt of the NIC"));
    }
    Ok(Finding::good("does not run", right))
}
