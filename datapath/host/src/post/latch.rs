//! A lock for a seat: taken by its worker for every new connection, and by the control side now and then.
//!
//! It costs one locked operation for both ends, where a mutex takes two; the worker of a seat pays for it all day, and
//! whoever finds it taken, which is rare and short, waits awake and then lets others run.
//!
//! Invariant: one guard at a time refers to the value. The only unsafe code of the post; not for anything that is held
//! longer than an answer of a plugin.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Looks before the one who waits lets others run.
const PATIENCE: u32 = 64;

/// A value that one thread at a time uses.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Latch<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the flag gives the value to one thread at a time, so sharing a latch is sending the value to and fro.
unsafe impl<T: Send> Sync for Latch<T> {}

/// The right to use the value, until it is dropped.
pub(super) struct Guard<'a, T>(&'a Latch<T>);

impl<T> Latch<T> {
    /// Takes it; waits for whoever has it.
    #[inline]
    pub(super) fn take(&self) -> Guard<'_, T> {
        if self.taken.swap(true, Ordering::Acquire) {
            self.wait();
        }
        Guard(self)
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        loop {
            while self.taken.load(Ordering::Relaxed) {
                looks += 1;
                if looks % PATIENCE == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
            if !self.taken.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the flag is ours, so nobody else has a reference.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the flag is ours, so nobody else has a reference.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads that add to one number without an atomic lose none.
    #[test]
    fn one_at_a_time() {
        const EACH: u64 = 200_000;
        let latch = Latch::<u64>::default();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..EACH).for_each(|_| *latch.take() += 1));
            }
        });
        assert_eq!(*latch.take(), 2 * EACH);
    }

    /// A panic while it is held leaves it free: the value is whole, because every change of it is.
    #[test]
    fn a_panic_lets_go() {
        let latch = Latch::<u64>::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = latch.take();
            panic!("while it is held");
        }));
        assert!(panicked.is_err());
        *latch.take() = 1;
    }
}
