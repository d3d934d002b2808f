//! What the short way of new connections does differently by IP version: words, entries and rewrites.
//!
//! Invariant: as of the lanes ([`express`], [`express6`]): what is sent is sent as the long way would, and what is not is left
//! alone. Not here: the order of the steps, which is the same for both ([`welcome`](super::welcome)).

use super::Engine;
use super::express6::TUNNEL_MTU;
use crate::conn::{ConnId, End4, End6, Full, Key4, Key6, New, Shifts, Table};
use crate::counters::{AtHand, Way};
use crate::drop::DropReason;
use crate::flow::{Address, Family, FlowHash};
use crate::forward::express;
use crate::forward::express6::{self, OUTER};
use crate::hop::Port;
use crate::real::{Real, RealId};
use crate::time::Now;
use crate::tunnel::Tunnel;
use crate::wire::glance::L3;
use crate::wire::{Glance, Glance6, Headers, Packet};

/// The addresses of a [glance](Glance).
pub(super) trait Lane: Copy {
    const FAMILY: Family;
    /// An address and a port.
    type End: Copy;
    /// The key of a connection's entry.
    type Key: Copy;

    fn source(self) -> Address;
    fn destination(self) -> Address;

    fn end(address: Address, port: u16) -> Self::End;

    /// The key of this packet's connection to a server.
    fn key(glance: &Glance<Self>, server: Self::End) -> Self::Key;

    /// The hash of the answers of a connection.
    fn answers(key: &Self::Key, table: &Table) -> FlowHash;

