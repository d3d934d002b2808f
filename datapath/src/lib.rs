//! The director: the small program that feeds the engine.
//!
//! The engine (`xvs-engine`) says what happens to a packet. Everything here is about where packets come from and what
//! people want: AF_XDP sockets, threads, the kernel's routes and neighbours, the configuration, the control socket.
//!
//! ```text
//! control::protocol < config < kernel, xsk < control < rehearsal < replay, run, plugin, simulate, workers
//!     < render, ipvsadm, cli < main
//! config, kernel < tune < cli
//! ```

pub mod cli;
pub mod config;
pub mod control;
pub mod ipvsadm;
pub mod kernel;
pub mod plugin;
pub mod rehearsal;
pub mod render;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod tune;
pub mod workers;
pub mod xsk;
