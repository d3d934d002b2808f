//! `xvs run`: puts the director together, in an order that lets no packet fall between two parts, and takes it apart.
//!
//! ```text
//! settings -> facts of the interfaces -> XDP programs attached -> sockets bound and registered -> workers started
//!   -> rules in force, keys steered -> control socket -> "ready"
//! ```
//! Leaving goes backwards: the control socket, VIPs of our own, the XDP programs, the workers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded, unbounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use xvs_engine::counters::{Count, Counters};
use xvs_engine::engine::{Engine, Shared, Sizes};
use xvs_engine::flow::HashKey;
use xvs_engine::real::Generation;
use xvs_engine::sched::Builtin;
use xvs_engine::snapshot::Snapshot;
use xvs_engine::worker::Worker;
use xvs_redirect::{Absent, Active, InterfaceSpec, Mode, Redirect};

use crate::config::document::{AbsentWorker, Compat, Demand, Document, InterfaceTable, XdpMode};
use crate::config::settings::FrameSettings;
use crate::config::{Desired, Problem, desired};
use crate::control::client;
use crate::control::controller::{Controller, Inlets, Signal};
use crate::control::network::Network;
use crate::control::report::{Facts, InterfaceFacts, WorkerFacts};
use crate::control::socket::{self, SocketError};
use crate::control::workers::{Handle, Public};
use crate::kernel::{self, Mirror};
use crate::xsk::{self, BindError, Binding, Frames, XskRings, ZeroCopy};

/// Real servers that the director has records for, removed ones with connections included.
pub const REALS_MAX: usize = 1 << 17;
/// Next hops that it has records for.
pub const HOPS_MAX: usize = 1 << 16;
/// Bytes of a chunk that the kernel keeps before a received packet, which tunnels grow into.
const HEADROOM: u32 = 256;
/// Ethernet header and two tags.
const LINK_MAX: u32 = 22;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The control socket.
    pub control: Option<PathBuf>,
    /// Interfaces, besides those of the file.
    pub interfaces: Vec<String>,
    /// Busy polling, whatever the file says.
    pub busy_poll: bool,
}

/// Why the director does not run. Each kind has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The configuration can not be read.
    #[error("can not read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No interface to serve.
    #[error("no interface to serve: name one with --interface, or write an [[interface]] table into the configuration")]
    NoInterface,
    /// The interface or its kernel side is not as needed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The XDP program.
    #[error(transparent)]
    Redirect(#[from] xvs_redirect::Error),
    /// The interfaces' queues do not match.
    #[error(
        "{first} has {first_queues} queues and {other} {other_queues}, and each worker needs one on both: make them equal \
         (`ethtool -L {first} combined {fewer}`, the same for {other}), or set `queues = {fewer}` for both"
    )]
    Queues {
        /// One interface.
        first: String,
        /// Its queues.
        first_queues: u32,
        /// Another one.
        other: String,
        /// Its queues.
        other_queues: u32,
        /// The smaller number.
        fewer: u32,
    },
    /// A queue number that the interface does not have.
    #[error("{interface} has {have} receive queues, `queues = {asked}` is too many: lower it, or `ethtool -L {interface} combined {asked}`")]
    TooManyQueues {
        /// The interface.
        interface: String,
        /// Its queues.
        have: u32,
        /// What was asked.
        asked: u32,
    },
    /// Packets do not fit into a frame.
    #[error(
        "frames of {size} bytes hold packets of {room} bytes, {interface} has MTU {mtu}: set `size = 4096` in [frames], or lower the MTU"
    )]
    FrameSize {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Frame size.
        size: u32,
        /// What fits.
        room: u32,
    },
    /// Sockets.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The rules were refused.
    #[error("the configuration is refused: {0}")]
    Refused(String),
    /// Threads, random numbers, signals.
    #[error("can not {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl RunError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Configuration(_) | RunError::Refused(_) | RunError::NoInterface => 2,
            RunError::File { .. } => 3,
            RunError::Kernel(kernel::Error::NoPrivilege { .. })
            | RunError::Redirect(xvs_redirect::Error::NoPrivilege) => 4,
            RunError::Kernel(kernel::Error::NoSuchInterface { .. } | kernel::Error::NotEthernet { .. })
            | RunError::Redirect(xvs_redirect::Error::NoSuchInterface { .. }) => 5,
            RunError::Redirect(xvs_redirect::Error::Busy { .. } | xvs_redirect::Error::Taken { .. }) => 6,
            RunError::Redirect(xvs_redirect::Error::Unsupported { .. } | xvs_redirect::Error::NativeRefused { .. }) => 7,
            RunError::Queues { .. } | RunError::TooManyQueues { .. } => 8,
            RunError::Redirect(xvs_redirect::Error::QueueOutOfRange { .. }) => 8,
            RunError::Bind(_) | RunError::FrameSize { .. } => 9,
            RunError::Socket(_) => 10,
            RunError::Kernel(_) | RunError::Redirect(_) | RunError::System { .. } => 11,
        }
    }
}

