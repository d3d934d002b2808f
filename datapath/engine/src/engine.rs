//! The coordinator: one packet in, one verdict out.
//!
//! ```text
//! inspect   parse, hash, start to fetch the bucket                          (pass 1 of a batch)
//! forward   find the connection, or schedule a new one
//!           track its state, count
//!           rewrite by its method, write the link header                    (pass 2)
//! expire    end what timed out: a bounded piece of the table
//! ```
//!
//! Invariant: every packet gets a [`Verdict`]; nothing here allocates, waits for anything but a service's lock for a
//! new connection, or asks the time. What is shared between workers is in [`Shared`]; the rest is this worker's own.

mod bound;
mod bypass;
mod cull;
mod debts;
mod errors;
mod express;
mod express6;
mod fragments;
mod homeward;
mod ident;
mod lane;
mod life;
mod observe;
mod open;
mod outward;
mod persist;
mod room;
mod shared;
mod tunnel_errors;
mod verdict;
mod welcome;
mod wrap;

use std::cell::Cell;
use std::num::NonZeroU16;
use std::sync::Arc;

use self::bound::Bound;
pub use self::cull::Cull;
use self::debts::Debts;
use self::errors::Budget;
pub use self::express::{Candidate, Tally};
pub use self::express6::Candidate6;
use self::homeward::Homeward;
use self::ident::Idents;
pub(crate) use self::open::request;
use self::room::Room;
pub use self::shared::{Shared, Sizes};
pub use self::verdict::{Awaited, Verdict};
use self::wrap::{room_to, way_to};
use crate::conn::{Conn, Side, Sweep};
use crate::counters::{Count, Counters};
use crate::drop::DropReason;
use crate::flow::{Address, Endpoint, Family, FlowHash, Protocol};
use crate::forward::icmp::Refusal;
use crate::forward::nat::{self, End};
use crate::forward::{checksum, decrement_ttl, link};
use crate::hop::{HopId, InterfaceId};
use crate::real::{Method, Path, Real};
use crate::snapshot::Snapshot;
use crate::time::Now;
use crate::wire::{Fragment, Glance, Headers, Packet};

/// How a packet goes to its own destination.
struct Route<'a> {
    /// What becomes its source.
    source: Option<Endpoint>,
    path: Path,
    /// What says so must still live.
    conn: Option<&'a Conn<'a>>,
    counter: &'a Count,
}

/// A packet that pass 1 has looked at.
#[derive(Debug)]
pub struct Inspected {
    headers: Headers,
    hash: FlowHash,
}

impl Inspected {
    /// The packet's headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
}

/// One worker's engine.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    counters: Arc<Counters>,
    sweep: Sweep,
    icmp: Budget,
    resets: Budget,
    idents: Idents,
    worker: u32,
    /// The interface of the packet that is being looked at.
    interface: Cell<u32>,
    /// The last next hop of a client that was asked for.
    last_hop: Cell<Option<((InterfaceId, Address), HopId)>>,
    /// The way to the last client of the short way.
    homeward: Homeward<u32>,
    homeward6: Homeward<u128>,
    /// Keys that connections of this batch owe.
    debts: Debts,
    /// Room for new connections of this batch.
    room: Room,
    /// Under which stamp the ways that are at hand hold, in this batch; and how often the snapshot has changed.
    stamp: Cell<u64>,
    swaps: u64,
    /// May senders have left checksums to hardware, in this batch?
    may_be_partial: Cell<bool>,
    /// Packets that may still open a connection before the next one is dropped, under pressure.
    pressure: Cell<u32>,
}

impl Engine {
    /// The engine of this worker of so many.
    pub fn new(
        shared: Arc<Shared>,
        snapshot: Arc<Snapshot>,
        counters: Arc<Counters>,
        worker: u32,
        workers: u32,
    ) -> Self {
        let sweep = Sweep::new(worker, workers);
        Engine {
            shared,
            snapshot,
            counters,
            sweep,
            icmp: Budget::icmp(),
            resets: Budget::resets(),
            idents: Idents::new(worker, workers),
            worker,
            interface: Cell::new(0),
            last_hop: Cell::new(None),
            homeward: Homeward::default(),
            homeward6: Homeward::default(),
            debts: Debts::default(),
            room: Room::default(),
            stamp: Cell::new(0),
            swaps: 0,
            may_be_partial: Cell::new(true),
            pressure: Cell::new(0),
        }
    }

    /// The next packets came on this interface, counted from 0 in the configuration's order.
    #[inline]
    pub fn arrive_on(&self, interface: u32) {
        self.interface.set(interface);
    }

    /// Of the packet that is being looked at.
    fn arrival(&self) -> open::Arrival {
        let breath = self.counters.breaths.get();
        open::Arrival { interface: self.interface.get(), queue: self.worker, breath }
    }

