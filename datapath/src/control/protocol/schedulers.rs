//! Plugin schedulers: what is asked about them, and what is told.
//!
//! A plugin is a WebAssembly module. The director keeps versions of it under a name; a service names it as
//! `wasm:NAME`. Invariant: these are plain values, which may be wrong; whether they are is for `config::rules` and for
//! the director's registry to say.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::rules::ServiceId;

/// What stands before a plugin's name where a scheduler is named (`-s wasm:NAME`).
pub const PREFIX: &str = "wasm:";

/// Options of a service for its plugin, by their names: the text that the plugin gets.
pub type Options = BTreeMap<String, String>;

/// The plugin's name, if a scheduler's name is that of a plugin.
pub fn plugin(scheduler: &str) -> Option<&str> {
    scheduler.strip_prefix(PREFIX)
}

/// What a module may import beyond nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Grants {
    /// `now`: the time.
    pub time: bool,
    /// `random`: random numbers that the director seeds.
    pub random: bool,
    /// `log`: lines for the director's log.
    pub log: bool,
}

impl Grants {
    /// All names.
    pub const NAMES: [&'static str; 3] = ["time", "random", "log"];
}

impl From<Grants> for xvs_host::Grants {
    fn from(Grants { time, random, log }: Grants) -> Self {
        xvs_host::Grants { time, random, log }
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        xvs_host::Grants::from(*self).fmt(f)
    }
}

impl FromStr for Grants {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let xvs_host::Grants { time, random, log } = text.parse()?;
        Ok(Grants { time, random, log })
    }
}

impl From<Grants> for String {
    fn from(grants: Grants) -> String {
        grants.to_string()
    }
}

impl TryFrom<String> for Grants {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What `swap` shall bring into service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapTo {
    /// The newest version.
    Newest,
    /// This version.
    Version(u32),
    /// This file, which becomes the newest version if it is not that already.
    File(PathBuf),
}

/// What a service tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Candidate {
    /// The newest version of this name.
    Name(String),
    /// This file, which becomes a version of its stem's name.
    File(PathBuf),
}

/// How a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialKind {
    /// It is asked beside the live scheduler, and its answers are only compared.
    Shadow {
        /// One pick in so many is compared, from 1.
        one_in: u32,
    },
    /// It really chooses for a share of the new connections.
    Canary {
        /// So many in a thousand, 1 to 1000.
        per_mille: u32,
    },
}

/// `xvs scheduler ...`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerAction {
    /// A file becomes a version of a name; the first one is current at once. Answered by [`Loaded`].
    Load {
        /// The name.
        name: String,
        /// The module, as the director finds it.
        file: PathBuf,
        /// What it may import.
        #[serde(default)]
        grants: Grants,
    },
    /// All names and versions. Answered by [`ModuleView`]s.
    List,
    /// How the plugins of all services, or of one, are. Answered by [`PluginStatus`].
    Status(Option<ServiceId>),
    /// All services of a name get a version. Answered by [`Loaded`].
    Swap {
        /// The name.
        name: String,
        /// Which version.
        to: SwapTo,
    },
    /// All services of a name get the version that was current before. Answered by [`Loaded`].
    Rollback {
        /// The name.
        name: String,
    },
    /// Forgets a version, or a name with all of them.
    Unload {
        /// The name.
        name: String,
        /// The version; none for all.
        #[serde(default)]
        version: Option<u32>,
    },
    /// Options of a service: what is set, what is taken away. Without either only told. Answered by [`Options`].
    Options {
        /// The service.
        service: ServiceId,
        /// These get these values.
        #[serde(default)]
        set: Options,
        /// These go.
        #[serde(default)]
        unset: Vec<String>,
        /// All that are not set here go.
        #[serde(default)]
        clear: bool,
    },
    /// A number about a server, for plugins that read it.
    Metric {
        /// The service.
        service: ServiceId,
        /// RIP and port.
        server: SocketAddr,
        /// The number.
        value: i64,
    },
    /// Ends a service's quarantine.
    Retry(ServiceId),
    /// Begins or ends a trial.
    Try {
        /// The service.
        service: ServiceId,
        /// What is tried.
        candidate: Candidate,
        /// How.
        kind: TrialKind,
        /// Options for it; those of the service if they are not said. The service has them after `promote`.
        #[serde(default)]
        options: Option<Options>,
    },
    /// Ends a trial.
    EndTrial(ServiceId),
    /// What a trial came to so far. Answered by [`ComparisonView`].
    Compare(ServiceId),
    /// The candidate becomes the service's scheduler. Answered by [`Loaded`].
    Promote(ServiceId),
}

impl SchedulerAction {
    /// Does it change nothing?
    pub fn only_asks(&self) -> bool {
        match self {
            SchedulerAction::List | SchedulerAction::Status(_) | SchedulerAction::Compare(_) => true,
            SchedulerAction::Options { set, unset, clear, .. } => set.is_empty() && unset.is_empty() && !clear,
            _ => false,
        }
    }
}

