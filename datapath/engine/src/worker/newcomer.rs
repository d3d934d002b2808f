//! The first packet of a new IPv6 connection, before it goes the long way.
//!
//! Invariant: a frame whose packet is left alone is as it was. Not here: IPv4's, which is part of the express lane's rest.

use super::Worker;
use crate::engine::{Candidate6, Verdict};
use crate::rings::{Frame, Rings};
use crate::time::Now;
use crate::wire::Packet;

impl<R: Rings> Worker<R> {
    /// What became of the packet, if the short way took it.
    #[inline(always)]
    pub(super) fn welcome6(&mut self, frame: &mut Frame, candidate: &Candidate6, now: Now) -> Option<Verdict> {
        self.engine.arrive_on(frame.port().0.into());
        let (chunk, start) = self.rings.chunk(frame);
        let mut packet = Packet::new(chunk, start, start + frame.len())?;
        let verdict = self.engine.welcome6(&mut packet, candidate, now)?;
        frame.set_packet(frame.at() - start as u64 + packet.start() as u64, packet.len());
        Some(verdict)
    }
}
