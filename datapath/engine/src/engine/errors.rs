//! ICMP errors: those that pass through, and those that the director sends itself, at a limited rate.
//!
//! Invariant: an error never causes another one; a packet that is answered by one counts as dropped, and the answer
//! goes out in its frame.

use std::cell::Cell;

use super::{Bound, Engine, Verdict, hop_of, room_to, way_to};
use crate::conn::{Side, state};
use crate::drop::DropReason;
use crate::flow::{Address, Flow, FlowHash, Protocol};
use crate::forward::icmp::{self, Quote, Refusal};
use crate::forward::nat::End;
use crate::forward::{decrement_ttl, reset};
use crate::real::{Method, Path};
use crate::time::Now;
use crate::wire::{Fragment, Headers, Packet};

/// ICMP errors that a worker sends in a second at most, and at once.
const ICMP_PER_SECOND: u64 = 1000;
const ICMP_BURST: u64 = 100;
/// Resets, likewise: after a restart every client of a director is owed one.
const RESETS_PER_SECOND: u64 = 20_000;
const RESETS_BURST: u64 = 2000;

impl Engine {
    /// An ICMP error about a packet of a connection: to the peer that sent that packet.
    #[cold]
    pub(super) fn related(
        &self,
        packet: &mut Packet<'_>,
        mut headers: Headers,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let quote = Quote::read(packet.bytes(), &headers)?;
        if headers.ttl(packet.bytes()) <= 1 {
            return Err(DropReason::TtlExceeded); // no error about an error
        }
        let flow = quote.flow();
        let hash = self.shared.table.hash(&flow);
        let Some((bound, side)) = self.of_error(&flow, hash, now) else {
            let about = flow.reversed();
            return match quote.open(packet.bytes(), headers.end).filter(|_| !self.is_known(&about)) {
                Some(opened) => self.tunnel_error(packet, headers, opened?, now),
                None => self.passing_error(packet, headers, &about),
            };
        };
        if bound.method() == Method::Bypass {
            // Whoever it is for has the addresses that the packet has.
            return self.pass_error(packet, headers);
        }
        let tags = headers.tags;
        let (mut l3, mut family) = (headers.l3, headers.family);
        let (hop, cut) = if let (Side::Out, Some(conn)) = (side, bound.conn()) {
            let hop = hop_of(conn.reply_path())?;
            let room = self.room_through(hop)?;
            let fits = fits(packet, &headers, room)?;
            decrement_ttl(packet.bytes_mut(), &headers);
            self.counters.at_hand(conn.real()).count_out(headers.ip_len());
            quote.translate(packet.bytes_mut(), &mut headers, End::Source, conn.virtual_endpoint());
            (hop, (!fits).then_some(room))
        } else {
            let real = self.shared.arena.get(bound.real());
            let hop = hop_of(real.path())?;
            let method = bound.method();
            let room = room_to(&real, method, now)?;
            let fits = fits(packet, &headers, room)?;
            decrement_ttl(packet.bytes_mut(), &headers);
            self.counters.at_hand(bound.real()).count_in(headers.ip_len());
            match method {
                Method::Nat => quote.translate(packet.bytes_mut(), &mut headers, End::Destination, bound.server()),
                Method::Dr | Method::Bypass => {}
                Method::Tun => {
                    self.wrap(packet, headers, &bound, &real, room)?;
                    (l3, family) = (0, real.endpoint().address.family());
                }
            }
            (hop, (!fits).then(|| way_to(&real, method, now)))
        };
        self.counters.related.add(1);
        let verdict = self.leave(packet, l3, family, &tags, hop)?;
        Ok(cut.map_or(verdict, |mtu| verdict.cut(mtu)))
    }

    /// The connection that an error goes along with; if it is about none, and that is wanted (`schedule_icmp`), a new one.
    fn of_error(&self, flow: &Flow, hash: FlowHash, now: Now) -> Option<(Bound<'_>, Side)> {
        match self.shared.table.lookup(flow, hash) {
            Some((conn, side)) => Some((Bound::Conn(conn), side)),
            None if self.shared.switches.schedule_icmp.is_on() => self.open_for_error(flow, hash, now).ok(),
            None => None,
        }
    }

    /// Is this a client's flow?
    fn is_known(&self, flow: &Flow) -> bool {
        let found = self.shared.table.lookup(flow, self.shared.table.hash(flow));
        found.is_some_and(|(conn, _)| conn.client() == flow.src)
    }

    /// An error about a client's own packet, on its way from a real server's side to that client (DR, TUN): nothing in it
    /// needs translation, it is only forwarded.
    fn passing_error(&self, packet: &mut Packet<'_>, headers: Headers, quoted: &Flow) -> Result<Verdict, DropReason> {
        if !self.is_known(quoted) || headers.flow.dst.address != quoted.src.address {
            return Err(DropReason::IcmpUnrelated);
        }
        self.pass_error(packet, headers)
    }

