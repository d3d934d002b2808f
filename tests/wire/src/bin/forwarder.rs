//! `xvs-forwarder`: the director's own rings without a director. It is the ceiling of what the director can do here.
//!
//! Frames go from one interface to the other; all that is written to them is the link header. Rings, batches, pinning
//! and sleeping are the director's (`datapath/src/xsk`, `control/workers.rs`), the XDP program is the least possible.
//! `--blackhole` forwards nothing: an XDP program drops everything, which shows what generator and wire cost by themselves.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use xvs_engine::hop::Port;
use xvs_engine::rings::{Frame, Ledger, Rings};
use xvs_wire::skeleton::plain::{PlainSkel, PlainSkelBuilder};
use xvs_wire::{parse_mac, pin, report_until_closed, say};

/// The director's own source, and not the director as a library: that brings a compiler for plugins with it, whose
/// linking takes minutes.
#[path = "../../../../datapath/src/xsk/mod.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)] // the director uses all of it
mod xsk;

use xsk::{Binding, Frames, XskRings, ZeroCopy, bind};

/// As the director's workers: empty breaths before it sleeps, and how long it sleeps at most.
const IDLE_BREATHS: u32 = 8;
const SLEEP: Duration = Duration::from_millis(50);
const NAP: Duration = Duration::from_millis(1);
/// Frames that may wait for room in a ring, in batches.
const OUTBOX_BATCHES: usize = 4;

#[derive(Debug, Parser)]
#[command(about = "Forwards between two interfaces by AF_XDP, without any logic")]
struct Options {
    /// An interface and the MAC to which frames leave there: `eth0=02:00:00:00:00:01`. Twice.
    #[arg(long, value_parser = parse_side, num_args = 1, required = true)]
    side: Vec<(String, [u8; 6])>,
    /// Queues of each interface, each with a thread.
    #[arg(long, default_value_t = 1)]
    queues: u32,
    /// Packets of a breath.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Frames of a thread.
    #[arg(long, default_value_t = 4096)]
    frames: u32,
    /// Slots of each ring.
    #[arg(long, default_value_t = 2048)]
    ring: u32,
    /// Prefers busy polling.
    #[arg(long)]
    busy_poll: bool,
    /// Drops everything in XDP.
    #[arg(long)]
    blackhole: bool,
}

/// What was done so far.
#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    transmitted: AtomicU64,
    dropped: AtomicU64,
    breaths: AtomicU64,
    idle: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug, Serialize)]
struct Report {
    received: u64,
    transmitted: u64,
    dropped: u64,
    breaths: u64,
    idle: u64,
}

/// A device and how frames leave there.
#[derive(Debug)]
struct Side {
    name: String,
    to: [u8; 6],
    own: [u8; 6],
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.side.len() == 2, "two sides, please: `--side eth0=MAC --side eth1=MAC`");
    libbpf_rs::set_print(None);
    let (mut first, mut second) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let programs =
        [PlainSkelBuilder::default().open(&mut first)?.load()?, PlainSkelBuilder::default().open(&mut second)?.load()?];
    let sides = options.side.iter().map(side).collect::<Result<Vec<_>>>()?;
    let mut links = Vec::new();
    for (side, program) in sides.iter().zip(&programs) {
        let index = read(&side.name, "ifindex")?.parse()?;
        let program = if options.blackhole { &program.progs.xvs_blackhole } else { &program.progs.xvs_plain };
        links.push(program.attach_xdp(index).with_context(|| format!("{} takes no XDP program", side.name))?);
    }
    let rings: Result<Vec<_>> = match options.blackhole {
        true => Ok(Vec::new()),
        false => (0..options.queues).map(|queue| open(&options, &sides, &programs, queue)).collect(),
    };
    let counts = Counts::default();
    std::thread::scope(|scope| {
        let (options, sides, counts) = (&options, &sides, &counts);
        let threads: Vec<_> = (rings?.into_iter().enumerate())
            .map(|(cpu, rings)| scope.spawn(move || forward(options, sides, rings, cpu, counts)))
            .collect();
        let told = say(&"ready").and_then(|()| report_until_closed(|| Ok(report(counts))));
        counts.stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)?;
        told
    })
}

