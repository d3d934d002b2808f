//! An entry as the express lane reads it: the words of its line (IPv6: of both) as they stand.
//!
//! Invariant: it says of an entry what [`Conn`](super::Conn) says of it, in fewer steps. What was read counts only if
//! [`Quick::is_current`] says so afterwards. Nothing of it ends an entry or moves its state.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, fence};

use crate::flow::Protocol;
use crate::lines::WORDS;
use crate::real::{Method, RealId};
use crate::time::Now;
use crate::wire::{Glance, Glance6, TcpFlags};

use super::entry::{FLAGS_SHIFT, FLOW_SHIFT, Flags, KEY4, KEY6, LIVE, OUTBOUND_KEY, SERVER_SHIFT, tail};
use super::shift::Shifts;
use super::table::End4;
use super::timer::Timer;
use super::{Class, tcp};

/// Protocol and flags of a packet that may move a TCP connection's state, as a [`Glance`] has them.
const KIND: u64 = 0xff << 24 | ((TcpFlags::RST | TcpFlags::SYN | TcpFlags::FIN | TcpFlags::ACK) as u64) << 16;
/// Data and acknowledgements.
const PLAIN_TCP: u64 = (Protocol::TCP.0 as u64) << 24 | (TcpFlags::ACK as u64) << 16;
const UDP: u64 = (Protocol::UDP.0 as u64) << 24;
/// Bits of a control word that say whether the entry is a connection, and in which state.
const STANDING: u32 = LIVE as u32 | ((Flags::TEMPLATE | Flags::ONE_PACKET) as u32) << FLAGS_SHIFT | 0xff;

/// Bits of the word with the ports that an answer has, too: all of a key but the mark of templates, which a control word has.
const SERVERS: u64 = OUTBOUND_KEY & !0xff;

/// The words of an entry, and the control word as it was first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quick<'t, const N: usize = WORDS> {
    words: &'t [AtomicU64; N],
    control: u64,
}

/// The same of an IPv6 entry.
pub(crate) type Quick6<'t> = Quick<'t, { 2 * WORDS }>;

impl<'t, const N: usize> Quick<'t, N> {
    /// Where the words behind the key begin, the one with the ports is, and the one with the real server.
    const TAIL: usize = if N == WORDS { KEY4 } else { KEY6 };
    const PORTS: usize = if N == WORDS { 1 } else { 6 };
    const REAL: usize = if N == WORDS { 2 } else { 7 };

    /// The entry as it is now, alive or not.
    #[inline(always)]
    pub(super) fn load(words: &'t [AtomicU64; N]) -> Self {
        Quick { words, control: words[Self::TAIL + tail::CONTROL].load(Acquire) }
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        self.words[index].load(Relaxed)
    }