impl From<Vec<Problem>> for RunError {
    fn from(problems: Vec<Problem>) -> Self {
        RunError::Configuration(desired::report(&problems))
    }
}

/// Reads a configuration file.
///
/// # Errors
/// It can not be read, or is wrong.
pub fn read_config(path: &Path) -> Result<Document, RunError> {
    let text = std::fs::read_to_string(path).map_err(|source| RunError::File { path: path.to_owned(), source })?;
    Ok(Document::parse(&text, &path.to_string_lossy())?)
}

/// The settings of file and command line together.
fn settings(options: &Options) -> Result<Desired, RunError> {
    let mut document = match &options.config {
        Some(path) => read_config(path)?,
        None => Document::default(),
    };
    for name in &options.interfaces {
        if !document.interface.iter().any(|interface| interface.name.as_ref() == Some(name)) {
            document.interface.push(InterfaceTable { name: Some(name.clone()), ..InterfaceTable::default() });
        }
    }
    Ok(Desired::validate(document, Builtin::NAMES)?)
}

/// One interface and what is known of it.
struct Device {
    facts: kernel::Facts,
    queues: u32,
    zero_copy: ZeroCopy,
}

/// Runs the director until it is told to stop.
///
/// # Errors
/// It could not start; nothing is left behind.
pub fn run(options: &Options) -> Result<(), RunError> {
    let desired = settings(options)?;
    let control = options.control.clone().or_else(|| desired.director().control.clone());
    let control = control.unwrap_or_else(client::socket_path);
    socket::claim(&control)?;
    let devices = devices(&desired)?;
    let workers = devices.first().map_or(0, |device| device.queues);

    let mut redirect = attach(&desired, &devices)?;
    let modes = redirect.1;
    let shared = shared(&desired)?;
    let (wanted, wanted_inlet) = bounded(1);
    let mut handles = Vec::new();
    let mut worker_facts = Vec::new();
    let cpus = cpus(&desired);
    for queue in 0..workers {
        let cpu = cpus.get(queue as usize % cpus.len().max(1)).copied();
        let (handle, facts) =
            start_worker(options, &desired, &devices, &mut redirect.0, &shared, queue, workers, cpu, &wanted)?;
        handles.push(handle);
        worker_facts.push(facts);
    }

    let mirror = Mirror::open()?;
    let news_socket = mirror.fd().try_clone_to_owned().map_err(system("watch netlink"))?;
    let gateways = gateways(&desired, &devices);
    let links = devices.iter().map(|device| device.facts.link.index).collect();
    let network = Network::new(mirror, shared.clone(), links, gateways);
    let facts = Facts { started: Instant::now(), interfaces: interface_facts(&devices, &modes), workers: worker_facts };
    let vip_interface = desired.director().vip_interface.clone();
    let vip_interface = vip_interface.unwrap_or_else(|| devices[0].facts.link.name.clone());
    let mut controller =
        Controller::new(redirect.0, handles, facts, shared, network, desired.clone(), &vip_interface);
    controller.apply_desired().map_err(|refusal| RunError::Refused(refusal.message))?;

    let (calls, calls_inlet) = unbounded();
    let (news, news_inlet) = bounded(1);
    watch(news_socket, news)?;
    let inlets = Inlets { calls: calls_inlet, wanted: wanted_inlet, news: news_inlet, signals: signals()? };
    let listening = socket::listen(&control, calls)?;
    tracing::info!(control = %control.display(), workers, "ready");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    while controller.run(&inlets) == Signal::Reload {
        reload(options, &mut controller);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping");
    drop(listening);
    controller.leave();
    Ok(())
}

fn reload(options: &Options, controller: &mut Controller) {
    if options.config.is_none() {
        tracing::warn!("SIGHUP: there is no configuration file to read again");
        return;
    }
    match settings(options) {
        Ok(desired) => match controller.reload(&desired) {
            Ok(changes) if changes.is_empty() => tracing::info!("configuration read again: nothing changes"),
            Ok(changes) => changes.iter().for_each(|change| tracing::info!(change, "configuration read again")),
            Err(refusal) => tracing::error!(refusal = refusal.message, "configuration refused; the rules stay"),
        },
        Err(error) => tracing::error!(%error, "configuration not read; the rules stay"),
    }
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { doing, source }
}

/// Looks at the interfaces and checks that they fit together.
fn devices(desired: &Desired) -> Result<Vec<Device>, RunError> {
    let mut devices: Vec<Device> = Vec::new();
    for interface in desired.interfaces() {
        let facts = kernel::Facts::read(&interface.name)?;
        let queues = interface.queues.unwrap_or(facts.receive_queues);
        if queues > facts.receive_queues {
            let (have, interface) = (facts.receive_queues, interface.name.clone());
            return Err(RunError::TooManyQueues { interface, have, asked: queues });
        }
        if queues < facts.receive_queues {
            tracing::warn!(
                interface = interface.name,
                "{} of {} queues are served; what arrives on the others is {}",
                queues,
                facts.receive_queues,
                if desired.director().absent_worker == AbsentWorker::Drop { "dropped" } else { "left to the kernel" }
            );
        }
        if facts.lro {
            tracing::warn!(interface = interface.name, "LRO is on: `ethtool -K {} lro off`", interface.name);
        }
        let room = desired.frames().size - HEADROOM - LINK_MAX;
        if facts.link.mtu > room {
            let (interface, mtu, size) = (interface.name.clone(), facts.link.mtu, desired.frames().size);
            return Err(RunError::FrameSize { interface, mtu, size, room });
        }
        let zero_copy = match interface.zero_copy {
            Demand::Auto => ZeroCopy::Auto,
            Demand::Require => ZeroCopy::Require,
            Demand::Off => ZeroCopy::Off,
        };
        devices.push(Device { facts, queues, zero_copy });
    }
    let first = devices.first().ok_or(RunError::NoInterface)?;
    if let Some(other) = devices.iter().find(|device| device.queues != first.queues) {
        return Err(RunError::Queues {
            first: first.facts.link.name.clone(),
            first_queues: first.queues,
            other: other.facts.link.name.clone(),
            other_queues: other.queues,
            fewer: first.queues.min(other.queues),
        });
    }
    Ok(devices)
}

fn attach(desired: &Desired, devices: &[Device]) -> Result<(Redirect, Vec<Active>), RunError> {
    let options = xvs_redirect::Options {
        mode: match desired.director().xdp_mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
        },
        absent: match desired.director().absent_worker {
            AbsentWorker::Drop => Absent::Drop,
            AbsentWorker::Pass => Absent::Pass,
        },
    };
    let spec = |device: &Device| InterfaceSpec {
        name: device.facts.link.name.clone(),
        ifindex: device.facts.link.index,
        queues: device.queues,
    };
    let specs: Vec<InterfaceSpec> = devices.iter().map(spec).collect();
    let mut redirect = Redirect::load(&options, &specs)?;
    let mut modes = Vec::new();
    for spec in &specs {
        modes.push(redirect.attach(spec.ifindex)?);
    }
    Ok((redirect, modes))
}

