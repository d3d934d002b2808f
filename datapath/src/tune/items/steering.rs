//! The kernel's own steering of packets to queues and CPUs: XPS and RPS.

use std::io;

use crate::tune::cpus::Cpus;
use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::Setting;

pub(super) fn xps(scene: &Scene<'_>) -> io::Result<Finding> {
    scene.demand_sysfs()?;
    let queues = scene.queue_names("tx-");
    if queues.len() < 2 {
        return Ok(Finding::absent("one transmit queue"));
    }
    let path = |queue: &String| scene.path(&format!("queues/{queue}/xps_cpus"));
    let masks: io::Result<Vec<String>> = queues.iter().map(|queue| scene.machine.tree.read(&path(queue))).collect();
    let masks = masks?;
    let sets: Vec<Cpus> = masks.iter().map(|mask| Cpus::from_mask(mask).unwrap_or_default()).collect();
    let online = scene.online()?;
    let now = format!(
        "CPUs of the queues {}",
        sets.iter()
            .enumerate()
            .map(|(at, set)| format!("{at}: {}", if set.is_empty() { "any".to_owned() } else { set.to_string() }))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let right = "each CPU sends by a queue of its own: then the kernel's own packets do not wait for a queue's lock that a \
                 worker holds";
    // As many CPUs as queues have one of their own; more CPUs share them, more queues stay without.
    let used = queues.len().min(online.count());
    let owners = |cpu: &u32| sets.iter().filter(|set| set.as_slice().contains(cpu)).count();
    let even = sets.iter().filter(|set| !set.is_empty()).count() >= used;
    if even && online.as_slice().iter().all(|cpu| owners(cpu) == 1) {
        return Ok(Finding::good(now, right));
    }
    let finding = Finding::better(now, right);
    let ordered = order(&scene.cpus()?, &online);
    Ok(queues.iter().enumerate().zip(&sets).fold(finding, |finding, ((at, queue), set)| {
        let own =
            Cpus::new(ordered.iter().enumerate().filter(|(cpu, _)| cpu % queues.len() == at).map(|(_, cpu)| *cpu));
        if own == *set { finding } else { finding.change(scene.name, Setting::file(path(queue)), own.mask()) }
    }))
}

/// The workers' CPUs in their order, then the others.
fn order(workers: &[u32], online: &Cpus) -> Vec<u32> {
    let others = online.as_slice().iter().filter(|cpu| !workers.contains(cpu));
    workers.iter().chain(others).copied().collect()
}

pub(super) fn rps(scene: &Scene<'_>) -> io::Result<Finding> {
    scene.demand_sysfs()?;
    let mut on = Vec::new();
    for queue in scene.queue_names("rx-") {
        let path = scene.path(&format!("queues/{queue}/rps_cpus"));
        let mask = scene.machine.tree.read(&path)?;
        let set = Cpus::from_mask(&mask).unwrap_or_default();
        if !set.is_empty() {
            on.push((queue, path, set));
        }
    }
    let right = "off: packets change the CPU once more, by an interrupt between CPUs. Where XDP is generic, the director's \
                 packets go that way, too";
    if on.is_empty() {
        return Ok(Finding::good("off", right));
    }
    let told: Vec<String> = on.iter().map(|(queue, _, set)| format!("{queue}: CPUs {set}")).collect();
    let finding = Finding::better(told.join(", "), right);
    Ok(on.into_iter().fold(finding, |finding, (_, path, _)| finding.change(scene.name, Setting::file(path), "0")))
}
