//! What does not change but decides: the driver, the kernel, the MTU.

use std::io;

use crate::tune::finding::Finding;
use crate::tune::scene::Scene;

/// Bytes of a frame that are no packet's: the kernel's headroom, and an Ethernet header with two tags.
const OVERHEAD: u32 = 256 + 22;

/// Drivers of the Linux tree with AF_XDP in zero-copy mode, in some version.
const ZERO_COPY: [&str; 14] = [
    "fsl_dpaa2_eth",
    "gve",
    "i40e",
    "ice",
    "idpf",
    "igb",
    "igc",
    "ixgbe",
    "mlx5_core",
    "nfp",
    "stmmac",
    "st_gmac",
    "tsnep",
    "virtio_net",
];
/// Drivers with XDP in the driver, and AF_XDP by copying.
const NATIVE: [&str; 30] = [
    "atlantic",
    "bnxt_en",
    "cpsw",
    "ena",
    "fec",
    "fsl_dpa",
    "fsl_enetc",
    "funeth",
    "hv_netvsc",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netsec",
    "nicvf",
    "octeontx2-nicpf",
    "octep",
    "qede",
    "rvu_nicpf",
    "sfc",
    "thunder-nic",
    "ti-cpsw",
    "tun",
    "veth",
    "vif",
    "vmxnet3",
    "xen-netfront",
];

pub(super) fn driver(scene: &Scene<'_>) -> io::Result<Finding> {
    let driver = match scene.machine.device.driver(scene.name) {
        Ok(driver) => driver,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        Err(error) => return Err(error),
    };
    let right = "a driver with XDP of its own and zero-copy: without the first each packet becomes a socket buffer before \
                 the director sees it, without the second it is copied. `xvs status` tells what a running director got";
    let name = driver.as_str();
    Ok(if ZERO_COPY.contains(&name) {
        Finding::good(format!("{name}: has XDP and zero-copy, if kernel and device are new enough"), right)
    } else if NATIVE.contains(&name) {
        Finding::good(format!("{name}: has XDP, no zero-copy"), right)
    } else if name.is_empty() {
        Finding::unknown("the device names no driver")
    } else {
        Finding::unknown(format!("{name}: not among the drivers that are known to have XDP"))
    })
}

pub(super) fn mtu(scene: &Scene<'_>) -> io::Result<Finding> {
    scene.demand_sysfs()?;
    let mtu: u32 = scene.machine.tree.number(&scene.path("mtu"))?;
    let size = scene.wishes.frame_size;
    let room = size - OVERHEAD;
    let right = format!("at most {room}, which frames of {size} bytes hold: the director does not start with more");
    if mtu <= room {
        return Ok(Finding::good(mtu.to_string(), right));
    }
    let finding = Finding::harmful(mtu.to_string(), right);
    let finding = finding.hand(format!("ip link set dev {} mtu {room}   # and all its neighbours", scene.name));
    let larger = 4096 - OVERHEAD;
    Ok(if size < 4096 && mtu <= larger { finding.hand("or `size = 4096` in [frames]") } else { finding })
}

pub(super) fn kernel(scene: &Scene<'_>) -> io::Result<Finding> {
    let release = scene.machine.tree.read("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let right = "5.11 or newer: since then busy polling can be preferred, and BPF maps do not count against the limit of \
                 locked memory";
    Ok(if version >= (5, 11) { Finding::good(release, right) } else { Finding::better(release, right) })
}