    /// Takes a new snapshot into use and gives the old one back, to be freed elsewhere.
    pub fn swap(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.swaps += 1;
        std::mem::replace(&mut self.snapshot, snapshot)
    }

    /// The snapshot in use.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Did a packet need a MAC that is not known, since the last call?
    #[inline]
    pub fn take_pending(&self) -> bool {
        self.shared.hops.take_pending()
    }

    /// What this worker counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Pass 1: parses a frame, hashes its flow, and starts to fetch the bucket.
    ///
    /// # Errors
    /// Why the frame goes no further.
    #[inline]
    pub fn inspect(&self, frame: &[u8]) -> Result<Inspected, DropReason> {
        let headers = Headers::parse(frame)?;
        let hash = self.shared.table.hash(&headers.flow);
        self.shared.table.touch(hash);
        Ok(Inspected { headers, hash })
    }

    /// Pass 2: forwards a packet.
    #[inline(always)]
    pub fn forward(&self, packet: &mut Packet<'_>, inspected: Inspected, now: Now) -> Verdict {
        let Inspected { headers, hash } = inspected;
        let verdict = match headers.fragment {
            Fragment::Later(id) => self.later_fragment(packet, headers, id, now),
            _ if headers.flow.protocol.has_ports() => self.flow(packet, headers, hash, None, now),
            _ if headers.flow.protocol.is_ipsec() => self.ipsec(packet, headers, now),
            _ => self.related(packet, headers, now),
        };
        verdict.unwrap_or_else(Verdict::Drop)
    }

    /// A packet with ports: by its connection, or by a new one.
    #[inline(always)]
    fn flow(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        hash: FlowHash,
        glance: Option<&Glance>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let may_be_partial = self.snapshot.may_be_partial() || headers.flow.protocol == Protocol::SCTP;
        if may_be_partial && checksum::complete(packet.bytes_mut(), &headers) {
            self.counters.checksums_completed.add(1);
        }
        match self.shared.table.lookup(&headers.flow, hash).filter(|found| self.holds(found, &headers, now)) {
            Some((conn, side)) => self.known(packet, headers, Bound::Conn(conn), side, true, now),
            None => self.unknown(packet, headers, hash, glance, now),
        }
    }

    /// [`Engine::known`] for packets that come by a longer way. It stays out of line, so that the way of most packets is one
    /// piece of code, through which nothing is copied.
    #[cold]
    #[inline(never)]
    fn aside(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        bound: Bound<'_>,
        side: Side,
        track: bool,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        self.known(packet, headers, bound, side, track, now)
    }

    /// A packet whose way is known. `track`: it has not moved its connection's state yet.
    #[inline(always)]
    fn known(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        mut bound: Bound<'_>,
        side: Side,
        track: bool,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        if let Fragment::First(id) = headers.fragment {
            self.shared.fragments.note(&headers.flow, id, bound.owner(), now);
        }
        if let (Side::Out, Bound::Conn(conn)) = (side, &mut bound) {
            self.counters.at_hand(conn.real()).count_out(headers.ip_len());
            self.track(conn, side, &headers, now);
            return self.outbound(packet, headers, conn, now);
        }
        if let Bound::Outward { real, vip } = bound {
            return self.outward_once(packet, headers, real, vip, now);
        }
        let real = self.shared.arena.get(bound.real());
        if !real.is_available() {
            return self.decline(packet, headers, DropReason::ServerGone, now);
        }
        self.counters.at_hand(bound.real()).count_in(headers.ip_len());
        if let (true, Bound::Conn(conn)) = (track, &mut bound) {
            self.track(conn, side, &headers, now);
        }
        self.inbound(packet, headers, &bound, real, now)
    }

