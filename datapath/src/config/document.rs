//! The configuration file as it is written: tables, keys, and nothing that is known to be right.
//!
//! A [`Document`] says what a person wrote. Every key is optional here, numbers are as wide as TOML's and addresses are
//! text, so that everything that is wrong with the values is found by [`Desired::validate`](super::Desired::validate),
//! all at once and in our words. The defaults stand with the types that they end up in ([`super::settings`],
//! [`super::desired`]).
//!
//! Invariant: a key that is not a field here is an error, in each table (`deny_unknown_fields`).
//! Not here: how text becomes a document (`reader.rs`) and what its values must be like (`rules.rs`, `settings.rs`).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::problem::Source;
use crate::control::protocol::{Family, Protocol, TunnelChecksum};

/// A configuration file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// `[director]`
    #[serde(skip_serializing_if = "is_default")]
    pub director: DirectorTable,
    /// `[connections]`
    #[serde(skip_serializing_if = "is_default")]
    pub connections: ConnectionsTable,
    /// `[timeouts]`: seconds by the names of states; 0 keeps what the director has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub timeouts: BTreeMap<String, i64>,
    /// `[sysctl]`: by the names as they are written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, SettingLine>,
    /// `[frames]`
    #[serde(skip_serializing_if = "is_default")]
    pub frames: FramesTable,
    /// `[[interface]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interface: Vec<InterfaceTable>,
    /// `[[scheduler]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scheduler: Vec<SchedulerTable>,
    /// `[[mark]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mark: Vec<MarkTable>,
    /// `[[service]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<ServiceTable>,
    /// Where each field stands in the text, for messages. Empty in a document that was built by hand.
    #[serde(skip)]
    pub(super) source: Source,
}

/// `[director]`: the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectorTable {
    /// Path of the control socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Add the VIPs to an interface, announce them, take them away at exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_vips: Option<bool>,
    /// The interface that `own_vips` puts them on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_interface: Option<String>,
    /// Watch the answers of DR and TUN servers that cross the director.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observe_replies: Option<bool>,
    /// What becomes of packets of a queue whose worker is not alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent_worker: Option<AbsentWorker>,
    /// How the XDP program is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<XdpMode>,
    /// IPVS's behaviour to the letter, or without what is known to hurt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<CompatName>,
    /// The kernel generation whose schedulers are copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// Pin workers to CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<bool>,
    /// The CPUs to pin to, in the order of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Vec<i64>>,
    /// The directory that `wasm:NAME` is looked for in, as `NAME.wasm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_dir: Option<String>,
    /// Load what is new or changed in `scheduler_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_schedulers: Option<bool>,
}

/// `[connections]`: the connection table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsTable {
    /// Entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
}

/// `[frames]`: a worker's packet memory and the rings that it shares with the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FramesTable {
    /// Bytes of a frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Frames of a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// Entries of a receive ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_ring: Option<i64>,
    /// Entries of a transmit ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_ring: Option<i64>,
    /// Entries of a fill ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill_ring: Option<i64>,
    /// Entries of a completion ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_ring: Option<i64>,
    /// Huge pages under the frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<Demand>,
    /// Busy polling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_poll: Option<bool>,
    /// Packets that one busy poll may handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_poll_budget: Option<i64>,
    /// Microseconds that a worker stays awake after its last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linger_us: Option<i64>,
    /// Packets of a breath.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<i64>,
}

/// `[[interface]]`: a network interface that packets are taken from and sent by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InterfaceTable {
    /// Its name. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Queues to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
    /// Zero-copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_copy: Option<Demand>,
    /// MAC of a static next hop for all that leaves here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<String>,
    /// VLAN to write towards `gateway_mac`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
}

/// `[[scheduler]]`: a plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerTable {
    /// Its name, behind `wasm:`. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The module. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What it may import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<String>>,
}

/// `[[mark]]`: a rule that marks new connections, for mark services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MarkTable {
    /// The mark. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<i64>,
    /// Prefix or address that the packets go to. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Prefix or address that they come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Transport protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Destination ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
}

/// `[[service]]`: a virtual service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceTable {
    /// Transport protocol, with `address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// VIP and port. Without a port: every port. Either this or `mark` is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Firewall mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<i64>,
    /// IP version, with `mark`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Name of the scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// The native scheduler behind a plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Scheduler flags, by ipvsadm's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// Persistence timeout in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<i64>,
    /// What groups the clients of a persistent service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netmask: Option<Netmask>,
    /// Persistence engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// One-packet scheduling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
    /// `[service.timeouts]`: seconds by the names of states.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub timeouts: BTreeMap<String, i64>,
    /// Options for a plugin: names and what is written for them, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// `[[service.server]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server: Vec<ServerTable>,
}

/// What groups the clients of a persistent service: a prefix length, or an IPv4 mask as text, which may have holes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Netmask {
    /// So many leading bits.
    Length(i64),
    /// These bits.
    Dotted(String),
}

/// What a `netmask` should have been.
pub(super) const NETMASK: &str = "a prefix length, or an IPv4 mask in double quotes";

/// By hand, because serde's own complaint about an untagged value does not say what it should be.
impl<'de> Deserialize<'de> for Netmask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Netmask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(NETMASK)
            }

            fn visit_i64<E>(self, length: i64) -> Result<Netmask, E> {
                Ok(Netmask::Length(length))
            }

            fn visit_str<E>(self, text: &str) -> Result<Netmask, E> {
                Ok(Netmask::Dotted(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

/// `[[service.server]]`: a real server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTable {
    /// RIP and port; the port defaults to the service's. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Forwarding method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodName>,
    /// Weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Upper connection threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper: Option<i64>,
    /// Lower connection threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower: Option<i64>,
    /// Encapsulation, with method tun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelName>,
    /// Destination port of the outer header, with gue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_port: Option<i64>,
    /// Checksum of the outer header, with gue and gre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_checksum: Option<TunnelChecksum>,
    /// Tags for plugins: names and what is written for them, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// What becomes of packets of a queue whose worker is not alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbsentWorker {
    /// Dropped: clients send again, and their connections survive a restart.
    #[default]
    Drop,
    /// Passed to the kernel, which resets connections that it does not know.
    Pass,
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver if it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the kernel made an `sk_buff` of the packet: works everywhere, slowly.
    Generic,
}

/// A line of `[sysctl]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettingLine {
    /// The value as it would be written to a file below `/proc/sys`.
    pub value: String,
    /// Path of the field.
    #[serde(skip)]
    pub path: String,
}

/// What `compat` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompatName {
    /// [`Compat::Ipvs`]
    Ipvs,
    /// [`Compat::Sane`]
    Sane,
    /// [`Kernel::New`], as it was written before `kernel` was a key.
    New,
    /// [`Kernel::Old`], as it was written before `kernel` was a key.
    Old,
}

/// The profile: which defaults the settings have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compat {
    /// The kernel's: whoever comes from IPVS sees no difference.
    #[default]
    Ipvs,
    /// Those that cure what operators of IPVS complain of.
    Sane,
}

/// The kernel generation whose connection overhead (lc, wlc and kin) and thresholds are copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// Kernels of 2026.
    #[default]
    New,
    /// Kernels before that.
    Old,
}

/// How much something is wanted that not every machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Use it if it is there.
    #[default]
    Auto,
    /// Do not start without it.
    Require,
    /// Do not use it.
    Off,
}

/// Name of a forwarding method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// Masquerading.
    Nat,
    /// Gatewaying.
    #[default]
    Dr,
    /// Tunnelling.
    Tun,
}

/// Name of an encapsulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelName {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
