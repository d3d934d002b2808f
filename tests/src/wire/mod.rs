//! The ground of `cargo xtask bench wire`: three hosts on wires that cost as little as wires can, a load, and those who
//! balance it.
//!
//! ```text
//!   client eth0 ---- eth0 DIRECTOR eth1 ---- eth0 server     what is balanced; answers of NAT come back this way
//!   client eth1 ------------------------------ eth1 server    answers of DR
//! ```
//!
//! No bridge is in between: it would make a socket buffer of each frame and cost more than the director. Client and
//! server run on CPU 1, who balances on CPU 0 (and 1, with two workers).
//!
//! Not here: the programs at the ends (`xvs-wire`), rounds, medians and tables (`xtask`).

mod contender;
mod cpu;
mod flood;
mod ground;
mod haproxy;
mod kernel;
mod streams;
mod testpmd;
mod tool;

pub use contender::{Contender, Standing};
pub use cpu::{Machine, Spent};
pub use flood::{Flood, Flooded, Kind};
pub use ground::{Ground, SINK_PORT};
