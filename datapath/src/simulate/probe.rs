//! How much an event disturbs: a rehearsal of it with ten thousand clients.
//!
//! A second director is made with the list, weights and numbers of connections of that moment. Ten thousand fixed
//! clients come once each, then the event happens, then the same clients come again, in another order. *Moved* is the
//! share of them that met another server the second time. A third director goes through the same without the event:
//! what moves there moves *anyway*, because that scheduler keeps nobody where they were; of hashes it is nothing. *Forced*
//! are those whose server takes nobody any more, so they had to move. The rehearsal leaves the simulation as it was.
//!
//! A probe's connection is held while the next hundred come: so a scheduler that counts sees them, and no server fills up.

use std::collections::VecDeque;

use serde::Serialize;
use xvs_engine::flow::{Address, Endpoint, Family, Flow, Protocol};
use xvs_host::Fault;

use super::event::Event;
use super::random::Random;
use super::stage::Stage;
use super::workload::Workload;

/// Clients of a rehearsal.
pub(super) const PROBES: usize = 10_000;
/// Connections that are held.
const HELD: usize = 100;

/// What a rehearsal told: shares of all probes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Disruption {
    /// Met another server after the event.
    pub(super) moved: f64,
    /// Would have met another one without it.
    pub(super) anyway: f64,
    /// Had to move: their server takes nobody any more.
    pub(super) forced: f64,
    /// Found no server after the event.
    pub(super) refused: f64,
}

/// Rehearses what happens at one moment. The stage is as it is just before.
///
/// # Errors
/// There can be no second instance of the plugin.
pub(super) fn rehearse(
    stage: &Stage<'_>,
    events: &[Event],
    workload: &Workload,
    now_ms: u64,
) -> Result<Disruption, Fault> {
    let flows: Vec<Flow> = (0..PROBES).map(|number| flow(number, workload.service, workload.protocol)).collect();
    let order = shuffled();
    let mut told = Visit { now_ms, held: VecDeque::new(), active: workload.protocol != Protocol::UDP };
    let mut visit = |events: &[Event]| {
        let mut director = stage.rehearse(now_ms)?;
        told.held.clear();
        let first: Vec<_> = flows.iter().map(|flow| told.come(&director, flow)).collect();
        for event in events {
            director.apply(event);
        }
        let mut second = vec![None; PROBES];
        for &number in &order {
            second[number] = told.come(&director, &flows[number]);
        }
        Ok((director, first, second))
    };
    let differ = |first: &[Option<usize>], second: &[Option<usize>]| {
        first.iter().zip(second).filter(|(first, second)| first != second).count()
    };
    let (_, first, second) = visit(&[])?;
    let anyway = differ(&first, &second);
    let (after, first, second) = visit(events)?;
    let forced = first.iter().flatten().filter(|&&server| after.weight(server) == 0).count();
    let refused = second.iter().filter(|server| server.is_none()).count();
    let share = |count: usize| count as f64 / PROBES as f64;
    Ok(Disruption {
        moved: share(differ(&first, &second)),
        anyway: share(anyway),
        forced: share(forced),
        refused: share(refused),
    })
}

/// The order in which probes come again: always the same, and no pattern that a wheel of servers could fall in with.
fn shuffled() -> Vec<usize> {
    let mut random = Random::new(0, 0);
    let mut order: Vec<usize> = (0..PROBES).collect();
    for end in (1..PROBES).rev() {
        order.swap(end, random.below(end as u64 + 1) as usize);
    }
    order
}

/// The least share that any scheduler must move to keep loads by weight: half of what the servers' shares change in sum.
pub(super) fn least(before: &[i32], after: &[i32]) -> f64 {
    let shares = |weights: &[i32]| {
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        weights.iter().map(|&weight| if sum > 0.0 { f64::from(weight) / sum } else { 0.0 }).collect::<Vec<_>>()
    };
    let changes = shares(before).into_iter().zip(shares(after)).map(|(before, after)| (after - before).abs());
    changes.sum::<f64>() / 2.0
}

struct Visit {
    now_ms: u64,
    held: VecDeque<(usize, u32)>,
    active: bool,
}

impl Visit {
    fn come(&mut self, director: &Stage<'_>, flow: &Flow) -> Option<usize> {
        let server = director.pick(&director.request(flow, self.now_ms))?;
        director.open(server, self.active);
        self.held.push_back((server, director.epoch(server)));
        if self.held.len() > HELD
            && let Some((server, epoch)) = self.held.pop_front()
            && director.epoch(server) == epoch
        {
            director.close(server, self.active);
        }
        Some(server)
    }
}

/// A probe: a client that no workload has, the same whatever the seed.
pub(super) fn flow(number: usize, service: Endpoint, protocol: Protocol) -> Flow {
    let spread = (number as u32).wrapping_mul(0x9e37_79b1) & 0x000f_ffff;
    let address = match service.address.family() {
        Family::Inet => Address::v4((0xac10_0000 | spread).to_be_bytes()),
        Family::Inet6 => Address::from_bits(0x2001_0db8_00c2 << 80 | u128::from(spread)),
    };
    let port = 1024 + (number as u32).wrapping_mul(40_503) % 64_512;
    Flow { protocol, src: Endpoint::new(address, port as u16), dst: service }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losing one of four moves a quarter at least; adding a fifth a fifth; nothing moves without a change.
    #[test]
    fn the_least_is_what_shares_change() {
        assert!((least(&[1, 1, 1, 1], &[1, 1, 1, 0]) - 0.25).abs() < 1e-9);
        assert!((least(&[1, 1, 1, 1, 0], &[1, 1, 1, 1, 1]) - 0.2).abs() < 1e-9);
        assert_eq!(least(&[3, 1], &[3, 1]), 0.0);
        assert_eq!(least(&[0, 0], &[0, 0]), 0.0);
    }
}
