//! Every setting that has a name: the kernel's `net.ipv4.vs.*` and xvs's own `xvs.*`, with what each takes and does.
//!
//! Invariant: sorted by name, no name twice, every default is a value that its own kind accepts. A setting that is said
//! to act moves a switch of the engine or something of the control side; one that does not says why.
//! Not here: the values in force ([`Settings`](super::Settings)), and how text becomes a value (`value.rs`).

use xvs_engine::switches::{Switch, Switches};

use super::value::Kind;
use crate::config::document::Compat;

/// What stands before the kernel's names.
pub const PREFIX: &str = "net.ipv4.vs.";

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name below [`PREFIX`]; xvs's own begin with `xvs.` and have no other prefix.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its value when nobody has set it: the kernel's.
    default: &'static str,
    /// The same in the profile `sane`, where that has another.
    sane: Option<&'static str>,
    /// Does it do anything here?
    pub applies: Applies,
    /// What it does, or does in the kernel.
    pub effect: &'static str,
}

/// Does a setting do anything here?
#[derive(Debug, Clone, Copy)]
pub enum Applies {
    /// Yes: it is this switch of the engine.
    Switch(fn(&Switches) -> &Switch),
    /// Yes: the control side acts on it.
    Control,
    /// No: it is accepted, stored and shown, and this is why it moves nothing.
    Kept(&'static str),
    /// No, and this is why there is nothing that it could move.
    Absent(&'static str),
}

impl Setting {
    /// Its full name, as sysctl(8) prints it.
    pub fn full_name(&self) -> String {
        if self.name.starts_with("xvs.") { self.name.to_owned() } else { format!("{PREFIX}{}", self.name) }
    }

    /// Its value when nobody has set it.
    pub fn default(&self, profile: Compat) -> &'static str {
        match profile {
            Compat::Sane => self.sane.unwrap_or(self.default),
            Compat::Ipvs => self.default,
        }
    }

    const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        applies: Applies,
        effect: &'static str,
    ) -> Self {
        Setting { name, kind, default, sane: None, applies, effect }
    }

    const fn sane(mut self, value: &'static str) -> Self {
        self.sane = Some(value);
        self
    }
}

/// The setting of this name: `net.ipv4.vs.NAME`, `net/ipv4/vs/NAME`, or `NAME` alone.
pub fn find(name: &str) -> Option<&'static Setting> {
    let dotted = name.replace('/', ".");
    let bare = dotted.strip_prefix(PREFIX).unwrap_or(&dotted);
    TABLE.iter().find(|setting| setting.name == bare)
}

const INT: Kind = Kind::Number { least: i32::MIN as i64, most: i32::MAX as i64 };
const COUNT: Kind = Kind::Number { least: 0, most: i32::MAX as i64 };
const LONG: Kind = Kind::Number { least: 0, most: i64::MAX };
const SWITCH: Kind = Kind::Number { least: 0, most: 1 };
const MODE: Kind = Kind::Number { least: 0, most: 3 };
const FACTOR: Kind = Kind::Number { least: -8, most: 8 };

const NO_SYNC: Applies = Applies::Kept("Connections are not synchronised between directors yet.");
const OWN_TABLE: Applies = Applies::Kept("The tables are xvs's own and have the size of connections.capacity.");

