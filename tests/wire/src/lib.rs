//! What `cargo xtask bench wire` runs at the ends of the wire, and beside the director.
//!
//! ```text
//! xvs-generator   many flows at any rate out of a veth, by the kernel's live frames    bin/generator.rs
//! xvs-sink        counts and drops what arrives                                        bin/sink.rs
//! xvs-forwarder   the director's own rings without a director: the ceiling             bin/forwarder.rs
//! xvs-probe       round trips over one connection, as quantiles                        bin/probe.rs
//! ```
//!
//! Not here: judgement about figures (`xtask`), and namespaces (`xvs-tests`).

pub mod alarm;
pub mod frame;
pub mod histogram;

/// Generated from `bpf/*.bpf.c`: objects, their maps, and their types as Rust sees them.
pub mod skeleton {
    #![allow(missing_docs, warnings, clippy::all, clippy::undocumented_unsafe_blocks)]
    pub mod generate {
        include!(concat!(env!("OUT_DIR"), "/generate.skel.rs"));
    }
    pub mod plain {
        include!(concat!(env!("OUT_DIR"), "/plain.skel.rs"));
    }
    pub mod sink {
        include!(concat!(env!("OUT_DIR"), "/sink.skel.rs"));
    }
}

use std::io::{BufRead, Write};

use anyhow::Result;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// Answers every line of standard input by one line of JSON, and the end of it by a last one.
pub fn report_until_closed<T: Serialize>(mut report: impl FnMut() -> Result<T>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        say(&report()?)?;
    }
    say(&report()?)
}

/// Prints one line of JSON, at once.
pub fn say<T: Serialize>(value: &T) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}

/// Pins the calling thread to a CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Reads a MAC as people write it.
pub fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("`{text}` is no MAC such as 02:00:00:00:00:01"))
}
