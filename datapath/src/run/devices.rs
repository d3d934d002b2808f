//! The interfaces that the workers serve: what the kernel says of them, whether they fit together, their XDP programs.
//!
//! Invariant: a list of [`Device`]s has the configuration's order, is not empty, and all of them have one number of
//! queues, because a worker serves the same queue of each.

use std::collections::{HashMap, HashSet};

use xvs_redirect::{Absent, Active, InterfaceSpec, Mode, Redirect};

use crate::config::Desired;
use crate::config::document::{AbsentWorker, Demand, XdpMode};
use crate::config::settings::Gateway;
use crate::control::report::InterfaceFacts;
use crate::kernel;
use crate::xsk::ZeroCopy;

use super::RunError;

/// Bytes of a chunk that the kernel keeps before a received packet, which tunnels grow into.
const HEADROOM: u32 = 256;
/// Ethernet header and two tags.
const LINK_MAX: u32 = 22;

/// One interface and what is known of it.
pub(super) struct Device {
    pub(super) facts: kernel::Facts,
    pub(super) queues: u32,
    pub(super) zero_copy: ZeroCopy,
}

/// Looks at the interfaces and checks that they fit together.
pub(super) fn devices(desired: &Desired) -> Result<Vec<Device>, RunError> {
    let mut devices: Vec<Device> = Vec::new();
    for interface in desired.interfaces() {
        let facts = kernel::Facts::read(&interface.name)?;
        let queues = served(&interface.name, interface.queues, facts.receive_queues)?;
        if queues < facts.receive_queues {
            tracing::warn!(
                interface = interface.name,
                "{} of {} queues are served; what arrives on the others is {}",
                queues,
                facts.receive_queues,
                if desired.director().absent_worker == AbsentWorker::Drop { "dropped" } else { "left to the kernel" }
            );
        }
        if let Some(hidden) = hidden(facts.driver.as_deref(), facts.channels) {
            tracing::warn!(
                interface = interface.name,
                "virtio-net has {hidden} pairs of queues more than it uses, and gives them to XDP programs: packets may \
                 come in by those and are not served. `ethtool -L {} combined {}`, or make the device with fewer pairs",
                interface.name,
                facts.receive_queues + hidden
            );
        }
        if facts.lro {
            tracing::warn!(interface = interface.name, "LRO is on: `ethtool -K {} lro off`", interface.name);
        }
        let room = desired.frames().size - HEADROOM - LINK_MAX;
        if facts.link.mtu > room {
            let (interface, mtu, size) = (interface.name.clone(), facts.link.mtu, desired.frames().size);
            return Err(RunError::FrameSize { interface, mtu, size, room });
        }
        let zero_copy = match interface.zero_copy {
            Demand::Auto => ZeroCopy::Auto,
            Demand::Require => ZeroCopy::Require,
            Demand::Off => ZeroCopy::Off,
        };
        devices.push(Device { facts, queues, zero_copy });
    }
    let first = devices.first().ok_or(RunError::NoInterface)?;
    if let Some(other) = devices.iter().find(|device| device.queues != first.queues) {
        return Err(RunError::Queues {
            first: first.facts.link.name.clone(),
            first_queues: first.queues,
            other: other.facts.link.name.clone(),
            other_queues: other.queues,
            fewer: first.queues.min(other.queues),
        });
    }
    Ok(devices)
}

/// How many queues of an interface are served, of those that it has in use.
///
/// More are refused here, because not every driver does: virtio-net binds a socket in zero-copy mode to a queue that is
/// not in use, and the kernel (6.18, 7.3) falls over it when the XDP program is taken away.
fn served(interface: &str, asked: Option<u32>, have: u32) -> Result<u32, RunError> {
    match asked {
        Some(asked) if asked > have => Err(RunError::TooManyQueues { interface: interface.to_owned(), have, asked }),
        asked => Ok(asked.unwrap_or(have)),
    }
}

