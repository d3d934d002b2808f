//! What a person's command becomes on its way to the director, and what comes back.
//!
//! One JSON object a line over a Unix socket (mode 0600): a [`Request`] up, a [`Response`] down, in lock step. The
//! version stands in both, so that an old tool and a new director refuse each other in words and not by accident.
//!
//! Invariant: these are plain values. They may be wrong (a weight out of range, a service twice); the controller
//! validates them and answers with an [`Answer`] or a [`Refusal`]. Nothing here touches a socket or the engine.

mod marks;
mod mask;
mod pace;
mod rules;
pub mod schedulers;
mod tags;
mod views;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use marks::*;
pub use mask::Mask;
pub use pace::*;
pub use rules::*;
pub use schedulers::{Grants, Options, SchedulerAction, SchedulerAnswer};
pub use tags::Tags;
pub use views::*;

/// Version of the control protocol. It changes when an old tool would misread a new director, or the reverse.
pub const VERSION: u32 = 1;

/// One line from a tool to the director.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub v: u32,
    /// What to do.
    pub action: Action,
}

/// One line from the director to a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`] of the director.
    pub v: u32,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Done, or refused with nothing changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Carried out.
    Ok(Answer),
    /// Refused; the director is as it was.
    Refused(Refusal),
}

/// Everything a tool may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `-A`
    AddService(ServiceSpec),
    /// `-E`: replaces all but the key.
    EditService(ServiceSpec),
    /// `-D`
    DeleteService(ServiceId),
    /// `-C`
    Flush,
    /// `-a`
    AddServer {
        /// The service that it serves.
        service: ServiceId,
        /// The server.
        server: ServerSpec,
    },
    /// `-e`: replaces all but the key.
    EditServer {
        /// The service that it serves.
        service: ServiceId,
        /// The server.
        server: ServerSpec,
    },
    /// `-d`
    DeleteServer {
        /// The service that it serves.
        service: ServiceId,
        /// RIP and port.
        address: SocketAddr,
    },
    /// `xvs mark add`
    AddMark {
        /// The rule.
        rule: MarkRule,
        /// Before all others, instead of behind them.
        #[serde(default)]
        first: bool,
    },
    /// `xvs mark delete`: exactly this rule.
    DeleteMark(MarkRule),
    /// All rules for marks, in their order, instead of those that are.
    ReplaceMarks(Vec<MarkRule>),
    /// `-Z`: one service, or everything.
    Zero(Option<ServiceId>),
    /// `--set`
    SetTimeouts(Timeouts),
    /// `-L`: one service, or all. Answered by [`Answer::Services`].
    Services(Option<ServiceId>),
    /// `xvs mark list`. Answered by [`Answer::Marks`].
    Marks,
    /// `-L -c`. Answered by [`Answer::Connections`].
    Connections,
    /// `-L --timeout`. Answered by [`Answer::Timeouts`].
    Timeouts,
    /// `xvs timeouts`: of one service, or the director's and those of all services that have their own. Answered by
    /// [`Answer::StateTimeouts`].
    StateTimeouts(Option<ServiceId>),
    /// `xvs timeouts --set`: of one service, or the director's. 0 takes a value back.
    SetStateTimeouts {
        /// The service; none for the director's own.
        service: Option<ServiceId>,
        /// The timeouts.
        timeouts: ByState,
        /// Take back all others.
        replace: bool,
    },
    /// `xvs sysctl get` and `list`: these settings, or all if none is named. Answered by [`Answer::Settings`].
    Settings(Vec<String>),
    /// `xvs sysctl set`: all of them, or none. Answered by [`Answer::Settings`].
    Set(Vec<Assignment>),
    /// `xvs scheduler`. Answered by [`Answer::Scheduler`], or [`Answer::Done`] where there is nothing to tell.
    Scheduler(SchedulerAction),
    /// `xvs status`. Answered by [`Answer::Status`].
    Status,
    /// `xvs status --workers`. Answered by [`Answer::Workers`].
    Workers,
    /// `xvs drops`. Answered by [`Answer::Drops`].
    Drops,
    /// `xvs explain`. Answered by [`Answer::Text`].
    Explain {
        /// Transport protocol.
        protocol: Protocol,
        /// CIP:port.
        client: SocketAddr,
        /// VIP:port.
        virtual_address: SocketAddr,
    },
    /// `xvsadm -R`: these, one after the other, each done or refused by itself. Answered by [`Answer::Many`].
    Many(Vec<Action>),
    /// `xvs apply`: the text of a configuration file. Answered by [`Answer::Plan`].
    Apply {
        /// The file's text (TOML).
        document: String,
        /// Say what would change, change nothing.
        dry_run: bool,
        /// The directory that relative paths of the document start from; without, they are refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<PathBuf>,
    },
}

/// What the director says when it did as asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The rules and their counters.
    Services(Services),
    /// The rules for marks, in their order.
    Marks(Vec<MarkView>),
    /// The connection table.
    Connections(Vec<Connection>),
    /// The timeouts in force.
    Timeouts(Timeouts),
    /// Timeouts by state.
    StateTimeouts(Vec<TimeoutSet>),
    /// Settings as they are, in the order in which they were named.
    Settings(Vec<SettingState>),
    /// About plugin schedulers.
    Scheduler(SchedulerAnswer),
    /// The state of the director.
    Status(Box<Status>),
    /// The pace of the workers.
    Workers(PaceView),
    /// Drops by reason.
    Drops(Vec<Drop>),
    /// Sentences for a person.
    Text(String),
    /// What became of each of many actions, in their order.
    Many(Vec<Outcome>),
    /// What a configuration changed, one sentence a change; empty when nothing did.
    Plan(Vec<String>),
}

/// Why the director did not do as asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind, for tools.
    pub kind: RefusalKind,
    /// One sentence for a person: what is wrong, where, and what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind with this sentence.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Refusal { kind, message: message.into() }
    }
}

/// Kinds of refusal; the comments name the kernel's error that a LVS tool would have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// EEXIST on adding a service.
    ServiceExists,
    /// ESRCH on editing, deleting, zeroing or listing a service.
    NoSuchService,
    /// ESRCH on adding, editing or deleting a server.
    ServiceNotDefined,
    /// EEXIST on adding a server.
    ServerExists,
    /// ENOENT on editing or deleting a server.
    NoSuchServer,
    /// A rule for a mark asks for packets that another one asks for already.
    MarkExists,
    /// There is no such rule for a mark.
    NoSuchMark,
    /// ENOENT on adding or editing a service: no such scheduler or persistence engine.
    NoSuchScheduler,
    /// There is no plugin, or no version of it, of this name.
    NoSuchPlugin,
    /// A module is not one that could be taken, or a plugin refuses what it is asked.
    BadPlugin,
    /// A version of a plugin is in use.
    InUse,
    /// ENOENT below `/proc/sys`: no setting has this name.
    NoSuchSetting,
    /// EINVAL.
    Invalid,
    /// ERANGE.
    OutOfRange,
    /// A fixed limit of the director is reached.
    Limit,
    /// Valid, and not available in this director.
    Unsupported,
    /// The configuration document is wrong; the message lists every problem, one a line.
    Document,
    /// The speaker's protocol version is another.
    Version,
    /// The line was not a request.
    Malformed,
}

/// The default path of the control socket.
pub const SOCKET: &str = "/run/xvs/xvs.sock";

/// The environment variable that names another one.
pub const SOCKET_ENV: &str = "XVS_SOCKET";

/// An address with its port, for sentences: `192.0.2.1:80`, `[2001:db8::1]:80`.
pub fn display(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}
