//! The life of a connection: is it over, what does a packet do to its state, and when does it expire.
//!
//! Invariant: counts of the real server follow the connection's flags, by whoever wins the change of the flags.

use super::{Engine, Shared};
use crate::conn::state::Step;
use crate::conn::{Class, Conn, Flags, Side, Slot, Status, state, tcp};
use crate::drop::DropReason;
use crate::flow::Protocol;
use crate::time::Now;
use crate::wire::{Glance, Headers};

impl Engine {
    /// Does the packet belong to the connection that was found, or is that one over? An expired connection ends here,
    /// and so does one that gives way to the packet.
    #[inline]
    pub(super) fn holds(&self, (conn, side): &(Conn<'_>, Side), headers: &Headers, now: Now) -> bool {
        let real = self.shared.arena.get(conn.real());
        let stays = *side == Side::Out || !state::begins(headers) && real.is_available();
        if conn.expires_in(now) > 0 && (stays || !self.gives_way(conn, headers)) {
            return true;
        }
        self.end_for_another(*conn);
        false
    }

    #[cold]
    fn end_for_another(&self, mut conn: Conn<'_>) {
        if self.shared.table.remove(&mut conn) {
            self.shared.settle(&conn);
            self.counters.expired.add(1);
        }
    }

    /// Does the connection end for this packet of its client, which opens one or whose server was removed? The packet is
    /// then scheduled as a new one.
    ///
    /// As IPVS has it (IPVS-REFERENCE 3.9 and 3.10), and, unlike IPVS in any setting, if the packet opens a connection
    /// and the real server was removed: a new connection must not suffer from an old one.
    #[cold]
    fn gives_way(&self, conn: &Conn<'_>, headers: &Headers) -> bool {
        let real = self.shared.arena.get(conn.real());
        let switches = &self.shared.switches;
        let nodest = switches.expire_nodest_conn.is_on();
        if !real.is_available() {
            return state::begins(headers) || nodest;
        }
        let mode = switches.conn_reuse_mode.get();
        nodest && real.weight() == 0 || mode != 0 && conn.parent().is_none() && is_closing(conn, mode)
    }

    /// Runs the protocol's state machine and starts the timer again. Most packets move nothing but the timer.
    #[inline]
    pub(super) fn track(&self, conn: &mut Conn<'_>, side: Side, headers: &Headers, now: Now) {
        match state::stays(headers, side, conn.status().state) {
            Some(slot) => self.restart(conn, side, slot, now),
            None => self.move_on(conn, side, headers, now),
        }
    }

    #[inline(never)]
    fn move_on(&self, conn: &mut Conn<'_>, side: Side, headers: &Headers, now: Now) {
        if conn.is_note() {
            conn.rearm(now);
            return;
        }
        let half_open_counts = !self.shared.switches.half_open_inactive.is_on();
        let secure = self.shared.switches.secure_tcp_active.is_on();
        let changed = conn.update(|status| {
            let step = state::next(side, headers, status.state, secure);
            let active = step.active && (half_open_counts || !state::is_half_open(headers.flow.protocol, step.state));
            Status { state: step.state, flags: status.flags.with(Flags::INACTIVE, !active) }
        });
        let Some((before, after)) = changed else { return };
        if before.flags.has(Flags::INACTIVE) != after.flags.has(Flags::INACTIVE) {
            self.shared.arena.get(conn.real()).set_active(before.flags.has(Flags::INACTIVE));
        }
        let protocol = conn.protocol();
        if state::assures(protocol, side, before.state, after.state) {
            self.shared.assure_parent(conn);
        }
        self.restart(conn, side, state::slot(protocol, after.state), now);
    }

    /// What a client's first packet, a SYN or a datagram, makes of its connection, as [`track`](Engine::track) would.
    #[inline(always)]
    pub(super) fn first_step<A>(&self, glance: &Glance<A>, side: Side) -> Step {
        if glance.is_udp() {
            return Step { state: state::FIRST, active: false, slot: Slot::UDP };
        }
        let switches = &self.shared.switches;
        let state = tcp::opened(side, switches.secure_tcp_active.is_on());
        // It is half open, and these are active unless the operator says otherwise.
        Step { state: state as u8, active: !switches.half_open_inactive.is_on(), slot: Slot::tcp(state) }
    }

    /// Starts the timer again, and counts the client's packets.
    #[inline]
    fn restart(&self, conn: &Conn<'_>, side: Side, slot: Slot, now: Now) {
        let timeout_s = self.shared.timeouts.get(Class::from_bits(conn.class()), slot);
        if side == Side::Out { conn.touch(now, timeout_s) } else { conn.touch_by_client(now, timeout_s) }
    }

    /// Under pressure, one of so many packets that would open a connection is dropped (`drop_packet`).
    pub(super) fn drop_under_pressure(&self) -> Result<(), DropReason> {
        let rate = self.shared.switches.drop_rate.get();
        if rate == 0 {
            self.pressure.set(0); // the first one after the defence sets in is dropped at once
            return Ok(());
        }
        let left = self.pressure.get();
        self.pressure.set(if left == 0 { rate - 1 } else { left - 1 });
        if left == 0 { Err(DropReason::Pressure) } else { Ok(()) }
    }
}

/// Is the connection in a state after which the client's port may open again?
fn is_closing(conn: &Conn<'_>, mode: u32) -> bool {
    let (protocol, status) = (conn.protocol(), conn.status());
    let one_way = || protocol == Protocol::TCP && mode & 2 != 0 && status.flags.has(Flags::NO_OUTPUT);
    state::is_over(protocol, status.state) || one_way() && status.state == tcp::State::FinWait as u8
}

impl Shared {
    /// Settles the counts of an ended connection or template.
    pub fn settle(&self, conn: &Conn<'_>) {
        let real = self.arena.get(conn.real());
        if conn.is_template() {
            real.unbind_template();
        } else if !conn.is_note() {
            real.unbind(!conn.status().flags.has(Flags::INACTIVE));
            self.orphan(conn.parent());
        }
    }

    /// A connection has shown that its client is real: its template is worth keeping.
    fn assure_parent(&self, conn: &Conn<'_>) {
        let template = conn.parent().and_then(|parent| self.table.get(parent));
        if let Some(mut template) = template.filter(|template| template.is_template() && !template.is_assured()) {
            template.assure();
        }
    }
}