fn shared(desired: &Desired) -> Result<Arc<Shared>, RunError> {
    let mut key = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").map_err(system("open /dev/urandom"))?;
    io::Read::read_exact(&mut random, &mut key).map_err(system("read /dev/urandom"))?;
    let sizes = Sizes { connections: desired.capacity(), reals: REALS_MAX, hops: HOPS_MAX };
    let generation = match desired.director().compat {
        Compat::New => Generation::New,
        Compat::Old => Generation::Old,
    };
    Ok(Arc::new(Shared::new(sizes, HashKey::from_bytes(key), generation)))
}

/// The CPUs that workers are pinned to, in turn; none if they are not pinned.
fn cpus(desired: &Desired) -> Vec<u32> {
    let director = desired.director();
    if !director.pin {
        return Vec::new();
    }
    if let Some(cpus) = &director.cpus {
        return cpus.clone();
    }
    let Ok(allowed) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) else { return Vec::new() };
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or_default();
    (0..nix::sched::CpuSet::count()).filter(is_allowed).map(|cpu| cpu as u32).collect()
}

fn frames(settings: &FrameSettings, busy_poll: bool) -> Frames {
    Frames {
        size: settings.size,
        count: settings.count,
        rx_ring: settings.rx_ring,
        tx_ring: settings.tx_ring,
        fill_ring: settings.fill_ring,
        completion_ring: settings.completion_ring,
        huge_pages: settings.huge_pages != Demand::Off,
        huge_pages_optional: settings.huge_pages == Demand::Auto,
        busy_poll: (busy_poll || settings.busy_poll).then_some(settings.busy_poll_budget.into()),
    }
}

