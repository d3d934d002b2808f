//! `cargo xtask vm`: what this machine's kernel and interfaces cannot show, shown in a virtual machine.
//!
//! Zero-copy on a driver that has it, and the kernel's IPVS under the kernel's pktgen beside the director. Scenarios are
//! Python programs of `tests/vm`, one each; they run inside and say a line for every check.
//!
//! Not here: what the figures mean (docs/zero-copy.md).

mod apt;
mod counts;
mod cpio;
mod image;
mod machine;
mod ratio;
mod report;
mod store;
mod wires;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::cargo;
use crate::paint::title;
use machine::{Accelerator, Device, Machine, Spec};
use report::Report;
use store::Store;
use wires::Wires;

/// Pairs of queues of the director's interfaces, a worker each.
const QUEUES: u32 = 2;

/// What to do in the virtual machine.
#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Forward real TCP and UDP by NAT, DR and TUN through zero-copy queues, two queues and two workers; then take links
    /// down and up, change the number of queues, kill the director and start it again.
    ZeroCopy {
        #[command(flatten)]
        how: How,
        /// How the director's interfaces are made. igb has one queue here, and does not pass today (docs/zero-copy.md).
        #[arg(long, value_enum, default_value_t = Device::Virtio)]
        device: Device,
    },
    /// Compare with the kernel's IPVS under the kernel's pktgen: instructions and processor time a packet, DR, NAT, TUN.
    Ratio {
        #[command(flatten)]
        how: How,
        /// Seconds that each figure is measured for.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
        /// Only these methods.
        #[arg(long, value_delimiter = ',', default_value = "dr,nat,tun")]
        methods: Vec<String>,
        /// Also tell in which functions of the kernel the instructions are spent.
        #[arg(long)]
        profile: bool,
    },
    /// Try tests/bench/pktgen/pktgen.sh with a real pktgen, over a veth inside.
    Pktgen {
        #[command(flatten)]
        how: How,
    },
    /// The dose for every change: the zero-copy scenario and one ratio.
    Test {
        #[command(flatten)]
        how: How,
    },
    /// Only fetch what is missing, so that later runs need no network.
    Fetch,
    /// A shell inside, with `xvs` built and interfaces as for `zero-copy`; `poweroff -f` ends it.
    Shell {
        #[command(flatten)]
        how: How,
    },
}

/// How the machine is run.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct How {
    /// What does the work: `tcg` is everywhere and slow, `kvm` needs a /dev/kvm that works. Instructions are counted
    /// with `tcg` only.
    #[arg(long, value_enum, default_value_t = Accelerator::Tcg)]
    accelerator: Accelerator,
    /// Minutes until a scenario is given up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    limit: u32,
}

impl How {
    fn limit(self) -> Duration {
        Duration::from_secs(u64::from(self.limit) * 60)
    }
}

pub(crate) fn run(what: Vm) -> Result<()> {
    match what {
        Vm::ZeroCopy { how, device } => zero_copy(how, device)?.finish(),
        Vm::Ratio { how, seconds, methods, profile } => ratio::run(how, seconds, &methods, profile)?.finish(),
        Vm::Pktgen { how } => pktgen(how)?.finish(),
        Vm::Test { how } => {
            let mut report = zero_copy(how, Device::Virtio)?;
            report.merge(ratio::run(how, 2, &["dr".into()], false)?);
            report.finish()
        }
        Vm::Fetch => Ground::lay().map(drop),
        Vm::Shell { how } => shell(how),
    }
}

/// What every machine starts from.
struct Ground {
    store: Store,
    base: PathBuf,
}

impl Ground {
    fn lay() -> Result<Self> {
        let store = Store::open()?;
        let base = image::base(&store)?;
        Ok(Ground { store, base })
    }

    /// Builds the product, packs it, and starts the machine.
    fn start(&self, spec: &Spec<'_>) -> Result<Machine> {
        let load = image::load(&self.store, &cargo::build_release()?)?;
        Machine::start(&self.store, [&self.base, &load], spec)
    }
}

/// Taps and their namespace are root's.
fn wires(queues: u32) -> Result<Wires> {
    ensure!(xvs_tests::is_root(), "taps and network namespaces need root: `sudo -E env PATH=$PATH cargo xtask vm ...`");
    Wires::lay(queues)
}

fn zero_copy(how: How, device: Device) -> Result<Report> {
    let ground = Ground::lay()?;
    let queues = if device == Device::Igb { 1 } else { QUEUES };
    let wires = wires(queues)?;
    println!("{}", title(format!("zero-copy: kernel {}, {queues} queues", ground.store.release()?)));
    let spec = Spec {
        scenario: "zero_copy.py",
        words: vec![queues.to_string(), how.accelerator.name().into()],
        accelerator: how.accelerator,
        device,
        interfaces: "abcd",
        queues,
        wires: wires.name(),
        taps: "abcd",
        moderation: None,
        counter: None,
        limit: how.limit(),
    };
    let machine = ground.start(&spec)?;
    report::follow(&ground.store, machine, |_, _| Ok(false))
}

fn pktgen(how: How) -> Result<Report> {
    let ground = Ground::lay()?;
    let wires = wires(1)?;
    println!("{}", title(format!("pktgen.sh: kernel {}", ground.store.release()?)));
    let spec = Spec {
        scenario: "pktgen.py",
        words: vec![how.accelerator.name().into()],
        accelerator: how.accelerator,
        device: Device::Virtio,
        interfaces: "",
        queues: 1,
        wires: wires.name(),
        taps: "",
        moderation: None,
        counter: None,
        limit: how.limit(),
    };
    let machine = ground.start(&spec)?;
    report::follow(&ground.store, machine, |_, _| Ok(false))
}

fn shell(how: How) -> Result<()> {
    let ground = Ground::lay()?;
    let wires = wires(QUEUES)?;
    let spec = Spec {
        scenario: "shell",
        words: Vec::new(),
        accelerator: how.accelerator,
        device: Device::Virtio,
        interfaces: "abcd",
        queues: QUEUES,
        wires: wires.name(),
        taps: "abcd",
        moderation: None,
        counter: None,
        limit: how.limit(),
    };
    let load = image::load(&ground.store, &cargo::build_release()?)?;
    machine::interactive(&ground.store, [&ground.base, &load], &spec)
}
