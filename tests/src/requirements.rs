//! What a machine must have for the laboratory: root, and a few programs, each with the Debian package that brings it.
//!
//! Whether something absent is a loud skip or a failure is decided by [`in_ci`] in one place, `story`.

use std::env;
use std::path::Path;

/// A program that the laboratory runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// The program.
    pub program: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
    /// What it is needed for.
    pub why: &'static str,
}

/// All programs that the laboratory runs and that a bare Debian may lack.
pub const REQUIREMENTS: &[Requirement] = &[
    Requirement { program: "ip", package: "iproute2", why: "namespaces, veth pairs, addresses, routes" },
    Requirement { program: "tc", package: "iproute2", why: "VLAN tags on kernels without VLAN devices" },
    Requirement { program: "nginx", package: "nginx-light", why: "the real servers" },
    Requirement { program: "curl", package: "curl", why: "the clients" },
    Requirement { program: "iperf3", package: "iperf3", why: "bulk traffic" },
    Requirement { program: "ethtool", package: "ethtool", why: "offloads and queue counters of interfaces" },
    Requirement { program: "dnsmasq", package: "dnsmasq-base", why: "a real UDP service" },
    Requirement { program: "traceroute", package: "traceroute", why: "a look at the way from the client's side" },
    Requirement { program: "tcpdump", package: "tcpdump", why: "a look at the wire when a test fails" },
    Requirement { program: "clang", package: "clang", why: "the VLAN tagger of the lab, a BPF program" },
];

/// True where an absent requirement is a failure and not a skip.
pub fn in_ci() -> bool {
    env::var_os("XVS_CI").is_some_and(|value| value == "1")
}

/// The programs that are not on this machine.
pub fn missing_requirements() -> Vec<Requirement> {
    REQUIREMENTS.iter().copied().filter(|requirement| !installed(requirement.program)).collect()
}

/// True if the effective user is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian's root shells have them on their path, but cron and sudo may not.
    let system = ["/usr/sbin", "/sbin"].map(Path::new);
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
        || system.iter().any(|directory| directory.join(program).is_file())
}
