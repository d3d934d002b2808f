//! What the engine's tests share: packets built by etherparse ([`packet`]), a director to send them through
//! ([`site`]), an allocator that counts ([`counting`]), and what the process takes of memory ([`memory`]).
//!
//! Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod counting;
pub mod memory;
pub mod packet;
pub mod site;
