//! What the director should be: a whole configuration that is known to be right.
//!
//! Invariant: a [`Desired`] exists only if every rule of `rules.rs` and `settings.rs` holds for every part of it, no
//! service stands in it twice and no server twice in a service. [`Desired::validate`] is the only way to one, and it
//! reports everything that is in the way, each with its field and its place.
//! Not here: the way from the present state to this one (`plan.rs`), and whether the machine can do it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::document::{Document, InterfaceTable, SettingLine};
use super::plugins::{self, PluginFile};
use super::problem::{Problem, Problems, quote};
use super::rules::TIMEOUT_MAX_S;
use super::settings::{self, DirectorSettings, FrameSettings, InterfaceSettings};
use super::{marks, services};
use crate::control::protocol::{self, ByState, MarkRule, ServerSpec, Service, ServiceSpec};
use crate::control::sysctl::{Settings, Wish};
use crate::control::timeouts;

/// Scheduler of a service that does not name one; ipvsadm's default.
pub const SCHEDULER: &str = "wlc";

/// A virtual service and its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    /// The service.
    pub spec: ServiceSpec,
    /// Timeouts of its own, by the states' own names.
    pub timeouts: ByState,
    /// Its servers, in the order in which they are added: that of a file. The director's own order is the reverse.
    pub servers: Vec<ServerSpec>,
}

impl From<&Service> for ServiceState {
    /// The rules of a listed service. A listing has the newest server first, a file the oldest.
    fn from(service: &Service) -> Self {
        let servers = service.servers.iter().rev().map(|server| server.spec).collect();
        ServiceState { spec: service.spec.clone(), timeouts: service.timeouts.clone(), servers }
    }
}

/// A configuration that is known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    director: DirectorSettings,
    capacity: u32,
    timeouts: ByState,
    wishes: Vec<Wish>,
    frames: FrameSettings,
    interfaces: Vec<InterfaceSettings>,
    plugins: Vec<PluginFile>,
    marks: Vec<MarkRule>,
    services: Vec<ServiceState>,
    notes: Vec<Problem>,
}

impl Desired {
    /// Checks a document against all rules. `schedulers` are the names that exist in this director.
    ///
    /// Nothing is half right: either the whole document is, or all of its problems come back.
    pub fn validate(document: Document, schedulers: &[&str]) -> Result<Desired, Vec<Problem>> {
        let mut problems = Problems::new(&document.source);
        let mut desired = Desired {
            director: DirectorSettings::read(&document.director, &mut problems),
            capacity: settings::read_capacity(&document.connections, &mut problems),
            timeouts: read_timeouts(&document.timeouts, &mut problems),
            wishes: read_settings(&document.sysctl, &mut problems),
            frames: FrameSettings::read(&document.frames, &mut problems),
            interfaces: read_interfaces(&document.interface, &mut problems),
            plugins: plugins::read(&document.scheduler, &mut problems),
            marks: marks::read(&document.mark, &mut problems),
            services: services::read(&document.service, schedulers, &mut problems),
            notes: Vec::new(),
        };
        desired.notes = problems.take_notes();
        problems.or(desired)
    }

    /// [`Document::parse`] and [`Desired::validate`] in one. `file` names the text in messages; it may be empty.
    pub fn read(text: &str, file: &str, schedulers: &[&str]) -> Result<Desired, Vec<Problem>> {
        Desired::validate(Document::parse(text, file)?, schedulers)
    }

    /// Settings of the process.
    pub fn director(&self) -> &DirectorSettings {
        &self.director
    }

    /// Entries of the connection table.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Timeouts of all states, in seconds; 0 keeps what the director has.
    pub fn timeouts(&self) -> &ByState {
        &self.timeouts
    }

    /// Settings that the file names, each once.
    pub fn wishes(&self) -> &[Wish] {
        &self.wishes
    }

