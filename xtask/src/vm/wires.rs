//! The wires of a virtual machine whose interfaces have several queues: taps, bridged in a namespace of their own.
//!
//! ```text
//! inside      c -- bridge -- a [director] b -- bridge -- d      each letter an interface of the machine, a tap here
//! ```
//! Invariant: the namespace, and the taps with it, goes with its value. Nothing is connected to this machine's network.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The namespace with the wires.
#[derive(Debug)]
pub(super) struct Wires {
    name: String,
}

impl Wires {
    /// Lays them: `a` and `b` with so many queues.
    pub(super) fn lay(queues: u32) -> Result<Self> {
        let wires = Wires { name: format!("xvs-vm-{}", std::process::id()) };
        ip(&["netns", "add", &wires.name])?;
        let exec = ["netns", "exec", &wires.name, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"];
        ip(&exec)?;
        for (bridge, ends) in [("client", ["a", "c"]), ("server", ["b", "d"])] {
            wires.inside(&format!("link add {bridge} type bridge mcast_snooping 0"))?;
            wires.inside(&format!("link set dev {bridge} up"))?;
            for end in ends {
                // The two of the director have queues; the other two are plain.
                let queues = if queues > 1 && ["a", "b"].contains(&end) { " multi_queue" } else { "" };
                wires.inside(&format!("tuntap add dev {end} mode tap{queues}"))?;
                wires.inside(&format!("link set dev {end} master {bridge}"))?;
                wires.inside(&format!("link set dev {end} up"))?;
            }
        }
        Ok(wires)
    }

    /// The name of the namespace.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn inside(&self, line: &str) -> Result<()> {
        let mut words = vec!["-n", &self.name];
        words.extend(line.split_whitespace());
        ip(&words)
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().context("`ip` could not be started")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`ip {}` failed: {}", words.join(" "), error.trim());
    Ok(())
}
