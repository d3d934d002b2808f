//! The files of /sys and /proc, below a root that tests put elsewhere.
//!
//! Invariant: a text is given without the line's end, a list in the order of its numbers and then its names; a path is
//! always written as it stands on a machine, `/sys/...`, whatever the root. Not here: what the files mean.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The files below `root`, which is `/` on a machine.
    pub fn new(root: impl Into<PathBuf>) -> Tree {
        Tree { root: root.into() }
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text.
    ///
    /// # Errors
    /// The file's, also `EINVAL` and such which the kernel gives for values that do not exist.
    pub fn read(&self, path: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.place(path))?.trim_end().to_owned())
    }

    /// A file's text as a number.
    ///
    /// # Errors
    /// The file's, or there is no number in it.
    pub fn number<Number: std::str::FromStr>(&self, path: &str) -> io::Result<Number> {
        self.read(path)?.parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// The chosen word of a file such as `always [madvise] never`.
    ///
    /// # Errors
    /// The file's, or no word is marked.
    pub fn chosen(&self, path: &str) -> io::Result<String> {
        let text = self.read(path)?;
        let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        word.map(str::to_owned).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Writes a value, in one piece as the kernel wants it; never makes a file.
    ///
    /// # Errors
    /// The file's, and what the kernel has against the value.
    pub fn write(&self, path: &str, text: &str) -> io::Result<()> {
        use io::Write;
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(self.place(path))?;
        file.write_all(text.as_bytes())
    }

    /// Whether there is such a file or directory.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).exists()
    }

    /// The names in a directory; none if there is no such directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.place(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| (trailing(name), name.clone()));
        names
    }

    /// The last part of what a link leads to.
    pub fn target(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.place(path)).ok()?;
        Some(Path::new(&target).file_name()?.to_string_lossy().into_owned())
    }
}

/// The number at the end of a name: 12 of `rx-12`.
pub fn trailing(name: &str) -> Option<u32> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    name[name.len() - digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the order of queues: `rx-10` comes after `rx-9`, or interrupts would go to the wrong CPUs.
    #[test]
    fn names_have_the_order_of_their_numbers() {
        let root = std::env::temp_dir().join(format!("xvs-tree-{}", std::process::id()));
        for queue in [10, 9, 0] {
            fs::create_dir_all(root.join(format!("sys/rx-{queue}"))).expect("a directory");
        }
        let tree = Tree::new(&root);
        assert_eq!(tree.names("/sys"), ["rx-0", "rx-9", "rx-10"]);
        assert!(tree.write("/sys/none", "1").is_err(), "files of the kernel are never made");
        fs::remove_dir_all(root).expect("it was there");
        assert_eq!(tree.names("/sys"), [""; 0]);
    }
}
