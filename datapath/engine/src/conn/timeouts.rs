//! How long a connection is remembered, by protocol and state.
//!
//! Shared by all workers and set by the operator while they run; a connection takes a new value with its next packet.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::tcp;

/// Seconds that a UDP flow is remembered after its last packet, unless set otherwise.
pub const UDP_DEFAULT_S: u32 = 300;

/// The timeouts in force, in seconds.
#[derive(Debug)]
pub struct Timeouts {
    tcp: [AtomicU32; tcp::STATES.len()],
    udp: AtomicU32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tcp: tcp::STATES.map(|state| AtomicU32::new(state.default_timeout_s())),
            udp: AtomicU32::new(UDP_DEFAULT_S),
        }
    }
}

impl Timeouts {
    /// Of a TCP state.
    #[inline]
    pub fn tcp(&self, state: tcp::State) -> u32 {
        self.tcp[state as usize].load(Relaxed)
    }

    /// Sets the timeout of a TCP state.
    pub fn set_tcp(&self, state: tcp::State, seconds: u32) {
        self.tcp[state as usize].store(seconds, Relaxed);
    }

    /// Of a UDP flow.
    #[inline]
    pub fn udp(&self) -> u32 {
        self.udp.load(Relaxed)
    }

    /// Sets the timeout of UDP flows.
    pub fn set_udp(&self, seconds: u32) {
        self.udp.store(seconds, Relaxed);
    }
}
