//! The laboratory: the whole product from outside, in network namespaces.
//!
//! ```text
//!   client -- br-client -- eth0  DIRECTOR  eth1 -- br-server -- rs1 .. rsN        two arms (`Lab::two_arm`)
//!                 \___________ router ______________/
//!
//!   client -- br-client -- eth0  DIRECTOR                                         one arm (`Lab::one_arm`)
//!                 \______________________________________ rs1 .. rsN
//! ```
//!
//! A [`Lab`] owns its namespaces, wires, processes and files, and takes all of it away when it is dropped. A test is a
//! [`story`]: one sentence that says what it guards, and the steps. The product is used through its command lines and
//! the network only, so this crate depends on none of the product's crates, and on no C library.
//!
//! Invariant: what a lab created carries the lab's name (`xvs-PID-N-...`), and nothing without that name is touched.
//! What a killed process left behind is swept by the next lab that starts.
//!
//! Not here: packets as bytes (the engine's tests), virtual machines, and any judgement about speed.

mod addresses;
mod answers;
mod binaries;
mod client;
mod command;
mod counters;
mod director;
mod filter;
mod flow;
mod lab;
mod links;
mod listing;
mod load;
mod namespace;
mod nginx;
mod plan;
mod process;
mod requirements;
mod scratch;
mod server;
mod service;
mod story;
mod table;
pub mod wire;

pub use addresses::{Addresses, Family, Pair};
pub use answers::{Answers, Expected};
pub use binaries::{binary, use_binaries_in};
pub use client::{Client, Upload};
pub use command::{Finished, run};
pub use counters::{Counters, Moved};
pub use director::{Director, Running};
pub use flow::Flow;
pub use lab::{FILES_PORTS, HTTP_PORTS, Lab, SCTP_PORTS, UDP_PORTS, UDP_REVERSED_PORTS, VIPS};
pub use listing::stats_from_listing;
pub use load::Load;
pub use namespace::{Namespace, clean, sweep};
pub use plan::Plan;
pub use process::{Process, wait_until};
pub use requirements::{REQUIREMENTS, Requirement, in_ci, is_root, missing_requirements};
pub use server::RealServer;
pub use service::{Method, Service};
pub use story::{Cases, Failure, Outcome, skipped, story, story_of_the_lab};
pub use table::Row;