    /// The settings to begin with: the profile's, and over them those that the file names.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.director.compat);
        settings.take(&self.wishes);
        settings
    }

    /// What is right and should be known all the same.
    pub fn notes(&self) -> &[Problem] {
        &self.notes
    }

    /// Packet memory and rings.
    pub fn frames(&self) -> &FrameSettings {
        &self.frames
    }

    /// The interfaces, in the file's order; no name twice.
    pub fn interfaces(&self) -> &[InterfaceSettings] {
        &self.interfaces
    }

    /// The plugins, in the file's order; no name twice.
    pub fn plugins(&self) -> &[PluginFile] {
        &self.plugins
    }

    /// Paths that are not absolute start from this directory from now on.
    pub fn start_from(&mut self, directory: &Path) {
        let plugins = self.plugins.iter_mut().map(|plugin| &mut plugin.file);
        plugins.chain(&mut self.director.scheduler_dir).for_each(|path| *path = directory.join(&path));
    }

    /// A path that is not absolute, if there is one.
    pub fn relative_path(&self) -> Option<&Path> {
        let plugins = self.plugins.iter().map(|plugin| &plugin.file);
        plugins.chain(&self.director.scheduler_dir).map(PathBuf::as_path).find(|path| !path.is_absolute())
    }

    /// The rules for marks, in the file's order; of two for the same packets there is one.
    pub fn marks(&self) -> &[MarkRule] {
        &self.marks
    }

    /// The services, in the file's order; no key twice.
    pub fn services(&self) -> &[ServiceState] {
        &self.services
    }
}

/// The director's timeouts: IPVS's where the file is silent.
fn read_timeouts(table: &BTreeMap<String, i64>, problems: &mut Problems<'_>) -> ByState {
    let mut all = timeouts::defaults();
    all.extend(read_seconds(table, "timeouts", "keeps what is", problems));
    all
}

/// Timeouts by the states' own names. `zero` says what 0 does.
pub(super) fn read_seconds(
    table: &BTreeMap<String, i64>,
    path: &str,
    zero: &str,
    problems: &mut Problems<'_>,
) -> ByState {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let unit = format!("seconds, where 0 {zero}");
    let mut read = ByState::new();
    for (word, &value) in table {
        let path = format!("{path}.{word}");
        let Some(name) = timeouts::canonical(word) else {
            problems.push(path, "there is no such timeout");
            continue;
        };
        if let Some(before) = first.insert(name, word) {
            problems.push(&path, format!("this is {} already, by another name", quote(before)));
        }
        let range = (0, i64::from(TIMEOUT_MAX_S));
        read.insert(name.to_owned(), settings::number(problems, &path, Some(value), 0, range, &unit));
    }
    read
}

fn read_settings(lines: &BTreeMap<String, SettingLine>, problems: &mut Problems<'_>) -> Vec<Wish> {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let mut wishes = Vec::with_capacity(lines.len());
    for (name, SettingLine { value, path }) in lines {
        let wish = match Wish::read(name, value) {
            Ok(wish) => wish,
            Err(refusal) => {
                problems.push(path, refusal.message);
                continue;
            }
        };
        if let Some(before) = first.insert(wish.name(), name) {
            problems.push(path, format!("this is {} already, by another name", quote(before)));
        }
        if let Some(note) = wish.futile() {
            problems.note(path, note);
        }
        wishes.push(wish);
    }
    wishes
}

fn read_interfaces(tables: &[InterfaceTable], problems: &mut Problems<'_>) -> Vec<InterfaceSettings> {
    let mut first = HashMap::new();
    let mut interfaces = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let path = format!("interface[{index}]");
        interfaces.push(InterfaceSettings::read(table, &path, problems));
        let Some(name) = &table.name else { continue };
        let before = *first.entry(name).or_insert(index);
        if before != index {
            problems.push(format!("{path}.name"), format!("{} is interface[{before}] already", quote(name)));
        }
    }
    interfaces
}

/// All problems for a person: one a line.
pub fn report(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl From<&[Problem]> for protocol::Refusal {
    /// A director's answer to a document with these problems.
    fn from(problems: &[Problem]) -> Self {
        protocol::Refusal::new(protocol::RefusalKind::Document, report(problems))
    }
}