/// Pairs of queues that virtio-net may take for XDP, and that the device then delivers to.
fn hidden(driver: Option<&str>, channels: Option<kernel::Channels>) -> Option<u32> {
    let channels = channels.filter(|_| driver == Some("virtio_net"))?;
    channels.receive_max.checked_sub(channels.combined).filter(|hidden| *hidden > 0)
}

/// Attaches the XDP programs, one an interface, and tells in which mode each is.
pub(super) fn attach(desired: &Desired, devices: &[Device]) -> Result<(Redirect, Vec<Active>), RunError> {
    let options = xvs_redirect::Options {
        mode: match desired.director().xdp_mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
        },
        absent: match desired.director().absent_worker {
            AbsentWorker::Drop => Absent::Drop,
            AbsentWorker::Pass => Absent::Pass,
        },
    };
    let spec = |device: &Device| InterfaceSpec {
        name: device.facts.link.name.clone(),
        ifindex: device.facts.link.index,
        queues: device.queues,
    };
    let specs: Vec<InterfaceSpec> = devices.iter().map(spec).collect();
    let mut redirect = Redirect::load(&options, &specs)?;
    let mut modes = Vec::new();
    for spec in &specs {
        modes.push(redirect.attach(spec.ifindex)?);
    }
    Ok((redirect, modes))
}

/// The indices of those whose packets come from a wire. In generic mode an XDP program is shown what the kernel has made of
/// a packet.
pub(super) fn wired(devices: &[Device], modes: &[Active]) -> HashSet<u32> {
    let all = devices.iter().zip(modes);
    let wired = all.filter(|(device, mode)| device.facts.is_nic() && **mode == Active::Native);
    wired.map(|(device, _)| device.facts.link.index).collect()
}

/// The static next hops, by the index of their device.
pub(super) fn gateways(desired: &Desired, devices: &[Device]) -> HashMap<u32, Gateway> {
    let all = desired.interfaces().iter().zip(devices);
    all.filter_map(|(interface, device)| Some((device.facts.link.index, interface.gateway?))).collect()
}

/// What `xvs status` tells of the interfaces.
pub(super) fn interface_facts(devices: &[Device], modes: &[Active]) -> Vec<InterfaceFacts> {
    let facts = |(device, mode): (&Device, &Active)| InterfaceFacts {
        name: device.facts.link.name.clone(),
        link: device.facts.link.index,
        xdp_mode: match mode {
            Active::Native => "native",
            Active::Generic => "generic",
        },
    };
    devices.iter().zip(modes).map(facts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a socket on a queue that is not in use, over which kernels fall.
    #[test]
    fn a_queue_that_is_not_in_use_is_never_served() {
        assert_eq!(served("eth0", None, 3).ok(), Some(3), "all, if none are asked for");
        assert_eq!(served("eth0", Some(2), 3).ok(), Some(2));
        assert_eq!(served("eth0", Some(3), 3).ok(), Some(3), "queues 0 to 2");
        let refused = served("eth0", Some(4), 3).expect_err("queue 3 of 0 to 2");
        assert_eq!(refused.exit_code(), 8);
        let text = refused.to_string();
        assert!(text.contains("eth0 has 3 receive queues") && text.contains("ethtool -L eth0 combined 4"), "{text}");
    }

    /// Guards the warning about queues that virtio-net hides, and that no other driver gets it.
    #[test]
    fn queues_that_virtio_hides_are_told() {
        let channels = kernel::Channels { receive: 0, transmit: 0, combined: 2, receive_max: 8 };
        assert_eq!(hidden(Some("virtio_net"), Some(channels)), Some(6));
        assert_eq!(hidden(Some("virtio_net"), Some(kernel::Channels { receive_max: 2, ..channels })), None);
        assert_eq!(hidden(Some("ice"), Some(channels)), None);
        assert_eq!(hidden(None, None), None);
    }
}
