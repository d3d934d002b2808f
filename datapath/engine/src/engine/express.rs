//! The express lane: packets of known connections that nothing special happens to, which are nearly all.
//!
//! ```text
//! glance    read the packet's words, hash, start to fetch the bucket          (pass 1 of a batch)
//! guess     the connection's number, start to fetch its entry                 (pass 2)
//! express   check everything, then rewrite and address the packet, and count  (pass 3)
//! ```
//!
//! Invariant: what [`Engine::express`] does to a packet, a connection and the counts is what [`Engine::forward`] does to
//! them (`tests/express.rs` compares the two); and it does nothing unless it does everything (but
//! that it may mark a next hop as in use, which only keeps that fresh). Whatever it does not
//! know, a new connection above all, is left to `forward`: nothing here is needed for a packet to arrive.

use super::{Engine, Verdict};
use crate::conn::{ConnId, Guess, Quick, Slot, tcp};
use crate::counters::{AtHand, Way};
use crate::drop::DropReason;
use crate::flow::{Family, FlowHash};
use crate::forward::express::{self, Headers4, Outer4};
use crate::hop::{Exit, HopId, Port, Resolved};
use crate::real::{Method, RealId};
use crate::rings::{Frame, Rings};
use crate::time::Now;
use crate::tunnel::Tunnel;
use crate::wire::{Glance, Headers, Packet};

/// A packet in the express lane.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    glance: Glance,
    hash: FlowHash,
    /// The connection that is probably its own.
    guess: Guess,
}

impl Candidate {
    /// No packet for the express lane.
    pub const NONE: Candidate =
        Candidate { glance: Glance { addresses: 0, rest: 0 }, hash: FlowHash(0), guess: Guess::NONE };

    /// Is it none?
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.glance.rest == 0
    }
}

/// What a batch counts together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    forwarded: u64,
    pub(super) outbound: u64,
    wraps: bool,
}

impl Tally {
    /// Were packets wrapped? The next ones will need the room before them, too.
    #[inline]
    pub fn has_wrapped(&self) -> bool {
        self.wraps
    }

    /// The express lane has forwarded so many.
    #[inline]
    pub fn count(&mut self, packets: usize) {
        self.forwarded += packets as u64;
    }
}

/// The ends of a tunnel.
struct Tunnelled {
    source: u32,
    server: u32,
}

/// The narrowest way that is taken here, in bytes: a tunnel may take none that is narrower. (None is wider than a packet's
/// length can tell.)
const LEAST_MTU: usize = 128;

impl Engine {
    /// Pass 1: is the frame one for the express lane? Its bucket is then on the way.
    #[inline(always)]
    pub fn glance(&self, frame: &[u8]) -> Option<Candidate> {
        let glance = Glance::of(frame)?;
        let hash = self.shared.table.hash_of(&glance);
        self.shared.table.touch(hash);
        Some(Candidate { glance, hash, guess: Guess::NONE })
    }

    /// A batch begins: ways that have changed since the last one do not hold any more.
    #[inline]
    pub fn begin_batch(&self) {
        self.stamp.set(1 + self.swaps + self.shared.changes());
        self.may_be_partial.set(self.snapshot.may_be_partial());
    }

    /// Pass 2: whose are they? Their entries are then on the way.
    #[inline(never)]
    pub fn guess(&self, candidates: &mut [Candidate]) {
        let guess = self.shared.table.guesser();
        candidates.iter_mut().for_each(|candidate| candidate.guess = guess(candidate.hash));
    }

