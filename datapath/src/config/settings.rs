//! The director's own settings, checked: process, packet memory and rings, interfaces.
//!
//! Each type here holds values that can be used without another look, and knows its defaults; each `read` turns a table
//! of the [`Document`](super::Document) into one and reports everything that is wrong with it.
//!
//! Invariant: within the ranges of the constants below, each of which says why it is what it is.
//! Not here: what only the machine knows (does the interface exist, how many queues has it, does the frame hold its
//! MTU). The director finds that out when it starts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::document::{
    AbsentWorker, Compat, CompatName, ConnectionsTable, Demand, DirectorTable, FramesTable, InterfaceTable, Kernel,
    XdpMode,
};
use super::problem::{Problems, quote};

/// Longest path of a Unix socket in bytes: `sun_path` has 108, the last one is 0.
pub const SOCKET_PATH_MAX: usize = 107;

/// Longest name of an interface in bytes: the kernel's IFNAMSIZ less the final 0.
pub const INTERFACE_NAME_MAX: usize = 15;

/// CPUs that can be named: what a `cpu_set_t` holds.
pub const CPUS_MAX: i64 = 1024;

/// Connections when the file does not say.
pub const CAPACITY: u32 = 1 << 20;
/// Most connections: the bound that IPVS has for `conn_max`.
pub const CAPACITY_MAX: i64 = 1 << 30;

/// Least entries of a ring. Smaller ones stall on the first burst; small ones are useful in tests.
pub const RING_MIN: i64 = 8;
/// Most entries of a ring. Beyond it the rings alone fall out of every cache.
pub const RING_MAX: i64 = 1 << 16;

/// Least frames of a worker: a batch of the least ring in hand and another one with the kernel.
pub const FRAMES_MIN: i64 = 2 * RING_MIN;
/// Most frames of a worker: 2 or 4 GiB of memory each, where a slip of a zero should end.
pub const FRAMES_MAX: i64 = 1 << 20;

/// Most packets of a breath. More of them do not get cheaper, and mail for the worker waits meanwhile.
pub const BATCH_MAX: i64 = 1024;

/// Most packets of a busy poll: the kernel keeps the number in 16 bits.
pub const BUSY_POLL_BUDGET_MAX: i64 = u16::MAX as i64;

/// How long a worker stays awake after its last packet, unless configured, in microseconds. Not at all: what it gives is paid
/// for by a processor that is never idle while packets come as close as that.
const LINGER_US: u32 = 0;

/// The longest that it may. Who wants more wants a worker that never sleeps.
pub const LINGER_US_MAX: i64 = 1000;

/// Most queues of an interface. No network card of today has more.
pub const QUEUES_MAX: i64 = 1024;

/// Least and greatest VLAN that may be written; 0 is "no VLAN" and 4095 reserved (IEEE 802.1Q).
pub const VLANS: (i64, i64) = (1, 4094);

/// `[director]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorSettings {
    /// The control socket, if the file names it. Else the environment or the default decides.
    pub control: Option<PathBuf>,
    /// Add the VIPs to an interface, announce them, take them away at exit.
    pub own_vips: bool,
    /// Watch the answers of DR and TUN servers that cross the director.
    pub observe_replies: bool,
    /// Where `own_vips` puts them; none for the first interface.
    pub vip_interface: Option<String>,
    /// Packets of a queue whose worker is not alive.
    pub absent_worker: AbsentWorker,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// Which defaults the settings have.
    pub compat: Compat,
    /// Kernel generation whose schedulers are copied.
    pub kernel: Kernel,
    /// Pin workers to CPUs.
    pub pin: bool,
    /// The CPUs to pin to, by worker; none for all allowed ones in their order.
    pub cpus: Option<Vec<u32>>,
    /// The directory that `wasm:NAME` is looked for in, if it is not loaded.
    pub scheduler_dir: Option<PathBuf>,
    /// Load what is new or changed in it.
    pub watch_schedulers: bool,
}

