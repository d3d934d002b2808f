//! `xvs run`: puts the director together, in an order that lets no packet fall between two parts, and takes it apart.
//!
//! ```text
//! settings -> facts of the interfaces -> XDP programs attached -> sockets bound and registered -> workers started
//!   -> rules in force, keys steered -> control socket -> "ready"
//! ```
//! Leaving goes backwards: the control socket, VIPs of our own, the XDP programs, the workers; the same if the start
//! fails half way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use xvs_engine::conn::Table;
use xvs_engine::counters::Counters;
use xvs_engine::engine::{Engine, Shared, Sizes};
use xvs_engine::flow::HashKey;
use xvs_engine::real::Generation;
use xvs_engine::sched::Builtin;
use xvs_engine::snapshot::Snapshot;
use xvs_engine::worker::Worker;
use xvs_host::Host;
use xvs_redirect::Redirect;

use crate::config::Desired;
use crate::config::document::{Demand, Document, InterfaceTable, Kernel};
use crate::config::settings::FrameSettings;
use crate::control::client;
use crate::control::controller::{Controller, Inlets, Signal};
use crate::control::datapath::Datapath;
use crate::control::network::Network;
use crate::control::report::{Facts, Sizing, WorkerFacts};
use crate::control::socket;
use crate::control::workers::{Handle, Public};
use crate::control::workshop::Machine;
use crate::kernel::Mirror;
use crate::xsk::{self, Binding, Frames, XskRings};

mod devices;
mod error;

use devices::{Device, attach, devices, gateways, interface_facts, wired};
pub use error::RunError;

/// Real servers that the director has records for, removed ones with connections included.
pub const REALS_MAX: usize = 1 << 17;
/// Next hops that it has records for.
pub const HOPS_MAX: usize = 1 << 17;
/// Bytes that a place in the connection table takes when both families use it: a line, two lines, and two slots of an
/// index that is never more than half full.
const CONNECTION_BYTES: u64 = 64 + 128 + 32;
/// The controller is not told of the kernel's news more often than this.
const NEWS_PAUSE: Duration = Duration::from_millis(5);
/// How often memory for new connections is looked after.
const POPULATE_PAUSE: Duration = Duration::from_millis(50);

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

/// Reads a configuration file.
///
/// # Errors
/// It can not be read, or is wrong.
pub fn read_config(path: &Path) -> Result<Document, RunError> {
    Ok(Document::parse(&read_text(path)?, &path.to_string_lossy())?)
}

/// Reads a file's text.
///
/// # Errors
/// It can not be read, or is no text.
pub fn read_text(path: &Path) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(|source| RunError::File { path: path.to_owned(), source })
}