/// What the director says to a [`SchedulerAction`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerAnswer {
    /// A version, and what became of it.
    Loaded(Loaded),
    /// Names and versions.
    Modules(Vec<ModuleView>),
    /// How the plugins are.
    Status(PluginStatus),
    /// A service's options.
    Options(Options),
    /// A trial.
    Comparison(Box<ComparisonView>),
}

/// A version, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// SHA-256 of the module, in hexadecimal.
    pub sha256: String,
    /// It was the newest version already.
    #[serde(default)]
    pub known: bool,
    /// It is what services of this name get from now on.
    pub current: bool,
    /// Services that it was brought into just now.
    #[serde(default)]
    pub services: Vec<ServiceId>,
}

/// A name and its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleView {
    /// Name.
    pub name: String,
    /// Versions, oldest first.
    pub versions: Vec<VersionView>,
}

/// A version of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// Number.
    pub version: u32,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Bytes of the module.
    pub size: u64,
    /// What it may import.
    pub grants: Grants,
    /// Where it came from.
    pub file: PathBuf,
    /// When it was loaded: seconds since 1970.
    pub loaded_at_s: u64,
    /// Servers that it has room for.
    pub capacity: u64,
    /// Services get it when they are added.
    pub current: bool,
    /// `rollback` leads to it.
    pub before: bool,
    /// Services that it serves.
    pub live: Vec<ServiceId>,
    /// Services that try it.
    pub on_trial: Vec<ServiceId>,
}

/// How the plugins of services are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// By service.
    pub services: Vec<PluginView>,
    /// Files that were not taken, and why.
    #[serde(default)]
    pub refused: Vec<RefusedFile>,
}

/// A file that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFile {
    /// Its path.
    pub file: PathBuf,
    /// Why: a sentence.
    pub message: String,
}

/// The plugin of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginView {
    /// The service.
    pub service: ServiceId,
    /// Its scheduler, as it is named.
    pub scheduler: String,
    /// What chooses when the plugin does not.
    pub fallback: String,
    /// Its options.
    pub options: Options,
    /// The live plugin; none of a native scheduler.
    pub live: Option<StandingView>,
    /// What is tried.
    pub trial: Option<TrialView>,
    /// Choices by the plugin.
    pub picks: u64,
    /// Choices by the fallback instead.
    pub fallback_picks: u64,
    /// Choices of the plugin that were no usable server any more when they arrived; the fallback chose.
    pub overruled: u64,
}

/// A version in a service, and how it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingView {
    /// Name of the module.
    pub name: String,
    /// Version.
    pub version: u32,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// How it is.
    pub state: PluginState,
    /// How often it was in quarantine.
    pub quarantines: u32,
    /// Faults by reason.
    pub faults: Vec<(String, u64)>,
    /// The last of them: a sentence.
    pub last_fault: Option<String>,
    /// The greatest cost of a choice so far, in fuel.
    pub worst_fuel: u64,
    /// What a choice may cost, in fuel.
    pub budget: u64,
    /// Memory of all its instances, in bytes.
    pub memory_bytes: u64,
    /// Its instances: one for each worker, unless one is being replaced.
    pub instances: u64,
}

/// A version on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialView {
    /// Which.
    #[serde(flatten)]
    pub standing: StandingView,
    /// How.
    pub kind: TrialKind,
}

/// How a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It is asked.
    Live,
    /// It is not asked for a while.
    Quarantined {
        /// Seconds until it is asked again.
        for_s: u64,
    },
    /// It is not asked until `retry` or `swap`.
    Stopped,
}

/// What a trial came to so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparisonView {
    /// The service.
    pub service: ServiceId,
    /// The live scheduler: `wasm:NAME`, or a native one.
    pub scheduler: String,
    /// The live plugin, if it is one.
    pub live: Option<StandingView>,
    /// The candidate, and how it is tried.
    pub trial: TrialView,
    /// Connections about which both were asked (shadow).
    pub asked: u64,
    /// Of those, how often both named the same server.
    pub agreed: u64,
    /// The live scheduler's largest share of a server, as a multiple of what its weight asks for: 1 is even.
    pub live_skew: f64,
    /// The same of the candidate.
    pub candidate_skew: f64,
    /// Connections that got no server.
    pub live_nobody: u64,
    /// Connections for which the candidate found none.
    pub candidate_nobody: u64,
    /// Server by server, in the order of the listing.
    pub servers: Vec<ServerShare>,
}

/// Choices of one server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerShare {
    /// RIP and port.
    pub server: SocketAddr,
    /// Its weight's share of all weights, 0 to 1.
    pub fair: f64,
    /// By the live scheduler.
    pub live: u64,
    /// By the candidate.
    pub candidate: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grants are read as they are written, in any order, and an unknown one is named.
    #[test]
    fn grants_are_names() {
        for text in ["", "time", "time,random,log"] {
            assert_eq!(text.parse::<Grants>().map(|grants| grants.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(" log, time".parse::<Grants>().map(|grants| grants.to_string()), Ok("time,log".to_owned()));
        assert!("time,disk".parse::<Grants>().is_err_and(|message| message.contains("\"disk\"")));
    }
}
