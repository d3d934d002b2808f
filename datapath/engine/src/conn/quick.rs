//! An IPv4 entry as the express lane reads it: the words of its line as they stand.
//!
//! Invariant: it says of an entry what [`Conn`](super::Conn) says of it, in fewer steps. What was read counts only if
//! [`Quick::is_current`] says so afterwards. Nothing of it ends an entry or moves its state.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, fence};

use crate::flow::Protocol;
use crate::lines::WORDS;
use crate::real::{Method, RealId};
use crate::wire::{Glance, TcpFlags};

use super::entry::{FLAGS_SHIFT, Flags, INBOUND_KEY, KEY4, LIVE, OUTBOUND_KEY, tail};
use super::shift::Shifts;
use super::timer::Timer;
use super::{Class, tcp};

/// Protocol and flags of a packet that may move a TCP connection's state, as a [`Glance`] has them.
const KIND: u64 = 0xff00 | (TcpFlags::RST | TcpFlags::SYN | TcpFlags::FIN | TcpFlags::ACK) as u64;
/// Data and acknowledgements.
const PLAIN_TCP: u64 = (Protocol::TCP.0 as u64) << 8 | TcpFlags::ACK as u64;

const UDP: u64 = (Protocol::UDP.0 as u64) << 8;
/// Bits of a control word that say whether the entry is a connection, and in which state.
const STANDING: u32 = LIVE as u32 | ((Flags::TEMPLATE | Flags::ONE_PACKET) as u32) << FLAGS_SHIFT | 0xff;

/// Bits of the word with the ports that a packet has, too: all of a key but the mark of templates, which a control word has.
const CLIENTS: u64 = INBOUND_KEY & !0xff;
const SERVERS: u64 = OUTBOUND_KEY & !0xff;

/// The words of an entry, and the control word as it was first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quick<'t> {
    words: &'t [AtomicU64; WORDS],
    control: u64,
}

impl<'t> Quick<'t> {
    /// The entry as it is now, alive or not.
    #[inline(always)]
    pub(super) fn load(words: &'t [AtomicU64; WORDS]) -> Self {
        Quick { words, control: words[KEY4 + tail::CONTROL].load(Acquire) }
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
        self.word(KEY4 + tail::CONTROL) == self.control
    }

    /// Is it the living connection of this packet, and does that do no more to it than to start its timer again? Tells whether
    /// the client has sent it; otherwise a NAT server has.
    #[inline(always)]
    pub(crate) fn is_steady(&self, glance: &Glance) -> Option<bool> {
        let state = match glance.rest & KIND {
            PLAIN_TCP => tcp::State::Established as u32,
            UDP => super::state::FIRST as u32,
            _ => return None,
        };
        if self.control as u32 & STANDING != LIVE as u32 | state {
            return None;
        }
        let (own, ports) = (self.word(0), self.word(1));
        if own == glance.addresses && (ports ^ glance.rest) & CLIENTS == 0 {
            return Some(true);
        }
        let rest = glance.rest;
        let answers = rest << 16 >> 48 << 48 | rest >> 48 << 16 | rest & 0xff00;
        let is_answer = (ports ^ answers) & SERVERS == 0
            && self.word(2) >> 32 == glance.addresses >> 32
            && own >> 32 == glance.addresses & 0xffff_ffff
            && self.method_bits() == Method::Nat as u8
            // A server's datagram may assure the template.
            && (!glance.is_udp() || self.word(KEY4 + tail::LINK) >> 32 == 0);
        is_answer.then_some(false)
    }

    /// [`Method`], in its bits.
    #[inline(always)]
    pub(crate) fn method_bits(&self) -> u8 {
        (self.control >> FLAGS_SHIFT) as u8 & 7
    }

    /// VIP and port.
    #[inline(always)]
    pub(crate) fn virtual_end(&self) -> (u32, u16) {
        (self.word(0) as u32, (self.word(1) >> 32) as u16)
    }

    /// RIP (of NAT) and the port there.
    #[inline(always)]
    pub(crate) fn server_end(&self) -> (u32, u16) {
        ((self.word(2) >> 32) as u32, (self.word(1) >> 16) as u16)
    }

    /// The real server.
    #[inline(always)]
    pub(crate) fn real(&self) -> RealId {
        RealId(self.word(2) as u32)
    }

    /// What NAT does to the checksums of its packets.
    #[inline(always)]
    pub(crate) fn shifts(&self) -> Shifts {
        Shifts(self.word(KEY4 + tail::FREE))
    }

    /// The class of its timeouts.
    #[inline(always)]
    pub(crate) fn class(&self) -> Class {
        Class::from_bits(self.word(1) as u8)
    }

    /// The way of the answers to the client, as a path's bits.
    #[inline(always)]
    pub(crate) fn reply_path(&self) -> u32 {
        self.word(KEY4 + tail::REPLY) as u32
    }

    /// Its timer.
    #[inline(always)]
    pub(crate) fn timer(&self) -> Timer {
        Timer(self.word(KEY4 + tail::TIME))
    }

    /// Its timer is another one now, if it is.
    #[inline(always)]
    pub(crate) fn set_timer(&self, old: Timer, new: Timer) {
        if new != old {
            self.words[KEY4 + tail::TIME].store(new.0, Relaxed);
        }
    }
}
