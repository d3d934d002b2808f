//! The way back to clients, as it was found last: that to all of one stretch of addresses, which are behind one gateway.
//!
//! A new NAT connection asks for the way of its answers. Most clients come from few stretches of the routing table, many
//! routers have but one.
//!
//! Invariant: a way holds under the stamp of the batch in which it was found (decision record 0016), and is kept only if its
//! MAC was known then, so that whoever takes it need not ask for one. Not here: which way it is ([`Engine::path_by`]).

use std::cell::Cell;

use super::Engine;
use crate::real::Path;
use crate::route::{Bits, Stretch, Target};

/// What was found.
#[derive(Debug)]
pub(super) struct Homeward<A: Copy> {
    /// The stamp of the batch. (None is as large.)
    stamp: Cell<u64>,
    stretch: Cell<Stretch<A>>,
    /// A path's bits.
    path: Cell<u32>,
}

impl<A: Copy + Default> Default for Homeward<A> {
    fn default() -> Self {
        Homeward { stamp: Cell::new(u64::MAX), stretch: Cell::default(), path: Cell::new(0) }
    }
}

impl Engine {
    /// As [`Engine::path_to`], in bits, by the bits of the client's address. What was found is kept there.
    #[inline(always)]
    pub(super) fn path_home<A: Bits>(&self, client: A, known: &Homeward<A>) -> u32 {
        let holds = known.stamp.get() == self.stamp.get() && known.stretch.get().has(client);
        if holds { known.path.get() } else { self.find_path_home(client, known) }
    }

    #[inline(never)]
    fn find_path_home<A: Bits>(&self, client: A, known: &Homeward<A>) -> u32 {
        let found = self.snapshot.routes().stretch(client);
        let path = self.path_by(found.map(|(_, target)| target), client.address());
        // A neighbour is its own next hop, and of no other address.
        if let (Some((stretch, Target::Via { gateway: Some(_), .. })), Path::Hop(hop)) = (found, path)
            && self.shared.hops.get(hop).mac.is_some()
        {
            known.stamp.set(self.stamp.get());
            known.stretch.set(stretch);
            known.path.set(path.bits());
        }
        path.bits()
    }
}
