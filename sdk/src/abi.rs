//! ABI v1: the memory that director and plugin share. Frozen; `ABI.md` beside this crate tells it for any language.
//!
//! All numbers are little-endian. The plugin owns the buffers (statics in its memory) and tells their addresses once;
//! the director writes into them and calls. Nothing is allocated, and nothing is passed by value but 32-bit numbers.
//!
//! Invariant: size and place of every field are asserted below. What grows, grows at the end of [`Row`] and [`Facts`],
//! whose sizes the plugin states itself. Not here: what calls what (`guest`), and what the director checks.

use core::mem::size_of;

/// Version that `xvs_abi_version` must return.
pub const VERSION: i32 = 1;
/// First word of a table: `XVS1` in the order of memory.
pub const MAGIC: u32 = u32::from_le_bytes(*b"XVS1");

/// `xvs_schedule`: no server shall have it. Only a plugin with [`NEEDS_DENY`] may say so while a server is usable.
pub const NOBODY: i32 = -1;
/// `xvs_schedule`: the director's native scheduler shall choose.
pub const FALLBACK: i32 = -2;

/// `xvs_needs`: it reads the numbers of connections.
pub const NEEDS_COUNTS: u32 = 1;
/// `xvs_needs`: it reads [`Facts`].
pub const NEEDS_FACTS: u32 = 2;
/// `xvs_needs`: a change of the list is dear: make a new instance and have it learn the list anew, off the workers.
pub const NEEDS_REBUILD: u32 = 4;
/// `xvs_needs`: it may answer [`NOBODY`] although a server is usable, as `sh` does.
pub const NEEDS_DENY: u32 = 8;
/// What is assumed of a plugin that does not export `xvs_needs`.
pub const NEEDS_DEFAULT: u32 = NEEDS_COUNTS | NEEDS_FACTS;

/// [`Row::flags`]: it may get new connections.
pub const ROW_USABLE: u32 = 1;
/// [`Row::flags`]: at its upper connection threshold.
pub const ROW_OVERLOADED: u32 = 2;
/// [`Row::flags`]: its weight is 0.
pub const ROW_QUIESCED: u32 = 4;

/// `xvs_changed`: the list is new altogether.
pub const CHANGED_ALL: i32 = 0;
/// `xvs_changed`: a server was inserted at the index.
pub const CHANGED_ADDED: i32 = 1;
/// `xvs_changed`: the server at the index is gone.
pub const CHANGED_REMOVED: i32 = 2;
/// `xvs_changed`: weight, thresholds, method or tags of the server at the index were set.
pub const CHANGED_EDITED: i32 = 3;
/// `xvs_changed` returns this when it took the change in.
pub const CHANGED_DONE: i32 = 0;
/// `xvs_changed` returns this when it wants a new instance instead.
pub const CHANGED_REBUILD: i32 = 1;

/// Most bytes of options, and of a saved state.
pub const TEXT_MAX: usize = 4096;
/// Most bytes of a server's tags.
pub const TAGS_MAX: usize = 112;

/// Head of the table; the rows follow it. The plugin fills `magic`, `abi`, `capacity` and `row_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableHead {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub abi: u32,
    /// Changes whenever the list of servers does. Written by the director.
    pub generation: u32,
    /// Rows in use. Written by the director.
    pub count: u32,
    /// Rows that there is room for.
    pub capacity: u32,
    /// Bytes from one row to the next: 32 or more, a multiple of 8. The director fills as much of it as it knows.
    pub row_size: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

/// What changes often of a server. The newest server stands first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Weight; 0 is quiesced.
    pub weight: i32,
    /// Connections in an active state. Inactive ones are `total - active`.
    pub active: u32,
    /// All connections.
    pub total: u32,
    /// [`ROW_USABLE`] and its kin.
    pub flags: u32,
    /// The last weight that was not 0, or the one that it was added with.
    pub last_weight: i32,
    /// Health in percent: 100 as far as is known, 0 when it takes nothing new.
    pub health: u32,
    /// Names the server by address and port, the same in every director and after it comes back.
    pub id: u64,
}

/// Head of the facts; `capacity` of them follow, in the order of the rows. The plugin fills it all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactsHead {
    /// [`MAGIC`].
    pub magic: u32,
    /// There is room for so many; at least the table's capacity.
    pub capacity: u32,
    /// Bytes from one to the next: 192 or more, a multiple of 8.
    pub facts_size: u32,
    /// Zero.
    pub reserved: u32,
}

/// What changes seldom of a server, or is dear to know. Rates are those of `ipvsadm --rate`: sampled every 2 seconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// RIP, in network order; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Its port; 0 keeps the client's.
    pub port: u16,
    /// IP version, 4 or 6.
    pub family: u8,
    /// Forwarding method: 0 NAT, 2 TUN, 3 DR.
    pub method: u8,
    /// Upper connection threshold, 0 for none.
    pub upper: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    pub lower: u32,
    /// New connections a second.
    pub conns_per_s: u32,
    /// Packets a second to the server.
    pub packets_in: u64,
    /// Packets a second from the server, where its answers pass the director.
    pub packets_out: u64,
    /// Bytes a second to the server.
    pub bytes_in: u64,
    /// Bytes a second from the server, where its answers pass the director.
    pub bytes_out: u64,
    /// A number that an operator's script feeds (`xvs scheduler metric`), 0 before it does.
    pub metric: i64,
    /// Bytes of `tags` in use.
    pub tags_len: u32,
    /// Zero.
    pub reserved: u32,
    /// Tags of the configuration: `zone=a,rack=7`, in the order of their names.
    pub tags: [u8; TAGS_MAX],
}

