//! What the engine's tests share: packets built by etherparse ([`packet`]), and a director to send them through
//! ([`site`]).
//!
//! Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod packet;
pub mod site;
