//! The state file: what was changed, from what, to what, so that it can be put back.
//!
//! A line of JSON for each event, only ever appended, and on the disk before the change is made. So a crash at any
//! moment leaves a file that tells all changes, and perhaps one that was not made, which is harmless: its old value is
//! still there. A torn last line belongs to a change that was not made.
//!
//! Invariant: whoever holds a [`Journal`] is the only one; a second process waits for nothing and is told. The file goes
//! when nothing is left to put back. Not here: the putting back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::setting::Setting;

/// Where it is if nothing else is said: gone after a restart of the machine, as the settings are.
pub const PLACE: &str = "/run/xvs/tune.state";

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from 1.
    pub number: u64,
    /// The item that asked for it.
    pub item: String,
    /// The interface; none for the machine.
    pub interface: Option<String>,
    /// The interface's index then: another device may bear the name later.
    pub index: Option<u32>,
    /// Which setting.
    pub setting: Setting,
    /// The value that was there.
    pub before: String,
    /// The value that was set.
    pub after: String,
}

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    /// A change is about to be made.
    Change(Record),
    /// The device made another value of it.
    Became { number: u64, value: String },
    /// It was put back, or there is nothing to put back.
    Done { number: u64 },
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It can not be read or written.
    #[error("the state file {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the state file {} is in use: another `xvs tune` is at work, wait for it", .0.display())]
    InUse(PathBuf),
    /// It is not one of ours.
    #[error("line {line} of {} is no line of a state file ({why}): if it is none, name another by --state; if it is damaged, put \
             the rest back by hand, and remove it", path.display())]
    Malformed {
        /// Which one.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The reader's word.
        why: String,
    },
}

/// The open state file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Flock<File>,
    open: Vec<Record>,
    last: u64,
}

impl Journal {
    /// Opens it, or begins it.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        loop {
            let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(JournalError::InUse(path.to_owned())),
                Err((_, error)) => return Err(failed(error.into())),
            };
            // The one who had it before may have removed it between the two calls.
            let same = |there: fs::Metadata| file.metadata().is_ok_and(|ours| ours.ino() == there.ino());
            if fs::metadata(path).is_ok_and(same) {
                return Journal::read(path, file);
            }
        }
    }

    /// Opens it if there is one.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn existing(path: &Path) -> Result<Option<Journal>, JournalError> {
        match fs::metadata(path) {
            Ok(_) => Journal::open(path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(JournalError::File { path: path.to_owned(), source }),
        }
    }

    fn read(path: &Path, mut file: Flock<File>) -> Result<Journal, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut journal = Journal { path: path.to_owned(), file, open: Vec::new(), last: 0 };
        for (line, text) in text[..whole].lines().enumerate() {
            let event = serde_json::from_str(text).map_err(|error| JournalError::Malformed {
                path: path.to_owned(),
                line: line + 1,
                why: error.to_string(),
            })?;
            journal.take(event);
        }
        if whole < text.len() {
            // Torn by a crash, before its change was made; what is appended must begin a line.
            let cut = whole as u64;
            journal.file.set_len(cut).map_err(failed)?;
        }
        Ok(journal)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Change(record) => {
                self.last = record.number;
                self.open.push(record);
            }
            Event::Became { number, value } => {
                if let Some(record) = self.open.iter_mut().find(|record| record.number == number) {
                    record.after = value;
                }
            }
            Event::Done { number } => self.open.retain(|record| record.number != number),
        }
    }

    fn append(&mut self, event: Event) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { path: self.path.clone(), source };
        let mut line = serde_json::to_string(&event).map_err(|error| failed(error.into()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.take(event);
        Ok(())
    }

    /// Notes a change before it is made; gives its number.
    ///
    /// # Errors
    /// It can not be written: then nothing may be changed.
    pub fn begin(&mut self, mut record: Record) -> Result<u64, JournalError> {
        record.number = self.last + 1;
        let number = record.number;
        self.append(Event::Change(record))?;
        Ok(number)
    }

    /// Notes what the device made of a change.
    ///
    /// # Errors
    /// It can not be written.
    pub fn became(&mut self, number: u64, value: &str) -> Result<(), JournalError> {
        self.append(Event::Became { number, value: value.to_owned() })
    }

    /// Notes that nothing is left to put back of a change.
    ///
    /// # Errors
    /// It can not be written.
    pub fn done(&mut self, number: u64) -> Result<(), JournalError> {
        self.append(Event::Done { number })
    }

    /// What is to be put back, the oldest first.
    pub fn records(&self) -> &[Record] {
        &self.open
    }

    /// Closes it, and removes it if nothing is left to put back.
    ///
    /// # Errors
    /// It can not be removed.
    pub fn close(self) -> Result<(), JournalError> {
        if !self.open.is_empty() {
            return Ok(());
        }
        // Still locked: nobody can have begun to write.
        fs::remove_file(&self.path).map_err(|source| JournalError::File { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xvs-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn record(before: &str, after: &str) -> Record {
        Record {
            number: 0,
            item: "rings".into(),
            interface: Some("e0".into()),
            index: Some(3),
            setting: Setting::Rings,
            before: before.into(),
            after: after.into(),
        }
    }

    /// Guards a crash between any two steps: what was noted is there for the next process, a torn line is not, and the
    /// next line begins where it should.
    #[test]
    fn what_was_noted_survives_a_crash() {
        let path = place("crash");
        let mut journal = Journal::open(&path).expect("begun");
        let first = journal.begin(record("a", "b")).expect("noted");
        journal.became(first, "c").expect("noted");
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        file.write_all(br#"{"event":"change","numb"#).expect("written");
        drop(file);
        let mut journal = Journal::open(&path).expect("read");
        assert_eq!(journal.records(), [Record { number: 1, after: "c".into(), ..record("a", "b") }]);
        let second = journal.begin(record("c", "d")).expect("noted");
        drop(journal);
        let mut journal = Journal::existing(&path).expect("read").expect("there");
        assert_eq!(journal.records().len(), 2);
        for number in [second, first] {
            journal.done(number).expect("noted");
        }
        journal.close().expect("removed");
        assert!(Journal::existing(&path).expect("no error").is_none(), "nothing is left");
    }

    /// Guards that two processes never interleave, and that somebody else's file is not taken for a state file.
    #[test]
    fn one_at_a_time_and_ours_only() {
        let path = place("lock");
        let journal = Journal::open(&path).expect("begun");
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse(_))));
        drop(journal);
        fs::write(&path, "[director]\n").expect("written");
        assert!(matches!(Journal::open(&path), Err(JournalError::Malformed { line: 1, .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "[director]\n");
        fs::remove_file(&path).expect("there");
    }
}
