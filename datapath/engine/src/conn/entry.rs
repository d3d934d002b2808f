//! One entry of the connection table: what stands in its cache line, and how it is read and changed.
//!
//! IPv4 takes one line, IPv6 two. All words are atomics; the *control* word says whether the entry lives, in which
//! generation, and holds state and flags, so that every change is one compare-and-swap that fails if the entry was
//! given to another connection meanwhile.
//!
//! An entry is a connection, or a *template* of persistence: where connections of a client (or of a network of them)
//! go. Connections that a template led are its children; it does not end before they have ([`super::kinship`]).
//!
//! Invariant: the key words (addresses, ports, real server) do not change while a generation lives. A reader checks the
//! generation after it has read them ([`Conn::is_current`]); the real server's number is read once and kept, because
//! counts are settled by it when the entry is free again and perhaps another connection's.

pub(super) mod birth;
mod flags;

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, fence};

pub use self::flags::{Flags, Status};

use crate::flow::{Address, Endpoint, Family, Flow, Protocol};
use crate::lines::WORDS;
use crate::real::{Method, Path, RealId};

use super::table::ConnId;
use super::{Side, state};

/// The entry is in use.
pub(super) const LIVE: u64 = 1 << 31;
/// Its answers' key is still to be entered, by the worker that made it.
pub(super) const OWED: u64 = 1 << 30;
/// It was ended while it owed, and who ended it still reads it. It is given back by the last of the two.
pub(super) const BURIAL: u64 = 1 << 29;
const STATE_SHIFT: u32 = 0;
pub(super) const FLAGS_SHIFT: u32 = 8;
const GENERATION_SHIFT: u32 = 32;

/// Words behind the key, for both families.
pub(super) mod tail {
    pub(in super::super) const CONTROL: usize = 0;
    pub(in super::super) const TIME: usize = 1; // see `timer`
    pub(in super::super) const REPLY: usize = 2; // service << 32 | path of the answers
    pub(in super::super) const FREE: usize = 3; // next free entry; of a living NAT connection its `Shifts`
    pub(in super::super) const LINK: usize = 4; // see `kinship`
}

/// Where in the word with the ports those of the client's flow begin, with the protocol ([`Flow::ports`]); below them is the
/// port at the real server.
pub(super) const FLOW_SHIFT: u32 = 24;
pub(super) const SERVER_SHIFT: u32 = 8;
/// The lowest byte of that word: a template's bit, and the class of timeouts below it.
const TEMPLATE_BIT: u64 = 0x80;
/// Bits of it by which a client's packet is known: its ports, the protocol, no template.
const INBOUND_KEY: u64 = 0xffff_ffff_ff00_0080;
/// Bits of it by which a server's answer is known.
pub(super) const OUTBOUND_KEY: u64 = 0xffff_0000_ffff_ff80;

/// Words of the key: addresses, ports and real server.
pub(super) const KEY4: usize = 3;
/// The same for IPv6, which fill a line.
pub(super) const KEY6: usize = WORDS;

