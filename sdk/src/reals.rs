//! Whom a scheduler chooses from.

/// The real servers of one service, in the director's order: **the most recently added first**.
///
/// An index is valid until the next [`reals_changed`](crate::Scheduler::reals_changed).
pub trait Reals {
    /// How many there are.
    fn len(&self) -> usize;

    /// None at all?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Weight; 0 means quiesced: existing connections stay, new ones must go elsewhere.
    fn weight(&self, index: usize) -> i32;

    /// Connections in an active state.
    fn active(&self, index: usize) -> u32;

    /// All connections, active and inactive.
    fn total(&self, index: usize) -> u32;

    /// At its upper connection threshold: it must get no new connection.
    fn is_overloaded(&self, index: usize) -> bool;

    /// Connections in an inactive state.
    fn inactive(&self, index: usize) -> u32 {
        self.total(index).saturating_sub(self.active(index))
    }

    /// May it get a new connection? (Not overloaded, and its weight is above 0.)
    fn is_usable(&self, index: usize) -> bool {
        !self.is_overloaded(index) && self.weight(index) > 0
    }

    /// The last weight that was not 0, or the weight that the server was added with: what [`weight`](Reals::weight) was
    /// before the server was quiesced. The default knows no past.
    fn last_weight(&self, index: usize) -> i32 {
        self.weight(index)
    }

    /// How well it is. The default goes by weight and threshold.
    fn health(&self, index: usize) -> Health {
        if self.weight(index) <= 0 {
            Health::Quiesced
        } else if self.is_overloaded(index) {
            Health::Overloaded
        } else {
            Health::Well
        }
    }

    /// A number that names the server by address and port: the same in every director, and again when it comes back,
    /// whatever its index. Good for hashing.
    fn id(&self, index: usize) -> u64 {
        let (address, port) = self.address(index);
        identity(&address, port)
    }

    /// RIP and port, as in [`Request`](crate::Request). Together they name a server within its service for as long as it
    /// is there, and again when it comes back, whatever its index. The director always tells; the default is for tests
    /// that do not care. (A plugin gets it as a fact: see [`Needs::FACTS`](crate::Needs::FACTS).)
    fn address(&self, index: usize) -> ([u8; 16], u16) {
        let _ = index;
        ([0; 16], 0)
    }

    /// What is known of it besides. A plugin gets it if it says that it needs it; built-in schedulers do not.
    fn facts(&self, index: usize) -> Facts<'_> {
        let _ = index;
        Facts::default()
    }

    /// Both numbers of connections: the [active](Reals::active) ones in the upper half, [all](Reals::total) in the lower.
    fn counts(&self, index: usize) -> u64 {
        u64::from(self.active(index)) << 32 | u64::from(self.total(index))
    }

    /// The weight as far as it counts: 0 or less if the server must get no new connection.
    fn open_weight(&self, index: usize) -> i64 {
        if self.is_overloaded(index) {
            0
        } else {
            i64::from(self.weight(index))
        }
    }

    /// Load as LVS's least-connection schedulers weigh it: an active connection counts 256 times an inactive one, and
    /// once more as a connection. Kernels before 2026 left out the "once more"; the director can be set to either.
    fn overhead(&self, index: usize) -> u64 {
        self.surplus() * u64::from(self.active(index)) + u64::from(self.total(index))
    }

    /// How often an active connection counts in [`overhead`](Reals::overhead), besides being a connection.
    fn surplus(&self) -> u64 {
        256
    }
}

/// How well a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Well,
    /// At its upper connection threshold.
    Overloaded,
    /// Its weight is 0: an operator or a health checker wants no new connections there.
    Quiesced,
}

/// What changes seldom of a server. Rates are those of `ipvsadm --rate`: sampled every 2 seconds, smoothed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
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
    /// Tags of the configuration: `zone=a,rack=7`.
    pub tags: &'a [u8],
}

impl<'a> Facts<'a> {
    /// The value of a tag, if the server has it.
    pub fn tag(&self, name: &str) -> Option<&'a [u8]> {
        self.tags.split(|&byte| byte == b',').find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        })
    }
}

/// [`Reals::id`] of an address and port: FNV-1a, with a last mixing step, so that its bits are good for hashing.
pub fn identity(address: &[u8; 16], port: u16) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for &byte in address.iter().chain(&port.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}
