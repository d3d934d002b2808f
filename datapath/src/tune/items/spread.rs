//! How received packets are spread over the queues: what is hashed, the table behind the hash, and rules past it.

use std::io;

use crate::tune::device::{FOUR_FIELDS, Flow, fields as letters};
use crate::tune::finding::Finding;
use crate::tune::scene::Scene;
use crate::tune::setting::{Setting, transform_text};

/// One queue has nothing to spread.
const ONE_QUEUE: &str = "one receive queue: nothing to spread";

pub(super) fn fields(scene: &Scene<'_>) -> io::Result<Finding> {
    if scene.receive_queues()? == 1 {
        return Ok(Finding::absent(ONE_QUEUE));
    }
    let (mut told, mut poor, mut refused) = (Vec::new(), Vec::new(), None);
    for flow in Flow::ALL {
        match scene.machine.device.hash_fields(scene.name, flow) {
            Ok(mask) => {
                told.push(format!("{flow} {}", letters(mask)));
                if mask & FOUR_FIELDS != FOUR_FIELDS {
                    poor.push(flow);
                }
            }
            // Most cards know no SCTP; then nothing is to be said of it.
            Err(error) => refused = Some(error),
        }
    }
    if let (true, Some(error)) = (told.is_empty(), refused) {
        return Ok(Finding::of_error(&error));
    }
    let right = "sdfn (both addresses and ports): with fewer fields a few busy clients share a queue while others idle. \
                 Fragments, which have no ports, come by another queue then; the workers share what is known of them";
    let now = told.join(", ");
    if poor.is_empty() {
        return Ok(Finding::good(now, right));
    }
    let finding = Finding::better(now, right);
    Ok(poor.into_iter().fold(finding, |finding, flow| finding.change(scene.name, Setting::HashFields { flow }, "sdfn")))
}

pub(super) fn symmetry(scene: &Scene<'_>) -> io::Result<Finding> {
    if scene.receive_queues()? == 1 {
        return Ok(Finding::absent(ONE_QUEUE));
    }
    let spread = scene.machine.device.spread(scene.name)?;
    // Such a key gives (a, b) and (b, a) the same hash.
    let by_key = spread.key.len() >= 4 && spread.key.iter().zip(&spread.key[2..]).all(|(one, other)| one == other);
    let symmetric = by_key || matches!(spread.transform, 1 | 2);
    let now = match spread.transform {
        0 if by_key => "symmetric by its key".to_owned(),
        0 => "not symmetric".to_owned(),
        transform => transform_text(transform),
    };
    if scene.wishes.symmetric && !symmetric {
        return Ok(Finding::better(now, "symmetric, as --symmetric asks: both directions of a flow come by one queue")
            .change(scene.name, Setting::Transform, "symmetric-xor")
            .hand(format!(
                "where that is refused, a key of equal pairs: ethtool -X {} hkey 6d:5a:6d:5a:...",
                scene.name
            )));
    }
    Ok(Finding::good(
        now,
        "either: all workers share one connection table. NAT's answers have other addresses than the requests, so that no \
         symmetric hash brings them to the same queue; --symmetric asks for one that something else needs",
    ))
}

pub(super) fn spread(scene: &Scene<'_>) -> io::Result<Finding> {
    let queues = scene.receive_queues()?;
    let served = scene.wishes.queues.unwrap_or(queues).min(queues).max(1);
    let beyond =
        format!("only the queues 0 to {} are served; what comes by others is lost to the director", served - 1);
    let table = match scene.machine.device.spread(scene.name) {
        Ok(spread) if !spread.table.is_empty() => spread.table,
        told if queues > served => {
            let now = format!(
                "{queues} queues, and no table to be had ({})",
                told.err().map_or_else(|| "empty".to_owned(), |e| e.to_string())
            );
            return Ok(Finding::harmful(now, beyond).hand(format!("ethtool -L {} with {served} queues", scene.name)));
        }
        Ok(_) => return Ok(Finding::absent("the device has no indirection table")),
        Err(_) if queues == 1 => return Ok(Finding::absent(ONE_QUEUE)),
        Err(error) => return Err(error),
    };
    let share = |queue: u32| table.iter().filter(|other| **other == queue).count();
    let most = table.iter().max().copied().unwrap_or(0).max(served - 1);
    let shares: Vec<String> = (0..=most).map(|queue| share(queue).to_string()).collect();
    let now = format!("{} entries; of queue 0, 1, ...: {}", table.len(), shares.join(" "));
    let equal: Vec<String> = (0..table.len() as u32).map(|at| (at % served).to_string()).collect();
    let right = format!("equal over {served} queues");
    if table.iter().any(|queue| *queue >= served) {
        let finding = Finding::harmful(now, format!("{right}: {beyond}"));
        return Ok(finding.change(scene.name, Setting::Indirection, equal.join(" ")));
    }
    let shares = (0..served).map(share);
    let (least, most) = (shares.clone().min().unwrap_or(0), shares.max().unwrap_or(0));
    let right = format!("{right}: the busiest worker sets the limit of all");
    if most - least <= 1 {
        return Ok(Finding::good(now, right));
    }
    Ok(Finding::better(now, right).change(scene.name, Setting::Indirection, equal.join(" ")))
}

pub(super) fn ntuple(scene: &Scene<'_>) -> io::Result<Finding> {
    let right =
        "none: rules that steer flows go past the hash, and can fill one queue or lead to one that is not served";
    match scene.machine.device.rule_count(scene.name)? {
        0 => Ok(Finding::good("no rules", right)),
        count => Ok(Finding::better(format!("{count} rules"), right)
            .hand(format!("ethtool -n {}   # lists them", scene.name))
            .hand(format!("ethtool -N {} delete NUMBER", scene.name))),
    }
}
