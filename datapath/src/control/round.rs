//! A walk over all services, in the order of their numbers, that others come between.
//!
//! What is done about ten thousand services again and again is done in pieces, so that a request waits for a piece only.
//! Invariant: a walk passes each service once that is there from its begin to its end; one that comes meanwhile is passed
//! too, since its number is the highest.

/// How far a walk has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// The lowest number that was not passed; none while nobody walks.
    next: Option<u32>,
}

impl Round {
    /// Starts at the first service. One that is on its way goes on instead: false.
    pub(super) fn begin(&mut self) -> bool {
        let begins = self.next.is_none();
        self.next.get_or_insert(0);
        begins
    }

    /// Where to go on.
    pub(super) fn next(self) -> Option<u32> {
        self.next
    }

    /// Is this service still to be passed?
    pub(super) fn is_ahead(self, number: u32) -> bool {
        self.next.is_some_and(|next| next <= number)
    }

    /// Stops before a service, or at the end. True if there is more to do.
    pub(super) fn stop(&mut self, before: Option<u32>) -> bool {
        self.next = before;
        before.is_some()
    }
}