/// `[frames]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSettings {
    /// Bytes of a frame: 2048 or 4096.
    pub size: u32,
    /// Frames of a worker.
    pub count: u32,
    /// Entries of a receive ring, a power of two.
    pub rx_ring: u32,
    /// Entries of a transmit ring, a power of two.
    pub tx_ring: u32,
    /// Entries of a fill ring, a power of two.
    pub fill_ring: u32,
    /// Entries of a completion ring, a power of two.
    pub completion_ring: u32,
    /// Huge pages under the frames.
    pub huge_pages: Demand,
    /// Busy polling.
    pub busy_poll: bool,
    /// Packets that one busy poll may handle.
    pub busy_poll_budget: u16,
    /// How long a worker stays awake after its last packet, as long as that finds others.
    pub linger: Duration,
    /// Packets of a breath; fits into the receive and the transmit ring.
    pub batch: u32,
}

/// `[[interface]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Name; one that the kernel could have given.
    pub name: String,
    /// Queues to serve; none for all combined ones.
    pub queues: Option<u32>,
    /// Zero-copy.
    pub zero_copy: Demand,
    /// The next hop of all that leaves here; none for the kernel's neighbours.
    pub gateway: Option<Gateway>,
}

/// A next hop that the file knows and the kernel is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its MAC, unicast.
    pub mac: Mac,
    /// The VLAN tag to write, 1 to 4094; none keeps the frame's tags.
    pub vlan: Option<u16>,
}

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six bytes in hexadecimal with colons between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: write six bytes as in 02:00:00:00:00:01")]
pub struct NotMac;

impl FromStr for Mac {
    type Err = NotMac;

    fn from_str(text: &str) -> Result<Self, NotMac> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or(NotMac)?;
            // from_str_radix alone would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NotMac)?;
        }
        if parts.next().is_none() { Ok(Mac(mac)) } else { Err(NotMac) }
    }
}

/// Could the kernel have an interface of this name? The error says what is wrong with it.
pub fn check_interface_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("an interface has a name of 1 to 15 characters".to_owned())
    } else if name.len() > INTERFACE_NAME_MAX {
        Err(format!("{} is too long for an interface: {INTERFACE_NAME_MAX} bytes at most", quote(name)))
    } else if name == "." || name == ".." || name.contains(|c: char| c == '/' || c == ':' || c <= ' ' || c == '\x7f') {
        Err(format!("{} is no name of an interface: no spaces, no / and no : in it", quote(name)))
    } else {
        Ok(())
    }
}

/// A number of the file: `value` or the default, reported and replaced by the default if it is out of range.
pub(super) fn number(
    problems: &mut Problems<'_>,
    path: &str,
    value: Option<i64>,
    default: u32,
    (least, most): (i64, i64),
    unit: &str,
) -> u32 {
    let Some(value) = value else { return default };
    match u32::try_from(value) {
        Ok(number) if (least..=most).contains(&value) => number,
        _ => {
            problems.push(path, format!("{value} is out of range: {least} to {most} {unit}").trim_end());
            default
        }
    }
}

