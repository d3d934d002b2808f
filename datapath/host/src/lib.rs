//! The host of scheduler plugins: WebAssembly modules that choose real servers, under a budget.
//!
//! ```text
//! Host::load        bytes -> screen (what it may be) -> guards (places to stop it) -> compile -> trial -> Module
//! Module::instantiate                     an Instance: one for each worker and service, no lock
//! Instance::pick                          a Flow in, a slot out, never more than its fuel
//! check                                   what a module costs, and whether it answers well
//! Post              a service's guest: an instance in each worker's seat, strikes, quarantine, a candidate beside it
//! ```
//!
//! # Invariants worth knowing
//!
//! - A module can do nothing but compute: it reaches what [`Grants`] lists, and its own memory.
//! - No call lasts longer than its fuel: every operation has a [price](prices), and there is no way through the code
//!   on which it is not asked for.
//! - The host writes into a plugin's memory and never reads back what it relies on.
//! - After a [`Fault`] an instance is dead and never runs again.
//!
//! Unsafe code stands in `memory` alone. Not here: what happens to a packet whose plugin failed (`xvs-engine` and the
//! posts beside its services).

pub mod check;
pub mod fault;
mod guards;
pub mod host;
mod imports;
pub mod instance;
mod layout;
pub mod limits;
mod memory;
pub mod module;
mod post;
pub mod prices;
pub mod rejected;
mod screen;

pub use fault::Fault;
pub use host::Host;
pub use instance::Instance;
pub use limits::{Grants, Limits};
pub use module::{Module, Offers};
pub use post::{Comparison, Event, EventKind, Misdeed, Post, PostStatus, Share, Standing, Trial, Trust, Version};
pub use rejected::{HostError, Rejected};
