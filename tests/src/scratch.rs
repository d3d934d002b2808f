//! The files of a lab: configuration, logs, served and received data, in one directory under the temporary directory.
//!
//! Invariant: the directory goes away with the lab when all went well. When a story failed or panicked it stays, and
//! its path and the ends of its logs are printed.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};

/// Lines of each log that a failure shows.
const TAIL: usize = 40;

/// The file that says which process built the lab.
const OWNER: &str = "owner";

thread_local! {
    /// Directories of labs that ended within the running story; none outside of a story.
    static ENDED: RefCell<Option<Vec<PathBuf>>> = const { RefCell::new(None) };
}

/// A lab's directory.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates the directory of the lab `name`.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let path = Self::place(name);
        // A killed process whose number came back may have left one.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("{} could not be created", path.display()))?;
        fs::write(path.join(OWNER), std::process::id().to_string()).context("the owner could not be written down")?;
        Ok(Scratch { path })
    }

    /// The process that built the lab `name` and still runs, if it is not this one.
    pub(crate) fn living_owner(name: &str) -> Option<u32> {
        let pid: u32 = fs::read_to_string(Self::place(name).join(OWNER)).ok()?.parse().ok()?;
        (pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
    }

    /// Where the directory of the lab `name` is.
    pub(crate) fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let kept_for_the_story = ENDED.with_borrow_mut(|ended| match ended {
            Some(paths) => {
                paths.push(path.clone());
                true
            }
            None => false,
        });
        if !kept_for_the_story {
            settle(&path, !thread::panicking());
        }
    }
}

/// Watches over the directories of the labs of one story.
pub(crate) struct Keeper {
    well: bool,
}

impl Keeper {
    pub(crate) fn begin() -> Self {
        ENDED.set(Some(Vec::new()));
        // A panic in the story drops the keeper before `end` could say that all went well.
        Keeper { well: false }
    }

    pub(crate) fn end(mut self, well: bool) {
        self.well = well;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for path in ENDED.take().unwrap_or_default() {
            settle(&path, self.well);
        }
    }
}

fn settle(path: &Path, well: bool) {
    if well {
        let _ = fs::remove_dir_all(path);
        return;
    }
    println!("the files of the lab stay in {}", path.display());
    let mut logs: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    logs.retain(|log| log.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for log in logs {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        if !lines.is_empty() {
            println!("--- the end of {}", log.display());
            println!("{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
    }
}