/// The directory that relative paths of a configuration file start from.
///
/// # Errors
/// There is no current directory.
pub fn base(config: Option<&Path>) -> Result<PathBuf, RunError> {
    let directory = config.and_then(Path::parent).unwrap_or_else(|| Path::new(""));
    std::env::current_dir().map(|current| current.join(directory)).map_err(system("find the current directory"))
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
    let mut desired = Desired::validate(document, Builtin::NAMES)?;
    desired.start_from(&base(options.config.as_deref())?);
    desired.notes().iter().for_each(|note| tracing::warn!(%note, "configuration"));
    Ok(desired)
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
    // Before anything is made that a signal's default action would leave behind; one that comes now waits.
    let signals = signals()?;

    let shared = shared(&desired)?;
    let (mut redirect, modes) = attach(&desired, &devices)?;
    have_ready(&shared)?;
    let (wanted, wanted_inlet) = bounded(1);
    let mut handles = Vec::new();
    let mut worker_facts = Vec::new();
    let cpus = cpus(&desired);
    let machine = Machine::default();
    let host = machine.start().inspect_err(|error| tracing::warn!(error, "no plugins can run here")).ok();
    let starting =
        Starting { options, desired: &desired, devices: &devices, shared: &shared, workers, wanted: &wanted, host };
    for queue in 0..workers {
        let cpu = cpus.get(queue as usize % cpus.len().max(1)).copied();
        let (handle, facts) = starting.start_worker(&mut redirect, queue, cpu)?;
        handles.push(handle);
        worker_facts.push(facts);
    }

    let mirror = Mirror::open()?;
    let news_socket = mirror.fd().try_clone_to_owned().map_err(system("watch netlink"))?;
    let gateways = gateways(&desired, &devices);
    let links = devices.iter().map(|device| device.facts.link.index).collect();
    let network = Network::new(mirror, shared.clone(), links, wired(&devices, &modes), gateways);
    let facts = Facts { started: Instant::now(), interfaces: interface_facts(&devices, &modes), workers: worker_facts };
    let vip_interface = desired.director().vip_interface.clone();
    let vip_interface = vip_interface.unwrap_or_else(|| devices[0].facts.link.name.clone());
    let datapath = Datapath::new(redirect, handles, network, shared.clone());
    // From here on the controller takes away what would be left, also if the rest of the start fails.
    let mut controller = Controller::new(datapath, facts, shared, desired.clone(), &vip_interface, machine);
    controller.apply_desired().map_err(|refusal| RunError::Refused(refusal.message))?;

    let (calls, calls_inlet) = unbounded();
    let (news, news_inlet) = bounded(1);
    watch(news_socket, news)?;
    let mut inlets = Inlets { calls: calls_inlet, wanted: wanted_inlet, news: news_inlet, signals };
    let listening = socket::listen(&control, calls)?;
    tracing::info!(control = %control.display(), workers, "ready");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    while controller.run(&mut inlets) == Signal::Reload {
        reload(options, &mut controller);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping");
    drop(listening);
    drop(controller);
    Ok(())
}

fn reload(options: &Options, controller: &mut Controller) {
    if options.config.is_none() {
        tracing::warn!("SIGHUP: there is no configuration file to read again");
        return;
    }
    match settings(options) {
        Ok(desired) => controller.reload(desired),
        Err(error) => tracing::error!(%error, "configuration not read; the rules stay"),
    }
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { doing, source }
}

fn shared(desired: &Desired) -> Result<Arc<Shared>, RunError> {
    let mut key = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").map_err(system("open /dev/urandom"))?;
    io::Read::read_exact(&mut random, &mut key).map_err(system("read /dev/urandom"))?;
    let sizes = Sizes { connections: desired.capacity(), reals: REALS_MAX, hops: HOPS_MAX };
    tables(desired, sizes, HashKey::from_bytes(key))
}

/// The engine's tables, if there is memory for them.
pub(crate) fn tables(desired: &Desired, sizes: Sizes, key: HashKey) -> Result<Arc<Shared>, RunError> {
    let generation = match desired.director().kernel {
        Kernel::New => Generation::New,
        Kernel::Old => Generation::Old,
    };
    // The tables are made by whoever would end the process if there is no memory; so it is asked for first.
    let connections = sizes.connections;
    let bytes = u64::from(connections) * CONNECTION_BYTES + Table::call_bytes(connections);
    let mut probe: Vec<u8> = Vec::new();
    if usize::try_from(bytes).is_ok_and(|bytes| probe.try_reserve_exact(bytes).is_ok()) {
        drop(probe);
        return Ok(Arc::new(Shared::new(sizes, key, generation)));
    }
    Err(RunError::Table { connections, megabytes: bytes >> 20 })
}

/// Has memory for new connections ready before the workers want it, as long as there are tables.
fn have_ready(shared: &Arc<Shared>) -> Result<(), RunError> {
    let shared = Arc::downgrade(shared);
    let work = move || {
        while shared.upgrade().is_some_and(|shared| shared.table.populate()) {
            std::thread::sleep(POPULATE_PAUSE);
        }
    };
    std::thread::Builder::new().name("memory".into()).spawn(work).map_err(system("start a thread"))?;
    Ok(())
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

/// What all workers are made from.
struct Starting<'a> {
    options: &'a Options,
    desired: &'a Desired,
    devices: &'a [Device],
    shared: &'a Arc<Shared>,
    workers: u32,
    wanted: &'a Sender<()>,
    /// The host of plugins, if they can run here.
    host: Option<Arc<Host>>,
}

impl Starting<'_> {
    fn start_worker(
        &self,
        redirect: &mut Redirect,
        queue: u32,
        cpu: Option<u32>,
    ) -> Result<(Handle, WorkerFacts), RunError> {
        let Starting { options, desired, devices, shared, workers, wanted, host } = self;
        let binding =
            |device: &Device| Binding { interface: device.facts.link.name.clone(), queue, zero_copy: device.zero_copy };
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
        let FrameSettings { batch, rx_ring, tx_ring, .. } = *desired.frames();
        let sizes = Sizing { batch, rx_ring, tx_ring };
        let facts = WorkerFacts { cpu, huge_pages: rings.has_huge_pages(), sockets: monitors, sizes };
        let counters = Arc::new(Counters::new(REALS_MAX));
        let snapshot = Arc::new(Snapshot::default());
        let engine = Engine::new((*shared).clone(), snapshot, counters.clone(), queue, *workers);
        let worker = Worker::new(engine, rings, desired.frames().batch as usize);
        let public = Arc::new(Public::new(counters));
        let wanted = (*wanted).clone();
        let host = host.clone();
        // A plugin's first fault costs the thread that meets it much less then.
        let prepare = move || host.iter().for_each(|host| host.warm_thread());
        let tell = move || {
            // Full means that the controller will look anyway.
            let _ = wanted.try_send(());
        };
        let linger = frames.busy_poll.is_none().then_some(desired.frames().linger);
        let handle = Handle::start(queue as usize, worker, public, cpu, linger, prepare, tell);
        Ok((handle.map_err(system("start a worker"))?, facts))
    }
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
            // The socket stays readable until the controller has looked at it, which may take it a while.
            std::thread::sleep(NEWS_PAUSE);
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
