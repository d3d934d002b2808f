//! How many queues an interface has, against the workers and CPUs that serve them.

use std::io;

use crate::tune::device::Counts;
use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::{Setting, channels_text};

const WHY: &str = "each queue is one worker, each worker wants a CPU, and all interfaces of a director must have the \
                   same number";

pub(super) fn queues(scene: &Scene<'_>) -> io::Result<Finding> {
    let wanted = scene.queues;
    let right = format!("{wanted}: {WHY}");
    let Some((counts, most)) = scene.channels()? else {
        let have = scene.receive_queues()?;
        let now = format!("{have} receive, and the driver cannot change that");
        if have == wanted {
            return Ok(Finding::good(now, right));
        }
        return Ok(
            Finding::better(now, right).hand(format!("queues = {} in the [[interface]] table", have.min(wanted)))
        );
    };
    let (have, possible) = (counts.receive + counts.combined, most.receive.max(most.combined));
    let now = format!("{} (possible: {})", channels_text(counts), channels_text(most));
    if wanted > possible {
        return Ok(Finding::harmful(
            now,
            format!("at most {possible}, which the device has; the director would not start"),
        )
        .hand(format!("queues = {possible} in the [[interface]] table of every interface")));
    }
    if have == wanted {
        return Ok(Finding::good(now, right));
    }
    let to = channels_text(spread_over(wanted, most));
    Ok(Finding::better(now, format!("{right}. The link may be down for a moment")).change(
        scene.name,
        Setting::Channels,
        to,
    ))
}

/// So many queues in the kind that the device has.
fn spread_over(wanted: u32, most: Counts) -> Counts {
    if most.combined > 0 {
        return Counts { combined: wanted, ..Counts::default() };
    }
    Counts { receive: wanted, transmit: wanted.min(most.transmit), combined: 0 }
}
