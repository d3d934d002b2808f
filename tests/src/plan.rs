//! What a lab shall look like, before it is built.
//!
//! Invariant: a plan is only numbers and switches; nothing exists until [`Plan::build`].

use anyhow::{Result, ensure};

use crate::lab::Lab;

/// The wish list of a lab. The defaults are two arms, one client, four real servers and one queue.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) one_arm: bool,
    pub(crate) servers: usize,
    pub(crate) clients: usize,
    pub(crate) queues: u32,
    pub(crate) vlan: Option<u16>,
    pub(crate) name: Option<String>,
    pub(crate) director_holds_vips: bool,
}

/// Clients are numbered 2..=9 in the last octet, servers 11..=99.
const MAX_CLIENTS: usize = 8;
const MAX_SERVERS: usize = 89;

impl Plan {
    /// Two arms: clients at one interface of the director, real servers at another.
    pub fn two_arm() -> Self {
        Plan { one_arm: false, servers: 4, clients: 1, queues: 1, vlan: None, name: None, director_holds_vips: true }
    }

    /// One arm: clients and real servers in the same network, at the director's only interface.
    pub fn one_arm() -> Self {
        Plan { one_arm: true, ..Plan::two_arm() }
    }

    /// So many real servers.
    pub fn servers(mut self, count: usize) -> Self {
        self.servers = count;
        self
    }

    /// So many clients.
    pub fn clients(mut self, count: usize) -> Self {
        self.clients = count;
        self
    }

    /// So many receive and transmit queues on every wire. Connections spread over the director's queues, and a reply
    /// arrives at another queue than its request (if service and server have the same port).
    pub fn queues(mut self, count: u32) -> Self {
        self.queues = count;
        self
    }

    /// All frames on all wires carry this VLAN tag. The director's kernel does not see it, so its configuration must say
    /// which tag to write and to whom.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// Namespaces and files are named after `name`; such a lab is never swept. For the demonstration, where people
    /// type the names.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The director's interface does not hold the VIPs: `own_vips` of the product shall add them.
    pub fn vips_left_to_the_product(mut self) -> Self {
        self.director_holds_vips = false;
        self
    }

    /// Builds the lab.
    pub fn build(self) -> Result<Lab> {
        ensure!((1..=MAX_CLIENTS).contains(&self.clients), "a lab has 1 to {MAX_CLIENTS} clients");
        ensure!((1..=MAX_SERVERS).contains(&self.servers), "a lab has 1 to {MAX_SERVERS} real servers");
        Lab::build(self)
    }
}
