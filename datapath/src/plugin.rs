//! `xvs plugin`: what the author of a scheduler needs besides a compiler.
//!
//! Invariant: nothing here needs a director.

pub mod new;