/// An entry, as found in a generation.
#[derive(Clone, Copy, Debug)]
pub struct Conn<'t> {
    id: ConnId,
    family: Family,
    real: RealId,
    words: &'t [AtomicU64],
    /// The control word; once the connection was ended here, its upper half is [what it was linked to](Conn::link_at_end).
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
        self.is_live() && self.is_same_life(now)
    }

    /// Of a connection that was ended here, the upper half of its link: the words may be another one's by now.
    pub(super) fn link_at_end(&self) -> Option<u32> {
        (!self.is_live()).then_some((self.control >> 32) as u32)
    }

    /// Which of the lives of the entry this is.
    pub(super) fn generation(&self) -> u32 {
        (self.control >> GENERATION_SHIFT) as u32
    }

    /// Is this control word one of the same living generation?
    #[inline]
    fn is_same_life(&self, control: u64) -> bool {
        control >> GENERATION_SHIFT == self.control >> GENERATION_SHIFT && control & LIVE != 0
    }

    #[inline]
    pub(super) fn tail(&self, word: usize) -> &'t AtomicU64 {
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
        if ports & INBOUND_KEY == flow.ports() << FLOW_SHIFT
            && self.is_from_client(flow)
            && !flags.has(Flags::ONE_PACKET)
        {
            return Some(if flags.has(Flags::NO_OUTPUT) { Side::InOnly } else { Side::In });
        }
        let as_outbound = u64::from(flow.dst.port) << 48
            | u64::from(flow.protocol.0) << FLOW_SHIFT
            | u64::from(flow.src.port) << SERVER_SHIFT;
        let reply = flags.method() == Method::Nat
            && ports & OUTBOUND_KEY == as_outbound
            && self.server_address() == flow.src.address
            && self.client_address() == flow.dst.address;
        reply.then_some(Side::Out)
    }

    /// Is it the template of this key, and does it still lead anywhere?
    pub(super) fn is_template_of(&self, key: &Flow) -> bool {
        let ports = self.word(if self.family == Family::Inet { 1 } else { 6 });
        let wanted = key.ports() << FLOW_SHIFT | TEMPLATE_BIT;
        let retired = self.status().flags.has(Flags::RETIRED);
        ports & INBOUND_KEY == wanted && self.is_from_client(key) && !retired && self.is_current()
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
        let protocol = Protocol((word >> FLOW_SHIFT) as u8);
        ((word >> 48) as u16, (word >> 32) as u16, (word >> SERVER_SHIFT) as u16, protocol)
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

    /// Is it a template?
    #[inline]
    pub fn is_template(&self) -> bool {
        self.status().flags.has(Flags::TEMPLATE)
    }

    /// Is it a note for answers, and no connection?
    #[inline]
    pub fn is_note(&self) -> bool {
        let flags = self.status().flags;
        flags.has(Flags::ONE_PACKET) && !flags.has(Flags::TEMPLATE)
    }

    /// The class of its timeouts.
    #[inline]
    pub fn class(&self) -> u8 {
        (self.word(if self.family == Family::Inet { 1 } else { 6 }) & !TEMPLATE_BIT & 0xff) as u8
    }

    /// The flow of the client's packets; of a template its key.
    pub fn flow(&self) -> Flow {
        Flow { protocol: self.protocol(), src: self.client(), dst: self.virtual_endpoint() }
    }

    /// The flow of the server's answers, where they come by here.
    pub(super) fn reply_flow(&self) -> Option<Flow> {
        let flags = self.status().flags;
        (flags.method() == Method::Nat && !flags.has(Flags::TEMPLATE)).then(|| Flow {
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
                Err(now) if self.is_same_life(now) => {
                    self.control = now;
                }
                Err(_) => return None,
            }
        }
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

    /// Is its answers' key still to be entered? Of one that was ended here: was it?
    pub(super) fn is_owed(&self) -> bool {
        self.control & OWED != 0
    }

    /// Has the client not yet shown that it is there?
    pub(super) fn is_half_open(&self) -> bool {
        state::is_half_open(self.protocol(), self.status().state)
    }

    /// Ends the connection; `false` if somebody else did, or it was another generation.
    pub(super) fn end(&mut self) -> bool {
        // Read while it lives, if it does: it counts only if the exchange below finds the same generation.
        let link = self.tail(tail::LINK).load(Relaxed);
        loop {
            let claims = if self.is_owed() { OWED | BURIAL } else { 0 };
            let dead = (self.control >> GENERATION_SHIFT).wrapping_add(1) << GENERATION_SHIFT | claims;
            match self.tail(tail::CONTROL).compare_exchange(self.control, dead, Relaxed, Relaxed) {
                Ok(_) => {
                    self.control = link >> 32 << 32 | self.control & 0xffff_ffff & !LIVE;
                    return true;
                }
                Err(now) if self.is_same_life(now) => {
                    self.control = now;
                }
                Err(_) => return false,
            }
        }
    }
}
