//! The system packages of Debian that building and testing need, each with its reason.
//!
//! Invariant: whoever adds a program to the laboratory (`xvs_tests::REQUIREMENTS`) finds its package here; a test
//! compares both lists.

/// A Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// What it takes to build.
pub(crate) const BUILD: &[Package] = &[
    package("clang", "compiles the XDP program to BPF, and the laboratory's VLAN tagger"),
    package("llvm", "strips and inspects BPF objects while libxdp is built"),
    package("libelf-dev", "libbpf reads BPF objects with it"),
    package("zlib1g-dev", "libelf and libbpf need it"),
    package("libpcap-dev", "the build of libxdp asks for it"),
    package("m4", "the build of libxdp makes its dispatcher with it"),
    package("pkg-config", "finds libelf and zlib"),
    package("make", "builds libbpf and libxdp"),
    package("gcc", "builds libbpf and libxdp, and links"),
    package("libc6-dev", "headers of the C library and of the kernel"),
    package("lld", "links WebAssembly: scheduler plugins in Rust and in C"),
];

/// What it takes to build scheduler plugins, unless another compiler on the machine builds for WebAssembly.
pub(crate) const PLUGINS: &[Package] = &[
    package("rustc", "Debian's Rust, which builds scheduler plugins"),
    package("cargo", "Debian's cargo: the only one that understands its compiler"),
    package("libstd-rust-dev-wasm32", "Rust's core library for WebAssembly"),
];

/// What it takes to test and to demonstrate.
pub(crate) const TEST: &[Package] = &[
    package("iproute2", "namespaces, veth pairs, addresses, routes"),
    package("nginx-light", "the real servers"),
    package("curl", "the clients"),
    package("iperf3", "bulk traffic"),
    package("ethtool", "offloads and queue counters of interfaces"),
    package("dnsmasq-base", "a real UDP service"),
    package("traceroute", "a look at the way from the client's side"),
    package("tcpdump", "a look at the wire when a test fails"),
    package("valgrind", "counts the engine's instructions"),
    package("python3-pip", "brings TRex's client library, which loads the profiles of tests/bench"),
];

/// What `cargo xtask bench wire` measures beside the director. A missing one is left out of its table, loudly.
pub(crate) const WIRE: &[Package] = &[
    package("nftables", "the kernel's destination NAT, to measure beside"),
    package("haproxy", "a TCP proxy, to measure beside"),
    package("wrk", "new connections a second"),
    package("dpdk-dev", "testpmd, to measure beside"),
    package("librte-net-af-xdp23", "DPDK's driver for AF_XDP, which testpmd needs"),
    package("librte-mempool-ring23", "DPDK's packet memory, which testpmd needs"),
    package("util-linux", "taskset: who runs on which CPU"),
];

/// All that this machine needs.
pub(crate) fn all() -> impl Iterator<Item = Package> {
    BUILD.iter().chain(plugins()).chain(TEST).chain(WIRE).copied()
}

/// [`PLUGINS`], or none if plugins are built by another compiler here.
pub(crate) fn plugins() -> &'static [Package] {
    match xvs_plugins::find(None) {
        Ok(way) if way.letter != 'B' => &[],
        _ => PLUGINS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laboratory_finds_all_its_packages_here() {
        for requirement in xvs_tests::REQUIREMENTS {
            let listed = all().any(|package| package.name == requirement.package);
            assert!(listed, "{} is needed by the laboratory and not listed", requirement.package);
        }
    }
}
