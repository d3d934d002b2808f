//! The contract between xvs and the authors of schedulers.
//!
//! A scheduler answers one question, once for every new connection: *which real server?* It sees the request (who asks
//! for what) and the real servers of the service (weights, connection counts, flags), and it answers with an index.
//! Everything else (persistence, checks of its answer, forwarding) is the director's work.
//!
//! The built-in schedulers of the director implement this very trait, so a scheduler can be tried natively and run as
//! WebAssembly without a change.
//!
//! Invariant: no `std`, no dependency; it builds with Rust 1.63 and later. Unsafe code is in two files alone: where the
//! director's memory meets a plugin's (`guest`), and in assertions about its layout ([`abi`]).
//!
//! ```
//! use xvs_sdk::{Change, Reals, Request, Scheduler};
//!
//! /// Sends every new connection to the usable server with the fewest active connections.
//! #[derive(Default)]
//! struct Fewest;
//!
//! impl Scheduler for Fewest {
//!     fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
//!         (0..reals.len()).filter(|&index| reals.is_usable(index)).min_by_key(|&index| reals.active(index))
//!     }
//! }
//! ```
#![no_std]
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

pub mod abi;
#[doc(hidden)]
pub mod export;
#[doc(hidden)]
pub mod guest;
pub mod hash;
mod log;
mod options;
mod random;
mod reals;
mod request;
mod scheduler;
mod view;

pub use log::log;
pub use options::Options;
pub use random::{mix, Rng};
pub use reals::{identity, Facts, Health, Reals};
pub use request::Request;
pub use scheduler::{Change, Needs, Scheduler};
