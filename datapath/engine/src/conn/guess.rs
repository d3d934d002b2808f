//! A guess: which connection a hash probably leads to, as one look at one bucket tells.
//!
//! It is one number, so that it costs no branch: whatever is too large for the number of a connection is none. Invariant: it
//! says nothing about the connection; who uses it compares the entry that it finds.

use super::ConnId;
use super::table::IPV6;

/// What of a slot differs from a hash, and in the lower 32 bits the number of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guess(pub(super) u64);

impl Guess {
    /// No connection.
    pub(crate) const NONE: Guess = Guess(u64::MAX);

    /// This one.
    #[inline(always)]
    pub(crate) fn of(id: ConnId) -> Self {
        Guess(id.0.into())
    }

    /// Is it none?
    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.0 > u32::MAX.into()
    }

    /// The place of the entry among those of IPv4; beyond all of them if it is none, or one of IPv6.
    #[inline(always)]
    pub(super) fn place(self) -> usize {
        self.0 as usize
    }

    /// The number of the entry among those of IPv6.
    #[inline(always)]
    pub(super) fn place6(self) -> Option<u32> {
        let id = u32::try_from(self.0).ok()?;
        (id & IPV6 != 0).then_some(id & !IPV6)
    }
}
