//! haproxy in TCP mode. It ends connections and opens others, so it has no packets a second.
//!
//! It is set up as an operator would who wants speed: a thread for each queue and its CPU, bytes that never leave the
//! kernel (`splice-auto`), no acknowledgement that a packet with data can carry, and all ports for connections to the
//! servers, those in TIME_WAIT included.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Process, wait_until};

use super::ground::{Ground, MANY_PORTS};

const START_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn start(ground: &Ground) -> Result<Process> {
    let vip = ground.vip();
    let rips = ground.rips();
    let servers: String = rips.iter().map(|rip| format!("  server s{rip} {rip}:80\n")).collect();
    // haproxy heeds no map for a single thread.
    let (threads, cpus) =
        if ground.queues() > 1 { ("nbthread 2\n  cpu-map auto:1/1-2 0-1", "0,1") } else { ("nbthread 1", "0") };
    let text = format!(
        "global\n  {threads}\n  maxconn 4000\n\
         defaults\n  mode tcp\n  option splice-auto\n  option tcp-smart-accept\n  option tcp-smart-connect\n\
         \x20 timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen web\n  bind {vip}:80\n  balance roundrobin\n{servers}\
         listen iperf3\n  bind {vip}:5201\n  server s {}:5201\n",
        rips[0],
    );
    ground.director().namespace().sysctl(MANY_PORTS)?;
    let path = ground.directory().join("haproxy.cfg");
    fs::write(&path, text).context("haproxy's configuration could not be written")?;
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
