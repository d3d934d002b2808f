//! `xvs-sink`: the end of the way. Counts and drops packets for one port, cheaply, and tells the counts when asked.
//!
//! Every line of standard input is answered by the counts as JSON, and so is its end, which ends the program. Then the
//! filter is gone as well.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use clap::Parser;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, TC_INGRESS, TcHookBuilder};
use serde::Serialize;
use xvs_wire::report_until_closed;
use xvs_wire::skeleton::sink::SinkSkelBuilder;

#[derive(Debug, Parser)]
#[command(about = "Counts and drops what arrives for one port")]
struct Options {
    /// At these interfaces.
    #[arg(long, value_delimiter = ',')]
    interfaces: Vec<String>,
    /// UDP and TCP to this port.
    #[arg(long)]
    port: u16,
}

/// What has arrived.
#[derive(Debug, Default, Serialize)]
struct Counts {
    packets: u64,
    bytes: u64,
    /// For the port, but for another host's MAC.
    strange: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    libbpf_rs::set_print(None);
    let mut object = MaybeUninit::uninit();
    let mut open = SinkSkelBuilder::default().open(&mut object)?;
    open.maps.rodata_data.as_mut().context("the program has no settings")?.port = options.port.to_be();
    let skeleton = open.load().context("the kernel refused the sink's program")?;
    let mut hooks = Vec::new();
    for interface in &options.interfaces {
        let path = format!("/sys/class/net/{interface}/ifindex");
        let index = fs::read_to_string(path).with_context(|| format!("there is no interface {interface}"))?;
        let mut hook = TcHookBuilder::new(skeleton.progs.xvs_sink.as_fd());
        let mut hook = hook.ifindex(index.trim().parse()?).replace(true).handle(1).priority(1).hook(TC_INGRESS);
        hook.create().with_context(|| format!("{interface} takes no filter"))?;
        hooks.push(hook.attach().with_context(|| format!("{interface} takes no filter"))?);
    }
    let counts = &skeleton.maps.counts;
    let told = report_until_closed(|| {
        let per_cpu = counts.lookup_percpu(&[0; 4], MapFlags::ANY)?.context("the program has no counts")?;
        let mut sum = Counts::default();
        for bytes in per_cpu {
            let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
            sum.packets += word(0);
            sum.bytes += word(8);
            sum.strange += word(16);
        }
        Ok(sum)
    });
    for hook in &mut hooks {
        hook.detach()?;
    }
    told
}
