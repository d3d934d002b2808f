//! What is told: the rules with their counters, connections, drops, the state of the director.
//!
//! Values of one moment, made for listings; nothing here is ever read back.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::rules::{ByState, ServerSpec, ServiceId, ServiceSpec};

/// The rules and their counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Size of the connection table in entries (ipvsadm's `size=`).
    pub size: u64,
    /// Virtual services.
    pub services: Vec<Service>,
    /// Counters and rates of all traffic, that of services and servers that are gone included. Beside one service alone, those
    /// of the last sample.
    #[serde(default)]
    pub totals: Stats,
}

/// Counters and rates of a service or a server. Rates are per second, as IPVS's estimator rounds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes (layer 3) from clients.
    pub in_bytes: u64,
    /// Bytes (layer 3) to clients.
    pub out_bytes: u64,
    /// Connections per second.
    pub cps: u64,
    /// Packets per second from clients.
    pub in_pps: u64,
    /// Packets per second to clients.
    pub out_pps: u64,
    /// Bytes per second from clients.
    pub in_bps: u64,
    /// Bytes per second to clients.
    pub out_bps: u64,
}

/// A virtual service as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Rules.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Timeouts of its own.
    #[serde(default, skip_serializing_if = "ByState::is_empty")]
    pub timeouts: ByState,
    /// Counters.
    pub stats: Stats,
    /// Real servers in the director's own order: the most recently added first.
    pub servers: Vec<Server>,
}

/// A real server as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Rules.
    #[serde(flatten)]
    pub spec: ServerSpec,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// At its upper threshold: not scheduled until it falls below the lower one.
    pub overloaded: bool,
    /// How packets leave for it: interface, next hop and its MAC, or what is missing.
    pub path: String,
    /// Counters.
    pub stats: Stats,
}

/// An entry of the connection table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// IP protocol number; 0 for templates of mark services.
    pub protocol: u8,
    /// State, as ipvsadm prints it (`ESTABLISHED`, `UDP`, `NONE`, `ASSURED`, ...).
    pub state: String,
    /// Seconds until it expires.
    pub expires_s: u32,
    /// CIP:port; port 0 for templates.
    pub client: SocketAddr,
    /// VIP:port.
    pub virtual_address: SocketAddr,
    /// RIP:port.
    pub server: SocketAddr,
    /// Persistence engine and its data, if any.
    #[serde(default)]
    pub engine: Option<(String, String)>,
}

/// A drop reason and its count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Name, as in metrics.
    pub reason: String,
    /// Packets dropped for it since the start.
    pub packets: u64,
    /// What it means and what to do.
    pub help: String,
}

/// A named count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Name, as in metrics.
    pub name: String,
    /// Value since the start.
    pub value: u64,
    /// What it counts.
    pub help: String,
}

/// The timeouts of the director, or of a service that has its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutSet {
    /// The service; none for the director's own.
    pub service: Option<ServiceId>,
    /// All timeouts that are in force for it.
    pub timeouts: Vec<StateTimeout>,
}

/// How long a connection in a state is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateTimeout {
    /// The state.
    pub state: String,
    /// Seconds after its last packet.
    pub seconds: u32,
    /// It was set here; else it is the director's, and the director's IPVS's.
    pub own: bool,
}

/// A setting as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingState {
    /// Full name, as sysctl(8) prints it.
    pub name: String,
    /// Value.
    pub value: String,
    /// Value when nobody has set it, in the director's profile.
    pub default: String,
    /// What it takes.
    pub takes: String,
    /// Does it do anything here?
    pub standing: Standing,
    /// What it does, or does in the kernel.
    pub effect: String,
    /// Why it does nothing here, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Does a setting do anything here?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Yes.
    Acts,
    /// No: it is accepted, stored and shown.
    Kept,
    /// No: there is nothing that it could move. It is accepted, stored and shown all the same.
    #[serde(rename = "not_applicable")]
    Absent,
}

/// The state of the director.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Generation of the configuration that the workers run.
    pub generation: u64,
    /// Interfaces and their queues.
    pub interfaces: Vec<InterfaceStatus>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Connections now.
    pub connections: u64,
    /// Connections that fit.
    pub connections_max: u64,
    /// What the XDP program did with packets.
    pub xdp: Vec<Counter>,
    /// What the engine did with packets.
    pub engine: Vec<Counter>,
    /// What a person should look at: a sentence each.
    #[serde(default)]
    pub alarms: Vec<String>,
}

/// An interface that the director forwards through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its queues.
    pub queues: Vec<QueueStatus>,
}

/// A queue of an interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Queue index.
    pub queue: u32,
    /// Worker that serves it.
    pub worker: u32,
    /// As the kernel answers (XDP_OPTIONS): true for zero-copy.
    pub zero_copy: bool,
    /// Frames that the kernel dropped, by its own counters (XDP_STATISTICS).
    pub kernel: Vec<Counter>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Index.
    pub worker: u32,
    /// CPU it is pinned to, if it is.
    pub cpu: Option<u32>,
    /// Huge pages under its frames.
    pub huge_pages: bool,
    /// The frame ledger: free + fill + lent + tx = total.
    pub frames: Ledger,
    /// Packets received.
    pub received: u64,
    /// Packets transmitted.
    pub transmitted: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// Where a worker's frames are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// All frames of the worker.
    pub total: u64,
    /// In the worker's pool.
    pub free: u64,
    /// Given to the kernel for reception.
    pub fill: u64,
    /// In the worker's hands.
    pub lent: u64,
    /// Given to the kernel for transmission.
    pub tx: u64,
}