#[expect(clippy::too_many_arguments, reason = "one place puts a worker together, from everything there is")]
fn start_worker(
    options: &Options,
    desired: &Desired,
    devices: &[Device],
    redirect: &mut Redirect,
    shared: &Arc<Shared>,
    queue: u32,
    workers: u32,
    cpu: Option<u32>,
    wanted: &Sender<()>,
) -> Result<(Handle, WorkerFacts), RunError> {
    let binding = |device: &Device| Binding {
        interface: device.facts.link.name.clone(),
        queue,
        zero_copy: device.zero_copy,
    };
    let bindings: Vec<Binding> = devices.iter().map(binding).collect();
    let frames = frames(desired.frames(), options.busy_poll);
    let sockets = xsk::bind(&frames, &bindings)?;
    let rings = XskRings::new(sockets).map_err(system("map the rings of an AF_XDP socket"))?;
    let monitors = rings.monitors().map_err(system("duplicate a socket"))?;
    for (device, monitor) in devices.iter().zip(&monitors) {
        redirect.register(device.facts.link.index, queue, monitor.as_fd())?;
        let zero_copy = monitor.is_zero_copy().map_err(system("ask a socket for its mode"))?;
        tracing::info!(
            interface = device.facts.link.name,
            queue,
            mode = if zero_copy { "zero-copy" } else { "copy" },
            huge_pages = rings.has_huge_pages(),
            "queue bound"
        );
    }
    let facts = WorkerFacts { cpu, huge_pages: rings.has_huge_pages(), sockets: monitors };
    let counters = Arc::new(Counters::new(REALS_MAX));
    let snapshot = Arc::new(Snapshot::default());
    let engine = Engine::new(shared.clone(), snapshot, counters.clone(), queue, workers);
    let worker = Worker::new(engine, rings, desired.frames().batch as usize);
    let public = Arc::new(Public { counters, ledger: std::array::from_fn(|_| Count::default()) });
    let wanted = wanted.clone();
    let tell = move || {
        // Full means that the controller will look anyway.
        let _ = wanted.try_send(());
    };
    let handle = Handle::start(queue as usize, worker, public, cpu, frames.busy_poll.is_some(), tell);
    Ok((handle.map_err(system("start a worker"))?, facts))
}

fn gateways(desired: &Desired, devices: &[Device]) -> HashMap<u32, crate::config::settings::Gateway> {
    let all = desired.interfaces().iter().zip(devices);
    all.filter_map(|(interface, device)| Some((device.facts.link.index, interface.gateway?))).collect()
}

fn interface_facts(devices: &[Device], modes: &[Active]) -> Vec<InterfaceFacts> {
    let facts = |(device, mode): (&Device, &Active)| InterfaceFacts {
        name: device.facts.link.name.clone(),
        xdp_mode: match mode {
            Active::Native => "native",
            Active::Generic => "generic",
        },
        mtu: device.facts.link.mtu,
    };
    devices.iter().zip(modes).map(facts).collect()
}

/// Tells the controller when the kernel has news.
fn watch(socket: OwnedFd, news: Sender<()>) -> Result<(), RunError> {
    let watch = move || {
        loop {
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            // An interrupted poll is looked at as news: the controller finds none.
            let _ = poll(&mut fds, PollTimeout::NONE);
            if news.send(()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("netlink".into()).spawn(watch).map_err(system("start a thread"))?;
    Ok(())
}

/// The signals of the process, as the controller knows them.
fn signals() -> Result<crossbeam_channel::Receiver<Signal>, RunError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let (sender, receiver) = unbounded();
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(system("catch signals"))?;
    let listen = move || {
        for signal in signals.forever() {
            let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
            if sender.send(signal).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(system("start a thread"))?;
    Ok(receiver)
}
