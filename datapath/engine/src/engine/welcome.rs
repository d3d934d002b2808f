//! The short way for a new connection: what its first packet usually is, at a service of the plain sort.
//!
//! Usual is a SYN or a UDP packet that the express lanes did not know; plain is a service without persistence or engine. The
//! connection is made in one go: looked up once, under the lock of its service (twice, if a guest is asked without that);
//! written as its first packet leaves it, so that nothing is changed afterwards; counted in one step.
//!
//! Invariant: what [`Engine::welcome`] does is what [`Engine::open`] and [`Engine::track`] do (`tests/newcomers.rs` compares
//! the two), and it does nothing at all where it says none. Until a scheduler or a guest is asked it may say so.

use xvs_sdk::Request;

use super::express6::Candidate6;
use super::lane::{Lane, Made};
use super::open::{FTP_DATA, Opening};
use super::{Bound, Engine, Verdict};
use crate::conn::{Class, ConnId, Flags, Full, New, Shifts, Side, Status};
use crate::counters::AtHand;
use crate::drop::DropReason;
use crate::flow::{Endpoint, Flow, FlowHash};
use crate::hop::Port;
use crate::real::{Method, Path, RealId};
use crate::service::{PlainTurn, Service, Terms};
use crate::time::Now;
use crate::wire::{Glance, Packet, TcpFlags};

