//! New connections: which service, which real server, and the entry in the table.
//!
//! Invariant: choosing the server, entering the connection and counting it happen under the service's lock, after a
//! second look into the table, so that a flow on two queues is scheduled once and the sequence of picks is exact.
//! Persistence is asked before the scheduler ([`super::persist`]).

use xvs_sdk::Request;

use super::{Bound, Engine, Shared, Verdict};
use crate::conn::{Conn, ConnId, Flags, Full, NewConn, Side, Status, Table, state};
use crate::drop::DropReason;
use crate::flow::{Address, Endpoint, Family, Flow, FlowHash, Protocol};
use crate::hop::{HopId, InterfaceId};
use crate::real::{Method, Path, RealId};
use crate::route::{Routes, Target};
use crate::service::{FTP, Policy, Service, Turn};
use crate::time::Now;
use crate::wire::{Glance, Headers, Packet, TcpFlags};

/// Seconds that answers to a packet are waited for that was scheduled by itself.
const NOTE_S: u32 = 5;
/// Source port that is never scheduled: FTP's data connections (IPVS-REFERENCE 3.2).
pub(super) const FTP_DATA: u16 = 20;

/// Interface and queue on which a packet came, and in which of the worker's breaths.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) interface: u32,
    pub(super) queue: u32,
    pub(super) breath: u64,
}

/// A new connection that is being made.
pub(super) struct Opening<'a> {
    pub(super) flow: &'a Flow,
    pub(super) hash: FlowHash,
    pub(super) service: &'a Service,
    pub(super) policy: Policy,
    /// What the packet carries, if that is known.
    pub(super) payload: &'a [u8],
    /// Its packet is one that an ICMP error quotes: a server's, so `flow` is that of the packet reversed.
    pub(super) quoted: bool,
    /// Where and when it came.
    pub(super) arrival: Arrival,
    pub(super) now: Now,
}

impl Opening<'_> {
    /// What the scheduler is told. Of a quoted packet IPVS takes the destination as it stands there, which is the client:
    /// `dh`, `lblc` and `lblcr` go by that (IPVS-REFERENCE 2.10).
    pub(super) fn request(&self) -> Request {
        let Arrival { interface, queue, breath } = self.arrival;
        let request = Request { interface, queue, breath, ..request(self.flow, self.hash, self.now) };
        let request = self.service.named(request, self.policy);
        if self.quoted { Request { virtual_address: request.client, ..request } } else { request }
    }

    /// Why nobody takes it. A data port of FTP's service was only perhaps FTP's, and is the host's otherwise
    /// (IPVS-REFERENCE 4.3).
    pub(super) fn nobody(&self) -> DropReason {
        let is_data = self.service.key.port() == FTP && self.flow.dst.port != FTP;
        if is_data { DropReason::NoService } else { DropReason::NoServer }
    }
}

/// Where a new connection goes.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) real: RealId,
    pub(super) port: u16,
    /// The template that chose, with the child counted already.
    pub(super) parent: Option<ConnId>,
}

impl Engine {
    /// A packet that is in no connection by its own flow: an answer that crosses the director, or a new one's first.
    #[inline(never)]
    pub(super) fn unknown(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        hash: FlowHash,
        glance: Option<&Glance>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        if let Some(conn) = self.answered(&headers, now) {
            return self.aside(packet, headers, Bound::Conn(conn), Side::Out, true, now);
        }
        match self.open(&headers, headers.datagram(packet.bytes()), hash, now) {
            Ok((bound, side, is_new)) => {
                let port = match (glance, &bound) {
                    (Some(glance), Bound::Conn(conn)) if is_new && side != Side::Out => {
                        self.express_new(packet, glance, conn.id(), now)
                    }
                    _ => None,
                };
                match port {
                    Some(port) => Ok(Verdict::Transmit(port)),
                    None => self.aside(packet, headers, bound, side, !is_new, now),
                }
            }
            Err(reason) => self.decline(packet, headers, reason, now),
        }
    }