fn report(counts: &Counts) -> Report {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Report {
        received: of(&counts.received),
        transmitted: of(&counts.transmitted),
        dropped: of(&counts.dropped),
        breaths: of(&counts.breaths),
        idle: of(&counts.idle),
    }
}

/// The rings of one thread, and its sockets in the programs' maps.
fn open(options: &Options, sides: &[Side], programs: &[PlainSkel<'_>], queue: u32) -> Result<XskRings> {
    let frames = Frames {
        size: 2048,
        count: options.frames,
        rx_ring: options.ring,
        tx_ring: options.ring,
        fill_ring: options.ring,
        completion_ring: options.ring,
        huge_pages: true,
        huge_pages_optional: true,
        busy_poll: options.busy_poll.then_some(64),
    };
    let binding = |side: &Side| Binding { interface: side.name.clone(), queue, zero_copy: ZeroCopy::Auto };
    let bindings: Vec<_> = sides.iter().map(binding).collect();
    let rings = XskRings::new(bind(&frames, &bindings)?)?;
    for (socket, program) in rings.sockets().zip(programs) {
        let fd = socket.as_raw_fd().to_ne_bytes();
        program.maps.xsks.update(&queue.to_ne_bytes(), &fd, MapFlags::ANY)?;
    }
    Ok(rings)
}

/// One thread's life.
fn forward(options: &Options, sides: &[Side], mut rings: XskRings, cpu: usize, counts: &Counts) -> Result<()> {
    pin(cpu).with_context(|| format!("CPU {cpu} can not be used"))?;
    let limit = options.batch * OUTBOX_BATCHES;
    let mut batch: Vec<Frame> = Vec::with_capacity(options.batch);
    let mut outboxes: Vec<Vec<Frame>> = sides.iter().map(|_| Vec::with_capacity(limit)).collect();
    let mut idle = 0;
    while !counts.stop.load(Ordering::Relaxed) {
        rings.replenish();
        rings.receive(options.batch, &mut batch);
        counts.breaths.fetch_add(1, Ordering::Relaxed);
        counts.received.fetch_add(batch.len() as u64, Ordering::Relaxed);
        idle = if batch.is_empty() { idle + 1 } else { 0 };
        counts.idle.fetch_add(u64::from(batch.is_empty()), Ordering::Relaxed);
        for frame in batch.drain(..) {
            let out = 1 - usize::from(frame.port().0);
            let header = &mut rings.packet(&frame)[..12];
            header[..6].copy_from_slice(&sides[out].to);
            header[6..].copy_from_slice(&sides[out].own);
            if outboxes[out].len() < limit {
                outboxes[out].push(frame);
            } else {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                rings.recycle(frame);
            }
        }
        for (port, outbox) in (0..).map(Port).zip(&mut outboxes) {
            if !outbox.is_empty() {
                let sent = rings.transmit(port, outbox);
                counts.transmitted.fetch_add(sent as u64, Ordering::Relaxed);
            }
        }
        if idle >= IDLE_BREATHS && !options.busy_poll {
            let Ledger { tx, lent, .. } = rings.ledger();
            sleep(&rings, if tx + lent > 0 { NAP } else { SLEEP });
        }
    }
    outboxes.into_iter().flatten().for_each(|frame| rings.recycle(frame));
    ensure!(rings.ledger().is_balanced(), "the ledger does not add up: {:?}", rings.ledger());
    Ok(())
}

fn sleep(rings: &XskRings, timeout: Duration) {
    let mut fds: Vec<_> = rings.sockets().map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
    // An interrupted poll is a short sleep, no more.
    let _ = poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO));
}

fn side((name, to): &(String, [u8; 6])) -> Result<Side> {
    let own = parse_mac(&read(name, "address")?).map_err(anyhow::Error::msg)?;
    Ok(Side { name: name.clone(), to: *to, own })
}

fn read(interface: &str, file: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/{file}"));
    Ok(text.with_context(|| format!("there is no interface {interface}"))?.trim().to_owned())
}

fn parse_side(text: &str) -> Result<(String, [u8; 6]), String> {
    let (name, mac) = text.split_once('=').ok_or_else(|| format!("`{text}` is not INTERFACE=MAC"))?;
    Ok((name.to_owned(), parse_mac(mac)?))
}
