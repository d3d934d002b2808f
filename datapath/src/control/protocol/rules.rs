//! What is asked for: services, servers, timeouts, settings.
//!
//! Plain values that may be wrong; whether they are is for `config::rules` to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::schedulers::Options;
use super::{Mask, Tags};

/// Transport protocol of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// As it is written everywhere: `tcp`, `udp`, `sctp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// IP version, where an address does not already tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// The key of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceId {
    /// Protocol and VIP:port; port 0 stands for every port of the VIP.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// VIP and port.
        address: SocketAddr,
    },
    /// Firewall mark.
    Mark {
        /// The mark, never 0.
        mark: u32,
        /// The IP version that it counts for.
        family: Family,
    },
}

impl ServiceId {
    /// The IP version of the service.
    pub fn family(&self) -> Family {
        match self {
            ServiceId::Address { address, .. } if address.is_ipv4() => Family::Inet,
            ServiceId::Address { .. } => Family::Inet6,
            ServiceId::Mark { family, .. } => *family,
        }
    }
}

/// Persistence of a virtual service (`-p`, `-M`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// Life of a template after its last new connection, in seconds.
    pub timeout_s: u32,
    /// The bits of the client's address that count.
    pub mask: Mask,
}

/// A virtual service as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its key.
    pub id: ServiceId,
    /// Name of the scheduler (`-s`).
    pub scheduler: String,
    /// Scheduler flags (`-b`): any of `flag-1`, `flag-2`, `flag-3` (the generic names; the tools translate).
    #[serde(default)]
    pub flags: SchedFlags,
    /// Persistence (`-p`, `-M`), if any.
    #[serde(default)]
    pub persistence: Option<Persistence>,
    /// Persistence engine (`--pe`).
    #[serde(default)]
    pub engine: Option<String>,
    /// One-packet scheduling (`-o`).
    #[serde(default)]
    pub one_packet: bool,
    /// The native scheduler that chooses when a plugin does not; [`FALLBACK`] if it is not said. An edit that does not
    /// say it keeps it: ipvsadm can not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Options for a plugin. An edit that does not say them keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
}

/// The native scheduler behind a plugin, if no other is named.
pub const FALLBACK: &str = "wlc";

impl ServiceSpec {
    /// The scheduler that is asked when no plugin answers: the service's own if it is native.
    pub fn native(&self) -> &str {
        match super::schedulers::plugin(&self.scheduler) {
            Some(_) => self.fallback.as_deref().unwrap_or(FALLBACK),
            None => &self.scheduler,
        }
    }

    /// The same in the form in which it is kept: what is as it would be unsaid is not said.
    pub fn kept(mut self) -> Self {
        self.fallback = self.fallback.filter(|name| name != FALLBACK);
        self.options = self.options.filter(|options| !options.is_empty());
        self
    }

    /// The same with everything said, so that as an edit it keeps nothing.
    pub fn explicit(mut self) -> Self {
        self.fallback.get_or_insert_with(|| FALLBACK.to_owned());
        self.options.get_or_insert_default();
        self
    }
}

/// The three flags that a scheduler may read (`-b`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedFlags {
    /// `flag-1`; `sh-fallback`, `mh-fallback`.
    #[serde(default)]
    pub one: bool,
    /// `flag-2`; `sh-port`, `mh-port`.
    #[serde(default)]
    pub two: bool,
    /// `flag-3`.
    #[serde(default)]
    pub three: bool,
}

/// How the outer UDP or GRE checksum of a tunnel is filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// `--tun-nocsum`
    #[default]
    None,
    /// `--tun-csum`
    Full,
    /// `--tun-remcsum`
    Remote,
}

/// Encapsulation of a TUN real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// Destination port, not 0.
        port: u16,
        /// Outer checksum.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// Outer checksum: `None` or `Full`.
        checksum: TunnelChecksum,
    },
}

/// Forwarding method of a real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Masquerading (`-m`).
    Nat,
    /// Gatewaying (`-g`), ipvsadm's default.
    #[default]
    Dr,
    /// Tunnelling (`-i`).
    Tun(Tunnel),
}

/// A real server as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// RIP and port. Port 0 keeps the client's port (mark and port-0 services).
    pub address: SocketAddr,
    /// Forwarding method.
    #[serde(default)]
    pub method: Method,
    /// Weight; 0 quiesces.
    pub weight: i64,
    /// Upper connection threshold, 0 for none.
    #[serde(default)]
    pub upper: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    #[serde(default)]
    pub lower: u32,
    /// Tags for plugins. An edit that does not say them keeps them: ipvsadm can not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

impl ServerSpec {
    /// The same in the form in which it is kept: no tags are none.
    pub fn kept(mut self) -> Self {
        self.tags = self.tags.filter(|tags| !tags.is_empty());
        self
    }

    /// The same with everything said, so that as an edit it keeps nothing.
    pub fn explicit(mut self) -> Self {
        self.tags.get_or_insert_default();
        self
    }
}

/// Timeouts of `--set`, in seconds; 0 keeps what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// TCP, established.
    pub tcp: u32,
    /// TCP, FIN_WAIT.
    pub tcpfin: u32,
    /// UDP.
    pub udp: u32,
}

/// Timeouts in seconds, by the names of states.
pub type ByState = BTreeMap<String, u32>;

/// A setting and the value that it shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Name: `net.ipv4.vs.NAME`, `net/ipv4/vs/NAME`, or `NAME`.
    pub name: String,
    /// Value, as a person writes it.
    pub value: String,
}