    /// A client's packet to its real server, by the method of its connection.
    #[inline(always)]
    fn inbound(
        &self,
        packet: &mut Packet<'_>,
        mut headers: Headers,
        bound: &Bound<'_>,
        real: Real<'_>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        if headers.ttl(packet.bytes()) <= 1 {
            return self.refuse(packet, headers, Refusal::TimeExceeded, DropReason::TtlExceeded, now);
        }
        let method = bound.method();
        let room = room_to(&real, method, now)?;
        let fits = headers.ip_len() <= room;
        if !fits {
            // Nothing fits the way to nobody.
            if method == Method::Bypass {
                return self.bypass(packet, headers, bound, now);
            }
            if !self.may_cut(packet, &headers, method) {
                return self.too_big(packet, headers, room, now);
            }
        }
        let hop = hop_of(real.path())?;
        decrement_ttl(packet.bytes_mut(), &headers);
        let (l3, family, tags) = (headers.l3, headers.family, headers.tags);
        let (l3, family) = match method {
            Method::Nat => {
                nat::rewrite(packet.bytes_mut(), &mut headers, End::Destination, bound.server())?;
                (l3, family)
            }
            Method::Dr | Method::Bypass => (l3, family),
            Method::Tun => {
                self.wrap(packet, headers, bound, &real, room)?;
                (0, real.endpoint().address.family())
            }
        };
        if !bound.is_current() {
            return Err(DropReason::ConnectionEnded);
        }
        self.counters.inbound.add(1);
        let verdict = self.leave(packet, l3, family, &tags, hop)?;
        Ok(if fits { verdict } else { verdict.cut(way_to(&real, method, now)) })
    }

    /// A real server's packet to its client. With NAT the source becomes the VIP; others send it from there.
    #[inline(always)]
    fn outbound(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        conn: &Conn<'_>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let method = conn.status().flags.method();
        if method == Method::Bypass {
            return self.answer_bypassed(packet, headers, conn, now);
        }
        let source = (method == Method::Nat).then(|| conn.virtual_endpoint());
        let path = conn.reply_path();
        self.route(packet, headers, Route { source, path, conn: Some(conn), counter: &self.counters.outbound }, now)
    }

    /// A packet to its own destination.
    #[inline(always)]
    fn route(
        &self,
        packet: &mut Packet<'_>,
        mut headers: Headers,
        route: Route<'_>,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        if headers.ttl(packet.bytes()) <= 1 {
            return self.refuse(packet, headers, Refusal::TimeExceeded, DropReason::TtlExceeded, now);
        }
        let hop = hop_of(route.path)?;
        let room = self.room_through(hop)?;
        let fits = headers.ip_len() <= room;
        if !fits && headers.dont_fragment(packet.bytes()) {
            return self.too_big(packet, headers, room, now);
        }
        decrement_ttl(packet.bytes_mut(), &headers);
        if let Some(source) = route.source {
            nat::rewrite(packet.bytes_mut(), &mut headers, End::Source, source)?;
        }
        if route.conn.is_some_and(|conn| !conn.is_current()) {
            return Err(DropReason::ConnectionEnded);
        }
        route.counter.add(1);
        let verdict = self.leave(packet, headers.l3, headers.family, &headers.tags, hop)?;
        Ok(if fits { verdict } else { verdict.cut(room) })
    }

    /// The largest IP packet that leaves by a hop's interface.
    #[inline]
    fn room_through(&self, hop: HopId) -> Result<usize, DropReason> {
        let interface = self.shared.hops.get(hop).interface;
        Ok(self.snapshot.interface(interface).ok_or(DropReason::NoRoute)?.mtu as usize)
    }

    /// Writes the link header. Without a MAC yet, the packet is ready but for that.
    #[inline]
    fn leave(
        &self,
        packet: &mut Packet<'_>,
        l3: usize,
        family: Family,
        tags: &crate::wire::Tags,
        id: HopId,
    ) -> Result<Verdict, DropReason> {
        let hop = self.shared.hops.get(id);
        let interface = self.snapshot.interface(hop.interface).ok_or(DropReason::NoRoute)?;
        let port = interface.port.ok_or(DropReason::NotServed)?;
        self.shared.hops.mark_used(id);
        let mac = hop.mac.unwrap_or_default();
        link::write(packet, l3, family, tags, interface, mac).ok_or(DropReason::NoRoom)?;
        match hop.mac {
            Some(_) => Ok(Verdict::Transmit(port)),
            None if hop.failed => {
                self.shared.hops.want(id);
                Err(DropReason::NeighbourUnresolved)
            }
            None => {
                self.shared.hops.want(id);
                Ok(Verdict::Hold(Awaited::Mac { hop: id, mtu: None }))
            }
        }
    }

    /// Asks again for a packet that was held for its next hop's MAC, and must perhaps be cut.
    pub fn release(&self, packet: &mut Packet<'_>, id: HopId, mtu: Option<NonZeroU16>) -> Verdict {
        let hop = self.shared.hops.get(id);
        match (hop.mac, self.snapshot.interface(hop.interface).and_then(|interface| interface.port)) {
            (Some(mac), Some(port)) => {
                link::set_destination(packet, mac);
                mtu.map_or(Verdict::Transmit(port), |mtu| Verdict::Split { port, mtu: mtu.get() })
            }
            (_, None) => Verdict::Drop(DropReason::NotServed),
            (None, _) if hop.failed => Verdict::Drop(DropReason::NeighbourUnresolved),
            (None, _) => Verdict::Hold(Awaited::Mac { hop: id, mtu }),
        }
    }

    /// Ends connections that timed out: a bounded piece of this worker's share.
    pub fn expire(&mut self, now: Now) {
        let Engine { sweep, shared, counters, .. } = self;
        sweep.step(&shared.table, now, |conn| {
            shared.settle(conn);
            counters.expired.add(1);
        });
    }
}

#[inline]
fn hop_of(path: Path) -> Result<HopId, DropReason> {
    match path {
        Path::Hop(hop) => Ok(hop),
        Path::NoRoute => Err(DropReason::NoRoute),
        Path::NotServed => Err(DropReason::NotServed),
        Path::Local => Err(DropReason::LocalServer),
    }
}
