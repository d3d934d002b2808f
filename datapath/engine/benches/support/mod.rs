//! What the engine's own bench programs share: frames of many flows, frame memory without a device, a director full of
//! connections, and the bare loop that it is held against.
//!
//! Each program uses a part of it. Not here: criterion's benches (`path.rs`), which time single steps.
#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../../tests/common/mod.rs"]
pub mod common;

pub mod callgrind;
pub mod floor;
pub mod load;
pub mod stream;
pub mod timing;
pub mod umem;
