//! Offloads: what a NIC or the kernel does to packets before the director sees them.

use std::io;

use crate::kernel::Feature;
use crate::tune::finding::{Finding, Verdict};
use crate::tune::scene::Scene;
use crate::tune::setting::{Setting, on_off};

/// An offload that must be off, and why.
fn must_be_off(scene: &Scene<'_>, feature: &str, why: &str) -> io::Result<Finding> {
    let Some(state) = scene.feature(feature)? else { return Ok(Finding::absent("this kernel has no such offload")) };
    let right = format!("off: {why}");
    match state {
        Feature { active: false, requested: true, .. } => {
            Ok(Finding::good("off, and asked for: it comes back when what hinders it goes", right))
        }
        Feature { active: false, .. } => Ok(Finding::good("off", right)),
        Feature { changeable: true, .. } => Ok(Finding::harmful("on", right).change(
            scene.name,
            Setting::Feature { feature: feature.to_owned() },
            "off",
        )),
        _ => Ok(Finding::harmful("on, and the driver does not let it be changed", right)),
    }
}

pub(super) fn lro(scene: &Scene<'_>) -> io::Result<Finding> {
    must_be_off(
        scene,
        "rx-lro",
        "the NIC merges packets, which no XDP program can take apart; many drivers refuse XDP with it",
    )
}

pub(super) fn gro_hw(scene: &Scene<'_>) -> io::Result<Finding> {
    let finding = must_be_off(
        scene,
        "rx-gro-hw",
        "the NIC (or, under virtio, the other end) merges packets before XDP. Some drivers stop it themselves when an XDP \
         program comes, others refuse the program",
    )?;
    let virtio = scene.machine.device.driver(scene.name).is_ok_and(|driver| driver == "virtio_net");
    if virtio && finding.verdict == Verdict::Harmful && finding.changes.is_empty() {
        // The device has no VIRTIO_NET_F_CTRL_GUEST_OFFLOADS; then the driver refuses native XDP.
        return Ok(finding.hand(
            "at the virtual machine's host, as in QEMU: guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off",
        ));
    }
    Ok(finding)
}

pub(super) fn gro(scene: &Scene<'_>) -> io::Result<Finding> {
    let mut told = Vec::new();
    for (feature, name) in [("rx-gro", "gro"), ("rx-gro-list", "list"), ("rx-udp-gro-forwarding", "udp-forwarding")] {
        if let Some(state) = scene.feature(feature)? {
            told.push(format!("{name} {}", on_off(state.active)));
        }
    }
    Ok(Finding::good(
        told.join(", "),
        "either: the kernel merges what the XDP program left to it, and merges nothing where an XDP program is attached in \
         generic mode",
    ))
}

pub(super) fn rx_vlan(scene: &Scene<'_>) -> io::Result<Finding> {
    let vlans = vlans(scene);
    let features = [("rx-vlan-hw-parse", "802.1Q"), ("rx-vlan-stag-hw-parse", "802.1ad")];
    let mut on = Vec::new();
    for (feature, name) in features {
        if let Some(state) = scene.feature(feature)?
            && state.active
        {
            on.push((feature, name, state));
        }
    }
    let names: Vec<&str> = on.iter().map(|(_, name, _)| *name).collect();
    let now = if names.is_empty() { "off".to_owned() } else { format!("on ({})", names.join(", ")) };
    let carried = match vlans.is_empty() {
        false => format!("VLANs {}", vlans.join(", ")),
        true if scene.wishes.vlans => "VLANs, as is said".to_owned(),
        true => "no VLAN".to_owned(),
    };
    let (now, none) = (format!("{now}, with {carried}"), vlans.is_empty() && !scene.wishes.vlans);
    let right = "off where VLANs are carried: the NIC takes the tag out of the frame, and an XDP program sees the packet as \
                 one without a tag";
    if on.is_empty() || none {
        return Ok(Finding::good(now, right));
    }
    Ok(on.into_iter().fold(Finding::harmful(now, right), |finding, (feature, _, state)| {
        if state.changeable {
            finding.change(scene.name, Setting::Feature { feature: feature.to_owned() }, "off")
        } else {
            finding.hand(format!("the driver does not let {feature} be changed: carry the VLANs on another NIC"))
        }
    }))
}

/// VLAN interfaces upon this one.
fn vlans(scene: &Scene<'_>) -> Vec<String> {
    let tree = &scene.machine.tree;
    let names = if scene.in_sysfs { tree.names(&scene.path("")) } else { Vec::new() };
    let uppers = names.iter().filter_map(|name| name.strip_prefix("upper_"));
    let is_vlan = |name: &&str| {
        let told = tree.read(&format!("/sys/class/net/{name}/uevent")).unwrap_or_default();
        told.lines().any(|line| line == "DEVTYPE=vlan")
    };
    uppers.filter(is_vlan).map(str::to_owned).collect()
}

pub(super) fn checksums(scene: &Scene<'_>) -> io::Result<Finding> {
    let driver = scene.machine.device.driver(scene.name)?;
    let right = "either: the director computes what it changes, and completes the sums that a virtual sender left for \
                 hardware that never comes";
    match driver.as_str() {
        "veth" | "virtio_net" | "tun" | "xen-netfront" | "vif" | "hv_netvsc" | "vmxnet3" => Ok(Finding::good(
            format!("{driver}: packets of this machine's own virtual neighbours may come with partial checksums"),
            right,
        )),
        _ => Ok(Finding::good("packets come from a wire with whole checksums", right)),
    }
}
