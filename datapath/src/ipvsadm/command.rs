//! What a command line asks for, once it is understood.
//!
//! Invariant: a [`Command`] is well formed by the grammar of ipvsadm; whether the director can carry it out (the
//! service exists, the scheduler is known) is for the director to say.
//!
//! Not here: how it was typed. Two command lines that mean the same are equal values.

use std::net::IpAddr;

use crate::control::protocol::{Action, ServiceId};

/// A command line, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Something for the director that it answers with "done".
    Do(Action),
    /// `-L`: ask and show.
    List {
        /// What to show.
        what: What,
        /// How to show it.
        format: Format,
    },
    /// `-S`: the rules as commands.
    Save {
        /// `-n`: no names.
        numeric: bool,
        /// Write `-x` and `-y`, too; ipvsadm forgets them, so this has to be asked for.
        thresholds: bool,
    },
    /// `-R`: commands from standard input.
    Restore,
    /// `--start-daemon`
    StartDaemon(Daemon),
    /// `--stop-daemon`
    StopDaemon(Role),
    /// `-h`
    Help,
    /// `-v`
    Version,
}

/// What `-L` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Every service.
    All,
    /// One service.
    One(ServiceId),
    /// `-c`: the connection table.
    Connections,
    /// `--timeout`
    Timeouts,
    /// `--daemon`
    Daemons,
}

/// The columns of a listing of services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Columns {
    /// Forwarding method, weight, connections.
    #[default]
    Rules,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConn,
    /// `--tun-info`
    TunInfo,
}

/// How `-L` shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Format {
    /// Which columns.
    pub columns: Columns,
    /// `-n`: no names.
    pub numeric: bool,
    /// `--exact`: no K, M, G, T.
    pub exact: bool,
    /// `--nosort`: the director's own order.
    pub unsorted: bool,
    /// `--json` (ours): the director's answer as it came.
    pub json: bool,
}

/// Part that a sync daemon plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends connections.
    Master,
    /// Receives them.
    Backup,
}

/// A sync daemon as asked for; `None` leaves the value to the director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its part.
    pub role: Role,
    /// `--mcast-interface`
    pub interface: String,
    /// `--syncid`
    pub sync_id: u8,
    /// `--sync-maxlen`
    pub max_len: Option<u16>,
    /// `--mcast-group`
    pub group: Option<IpAddr>,
    /// `--mcast-port`
    pub port: Option<u16>,
    /// `--mcast-ttl`
    pub ttl: Option<u8>,
}

/// A command line that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Exit status: 2 where ipvsadm refuses, 255 where its option parser does.
    pub exit: u8,
    /// A line or two for a person: what is wrong, and what would be right.
    pub message: String,
    /// Whether a restore stops at such a line. ipvsadm stops at all mistakes but those that popt finds after the
    /// command.
    pub ends_restore: bool,
}

impl Usage {
    /// ipvsadm refuses it: exit status 2.
    pub fn wrong(message: impl Into<String>) -> Usage {
        Usage { exit: 2, message: message.into(), ends_restore: true }
    }

    /// The line does not start with a command: exit status 255.
    pub fn no_command(message: impl Into<String>) -> Usage {
        Usage { exit: 255, message: message.into(), ends_restore: true }
    }

    /// popt refuses an option behind the command: exit status 255, and a restore goes on.
    pub fn bad_option(message: impl Into<String>) -> Usage {
        Usage { exit: 255, message: message.into(), ends_restore: false }
    }
}
