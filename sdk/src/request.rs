//! What is asked.

/// A new connection that wants a real server.
///
/// Addresses are 16 bytes in network order; an IPv4 address stands as `::ffff:a.b.c.d`. Ports are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// CIP, the client's address.
    pub client: [u8; 16],
    /// VIP, the address that the client asked for.
    pub virtual_address: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The port that the client asked for.
    pub virtual_port: u16,
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// The three scheduler flags of the service (`-b`): bit 0 is `flag-1`, bit 1 `flag-2`, bit 2 `flag-3`.
    pub flags: u8,
    /// IP version of the packet, 4 or 6.
    pub family: u8,
    /// A keyed hash of the flow. Other directors compute another one: use addresses where they must agree.
    pub hash: u64,
    /// Number of the service within this director, the same as long as the service is there.
    pub service: u32,
    /// Firewall mark of the service, 0 for one with an address.
    pub mark: u32,
    /// Interface on which the packet came, counted from 0 in the configuration's order.
    pub interface: u32,
    /// Queue on which it came: the number of the worker that asks.
    pub queue: u32,
    /// Breath of the worker that asks: requests of one breath see the connections of all workers as they were at its first
    /// one, besides the worker's own. For the director; 0 in a plugin.
    pub breath: u64,
    /// Milliseconds since some start that the director chose; never less than in the request before. A plugin gets it
    /// if it asks for the time and the operator grants it; else it is 0.
    pub now_ms: u64,
    /// A random number, seeded by worker and service, so that it repeats in a replay. A plugin gets it if it asks for
    /// randomness and the operator grants it; else it is 0. Built-in schedulers get none.
    pub random: u64,
}

impl Request {
    /// Whole seconds of [`now_ms`](Request::now_ms).
    pub fn now_s(&self) -> u64 {
        self.now_ms / 1000
    }
}
