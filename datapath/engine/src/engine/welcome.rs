//! The short way for a new connection: what its first packet usually is, at a service of the plain sort.
//!
//! Usual is a SYN or a UDP packet of IPv4 that the express lane did not know; plain is a service without persistence, engine
//! or guest. The connection is made in one go: looked up once, under the lock of its service; written as its first packet
//! leaves it, so that nothing is changed afterwards; counted in one step.
//!
//! Invariant: what [`Engine::welcome`] does is what [`Engine::open`] and [`Engine::track`] do (`tests/newcomers.rs` compares
//! the two), and it does nothing at all where it says none. Until the scheduler is asked it may say so.

use xvs_sdk::Request;

use super::open::{FTP_DATA, Opening};
use super::{Bound, Engine, Verdict};
use crate::conn::{Class, ConnId, End4, Flags, Full, New4, Shifts, Side, Status};
use crate::counters::AtHand;
use crate::drop::DropReason;
use crate::flow::{Address, Family, FlowHash};
use crate::forward::express;
use crate::hop::Port;
use crate::real::{Method, Path, RealId};
use crate::service::{PlainTurn, Service, Terms};
use crate::time::Now;
use crate::wire::{Glance, Headers, Packet, TcpFlags};

impl Engine {
    /// Makes the connection of this packet, which has none as far as a guess could tell, and forwards it.
    #[inline(never)]
    pub(super) fn welcome(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance,
        hash: FlowHash,
        now: Now,
    ) -> Option<Result<Verdict, DropReason>> {
        let (table, arena, switches) = (&self.shared.table, &self.shared.arena, &self.shared.switches);
        let opens = glance.is_udp() || glance.tcp().0 & (TcpFlags::SYN | TcpFlags::RST) == TcpFlags::SYN;
        if !opens
            || switches.drop_rate.get() != 0
            || self.snapshot.may_be_partial() && express::may_be_partial(packet.head_mut()?, glance)
        {
            return None;
        }
        let (client, vip) = (Address::v4(glance.source().0.to_be_bytes()), glance.destination());
        // From a VIP comes what may be an answer that crosses the director.
        if glance.source().1 == FTP_DATA || !client.is_host() || self.snapshot.is_virtual(client) {
            return None;
        }
        let service = self.snapshot.service(&Headers::seen(glance).flow)?;
        if vip.1 != service.key.port() && !service.key.is_mark() {
            return None;
        }
        // A guess does not find all, and datagrams of what it did not find are not to wait for a lock each.
        if glance.is_udp() && !self.is_new(glance, hash) {
            return None;
        }
        self.pressure.set(0); // as without a drop rate it always is: see `drop_under_pressure`
        let (mut turn, terms) = service.plain_turn()?;
        // Nobody else can make it now.
        if terms.one_packet() && glance.is_udp() || !self.is_new(glance, hash) {
            return None;
        }
        let picked = match turn.pick_by_servers(arena) {
            Some(picked) => picked,
            None => turn.pick(arena, &self.request_of(glance, hash, service, terms, now)),
        };
        let Some(real_id) = picked else {
            return Some(self.without_server(packet, glance, hash, (service, terms, turn), now));
        };
        let real = arena.get(real_id);
        let (method, server) = (real.method(), real.endpoint());
        if method != Method::Tun && server.address.family() != Family::Inet {
            return Some(Err(DropReason::Method));
        }
        let at_hand = self.counters.at_hand(real_id);
        at_hand.count_conn();
        let server = End4 { address: server.address.low32(), port: if server.port == 0 { vip.1 } else { server.port } };
        let (mut answers, mut reply_path, mut shifts) = (FlowHash::default(), Path::NoRoute.bits(), None);
        if method == Method::Nat {
            let (addresses, ports) = New4::answers(glance.addresses, glance.ports(), server);
            answers = table.hash4(addresses, ports);
            table.touch(answers);
            reply_path = self.path_home(glance.source().0);
            shifts = Some(Shifts::between4(End4 { address: vip.0, port: vip.1 }, server));
        }
        let is_nat = shifts.is_some();
        let side = if is_nat { Side::In } else { Side::InOnly };
        let step = self.first_step(glance, side);
        let new = New4 {
            addresses: glance.addresses,
            ports: glance.ports(),
            server,
            real: real_id,
            service: service.number,
            status: Status { state: step.state, flags: Flags::new(method).with(Flags::INACTIVE, !step.active) },
            timeout_s: self.shared.timeouts.get(Class::from_bits(terms.class()), step.slot),
            reply_path,
            shifts,
            class: terms.class(),
        };
        let id = match table.insert4(&new, hash, is_nat, now) {
            Ok(id) => id,
            Err(full) => match self.insert4_again(new, full, hash, is_nat, now) {
                Ok(id) => id,
                Err(reason) => return Some(Err(reason)),
            },
        };
        real.bind_as(step.active);
        drop(turn);
        if is_nat {
            self.owe(id, answers);
        }
        self.counters.opened.add(1);
        let port = match method {
            Method::Tun | Method::Bypass => self.express_new(packet, glance, id, now),
            Method::Nat | Method::Dr => self.send_first(packet, glance, (real_id, at_hand), server, shifts),
        };
        Some(match port {
            Some(port) => Ok(Verdict::Transmit(port)),
            None => self.welcomed(packet, glance, id, side, now),
        })
    }

