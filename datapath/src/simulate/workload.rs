//! New connections in the order of time, whoever made them: a capture (`trace.rs`) or a formula (`synthetic.rs`).
//!
//! Invariant: arrivals stand in the order of their times, none is later than the end, and their number is bounded, so
//! the memory of a simulation is, too (32 bytes for each).

use xvs_engine::flow::{Address, Endpoint, Flow, Protocol};

/// Most connections of one simulation.
pub(super) const MOST: usize = 10_000_000;

/// How a connection ends, which says for how long the director remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Properly, with FIN: inactive for FIN_WAIT's time.
    Closed,
    /// With RST: inactive for CLOSE's time.
    Reset,
    /// Its handshake was never finished: active for SYN_RECV's time after its last packet.
    HalfOpen,
    /// It was still there when the capture ended: active to the end of the simulation.
    Open,
    /// It is UDP and fell silent: inactive from the first packet on, for UDP's time after its last one.
    Silent,
}

/// A new connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arrival {
    /// When, in microseconds since the beginning.
    pub(super) at_us: u64,
    /// From its first to its last packet, in microseconds, with a server of speed 1.
    pub(super) life_us: u64,
    /// Bytes in both directions.
    pub(super) bytes: u64,
    /// Number of the client.
    pub(super) client: u32,
    /// The client's port.
    pub(super) port: u16,
    /// How it ends.
    pub(super) end: End,
}

/// Seconds that the director remembers connections for after their last packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    /// After a FIN.
    pub(super) closed_s: f64,
    /// After a RST.
    pub(super) reset_s: f64,
    /// Of a handshake that was not finished.
    pub(super) half_open_s: f64,
    /// Of UDP.
    pub(super) udp_s: f64,
}

/// New connections to one service.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// The service's VIP and port.
    pub(super) service: Endpoint,
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// Addresses by the clients' numbers.
    pub(super) clients: Vec<Address>,
    /// The connections.
    pub(super) arrivals: Vec<Arrival>,
    /// How many of them were there before the beginning: those of time 0 that come first.
    pub(super) carried: usize,
    /// When it ends, in microseconds.
    pub(super) length_us: u64,
    /// What was told of it besides, for the report: name and value.
    pub(super) notes: Vec<(String, String)>,
}

impl Workload {
    /// The addresses and ports of a connection.
    pub(super) fn flow(&self, arrival: &Arrival) -> Flow {
        let src = Endpoint::new(self.clients[arrival.client as usize], arrival.port);
        Flow { protocol: self.protocol, src, dst: self.service }
    }
}