impl DirectorSettings {
    pub(super) fn read(table: &DirectorTable, problems: &mut Problems<'_>) -> Self {
        if let Some(path) = &table.control {
            if path.is_empty() || path.contains('\0') {
                problems.push("director.control", "this is the path of a socket, as in /run/xvs/xvs.sock");
            } else if path.len() > SOCKET_PATH_MAX {
                let message =
                    format!("{} bytes are too many for a socket's path: {SOCKET_PATH_MAX} at most", path.len());
                problems.push("director.control", message);
            }
        }
        if let Some(Err(message)) = table.vip_interface.as_deref().map(check_interface_name) {
            problems.push("director.vip_interface", message);
        }
        if table.scheduler_dir.as_ref().is_some_and(|path| path.is_empty() || path.contains('\0')) {
            problems.push("director.scheduler_dir", "this is the path of a directory, as in /etc/xvs/schedulers");
        }
        if table.watch_schedulers == Some(true) && table.scheduler_dir.is_none() {
            problems.push("director.watch_schedulers", "there is no directory to watch: name scheduler_dir, too");
        }
        let (compat, kernel) = read_compat(table, problems);
        DirectorSettings {
            control: table.control.as_ref().map(PathBuf::from),
            own_vips: table.own_vips.unwrap_or(false),
            observe_replies: table.observe_replies.unwrap_or(false),
            vip_interface: table.vip_interface.clone(),
            absent_worker: table.absent_worker.unwrap_or_default(),
            xdp_mode: table.xdp_mode.unwrap_or_default(),
            compat,
            kernel,
            pin: table.pin.unwrap_or(true),
            cpus: table.cpus.as_deref().map(|cpus| read_cpus(cpus, problems)),
            scheduler_dir: table.scheduler_dir.as_ref().map(PathBuf::from),
            watch_schedulers: table.watch_schedulers.unwrap_or(false),
        }
    }
}

/// Profile and kernel generation. `compat` named the generation once: that still counts, and is told.
fn read_compat(table: &DirectorTable, problems: &mut Problems<'_>) -> (Compat, Kernel) {
    let (former, name) = match table.compat {
        None | Some(CompatName::Ipvs) => return (Compat::Ipvs, table.kernel.unwrap_or_default()),
        Some(CompatName::Sane) => return (Compat::Sane, table.kernel.unwrap_or_default()),
        Some(CompatName::New) => (Kernel::New, "new"),
        Some(CompatName::Old) => (Kernel::Old, "old"),
    };
    let path = "director.compat";
    let cure = format!("write kernel = \"{name}\" instead; compat is \"ipvs\" (the default) or \"sane\"");
    if table.kernel.is_some_and(|kernel| kernel != former) {
        problems.push(path, format!("\"{name}\" is a kernel's generation, and kernel names another one: {cure}"));
    } else {
        problems.note(path, format!("\"{name}\" is a kernel's generation and counts as such: {cure}"));
    }
    (Compat::Ipvs, former)
}

fn read_cpus(cpus: &[i64], problems: &mut Problems<'_>) -> Vec<u32> {
    let path = "director.cpus";
    if cpus.is_empty() {
        problems.push(path, "no CPU is left to run on: name some, or leave the key out for all");
    }
    let mut seen = Vec::new();
    for (index, cpu) in cpus.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match u32::try_from(*cpu) {
            Ok(cpu) if i64::from(cpu) < CPUS_MAX && !seen.contains(&cpu) => seen.push(cpu),
            Ok(cpu) if seen.contains(&cpu) => problems.push(path, format!("CPU {cpu} stands here twice")),
            _ => problems.push(path, format!("{cpu} is out of range: 0 to {}", CPUS_MAX - 1)),
        }
    }
    seen
}

/// `[connections]`: entries of the connection table.
pub(super) fn read_capacity(table: &ConnectionsTable, problems: &mut Problems<'_>) -> u32 {
    number(problems, "connections.capacity", table.capacity, CAPACITY, (1, CAPACITY_MAX), "entries")
}