    /// The same when there was no room. It is given copies, so that what they are copied from need not be in memory.
    #[cold]
    #[inline(never)]
    fn insert4_again(&self, new: New4, full: Full, hash: FlowHash, owed: bool, now: Now) -> Result<ConnId, DropReason> {
        self.insert_again(full, Family::Inet, |table| table.insert4(&new, hash, owed, now))
    }

    /// Sends the first packet to its server by NAT or direct routing, as the express lane would; or leaves it alone.
    #[inline(always)]
    fn send_first(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance,
        (real, at_hand): (RealId, AtHand<'_>),
        server: End4,
        shifts: Option<Shifts>,
    ) -> Option<Port> {
        let way = self.way_at_hand(at_hand, real)?;
        let bytes = packet.head_mut()?;
        let may = glance.ip_len() <= way.mtu() && (shifts.is_none() || express::has_checksum(bytes, glance));
        may.then_some(())?;
        match shifts {
            Some(shifts) => express::nat_in(bytes, glance, server, shifts.inbound()),
            None => express::pass(bytes),
        }
        way.address(express::macs(bytes));
        at_hand.count_in(glance.ip_len());
        self.counters.inbound.add(1);
        Some(way.port())
    }

    /// The way of a first packet that has its connection, and is not one for the express lane.
    #[cold]
    #[inline(never)]
    fn welcomed(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance,
        id: ConnId,
        side: Side,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let conn = self.shared.table.get(id).ok_or(DropReason::ConnectionEnded)?;
        self.aside(packet, Headers::seen(glance), Bound::Conn(conn), side, false, now)
    }

    /// Has the packet no connection?
    #[inline(always)]
    fn is_new(&self, glance: &Glance, hash: FlowHash) -> bool {
        self.shared.table.lacks(hash) || self.is_new_indeed(glance, hash)
    }

    #[cold]
    #[inline(never)]
    fn is_new_indeed(&self, glance: &Glance, hash: FlowHash) -> bool {
        self.shared.table.lookup(&Headers::seen(glance).flow, hash).is_none()
    }

    #[inline(never)]
    fn request_of(&self, glance: &Glance, hash: FlowHash, service: &Service, terms: Terms, now: Now) -> Request {
        let policy = terms.policy().unwrap_or_default();
        let flow = &Headers::seen(glance).flow;
        Opening { flow, hash, service, policy, payload: &[], quoted: false, arrival: self.arrival(), now }.request()
    }

    /// What becomes of the packet when no server may have it.
    #[cold]
    #[inline(never)]
    fn without_server(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance,
        hash: FlowHash,
        (service, terms, turn): (&Service, Terms, PlainTurn<'_>),
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let headers = Headers::seen(glance);
        let (flow, arrival, policy) = (&headers.flow, self.arrival(), terms.policy().unwrap_or_default());
        let opening = Opening { flow, hash, service, policy, payload: &[], quoted: false, arrival, now };
        let went_on = self.go_on(&opening, &headers);
        drop(turn);
        match went_on {
            Ok((bound, side, _)) => self.aside(packet, headers, bound, side, false, now),
            Err(reason) => self.decline(packet, headers, reason, now),
        }
    }
}
