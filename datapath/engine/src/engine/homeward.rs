//! The way back to clients, as it was found last: that to all of one stretch of addresses, which are behind one gateway.
//!
//! A new NAT connection asks for the way of its answers. Most clients come from few stretches of the routing table, many
//! routers have but one.
//!
//! Invariant: a way holds under the stamp of the batch in which it was found (decision record 0016), and is kept only if its
//! MAC was known then, so that whoever takes it need not ask for one. Not here: which way it is ([`Engine::path_by`]).

use std::cell::Cell;

use super::Engine;
use crate::flow::Address;
use crate::real::Path;
use crate::route::Target;

/// What was found.
#[derive(Debug)]
pub(super) struct Homeward {
    /// The stamp of the batch. (None is as large.)
    stamp: Cell<u64>,
    /// The first address of the stretch, how many there are behind it, and the path's bits.
    found: Cell<(u32, u32, u32)>,
}

impl Default for Homeward {
    fn default() -> Self {
        Homeward { stamp: Cell::new(u64::MAX), found: Cell::new((0, 0, 0)) }
    }
}

impl Engine {
    /// As [`Engine::path_to`], by the bits of an IPv4 client's address, in bits.
    #[inline(always)]
    pub(super) fn path_home(&self, client: u32) -> u32 {
        let (first, behind, path) = self.homeward.found.get();
        let holds = self.homeward.stamp.get() == self.stamp.get() && client.wrapping_sub(first) <= behind;
        if holds { path } else { self.find_path_home(client) }
    }

    #[inline(never)]
    fn find_path_home(&self, client: u32) -> u32 {
        let found = self.snapshot.routes().stretch4(client);
        let path = self.path_by(found.as_ref().map(|(_, target)| *target), Address::v4(client.to_be_bytes()));
        // A neighbour is its own next hop, and of no other address.
        if let (Some((stretch, Target::Via { gateway: Some(_), .. })), Path::Hop(hop)) = (found, path)
            && self.shared.hops.get(hop).mac.is_some()
        {
            self.homeward.stamp.set(self.stamp.get());
            self.homeward.found.set((*stretch.start(), stretch.end() - stretch.start(), path.bits()));
        }
        path.bits()
    }
}
