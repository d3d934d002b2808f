//! The dose for CI: everybody stands once, and every packet of the director is accounted for. No rates are judged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xvs_tests::wire::{Contender, Flood, Flooded, Ground, Kind, Standing};
use xvs_tests::{Method, Running, wait_until};

use crate::paint::good;

const FLOWS: u32 = 4096;
/// A worker publishes what it counts within this time.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn run() -> Result<()> {
    for workers in [1, 2] {
        let mut ground = Ground::lay(workers)?;
        plain(&mut ground)?;
        for method in Method::ALL {
            xvs(&mut ground, Contender::Xvs(method))?;
        }
        for who in
            [Contender::XvsSpinning, Contender::XvsLingering, Contender::Nft, Contender::NftBare, Contender::Haproxy]
        {
            if !who.suits(workers) {
                continue;
            }
            beside(&mut ground, who).with_context(|| format!("{} with {workers} queues", who.name()))?;
        }
    }
    Ok(())
}

fn plain(ground: &mut Ground) -> Result<()> {
    let mut standing = ground.stand(Contender::Plain, "")?;
    let flooded = ground.flood(&standing, &Flood::udp(FLOWS, 0.5))?;
    let report = standing.forwarder().context("the forwarder has no counts")??;
    let transmitted = report["transmitted"].as_u64().unwrap_or_default();
    ensure!(transmitted > 0, "plain forwarding forwarded nothing: {report}");
    ensure!(flooded.arrived == transmitted, "plain forwarding: {report}, and {flooded:?}");
    passed(ground, Contender::Plain, "full", &flooded);
    Ok(())
}

fn xvs(ground: &mut Ground, who: Contender) -> Result<()> {
    let standing = ground.stand(who, "")?;
    let floods = [
        ("paced", Flood { rate: Some(10_000), ..Flood::udp(FLOWS, 0.5) }),
        ("full", Flood::udp(FLOWS, 0.5)),
        ("new", Flood { kind: Kind::Syn, net: 96, ..Flood::udp(100_000, 0.5) }),
    ];
    for (name, flood) in floods {
        let flooded = accounted(ground, &standing, &flood);
        let flooded = flooded.with_context(|| format!("{}, {name}, with {} queues", who.name(), ground.queues()))?;
        passed(ground, who, name, &flooded);
    }
    if who.serves_tcp() {
        ground.round_trips(0.3)?;
        ensure!(ground.connections(1)? > 0.0, "no connection came through {}", who.name());
    }
    Ok(())
}

fn beside(ground: &mut Ground, who: Contender) -> Result<()> {
    let standing = ground.stand(who, "")?;
    if who.takes_floods() {
        let flooded = ground.flood(&standing, &Flood { rate: Some(10_000), ..Flood::udp(FLOWS, 0.5) })?;
        ensure!(flooded.arrived > 0, "nothing came through");
        passed(ground, who, "paced", &flooded);
    }
    ground.round_trips(0.3).map(drop)
}

fn passed(ground: &Ground, who: Contender, name: &str, flooded: &Flooded) {
    let (sent, arrived) = (flooded.sent, flooded.arrived);
    println!("  {} {}, {} queues, {name}: {sent} sent, {arrived} arrived", good("ok"), who.name(), ground.queues());
}

/// What the director knows at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    redirected: u64,
    /// By the kernel, between the XDP program and the worker.
    lost: u64,
    received: u64,
    dropped: u64,
    transmitted: u64,
}

impl Account {
    fn of(ds: &Running) -> Result<Self> {
        let status = ds.status_json()?;
        let status = &status["status"];
        let all = |list: &Value| list.as_array().cloned().unwrap_or_default();
        let sum = |list: &Value, names: &[&str]| -> u64 {
            let counters = all(list);
            let named = counters.iter().filter(|counter| names.iter().any(|name| counter["name"] == *name));
            named.filter_map(|counter| counter["value"].as_u64()).sum()
        };
        let queues = all(&status["interfaces"]).into_iter().flat_map(|interface| all(&interface["queues"]));
        let workers = all(&status["workers"]);
        for worker in &workers {
            let frames = |name: &str| worker["frames"][name].as_u64().unwrap_or_default();
            let parts = frames("free") + frames("fill") + frames("lent") + frames("tx");
            ensure!(frames("total") == parts && parts > 0, "the ledger does not add up: {worker}");
        }
        let worker = |name: &str| workers.iter().filter_map(|worker| worker[name].as_u64()).sum();
        Ok(Account {
            redirected: sum(&status["xdp"], &["redirected_service"]),
            lost: queues.map(|queue| sum(&queue["kernel"], &["rx_dropped", "rx_ring_full"])).sum(),
            received: worker("received"),
            dropped: worker("dropped"),
            transmitted: worker("transmitted"),
        })
    }
}

/// Sends a flood, and follows every packet of it.
fn accounted(ground: &mut Ground, standing: &Standing, flood: &Flood) -> Result<Flooded> {
    let ds = standing.xvs().context("only the director accounts for packets")?;
    let before = Account::of(ds)?;
    let flooded = ground.flood(standing, flood)?;
    let mut moved = Account::default();
    let told = wait_until("the counters adding up", SETTLE, || {
        let Ok(now) = Account::of(ds) else { return false };
        moved = Account {
            redirected: now.redirected - before.redirected,
            lost: now.lost - before.lost,
            received: now.received - before.received,
            dropped: now.dropped - before.dropped,
            transmitted: now.transmitted - before.transmitted,
        };
        moved.redirected == moved.lost + moved.received && moved.received == moved.dropped + moved.transmitted
    });
    told.with_context(|| format!("{moved:?} of {flooded:?}"))?;
    ensure!(moved.redirected <= flooded.sent, "more was steered than sent: {moved:?} of {flooded:?}");
    ensure!(moved.transmitted == flooded.arrived, "what was sent did not arrive: {moved:?} of {flooded:?}");
    ensure!(flooded.strange == 0, "{} packets were for another host", flooded.strange);
    ensure!(flooded.arrived > 0, "nothing arrived");
    Ok(flooded)
}
