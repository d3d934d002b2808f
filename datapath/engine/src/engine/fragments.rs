//! Fragments: later ones go the way of their first one, and what is too large for its way may be cut.
//!
//! Invariant: a later fragment is forwarded by a note that its first one left, or waits unchanged; its direction is that
//! of the addresses, not of the note.

use super::{Awaited, Bound, Engine, Verdict};
use crate::conn::{Conn, ConnId, Owner, PacketKey, Side};
use crate::drop::DropReason;
use crate::flow::{Family, Flow};
use crate::real::Method;
use crate::time::Now;
use crate::wire::{Fragment, Headers, Packet};

impl Engine {
    /// A later fragment: the way of its first one, or a wait for it.
    pub(super) fn later_fragment(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        id: u32,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        if headers.flow.protocol.is_ipsec() {
            return self.ipsec(packet, headers, now); // addresses are all that counts there
        }
        if !headers.flow.protocol.has_ports() {
            return Err(DropReason::FragmentUnknown); // nothing of an ICMP error in fragments is forwarded
        }
        let key = self.shared.fragments.key(&headers.flow, id);
        match self.shared.fragments.find(key, now) {
            None => Ok(Verdict::Hold(Awaited::FirstFragment)),
            Some(Owner::Once(real)) => {
                let record = self.shared.arena.get(real);
                let (method, server) = (record.method(), record.endpoint());
                if !matches!(method, Method::Tun | Method::Bypass) && server.address.family() != headers.family {
                    return Err(DropReason::Method);
                }
                self.later_to_server(packet, headers, &Bound::Once { real, method, server }, now)
            }
            Some(Owner::Connection(id)) => match self.conn_of(id, &headers.flow) {
                None => Err(DropReason::FragmentUnknown),
                Some((conn, Side::Out)) => {
                    self.counters.at_hand(conn.real()).count_out(headers.ip_len());
                    self.outbound(packet, headers, &conn, now)
                }
                Some((conn, Side::In | Side::InOnly)) => self.later_to_server(packet, headers, &Bound::Conn(conn), now),
            },
        }
    }

    fn later_to_server(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        bound: &Bound<'_>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let real = self.shared.arena.get(bound.real());
        if !real.is_available() {
            return Err(DropReason::ServerGone);
        }
        self.counters.at_hand(bound.real()).count_in(headers.ip_len());
        self.inbound(packet, headers, bound, real, now)
    }

    /// A connection by its number, and which way a packet between these addresses goes in it.
    fn conn_of(&self, id: ConnId, flow: &Flow) -> Option<(Conn<'_>, Side)> {
        let conn = self.shared.table.get(id)?;
        let (src, dst) = (flow.src.address, flow.dst.address);
        let is_nat = conn.status().flags.method() == Method::Nat;
        let answers_from = if is_nat { conn.server() } else { conn.virtual_endpoint() };
        if conn.protocol() != flow.protocol {
            None
        } else if conn.client().address == src && conn.virtual_endpoint().address == dst {
            Some((conn, Side::In))
        } else if answers_from.address == src && conn.client().address == dst {
            Some((conn, Side::Out))
        } else {
            None
        }
    }

    /// The key of a packet by one of its fragments.
    pub(crate) fn packet_key(&self, frame: &[u8]) -> Option<PacketKey> {
        let headers = Headers::parse(frame).ok()?;
        let (Fragment::First(id) | Fragment::Later(id)) = headers.fragment else { return None };
        Some(self.shared.fragments.key(&headers.flow, id))
    }

    /// How many first fragments have passed, on all workers together.
    pub(crate) fn first_fragments(&self) -> u64 {
        self.shared.fragments.notes()
    }

    /// Has the first fragment of this packet passed?
    pub(crate) fn has_passed(&self, key: PacketKey, now: Now) -> bool {
        self.shared.fragments.find(key, now).is_some()
    }

    /// May a client's packet that does not fit be cut? In a tunnel it is the outer packet that is cut, which carries the
    /// client's "don't fragment" only if the operator wants that (`pmtu_disc`).
    #[cold]
    pub(super) fn may_cut(&self, packet: &Packet<'_>, headers: &Headers, method: Method) -> bool {
        let hides = method == Method::Tun && headers.family == Family::Inet && !self.shared.switches.pmtu_disc.is_on();
        hides || !headers.dont_fragment(packet.bytes())
    }
}
