//! What can go wrong in a running plugin.
//!
//! Invariant: every fault has a name for counters and a sentence for the operator. Not here: what is wrong with a
//! module before it runs (`rejected`).

use thiserror::Error;

/// Why a call into a plugin gave no answer. But for [`Refused`](Fault::Refused) and [`Full`](Fault::Full) the instance
/// is dead then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The call used up its fuel.
    #[error("it did not come to an end within its budget")]
    Budget,
    /// It did what WebAssembly forbids: the text says what.
    #[error("it trapped: {0}")]
    Trap(String),
    /// Its calls were nested too deep.
    #[error("it used up its stack; a loop in place of a recursion would not")]
    Stack,
    /// It asked for more memory than it may have, or in the middle of a pick.
    #[error("it asked for more memory: {0}")]
    Memory(&'static str),
    /// It does not take its options: the sentence is the plugin's own, if it left one.
    #[error("it refused its options: {0}")]
    Refused(String),
    /// The service has more servers than its table has rows.
    #[error("its table has {capacity} rows, and the service has more servers")]
    Full {
        /// Rows that there is room for.
        capacity: usize,
    },
    /// Its buffers are not where, or not what, they were when the module was checked.
    #[error("{0}")]
    Layout(String),
    /// It failed before, and is not asked any more.
    #[error("it failed before: {reason}")]
    Dead {
        /// The [reason](Fault::reason) of the fault.
        reason: &'static str,
    },
    /// The machine could not make an instance: no memory, no address space.
    #[error("the machine has no room for an instance: {0}")]
    Machine(String),
}

impl Fault {
    /// Every [reason](Fault::reason) that there is, in the order of counters.
    pub const REASONS: &'static [&'static str] =
        &["budget", "trap", "stack", "memory", "refused", "full", "layout", "dead", "machine"];

    /// Its name in counters and JSON.
    pub fn reason(&self) -> &'static str {
        match self {
            Fault::Budget => "budget",
            Fault::Trap(_) => "trap",
            Fault::Stack => "stack",
            Fault::Memory(_) => "memory",
            Fault::Refused(_) => "refused",
            Fault::Full { .. } => "full",
            Fault::Layout(_) => "layout",
            Fault::Dead { .. } => "dead",
            Fault::Machine(_) => "machine",
        }
    }

    /// Is the instance dead after it?
    pub fn kills(&self) -> bool {
        !matches!(self, Fault::Refused(_) | Fault::Full { .. })
    }
}
