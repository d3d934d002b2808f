//! DPDK's testpmd over its AF_XDP driver: forwards from one interface to the other with other MACs, and polls all the
//! time. Without huge pages, since a machine may have none.
//!
//! Its driver takes a veth for a device of one queue, so each queue is a port of its own; ports stand in pairs, and frames
//! go from one of a pair to the other.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Process, wait_until};

use super::ground::Ground;

const START_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn start(ground: &Ground) -> Result<Process> {
    let queues = ground.queues();
    let mut command = ground.director().namespace().command("dpdk-testpmd");
    // Logical cores 0.. are pinned to CPUs, where they forward; one more core, for the console, may be anywhere.
    let cores = if queues > 1 { "0@0,1@1,2@(0,1)" } else { "0@0,2@1" };
    command.args(["--lcores", cores, "--main-lcore", "2", "--no-huge", "-m", "256", "--no-pci", "--no-shconf"]);
    command.args(["--no-telemetry", "--file-prefix", &format!("xvs-{}", std::process::id())]);
    let sides = [("eth0", ground.client_mac()), ("eth1", ground.server_mac())];
    let ports: Vec<_> = (0..queues).flat_map(|queue| sides.map(|(device, peer)| (queue, device, peer))).collect();
    for (number, (queue, device, _)) in ports.iter().enumerate() {
        command.arg("--vdev").arg(format!("net_af_xdp{number},iface={device},start_queue={queue},queue_count=1"));
    }
    command.args(["--", "--no-mlockall", "--total-num-mbufs=16384"]);
    command.args(["--forward-mode=mac", "--auto-start", "--burst=64"]);
    command.args([format!("--nb-cores={queues}"), "--port-topology=paired".into()]);
    command.args(ports.iter().enumerate().map(|(number, (_, _, peer))| format!("--eth-peer={number},{peer}")));
    // Without a terminal it would leave at once; asked for numbers now and then it stays.
    command.arg("--stats-period=3600");
    let mut process = Process::start("testpmd", &mut command, ground.directory())?;
    let mut ended = None;
    let waited = wait_until("testpmd starting", START_LIMIT, || {
        ended = process.ended();
        ended.is_some()
            || process.log().contains("Port statistics")
            || process.log().contains("start packet forwarding")
    });
    waited.with_context(|| process.log().trim().to_owned())?;
    match ended {
        None => Ok(process),
        Some(status) => Err(anyhow::anyhow!("testpmd ended at once ({status}): {}", process.log().trim())),
    }
}
