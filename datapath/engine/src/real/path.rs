//! A way: the next hop, or why there is none.
//!
//! Invariant: one word says it, so that it changes in one step. Not here: who finds it.

use crate::hop::HopId;

/// The way to a real server, or of a connection's packets to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By this next hop.
    Hop(HopId),
    /// No route, or an unreachable one.
    NoRoute,
    /// By an interface that the director does not serve.
    NotServed,
    /// The address is the director's own.
    Local,
}

const PATH_NO_ROUTE: u32 = u32::MAX;
const PATH_NOT_SERVED: u32 = u32::MAX - 1;
const PATH_LOCAL: u32 = u32::MAX - 2;

impl Path {
    /// The word, as connections and records keep it.
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Path::Hop(HopId(id)) => id,
            Path::NoRoute => PATH_NO_ROUTE,
            Path::NotServed => PATH_NOT_SERVED,
            Path::Local => PATH_LOCAL,
        }
    }

    /// From its word.
    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        match bits {
            PATH_NO_ROUTE => Path::NoRoute,
            PATH_NOT_SERVED => Path::NotServed,
            PATH_LOCAL => Path::Local,
            id => Path::Hop(HopId(id)),
        }
    }
}
