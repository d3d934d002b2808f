//! CPUs: their distance to the NIC, clock, sleep, siblings, and what the kernel does against their faults.

use std::io;

use crate::tune::cpus::Cpus;
use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::Setting;
use crate::tune::tree::trailing;

const CPU: &str = "/sys/devices/system/cpu";
/// Microseconds. A ring of 1,024 descriptors lasts 69 at 14.88 million packets a second.
const SLEEPY_US: u64 = 50;

pub(super) fn numa(scene: &Scene<'_>) -> io::Result<Finding> {
    scene.demand_sysfs()?;
    let nodes = scene.machine.tree.names("/sys/devices/system/node");
    if nodes.iter().filter(|name| name.starts_with("node") && trailing(name).is_some()).count() < 2 {
        return Ok(Finding::absent("one node"));
    }
    let node: i32 = scene.bus("numa_node")?.parse().unwrap_or(-1);
    if node < 0 {
        return Ok(Finding::unknown("the firmware does not say which node the NIC is at"));
    }
    let near: Cpus = scene.bus("local_cpulist")?.parse().map_err(io::Error::other)?;
    let right = format!("workers on the CPUs {near}: others reach the NIC's memory through the link between the nodes");
    match &scene.wishes.cpus {
        Some(cpus) if Cpus::new(cpus.iter().copied()).within(&near) => {
            Ok(Finding::good(format!("node {node}, and so are the workers"), right))
        }
        Some(_) => Ok(Finding::better(format!("node {node}; some workers are elsewhere"), right)
            .hand(format!("cpus = [...] in [director], out of {near}"))),
        None => Ok(Finding::better(format!("node {node}; the workers' CPUs are not said (--cpus, --config)"), right)
            .hand(format!("cpus = [...] in [director], out of {near}"))),
    }
}

pub(super) fn governor(scene: &Scene<'_>) -> io::Result<Finding> {
    let tree = &scene.machine.tree;
    let policies = tree.names(&format!("{CPU}/cpufreq"));
    let path = |policy: &String| format!("{CPU}/cpufreq/{policy}/scaling_governor");
    let policies: Vec<String> = policies.iter().filter(|policy| policy.starts_with("policy")).map(path).collect();
    if policies.is_empty() {
        return Ok(Finding::absent("the kernel does not set the clock here (a virtual machine, or the firmware does)"));
    }
    let governors: Vec<String> = policies.iter().map(|path| tree.read(path)).collect::<io::Result<_>>()?;
    let mut kinds = governors.clone();
    kinds.sort_unstable();
    kinds.dedup();
    let right = "performance: a worker that sleeps between packets looks idle to the others, which lower the clock";
    if kinds == ["performance"] {
        return Ok(Finding::good("performance", right));
    }
    let slow = policies.into_iter().zip(&governors).filter(|(_, governor)| *governor != "performance");
    let finding = Finding::better(kinds.join(", "), format!("{right}. It takes more power"));
    Ok(slow.fold(finding, |finding, (path, _)| finding.change("", Setting::file(path), "performance")))
}

pub(super) fn idle_states(scene: &Scene<'_>) -> io::Result<Finding> {
    let tree = &scene.machine.tree;
    let directory = format!("{CPU}/cpu0/cpuidle");
    let states = tree.names(&directory).into_iter().filter(|state| state.starts_with("state"));
    let mut deepest = None;
    for state in states {
        let latency: u64 = tree.number(&format!("{directory}/{state}/latency"))?;
        let disabled: u64 = tree.number(&format!("{directory}/{state}/disable"))?;
        if disabled == 0 && deepest.as_ref().is_none_or(|(most, _)| latency > *most) {
            deepest = Some((latency, tree.read(&format!("{directory}/{state}/name"))?));
        }
    }
    let Some((latency, name)) = deepest else {
        return Ok(Finding::absent("the kernel knows no idle states (a virtual machine, or they are off)"));
    };
    let now = format!("{name}, {latency} microseconds to wake up");
    let right = format!(
        "states of at most {SLEEPY_US} microseconds, or busy polling: packets after a pause wait until the CPU is awake, and \
         a ring of 1,024 fills in 69 at the full rate of 10 Gbit/s"
    );
    if latency <= SLEEPY_US {
        return Ok(Finding::good(now, right));
    }
    Ok(Finding::better(now, right)
        .hand(format!("cpupower idle-set -D {SLEEPY_US}   # cpupower idle-set -E puts it back")))
}

pub(super) fn smt(scene: &Scene<'_>) -> io::Result<Finding> {
    let tree = &scene.machine.tree;
    let right = "one worker for each core: two on one core share its caches and execution units";
    if tree.read(&format!("{CPU}/smt/active"))? != "1" {
        return Ok(Finding::good("off, or there is none", right));
    }
    let siblings = |cpu: u32| -> Option<Cpus> {
        tree.read(&format!("{CPU}/cpu{cpu}/topology/thread_siblings_list")).ok()?.parse().ok()
    };
    let online = scene.online()?;
    let first = |cpu: &u32| siblings(*cpu).is_none_or(|all| all.as_slice().first() == Some(cpu));
    let cores = Cpus::new(online.as_slice().iter().copied().filter(first));
    if let Some(cpus) = &scene.wishes.cpus {
        let all = cpus.iter().map(|cpu| siblings(*cpu).unwrap_or_else(|| Cpus::new([*cpu])).to_string());
        let mut all: Vec<String> = all.collect();
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        if all.len() == before {
            return Ok(Finding::good("on; the workers have a core each", right));
        }
        return Ok(Finding::better("on; some workers share a core", right)
            .hand(format!("cpus = [...] in [director], out of {cores}")));
    }
    Ok(Finding::better("on; the workers' CPUs are not said (--cpus, --config)", right)
        .hand(format!("cpus = [...] in [director], out of {cores}")))
}

pub(super) fn mitigations(scene: &Scene<'_>) -> io::Result<Finding> {
    let tree = &scene.machine.tree;
    let directory = format!("{CPU}/vulnerabilities");
    let (mut acting, mut open, mut all) = (Vec::new(), Vec::new(), 0);
    for name in tree.names(&directory) {
        all += 1;
        match tree.read(&format!("{directory}/{name}"))? {
            told if told.starts_with("Mitigation") => acting.push(name),
            told if told.starts_with("Vulnerable") => open.push(name),
            _ => {}
        }
    }
    if all == 0 {
        return Ok(Finding::absent("the kernel does not tell"));
    }
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Ok(Finding::good(
        format!("acting: {}; vulnerable: {}", list(acting), list(open)),
        "yours to decide, and never changed here: they cost at each system call and indirect call. Figures of two machines \
         compare only if this line is the same",
    ))
}
