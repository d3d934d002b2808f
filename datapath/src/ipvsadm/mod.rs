//! The `ipvsadm` grammar and its output, spoken to a director of ours.
//!
//! Years of scripts were written against ipvsadm 1.31: they depend on its option parser, on its exit statuses and on
//! every column of its listings. This module keeps those three to the letter and puts nothing of IPVS behind them: a
//! command line becomes a [`Command`], most of which are one [`Action`](crate::control::protocol::Action) for the
//! director, and what the director answers becomes text.
//!
//! The path of a command, each step a file:
//!
//! ```text
//! tokens    arguments -> options and their values, as popt splits them
//! options   which options exist, which command takes which
//! scan      text -> numbers, addresses, masks, ports
//! parse     options -> Command, or a Usage with its exit status
//! run       Command -> director -> listing, connections, save -> stdout, stderr, exit status
//! restore   lines -> Commands, many to one request
//! ```
//!
//! Invariant: nothing but [`run`], `restore` and [`names::System`] touches the world outside; all else is a function of its
//! arguments, so that the golden outputs of the real program can be compared without one running.
//!
//! What is not here: the wording of ipvsadm's messages (ours say what would be right), and its faults that lose
//! information: per-server counters that wrap at 2^32, marks above 2^31 that cannot be restored.

pub mod command;
pub mod connections;
mod draft;
pub mod help;
pub mod listing;
pub mod names;
pub mod numbers;
pub mod options;
pub mod parse;
pub mod proc;
pub mod rehearsed;
mod restore;
pub mod run;
pub mod save;
pub mod scan;
pub mod sort;
pub mod tokens;

pub use command::{Command, Usage};
pub use options::Dialect;
pub use parse::parse;
