//! How a dead entry becomes a connection: its words are written, and then it is brought to life.
//!
//! Invariant: nobody sees the new connection before it lives, and who still believes in the one before notices. The short
//! way ([`write`]) writes what the general one writes.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release, fence};

use super::{
    BURIAL, Conn, FLAGS_SHIFT, FLOW_SHIFT, Flags, GENERATION_SHIFT, KEY4, KEY6, LIVE, OWED, SERVER_SHIFT, Status,
    TEMPLATE_BIT, tail,
};
use crate::conn::shift::Shifts;
use crate::conn::table::{End4, End6, NewConn};
use crate::conn::timer;
use crate::flow::Family;
use crate::lines::{Line, WORDS};
use crate::real::{Method, RealId};
use crate::time::Now;

impl Conn<'_> {
    /// Writes a new connection into a dead entry. The entry must be the caller's alone; nobody sees the connection
    /// before it is brought to [`life`](Conn::publish).
    pub(in crate::conn) fn prepare(mut self, new: &NewConn, now: Now) -> Self {
        let (client, vip, server) = (new.flow.src, new.flow.dst, new.server);
        let ports = new.flow.ports() << FLOW_SHIFT
            | u64::from(server.port) << SERVER_SHIFT
            | if new.status.flags.has(Flags::TEMPLATE) { TEMPLATE_BIT } else { u64::from(new.class & 0x7f) };
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
        if new.status.flags.method() == Method::Nat {
            self.tail(tail::FREE).store(Shifts::between(vip, server).0, Relaxed);
        }
        self.set_timer(now, new.timeout_s);
        self.tail(tail::REPLY).store(u64::from(new.service) << 32 | u64::from(new.reply_path.bits()), Relaxed);
        self.real = new.real;
        self.control = self.control >> GENERATION_SHIFT << GENERATION_SHIFT
            | LIVE
            | u64::from(new.status.flags.0) << FLAGS_SHIFT
            | u64::from(new.status.state);
        let link = if self.is_template() { self.link_of_template(0) } else { Conn::link_to(new.parent) };
        self.tail(tail::LINK).store(link, Relaxed);
        self
    }

    /// Brings a prepared connection to life.
    pub(in crate::conn) fn publish(&self) {
        self.tail(tail::CONTROL).store(self.control, Release);
    }
}

/// A connection to be made by the short way, in the words that its entry has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<K> {
    pub(crate) key: K,
    pub(crate) real: RealId,
    /// The service that scheduled it.
    pub(crate) service: u32,
    /// State and flags, as the first packet leaves them.
    pub(crate) status: Status,
    /// Seconds that it lives without another packet.
    pub(crate) timeout_s: u32,
    /// The way of the answers to the client, as a [path](crate::real::Path)'s bits.
    pub(crate) reply_path: u32,
    /// What NAT does to its packets' checksums.
    pub(crate) shifts: Option<Shifts>,
    pub(crate) class: u8,
}

/// The client's flow, as a [glance](crate::wire::Glance) has it, and RIP (of NAT) and the port there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key4 {
    pub(crate) addresses: u64,
    pub(crate) ports: u64,
    pub(crate) server: End4,
}

/// The same of IPv6.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key6 {
    pub(crate) addresses: [u64; 4],
    pub(crate) ports: u64,
    pub(crate) server: End6,
}

/// The key of a connection whose entry has so many words.
pub(in crate::conn) trait Key<const N: usize>: Copy {
    /// Where the words behind the key begin.
    const TAIL: usize;

    /// Writes it.
    fn write(&self, words: &[AtomicU64; N], real: RealId, class: u8);
}

/// The word with the ports.
#[inline(always)]
fn ports(client: u64, server: u16, class: u8) -> u64 {
    client << FLOW_SHIFT | u64::from(server) << SERVER_SHIFT | u64::from(class & 0x7f)
}

impl Key<WORDS> for Key4 {
    const TAIL: usize = KEY4;

    #[inline(always)]
    fn write(&self, words: &Line, real: RealId, class: u8) {
        words[0].store(self.addresses, Relaxed);
        words[1].store(ports(self.ports, self.server.port, class), Relaxed);
        words[2].store(u64::from(self.server.address) << 32 | u64::from(real.0), Relaxed);
    }
}

impl Key<{ 2 * WORDS }> for Key6 {
    const TAIL: usize = KEY6;

    #[inline(always)]
    fn write(&self, words: &[AtomicU64; 2 * WORDS], real: RealId, class: u8) {
        let ([a, b, c, d], ([high, low], port)) = (self.addresses, self.server);
        for (word, value) in words.iter().zip([a, b, c, d, high, low, ports(self.ports, port, class), real.0.into()]) {
            word.store(value, Relaxed);
        }
    }
}

/// As [`Conn::prepare`], for a connection without a parent whose first packet counts already. Gives what [`publish`] is
/// told. `owed`: the answers' key will be entered later.
#[inline(always)]
pub(in crate::conn) fn write<K: Key<N>, const N: usize>(
    words: &[AtomicU64; N],
    new: &New<K>,
    owed: bool,
    now: Now,
) -> u64 {
    let before = words[K::TAIL + tail::CONTROL].load(Relaxed);
    // As there.
    fence(Release);
    new.key.write(words, new.real, new.class);
    if let Some(shifts) = new.shifts {
        words[K::TAIL + tail::FREE].store(shifts.0, Relaxed);
    }
    words[K::TAIL + tail::TIME].store(timer::after_one(now, new.timeout_s), Relaxed);
    words[K::TAIL + tail::REPLY].store(u64::from(new.service) << 32 | u64::from(new.reply_path), Relaxed);
    words[K::TAIL + tail::LINK].store(Conn::link_to(None), Relaxed);
    let status = u64::from(new.status.flags.0) << FLAGS_SHIFT | u64::from(new.status.state);
    before >> GENERATION_SHIFT << GENERATION_SHIFT | LIVE | if owed { OWED } else { 0 } | status
}

/// As [`Conn::publish`].
#[inline(always)]
pub(in crate::conn) fn publish<K: Key<N>, const N: usize>(words: &[AtomicU64; N], _new: &New<K>, control: u64) {
    words[K::TAIL + tail::CONTROL].store(control, Release);
}

/// The key that the entry owed is entered. False, and it still owes, if the connection was ended meanwhile: then nobody gives
/// the entry back before the caller has [let go](let_go) of it.
#[inline(always)]
pub(in crate::conn) fn pay(control: &AtomicU64) -> bool {
    let mut before = control.load(Relaxed);
    while before & LIVE != 0 {
        // The bit is there: nobody else takes it away.
        match control.compare_exchange_weak(before, before - OWED, AcqRel, Relaxed) {
            Ok(_) => return true,
            Err(now) => before = now,
        }
    }
    false
}

/// One of the two who have to do with an entry that was ended while it owed needs it no more: who owes ([`OWED`]), or who has
/// ended it ([`BURIAL`]). True for the last one, who gives it back.
pub(in crate::conn) fn let_go(control: &AtomicU64, claim: u64) -> bool {
    control.fetch_sub(claim, AcqRel) & (OWED | BURIAL) == claim
}
