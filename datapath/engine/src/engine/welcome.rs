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
use crate::conn::{Class, ConnId, End4, Flags, New4, Side, Status};
use crate::drop::DropReason;
use crate::flow::{Family, FlowHash};
use crate::forward::express;
use crate::real::{Method, Path};
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
        let flow = Headers::seen(glance).flow;
        let (client, vip) = (flow.src, flow.dst);
        // From a VIP comes what may be an answer that crosses the director.
        if client.port == FTP_DATA || !client.address.is_host() || self.snapshot.is_virtual(client.address) {
            return None;
        }
        let service = self.snapshot.service(&flow)?;
        if vip.port != service.key.port() && !service.key.is_mark() {
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
        let Some(id) = picked else {
            return Some(self.without_server(packet, glance, hash, (service, terms, turn), now));
        };
        let real = arena.get(id);
        let (method, server) = (real.method(), real.endpoint());
        if method != Method::Tun && server.address.family() != Family::Inet {
            return Some(Err(DropReason::Method));
        }
        self.counters.at_hand(id).count_conn();
        let port = if server.port == 0 { vip.port } else { server.port };
        let end = End4 { address: server.address.low32(), port };
        let (mut answers, mut reply_path) = (FlowHash::default(), Path::NoRoute);
        let is_nat = method == Method::Nat;
        if is_nat {
            let (addresses, ports) = New4::answers(glance.addresses, glance.ports(), end);
            answers = table.hash4(addresses, ports);
            table.touch(answers);
            reply_path = self.path_to(client.address);
        }
        let flags = Flags::new(method);
        let side = if flags.has(Flags::NO_OUTPUT) { Side::InOnly } else { Side::In };
        let step = self.first_step(glance, side);
        let new = New4 {
            addresses: glance.addresses,
            ports: glance.ports(),
            server: end,
            real: id,
            service: service.number,
            status: Status { state: step.state, flags: flags.with(Flags::INACTIVE, !step.active) },
            timeout_s: self.shared.timeouts.get(Class::from_bits(terms.class()), step.slot),
            reply_path,
            class: terms.class(),
        };
        let id = match table.insert4(&new, hash, is_nat, now) {
            Ok(id) => id,
            Err(full) => {
                // A copy, so that what it is copied from need not be in memory.
                let again = new;
                match self.insert_again(full, Family::Inet, move |table| table.insert4(&again, hash, is_nat, now)) {
                    Ok(id) => id,
                    Err(reason) => return Some(Err(reason)),
                }
            }
        };
        real.bind_as(step.active);
        drop(turn);
        if is_nat {
            self.owe(id, answers);
        }
        self.counters.opened.add(1);
        Some(match self.express_new(packet, glance, id, now) {
            Some(port) => Ok(Verdict::Transmit(port)),
            None => self.welcomed(packet, glance, id, side, now),
        })
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
