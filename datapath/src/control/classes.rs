//! The engine's sets of timeouts, lent to services that have their own.
//!
//! Invariant: no two services have the same class, and none has the director's. A class that comes back is lent again as
//! late as can be: connections of the service that had it may still be there.

use std::collections::VecDeque;

use xvs_engine::conn::Class;

/// Classes that no service has.
#[derive(Debug)]
pub(super) struct Classes(VecDeque<Class>);

impl Default for Classes {
    fn default() -> Self {
        Classes((0..=u8::MAX).map_while(Class::new).filter(|class| *class != Class::DIRECTOR).collect())
    }
}

impl Classes {
    /// Lends one; none if all are lent.
    pub(super) fn lend(&mut self) -> Option<Class> {
        self.0.pop_front()
    }

    /// Takes one back.
    pub(super) fn take_back(&mut self, class: Class) {
        if class != Class::DIRECTOR {
            self.0.push_back(class);
        }
    }
}
