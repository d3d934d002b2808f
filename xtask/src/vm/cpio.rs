//! Archives as the kernel takes them for its first file system: cpio, format "newc" (kernel: initramfs buffer format).
//!
//! Invariant: whatever was added can be unpacked by the kernel in the order of addition: directories come before what
//! is in them. Owners are root, times are 0, so the same content gives the same bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Kinds of files, as in `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Entries and names are padded to this.
const ALIGN: usize = 4;

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Cpio {
    out: BufWriter<File>,
    entries: u32,
}

impl Cpio {
    /// Begins one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Cpio { out: BufWriter::new(File::create(path)?), entries: 0 })
    }

    /// A directory.
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// A file with this content.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, REGULAR | mode, (0, 0), content)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, name: &str, to: &Path) -> io::Result<()> {
        self.entry(name, SYMBOLIC | 0o777, (0, 0), to.as_os_str().as_bytes())
    }

    /// A character device with its two numbers.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, CHARACTER | 0o600, (major, minor), &[])
    }

    /// A tree, whole but for what `skip` names; names are relative to `root`.
    pub(super) fn tree(&mut self, root: &Path, below: &str, skip: &dyn Fn(&str) -> bool) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(root.join(below))?.collect::<io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let file_name = entry.file_name();
            let Some(last) = file_name.to_str() else { continue };
            let name = if below.is_empty() { last.to_owned() } else { format!("{below}/{last}") };
            if skip(&name) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.link(&name, &fs::read_link(entry.path())?)?;
            } else if kind.is_dir() {
                self.directory(&name)?;
                self.tree(root, &name, skip)?;
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                self.file(&name, mode, &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let length = u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{name} is over 4 GB")))?;
        let name_length = name.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0]
            .map(|n| format!("{n:08x}"));
        write!(self.out, "070701{}{name}\0", fields.concat())?;
        // Magic number and fields are 110 bytes.
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        let zeros = [0; ALIGN];
        self.out.write_all(&zeros[..written.next_multiple_of(ALIGN) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the layout: a shifted field or a missing pad gives a kernel that panics without a word.
    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let path = std::env::temp_dir().join(format!("xvs-cpio-{}", std::process::id()));
        let mut cpio = Cpio::create(&path).expect("a file");
        cpio.file("init", 0o755, b"#!/bin/sh").expect("an entry");
        cpio.finish().expect("a trailer");
        let bytes = fs::read(&path).expect("the archive");
        let _ = fs::remove_file(&path);
        assert_eq!(&bytes[..22], b"07070100000001000081ed", "magic number, inode, mode");
        assert_eq!(&bytes[54..62], b"00000009", "size");
        assert_eq!(&bytes[94..102], b"00000005", "length of the name with its zero");
        assert_eq!(&bytes[110..116], b"init\0\0"[..].get(..6).expect("six bytes"), "110 + 5 bytes are padded to 116");
        assert_eq!(&bytes[116..125], b"#!/bin/sh");
        assert_eq!(&bytes[128..134], b"070701", "the next entry begins at a multiple of four");
        assert_eq!(bytes.len() % ALIGN, 0);
    }
}
