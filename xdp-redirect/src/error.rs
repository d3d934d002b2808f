//! What can go wrong between an interface and the program on it, and what a person can do about it.
//!
//! Invariant: every message fits on one line and names the cure. It is not a mirror of errno: what has no cure of its
//! own is [`Error::Other`], with the step that failed and the kernel's word for it.

use std::io;

/// Why the redirect could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not load or attach BPF programs.
    #[error("no right to use BPF: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW")]
    NoPrivilege,

    /// The interface does not exist here, or no longer.
    #[error("no interface {name} (index {ifindex}) in this network namespace: `ip link` lists those there are")]
    NoSuchInterface {
        /// Its name, as it was configured.
        name: String,
        /// The index it was said to have.
        ifindex: u32,
    },

    /// A program that is not ours sits on the interface. It is left alone.
    #[error(
        "{interface} already carries the XDP program '{program}' (id {id}); stop its owner, or detach it with \
         `ip link set dev {interface} xdp off`"
    )]
    Busy {
        /// The interface's name.
        interface: String,
        /// The program's name, as the kernel knows it.
        program: String,
        /// The program's id.
        id: u32,
    },

    /// Another living process balances on the interface.
    #[error("another director is at work on {interface} (XDP program id {id}): stop it first")]
    Taken {
        /// The interface's name.
        interface: String,
        /// The id of the other director's program.
        id: u32,
    },

    /// The driver refuses native mode, and nothing else was allowed.
    #[error(
        "the driver of {interface} refuses native XDP ({reason}): lower the MTU, switch off LRO with \
         `ethtool -K {interface} lro off`, or allow generic mode"
    )]
    NativeRefused {
        /// The interface's name.
        interface: String,
        /// The kernel's word.
        reason: io::Error,
    },

    /// The kernel cannot run the program at all.
    #[error(
        "this kernel cannot run the XDP program ({reason}): Linux 5.15 or newer is needed, with CONFIG_XDP_SOCKETS and CONFIG_DEBUG_INFO_BTF"
    )]
    Unsupported {
        /// The kernel's word.
        reason: String,
    },

    /// The interface was never given to [`crate::Redirect::load`] or [`crate::Redirect::add`].
    #[error("no interface with index {ifindex} is loaded: add it first")]
    UnknownInterface {
        /// The index that was asked for.
        ifindex: u32,
    },

    /// The queue does not exist.
    #[error("{interface} has {queues} queue(s), numbered from 0, thus no queue {queue}: see `ethtool -l {interface}`")]
    QueueOutOfRange {
        /// The interface's name.
        interface: String,
        /// The queue that was asked for.
        queue: u32,
        /// How many there are.
        queues: u32,
    },

    /// The file descriptor is something else than an AF_XDP socket.
    #[error("what was registered for queue {queue} of {interface} is no AF_XDP socket: register the socket itself")]
    NotAnXdpSocket {
        /// The interface's name.
        interface: String,
        /// The queue it was registered for.
        queue: u32,
    },

    /// No room for another key.
    #[error("the map '{map}' is full ({limit} entries): remove services or real servers before adding more")]
    MapFull {
        /// Which map.
        map: &'static str,
        /// How many entries it holds.
        limit: u32,
    },

    /// A prefix has more ranges than the program compares a packet with.
    #[error(
        "{ranges} ranges of ports, protocols and sources concern {prefix}, those of prefixes around it included; \
         {limit} fit: join ranges, or name fewer sources"
    )]
    TooManyRanges {
        /// The prefix.
        prefix: String,
        /// How many it has.
        ranges: usize,
        /// How many it may have.
        limit: usize,
    },

    /// Anything else.
    #[error("cannot {doing}: {reason}; libbpf's own words are logged at level debug")]
    Other {
        /// The step that failed.
        doing: String,
        /// The kernel's word.
        reason: String,
    },
}

impl Error {
    pub(crate) fn other(doing: impl Into<String>, reason: impl ToString) -> Error {
        Error::Other { doing: doing.into(), reason: reason.to_string() }
    }

    /// Names what went wrong while an object was loaded.
    pub(crate) fn from_load(error: &libbpf_rs::Error) -> Error {
        match errno(error) {
            Some(libc::EPERM) => Error::NoPrivilege,
            // What a verifier or a map type that is too old for us answers with.
            Some(libc::EINVAL | libc::EACCES | libc::EOPNOTSUPP | libc::ENOSYS | libc::E2BIG) => {
                Error::Unsupported { reason: error.to_string() }
            }
            _ => Error::other("load the XDP program", error),
        }
    }
}

/// The error number inside an error of libbpf-rs, which neither hands out the number nor the [`io::Error`] it wraps,
/// but always ends in the latter's text. Not finding one costs a more general message, no more.
pub(crate) fn errno(error: &libbpf_rs::Error) -> Option<i32> {
    let text = format!("{error:#}");
    let (_, number) = text.rsplit_once("(os error ")?;
    number.split(')').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the reading of error numbers out of libbpf-rs' text, with and without context around it.
    #[test]
    fn error_numbers_are_found() {
        use libbpf_rs::ErrorExt as _;
        let plain = libbpf_rs::Error::from_raw_os_error(libc::EBUSY);
        assert_eq!(errno(&plain), Some(libc::EBUSY));
        let wrapped = libbpf_rs::Error::from_raw_os_error(libc::EPERM).context("outer (inner)");
        assert_eq!(errno(&wrapped), Some(libc::EPERM));
        assert!(matches!(Error::from_load(&wrapped), Error::NoPrivilege));
    }

    /// Guards the promise that each message is one line.
    #[test]
    fn messages_are_one_line() {
        let errors = [
            Error::NoPrivilege,
            Error::Busy { interface: "eth0".into(), program: "foo".into(), id: 7 },
            Error::NativeRefused { interface: "eth0".into(), reason: io::Error::from_raw_os_error(libc::EINVAL) },
            Error::MapFull { map: "services", limit: 1 },
            Error::TooManyRanges { prefix: "192.0.2.0/24".into(), ranges: 40, limit: 32 },
        ];
        for error in errors {
            assert!(!error.to_string().contains('\n'), "{error}");
            assert!(!error.to_string().contains("  "), "{error}");
        }
    }
}
