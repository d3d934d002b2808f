//! DPDK's testpmd over its AF_XDP driver: forwards from one interface to the other with other MACs, and polls all the
//! time. Without huge pages, since a machine may have none.

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
    for (number, device) in ["eth0", "eth1"].iter().enumerate() {
        command.arg("--vdev").arg(format!("net_af_xdp{number},iface={device},start_queue=0,queue_count={queues}"));
    }
    command.args(["--", "--no-mlockall", "--total-num-mbufs=16384"]);
    command.args(["--forward-mode=mac", "--auto-start", "--burst=64"]);
    command.args([format!("--nb-cores={queues}"), format!("--rxq={queues}"), format!("--txq={queues}")]);
    command.arg(format!("--eth-peer=0,{}", ground.client_mac()));
    command.arg(format!("--eth-peer=1,{}", ground.server_mac()));
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