impl Facts {
    /// Nothing known.
    pub const NONE: Facts = Facts {
        address: [0; 16],
        port: 0,
        family: 0,
        method: 0,
        upper: 0,
        lower: 0,
        conns_per_s: 0,
        packets_in: 0,
        packets_out: 0,
        bytes_in: 0,
        bytes_out: 0,
        metric: 0,
        tags_len: 0,
        reserved: 0,
        tags: [0; TAGS_MAX],
    };
}

/// The new connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// CIP, in network order; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// VIP, as the CIP.
    pub virtual_address: [u8; 16],
    /// A hash of the flow, keyed by the director.
    pub hash: u64,
    /// Number of the service within this director.
    pub service: u32,
    /// Firewall mark of the service, 0 for one with an address.
    pub mark: u32,
    /// The client's port.
    pub client_port: u16,
    /// The port that it asked for.
    pub virtual_port: u16,
    /// IP protocol: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Scheduler flags of the service: bit 0 `flag-1`, bit 1 `flag-2`, bit 2 `flag-3`.
    pub flags: u8,
    /// IP version, 4 or 6.
    pub family: u8,
    /// Zero.
    pub reserved: u8,
    /// Interface on which it came, counted from 0 in the configuration's order.
    pub interface: u32,
    /// Queue on which it came: the number of the worker.
    pub queue: u32,
}

/// Head of the buffers for options and for a saved state; `capacity` bytes follow. The plugin fills `capacity`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextHead {
    /// There is room for so many bytes; at most [`TEXT_MAX`] are used.
    pub capacity: u32,
    /// Bytes in use.
    pub len: u32,
}

/// Asserts the size of a structure, and that fields stand where they must: a value that is zero but for one field has
/// that field's lowest byte there. (`offset_of!` is younger than the oldest compiler.)
macro_rules! layout {
    ($type:ident, $size:literal, $zero:expr, $($field:ident: $value:expr => $offset:literal),+) => {
        const _: () = assert!(size_of::<$type>() == $size);
        $(#[cfg(target_endian = "little")]
        #[allow(unsafe_code)]
        const _: () = {
            // SAFETY: the structure has no padding (its size is the sum of its fields') and any bytes are valid bytes.
            let bytes: [u8; $size] = unsafe { core::mem::transmute($type { $field: $value, ..$zero }) };
            let mut at = 0;
            while at < $size {
                assert!((bytes[at] == 1) == (at == $offset));
                at += 1;
            }
        };)+
    };
}

pub(crate) const NO_HEAD: TableHead =
    TableHead { magic: 0, abi: 0, generation: 0, count: 0, capacity: 0, row_size: 0, reserved: [0; 2] };
layout!(TableHead, 32, NO_HEAD, magic: 1 => 0, abi: 1 => 4, generation: 1 => 8, count: 1 => 12, capacity: 1 => 16,
    row_size: 1 => 20, reserved: [1, 0] => 24);
pub(crate) const NO_ROW: Row = Row { weight: 0, active: 0, total: 0, flags: 0, last_weight: 0, health: 0, id: 0 };
layout!(Row, 32, NO_ROW, weight: 1 => 0, active: 1 => 4, total: 1 => 8, flags: 1 => 12, last_weight: 1 => 16,
    health: 1 => 20, id: 1 => 24);
pub(crate) const NO_FACTS_HEAD: FactsHead = FactsHead { magic: 0, capacity: 0, facts_size: 0, reserved: 0 };
layout!(FactsHead, 16, NO_FACTS_HEAD, magic: 1 => 0, capacity: 1 => 4, facts_size: 1 => 8, reserved: 1 => 12);
layout!(Facts, 192, Facts::NONE, port: 1 => 16, family: 1 => 18, method: 1 => 19, upper: 1 => 20, lower: 1 => 24,
    conns_per_s: 1 => 28, packets_in: 1 => 32, packets_out: 1 => 40, bytes_in: 1 => 48, bytes_out: 1 => 56,
    metric: 1 => 64, tags_len: 1 => 72, reserved: 1 => 76);
pub(crate) const NO_FLOW: Flow = Flow {
    client: [0; 16],
    virtual_address: [0; 16],
    hash: 0,
    service: 0,
    mark: 0,
    client_port: 0,
    virtual_port: 0,
    protocol: 0,
    flags: 0,
    family: 0,
    reserved: 0,
    interface: 0,
    queue: 0,
};
layout!(Flow, 64, NO_FLOW, hash: 1 => 32, service: 1 => 40, mark: 1 => 44, client_port: 1 => 48,
    virtual_port: 1 => 50, protocol: 1 => 52, flags: 1 => 53, family: 1 => 54, reserved: 1 => 55, interface: 1 => 56,
    queue: 1 => 60);
layout!(TextHead, 8, TextHead { capacity: 0, len: 0 }, capacity: 1 => 0, len: 1 => 4);
