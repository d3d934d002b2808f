//! The life of a connection: is it over, what does a segment do to its state, and when does it expire.
//!
//! Invariant: counts of the real server follow the connection's flags, by whoever wins the change of the flags.

use super::Engine;
use crate::conn::{Conn, Flags, Side, Status, tcp};
use crate::flow::Protocol;
use crate::time::Now;
use crate::wire::{Headers, TcpFlags};

impl Engine {
    /// Does the packet belong to the connection that was found, or is that one over? An expired connection ends here,
    /// and so does one whose client's port opens again.
    #[inline]
    pub(super) fn holds(&self, (conn, side): &(Conn<'_>, Side), headers: &Headers, now: Now) -> bool {
        let expired = conn.expires_in(now) == 0;
        if !expired && !self.reopens(conn, *side, headers.tcp) {
            return true;
        }
        let mut conn = *conn;
        if self.shared.table.remove(&mut conn) {
            self.shared.settle(&conn);
            self.counters.expired.add(1);
        }
        false
    }

    /// Does a SYN open the client's port again after this connection? If it was closed, as IPVS has it (IPVS-REFERENCE
    /// 3.9); and, unlike IPVS, if its real server was removed: a new connection must not suffer from an old one.
    #[inline]
    fn reopens(&self, conn: &Conn<'_>, side: Side, flags: TcpFlags) -> bool {
        if !flags.has(TcpFlags::SYN) || side == Side::Out {
            return false;
        }
        let state = tcp::State::from_bits(conn.status().state);
        matches!(state, tcp::State::TimeWait | tcp::State::Close) || !self.shared.arena.get(conn.real()).is_available()
    }

    /// Runs the protocol's state machine and starts the timer again.
    #[inline]
    pub(super) fn track(&self, conn: &mut Conn<'_>, side: Side, flags: TcpFlags, now: Now) {
        if conn.protocol() != Protocol::TCP {
            conn.touch(now, self.shared.timeouts.udp());
            return;
        }
        let changed = conn.update(|status| {
            let state = tcp::next(side, flags, tcp::State::from_bits(status.state));
            Status { state: state as u8, flags: status.flags.with(Flags::INACTIVE, !state.is_active()) }
        });
        let Some((before, after)) = changed else { return };
        if before.flags.has(Flags::INACTIVE) != after.flags.has(Flags::INACTIVE) {
            self.shared.arena.get(conn.real()).set_active(before.flags.has(Flags::INACTIVE));
        }
        conn.touch(now, self.shared.timeouts.tcp(tcp::State::from_bits(after.state)));
    }
}
