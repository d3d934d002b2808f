//! How a dead entry becomes a connection: its words are written, and then it is brought to life.
//!
//! Invariant: nobody sees the new connection before it lives, and who still believes in the one before notices. IPv4's own
//! way ([`write4`]) writes what the general one writes.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release, fence};

use super::{BURIAL, Conn, FLAGS_SHIFT, Flags, GENERATION_SHIFT, KEY4, LIVE, OWED, TEMPLATE_BIT, tail};
use crate::conn::shift::Shifts;
use crate::conn::table::{New4, NewConn};
use crate::conn::timer;
use crate::flow::Family;
use crate::lines::Line;
use crate::real::Method;
use crate::time::Now;

impl Conn<'_> {
    /// Writes a new connection into a dead entry. The entry must be the caller's alone; nobody sees the connection
    /// before it is brought to [`life`](Conn::publish).
    pub(in crate::conn) fn prepare(mut self, new: &NewConn, now: Now) -> Self {
        let (client, vip, server) = (new.flow.src, new.flow.dst, new.server);
        let ports = u64::from(client.port) << 48
            | u64::from(vip.port) << 32
            | u64::from(server.port) << 16
            | u64::from(new.flow.protocol.0) << 8
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

/// As [`Conn::prepare`], for an IPv4 connection without a parent whose first packet counts already. Gives what
/// [`publish4`] is told. `owed`: the answers' key will be entered later.
#[inline(always)]
pub(in crate::conn) fn write4(words: &Line, new: &New4, owed: bool, now: Now) -> u64 {
    let before = words[KEY4 + tail::CONTROL].load(Relaxed);
    fence(Release);
    words[0].store(new.addresses, Relaxed);
    words[1].store(new.ports | u64::from(new.server.port) << 16 | u64::from(new.class & 0x7f), Relaxed);
    words[2].store(u64::from(new.server.address) << 32 | u64::from(new.real.0), Relaxed);
    if let Some(shifts) = new.shifts {
        words[KEY4 + tail::FREE].store(shifts.0, Relaxed);
    }
    words[KEY4 + tail::TIME].store(timer::after_one(now, new.timeout_s), Relaxed);
    words[KEY4 + tail::REPLY].store(u64::from(new.service) << 32 | u64::from(new.reply_path), Relaxed);
    words[KEY4 + tail::LINK].store(Conn::link_to(None), Relaxed);
    let status = u64::from(new.status.flags.0) << FLAGS_SHIFT | u64::from(new.status.state);
    before >> GENERATION_SHIFT << GENERATION_SHIFT | LIVE | if owed { OWED } else { 0 } | status
}

/// As [`Conn::publish`].
#[inline(always)]
pub(in crate::conn) fn publish4(words: &Line, control: u64) {
    words[KEY4 + tail::CONTROL].store(control, Release);
}

/// The key that the entry owed is entered. False, and it still owes, if the connection was ended meanwhile: then nobody gives
/// the entry back before the caller has [let go](let_go) of it.
#[inline(always)]
pub(in crate::conn) fn pay4(words: &Line) -> bool {
    let control = &words[KEY4 + tail::CONTROL];
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