    /// Schedules a new connection and enters it; or a single packet, which leaves no entry. Tells whether it is new, and
    /// its state follows the packet already; or another worker was faster.
    pub(super) fn open(
        &self,
        headers: &Headers,
        payload: &[u8],
        hash: FlowHash,
        now: Now,
    ) -> Result<(Bound<'_>, Side, bool), DropReason> {
        let Some(service) = self.snapshot.service(&headers.flow) else {
            return self.outward(headers, payload, now).unwrap_or_else(|| Err(self.stranger(headers)));
        };
        state::may_open(headers, &self.shared.switches)?;
        self.admit(service, &headers.flow, hash, Some((headers, payload)), now)
    }

    /// The same for the connection that an ICMP error quotes a packet of. Its state is not known, so it does not live
    /// for long without a packet of its own.
    pub(super) fn open_for_error(
        &self,
        flow: &Flow,
        hash: FlowHash,
        now: Now,
    ) -> Result<(Bound<'_>, Side), DropReason> {
        let service = self.snapshot.service(flow).ok_or(DropReason::IcmpUnrelated)?;
        self.admit(service, flow, hash, None, now).map(|(bound, side, _)| (bound, side))
    }

    fn admit(
        &self,
        service: &Service,
        flow: &Flow,
        hash: FlowHash,
        packet: Option<(&Headers, &[u8])>,
        now: Now,
    ) -> Result<(Bound<'_>, Side, bool), DropReason> {
        if flow.src.port == FTP_DATA {
            return Err(DropReason::SourcePort20);
        }
        if !flow.src.address.is_host() {
            return Err(DropReason::Martian);
        }
        self.drop_under_pressure()?;
        let (headers, payload) = packet.map_or((None, &[][..]), |(headers, payload)| (Some(headers), payload));
        let mut turn = service.turn();
        // Another worker may have made the same connection while this one waited for its turn.
        let found = self.shared.table.lookup(flow, hash);
        let found = found.filter(|found| headers.is_none_or(|headers| self.holds(found, headers, now)));
        if let Some((conn, side)) = found {
            return Ok((Bound::Conn(conn), side, false));
        }
        let (policy, quoted) = (turn.policy(), headers.is_none());
        let opening = Opening { flow, hash, service, policy, payload, quoted, arrival: self.arrival(), now };
        let choice = match opening.policy.persistence {
            Some(persistence) => self.persist(&mut turn, &opening, persistence),
            None => self.schedule(&mut turn, &opening),
        };
        let choice = match (choice, headers) {
            (Err(DropReason::NoServer), Some(headers)) => return self.go_on(&opening, headers),
            (choice, _) => choice?,
        };
        if turn.was_let_go() {
            // The same again: a guest was asked without the lock.
            let found = self.shared.table.lookup(flow, hash);
            let found = found.filter(|found| headers.is_none_or(|headers| self.holds(found, headers, now)));
            if let Some((conn, side)) = found {
                self.shared.orphan(choice.parent);
                return Ok((Bound::Conn(conn), side, false));
            }
        }
        let real = self.shared.arena.get(choice.real);
        if real.method() != Method::Tun && real.endpoint().address.family() != flow.family() {
            self.shared.orphan(choice.parent);
            return Err(DropReason::Method);
        }
        self.counters.at_hand(choice.real).count_conn();
        if opening.policy.one_packet && flow.protocol == Protocol::UDP {
            self.counters.one_packet.add(1);
            self.shared.orphan(choice.parent);
            // There and gone: thresholds see it come and go.
            real.bind();
            real.unbind(false);
            let server = Endpoint::new(real.endpoint().address, choice.port);
            if real.method() == Method::Nat && self.shared.switches.one_packet_replies.is_on() {
                self.note_answers(&opening, choice.real, server);
            }
            return Ok((Bound::Once { real: choice.real, method: real.method(), server }, Side::InOnly, true));
        }
        let mut conn = self.enter(&opening, choice).inspect_err(|_| self.shared.orphan(choice.parent))?;
        self.counters.opened.add(1);
        let side = if conn.status().flags.has(Flags::NO_OUTPUT) { Side::InOnly } else { Side::In };
        if let Some(headers) = headers {
            // Counted as active before anybody else is scheduled.
            self.track(&mut conn, side, headers, now);
        }
        Ok((Bound::Conn(conn), side, true))
    }

