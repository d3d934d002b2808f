//! Time as an argument.
//!
//! Nothing in the engine asks a clock. Whoever calls it says what time it is, once a batch: the director from the
//! monotonic clock, a replay from its capture, a test from its story.

/// A moment, in milliseconds since some start that the caller chose. Monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(u64);

impl Now {
    /// The moment this many milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Now(millis)
    }

    /// The moment this many seconds after the start.
    pub const fn from_secs(seconds: u64) -> Self {
        Now(seconds * 1000)
    }

    /// Milliseconds since the start.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Milliseconds since an earlier moment; 0 if it is not earlier.
    pub const fn since(self, earlier: Now) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This many milliseconds later.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Now(self.0 + millis)
    }
}
