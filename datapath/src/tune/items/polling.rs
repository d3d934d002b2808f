//! What busy polling needs of the interface: interrupts that wait while somebody polls.

use std::io;

use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::Setting;

/// The values of the kernel's documentation of AF_XDP and busy polling: two empty polls before interrupts come back,
/// and 200 microseconds until the kernel looks by itself if nobody polls.
const DEFER: u32 = 2;
const TIMEOUT_NS: u64 = 200_000;

pub(super) fn polling(scene: &Scene<'_>) -> io::Result<Finding> {
    scene.demand_sysfs()?;
    let (defer, timeout) = (scene.path("napi_defer_hard_irqs"), scene.path("gro_flush_timeout"));
    let have_defer: u32 = scene.machine.tree.number(&defer)?;
    let have_timeout: u64 = scene.machine.tree.number(&timeout)?;
    let now = format!("napi_defer_hard_irqs {have_defer}, gro_flush_timeout {have_timeout} ns");
    if !scene.wishes.busy_poll {
        return Ok(match (have_defer, have_timeout) {
            (0, _) => Finding::good(now, "0 and 0 without busy polling; --busy-poll tells what it needs"),
            _ => Finding::good(
                now,
                "set for busy polling: right if the director polls busily (then say --busy-poll). \
                 Without it they make packets wait for up to gro_flush_timeout when traffic is low",
            ),
        });
    }
    let right = format!(
        "{DEFER} or more and about {TIMEOUT_NS} ns: a worker that polls busily keeps interrupts away; with 0 the kernel \
         interrupts it all the same"
    );
    if have_defer > 0 && have_timeout > 0 {
        return Ok(Finding::good(now, right));
    }
    // The timeout first: deferred interrupts without one would never come.
    let mut finding = Finding::better(now, right);
    if have_timeout == 0 {
        finding = finding.change(scene.name, Setting::file(timeout), TIMEOUT_NS.to_string());
    }
    if have_defer == 0 {
        finding = finding.change(scene.name, Setting::file(defer), DEFER.to_string());
    }
    Ok(finding)
}