    /// Why a packet of no connection and no service is dropped: is it a client's for a service that was removed a moment
    /// ago, or a late one of a NAT real server?
    fn stranger(&self, headers: &Headers) -> DropReason {
        let flow = &headers.flow;
        let opens = flow.protocol == Protocol::TCP && headers.tcp.0 & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN;
        let to_us = self.snapshot.is_virtual(flow.dst.address) || opens;
        if to_us { DropReason::NoService } else { DropReason::NoConnectionReply }
    }

    /// Asks the scheduler.
    pub(super) fn schedule(&self, turn: &mut Turn<'_>, opening: &Opening<'_>) -> Result<Choice, DropReason> {
        let Opening { flow, service, .. } = *opening;
        let other_port = flow.dst.port != service.key.port();
        if other_port && !service.key.is_mark() {
            // Reached through FTP's rule or a port-0 service, which only persistence serves.
            return Err(opening.nobody());
        }
        let real = turn.pick(&self.shared.arena, &opening.request()).ok_or_else(|| opening.nobody())?;
        let port = self.shared.arena.get(real).endpoint().port;
        Ok(Choice { real, port: if port == 0 { flow.dst.port } else { port }, parent: None })
    }

    pub(super) fn enter(&self, opening: &Opening<'_>, choice: Choice) -> Result<Conn<'_>, DropReason> {
        let flow = opening.flow;
        let real = self.shared.arena.get(choice.real);
        let method = real.method();
        let reply_path = if method == Method::Nat { self.path_to(flow.src.address) } else { Path::NoRoute };
        let new = NewConn {
            flow: *flow,
            server: Endpoint::new(real.endpoint().address, choice.port),
            real: choice.real,
            service: opening.service.number,
            status: Status { state: state::FIRST, flags: Flags::new(method) },
            timeout_s: 3, // until the first packet's own state sets another
            reply_path,
            class: opening.policy.class,
            parent: choice.parent,
        };
        let conn = self.insert(flow, |table| table.insert(&new, opening.hash, opening.now))?;
        real.bind();
        Ok(conn)
    }

    /// Notes how answers to a packet that was scheduled by itself are translated. Without room they are not.
    pub(super) fn note_answers(&self, opening: &Opening<'_>, real: RealId, server: Endpoint) -> Option<Conn<'_>> {
        let flow = opening.flow;
        let answer = Flow { protocol: flow.protocol, src: server, dst: flow.src };
        let known = self.shared.table.lookup(&answer, self.shared.table.hash(&answer));
        if let Some((conn, _)) = known.filter(|(conn, _)| conn.virtual_endpoint() == flow.dst) {
            conn.rearm(opening.now);
            return Some(conn);
        }
        let new = NewConn {
            flow: *flow,
            server,
            real,
            service: opening.service.number,
            status: Status { state: state::FIRST, flags: Flags::note() },
            timeout_s: NOTE_S,
            reply_path: self.path_to(flow.src.address),
            class: 0,
            parent: None,
        };
        self.shared.table.insert_note(&new, opening.now).ok()
    }

    /// Makes an entry; in a full table a half-open connection gives way to it.
    pub(super) fn insert<'s>(
        &'s self,
        flow: &Flow,
        make: impl Fn(&'s Table) -> Result<Conn<'s>, Full>,
    ) -> Result<Conn<'s>, DropReason> {
        make(&self.shared.table).or_else(|full| self.insert_again(full, flow.family(), make))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn insert_again<'s, T>(
        &'s self,
        full: Full,
        family: Family,
        make: impl Fn(&'s Table) -> Result<T, Full>,
    ) -> Result<T, DropReason> {
        match full {
            Full::Calls => return Err(DropReason::CallsFull), // no connection has what is missing
            Full::Entries => {}
        }
        self.pay_debts(); // so that whoever gives way gives its entry back
        let table = &self.shared.table;
        let evicted = table.evict(family, |conn| {
            self.shared.settle(conn);
            self.counters.evicted.add(1);
        });
        let made = if evicted { make(table) } else { Err(full) };
        made.map_err(|full| match full {
            Full::Entries => DropReason::TableFull,
            Full::Calls => DropReason::CallsFull,
        })
    }

    /// The way to a client, with the search for its MAC already begun.
    pub(super) fn path_to(&self, client: Address) -> Path {
        self.path_by(self.snapshot.routes().find(client), client)
    }

    /// The same, where the route is known.
    #[inline]
    pub(super) fn path_by(&self, target: Option<&Target>, client: Address) -> Path {
        self.shared.path_by(target, client, |interface, neighbour| {
            // Most clients are behind one gateway, and a hop's number is good for ever.
            match self.last_hop.get() {
                Some((key, hop)) if key == (interface, neighbour) => Some(hop),
                _ => {
                    let hop = self.shared.hops.intern(interface, neighbour)?;
                    self.last_hop.set(Some(((interface, neighbour), hop)));
                    Some(hop)
                }
            }
        })
    }
}

impl Shared {
    /// A child of this template was counted, and is not.
    pub(super) fn orphan(&self, parent: Option<ConnId>) {
        if let Some(template) = parent.and_then(|parent| self.table.get(parent)) {
            template.release();
        }
    }

    /// The way to a client by these routes. A MAC that is not known yet is asked for.
    pub fn path_to(&self, routes: &Routes, client: Address) -> Path {
        self.path_by(routes.find(client), client, |interface, neighbour| self.hops.intern(interface, neighbour))
    }

    /// The way that a route's target is for this client; who asks finds the number of the hop.
    #[inline(always)]
    fn path_by(
        &self,
        target: Option<&Target>,
        client: Address,
        intern: impl FnOnce(InterfaceId, Address) -> Option<HopId>,
    ) -> Path {
        match target {
            Some(&Target::Via { interface, gateway, .. }) => {
                let neighbour = gateway.unwrap_or(client);
                let Some(hop) = intern(interface, neighbour) else { return Path::NoRoute };
                if self.hops.get(hop).mac.is_none() {
                    self.hops.want(hop);
                }
                Path::Hop(hop)
            }
            Some(Target::NotServed) => Path::NotServed,
            Some(Target::Local) => Path::Local,
            Some(Target::Nowhere) | None => Path::NoRoute,
        }
    }

    /// Finds the ways of all NAT connections' answers again, and of what has no server, after routes have changed. For the control side: it walks
    /// the whole table.
    pub fn reroute_replies(&self, routes: &Routes) {
        for conn in self.table.iter().filter(|conn| !conn.is_template()) {
            let goes_to = match conn.status().flags.method() {
                Method::Nat => conn.client(),
                Method::Bypass => conn.virtual_endpoint(),
                Method::Dr | Method::Tun => continue,
            };
            let path = self.path_to(routes, goes_to.address);
            if path != conn.reply_path() {
                conn.set_reply_path(path);
            }
        }
    }
}

/// What a scheduler is told of a new connection.
pub(crate) fn request(flow: &Flow, hash: FlowHash, now: Now) -> Request {
    Request {
        client: flow.src.address.octets16(),
        virtual_address: flow.dst.address.octets16(),
        client_port: flow.src.port,
        virtual_port: flow.dst.port,
        protocol: flow.protocol.0,
        family: if flow.family() == Family::Inet { 4 } else { 6 },
        hash: hash.0,
        now_ms: now.millis(),
        ..Request::default()
    }
}
