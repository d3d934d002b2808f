//! AF_XDP: the rings of one worker over real devices.
//!
//! All unsafe code of the director lives in this module.
//!
//! JUSTIFICATION: frame memory and rings are shared with the kernel by `mmap`; no safe interface can express that.
//! `xsk-rs` makes the frame memory and the sockets (and sees to their order of life). Its rings, however, can not send
//! a packet that starts elsewhere in its chunk than it was received at, which tunnels need, and cost a C call an
//! operation. So the rings are mapped a second time, from the same sockets, and driven from here ([`ring`]); those of
//! `xsk-rs` are never touched after creation.

mod ring;
mod rings;
mod socket;

pub use rings::XskRings;
pub use socket::{BindError, Binding, Frames, Monitor, ZeroCopy, bind};
