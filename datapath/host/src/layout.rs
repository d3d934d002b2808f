//! Where a plugin's buffers are.
//!
//! Invariant: a layout that was read lies within the plugin's memory; its buffers are aligned, have room for what the
//! host writes, and do not overlap. It is read once; a head that the plugin spoils later misleads nobody but itself.

use xvs_sdk::abi::{FactsHead, Flow, MAGIC, Row, TableHead, TextHead, VERSION};

use crate::memory::Window;

/// Addresses that a plugin told; 0 is no buffer, where one may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) table: i32,
    pub(crate) io: i32,
    pub(crate) config: i32,
    pub(crate) facts: Option<i32>,
    pub(crate) state: Option<i32>,
}

/// A buffer for text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Address of the head.
    pub(crate) at: usize,
    /// Bytes that there is room for.
    pub(crate) capacity: usize,
}

/// A plugin's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) table: usize,
    pub(crate) rows: usize,
    pub(crate) row_size: usize,
    pub(crate) capacity: usize,
    pub(crate) io: usize,
    /// Address of the first facts, and bytes from one to the next.
    pub(crate) facts: Option<(usize, usize)>,
    pub(crate) config: Option<Text>,
    pub(crate) state: Option<Text>,
}

/// Bytes of `Facts`.
const FACTS: usize = size_of::<xvs_sdk::abi::Facts>();
/// Most bytes from one row, or facts, to the next.
const STRIDE: usize = 4096;

/// Collects what is wrong.
struct Reader<'a> {
    window: &'a Window,
    /// First and last address + 1 of each buffer, with its name.
    taken: Vec<(usize, usize, &'static str)>,
    problems: Vec<String>,
}

impl Layout {
    /// Reads and checks what a plugin told.
    ///
    /// # Errors
    /// Something is wrong: a sentence each.
    pub(crate) fn read(window: &Window, told: Told, most_rows: usize) -> Result<Layout, Vec<String>> {
        let mut reader = Reader { window, taken: Vec::new(), problems: Vec::new() };
        let table = reader.table(told.table, most_rows);
        let io = reader.claim("xvs_io", told.io, size_of::<Flow>(), 8);
        let some = |told: Option<i32>| told.filter(|&at| at != 0);
        let config = some(Some(told.config)).and_then(|config| reader.text("xvs_config", config));
        let state = some(told.state).and_then(|state| reader.text("xvs_state", state));
        let least = table.map_or(0, |(_, _, capacity)| capacity);
        let facts = some(told.facts).and_then(|facts| reader.facts(facts, least));
        match (table, io, reader.problems) {
            (Some((table, row_size, capacity)), Some(io), problems) if problems.is_empty() => {
                Ok(Layout { table, rows: table + size_of::<TableHead>(), row_size, capacity, io, facts, config, state })
            }
            (_, _, problems) => Err(problems),
        }
    }
}

impl Reader<'_> {
    fn problem<T>(&mut self, problem: String) -> Option<T> {
        self.problems.push(problem);
        None
    }

    /// Takes a range of memory for a buffer.
    fn claim(&mut self, name: &'static str, told: i32, bytes: usize, align: usize) -> Option<usize> {
        let at = told.cast_unsigned() as usize;
        let all = self.window.len();
        if at == 0 {
            return self.problem(format!("{name} tells address 0, where no buffer can be"));
        }
        if !at.is_multiple_of(align) {
            return self.problem(format!("{name} tells address {at}, which is no multiple of {align}"));
        }
        if bytes > all || at > all - bytes {
            return self.problem(format!(
                "the buffer of {name} ({bytes} bytes from address {at} on) does not lie within its memory of {all} bytes"
            ));
        }
        let overlaps = self.taken.iter().find(|&&(from, to, _)| at < to && from < at + bytes);
        if let Some(&(_, _, other)) = overlaps {
            return self.problem(format!("the buffers of {name} and {other} overlap"));
        }
        self.taken.push((at, at + bytes, name));
        Some(at)
    }

    /// A head, which need not be claimed yet.
    fn head<T: crate::memory::Plain>(&mut self, name: &'static str, told: i32) -> Option<T> {
        let head = self.window.read::<T>(told.cast_unsigned() as usize);
        if head.is_none() {
            let all = self.window.len();
            self.problems
                .push(format!("{name} tells address {}, beyond its memory of {all} bytes", told.cast_unsigned()));
        }
        head
    }

    fn stride(&mut self, name: &'static str, size: u32, least: usize) -> Option<usize> {
        let size = size as usize;
        if size < least || size > STRIDE || !size.is_multiple_of(8) {
            return self.problem(format!(
                "the head of {name} tells {size} bytes from one to the next; it must be a multiple of 8 from {least} to \
                 {STRIDE}"
            ));
        }
        Some(size)
    }

    fn table(&mut self, told: i32, most: usize) -> Option<(usize, usize, usize)> {
        let head: TableHead = self.head("xvs_table", told)?;
        if head.magic != MAGIC {
            return self.problem(format!(
                "the head of xvs_table begins with {:#010x} and not with {MAGIC:#010x} (XVS1)",
                head.magic
            ));
        }
        if head.abi != VERSION.cast_unsigned() {
            return self
                .problem(format!("the head of xvs_table is of ABI {}; the director speaks {VERSION}", head.abi));
        }
        let capacity = head.capacity as usize;
        if capacity == 0 || capacity > most {
            return self.problem(format!("its table has room for {capacity} rows; it must be 1 to {most}"));
        }
        let row_size = self.stride("xvs_table", head.row_size, size_of::<Row>())?;
        let at = self.claim("xvs_table", told, size_of::<TableHead>() + capacity * row_size, 8)?;
        Some((at, row_size, capacity))
    }

    fn facts(&mut self, told: i32, least: usize) -> Option<(usize, usize)> {
        let head: FactsHead = self.head("xvs_facts", told)?;
        if head.magic != MAGIC {
            return self.problem(format!(
                "the head of xvs_facts begins with {:#010x} and not with {MAGIC:#010x} (XVS1)",
                head.magic
            ));
        }
        let capacity = head.capacity as usize;
        if capacity < least || capacity > 1 << 16 {
            return self.problem(format!(
                "xvs_facts has room for {capacity} servers, and its table for {least}; facts need as much"
            ));
        }
        let size = self.stride("xvs_facts", head.facts_size, FACTS)?;
        let at = self.claim("xvs_facts", told, size_of::<FactsHead>() + capacity * size, 8)?;
        Some((at + size_of::<FactsHead>(), size))
    }

    fn text(&mut self, name: &'static str, told: i32) -> Option<Text> {
        let head: TextHead = self.head(name, told)?;
        let capacity = head.capacity as usize;
        let at = self.claim(name, told, size_of::<TextHead>().saturating_add(capacity), 4)?;
        Some(Text { at, capacity })
    }
}
