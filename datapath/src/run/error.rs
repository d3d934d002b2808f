//! Why the director does not run: one line for a person, with the cure, and an exit code for each kind.

use std::io;
use std::path::PathBuf;

use crate::config::{Problem, desired};
use crate::control::socket::SocketError;
use crate::kernel;
use crate::xsk::BindError;

/// Why the director does not run. Each kind has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The configuration can not be read.
    #[error("can not read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No interface to serve.
    #[error("no interface to serve: name one with --interface, or write an [[interface]] table into the configuration")]
    NoInterface,
    /// The interface or its kernel side is not as needed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The XDP program.
    #[error(transparent)]
    Redirect(#[from] xvs_redirect::Error),
    /// The interfaces' queues do not match.
    #[error(
        "{first} has {first_queues} queues and {other} {other_queues}, and each worker needs one on both: make them equal \
         (`ethtool -L {first} combined {fewer}`, the same for {other}), or set `queues = {fewer}` for both"
    )]
    Queues {
        /// One interface.
        first: String,
        /// Its queues.
        first_queues: u32,
        /// Another one.
        other: String,
        /// Its queues.
        other_queues: u32,
        /// The smaller number.
        fewer: u32,
    },
    /// A queue number that the interface does not have.
    #[error(
        "{interface} has {have} receive queues, `queues = {asked}` is too many: lower it, or `ethtool -L {interface} combined {asked}`"
    )]
    TooManyQueues {
        /// The interface.
        interface: String,
        /// Its queues.
        have: u32,
        /// What was asked.
        asked: u32,
    },
    /// Packets do not fit into a frame.
    #[error(
        "frames of {size} bytes hold packets of {room} bytes, {interface} has MTU {mtu}: set `size = 4096` in [frames], or lower the MTU"
    )]
    FrameSize {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Frame size.
        size: u32,
        /// What fits.
        room: u32,
    },
    /// The connection table.
    #[error(
        "there is no memory for a table of {connections} connections (up to {megabytes} MiB): lower `capacity` in [connections]"
    )]
    Table {
        /// Entries.
        connections: u32,
        /// The table's size when it is full.
        megabytes: u64,
    },
    /// Sockets.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The rules were refused.
    #[error("the configuration is refused: {0}")]
    Refused(String),
    /// Threads, random numbers, signals.
    #[error("can not {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl RunError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Configuration(_) | RunError::Refused(_) | RunError::NoInterface => 2,
            RunError::File { .. } => 3,
            RunError::Kernel(kernel::Error::NoPrivilege { .. })
            | RunError::Redirect(xvs_redirect::Error::NoPrivilege) => 4,
            RunError::Kernel(kernel::Error::NoSuchInterface { .. } | kernel::Error::NotEthernet { .. })
            | RunError::Redirect(xvs_redirect::Error::NoSuchInterface { .. }) => 5,
            RunError::Redirect(xvs_redirect::Error::Busy { .. } | xvs_redirect::Error::Taken { .. }) => 6,
            RunError::Redirect(xvs_redirect::Error::Unsupported { .. } | xvs_redirect::Error::NativeRefused { .. }) => {
                7
            }
            RunError::Queues { .. } | RunError::TooManyQueues { .. } => 8,
            RunError::Redirect(xvs_redirect::Error::QueueOutOfRange { .. }) => 8,
            RunError::Bind(_) | RunError::FrameSize { .. } | RunError::Table { .. } => 9,
            RunError::Socket(_) => 10,
            RunError::Kernel(_) | RunError::Redirect(_) | RunError::System { .. } => 11,
        }
    }
}

impl From<Vec<Problem>> for RunError {
    fn from(problems: Vec<Problem>) -> Self {
        RunError::Configuration(desired::report(&problems))
    }
}
