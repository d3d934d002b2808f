//! The control side: a person's or a program's wishes, checked and carried out.
//!
//! ```text
//! protocol    what is asked and answered            client      the tools' end
//! socket      the director's end
//! book        the rules in force                    entry, tally, totals, trash, classes, keys   its parts
//! change      one action, or many as one            timeouts, estimate   timeouts, rates
//! sysctl      settings by name, and the defences
//! workers     mail to the workers, and their health
//! network     ways and next hops, from the kernel   vips        addresses of our own
//! datapath    workers, XDP program, network         report      what is told of them
//! answer      requests that need no network         controller  all of it together
//! ```
//!
//! A module may use only what stands to its left (`entry` and the other parts of the book are one with it):
//!
//! ```text
//! protocol < client, socket < timeouts, estimate, sysctl < book < change, workers < network
//!     < vips, datapath < report < answer < controller
//! ```

pub mod answer;
pub mod book;
pub mod change;
mod classes;
pub mod client;
pub mod controller;
pub mod datapath;
pub mod entry;
pub mod estimate;
mod keys;
pub mod network;
pub mod protocol;
pub mod report;
pub mod socket;
pub mod sysctl;
mod tally;
pub mod timeouts;
mod totals;
mod trash;
pub mod vips;
pub mod workers;