    /// Pass 3: forwards the packet in a frame of these rings, and gives the device that it leaves by; or leaves it and
    /// everything else alone.
    #[inline(always)]
    pub fn express(
        &self,
        rings: &mut impl Rings,
        frame: &mut Frame,
        candidate: &Candidate,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Port> {
        let conn = self.shared.table.quick(candidate.guess)?;
        if conn.timer().is_fresh(now) {
            return self.express_by::<true>(conn, rings, frame, &candidate.glance, now, tally);
        }
        self.express_stale(conn, rings, frame, &candidate.glance, now, tally)
    }

    /// The same for a connection whose timer is to start again: a piece of code of its own, so that the other knows nothing of
    /// timers.
    #[inline(never)]
    fn express_stale(
        &self,
        conn: Quick<'_>,
        rings: &mut impl Rings,
        frame: &mut Frame,
        glance: &Glance,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Port> {
        if conn.timer().is_over(now) {
            return None;
        }
        self.express_by::<false>(conn, rings, frame, glance, now, tally)
    }

    #[inline(always)]
    fn express_by<const FRESH: bool>(
        &self,
        conn: Quick<'_>,
        rings: &mut impl Rings,
        frame: &mut Frame,
        glance: &Glance,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Port> {
        if !conn.is_steady(glance) {
            return None;
        }
        if !conn.is_clients(glance) {
            conn.is_servers(glance).then_some(())?;
            let at_hand = self.counters.at_hand(conn.real());
            let port = self.express_out(self.head(rings, frame, glance)?, glance, &conn)?;
            at_hand.count_out(glance.ip_len());
            tally.outbound += 1;
            if !FRESH {
                self.restart_steady(&conn, glance, false, now);
            }
            return Some(port);
        }
        let real = conn.real();
        let at_hand = self.counters.at_hand(real);
        let bytes = self.head(rings, frame, glance)?;
        let way = self.way_at_hand(at_hand, real)?;
        match conn.method() {
            Method::Dr => self.express_dr(bytes, glance, &conn, way)?,
            Method::Nat => self.express_nat(bytes, glance, &conn, way)?,
            Method::Tun => {
                let tunnel = self.express_tun(glance, &conn, way, now)?;
                (rings.headroom(frame) >= express::OUTER).then_some(())?;
                frame.set_packet(frame.at() - express::OUTER as u64, express::OUTER + express::L3 + glance.ip_len());
                let bytes = rings.head(frame)?;
                tally.wraps = true;
                self.wrap_express(bytes, glance, &tunnel, way);
            }
            Method::Bypass => return None,
        }
        at_hand.count_in(glance.ip_len());
        if !FRESH {
            self.restart_steady(&conn, glance, true, now);
        }
        Some(way.port())
    }

    /// The head of the packet in a frame; unless its checksum may have been left to hardware.
    #[inline(always)]
    fn head<'r>(&self, rings: &'r mut impl Rings, frame: &Frame, glance: &Glance) -> Option<&'r mut Headers4> {
        let bytes: &mut Headers4 = rings.head(frame)?;
        let is_whole = !(self.may_be_partial.get() && express::may_be_partial(bytes, glance));
        is_whole.then_some(bytes)
    }

    /// The timer of a connection in the state that the express lane knows.
    #[inline(always)]
    pub(super) fn restart_steady<A, const N: usize>(
        &self,
        conn: &Quick<'_, N>,
        glance: &Glance<A>,
        from_client: bool,
        now: Now,
    ) {
        let slot = if glance.is_udp() { Slot::UDP } else { Slot::tcp(tcp::State::Established) };
        conn.restart(now, self.shared.timeouts.get(conn.class(), slot), from_client);
    }

    /// What became of a packet that the express lane left alone: the way of a new connection's first packet, or the long
    /// way, without reading its headers again.
    #[inline(always)]
    pub fn forward_seen(&self, packet: &mut Packet<'_>, candidate: &Candidate, now: Now) -> Verdict {
        let Candidate { glance, hash, guess } = candidate;
        let welcomed = if guess.is_none() { self.welcome(packet, glance, *hash, now) } else { None };
        welcomed.unwrap_or_else(|| self.flow_seen(packet, glance, *hash, now)).unwrap_or_else(Verdict::Drop)
    }

    #[inline(never)]
    fn flow_seen(
        &self,
        packet: &mut Packet<'_>,
        glance: &Glance,
        hash: FlowHash,
        now: Now,
    ) -> Result<Verdict, DropReason> {
        self.flow(packet, Headers::seen(glance), hash, Some(glance), now)
    }

    /// The first packet of a connection that was made for it just now: its state has followed it already.
    #[inline(always)]
    pub(super) fn express_new(&self, packet: &mut Packet<'_>, glance: &Glance, conn: ConnId, now: Now) -> Option<Port> {
        let quick = self.shared.table.quick(Guess::of(conn))?;
        let at_hand = self.counters.at_hand(quick.real());
        let way = self.way_at_hand(at_hand, quick.real())?;
        match quick.method() {
            Method::Dr => self.express_dr(packet.head_mut()?, glance, &quick, way)?,
            Method::Nat => self.express_nat(packet.head_mut()?, glance, &quick, way)?,
            // A SYN may have its MSS lowered.
            Method::Tun if !self.shared.switches.mss_clamp.is_on() => {
                let tunnel = self.express_tun(glance, &quick, way, now)?;
                self.wrap_express(express::widen(packet, glance.ip_len())?, glance, &tunnel, way);
            }
            Method::Tun | Method::Bypass => return None,
        }
        at_hand.count_in(glance.ip_len());
        self.counters.inbound.add(1);
        Some(way.port())
    }

    /// A client's packet to its real server by direct routing.
    #[inline(always)]
    fn express_dr(&self, bytes: &mut Headers4, glance: &Glance, conn: &Quick<'_>, way: Way) -> Option<()> {
        (glance.ip_len() <= way.mtu() && conn.is_current()).then_some(())?;
        express::pass(bytes);
        way.address(express::macs(bytes));
        Some(())
    }

    /// By NAT.
    #[inline(always)]
    fn express_nat(&self, bytes: &mut Headers4, glance: &Glance, conn: &Quick<'_>, way: Way) -> Option<()> {
        let server = conn.server_end();
        let fits = glance.ip_len() <= way.mtu() && express::has_checksum(bytes, glance);
        (fits && conn.is_current()).then_some(())?;
        express::nat_in(bytes, glance, server, conn.shifts().inbound());
        way.address(express::macs(bytes));
        Some(())
    }

    /// By a tunnel, if it is IP in IP over IPv4 and wide enough.
    #[inline(always)]
    fn express_tun(&self, glance: &Glance, conn: &Quick<'_>, way: Way, now: Now) -> Option<Tunnelled> {
        let real = self.shared.arena.get(conn.real());
        let (source, server) = real.plain_tunnel()?;
        let mtu = match real.has_learned() {
            true => Some(real.path_mtu(now)).filter(|&mtu| mtu >= LEAST_MTU)?,
            false => way.mtu(),
        };
        let fits = glance.ip_len() + Tunnel::Ipip.overhead(Family::Inet) <= mtu;
        (fits && conn.is_current()).then_some(Tunnelled { source, server })
    }

    /// The same, when nothing speaks against it and there is room before the packet.
    #[inline(always)]
    fn wrap_express(&self, bytes: &mut Headers4, glance: &Glance, tunnel: &Tunnelled, way: Way) {
        let &Tunnelled { source, server } = tunnel;
        let stays_whole = self.shared.switches.pmtu_disc.is_on() && express::dont_fragment(bytes);
        let ident = if stays_whole { None } else { Some(self.next_ident()) };
        express::wrap(bytes, glance.ip_len(), Outer4 { source, server, ident });
        way.address(express::macs(bytes));
    }

    /// A real server's answer to its client, by NAT.
    #[inline(always)]
    fn express_out(&self, bytes: &mut Headers4, glance: &Glance, conn: &Quick<'_>) -> Option<Port> {
        let (hop, exit) = self.way_out(conn.reply_path())?;
        let virtual_end = conn.virtual_end();
        let may = glance.ip_len() <= exit.mtu as usize && express::has_checksum(bytes, glance);
        (may && conn.is_current()).then_some(())?;
        express::nat_out(bytes, glance, virtual_end, conn.shifts().outbound());
        hop.address(exit, express::macs(bytes));
        Some(exit.port)
    }

    /// The way to a real server that is in its list, as it was at the begin of the batch.
    #[inline(always)]
    pub(super) fn way_at_hand(&self, at_hand: AtHand<'_>, id: RealId) -> Option<Way> {
        at_hand.way(self.stamp.get()).or_else(|| self.look_up_way(at_hand, id))
    }

    #[inline(never)]
    fn look_up_way(&self, at_hand: AtHand<'_>, id: RealId) -> Option<Way> {
        let real = self.shared.arena.get(id);
        let reach = real.reach();
        (reach.is_available() && real.mtu() >= LEAST_MTU).then_some(())?;
        let (hop, exit) = self.way_out(reach.path())?;
        let way = Way::new(hop, exit, real.mtu());
        at_hand.note_way(way, self.stamp.get());
        Some(way)
    }

    /// The way out by the bits of a path, if it leads to a known MAC and leaves untagged frames untagged.
    #[inline(always)]
    pub(super) fn way_out(&self, path: u32) -> Option<(Resolved, &Exit)> {
        let hop = self.shared.hops.resolved(path)?;
        if !hop.is_marked() {
            self.shared.hops.mark_used(HopId(path));
        }
        Some((hop, self.snapshot.exit(hop.interface())?))
    }

    /// The end of a batch: counts what it has counted together, and does what it has put off.
    #[inline]
    pub fn settle_tally(&self, tally: Tally) {
        self.counters.inbound.add(tally.forwarded - tally.outbound);
        self.counters.outbound.add(tally.outbound);
        self.pay_debts();
    }
}