    /// Is it still what it was when it was loaded? If so, whatever was read of it since belongs together.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        fence(Acquire);
        // The same to the last bit: who changed its state meanwhile may have changed what follows from it.
        self.word(Self::TAIL + tail::CONTROL) == self.control
    }

    /// Is it a living connection in the state that it must have so that a packet does no more to it than to start its timer
    /// again?
    #[inline(always)]
    pub(crate) fn is_steady<A>(&self, glance: &Glance<A>) -> bool {
        let state = match glance.rest & KIND {
            PLAIN_TCP => tcp::State::Established as u32,
            UDP => super::state::FIRST as u32,
            _ => return false,
        };
        self.control as u32 & STANDING == LIVE as u32 | state
    }

    /// Are these the ports of an answer to it, as far as ports and method tell?
    #[inline(always)]
    fn may_answer<A>(&self, ports: u64, glance: &Glance<A>) -> bool {
        let rest = glance.rest;
        let answers = rest << 16 >> 48 << 48 | rest >> 48 << SERVER_SHIFT | rest & 0xff << FLOW_SHIFT;
        (ports ^ answers) & SERVERS == 0
            && self.method() == Method::Nat
            // A server's datagram may assure the template.
            && (!glance.is_udp() || self.word(Self::TAIL + tail::LINK) >> 32 == 0)
    }

    /// How its packets reach its server. (By one bit after the other, the usual ones first; there are no others than these.)
    #[inline(always)]
    pub(crate) fn method(&self) -> Method {
        let bits = (self.control >> FLAGS_SHIFT) as u8;
        match bits {
            _ if bits & 7 == Method::Nat as u8 => Method::Nat,
            _ if bits & 1 != 0 => Method::Dr,
            _ if bits & 4 == 0 => Method::Tun,
            _ => Method::Bypass,
        }
    }

    /// The real server.
    #[inline(always)]
    pub(crate) fn real(&self) -> RealId {
        RealId(self.word(Self::REAL) as u32)
    }

    /// What NAT does to the checksums of its packets.
    #[inline(always)]
    pub(crate) fn shifts(&self) -> Shifts {
        Shifts(self.word(Self::TAIL + tail::FREE))
    }

    /// The class of its timeouts.
    #[inline(always)]
    pub(crate) fn class(&self) -> Class {
        Class::from_bits(self.word(Self::PORTS) as u8)
    }

    /// The way of the answers to the client, as a path's bits.
    #[inline(always)]
    pub(crate) fn reply_path(&self) -> u32 {
        self.word(Self::TAIL + tail::REPLY) as u32
    }

    /// Its timer.
    #[inline(always)]
    pub(crate) fn timer(&self) -> Timer {
        Timer(self.word(Self::TAIL + tail::TIME))
    }

    /// Its timer starts again after a packet, if it is time.
    #[inline(never)]
    pub(crate) fn restart(&self, now: Now, timeout_s: u32, from_client: bool) {
        let old = self.timer();
        let new = old.restarted(now, timeout_s, from_client);
        if new != old {
            self.words[Self::TAIL + tail::TIME].store(new.0, Relaxed);
        }
    }
}

impl Quick<'_> {
    /// Is it this packet's, sent by the client?
    #[inline(always)]
    pub(crate) fn is_clients(&self, glance: &Glance) -> bool {
        self.word(0) == glance.addresses && (self.word(1) ^ glance.rest) >> FLOW_SHIFT == 0
    }

    /// Is it this packet's, sent by a NAT server?
    #[inline(always)]
    pub(crate) fn is_servers(&self, glance: &Glance) -> bool {
        self.may_answer(self.word(1), glance)
            && self.word(2) >> 32 == glance.addresses >> 32
            && self.word(0) >> 32 == glance.addresses & 0xffff_ffff
    }

    /// VIP and port.
    #[inline(always)]
    pub(crate) fn virtual_end(&self) -> End4 {
        End4 { address: self.word(0) as u32, port: (self.word(1) >> 32) as u16 }
    }

    /// RIP (of NAT) and the port there.
    #[inline(always)]
    pub(crate) fn server_end(&self) -> End4 {
        End4 { address: (self.word(2) >> 32) as u32, port: (self.word(1) >> SERVER_SHIFT) as u16 }
    }
}

impl Quick6<'_> {
    /// As for IPv4.
    #[inline(always)]
    pub(crate) fn is_clients(&self, glance: &Glance6) -> bool {
        let [a, b, c, d] = glance.addresses;
        (self.word(Self::PORTS) ^ glance.rest) >> FLOW_SHIFT == 0 && self.are(0, a, b) && self.are(2, c, d)
    }

    /// As for IPv4.
    #[inline(always)]
    pub(crate) fn is_servers(&self, glance: &Glance6) -> bool {
        let [a, b, c, d] = glance.addresses;
        self.may_answer(self.word(Self::PORTS), glance) && self.are(4, a, b) && self.are(0, c, d)
    }

    #[inline(always)]
    fn are(&self, first: usize, high: u64, low: u64) -> bool {
        self.word(first) == high && self.word(first + 1) == low
    }

    /// VIP and port.
    #[inline(always)]
    pub(crate) fn virtual_end(&self) -> ([u64; 2], u16) {
        ([self.word(2), self.word(3)], (self.word(Self::PORTS) >> 32) as u16)
    }

    /// RIP (of NAT) and the port there.
    #[inline(always)]
    pub(crate) fn server_end(&self) -> ([u64; 2], u16) {
        ([self.word(4), self.word(5)], (self.word(Self::PORTS) >> SERVER_SHIFT) as u16)
    }
}
