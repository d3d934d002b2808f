//! `xvs-generator`: sends packets of many flows out of a veth, as fast as the CPU can or at a rate, and says how many.
//!
//! The frames are the kernel's own (BPF_PROG_TEST_RUN with live frames, kernel 5.18 or newer), so a packet costs one run
//! of a small BPF program and no socket buffer. The peer of the veth takes them only with an XDP program or GRO.
//!
//! Each call of the kernel costs some 20 ms in which nothing is sent: it waits for readers of what it has set up. So a flood without a rate is one call, which a signal ends when time is over; else half of a fast flood would be
//! pauses, in which whoever keeps up with less rests. At a rate, packets come in bursts, one in each call.
//!
//! Invariant: the number of packets is bounded, by itself or by time; a flow's number is all that differs between packets.

use std::fs;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, OpenObject, ProgramInput};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use xvs_wire::alarm::Alarm;
use xvs_wire::frame::{HEADERS, Kind, template};
use xvs_wire::skeleton::generate::{GenerateSkel, GenerateSkelBuilder};
use xvs_wire::{parse_mac, pin, say};

/// From linux/bpf.h.
const LIVE_FRAMES: u32 = 2;
/// The only key of a map with one value.
const ONLY: [u8; 4] = [0; 4];
/// Packets that one call sends at most: what the kernel takes.
const CALL: u64 = i32::MAX as u64;

#[derive(Debug, Parser)]
#[command(about = "Loads a veth with packets of many flows")]
struct Options {
    /// Out of this interface.
    #[arg(long)]
    interface: String,
    /// To this MAC.
    #[arg(long, value_parser = parse_mac)]
    mac: [u8; 6],
    /// To this address and port.
    #[arg(long)]
    to: SocketAddrV4,
    #[arg(long, value_enum, default_value_t = Kind::Udp)]
    kind: Kind,
    /// Bytes of a frame, without its checksum: 60 are 64 on a wire.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(60..=1514))]
    size: u16,
    /// Flows.
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..))]
    flows: u32,
    /// Flows at random instead of one after the other.
    #[arg(long)]
    random: bool,
    /// The first source address; each has so many flows as `--ports` says.
    #[arg(long, default_value = "10.64.0.1")]
    from: Ipv4Addr,
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    ports: u32,
    /// The first source port.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=15_535))]
    first_port: u16,
    /// Packets a second; without it, as many as go. Of each CPU.
    #[arg(long)]
    rate: Option<u64>,
    /// With a rate: packets that go at once, at least.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=8192))]
    burst: u64,
    /// Ends after so many packets of each CPU.
    #[arg(long)]
    packets: Option<u64>,
    /// Ends after so many seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// On these CPUs, a thread each. The CPU also chooses the queue of the veth's peer.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    cpus: Vec<usize>,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report {
    sent: u64,
    seconds: f64,
    /// CPU time of this process, with all that the kernel did in its name: whatever the peer does in softirq.
    cpu_ns: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    libbpf_rs::set_print(None);
    let cpu_before = cpu_ns()?;
    let begun = Instant::now();
    let sent = std::thread::scope(|scope| -> Result<u64> {
        let options = &options;
        let threads = options.cpus.iter().enumerate();
        let threads: Vec<_> = threads.map(|(index, &cpu)| scope.spawn(move || generate(options, index, cpu))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).sum()
    })?;
    let (seconds, cpu_ns) = (begun.elapsed().as_secs_f64(), cpu_ns()?.saturating_sub(cpu_before));
    say(&Report { sent, seconds, cpu_ns })
}

/// Sends from one CPU, by a copy of the program of its own; gives how many packets that were.
fn generate(options: &Options, index: usize, cpu: usize) -> Result<u64> {
    pin(cpu).with_context(|| format!("CPU {cpu} can not be used"))?;
    let mut object = MaybeUninit::uninit();
    let (skeleton, frame) = load(options, index, &mut object)?;
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(options.seconds);
    let bound = options.packets.unwrap_or(u64::MAX);
    let _alarm = Alarm::after(end.saturating_duration_since(Instant::now()))?;
    let mut sent = 0;
    while sent < bound && Instant::now() < end {
        let mut due = CALL;
        if let Some(rate) = options.rate {
            // At least a burst; more if the last call took longer than a burst's time.
            let at = begun + Duration::from_secs_f64((sent + options.burst) as f64 / rate as f64);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            due = ((begun.elapsed().as_secs_f64() * rate as f64) as u64).saturating_sub(sent).clamp(1, CALL);
        }
        let count = due.min(bound - sent);
        let input =
            ProgramInput { data_in: Some(&frame), flags: LIVE_FRAMES, repeat: count as u32, ..ProgramInput::default() };
        let ran = skeleton.progs.xvs_generate.test_run(input);
        let asked = sent + count;
        sent = written(&skeleton)?;
        match ran {
            Ok(_) => ensure!(sent == asked, "{asked} packets were asked for and the program wrote {sent}"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the kernel would not run the generator's program"),
        }
    }
    Ok(sent)
}

/// How many packets the program has written so far.
fn written(skeleton: &GenerateSkel<'_>) -> Result<u64> {
    let bytes = skeleton.maps.progress.lookup(&ONLY, MapFlags::ANY)?.context("the program has no progress")?;
    bytes.first_chunk().map(|sent| u64::from_ne_bytes(*sent)).context("the program has no count")
}

/// Loads the program with its template. Each thread begins at another flow, so that two do not send the same ones.
fn load<'object>(
    options: &Options,
    index: usize,
    object: &'object mut MaybeUninit<OpenObject>,
) -> Result<(GenerateSkel<'object>, Vec<u8>)> {
    let read = |file: &str| {
        let path = format!("/sys/class/net/{}/{file}", options.interface);
        fs::read_to_string(path).with_context(|| format!("there is no interface {}", options.interface))
    };
    let own = parse_mac(read("address")?.trim()).map_err(anyhow::Error::msg)?;
    let frame = template(options.kind, options.mac, own, options.to, options.size.into());
    let mut open = GenerateSkelBuilder::default().open(object)?;
    let data = open.maps.rodata_data.as_mut().context("the program has no settings")?;
    data.template.copy_from_slice(&frame[..HEADERS]);
    data.ifindex = read("ifindex")?.trim().parse().context("an interface without a number")?;
    data.first_address = options.from.into();
    data.first_port = options.first_port;
    data.ports = options.ports;
    data.flows = options.flows;
    data.random = options.random.into();
    data.tcp = options.kind.is_tcp().into();
    let skeleton = open.load().context("the kernel refused the generator's program")?;
    let next = u64::from(options.flows) * index as u64 / options.cpus.len() as u64;
    let progress = [0_u64.to_ne_bytes(), next.to_ne_bytes()].concat();
    skeleton.maps.progress.update(&ONLY, &progress, MapFlags::ANY)?;
    Ok((skeleton, frame))
}

/// CPU time of this process so far.
fn cpu_ns() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
