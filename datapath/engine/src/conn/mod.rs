//! Connections: one table for all workers, and the state machines of the protocols.

mod calls;
mod entry;
pub mod fragment;
mod guess;
mod index;
mod kinship;
mod quick;
pub mod sctp;
mod shift;
mod slab;
pub mod state;
mod sweep;
pub mod table;
pub mod tcp;
pub mod timeouts;
mod timer;

pub(crate) use entry::birth::{Key4, Key6, New};
pub use entry::{Conn, Flags, Status};
pub use fragment::{Fragments, Owner, PacketKey};
pub(crate) use guess::Guess;
pub(crate) use quick::{Quick, Quick6};
pub(crate) use shift::{Shift, Shifts};
pub use sweep::Sweep;
pub use table::{ConnId, Full, NewConn, Table};
pub(crate) use table::{End4, End6};
pub use timeouts::{Class, Slot, Timeouts};

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client.
    In = 0,
    /// From the real server.
    Out = 1,
    /// From the client, and answers do not come by here (DR, TUN).
    InOnly = 2,
}
