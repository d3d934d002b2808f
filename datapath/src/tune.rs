//! `xvs tune`: the setup of NICs and machine, looked at, changed and put back.
//!
//! ```text
//! tree, cpus, device < setting < finding, scene < items < journal < survey, restore < report < options
//! ```
//! An item (`items`) looks at a [`Scene`](scene::Scene) and gives a [`Finding`](finding::Finding), with the
//! [`Setting`](setting::Setting)s that it would change. `survey` makes these changes, each noted in the
//! [`Journal`] first; `restore` reads it from its end. What it is not: a daemon. It looks when it is told to, needs no
//! director, and leaves services, boot parameters and the NIC's firmware to people.

use std::path::{Path, PathBuf};

use xvs_engine::sched::Builtin;

use crate::config::Desired;

pub mod cpus;
pub mod device;
pub mod finding;
mod items;
pub mod journal;
pub mod options;
mod report;
pub mod restore;
pub mod scene;
pub mod setting;
pub mod survey;
pub mod tree;

use finding::Verdict;
use journal::{Journal, JournalError};
use options::{Order, Tune};
use restore::{Fate, Restored};
use scene::{Scene, Wishes};
use setting::Machine;
use survey::{Scope, Survey};

/// What is to be printed, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// For stdout.
    pub text: String,
    /// For stderr, if not all is well.
    pub error: Option<TuneError>,
}

/// Why not all is well.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The check found something harmful.
    #[error("{0} harmful: see above; `xvs tune --apply` changes what is safe to change")]
    Harmful(usize),
    /// Something is harmful still, after the changes.
    #[error("{failed} of {all} changes could not be made; {harmful} items stay harmful")]
    NotApplied {
        /// Changes that failed.
        failed: usize,
        /// All changes.
        all: usize,
        /// Harmful items that are left.
        harmful: usize,
    },
    /// Not everything is as it was.
    #[error("{0} of {1} changes were not put back: see above")]
    NotRestored(usize, usize),
    /// An interface is not there.
    #[error("no such interface: {0}; `ip -br link` lists the names that exist here")]
    NoInterface(String),
    /// It needs more rights.
    #[error("not permitted: changing settings needs root, or CAP_NET_ADMIN and write access to /sys and /proc")]
    NoPrivilege,
    /// The configuration is wrong, or names no interface.
    #[error("{0}")]
    Configuration(String),
    /// A file.
    #[error("can not read {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The state file.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel's door.
    #[error("can not ask the kernel about interfaces: {0}")]
    Door(std::io::Error),
    /// JSON.
    #[error("can not write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl TuneError {
    /// The exit code of the process; the same numbers as of other commands.
    pub fn exit_code(&self) -> u8 {
        match self {
            TuneError::Harmful(_) | TuneError::NotApplied { .. } | TuneError::NotRestored(..) => 1,
            TuneError::Configuration(_) => 2,
            TuneError::File { .. } => 3,
            TuneError::NoPrivilege => 4,
            TuneError::Journal(JournalError::File { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                4
            }
            TuneError::NoInterface(_) => 5,
            TuneError::Journal(_) | TuneError::Door(_) | TuneError::Json(_) => 11,
        }
    }
}

/// Does what the command line says, to this machine.
///
/// # Errors
/// Nothing could be looked at, or the state file is unusable. What is wrong with the machine is in the [`Outcome`].
pub fn run(options: &Tune) -> Result<Outcome, TuneError> {
    let device = device::Kernel::open().map_err(TuneError::Door)?;
    run_on(options, &Machine { device: &device, tree: tree::Tree::new("/") })
}

/// The same to any machine.
///
/// # Errors
/// See [`run`].
pub fn run_on(options: &Tune, machine: &Machine<'_>) -> Result<Outcome, TuneError> {
    let state = options.state.clone().unwrap_or_else(|| PathBuf::from(journal::PLACE));
    let (mut interfaces, wishes) = plan(options)?;
    let mut seen = Vec::new();
    interfaces.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    if options.restore {
        let mut all = Vec::new();
        if let Some(mut journal) = Journal::existing(&state)? {
            all = restore::restore(machine, &interfaces, &mut journal)?;
            journal.close()?;
        }
        return restored(options.json, &all, &state);
    }
    refuse_strangers(machine, &wishes)?;
    let scope = Scope { only: options.only.clone(), skip: options.skip.clone() };
    if !options.apply {
        let survey = survey::survey(machine, &interfaces, &wishes, &scope, None)?;
        return surveyed(options, &survey, None);
    }
    let mut journal = Journal::open(&state)?;
    let survey = survey::survey(machine, &interfaces, &wishes, &scope, Some(&mut journal));
    // Also after an error: an empty file is nobody's.
    let closed = journal.close();
    let survey = survey?;
    closed?;
    // Looked at once more, so that what is said to be harmful is so.
    let after = survey::survey(machine, &interfaces, &wishes, &scope, None)?;
    surveyed(options, &survey, Some(after.count(Verdict::Harmful)))
}

