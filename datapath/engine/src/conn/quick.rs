//! An IPv4 entry as the express lane reads it: the words of its line as they stand.
//!
//! Invariant: it says of an entry what [`Conn`](super::Conn) says of it, in fewer steps. What was read counts only if
//! [`Quick::is_current`] says so afterwards. Nothing of it ends an entry or moves its state.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, fence};

use crate::lines::WORDS;
use crate::real::{Method, RealId};
use crate::time::Now;

use super::entry::{FLAGS_SHIFT, Flags, INBOUND_KEY, KEY4, LIVE, OUTBOUND_KEY, tail};
use super::{Class, Side, timer};

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

    /// Does the connection still live? If so, whatever was read of it before belongs together.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        fence(Acquire);
        // The same to the last bit: who changed its state meanwhile may have changed what follows from it.
        self.word(KEY4 + tail::CONTROL) == self.control && self.control & LIVE != 0
    }

    /// Flags.
    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        Flags((self.control >> FLAGS_SHIFT) as u16)
    }

    /// State.
    #[inline(always)]
    pub(crate) fn state(&self) -> u8 {
        self.control as u8
    }

    /// Does a packet of these [addresses and ports](crate::wire::Glance) belong here, and which way does it go?
    #[inline(always)]
    pub(crate) fn side_of(&self, addresses: u64, ports: u64) -> Option<Side> {
        let (own, own_ports, server) = (self.word(0), self.word(1), self.word(2));
        let flags = self.flags();
        if own == addresses && own_ports & INBOUND_KEY == ports {
            let side = if flags.has(Flags::NO_OUTPUT) { Side::InOnly } else { Side::In };
            return (!flags.has(Flags::ONE_PACKET)).then_some(side);
        }
        let answers = ports << 16 >> 48 << 48 | ports >> 48 << 16 | ports & 0xff00;
        let is_answer = own_ports & OUTBOUND_KEY == answers
            && server >> 32 == addresses >> 32
            && own >> 32 == addresses & 0xffff_ffff
            && flags.method() == Method::Nat
            && !flags.has(Flags::ONE_PACKET);
        is_answer.then_some(Side::Out)
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

    /// The class of its timeouts.
    #[inline(always)]
    pub(crate) fn class(&self) -> Class {
        Class::from_bits(self.word(1) as u8)
    }

    /// The way of the answers to the client, as a path's bits.
    #[inline(always)]
    pub(crate) fn reply_path(&self) -> crate::real::Path {
        crate::real::Path::from_bits(self.word(KEY4 + tail::REPLY) as u32)
    }

    /// Was it led here by a template?
    #[inline(always)]
    pub(crate) fn has_parent(&self) -> bool {
        self.word(KEY4 + tail::LINK) >> 32 != 0
    }

    /// Has it expired?
    #[inline(always)]
    pub(crate) fn is_over(&self, now: Now) -> bool {
        timer::left(self.word(KEY4 + tail::TIME), now) == 0
    }

    /// As [`Conn::touch`](super::Conn::touch), or [`Conn::touch_by_client`](super::Conn::touch_by_client).
    #[inline(always)]
    pub(crate) fn touch(&self, now: Now, timeout_s: u32, from_client: bool) {
        timer::restart(&self.words[KEY4 + tail::TIME], now, timeout_s, from_client);
    }
}
