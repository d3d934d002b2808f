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
use crate::conn::{ConnId, Quick, Side, Slot, tcp};
use crate::drop::DropReason;
use crate::flow::{Family, FlowHash};
use crate::forward::express::{self, End4, Headers4, Outer4};
use crate::hop::{Exit, Port, Resolved};
use crate::real::{Method, Path};
use crate::time::Now;
use crate::tunnel::Tunnel;
use crate::wire::{Glance, Headers, Packet, TcpFlags};

/// A packet in the express lane.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    glance: Glance,
    hash: FlowHash,
    /// The connection that is probably its own.
    conn: Option<ConnId>,
}

/// What a batch counts together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    inbound: u64,
    outbound: u64,
    wrapped: u64,
}

impl Tally {
    /// Were packets wrapped? The next ones will need the room before them, too.
    #[inline]
    pub fn has_wrapped(&self) -> bool {
        self.wrapped > 0
    }
}

/// A packet that is ready: where it leaves, and where it stands in its chunk now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The device.
    pub port: Port,
    /// Where it begins.
    pub start: usize,
    /// Its length.
    pub len: usize,
}

/// Ways that a tunnel may take, in bytes: none so narrow that it is refused, none wider than a packet's length can tell.
const TUNNEL_MTU: std::ops::Range<usize> = 128..1 << 16;

impl Engine {
    /// Pass 1: is the frame one for the express lane? Its bucket is then on the way.
    #[inline(always)]
    pub fn glance(&self, frame: &[u8]) -> Option<Candidate> {
        let glance = Glance::of(frame)?;
        let hash = self.shared.table.hash_of(&glance);
        self.shared.table.touch(hash);
        Some(Candidate { glance, hash, conn: None })
    }

    /// Pass 2: whose is it? The entry is then on the way.
    #[inline(always)]
    pub fn guess(&self, candidate: &mut Candidate) {
        candidate.conn = self.shared.table.guess(candidate.hash);
    }

