//! What the director's processor of the virtual machine has done so far: instructions, and time of this machine.
//!
//! Instructions come from the plugin `tests/vm/count.c` and do not depend on who else is at work here; time is that of
//! the emulator's thread. Invariant: only differences of two [`Counts`] of one machine mean something.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The processor that only the director and its interfaces use.
const PROCESSOR: usize = 0;

/// Bytes of a record: address, instructions, entries by each of two processors.
const RECORD: usize = 32;

/// What was done so far.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    /// Instructions by the address of their block; empty without the plugin.
    blocks: BTreeMap<u64, u64>,
    /// Nanoseconds of this machine's processors.
    pub(super) time_ns: u64,
}

impl Counts {
    /// Reads them.
    pub(super) fn take(file: Option<&Path>, pid: u32) -> Result<Self> {
        let bytes = file.map(fs::read).transpose().context("the plugin's counts cannot be read")?.unwrap_or_default();
        Ok(Counts { blocks: blocks(&bytes), time_ns: thread_time(pid)? })
    }

    /// What was done since `earlier`.
    pub(super) fn since(&self, earlier: &Counts) -> Counts {
        let before = |address: &u64| earlier.blocks.get(address).copied().unwrap_or_default();
        let blocks = self.blocks.iter().map(|(address, count)| (*address, count - before(address)));
        let blocks = blocks.filter(|(_, count)| *count > 0).collect();
        Counts { blocks, time_ns: self.time_ns - earlier.time_ns }
    }

    /// Instructions of programs, and of the kernel: its addresses are the upper half of all.
    pub(super) fn instructions(&self) -> (u64, u64) {
        let half = 1 << 63;
        (
            self.blocks.range(..half).map(|(_, count)| count).sum(),
            self.blocks.range(half..).map(|(_, count)| count).sum(),
        )
    }

    /// Instructions by the function that they are in, which `name` tells by a block's address; the most first.
    pub(super) fn by_function(&self, mut name: impl FnMut(u64) -> String) -> Vec<(String, u64)> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (address, count) in &self.blocks {
            *sums.entry(name(*address)).or_default() += count;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sums
    }
}

/// The plugin's records, summed by address.
fn blocks(bytes: &[u8]) -> BTreeMap<u64, u64> {
    let mut blocks = BTreeMap::new();
    for record in bytes.chunks_exact(RECORD) {
        let field = |at: usize| u64::from_ne_bytes(record[at * 8..at * 8 + 8].try_into().unwrap_or_default());
        let executed = field(1) * field(2 + PROCESSOR);
        if executed > 0 {
            *blocks.entry(field(0)).or_default() += executed;
        }
    }
    blocks
}

/// Processor time of the thread that is the director's processor.
fn thread_time(pid: u32) -> Result<u64> {
    let name = format!("CPU {PROCESSOR}/");
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("qemu has no threads")?.flatten() {
        let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if read("comm").starts_with(&name) {
            let text = read("schedstat");
            let time = text.split(' ').next().and_then(|number| number.parse().ok());
            return time.context("the kernel tells no time of threads (CONFIG_SCHED_INFO)");
        }
    }
    anyhow::bail!("qemu has no thread {name}")
}

/// Compiles the plugin.
pub(super) fn plugin(directory: &Path, source: &Path) -> Result<PathBuf> {
    let plugin = directory.join("count.so");
    let words = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"];
    let status = Command::new("cc").args(words).arg(&plugin).arg(source).status().context("`cc` cannot be started")?;
    ensure!(status.success(), "{} does not compile", source.display());
    Ok(plugin)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the layout of the plugin's records, and that a processor's counts are not another's.
    #[test]
    fn records_are_read_and_subtracted() {
        let record = |fields: [u64; 4]| fields.into_iter().flat_map(u64::to_ne_bytes).collect::<Vec<u8>>();
        let kernel = 0xffff_ffff_8100_0000;
        let records = [[0x1000, 3, 5, 100], [kernel, 2, 10, 0], [0x2000, 9, 0, 4], [0x1000, 1, 1, 0], [0; 4]];
        assert_eq!(blocks(&records.map(record).concat()), BTreeMap::from([(0x1000, 16), (kernel, 20)]));
        let earlier = Counts { blocks: BTreeMap::from([(0x1000, 15), (kernel, 20)]), time_ns: 5 };
        let later = Counts { blocks: BTreeMap::from([(0x1000, 25), (kernel, 20), (kernel + 8, 7)]), time_ns: 9 };
        let between = later.since(&earlier);
        assert_eq!((between.instructions(), between.time_ns), ((10, 7), 4));
        let name = |address| if address < kernel { "program".to_owned() } else { "kernel".to_owned() };
        assert_eq!(between.by_function(name), [("program".to_owned(), 10), ("kernel".to_owned(), 7)]);
    }
}