/// All settings.
pub static TABLE: &[Setting] = &[
    Setting::new(
        "am_droprate",
        INT,
        "10",
        Applies::Control,
        "Mode 3 of drop_packet drops one of so many packets that would open a connection; 0 drops none.",
    ),
    Setting::new(
        "amemthresh",
        INT,
        "1024",
        Applies::Control,
        "The defences of mode 1 are active while the connection table has fewer free entries than this; in the kernel it is \
         pages of free memory, which here is reserved at the start.",
    ),
    Setting::new(
        "backup_only",
        SWITCH,
        "0",
        NO_SYNC,
        "1 makes a director that is the backup of another forward nothing of its services itself.",
    ),
    Setting::new(
        "cache_bypass",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.cache_bypass),
        "1 sends packets of a mark service without a usable server on to their own destination, unless that is the director.",
    ),
    Setting::new(
        "conn_lfactor",
        FACTOR,
        "-4",
        OWN_TABLE,
        "How full the table of connections may be before the kernel makes a larger one, as a power of two.",
    ),
    Setting::new(
        "conn_max",
        Kind::Number { least: 0, most: 1 << 30 },
        "1073741824",
        Applies::Kept("The bound is connections.capacity, which is reserved at the start."),
        "Most connections that may exist; new ones beyond it are dropped.",
    ),
    Setting::new(
        "conn_reuse_mode",
        MODE,
        "1",
        Applies::Switch(|switches| &switches.conn_reuse_mode),
        "A SYN from a client's port that an ending connection still has opens a new one: bit 0 after TIME_WAIT and CLOSE, \
         bit 1 also in a FIN_WAIT of which only one direction was seen; 0 keeps the old server.",
    )
    .sane("3"),
    Setting::new(
        "conntrack",
        SWITCH,
        "0",
        Applies::Absent("There is no netfilter on this path, thus no connection tracking to keep in step."),
        "1 keeps netfilter's records of balanced connections.",
    ),
    Setting::new(
        "debug_level",
        COUNT,
        "0",
        Applies::Kept("How much is logged is said by RUST_LOG when the director starts."),
        "How much the kernel logs of its work, if it was built for that.",
    ),
    Setting::new(
        "drop_entry",
        MODE,
        "0",
        Applies::Control,
        "Ends connections before their time that are half open or hardly used: 0 never, 1 when the table is short of free \
         entries (it becomes 2 while so, and 1 again after), 3 always.",
    ),
    Setting::new(
        "drop_packet",
        MODE,
        "0",
        Applies::Control,
        "Drops some of the packets that would open a connection: 0 none, 1 when the table is short of free entries (it \
         becomes 2 while so, and 1 again after), 3 always one of am_droprate.",
    ),
    Setting::new(
        "est_cpulist",
        Kind::Cpus,
        "0",
        Applies::Control,
        "An empty list stops the rates, as run_estimation = 0 does; which CPUs it names moves nothing, since one thread of \
         the control side makes all rates.",
    ),
    Setting::new(
        "est_nice",
        Kind::Number { least: -20, most: 19 },
        "0",
        Applies::Kept("The rates are made by the control side, which has the niceness of the process."),
        "Niceness of the kernel's threads that make the rates.",
    ),
    Setting::new(
        "expire_nodest_conn",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.expire_nodest_conn),
        "1 ends a connection with the first packet after its server was removed, and that packet may open a new one; 0 \
         drops its packets until it times out or the server comes back.",
    )
    .sane("1"),
    Setting::new(
        "expire_quiescent_template",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.expire_quiescent_template),
        "1 lets persistent clients of a server go elsewhere as soon as its weight is 0; 0 keeps them with it for as long as \
         they come.",
    )
    .sane("1"),
    Setting::new(
        "ignore_tunneled",
        SWITCH,
        "0",
        Applies::Absent("A packet in a tunnel is not opened for balancing; it is the kernel's, whatever this says."),
        "1 keeps the packet inside a tunnel that ends at the director from being balanced.",
    ),
    Setting::new(
        "lblc_expiration",
        COUNT,
        "86400",
        Applies::Switch(|switches| &switches.lblc_expiration),
        "Seconds after which lblc forgets the server of an address that nobody asked for.",
    ),
    Setting::new(
        "lblcr_expiration",
        COUNT,
        "86400",
        Applies::Switch(|switches| &switches.lblcr_expiration),
        "Seconds after which lblcr forgets the servers of an address that nobody asked for, and after which it takes one \
         out of a set that has not changed.",
    ),
    Setting::new(
        "nat_icmp_send",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.nat_icmp_send),
        "1 answers a NAT server's packet that belongs to no connection with \"port unreachable\".",
    ),
    Setting::new(
        "pmtu_disc",
        SWITCH,
        "1",
        Applies::Switch(|switches| &switches.pmtu_disc),
        "1 copies \"don't fragment\" to the outer header of a tunnel and tells senders what fits; 0 does neither.",
    ),
    Setting::new(
        "run_estimation",
        SWITCH,
        "1",
        Applies::Control,
        "0 stops the rates, and the counters of listings stay as they are; packets are counted all the same.",
    ),
    Setting::new(
        "schedule_icmp",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.schedule_icmp),
        "1 lets an ICMP error about a packet of no connection open one, by the packet that it quotes.",
    ),
    Setting::new(
        "secure_tcp",
        MODE,
        "0",
        Applies::Control,
        "Believes a client less: a NAT connection counts as established only when its server has answered, too. 0 never, 1 \
         when the table is short of free entries (it becomes 2 while so, and 1 again after), 3 always.",
    ),
    Setting::new(
        "sloppy_sctp",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.sloppy_sctp),
        "1 lets any SCTP packet but an ABORT open a connection, and not only INIT.",
    ),
    Setting::new(
        "sloppy_tcp",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.sloppy_tcp),
        "1 lets any TCP segment but a reset open a connection, and not only SYN.",
    ),
    Setting::new(
        "snat_reroute",
        SWITCH,
        "1",
        Applies::Absent("Replies go by the client's own route from the start, so there is no second look to take."),
        "1 lets the kernel look for a way again after it has translated a NAT server's reply.",
    ),
    Setting::new("svc_lfactor", FACTOR, "-3", OWN_TABLE, "The same as conn_lfactor, for the table of services."),
    Setting::new(
        "sync_persist_mode",
        INT,
        "0",
        NO_SYNC,
        "1 tells the backup of persistence templates only, and not of the connections below them.",
    ),
    Setting::new("sync_ports", Kind::PowerOfTwo { most: 64 }, "1", NO_SYNC, "Ports and threads of synchronisation."),
    Setting::new(
        "sync_qlen_max",
        LONG,
        "16384",
        NO_SYNC,
        "Messages that may wait to be sent to the backup; the kernel's default follows from its memory.",
    ),
    Setting::new(
        "sync_refresh_period",
        COUNT,
        "0",
        NO_SYNC,
        "Seconds by which a connection's life must have changed before the backup is told again.",
    ),
    Setting::new("sync_retries", MODE, "0", NO_SYNC, "How many times more the same is told to the backup."),
    Setting::new("sync_sock_size", COUNT, "0", NO_SYNC, "Bytes of the sockets' buffers; 0 leaves them as they are."),
    Setting::new(
        "sync_threshold",
        Kind::Pair,
        "3\t50",
        NO_SYNC,
        "After how many packets a connection is told to the backup, and again every how many.",
    ),
    Setting::new("sync_version", SWITCH, "1", NO_SYNC, "The format of messages to the backup."),
    Setting::new(
        "xvs.half_open_inactive",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.half_open_inactive),
        "1 does not count a connection as active before its client has finished the handshake, so that a flood of SYNs does \
         not move the least-connection schedulers; 0 counts it, as the kernel does.",
    )
    .sane("1"),
    Setting::new(
        "xvs.mss_clamp",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.mss_clamp),
        "1 lowers the MSS of a client's SYN to what fits the tunnel to its server, which limits what the server sends.",
    ),
    Setting::new(
        "xvs.one_packet_replies",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.one_packet_replies),
        "1 translates the answers to packets that a NAT service schedules one by one, if they come within seconds; 0 drops \
         them, and counts them (the kernel lets them through untranslated).",
    )
    .sane("1"),
    Setting::new(
        "xvs.refuse_nodest",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.refuse_nodest),
        "1 answers a packet of a connection whose server was removed with a reset (TCP) or \"port unreachable\"; 0 drops it in \
         silence, as the kernel does, and counts it.",
    )
    .sane("1"),
    Setting::new(
        "xvs.reset_unknown",
        SWITCH,
        "1",
        Applies::Switch(|switches| &switches.reset_unknown),
        "1 answers a TCP segment that belongs to no connection and opens none with a reset, as the host behind the kernel's \
         IPVS does; 0 drops it in silence, and counts it.",
    ),
    Setting::new(
        "xvs.template_renewal",
        SWITCH,
        "0",
        Applies::Switch(|switches| &switches.template_renewal),
        "1 renews a client's template with the service's persistence at each new connection; 0 does so, too, but gives one \
         that had expired with connections a minute at a time for good, as the kernel does.",
    )
    .sane("1"),
];