/// Interfaces and wishes of command line and configuration together.
fn plan(options: &Tune) -> Result<(Vec<String>, Wishes), TuneError> {
    let mut interfaces = options.interfaces.clone();
    let mut wishes = Wishes::default();
    if let Some(path) = &options.config {
        let text = std::fs::read_to_string(path).map_err(|source| TuneError::File { path: path.clone(), source })?;
        let desired = Desired::read(&text, &path.to_string_lossy(), Builtin::NAMES);
        let desired =
            desired.map_err(|problems| TuneError::Configuration(crate::config::desired::report(&problems)))?;
        if interfaces.is_empty() {
            interfaces = desired.interfaces().iter().map(|interface| interface.name.clone()).collect();
        }
        if interfaces.is_empty() {
            let text = format!("{} has no [[interface]]: name one on the command line", path.display());
            return Err(TuneError::Configuration(text));
        }
        let queues = desired.interfaces().iter().filter_map(|interface| interface.queues);
        let frames = desired.frames();
        wishes = Wishes {
            queues: queues.min(),
            cpus: desired.director().cpus.clone().filter(|_| desired.director().pin),
            busy_poll: frames.busy_poll,
            vlans: desired.interfaces().iter().any(|one| one.gateway.is_some_and(|gateway| gateway.vlan.is_some())),
            frame_size: frames.size,
            frame_count: frames.count,
            ..wishes
        };
    }
    wishes.queues = options.queues.or(wishes.queues);
    wishes.cpus = options.cpus.clone().map(|Order(cpus)| cpus).or(wishes.cpus);
    wishes.busy_poll |= options.busy_poll;
    wishes.vlans |= options.vlans;
    wishes.symmetric = options.symmetric;
    Ok((interfaces, wishes))
}

/// Queues of a CPU that does not run would go nowhere. Where it is not known which run, nobody is refused.
fn refuse_strangers(machine: &Machine<'_>, wishes: &Wishes) -> Result<(), TuneError> {
    let scene = Scene { machine, name: "", in_sysfs: true, wishes, queues: 0 };
    let (Some(wished), Ok(online)) = (&wishes.cpus, scene.online()) else { return Ok(()) };
    match wished.iter().find(|cpu| !online.as_slice().contains(cpu)) {
        Some(stranger) => {
            Err(TuneError::Configuration(format!("no CPU {stranger} runs here; those that do are {online}")))
        }
        None => Ok(()),
    }
}

/// The command that puts things back.
fn back(options: &Tune) -> String {
    match &options.state {
        Some(state) => format!("xvs tune --restore --state {}", state.display()),
        None => "xvs tune --restore".to_owned(),
    }
}

/// Text and end of a survey; `harmful` is what is left after changes.
fn surveyed(options: &Tune, survey: &Survey, harmful: Option<usize>) -> Result<Outcome, TuneError> {
    let text = if options.json {
        report::json(survey)?
    } else {
        report::text(survey, harmful.is_some().then(|| back(options)).as_deref())
    };
    let missing: Vec<&str> = survey
        .sections
        .iter()
        .filter(|section| section.error.is_some())
        .filter_map(|section| section.interface.as_deref())
        .collect();
    let all = survey.done().count();
    let failed = survey.done().filter(|done| done.error.is_some()).count();
    let error = match harmful {
        _ if !missing.is_empty() => Some(TuneError::NoInterface(missing.join(", "))),
        _ if survey.done().any(|done| done.denied) => Some(TuneError::NoPrivilege),
        Some(harmful) if failed + harmful > 0 => Some(TuneError::NotApplied { failed, all, harmful }),
        None if survey.count(Verdict::Harmful) > 0 => Some(TuneError::Harmful(survey.count(Verdict::Harmful))),
        _ => None,
    };
    Ok(Outcome { text, error })
}

fn restored(json: bool, all: &[Restored], state: &Path) -> Result<Outcome, TuneError> {
    let text = if json { format!("{}\n", serde_json::to_string_pretty(all)?) } else { report::restored(all, state) };
    let not = all.iter().filter(|one| !matches!(one.fate, Fate::Restored | Fate::AlreadyBack)).count();
    let denied = all.iter().any(|one| matches!(one.fate, Fate::Failed { denied: true, .. }));
    let error = match not {
        0 => None,
        _ if denied => Some(TuneError::NoPrivilege),
        not => Some(TuneError::NotRestored(not, all.len())),
    };
    Ok(Outcome { text, error })
}
