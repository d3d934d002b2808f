//! The wires of a lab: veth pairs between namespaces, with a chosen number of queues, and the bridges they plug into.
//!
//! Invariant: MAC addresses are a function of the wire's number, so captures read alike from run to run. Checksum
//! offload stays on at both ends, as on any virtual machine; the director has to cope with partial checksums.

use anyhow::Result;

use crate::command::run_with_input;
use crate::namespace::Namespace;

/// One end of a wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) device: &'a str,
}

/// Creates veth pairs in one go.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    batch: String,
    count: u8,
}

impl Wires {
    /// A wire between two namespaces with `queues` queues at both ends.
    pub(crate) fn add(&mut self, near: End<'_>, far: End<'_>, queues: u32) {
        self.count += 1;
        let mac = |side: u8| format!("02:00:00:00:{side:02x}:{:02x}", self.count);
        let end = |end: End<'_>, side: u8| {
            format!(
                "name {} address {} numtxqueues {queues} numrxqueues {queues} netns {}",
                end.device,
                mac(side),
                end.namespace.name(),
            )
        };
        self.batch += &format!("link add {} type veth peer {}\n", end(near, 1), end(far, 2));
    }

    pub(crate) fn create(self) -> Result<()> {
        run_with_input("ip", &["-batch", "-"], &self.batch, &[])?.ok().map(drop)
    }
}

/// A bridge in `namespace` with these ports, all up. It learns addresses and does nothing else.
pub(crate) fn bridge(namespace: &Namespace, name: &str, ports: &[String]) -> Result<()> {
    let mut lines = format!("link add name {name} type bridge stp_state 0 mcast_snooping 0\nlink set dev {name} up\n");
    for port in ports {
        lines += &format!("link set dev {port} master {name} up\n");
    }
    namespace.ip(&lines)
}
