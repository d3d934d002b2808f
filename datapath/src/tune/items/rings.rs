//! The NIC's descriptor rings, and pause frames: what happens when packets come faster than they are taken.

use std::io;

use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::Setting;

/// Fewer descriptors are too few. At 14.88 million packets a second (10 Gbit/s, 64 bytes) 1,024 last 69 microseconds,
/// about as long as a worker may be kept from its queue by an interrupt or an idle state.
const FEW: u32 = 1024;
/// What is set instead. More would not fit into the caches that the NIC writes into.
const ENOUGH: u32 = 2048;

pub(super) fn rings(scene: &Scene<'_>) -> io::Result<Finding> {
    let (sizes, most) = scene.machine.device.rings(scene.name)?;
    let now =
        format!("rx {} tx {} (possible: rx {} tx {})", sizes.receive, sizes.transmit, most.receive, most.transmit);
    let (receive, transmit) = (right(sizes.receive, most.receive), right(sizes.transmit, most.transmit));
    let why = format!(
        "a power of two, which zero-copy asks of some drivers, from {FEW} on: smaller ones overflow while a worker is \
         kept from its queue for some ten microseconds"
    );
    if (receive, transmit) == (sizes.receive, sizes.transmit) {
        return Ok(Finding::good(now, why));
    }
    let to = format!("rx {receive} tx {transmit}");
    Ok(Finding::better(now, format!("{to}: {why}. The link may be down for a moment")).change(
        scene.name,
        Setting::Rings,
        to,
    ))
}

fn right(have: u32, most: u32) -> u32 {
    if most == 0 || (have >= FEW.min(most) && (have.is_power_of_two() || have == most && most < FEW)) {
        return have;
    }
    let cap = most.min(ENOUGH);
    // The largest power of two that is possible.
    if cap == 0 { have } else { 1 << cap.ilog2() }
}

pub(super) fn pause(scene: &Scene<'_>) -> io::Result<Finding> {
    let pause = scene.machine.device.pause(scene.name)?;
    let now = Setting::Pause.read(scene.machine, scene.name)?;
    let right = "rx off tx off: with pause frames a full ring stops the switch's port, and everybody behind it, instead \
                 of costing single packets";
    if !pause.receive && !pause.transmit {
        return Ok(Finding::good(now, right));
    }
    let autoneg = crate::tune::setting::on_off(pause.negotiated);
    Ok(Finding::better(now, format!("{right}. The link may be negotiated anew; the switch should agree")).change(
        scene.name,
        Setting::Pause,
        format!("autoneg {autoneg} rx off tx off"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the sizes that are asked for: a power of two that the device has, and no change for the sake of change.
    #[test]
    fn sizes_of_rings() {
        for (have, most, wanted) in [
            (256, 4096, 2048),
            (512, 8192, 2048),
            (1024, 8192, 1024),
            (4096, 4096, 4096),
            (256, 256, 256),
            (511, 2047, 1024),
            (2047, 2047, 1024),
            (64, 511, 256),
            (511, 511, 511),
            (1000, 8160, 2048),
            (0, 0, 0),
        ] {
            assert_eq!(right(have, most), wanted, "{have} of {most}");
        }
    }
}