    fn pass_error(&self, packet: &mut Packet<'_>, headers: Headers) -> Result<Verdict, DropReason> {
        let hop = hop_of(self.path_to(headers.flow.dst.address))?;
        let room = self.room_through(hop)?;
        let fits = fits(packet, &headers, room)?;
        decrement_ttl(packet.bytes_mut(), &headers);
        self.counters.related.add(1);
        let verdict = self.leave(packet, headers.l3, headers.family, &headers.tags, hop)?;
        Ok(if fits { verdict } else { verdict.cut(room) })
    }

    /// A packet that nobody takes: tells its sender what a host would tell, or says nothing if that is the rule.
    #[cold]
    pub(super) fn decline(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        reason: DropReason,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let switches = &self.shared.switches;
        let is_tcp = headers.flow.protocol == Protocol::TCP;
        let tells = match reason {
            DropReason::NoServer | DropReason::NoService => true,
            DropReason::NoConnectionTcp => switches.reset_unknown.is_on(),
            DropReason::ServerGone => switches.refuse_nodest.is_on(),
            DropReason::NoConnectionReply => switches.nat_icmp_send.is_on() && !state::gives_up(&headers),
            _ => false,
        };
        match reason {
            _ if !tells => Err(reason),
            DropReason::NoService | DropReason::NoConnectionTcp | DropReason::ServerGone if is_tcp => {
                self.reset(packet, headers, reason, now)
            }
            _ => self.refuse(packet, headers, Refusal::PortUnreachable, reason, now),
        }
    }

    /// Resets the client's connection. The packet counts as dropped; the answer goes out in its frame.
    fn reset(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        reason: DropReason,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        if !self.resets.spend(now) || reset::answer(packet, headers).is_none() {
            return Err(reason);
        }
        self.counters.count_drop(reason);
        self.counters.resets_sent.add(1);
        Ok(Verdict::Reflect)
    }

    /// The packet does not fit and must not be cut: tells its sender.
    #[cold]
    pub(super) fn too_big(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        room: usize,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        self.refuse(packet, headers, Refusal::TooBig(room as u32), DropReason::TooBig, now)
    }

    /// Answers the packet's sender with an ICMP error, back the way it came: a client from the VIP that it sent to, a real
    /// server from an address of the director on its side. The packet counts as dropped; the answer goes out in its frame.
    #[cold]
    pub(super) fn refuse(
        &self,
        packet: &mut Packet<'_>,
        headers: Headers,
        refusal: Refusal,
        reason: DropReason,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        let source = self.own_address(&headers.flow).unwrap_or(headers.flow.dst.address);
        if matches!(headers.fragment, Fragment::Later(_)) || !self.icmp.spend(now) {
            return Err(reason);
        }
        if !icmp::refuse(packet, headers, source, refusal) {
            return Err(reason);
        }
        self.counters.count_drop(reason);
        self.counters.icmp_sent.add(1);
        Ok(Verdict::Reflect)
    }
}

impl Engine {
    /// The director's address towards the real server that sent this; `None` for a client's packet.
    fn own_address(&self, flow: &Flow) -> Option<Address> {
        let found = self.shared.table.lookup(flow, self.shared.table.hash(flow));
        let path = match found {
            Some((conn, Side::Out)) => self.shared.arena.get(conn.real()).path(),
            Some((conn, _)) if conn.status().flags.method() == Method::Bypass => self.path_to(flow.src.address),
            Some(_) => return None,
            None if self.snapshot.is_virtual(flow.dst.address) => return None,
            None => self.path_to(flow.src.address),
        };
        let Path::Hop(hop) = path else { return None };
        let interface = self.snapshot.interface(self.shared.hops.get(hop).interface)?;
        let family = flow.family();
        interface.addresses.iter().find(|address| address.family() == family).copied()
    }
}

/// Does an ICMP error fit its way? If not it may be cut, unless it says that it must not be; nobody is told of that one,
/// because an error never causes another.
fn fits(packet: &Packet<'_>, headers: &Headers, room: usize) -> Result<bool, DropReason> {
    let fits = headers.ip_len() <= room;
    if !fits && headers.dont_fragment(packet.bytes()) { Err(DropReason::NeedsFragmentation) } else { Ok(fits) }
}

/// A token bucket for the errors that a worker sends.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u64,
    burst: u64,
    tokens: Cell<u64>,
    last: Cell<Option<Now>>,
}

impl Budget {
    /// For ICMP errors.
    pub(super) fn icmp() -> Self {
        Budget::new(ICMP_PER_SECOND, ICMP_BURST)
    }

    /// For TCP resets.
    pub(super) fn resets() -> Self {
        Budget::new(RESETS_PER_SECOND, RESETS_BURST)
    }

    fn new(per_second: u64, burst: u64) -> Self {
        Budget { per_second, burst, tokens: Cell::new(0), last: Cell::new(None) }
    }

    /// Takes a token, if there is one. Tokens are counted in thousandths.
    pub(super) fn spend(&self, now: Now) -> bool {
        let full = self.burst * 1000;
        let earned = self.last.get().map_or(full, |last| now.since(last) * self.per_second);
        let tokens = (self.tokens.get() + earned).min(full);
        self.last.set(Some(now));
        let enough = tokens >= 1000;
        self.tokens.set(if enough { tokens - 1000 } else { tokens });
        enough
    }
}