impl FrameSettings {
    pub(super) fn read(table: &FramesTable, problems: &mut Problems<'_>) -> Self {
        let size = table.size.unwrap_or(2048);
        if size != 2048 && size != 4096 {
            problems.push("frames.size", format!("{size} is not 2048 or 4096 (bytes)"));
        }
        let known = problems.len();
        let budget = (1, BUSY_POLL_BUDGET_MAX);
        let budget = number(problems, "frames.busy_poll_budget", table.busy_poll_budget, 64, budget, "packets");
        let settings = FrameSettings {
            size: if size == 4096 { 4096 } else { 2048 },
            count: number(problems, "frames.count", table.count, 4096, (FRAMES_MIN, FRAMES_MAX), "frames"),
            rx_ring: ring(problems, "frames.rx_ring", table.rx_ring),
            tx_ring: ring(problems, "frames.tx_ring", table.tx_ring),
            fill_ring: ring(problems, "frames.fill_ring", table.fill_ring),
            completion_ring: ring(problems, "frames.completion_ring", table.completion_ring),
            huge_pages: table.huge_pages.unwrap_or_default(),
            busy_poll: table.busy_poll.unwrap_or(false),
            busy_poll_budget: u16::try_from(budget).unwrap_or(u16::MAX),
            linger: Duration::from_micros(
                number(problems, "frames.linger_us", table.linger_us, LINGER_US, (0, LINGER_US_MAX), "microseconds")
                    .into(),
            ),
            batch: number(problems, "frames.batch", table.batch, 64, (1, BATCH_MAX), "packets"),
        };
        if problems.len() == known {
            settings.check_batch(problems);
        }
        settings
    }

    /// Does one batch fit everywhere it has to go?
    fn check_batch(&self, problems: &mut Problems<'_>) {
        let batch = self.batch;
        for (name, ring) in [("rx_ring", self.rx_ring), ("tx_ring", self.tx_ring)] {
            if batch > ring {
                // A ring takes a batch whole or not at all.
                problems.push("frames.batch", format!("a batch of {batch} does not fit into {name}, which has {ring}"));
            }
        }
        if batch.saturating_mul(2) > self.count {
            let message =
                format!("{} frames are too few: a batch of {batch} in hand and one to receive into", self.count);
            problems.push("frames.count", message);
        }
    }
}

/// A ring's entries. The kernel takes powers of two only.
fn ring(problems: &mut Problems<'_>, path: &str, value: Option<i64>) -> u32 {
    let entries = number(problems, path, value, 2048, (RING_MIN, RING_MAX), "entries");
    if entries.is_power_of_two() {
        return entries;
    }
    let above = entries.next_power_of_two();
    problems.push(path, format!("{entries} is not a power of two: {} or {above} would be", above / 2));
    2048
}

impl InterfaceSettings {
    pub(super) fn read(table: &InterfaceTable, path: &str, problems: &mut Problems<'_>) -> Self {
        match table.name.as_deref() {
            None => problems.push(format!("{path}.name"), "missing: which interface? as in name = \"eth0\""),
            Some(name) => {
                if let Err(message) = check_interface_name(name) {
                    problems.push(format!("{path}.name"), message);
                }
            }
        }
        let queues = table
            .queues
            .map(|queues| number(problems, &format!("{path}.queues"), Some(queues), 1, (1, QUEUES_MAX), "queues"));
        InterfaceSettings {
            name: table.name.clone().unwrap_or_default(),
            queues,
            zero_copy: table.zero_copy.unwrap_or_default(),
            gateway: Self::read_gateway(table, path, problems),
        }
    }

    fn read_gateway(table: &InterfaceTable, path: &str, problems: &mut Problems<'_>) -> Option<Gateway> {
        let vlan = table.vlan.map(|vlan| number(problems, &format!("{path}.vlan"), Some(vlan), 1, VLANS, ""));
        let Some(text) = table.gateway_mac.as_deref() else {
            if vlan.is_some() {
                let message = "a tag is written towards a static next hop only: add gateway_mac, or leave vlan out";
                problems.push(format!("{path}.vlan"), message);
            }
            return None;
        };
        let path = format!("{path}.gateway_mac");
        match text.parse::<Mac>() {
            Err(error) => problems.push(path, format!("{} is {error}", quote(text))),
            Ok(mac) if mac.0 == [0; 6] => problems.push(path, format!("{mac} is nobody's address")),
            Ok(mac) if mac.0[0] & 1 != 0 => {
                problems
                    .push(path, format!("{mac} is a group address: a next hop has a unicast one (first byte even)"));
            }
            Ok(mac) => {
                let vlan = vlan.and_then(|vlan| u16::try_from(vlan).ok());
                return Some(Gateway { mac, vlan });
            }
        }
        None
    }
}
