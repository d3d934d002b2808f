//! The engine of xvs: **what happens to a packet**, as a function of its bytes, the state and the time.
//!
//! No socket, no thread, no clock, no allocation for a packet of a known connection. *Where packets come from* is the
//! director's business; it feeds the engine through [`rings::Rings`] and tells it the time.
//!
//! # The life of a packet
//!
//! ```text
//! worker::Worker::step                 one breath, bounded by a batch
//!   Rings::replenish                   transmitted frames come back, free ones go out for reception
//!   Rings::receive                     frames are ours
//!   Engine::glance       (each frame)  wire::Glance::of, flow::HashKey::hash4, conn::Table::touch
//!   Engine::guess        (each batch)  conn::Table::guesser
//!   Engine::express      (each frame)  packets of known connections that nothing special happens to: nearly all (IPv6's
//!                                      lane: glance6, guess6, express6)
//!     Engine::welcome                  or the first packet of a new one: service -> scheduler -> conn::Table::insert4 (IPv6's:
//!                                      welcome6, insert6)
//!   Engine::settle_tally               what the batch has counted together, and keys that its connections owe
//! ```
//!
//! What is left over goes the long way:
//!
//! ```text
//!   Engine::inspect      (each frame)  wire::Headers::parse, flow::HashKey::hash, conn::Table::touch
//!   Engine::forward      (each frame)
//!     checksum::complete               a partial checksum becomes a whole one
//!     conn::Table::lookup              the connection, and which way the packet goes in it
//!       or Engine::unknown             mark, service -> template or scheduler -> conn::Table::insert
//!     Engine::track                    conn::state, active/inactive counts, timer
//!     forward::{nat, tun}              addresses, ports, checksums, outer header (DR: nothing)
//!     forward::link                    MAC addresses and VLAN tags of the next hop
//!   forward::cut                       what is too large and may be cut leaves in fragments
//!   Rings::transmit      (each device)
//!   Engine::expire                     a bounded piece of the connection table
//! ```
//!
//! # Order of the modules
//!
//! A module may use only what stands to its left:
//!
//! ```text
//! drop, time, lines, switches < flow < wire < hop, tunnel < real < route < mark < sched < service < snapshot < conn
//!     < forward < counters < rings < engine < explain < worker
//! ```
//!
//! # Invariants worth knowing
//!
//! - A packet is sent, whole or in fragments, held for a moment, or dropped with a [`drop::DropReason`]: nothing else.
//! - A connection keeps its real server for life, whatever the configuration does.
//! - Frames are conserved: [`rings::Ledger`].
//! - Choosing a server and counting the connection is one step under the service's lock. A new NAT connection looks up
//!   its client's next hop under the lock of that book, which allocates when the neighbour is new; changing an index
//!   bucket takes its lock bit, and a new SIP call that of the store of Call-IDs. A packet of an existing connection
//!   locks nothing and allocates nothing.
#![deny(unsafe_code)] // but for `lines`

pub mod conn;
pub mod counters;
pub mod drop;
pub mod engine;
pub mod explain;
pub mod flow;
pub mod forward;
pub mod hop;
pub mod lines;
pub mod mark;
pub mod real;
pub mod rings;
pub mod route;
pub mod sched;
pub mod service;
pub mod snapshot;
pub mod switches;
pub mod time;
pub mod tunnel;
pub mod wire;
pub mod worker;
