//! Looks at everything that is asked for, and, when it is to apply, changes it item by item.
//!
//! Invariant: an item is looked at after the changes of the items before it. A failure is told and the rest goes on,
//! but for the state file: without it nothing is changed.

use std::io;

use serde::Serialize;

use super::finding::{Change, Finding, Verdict};
use super::items::{Item, OF_INTERFACE, OF_MACHINE};
use super::journal::{Journal, JournalError, Record};
use super::scene::{Scene, Wishes};
use super::setting::Machine;

/// What is looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Items; none for all.
    pub only: Vec<String>,
    /// Items to leave out.
    pub skip: Vec<String>,
}

impl Scope {
    fn takes(&self, item: &Item) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == item.name);
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Which setting, in words.
    pub setting: String,
    /// The value before.
    pub before: String,
    /// The value that was asked for.
    pub asked: String,
    /// The value that is there now; none if it could not be changed.
    pub after: Option<String>,
    /// Why not.
    pub error: Option<String>,
    /// It was for lack of rights.
    #[serde(skip)]
    pub denied: bool,
}

/// An item, as it was found and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub item: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// What was changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<Done>,
}

/// An interface, or the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The interface; none for the machine.
    pub interface: Option<String>,
    /// Why it could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The items.
    pub items: Vec<Entry>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Survey {
    /// Interfaces in the order in which they were named, then the machine.
    pub sections: Vec<Section>,
}

impl Survey {
    /// How many items got this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.entries().filter(|entry| entry.finding.verdict == verdict).count()
    }

    /// All items.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.sections.iter().flat_map(|section| &section.items)
    }

    /// All changes, made or not.
    pub fn done(&self) -> impl Iterator<Item = &Done> {
        self.entries().flat_map(|entry| &entry.done)
    }
}

/// Looks, and changes if there is a journal to note it in.
///
/// # Errors
/// The journal can not be written.
pub fn survey(
    machine: &Machine<'_>,
    interfaces: &[String],
    wishes: &Wishes,
    scope: &Scope,
    mut journal: Option<&mut Journal>,
) -> Result<Survey, JournalError> {
    let mut survey = Survey::default();
    let found = interfaces.iter().map(|name| (name, machine.device.index(name))).collect::<Vec<_>>();
    let there = found.iter().filter(|(_, index)| index.is_ok()).map(|(name, _)| name.as_str());
    let queues = queues(machine, there, wishes);
    let scene = |name, in_sysfs| Scene { machine, name, in_sysfs, wishes, queues };
    for (name, index) in found {
        let interface = Some(name.clone());
        let index = match index {
            Ok(index) => index,
            Err(_) => {
                let error =
                    Some(format!("there is no interface {name:?}: `ip -br link` lists the names that exist here"));
                survey.sections.push(Section { interface, error, items: Vec::new() });
                continue;
            }
        };
        let shown = machine.tree.number::<u32>(&format!("/sys/class/net/{name}/ifindex"));
        let scene = scene(name, shown.is_ok_and(|shown| shown == index));
        let items = section(&scene, OF_INTERFACE, scope, Some(index), &mut journal)?;
        survey.sections.push(Section { interface, error: None, items });
    }
    let items = section(&scene("", true), OF_MACHINE, scope, None, &mut journal)?;
    if !items.is_empty() {
        survey.sections.push(Section { interface: None, error: None, items });
    }
    Ok(survey)
}

/// The number of queues that all interfaces can have and that have a CPU each, or the one that is wished.
fn queues<'n>(machine: &Machine<'_>, names: impl Iterator<Item = &'n str>, wishes: &Wishes) -> u32 {
    if let Some(queues) = wishes.queues {
        return queues;
    }
    let scene = |name| Scene { machine, name, in_sysfs: true, wishes, queues: 0 };
    let possible = |name: &'n str| match scene(name).channels() {
        Ok(Some((_, most))) => most.combined.max(most.receive),
        _ => scene(name).receive_queues().unwrap_or(1),
    };
    let cpus = scene("").cpus().map_or(1, |cpus| cpus.len() as u32);
    names.map(possible).min().unwrap_or(1).min(cpus).max(1)
}

fn section(
    scene: &Scene<'_>,
    items: &'static [Item],
    scope: &Scope,
    index: Option<u32>,
    journal: &mut Option<&mut Journal>,
) -> Result<Vec<Entry>, JournalError> {
    let mut entries = Vec::new();
    for item in items.iter().filter(|item| scope.takes(item)) {
        let finding = (item.look)(scene).unwrap_or_else(|error| Finding::of_error(&error));
        let mut done = Vec::new();
        if let Some(journal) = journal {
            for change in &finding.changes {
                done.push(make(scene, item.name, index, change, journal)?);
            }
        }
        entries.push(Entry { item: item.name, finding, done });
    }
    Ok(entries)
}

/// Makes one change: notes it, makes it, reads what became of it.
fn make(
    scene: &Scene<'_>,
    item: &str,
    index: Option<u32>,
    change: &Change,
    journal: &mut Journal,
) -> Result<Done, JournalError> {
    let Change { setting, to } = change;
    let read = || setting.read(scene.machine, scene.name);
    let name = setting.name();
    let done = |before: &str, after: Option<String>, error: Option<&io::Error>| Done {
        setting: name.clone(),
        before: before.to_owned(),
        asked: to.clone(),
        after,
        error: error.map(explain),
        denied: error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied),
    };
    let before = match read() {
        Ok(before) => before,
        Err(error) => return Ok(done("", None, Some(&error))),
    };
    let interface = index.map(|_| scene.name.to_owned());
    let number = journal.begin(Record {
        number: 0,
        item: item.to_owned(),
        interface,
        index,
        setting: setting.clone(),
        before: before.clone(),
        after: to.clone(),
    })?;
    let written = setting.write(scene.machine, scene.name, to);
    let after = read().unwrap_or_else(|_| to.clone());
    // A refused change may have been made in part, so what is there counts, not what was said.
    if after == before {
        journal.done(number)?;
        let silent = io::Error::other("the driver took it and left the value as it was");
        return Ok(done(&before, None, Some(written.as_ref().err().unwrap_or(&silent))));
    }
    if after != *to {
        journal.became(number, &after)?;
    }
    Ok(done(&before, Some(after), written.as_ref().err()))
}

/// An error in words, with a cure where there is one.
pub(super) fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::EPERM | libc::EACCES) => "not permitted: it needs root, or CAP_NET_ADMIN".to_owned(),
        Some(libc::EBUSY) => "the device is busy: stop what uses it (a director?), and try again".to_owned(),
        Some(libc::EINVAL) => {
            "the driver refuses the value (with a director running on it, some refuse any: stop it first)".to_owned()
        }
        Some(libc::EIO) => "the kernel refuses it (an interrupt that the driver manages itself?)".to_owned(),
        _ => error.to_string(),
    }
}
