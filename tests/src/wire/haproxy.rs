//! haproxy in TCP mode. It ends connections and opens others, so it has no packets a second.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Process, wait_until};

use super::ground::Ground;

const START_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn start(ground: &Ground) -> Result<Process> {
    let vip = ground.vip();
    let rips = ground.rips();
    let servers: String = rips.iter().map(|rip| format!("  server s{rip} {rip}:80\n")).collect();
    let text = format!(
        "global\n  nbthread {}\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n\
         \x20 timeout server 60s\nlisten web\n  bind {vip}:80\n  balance roundrobin\n{servers}\
         listen iperf3\n  bind {vip}:5201\n  server s {}:5201\n",
        ground.queues(),
        rips[0],
    );
    let path = ground.directory().join("haproxy.cfg");
    fs::write(&path, text).context("haproxy's configuration could not be written")?;
    let cpus = if ground.queues() > 1 { "0,1" } else { "0" };
    let mut command = ground.director().namespace().command("taskset");
    command.args(["--cpu-list", cpus, "haproxy", "-db", "-f"]).arg(&path);
    let mut process = Process::start("haproxy", &mut command, ground.directory())?;
    let listens = || {
        let open = ground.client().run(&["curl", "--silent", "--max-time", "1", &format!("http://{vip}/")]);
        open.is_ok_and(|finished| finished.code == Some(0))
    };
    wait_until("haproxy starting", START_LIMIT, listens).with_context(|| {
        let ended = process.ended().map_or_else(|| "it runs".to_owned(), |status| status.to_string());
        format!("{ended}: {}", process.log().trim())
    })?;
    Ok(process)
}