    fn insert(table: &Table, new: &New<Self::Key>, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, Full>;

    /// What NAT does to checksums.
    fn shifts(virtual_end: Self::End, server: Self::End) -> Shifts;

    /// The way to the client, as a path's bits.
    fn path_home(self, engine: &Engine) -> u32;

    /// May the checksum have been left to hardware? None if the packet has no such headers.
    fn may_be_partial(packet: &mut Packet<'_>, glance: &Glance<Self>) -> Option<bool>;

    /// The headers again, for what goes on by the long way.
    fn headers(packet: &Packet<'_>, glance: &Glance<Self>) -> Result<Headers, DropReason>;

    /// Sends a packet by NAT, or direct routing.
    fn pass(packet: &mut Packet<'_>, glance: &Glance<Self>, way: Way, nat: Option<(Self::End, Shifts)>) -> Option<()>;

    /// Sends the first packet of this connection through a tunnel, and counts it.
    fn wrap(engine: &Engine, packet: &mut Packet<'_>, glance: &Glance<Self>, to: &Made<'_>, now: Now) -> Option<Port>;
}

/// A connection that was made just now, and its server.
#[derive(Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) conn: ConnId,
    pub(super) id: RealId,
    pub(super) real: Real<'a>,
    pub(super) at_hand: AtHand<'a>,
}

impl Lane for u64 {
    const FAMILY: Family = Family::Inet;
    type End = End4;
    type Key = Key4;

    #[inline(always)]
    fn source(self) -> Address {
        Address::v4(((self >> 32) as u32).to_be_bytes())
    }

    #[inline(always)]
    fn destination(self) -> Address {
        Address::v4((self as u32).to_be_bytes())
    }

    #[inline(always)]
    fn end(address: Address, port: u16) -> End4 {
        End4 { address: address.low32(), port }
    }

    #[inline(always)]
    fn key(glance: &Glance, server: End4) -> Key4 {
        Key4 { addresses: glance.addresses, ports: glance.ports(), server }
    }

    #[inline(always)]
    fn answers(key: &Key4, table: &Table) -> FlowHash {
        key.answers(table)
    }

    #[inline(always)]
    fn insert(table: &Table, new: &New<Key4>, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, Full> {
        table.insert4(new, hash, owed, now)
    }

    #[inline(always)]
    fn shifts(virtual_end: End4, server: End4) -> Shifts {
        Shifts::between4(virtual_end, server)
    }

    #[inline(always)]
    fn path_home(self, engine: &Engine) -> u32 {
        engine.path_home((self >> 32) as u32, &engine.homeward)
    }

    #[inline(always)]
    fn may_be_partial(packet: &mut Packet<'_>, glance: &Glance) -> Option<bool> {
        Some(express::may_be_partial(packet.head_mut()?, glance))
    }

    #[inline(always)]
    fn headers(_: &Packet<'_>, glance: &Glance) -> Result<Headers, DropReason> {
        Ok(Headers::seen(glance))
    }

    #[inline(always)]
    fn pass(packet: &mut Packet<'_>, glance: &Glance, way: Way, nat: Option<(End4, Shifts)>) -> Option<()> {
        let bytes = packet.head_mut()?;
        let may = glance.ip_len() <= way.mtu() && (nat.is_none() || express::has_checksum(bytes, glance));
        may.then_some(())?;
        match nat {
            Some((server, shifts)) => express::nat_in(bytes, glance, server, shifts.inbound()),
            None => express::pass(bytes),
        }
        way.address(express::macs(bytes));
        Some(())
    }

    #[inline(always)]
    fn wrap(engine: &Engine, packet: &mut Packet<'_>, glance: &Glance, to: &Made<'_>, now: Now) -> Option<Port> {
        engine.express_new(packet, glance, to.conn, now)
    }
}

impl Lane for [u64; 4] {
    const FAMILY: Family = Family::Inet6;
    type End = End6;
    type Key = Key6;

    #[inline(always)]
    fn source(self) -> Address {
        address6([self[0], self[1]])
    }

    #[inline(always)]
    fn destination(self) -> Address {
        address6([self[2], self[3]])
    }

    #[inline(always)]
    fn end(address: Address, port: u16) -> End6 {
        let bits = address.bits();
        ([(bits >> 64) as u64, bits as u64], port)
    }

    #[inline(always)]
    fn key(glance: &Glance6, server: End6) -> Key6 {
        Key6 { addresses: glance.addresses, ports: glance.ports(), server }
    }

    #[inline(always)]
    fn answers(key: &Key6, table: &Table) -> FlowHash {
        key.answers(table)
    }

    #[inline(always)]
    fn insert(table: &Table, new: &New<Key6>, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, Full> {
        table.insert6(new, hash, owed, now)
    }

    #[inline(always)]
    fn shifts(virtual_end: End6, server: End6) -> Shifts {
        Shifts::between6(virtual_end, server)
    }

    #[inline(always)]
    fn path_home(self, engine: &Engine) -> u32 {
        engine.path_home(self.source().bits(), &engine.homeward6)
    }

    #[inline(always)]
    fn may_be_partial(packet: &mut Packet<'_>, glance: &Glance6) -> Option<bool> {
        Some(express6::may_be_partial(packet.head_mut()?, glance))
    }

    #[inline(always)]
    fn headers(packet: &Packet<'_>, _: &Glance6) -> Result<Headers, DropReason> {
        Headers::parse(packet.bytes())
    }

    #[inline(always)]
    fn pass(packet: &mut Packet<'_>, glance: &Glance6, way: Way, nat: Option<(End6, Shifts)>) -> Option<()> {
        let bytes = packet.head_mut()?;
        let may = glance.ip_len() <= way.mtu() && (nat.is_none() || express6::has_checksum(bytes, glance));
        may.then_some(())?;
        match nat {
            Some((server, shifts)) => express6::nat_in(bytes, glance, server, shifts.inbound()),
            None => express6::pass(bytes),
        }
        way.address(express6::macs(bytes));
        Some(())
    }

    #[inline(always)]
    fn wrap(engine: &Engine, packet: &mut Packet<'_>, glance: &Glance6, to: &Made<'_>, now: Now) -> Option<Port> {
        let Made { id, real, at_hand, .. } = to;
        // A SYN may have its MSS lowered.
        if engine.shared.switches.mss_clamp.is_on() {
            return None;
        }
        let way = engine.way_at_hand(*at_hand, *id)?;
        let (source, server) = (real.source()?, real.endpoint().address);
        let is_plain = real.tunnel() == Tunnel::Ipip && server.family() == Family::Inet6;
        let (len, mtu) = (glance.ip_len(), if real.has_learned() { real.path_mtu(now) } else { way.mtu() });
        (is_plain && len + OUTER <= mtu && mtu >= TUNNEL_MTU).then_some(())?;
        packet.rehead(L3, L3 + OUTER)?;
        packet.set_len(L3 + OUTER + len);
        let bytes = packet.head_mut()?;
        express6::wrap(bytes, len, source, server);
        way.address(express6::macs(bytes));
        engine.count_first(*at_hand, len);
        Some(way.port())
    }
}

#[inline(always)]
fn address6([high, low]: [u64; 2]) -> Address {
    Address::from_bits(u128::from(high) << 64 | u128::from(low))
}