/// Who was chosen, if anybody may have the packet; with the right to it, and what the policy says.
type Picked<'s> = (PlainTurn<'s>, Terms, Option<RealId>);

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
        self.welcome_by(packet, glance, hash, now)
    }

    /// The same for what the express lane of IPv6 left alone. None, and nothing done, where it is for the long way.
    #[inline(never)]
    pub fn welcome6(&self, packet: &mut Packet<'_>, candidate: &Candidate6, now: Now) -> Option<Verdict> {
        let Candidate6 { glance, hash, guess } = candidate;
        if !guess.is_none() {
            return None;
        }
        let welcomed = self.welcome_by(packet, glance, *hash, now)?;
        Some(welcomed.unwrap_or_else(Verdict::Drop))
    }

    #[inline(always)]
    fn welcome_by<A: Lane>(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance<A>,
        hash: FlowHash,
        now: Now,
    ) -> Option<Result<Verdict, DropReason>> {
        let (table, arena, switches) = (&self.shared.table, &self.shared.arena, &self.shared.switches);
        let opens = glance.is_udp() || glance.tcp().0 & (TcpFlags::SYN | TcpFlags::RST) == TcpFlags::SYN;
        if !opens
            || switches.drop_rate.get() != 0
            || self.snapshot.may_be_partial() && A::may_be_partial(packet, glance)?
        {
            return None;
        }
        let Flow { src: client, dst: vip, .. } = flow_of(glance);
        // From a VIP comes what may be an answer that crosses the director.
        if client.port == FTP_DATA || !client.address.is_host() || self.snapshot.is_virtual(client.address) {
            return None;
        }
        let service = self.snapshot.service(&flow_of(glance))?;
        if vip.port != service.key.port() && !service.key.is_mark() {
            return None;
        }
        // A guess does not find all, and datagrams of what it did not find are not to wait for a lock each.
        if glance.is_udp() && !self.is_new(glance, hash) {
            return None;
        }
        self.pressure.set(0); // as without a drop rate it always is: see `drop_under_pressure`
        let (turn, terms, picked) = match service.plain_turn() {
            Some((mut turn, terms)) => {
                // Nobody else can make it now.
                if terms.one_packet() && glance.is_udp() || !self.is_new(glance, hash) {
                    return None;
                }
                let picked = match turn.pick_by_servers(arena) {
                    Some(picked) => picked,
                    None => turn.pick(arena, &self.request_of(glance, hash, service, terms, now)),
                };
                (turn, terms, picked)
            }
            None => match self.be_advised(packet, glance, hash, service, now)? {
                Ok(picked) => picked,
                Err(verdict) => return Some(verdict),
            },
        };
        let Some(id) = picked else {
            return Some(self.without_server(packet, glance, hash, (service, terms, turn), now));
        };
        let real = arena.get(id);
        let (method, server) = (real.method(), real.endpoint());
        if method != Method::Tun && server.address.family() != A::FAMILY {
            return Some(Err(DropReason::Method));
        }
        let at_hand = self.counters.at_hand(id);
        at_hand.count_conn();
        let server = A::end(server.address, if server.port == 0 { vip.port } else { server.port });
        let key = A::key(glance, server);
        let (mut answers, mut reply_path, mut shifts) = (FlowHash::default(), Path::NoRoute.bits(), None);
        if method == Method::Nat {
            answers = A::answers(&key, table);
            table.touch(answers);
            reply_path = glance.addresses.path_home(self);
            shifts = Some(A::shifts(A::end(vip.address, vip.port), server));
        }
        let is_nat = shifts.is_some();
        let side = if is_nat { Side::In } else { Side::InOnly };
        let step = self.first_step(glance, side);
        let new = New {
            key,
            real: id,
            service: service.number,
            status: Status { state: step.state, flags: Flags::new(method).with(Flags::INACTIVE, !step.active) },
            timeout_s: self.shared.timeouts.get(Class::from_bits(terms.class()), step.slot),
            reply_path,
            shifts,
            class: terms.class(),
        };
        let made = if self.has_room() { A::insert(table, &new, hash, is_nat, now) } else { Err(Full::Entries) };
        let conn = match made {
            Ok(conn) => conn,
            Err(full) => match self.welcome_again::<A>(new, full, hash, is_nat, now) {
                Ok(conn) => conn,
                Err(reason) => return Some(Err(reason)),
            },
        };
        real.bind_as(step.active);
        drop(turn);
        if is_nat {
            self.owe(conn, answers);
        }
        self.counters.opened.add(1);
        let made = Made { conn, id, real, at_hand };
        let port = match method {
            Method::Nat | Method::Dr => self.send_first(packet, glance, made, shifts.map(|shifts| (server, shifts))),
            Method::Tun | Method::Bypass => A::wrap(self, packet, glance, &made, now),
        };
        Some(match port {
            Some(port) => Ok(Verdict::Transmit(port)),
            None => self.welcomed(packet, glance, conn, side, now),
        })
    }

    /// Has a guest choose. None, and nobody was asked, of another service; an error is what became of the packet, if somebody
    /// else made its connection while the guest was asked without the lock.
    #[inline(never)]
    fn be_advised<'s, A: Lane>(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance<A>,
        hash: FlowHash,
        service: &'s Service,
        now: Now,
    ) -> Option<Result<Picked<'s>, Result<Verdict, DropReason>>> {
        let terms = service.guided_terms()?;
        if terms.one_packet() && glance.is_udp() || !self.is_new(glance, hash) {
            return None;
        }
        let mut turn = service.turn();
        // The lock is held if the guest has gone quiet meanwhile: one look more under it, which the long way takes.
        turn.was_let_go().then_some(())?;
        let picked = turn.pick(&self.shared.arena, &self.request_of(glance, hash, service, terms, now));
        let turn = turn.into_plain();
        // Nobody else need have it, if nobody is there.
        if picked.is_some()
            && !self.is_new(glance, hash)
            && let Some(verdict) = self.was_faster(packet, glance, hash, now)
        {
            return Some(Err(verdict));
        }
        Some(Ok((turn, terms, picked)))
    }

    /// What becomes of a packet whose connection another worker has made. None if it is over already.
    #[cold]
    #[inline(never)]
    fn was_faster<A: Lane>(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance<A>,
        hash: FlowHash,
        now: Now,
    ) -> Option<Result<Verdict, DropReason>> {
        let headers = match A::headers(packet, glance) {
            Ok(headers) => headers,
            Err(reason) => return Some(Err(reason)),
        };
        let found = self.shared.table.lookup(&headers.flow, hash);
        let (conn, side) = found.filter(|found| self.holds(found, &headers, now))?;
        Some(self.aside(packet, headers, Bound::Conn(conn), side, true, now))
    }

    /// Makes the entry when there was no room. It is given copies, so that what they are copied from need not be in memory.
    #[cold]
    #[inline(never)]
    fn welcome_again<A: Lane>(
        &self,
        new: New<A::Key>,
        full: Full,
        hash: FlowHash,
        owed: bool,
        now: Now,
    ) -> Result<ConnId, DropReason> {
        self.insert_again(full, A::FAMILY, |table| match table.count(1) {
            true => A::insert(table, &new, hash, owed, now),
            false => Err(Full::Entries),
        })
    }

    /// Sends the first packet to its server by NAT or direct routing, as the express lane would; or leaves it alone.
    #[inline(always)]
    fn send_first<A: Lane>(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance<A>,
        made: Made<'_>,
        nat: Option<(A::End, Shifts)>,
    ) -> Option<Port> {
        let way = self.way_at_hand(made.at_hand, made.id)?;
        A::pass(packet, glance, way, nat)?;
        self.count_first(made.at_hand, glance.ip_len());
        Some(way.port())
    }

    /// Counts a packet that was sent.
    #[inline(always)]
    pub(super) fn count_first(&self, at_hand: AtHand<'_>, len: usize) {
        at_hand.count_in(len);
        self.counters.inbound.add(1);
    }

    /// The way of a first packet that has its connection, and is not one for the express lane.
    #[cold]
    #[inline(never)]
    fn welcomed<A: Lane>(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance<A>,
        id: ConnId,
        side: Side,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let conn = self.shared.table.get(id).ok_or(DropReason::ConnectionEnded)?;
        let headers = A::headers(packet, glance)?;
        self.aside(packet, headers, Bound::Conn(conn), side, false, now)
    }

    /// Has the packet no connection?
    #[inline(always)]
    fn is_new<A: Lane>(&self, glance: &Glance<A>, hash: FlowHash) -> bool {
        self.shared.table.lacks(hash) || self.is_new_indeed(glance, hash)
    }

    #[cold]
    #[inline(never)]
    fn is_new_indeed<A: Lane>(&self, glance: &Glance<A>, hash: FlowHash) -> bool {
        self.shared.table.lookup(&flow_of(glance), hash).is_none()
    }

    #[inline(never)]
    fn request_of<A: Lane>(
        &self,
        glance: &Glance<A>,
        hash: FlowHash,
        service: &Service,
        terms: Terms,
        now: Now,
    ) -> Request {
        let policy = terms.policy().unwrap_or_default();
        let flow = &flow_of(glance);
        Opening { flow, hash, service, policy, payload: &[], quoted: false, arrival: self.arrival(), now }.request()
    }

    /// What becomes of the packet when no server may have it.
    #[cold]
    #[inline(never)]
    fn without_server<A: Lane>(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance<A>,
        hash: FlowHash,
        (service, terms, turn): (&Service, Terms, PlainTurn<'_>),
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let headers = A::headers(packet, glance)?;
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

/// The packet's flow.
#[inline(always)]
fn flow_of<A: Lane>(glance: &Glance<A>) -> Flow {
    let [client, vip] = [(glance.rest >> 48) as u16, (glance.rest >> 32) as u16];
    Flow {
        protocol: glance.protocol(),
        src: Endpoint::new(glance.addresses.source(), client),
        dst: Endpoint::new(glance.addresses.destination(), vip),
    }
}
