//! Where a packet goes: the server of its connection, or one that was chosen for this packet alone; or out, without a
//! connection.

use crate::conn::{Conn, Owner};
use crate::flow::Endpoint;
use crate::real::{Method, RealId};

/// A packet's way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound<'t> {
    /// By its connection.
    Conn(Conn<'t>),
    /// By a choice that was made for it alone (one-packet scheduling).
    Once {
        /// The server.
        real: RealId,
        /// The method at this moment.
        method: Method,
        /// RIP and the port there.
        server: Endpoint,
    },
    /// Not to a server but from one, which began it without a connection (one-packet scheduling by NAT).
    Outward {
        /// The server.
        real: RealId,
        /// VIP and port, where it seems to come from.
        vip: Endpoint,
    },
}

impl<'t> Bound<'t> {
    /// The real server.
    #[inline]
    pub(super) fn real(&self) -> RealId {
        match self {
            Bound::Conn(conn) => conn.real(),
            Bound::Once { real, .. } | Bound::Outward { real, .. } => *real,
        }
    }

    /// The forwarding method.
    #[inline]
    pub(super) fn method(&self) -> Method {
        match self {
            Bound::Conn(conn) => conn.status().flags.method(),
            Bound::Once { method, .. } => *method,
            Bound::Outward { .. } => Method::Nat,
        }
    }

    /// What a NAT puts into the packet: RIP (only for NAT: tunnels may lead to the other family) and the port there, or
    /// on the way out the VIP.
    #[inline]
    pub(super) fn server(&self) -> Endpoint {
        match self {
            Bound::Conn(conn) => conn.server(),
            Bound::Once { server, .. } => *server,
            Bound::Outward { vip, .. } => *vip,
        }
    }

    /// The connection, if there is one.
    #[inline]
    pub(super) fn conn(&self) -> Option<Conn<'t>> {
        match self {
            Bound::Conn(conn) => Some(*conn),
            Bound::Once { .. } | Bound::Outward { .. } => None,
        }
    }

    /// Does the connection still live? If so, what was read of it belongs together.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.conn().is_none_or(|conn| conn.is_current())
    }

    /// Whom the later fragments of a packet belong to.
    pub(super) fn owner(&self) -> Owner {
        match self {
            Bound::Conn(conn) => Owner::Connection(conn.id()),
            // A fragment that goes out has an entry.
            Bound::Once { real, .. } | Bound::Outward { real, .. } => Owner::Once(*real),
        }
    }
}
