//! What became of a UDP flow: how many of its packets came back, and the longest time without one.
//!
//! Invariant: a packet counts as answered once, however often its answer comes.

use serde::{Deserialize, Serialize};

/// A flow that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Packets that were sent.
    pub sent: u64,
    /// Those whose answer came.
    pub answered: u64,
    /// Microseconds: the longest time from one answer to the next.
    pub longest_gap_us: u64,
}
