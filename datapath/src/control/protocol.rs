//! What a person's command becomes on its way to the director, and what comes back.
//!
//! One JSON object a line over a Unix socket (mode 0600): a [`Request`] up, a [`Response`] down, in lock step. The
//! version stands in both, so that an old tool and a new director refuse each other in words and not by accident.
//!
//! Invariant: these are plain values. They may be wrong (a weight out of range, a service twice); the controller
//! validates them and answers with an [`Answer`] or a [`Refusal`]. Nothing here touches a socket or the engine.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Version of the control protocol. It changes when an old tool would misread a new director, or the reverse.
pub const VERSION: u32 = 1;

/// One line from a tool to the director.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub v: u32,
    /// What to do.
    pub action: Action,
}

/// One line from the director to a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`] of the director.
    pub v: u32,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Done, or refused with nothing changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Carried out.
    Ok(Answer),
    /// Refused; the director is as it was.
    Refused(Refusal),
}

/// Transport protocol of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

/// IP version, where an address does not already tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// The key of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceId {
    /// Protocol and VIP:port; port 0 stands for every port of the VIP.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// VIP and port.
        address: SocketAddr,
    },
    /// Firewall mark.
    Mark {
        /// The mark, never 0.
        mark: u32,
        /// The IP version that it counts for.
        family: Family,
    },
}

impl ServiceId {
    /// The IP version of the service.
    pub fn family(&self) -> Family {
        match self {
            ServiceId::Address { address, .. } if address.is_ipv4() => Family::Inet,
            ServiceId::Address { .. } => Family::Inet6,
            ServiceId::Mark { family, .. } => *family,
        }
    }
}

/// Persistence of a virtual service (`-p`, `-M`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// Life of a template after its last new connection, in seconds.
    pub timeout_s: u32,
    /// Prefix length that is applied to the client's address: 0..=32 (IPv4), 1..=128 (IPv6).
    pub prefix: u8,
}

/// A virtual service as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its key.
    pub id: ServiceId,
    /// Name of the scheduler (`-s`).
    pub scheduler: String,
    /// Scheduler flags (`-b`): any of `flag-1`, `flag-2`, `flag-3` (the generic names; the tools translate).
    #[serde(default)]
    pub flags: SchedFlags,
    /// Persistence (`-p`, `-M`), if any.
    #[serde(default)]
    pub persistence: Option<Persistence>,
    /// Persistence engine (`--pe`).
    #[serde(default)]
    pub engine: Option<String>,
    /// One-packet scheduling (`-o`).
    #[serde(default)]
    pub one_packet: bool,
}

/// The three flags that a scheduler may read (`-b`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedFlags {
    /// `flag-1`; `sh-fallback`, `mh-fallback`.
    #[serde(default)]
    pub one: bool,
    /// `flag-2`; `sh-port`, `mh-port`.
    #[serde(default)]
    pub two: bool,
    /// `flag-3`.
    #[serde(default)]
    pub three: bool,
}

/// How the outer UDP or GRE checksum of a tunnel is filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// `--tun-nocsum`
    #[default]
    None,
    /// `--tun-csum`
    Full,
    /// `--tun-remcsum`
    Remote,
}

/// Encapsulation of a TUN real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// Destination port, not 0.
        port: u16,
        /// Outer checksum.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// Outer checksum: `None` or `Full`.
        checksum: TunnelChecksum,
    },
}

/// Forwarding method of a real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Masquerading (`-m`).
    Nat,
    /// Gatewaying (`-g`), ipvsadm's default.
    #[default]
    Dr,
    /// Tunnelling (`-i`).
    Tun(Tunnel),
}

/// A real server as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// RIP and port. Port 0 keeps the client's port (mark and port-0 services).
    pub address: SocketAddr,
    /// Forwarding method.
    #[serde(default)]
    pub method: Method,
    /// Weight; 0 quiesces.
    pub weight: i64,
    /// Upper connection threshold, 0 for none.
    #[serde(default)]
    pub upper: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    #[serde(default)]
    pub lower: u32,
}

