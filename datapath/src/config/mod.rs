//! The configuration: from a file to values that cannot be wrong, and from there to the changes that make them so.
//!
//! ```text
//! text --Document::parse--> Document --Desired::validate--> Desired --plan::diff--> Plan (actions and sentences)
//!  ^                                                          rules::check_* judge single actions by the same rules
//!  '--render::render-- Vec<ServiceState> <------------------- the director's listing
//! ```
//!
//! Invariant: the file and the command line accept the same rules, because they ask the same functions ([`rules`]).
//! Everything here is a pure function: no file is opened, no socket, no interface is asked. Whoever calls reads the
//! file and knows the names of the schedulers.
//!
//! Not here: doing any of it. The controller carries plans out, the director reads its settings when it starts.

pub mod desired;
pub mod document;
mod marks;
pub mod plan;
pub mod plugins;
pub mod problem;
mod reader;
pub mod render;
pub mod rules;
mod services;
pub mod settings;

pub use desired::{Desired, ServiceState};
pub use document::Document;
pub use plan::{Plan, Step, diff};
pub use problem::{Place, Problem};
pub use reader::DOCUMENT_MAX;
