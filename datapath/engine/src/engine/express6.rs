//! The express lane of IPv6, which fewer packets take than IPv4's.
//!
//! It is a lane of its own beside [`express`](super::express), with the same passes and the same invariant (`tests/express.rs`
//! compares it with the long way, too), so that neither waits for what only the other needs.

use super::{Engine, Tally};
use crate::conn::{Guess, Quick6};
use crate::counters::Way;
use crate::flow::{Address, Family, FlowHash};
use crate::forward::express6::{self, Headers6};
use crate::hop::Port;
use crate::real::Method;
use crate::rings::{Frame, Rings};
use crate::time::Now;
use crate::tunnel::Tunnel;
use crate::wire::Glance6;
use crate::wire::glance::L3;

/// The narrowest way that a tunnel may take, in bytes. (None is wider than a packet's length can tell.)
pub(super) const TUNNEL_MTU: usize = 1280 + express6::OUTER;

/// An IPv6 packet in the express lane.
#[derive(Clone, Copy, Debug)]
pub struct Candidate6 {
    pub(super) glance: Glance6,
    pub(super) hash: FlowHash,
    /// The connection that is probably its own.
    pub(super) guess: Guess,
}

impl Engine {
    /// Pass 1: is the frame one for this lane? Its bucket is then on the way.
    #[inline(always)]
    pub fn glance6(&self, frame: &[u8]) -> Option<Candidate6> {
        let glance = Glance6::of_6(frame)?;
        let hash = self.shared.table.hash_of_6(&glance);
        self.shared.table.touch(hash);
        Some(Candidate6 { glance, hash, guess: Guess::NONE })
    }

    /// Pass 2: whose is it? The entry is then on the way.
    #[inline(always)]
    pub fn guess6(&self, candidate: &mut Candidate6) {
        candidate.guess = self.shared.table.guess6(candidate.hash);
    }

    /// Pass 3: as [`Engine::express`].
    #[inline(always)]
    pub fn express6(
        &self,
        rings: &mut impl Rings,
        frame: &mut Frame,
        candidate: &Candidate6,
        now: Now,
        tally: &mut Tally,
    ) -> Option<Port> {
        let glance = &candidate.glance;
        let conn = self.shared.table.quick6(candidate.guess)?;
        conn.is_steady(glance).then_some(())?;
        let from_client = conn.is_clients(glance);
        (from_client || conn.is_servers(glance)).then_some(())?;
        let headroom = rings.headroom(frame);
        let bytes: &mut Headers6 = rings.head(frame)?;
        let timer = conn.timer();
        let is_fresh = timer.is_fresh(now);
        if !is_fresh && timer.is_over(now) || self.may_be_partial.get() && express6::may_be_partial(bytes, glance) {
            return None;
        }
        let at_hand = self.counters.at_hand(conn.real());
        let port = if from_client {
            let way = self.way_at_hand(at_hand, conn.real())?;
            match conn.method() {
                Method::Dr => self.express6_dr(bytes, glance, &conn, way)?,
                Method::Nat => self.express6_nat(bytes, glance, &conn, way)?,
                Method::Tun => {
                    (headroom >= express6::OUTER).then_some(())?;
                    let tunnel = self.express6_tun(glance, &conn, way, now)?;
                    frame.set_packet(frame.at() - express6::OUTER as u64, L3 + express6::OUTER + glance.ip_len());
                    self.wrap_express6(rings.head(frame)?, glance, tunnel, way);
                }
                Method::Bypass => return None,
            }
            at_hand.count_in(glance.ip_len());
            way.port()
        } else {
            let port = self.express6_out(bytes, glance, &conn)?;
            at_hand.count_out(glance.ip_len());
            tally.outbound += 1;
            port
        };
        if !is_fresh {
            self.restart_steady(&conn, glance, from_client, now);
        }
        Some(port)
    }

    /// A client's packet to its real server by direct routing.
    #[inline(always)]
    fn express6_dr(&self, bytes: &mut Headers6, glance: &Glance6, conn: &Quick6<'_>, way: Way) -> Option<()> {
        (glance.ip_len() <= way.mtu() && conn.is_current()).then_some(())?;
        express6::pass(bytes);
        way.address(express6::macs(bytes));
        Some(())
    }

    /// By NAT.
    #[inline(always)]
    fn express6_nat(&self, bytes: &mut Headers6, glance: &Glance6, conn: &Quick6<'_>, way: Way) -> Option<()> {
        let server = conn.server_end();
        let fits = glance.ip_len() <= way.mtu() && express6::has_checksum(bytes, glance);
        (fits && conn.is_current()).then_some(())?;
        express6::nat_in(bytes, glance, server, conn.shifts().inbound());
        way.address(express6::macs(bytes));
        Some(())
    }

    /// By a tunnel, if it is IP in IP over IPv6 and wide enough: its ends.
    #[inline(always)]
    fn express6_tun(&self, glance: &Glance6, conn: &Quick6<'_>, way: Way, now: Now) -> Option<(Address, Address)> {
        let real = self.shared.arena.get(conn.real());
        let (source, server) = (real.source()?, real.endpoint().address);
        let is_plain = real.tunnel() == Tunnel::Ipip && server.family() == Family::Inet6;
        let (len, mtu) = (glance.ip_len(), if real.has_learned() { real.path_mtu(now) } else { way.mtu() });
        let fits = len + express6::OUTER <= mtu && mtu >= TUNNEL_MTU;
        (is_plain && fits && conn.is_current()).then_some((source, server))
    }

    /// The same, when nothing speaks against it; the bytes begin with the room for its header.
    #[inline(always)]
    fn wrap_express6(&self, bytes: &mut Headers6, glance: &Glance6, (source, server): (Address, Address), way: Way) {
        express6::wrap(bytes, glance.ip_len(), source, server);
        way.address(express6::macs(bytes));
    }

    /// A real server's answer to its client, by NAT.
    #[inline(always)]
    fn express6_out(&self, bytes: &mut Headers6, glance: &Glance6, conn: &Quick6<'_>) -> Option<Port> {
        let (hop, exit) = self.way_out(conn.reply_path())?;
        let virtual_end = conn.virtual_end();
        let may = glance.ip_len() <= exit.mtu as usize && express6::has_checksum(bytes, glance);
        (may && conn.is_current()).then_some(())?;
        express6::nat_out(bytes, glance, virtual_end, conn.shifts().outbound());
        hop.address(exit, express6::macs(bytes));
        Some(exit.port)
    }
}
