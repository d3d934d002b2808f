//! A directory of plugins that is looked at once a second: `NAME.wasm` is NAME.
//!
//! Looking at a few names and times a second costs less than what it would take to be told of changes, and works on every
//! file system. A file that is still written is left until it has been the same for a second; one that was moved into its
//! place, whole and older than that, is taken at once.
//!
//! Invariant: the same file is given out once. Not here: what becomes of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that did not change for so long is whole.
const QUIET: Duration = Duration::from_secs(1);

/// By what a file is told from what it was: inode, bytes, time of the last change in ns.
type Mark = (u64, u64, i128);

#[derive(Debug)]
struct Seen {
    mark: Mark,
    since: SystemTime,
    given: bool,
}

/// A directory that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    seen: BTreeMap<PathBuf, Seen>,
}

/// What there is to see.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// New or changed, and whole.
    pub(super) ready: Vec<PathBuf>,
    /// Not there any more.
    pub(super) gone: Vec<PathBuf>,
}

impl Watch {
    pub(super) fn new(directory: &Path) -> Watch {
        Watch { directory: directory.to_owned(), seen: BTreeMap::new() }
    }

    /// Looks; `now` is what a clock on the wall says.
    pub(super) fn look(&mut self, now: SystemTime) -> Sight {
        let mut sight = Sight::default();
        let found = files(&self.directory);
        self.seen.retain(|file, _| {
            let there = found.contains_key(file);
            if !there {
                sight.gone.push(file.clone());
            }
            there
        });
        for (file, (mark, changed)) in found {
            let seen = self.seen.entry(file.clone()).or_insert(Seen { mark, since: now, given: false });
            if seen.mark != mark {
                *seen = Seen { mark, since: now, given: false };
            }
            let quiet = |since: SystemTime| now.duration_since(since).is_ok_and(|time| time >= QUIET);
            if !seen.given && (quiet(seen.since) || quiet(changed)) {
                seen.given = true;
                sight.ready.push(file);
            }
        }
        sight
    }
}

/// The modules in a directory, each with its mark and the time of its last change. One that can not be read has none.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Mark, SystemTime)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let file = |entry: fs::DirEntry| {
        let path = entry.path();
        let hidden = path.file_name()?.to_str()?.starts_with('.');
        if hidden || path.extension()? != "wasm" {
            return None;
        }
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let time = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Some((path, ((metadata.ino(), metadata.len(), time), metadata.modified().ok()?)))
    };
    entries.filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Guards against half a file: it is given out when it has been the same for a second, once, and again when it
    /// changes; what was moved into place is given out at once; other files never are.
    #[test]
    fn a_file_is_given_out_once_and_whole() {
        let directory = Directory(std::env::temp_dir().join(format!("xvs-watch-{}", std::process::id())));
        fs::create_dir_all(&directory.0).expect("a directory");
        let path = |name: &str| directory.0.join(name);
        let mut watch = Watch::new(&directory.0);
        let mut now = SystemTime::now();
        let mut look = |seconds: f64| {
            now += Duration::from_secs_f64(seconds);
            watch.look(now)
        };
        assert_eq!(look(0.0), Sight::default());
        for name in ["a.wasm", "b.txt", ".c.wasm"] {
            fs::write(path(name), "half").expect("a file");
        }
        assert_eq!(look(0.0), Sight::default(), "it may still be written");
        fs::write(path("a.wasm"), "half and more").expect("a file");
        assert_eq!(look(0.6), Sight::default(), "it was");
        assert_eq!(look(1.0).ready, [path("a.wasm")]);
        assert_eq!(look(1.0), Sight::default(), "once");
        // Long after it was written, by the clock of the test.
        fs::write(path("moved"), "whole").expect("a file");
        fs::rename(path("moved"), path("a.wasm")).expect("it moves");
        assert_eq!(look(1.0).ready, [path("a.wasm")], "at once");
        fs::remove_file(path("a.wasm")).expect("the file");
        assert_eq!(look(1.0), Sight { ready: Vec::new(), gone: vec![path("a.wasm")] });
        assert_eq!(Watch::new(&path("none")).look(now), Sight::default(), "no directory, nothing to see");
    }
}
