//! The control side: a person's or a program's wishes, checked and carried out.
//!
//! ```text
//! protocol    what is asked and answered            client      the tools' end
//! socket      the director's end
//! book        the rules in force                    entry, tally, totals, trash, classes, keys, round,
//!                                                   addresses   its parts
//! change      one action, or many as one            timeouts, estimate   timeouts, rates
//! sysctl      settings by name, and the defences
//! workshop    plugins from their files              registry    their names and versions
//! beside      a service's plugin                    watch       a directory of plugins
//! wanted      the plugins that a configuration wants
//! workers     mail to the workers, and their health   pace, histogram   how they go about their work
//! network     ways and next hops, from the kernel   devices     those that the workers serve
//! vips        addresses of our own
//! datapath    workers, XDP program, network         report, thread   what is told of them
//! ways        of servers, found again               replies     ways of answers, found again
//! answer      requests that need no network         errands     requests that need a file of a plugin first
//! controller  all of it together
//! ```
//!
//! A module may use only what stands to its left (`entry` and the other parts of the book are one with it):
//!
//! ```text
//! protocol < client, socket < timeouts, estimate, sysctl, workshop < registry, beside, watch
//!     < wanted < book < histogram < pace < change, workers, devices < network
//!     < vips, ways, replies < datapath < thread < report < answer, many < errands < controller
//! ```

mod addresses;
pub mod answer;
pub mod beside;
pub mod book;
pub mod change;
mod classes;
pub mod client;
pub mod controller;
pub mod datapath;
mod devices;
pub mod entry;
mod errands;
pub mod estimate;
pub mod histogram;
mod keys;
mod linger;
mod many;
pub mod network;
pub mod pace;
pub mod protocol;
pub mod registry;
mod replies;
pub mod report;
mod round;
pub mod sleep;
pub mod socket;
mod stale;
pub mod sysctl;
mod tally;
mod thread;
pub mod timeouts;
mod totals;
mod trash;
pub mod vips;
pub mod wanted;
mod watch;
mod ways;
pub mod workers;
pub mod workshop;
