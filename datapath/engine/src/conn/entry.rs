//! One entry of the connection table: what stands in its cache line, and how it is read and changed.
//!
//! IPv4 takes one line, IPv6 two. All words are atomics; the *control* word says whether the entry lives, in which
//! generation, and holds state and flags, so that every change is one compare-and-swap that fails if the entry was
//! given to another connection meanwhile.
//!
//! Invariant: the key words (addresses, ports, real server) do not change while a generation lives. A reader checks the
//! generation after it has read them ([`Conn::is_current`]); the real server's number is read once and kept, because
//! counts are settled by it when the entry is free again and perhaps another connection's.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::lines::WORDS;
use crate::real::{Method, Path, RealId};
use crate::time::Now;

use super::table::{ConnId, NewConn};
use super::{Side, tcp};

/// The entry is in use.
const LIVE: u64 = 1 << 31;
const STATE_SHIFT: u32 = 0;
const FLAGS_SHIFT: u32 = 8;
const GENERATION_SHIFT: u32 = 32;

/// Flags of a connection; the numbers are IPVS's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// No packet from the real server was seen, or can be.
    pub const NO_OUTPUT: u16 = 0x0080;
    /// Does not count as active.
    pub const INACTIVE: u16 = 0x0100;

    /// Flags of a new connection by this method.
    pub fn new(method: Method) -> Self {
        let one_way = if method == Method::Nat { 0 } else { Self::NO_OUTPUT };
        Flags(method as u16 | Self::INACTIVE | one_way)
    }

    /// Is this flag set?
    #[inline]
    pub const fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    /// With this flag set or cleared.
    #[inline]
    pub const fn with(self, flag: u16, set: bool) -> Self {
        Flags(if set { self.0 | flag } else { self.0 & !flag })
    }

    /// The forwarding method that the connection was made with.
    #[inline]
    pub fn method(self) -> Method {
        Method::from_bits(self.0 as u8).unwrap_or(Method::Dr)
    }
}

/// State and flags of a connection at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The protocol's state number; 0 where it has only one.
    pub state: u8,
    /// Flags.
    pub flags: Flags,
}

/// Words behind the key, for both families.
mod tail {
    pub(super) const CONTROL: usize = 0;
    pub(super) const TIME: usize = 1; // last seen (ms) << 24 | timeout (s)
    pub(super) const REPLY: usize = 2; // service << 32 | path of the answers
    pub(super) const FREE: usize = 3; // next free entry
}

/// Bits of the time word that hold the timeout in seconds.
const TIMEOUT_BITS: u32 = 24;
const TIMEOUT_MASK: u64 = (1 << TIMEOUT_BITS) - 1;
/// Words of the key: addresses, ports and real server.
const KEY4: usize = 3;
/// The same for IPv6, which fill a line.
const KEY6: usize = WORDS;

/// An entry, as found in a generation.
#[derive(Clone, Copy, Debug)]
pub struct Conn<'t> {
    id: ConnId,
    family: Family,
    real: RealId,
    words: &'t [AtomicU64],
    control: u64,
}

impl<'t> Conn<'t> {
    /// The entry as it is now, alive or not.
    #[inline]
    pub(super) fn load(id: ConnId, words: &'t [AtomicU64]) -> Self {
        let family = if words.len() == WORDS { Family::Inet } else { Family::Inet6 };
        let mut conn = Conn { id, family, real: RealId(0), words, control: 0 };
        conn.control = conn.tail(tail::CONTROL).load(Acquire);
        conn.real = RealId(conn.word(if family == Family::Inet { 2 } else { 7 }) as u32);
        conn
    }

    /// Does the connection still live? If so, whatever was read of it before belongs together.
    #[inline]
    pub fn is_current(&self) -> bool {
        fence(Acquire);
        let now = self.tail(tail::CONTROL).load(Relaxed);
        self.is_live() && now >> GENERATION_SHIFT == self.control >> GENERATION_SHIFT && now & LIVE != 0
    }