/// Timeouts of `--set`, in seconds; 0 keeps what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// TCP, established.
    pub tcp: u32,
    /// TCP, FIN_WAIT.
    pub tcpfin: u32,
    /// UDP.
    pub udp: u32,
}

/// Everything a tool may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `-A`
    AddService(ServiceSpec),
    /// `-E`: replaces all but the key.
    EditService(ServiceSpec),
    /// `-D`
    DeleteService(ServiceId),
    /// `-C`
    Flush,
    /// `-a`
    AddServer {
        /// The service that it serves.
        service: ServiceId,
        /// The server.
        server: ServerSpec,
    },
    /// `-e`: replaces all but the key.
    EditServer {
        /// The service that it serves.
        service: ServiceId,
        /// The server.
        server: ServerSpec,
    },
    /// `-d`
    DeleteServer {
        /// The service that it serves.
        service: ServiceId,
        /// RIP and port.
        address: SocketAddr,
    },
    /// `-Z`: one service, or everything.
    Zero(Option<ServiceId>),
    /// `--set`
    SetTimeouts(Timeouts),
    /// `-L`: one service, or all. Answered by [`Answer::Services`].
    Services(Option<ServiceId>),
    /// `-L -c`. Answered by [`Answer::Connections`].
    Connections,
    /// `-L --timeout`. Answered by [`Answer::Timeouts`].
    Timeouts,
    /// `xvs status`. Answered by [`Answer::Status`].
    Status,
    /// `xvs drops`. Answered by [`Answer::Drops`].
    Drops,
    /// `xvs explain`. Answered by [`Answer::Text`].
    Explain {
        /// Transport protocol.
        protocol: Protocol,
        /// CIP:port.
        client: SocketAddr,
        /// VIP:port.
        virtual_address: SocketAddr,
    },
    /// `xvs apply`: the text of a configuration file. Answered by [`Answer::Plan`].
    Apply {
        /// The file's text (TOML).
        document: String,
        /// Say what would change, change nothing.
        dry_run: bool,
    },
}

/// What the director says when it did as asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The rules and their counters.
    Services(Services),
    /// The connection table.
    Connections(Vec<Connection>),
    /// The timeouts in force.
    Timeouts(Timeouts),
    /// The state of the director.
    Status(Box<Status>),
    /// Drops by reason.
    Drops(Vec<Drop>),
    /// Sentences for a person.
    Text(String),
    /// What a configuration changed, one sentence a change; empty when nothing did.
    Plan(Vec<String>),
}

/// Why the director did not do as asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind, for tools.
    pub kind: RefusalKind,
    /// One sentence for a person: what is wrong, where, and what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind with this sentence.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Refusal { kind, message: message.into() }
    }
}

/// Kinds of refusal; the comments name the kernel's error that a LVS tool would have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// EEXIST on adding a service.
    ServiceExists,
    /// ESRCH on editing, deleting, zeroing or listing a service.
    NoSuchService,
    /// ESRCH on adding, editing or deleting a server.
    ServiceNotDefined,
    /// EEXIST on adding a server.
    ServerExists,
    /// ENOENT on editing or deleting a server.
    NoSuchServer,
    /// ENOENT on adding or editing a service: no such scheduler or persistence engine.
    NoSuchScheduler,
    /// EINVAL.
    Invalid,
    /// ERANGE.
    OutOfRange,
    /// A fixed limit of the director is reached.
    Limit,
    /// Valid, and not available in this director.
    Unsupported,
    /// The configuration document is wrong; the message lists every problem, one a line.
    Document,
    /// The speaker's protocol version is another.
    Version,
    /// The line was not a request.
    Malformed,
}

/// The rules and their counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Size of the connection table in entries (ipvsadm's `size=`).
    pub size: u64,
    /// Virtual services.
    pub services: Vec<Service>,
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

/// The default path of the control socket.
pub const SOCKET: &str = "/run/xvs/xvs.sock";

/// The environment variable that names another one.
pub const SOCKET_ENV: &str = "XVS_SOCKET";

/// An address with its port, for sentences: `192.0.2.1:80`, `[2001:db8::1]:80`.
pub fn display(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}
