//! Entries that end before their time, at the hands of the control side: those of removed servers, and those that the
//! defence against a full table sacrifices.
//!
//! Invariant: a template that has children is left alone; counts are settled as for any other end. Both walk the table
//! beside the workers, a bounded piece (`drop_entry`) or all of it (a change of configuration): not for a packet's path.
//! Not here: when it is done.

use super::Shared;
use crate::conn::{Conn, Flags, sctp, tcp};
use crate::flow::Protocol;
use crate::time::Now;

/// `drop_entry` looks at one part in so many of the table each second, as IPVS does.
const PARTS: u32 = 32;
/// An entry has been silent for so long, at least, before it may be sacrificed for its age.
const SILENT_MS: u64 = 60_000;
/// Connections with more packets than this are nobody's flood.
const FEW: u32 = 8;

/// Where `drop_entry` goes on, and whose turn it is.
#[derive(Debug, Default)]
pub struct Cull {
    next: u32,
    /// One of `packets` entries goes: a count down for each number of packets.
    turns: [u32; FEW as usize + 1],
}

impl Shared {
    /// Ends all entries of removed servers (`expire_nodest_conn`). Gives how many.
    pub fn end_nodest(&self) -> u32 {
        let gone = |conn: &Conn<'_>| !self.arena.get(conn.real()).is_available();
        let children = self.table.iter().filter(|conn| gone(conn) && !conn.is_template()).map(|conn| self.kill(conn));
        let children = children.sum::<u32>();
        let all = children + self.table.iter().filter(gone).map(|conn| self.kill(conn)).sum::<u32>();
        self.ended_nodest.add(all.into());
        all
    }

    /// One second's work of `drop_entry`: half-open connections go, and some of those that are silent and never said
    /// much. Gives how many went.
    pub fn sacrifice(&self, cull: &mut Cull, now: Now) -> u32 {
        let used = self.table.used();
        let part = used.div_ceil(PARTS);
        let chosen = (0..part).filter_map(|step| self.table.at((cull.next.wrapping_add(step)) % used.max(1)));
        let chosen: Vec<Conn<'_>> = chosen.collect();
        cull.next = cull.next.wrapping_add(part) % used.max(1);
        let went = chosen.into_iter().filter(|conn| cull.takes(conn, now)).map(|conn| self.kill(conn)).sum::<u32>();
        self.sacrificed.add(went.into());
        went
    }

    /// Ends an entry, and its template if that has become idle and was never assured.
    fn kill(&self, mut conn: Conn<'_>) -> u32 {
        if !self.table.remove(&mut conn) {
            return 0;
        }
        self.settle(&conn);
        let parent = conn.parent().and_then(|parent| self.table.get(parent));
        let Some(mut template) = parent.filter(|template| template.is_template() && !template.is_assured()) else {
            return 1;
        };
        let idle = self.table.remove(&mut template);
        if idle {
            self.settle(&template);
        }
        1 + u32::from(idle)
    }
}

impl Cull {
    fn takes(&mut self, conn: &Conn<'_>, now: Now) -> bool {
        if conn.is_template() {
            // Those of one-packet services have no state to show; IPVS counts their packets, and only for a peer.
            return conn.children() == 0 && !conn.is_assured() && !conn.status().flags.has(Flags::ONE_PACKET);
        }
        match conn.protocol() {
            Protocol::TCP => match tcp::State::from_bits(conn.status().state) {
                tcp::State::SynRecv | tcp::State::SynAck => true,
                tcp::State::Established => self.is_its_turn(conn, now),
                _ => false,
            },
            Protocol::SCTP => match sctp::State::from_bits(conn.status().state) {
                sctp::State::Init1 | sctp::State::Init => true,
                sctp::State::Established => self.is_its_turn(conn, now),
                _ => false,
            },
            _ => self.is_its_turn(conn, now),
        }
    }

    /// Silent for a minute, with few packets, and one of as many entries as it had packets.
    fn is_its_turn(&mut self, conn: &Conn<'_>, now: Now) -> bool {
        let packets = conn.packets();
        if now.since(conn.last_seen()) < SILENT_MS || !(1..=FEW).contains(&packets) {
            return false;
        }
        let turn = &mut self.turns[packets as usize];
        let due = *turn == 0;
        *turn = if due { packets - 1 } else { *turn - 1 };
        due
    }
}
