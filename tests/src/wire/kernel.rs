//! The kernel as balancer: nftables with destination NAT, in turn over the servers, and forwarding.

use std::sync::Arc;

use anyhow::Result;

use crate::namespace::Namespace;

use super::ground::{Ground, SINK_PORT};

/// Connections that the kernel may track, as many as xvs: set where this namespace may.
const CONNECTIONS: &str = "2097152";

/// How the kernel goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it is set up by itself: where packets come in, joined by GRO and never cut again on a virtual wire.
    Usual,
    /// Without offloads: each packet by itself.
    Bare,
    /// Forwarding on CPU 0, wherever packets come in.
    Rps,
}

/// Rules in force.
#[derive(Debug)]
pub(super) struct Rules {
    namespace: Arc<Namespace>,
    manner: Manner,
    queues: u32,
}

impl Rules {
    pub(super) fn enter(ground: &Ground, manner: Manner) -> Result<Self> {
        let namespace = ground.director().shared_namespace();
        let rules = Rules { namespace, manner, queues: ground.queues() };
        let (vip, rips) = (ground.vip(), ground.rips());
        let turn: Vec<_> = rips.iter().enumerate().map(|(number, rip)| format!("{number} : {rip}")).collect();
        let turn = format!("numgen inc mod {} map {{ {} }}", rips.len(), turn.join(", "));
        let script = format!(
            "table ip lb {{\n chain pre {{\n  type nat hook prerouting priority dstnat; policy accept;\n\
               ip daddr {vip} udp dport {SINK_PORT} dnat to {turn}\n\
               ip daddr {vip} tcp dport {{ {SINK_PORT}, 80 }} dnat to {turn}\n\
               ip daddr {vip} tcp dport 5201 dnat to {}\n }}\n}}\n",
            rips[0]
        );
        rules.namespace.run_with_input(&["nft", "-f", "-"], &script, &[])?.ok()?;
        rules.namespace.forward_by_kernel(true)?;
        rules.namespace.sysctl(&[("net/netfilter/nf_conntrack_max", CONNECTIONS)]).or_else(|_| {
            // Only the first namespace may; then the kernel's own bound counts.
            Ok::<(), anyhow::Error>(())
        })?;
        match manner {
            Manner::Usual => {}
            Manner::Bare => rules.offload("off")?,
            Manner::Rps => rules.steer("1")?,
        }
        Ok(rules)
    }

    fn offload(&self, value: &str) -> Result<()> {
        ["eth0", "eth1"].into_iter().try_for_each(|device| {
            let words = ["ethtool", "-K", device, "gro", value, "gso", value, "tso", value];
            self.namespace.run(&words)?.ok().map(drop)
        })
    }

    fn steer(&self, mask: &str) -> Result<()> {
        let files = (0..self.queues).flat_map(|queue| {
            ["eth0", "eth1"].map(|device| format!("/sys/class/net/{device}/queues/rx-{queue}/rps_cpus"))
        });
        let script: String = files.map(|file| format!("echo {mask} > {file} || exit 1\n")).collect();
        self.namespace.run(&["sh", "-c", &script])?.ok().map(drop)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = match self.manner {
            Manner::Usual => Ok(()),
            Manner::Bare => self.offload("on"),
            Manner::Rps => self.steer("0"),
        };
        let _ = self.namespace.forward_by_kernel(false);
        let _ = self.namespace.run(&["nft", "delete", "table", "ip", "lb"]);
    }
}
