//! Puts back what was changed, the last change first.
//!
//! Invariant: a value is put back only where the one stands that `--apply` left. What somebody changed meanwhile, or a
//! device that is gone, is told and let be, and forgotten; what could not be written is told and kept for another try.

use std::io;

use serde::Serialize;

use super::journal::{Journal, JournalError, Record};
use super::setting::Machine;
use super::survey::explain;

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Fate {
    /// The old value is back.
    Restored,
    /// It was there already.
    AlreadyBack,
    /// Somebody changed it meanwhile.
    ChangedMeanwhile {
        /// The value that is there.
        now: String,
    },
    /// The device or the setting is gone.
    Gone,
    /// It could not be written.
    Failed {
        /// Why.
        error: String,
        /// For lack of rights.
        #[serde(skip)]
        denied: bool,
    },
}

/// A change and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The change.
    #[serde(flatten)]
    pub record: Record,
    /// What became of it.
    pub fate: Fate,
}

/// Puts back the changes of these interfaces, or all if none is named. What was changed of the machine goes back with
/// the last interface.
///
/// # Errors
/// The journal can not be written.
pub fn restore(
    machine: &Machine<'_>,
    interfaces: &[String],
    journal: &mut Journal,
) -> Result<Vec<Restored>, JournalError> {
    let named = |name: &String| interfaces.is_empty() || interfaces.contains(name);
    let others = journal.records().iter().filter_map(|record| record.interface.as_ref()).any(|name| !named(name));
    let mine = |record: &&Record| match &record.interface {
        Some(name) => named(name),
        None => !others,
    };
    let records: Vec<Record> = journal.records().iter().filter(mine).rev().cloned().collect();
    let mut all = Vec::new();
    for record in records {
        let fate = put_back(machine, &record);
        if !matches!(fate, Fate::Failed { .. }) {
            journal.done(record.number)?;
        }
        all.push(Restored { record, fate });
    }
    Ok(all)
}

fn put_back(machine: &Machine<'_>, record: &Record) -> Fate {
    let name = record.interface.as_deref().unwrap_or_default();
    if let Some(index) = record.index
        && machine.device.index(name).ok() != Some(index)
    {
        return Fate::Gone;
    }
    let failed = |error: &io::Error| Fate::Failed {
        error: explain(error),
        denied: error.kind() == io::ErrorKind::PermissionDenied,
    };
    let now = match record.setting.read(machine, name) {
        Ok(now) => now,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Fate::Gone,
        Err(error) => return failed(&error),
    };
    if now == record.before {
        return Fate::AlreadyBack;
    }
    if now != record.after {
        return Fate::ChangedMeanwhile { now };
    }
    if let Err(error) = record.setting.write(machine, name, &record.before) {
        return failed(&error);
    }
    match record.setting.read(machine, name) {
        Ok(now) if now == record.before => Fate::Restored,
        Ok(now) => failed(&io::Error::other(format!("the device made {} of it", record.setting.words(&now)))),
        Err(error) => failed(&error),
    }
}
