//! What can go wrong between the director and the kernel: one line each, with a cure where a person can apply one.
//!
//! Invariant: errors that a caller treats differently (no privilege, no such interface) are variants of their own; the
//! rest carries what was being done and the kernel's word. Not here: answers about routes, which are values of a view.

use std::io;

/// A failed conversation with the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks the right to do this.
    #[error("not permitted to {doing}: run as root, or grant CAP_NET_ADMIN and CAP_NET_RAW")]
    NoPrivilege {
        /// What was tried.
        doing: String,
    },
    /// No interface bears this name.
    #[error("there is no interface {name:?}: `ip link` lists the names that exist here")]
    NoSuchInterface {
        /// The name as given.
        name: String,
    },
    /// No interface has this index (any more).
    #[error(
        "there is no interface with index {link} while trying to {doing}: it was removed, or lives in another namespace"
    )]
    NoSuchLink {
        /// The interface index.
        link: u32,
        /// What was tried.
        doing: String,
    },
    /// The interface has no ethernet address, so it cannot do what was asked.
    #[error("interface {name} is not an ethernet device ({kind}): choose an ethernet port or a VLAN on one")]
    NotEthernet {
        /// The interface.
        name: String,
        /// Its kind, as far as the kernel tells.
        kind: String,
    },
    /// A prefix length that the address family does not have.
    #[error("prefix length {prefix} is too long for {address}: IPv4 has at most 32 bits, IPv6 128")]
    Prefix {
        /// The address.
        address: std::net::IpAddr,
        /// The prefix length as given.
        prefix: u8,
    },
    /// The kernel refused, or a system call failed.
    #[error("cannot {doing}: {source}")]
    Kernel {
        /// What was tried.
        doing: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// An answer that does not follow the protocol.
    #[error("the kernel's answer to \"{doing}\" is not understood ({what}): please report it with the kernel version")]
    Protocol {
        /// What was tried.
        doing: String,
        /// What was wrong.
        what: &'static str,
    },
    /// The tables change faster than they can be read in one piece.
    #[error("the kernel's {table} change faster than they can be read: it is tried again at the next call")]
    Unsettled {
        /// Which table.
        table: &'static str,
    },
}

impl Error {
    /// Gives an I/O error the variant that its number deserves.
    pub(super) fn from_io(doing: impl Into<String>, source: io::Error) -> Error {
        let doing = doing.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::NoPrivilege { doing },
            _ => Error::Kernel { doing, source },
        }
    }

    /// The same for a request about one interface.
    pub(super) fn about_link(link: u32, doing: impl Into<String>, source: io::Error) -> Error {
        let doing = doing.into();
        match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => Error::NoSuchLink { link, doing },
            _ => Error::from_io(doing, source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the promise that callers can tell a missing right from other failures, and that a message is one line.
    #[test]
    fn errors_are_told_apart_and_fit_on_a_line() {
        let denied = Error::from_io("add an address", io::Error::from_raw_os_error(libc::EPERM));
        assert!(matches!(denied, Error::NoPrivilege { .. }));
        let gone = Error::about_link(7, "ask", io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(gone, Error::NoSuchLink { link: 7, .. }));
        let other = Error::about_link(7, "ask", io::Error::from_raw_os_error(libc::EINVAL));
        assert!(matches!(other, Error::Kernel { .. }));
        for error in [denied, gone, other] {
            assert!(!error.to_string().contains('\n'));
        }
    }
}
