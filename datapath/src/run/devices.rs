//! The interfaces that the workers serve: what the kernel says of them, whether they fit together, their XDP programs.
//!
//! Invariant: a list of [`Device`]s has the configuration's order, is not empty, and all of them have one number of
//! queues, because a worker serves the same queue of each.

use std::collections::HashMap;

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
        let queues = interface.queues.unwrap_or(facts.receive_queues);
        if queues > facts.receive_queues {
            let (have, interface) = (facts.receive_queues, interface.name.clone());
            return Err(RunError::TooManyQueues { interface, have, asked: queues });
        }
        if queues < facts.receive_queues {
            tracing::warn!(
                interface = interface.name,
                "{} of {} queues are served; what arrives on the others is {}",
                queues,
                facts.receive_queues,
                if desired.director().absent_worker == AbsentWorker::Drop { "dropped" } else { "left to the kernel" }
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
