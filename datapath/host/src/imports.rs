//! What a plugin may call: `xvs.now`, `xvs.random`, `xvs.log`, each if it is granted. And what its memory may become.
//!
//! Invariant: each import charges fuel for its work, so that calling it in a loop ends as any loop does. Memory grows
//! only outside of picks, and never beyond the limit.

use std::collections::VecDeque;

use wasmtime::{Caller, Engine, Error, Linker, Memory, ResourceLimiter, Result};

use crate::limits::Grants;
use crate::prices::IMPORT;

/// The module that imports name.
pub(crate) const MODULE: &str = "xvs";
/// Bytes of a line of the log that are kept.
const LINE: usize = 240;
/// Lines that wait to be taken; more are counted only.
const LINES: usize = 16;

/// An import that there is, by what grants it: name, parameters, results, word of the grant.
pub(crate) const KNOWN: [(&str, &str, &str); 3] =
    [("now", "() -> i64", "time"), ("random", "() -> i64", "random"), ("log", "(i32, i32)", "log")];

/// Is what grants this import granted?
pub(crate) fn granted(grants: Grants, word: &str) -> bool {
    match word {
        "time" => grants.time,
        "random" => grants.random,
        _ => grants.log,
    }
}

/// What stands beside an instance, for its imports and its limiter.
#[derive(Debug)]
pub(crate) struct Beside {
    /// Milliseconds that `now` tells.
    pub(crate) now_ms: u64,
    /// State of the random numbers.
    pub(crate) random: u64,
    /// Its memory, once there is one.
    pub(crate) memory: Option<Memory>,
    /// Most bytes of memory.
    pub(crate) memory_bytes: usize,
    /// It may grow now.
    pub(crate) may_grow: bool,
    lines: VecDeque<String>,
    lost: u64,
}

/// Memory was asked for that it does not get.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Growth(pub(crate) &'static str);

impl Beside {
    pub(crate) fn new(seed: u64, memory_bytes: usize) -> Beside {
        Beside { now_ms: 0, random: seed, memory: None, memory_bytes, may_grow: true, lines: VecDeque::new(), lost: 0 }
    }

    /// The lines that it logged since; the last one says how many were lost.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = self.lines.drain(..).collect();
        if self.lost > 0 {
            lines.push(format!("({} more lines were not kept)", self.lost));
            self.lost = 0;
        }
        lines
    }

    /// SplitMix64: one addition, two multiplications, all seeds good.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

impl ResourceLimiter for Beside {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        if desired > self.memory_bytes {
            return Err(Error::new(Growth(
                "more than a plugin may have; a smaller table or less of its own data fits",
            )));
        }
        if desired > current && !self.may_grow {
            return Err(Error::new(Growth("it may grow while it is configured and takes in the list, and not later")));
        }
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, _desired: usize, _maximum: Option<usize>) -> Result<bool> {
        // Only when it is made: `screen` lets no operation through that changes a table.
        Ok(current == 0)
    }
}

/// Takes fuel for an import's work. Without any left, the guard behind the call stops it.
fn charge(caller: &mut Caller<'_, Beside>, fuel: u64) -> Result<()> {
    let left = caller.get_fuel()?;
    caller.set_fuel(left.saturating_sub(fuel))
}

/// The imports that are granted.
pub(crate) fn linker(engine: &Engine, grants: Grants) -> Result<Linker<Beside>> {
    let mut linker = Linker::new(engine);
    if grants.time {
        linker.func_wrap(MODULE, "now", |mut caller: Caller<'_, Beside>| -> Result<i64> {
            charge(&mut caller, IMPORT)?;
            Ok(caller.data().now_ms.cast_signed())
        })?;
    }
    if grants.random {
        linker.func_wrap(MODULE, "random", |mut caller: Caller<'_, Beside>| -> Result<i64> {
            charge(&mut caller, IMPORT)?;
            Ok(caller.data_mut().next_random().cast_signed())
        })?;
    }
    if grants.log {
        linker.func_wrap(MODULE, "log", |mut caller: Caller<'_, Beside>, at: i32, len: i32| -> Result<()> {
            log(&mut caller, at.cast_unsigned() as usize, len.cast_unsigned() as usize)
        })?;
    }
    Ok(linker)
}

fn log(caller: &mut Caller<'_, Beside>, at: usize, len: usize) -> Result<()> {
    charge(caller, IMPORT)?;
    let beside = caller.data_mut();
    if beside.lines.len() >= LINES {
        beside.lost += 1;
        return Ok(());
    }
    // Making a line allocates, which a plugin can do as often as there is room for lines, and then no more.
    charge(caller, 20 * IMPORT)?;
    let Some(memory) = caller.data().memory else { return Ok(()) };
    let mut bytes = [0; LINE];
    let bytes = &mut bytes[..len.min(LINE)];
    if memory.read(&*caller, at, bytes).is_err() {
        return Err(Error::msg("it logged a line that is not in its memory"));
    }
    let line = String::from_utf8_lossy(bytes);
    let line = line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    caller.data_mut().lines.push_back(line);
    Ok(())
}