    #[inline]
    fn tail(&self, word: usize) -> &'t AtomicU64 {
        &self.words[word + if self.family == Family::Inet { KEY4 } else { KEY6 }]
    }

    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.words[index].load(Relaxed)
    }

    /// Its number.
    #[inline]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Its family (of CIP and VIP).
    #[inline]
    pub fn family(&self) -> Family {
        self.family
    }

    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.control & LIVE != 0
    }

    /// Does a packet of this flow belong here, and which way does it go?
    #[inline]
    pub(super) fn side_of(&self, flow: &Flow) -> Option<Side> {
        self.matches(flow).filter(|_| self.is_current())
    }

    #[inline]
    fn matches(&self, flow: &Flow) -> Option<Side> {
        let flags = Flags((self.control >> FLAGS_SHIFT) as u16);
        let ports = self.word(if self.family == Family::Inet { 1 } else { 6 });
        let as_inbound =
            u64::from(flow.src.port) << 48 | u64::from(flow.dst.port) << 32 | u64::from(flow.protocol.0) << 8;
        if ports & 0xffff_ffff_0000_ff00 == as_inbound && self.is_from_client(flow) {
            return Some(if flags.has(Flags::NO_OUTPUT) { Side::InOnly } else { Side::In });
        }
        let as_outbound =
            u64::from(flow.dst.port) << 48 | u64::from(flow.src.port) << 16 | u64::from(flow.protocol.0) << 8;
        let reply = flags.method() == Method::Nat
            && ports & 0xffff_0000_ffff_ff00 == as_outbound
            && self.server_address() == flow.src.address
            && self.client_address() == flow.dst.address;
        reply.then_some(Side::Out)
    }

    #[inline]
    fn is_from_client(&self, flow: &Flow) -> bool {
        match self.family {
            Family::Inet => {
                self.word(0) == u64::from(flow.src.address.low32()) << 32 | u64::from(flow.dst.address.low32())
            }
            Family::Inet6 => self.address6(0) == flow.src.address && self.address6(2) == flow.dst.address,
        }
    }

    #[inline]
    fn address6(&self, index: usize) -> Address {
        Address::from_bits(u128::from(self.word(index)) << 64 | u128::from(self.word(index + 1)))
    }

    #[inline]
    fn client_address(&self) -> Address {
        match self.family {
            Family::Inet => Address::v4(((self.word(0) >> 32) as u32).to_be_bytes()),
            Family::Inet6 => self.address6(0),
        }
    }

    #[inline]
    fn server_address(&self) -> Address {
        match self.family {
            Family::Inet => Address::v4(((self.word(2) >> 32) as u32).to_be_bytes()),
            Family::Inet6 => self.address6(4),
        }
    }

    #[inline]
    fn ports(&self) -> (u16, u16, u16, Protocol) {
        let word = self.word(if self.family == Family::Inet { 1 } else { 6 });
        ((word >> 48) as u16, (word >> 32) as u16, (word >> 16) as u16, Protocol((word >> 8) as u8))
    }

    /// CIP and port.
    #[inline]
    pub fn client(&self) -> Endpoint {
        Endpoint::new(self.client_address(), self.ports().0)
    }

    /// VIP and port.
    #[inline]
    pub fn virtual_endpoint(&self) -> Endpoint {
        let address = match self.family {
            Family::Inet => Address::v4((self.word(0) as u32).to_be_bytes()),
            Family::Inet6 => self.address6(2),
        };
        Endpoint::new(address, self.ports().1)
    }

    /// RIP (only for NAT: tunnels may lead to the other family) and the port there.
    #[inline]
    pub fn server(&self) -> Endpoint {
        Endpoint::new(self.server_address(), self.ports().2)
    }

    /// IP protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.ports().3
    }

    /// The flow of the client's packets.
    pub fn flow(&self) -> Flow {
        Flow { protocol: self.protocol(), src: self.client(), dst: self.virtual_endpoint() }
    }

    /// The flow of the server's answers, where they come by here.
    pub(super) fn reply_flow(&self) -> Option<Flow> {
        let flags = Flags((self.control >> FLAGS_SHIFT) as u16);
        (flags.method() == Method::Nat).then(|| Flow {
            protocol: self.protocol(),
            src: self.server(),
            dst: self.client(),
        })
    }

    /// The real server.
    #[inline]
    pub fn real(&self) -> RealId {
        self.real
    }

    /// State and flags when the entry was read, or last changed by this reader.
    #[inline]
    pub fn status(&self) -> Status {
        Status { state: (self.control >> STATE_SHIFT) as u8, flags: Flags((self.control >> FLAGS_SHIFT) as u16) }
    }

    /// Changes state and flags. Gives them from before and after; `None` if the connection has ended meanwhile.
    #[inline]
    pub fn update(&mut self, change: impl Fn(Status) -> Status) -> Option<(Status, Status)> {
        loop {
            let before = self.status();
            let after = change(before);
            if before == after {
                return Some((before, after));
            }
            let control =
                self.control & !0x00ff_ffff | u64::from(after.flags.0) << FLAGS_SHIFT | u64::from(after.state);
            match self.tail(tail::CONTROL).compare_exchange(self.control, control, Relaxed, Relaxed) {
                Ok(_) => {
                    self.control = control;
                    return Some((before, after));
                }
                Err(now) if now >> GENERATION_SHIFT == self.control >> GENERATION_SHIFT && now & LIVE != 0 => {
                    self.control = now;
                }
                Err(_) => return None,
            }
        }
    }

    /// A packet came by: the timer starts again, with this timeout. Writes at most once a second, or sixteen times in
    /// a shorter timeout.
    #[inline]
    pub fn touch(&self, now: Now, timeout_s: u32) {
        let word = self.tail(tail::TIME);
        let old = word.load(Relaxed);
        let timeout = u64::from(timeout_s).min(TIMEOUT_MASK);
        let grain = 1000.min(timeout * 1000 / 16);
        if old & TIMEOUT_MASK != timeout || now.millis().saturating_sub(old >> TIMEOUT_BITS) >= grain {
            word.store(now.millis() << TIMEOUT_BITS | timeout, Relaxed);
        }
    }

    /// Milliseconds until it expires; 0 if it has.
    #[inline]
    pub fn expires_in(&self, now: Now) -> u64 {
        let word = self.tail(tail::TIME).load(Relaxed);
        let end = (word >> TIMEOUT_BITS) + (word & TIMEOUT_MASK) * 1000;
        end.saturating_sub(now.millis())
    }

    /// When the last packet came by, to the second.
    pub fn last_seen(&self) -> Now {
        Now::from_millis(self.tail(tail::TIME).load(Relaxed) >> TIMEOUT_BITS)
    }

    /// The way of the answers to the client.
    #[inline]
    pub fn reply_path(&self) -> Path {
        Path::from_bits(self.tail(tail::REPLY).load(Relaxed) as u32)
    }

    /// Sets the way of the answers, unless the connection has ended: the entry may be another one's by now.
    pub fn set_reply_path(&self, path: Path) {
        let word = self.tail(tail::REPLY);
        let old = word.load(Relaxed);
        if self.is_current() {
            let new = old & !0xffff_ffff | u64::from(path.bits());
            let _ = word.compare_exchange(old, new, Relaxed, Relaxed);
        }
    }

    /// The number of the service that scheduled it.
    #[inline]
    pub fn service(&self) -> u32 {
        (self.tail(tail::REPLY).load(Relaxed) >> 32) as u32
    }

    /// Has the client of a TCP connection not yet finished the handshake?
    pub(super) fn is_half_open(&self) -> bool {
        self.protocol() == Protocol::TCP && tcp::State::from_bits(self.status().state).is_half_open()
    }

    /// Ends the connection; `false` if somebody else did, or it was another generation.
    pub(super) fn end(&mut self) -> bool {
        loop {
            let dead = (self.control >> GENERATION_SHIFT).wrapping_add(1) << GENERATION_SHIFT;
            match self.tail(tail::CONTROL).compare_exchange(self.control, dead, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) if now >> GENERATION_SHIFT == self.control >> GENERATION_SHIFT && now & LIVE != 0 => {
                    self.control = now;
                }
                Err(_) => return false,
            }
        }
    }

    /// Writes a new connection into a dead entry. The entry must be the caller's alone; nobody sees the connection
    /// before it is brought to [`life`](Conn::publish).
    pub(super) fn prepare(mut self, new: &NewConn, now: Now) -> Self {
        let (client, vip, server) = (new.flow.src, new.flow.dst, new.server);
        let ports = u64::from(client.port) << 48
            | u64::from(vip.port) << 32
            | u64::from(server.port) << 16
            | u64::from(new.flow.protocol.0) << 8;
        // The words below must not be seen by a reader that still believes in the generation before.
        fence(Release);
        let store = |index: usize, value: u64| self.words[index].store(value, Relaxed);
        match self.family {
            Family::Inet => {
                store(0, u64::from(client.address.low32()) << 32 | u64::from(vip.address.low32()));
                store(1, ports);
                store(2, u64::from(server.address.low32()) << 32 | u64::from(new.real.0));
            }
            Family::Inet6 => {
                for (index, address) in [(0, client.address), (2, vip.address), (4, server.address)] {
                    store(index, (address.bits() >> 64) as u64);
                    store(index + 1, address.bits() as u64);
                }
                store(6, ports);
                store(7, new.real.0.into());
            }
        }
        self.tail(tail::TIME).store(now.millis() << TIMEOUT_BITS | u64::from(new.timeout_s).min(TIMEOUT_MASK), Relaxed);
        self.tail(tail::REPLY).store(u64::from(new.service) << 32 | u64::from(new.reply_path.bits()), Relaxed);
        self.real = new.real;
        self.control = self.control >> GENERATION_SHIFT << GENERATION_SHIFT
            | LIVE
            | u64::from(new.status.flags.0) << FLAGS_SHIFT
            | u64::from(new.status.state);
        self
    }

    /// Brings a prepared connection to life.
    pub(super) fn publish(&self) {
        self.tail(tail::CONTROL).store(self.control, Release);
    }

    /// The entry behind this one in the list of free ones.
    pub(super) fn next_free(&self) -> &'t AtomicU64 {
        self.tail(tail::FREE)
    }
}