    /// Pass 3: forwards the packet at `start..end` of a chunk, or leaves it and everything else alone.
    #[inline(always)]
    pub fn express(
        &self,
        chunk: &mut [u8],
        (start, end): (usize, usize),
        candidate: &Candidate,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Ready> {
        let Candidate { glance, conn, .. } = candidate;
        let conn = self.shared.table.quick((*conn)?);
        let side = conn.side_of(glance.addresses, glance.ports)?;
        let slot = steady(glance, side, &conn)?;
        let bytes: &mut Headers4 = chunk.get_mut(start..end)?.first_chunk_mut()?;
        if conn.is_over(now) || express::is_partial(bytes, glance) {
            return None;
        }
        let id = conn.real();
        let as_it_is = |port| Ready { port, start, len: end - start };
        let ready = if side == Side::Out {
            let ready = as_it_is(self.express_out(bytes, glance, &conn)?);
            self.counters.real_out(id, glance.len.into());
            tally.outbound += 1;
            ready
        } else {
            let ready = match conn.flags().method() {
                Method::Dr => as_it_is(self.express_dr(bytes, glance, &conn)?),
                Method::Nat => as_it_is(self.express_nat(bytes, glance, &conn)?),
                Method::Tun => {
                    let mut packet = Packet::new(chunk, start, end)?;
                    let port = self.express_tun(&mut packet, glance, &conn, now)?;
                    tally.wrapped += 1;
                    Ready { port, start: packet.start(), len: packet.len() }
                }
                Method::Bypass => return None,
            };
            self.counters.real_in(id, glance.len.into());
            tally.inbound += 1;
            ready
        };
        conn.touch(now, self.shared.timeouts.get(conn.class(), slot), side != Side::Out);
        Some(ready)
    }

    /// What became of a packet that the express lane left alone: the way of a new connection's first packet, or the long
    /// way, without reading its headers again.
    #[inline(always)]
    pub fn forward_seen(&self, packet: &mut Packet<'_>, candidate: &Candidate, now: Now) -> Verdict {
        let Candidate { glance, hash, conn } = candidate;
        let welcomed = if conn.is_none() { self.welcome(packet, glance, *hash, now) } else { None };
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
        let quick = self.shared.table.quick(conn);
        let port = match quick.flags().method() {
            Method::Dr => self.express_dr(packet.head_mut()?, glance, &quick)?,
            Method::Nat => self.express_nat(packet.head_mut()?, glance, &quick)?,
            // A SYN may have its MSS lowered.
            Method::Tun if !self.shared.switches.mss_clamp.is_on() => self.express_tun(packet, glance, &quick, now)?,
            Method::Tun | Method::Bypass => return None,
        };
        self.counters.real_in(quick.real(), glance.len.into());
        self.counters.inbound.add(1);
        Some(port)
    }

    /// A client's packet to its real server by direct routing.
    #[inline(always)]
    fn express_dr(&self, bytes: &mut Headers4, glance: &Glance, conn: &Quick<'_>) -> Option<Port> {
        let real = self.shared.arena.get(conn.real());
        let (hop, exit) = self.way_out(real.path())?;
        let may = real.is_available() && usize::from(glance.len) <= real.mtu();
        (may && conn.is_current()).then_some(())?;
        express::pass(bytes);
        hop.address(exit, express::macs(bytes));
        Some(exit.port)
    }

    /// By NAT.
    #[inline(always)]
    fn express_nat(&self, bytes: &mut Headers4, glance: &Glance, conn: &Quick<'_>) -> Option<Port> {
        let real = self.shared.arena.get(conn.real());
        let (hop, exit) = self.way_out(real.path())?;
        let (address, port) = conn.server_end();
        let fits = real.is_available() && usize::from(glance.len) <= real.mtu();
        (fits && express::has_checksum(bytes, glance) && conn.is_current()).then_some(())?;
        express::nat_in(bytes, glance, End4 { address, port });
        hop.address(exit, express::macs(bytes));
        Some(exit.port)
    }

    /// By a tunnel, if it is IP in IP over IPv4 and wide enough.
    #[inline(always)]
    fn express_tun(&self, packet: &mut Packet<'_>, glance: &Glance, conn: &Quick<'_>, now: Now) -> Option<Port> {
        let real = self.shared.arena.get(conn.real());
        let (hop, exit) = self.way_out(real.path())?;
        let (source, server) = real.plain_tunnel()?;
        let (len, mtu) = (usize::from(glance.len), real.path_mtu(now));
        let fits = len + Tunnel::Ipip.overhead(Family::Inet) <= mtu && TUNNEL_MTU.contains(&mtu);
        (fits && real.is_available() && conn.is_current()).then_some(())?;
        let bytes = express::widen(packet, len)?;
        let stays_whole = self.shared.switches.pmtu_disc.is_on() && express::dont_fragment(bytes);
        let ident = if stays_whole { None } else { Some(self.next_ident()) };
        express::wrap(bytes, len, Outer4 { source, server, ident });
        hop.address(exit, express::macs(bytes));
        Some(exit.port)
    }

    /// A real server's answer to its client, by NAT.
    #[inline(always)]
    fn express_out(&self, bytes: &mut Headers4, glance: &Glance, conn: &Quick<'_>) -> Option<Port> {
        let (hop, exit) = self.way_out(conn.reply_path())?;
        let (address, port) = conn.virtual_end();
        let may = u32::from(glance.len) <= exit.mtu && express::has_checksum(bytes, glance);
        (may && conn.is_current()).then_some(())?;
        express::nat_out(bytes, glance, End4 { address, port });
        hop.address(exit, express::macs(bytes));
        Some(exit.port)
    }

    /// The way out, if it leads to a known MAC and leaves untagged frames untagged.
    #[inline(always)]
    fn way_out(&self, path: Path) -> Option<(Resolved, &Exit)> {
        let Path::Hop(id) = path else { return None };
        let hop = self.shared.hops.resolved(id)?;
        if !hop.is_marked() {
            self.shared.hops.mark_used(id);
        }
        Some((hop, self.snapshot.exit(hop.interface())?))
    }

    /// The end of a batch: counts what it has counted together, and does what it has put off.
    #[inline]
    pub fn settle_tally(&self, tally: Tally) {
        self.counters.inbound.add(tally.inbound);
        self.counters.outbound.add(tally.outbound);
        self.pay_debts();
    }
}

/// The timeout that starts again, if the packet does no more to its connection than that.
#[inline(always)]
fn steady(glance: &Glance, side: Side, conn: &Quick<'_>) -> Option<Slot> {
    const DECIDE: u8 = TcpFlags::RST | TcpFlags::SYN | TcpFlags::FIN | TcpFlags::ACK;
    if glance.is_udp() {
        // A server's answer may assure the template.
        return (side != Side::Out || !conn.has_parent()).then_some(Slot::UDP);
    }
    let stays = glance.tcp.0 & DECIDE == TcpFlags::ACK && conn.state() == tcp::State::Established as u8;
    stays.then_some(Slot::tcp(tcp::State::Established))
}
