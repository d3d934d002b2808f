//! One contender's turn: it stands, is measured, and is gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::to_value;
use xvs_tests::wire::{Contender, Flood, Ground, Kind, Standing};

use super::Options;
use super::rows::Row;

/// Flows of the floods: more than a cache of the first level holds, as many as a busy service has at a time.
const FLOWS: u32 = 8192;
/// New connections that the SYN flood has to choose from, in turn: more than are sent in its time, so that no two are alike.
const CONNECTIONS: u32 = 6_000_000;
/// Seconds of the SYN flood: a third of a second leaves room in the kernel's table of connections, whose usual bound is
/// 262,144.
const SYN_SECONDS: f64 = 0.3;
/// A load that everybody should carry.
const PACED: u64 = 50_000;

pub(super) fn round(ground: &mut Ground, who: Contender, options: &Options) -> Result<Row> {
    let standing = ground.stand(who, &options.config.replace("\\n", "\n"))?;
    let mut row = Row::default();
    if who.takes_floods() {
        floods(ground, &standing, &mut row)?;
    }
    if who.serves_tcp() && !options.floods {
        streams(ground, who, &mut row)?;
    }
    Ok(row)
}

fn floods(ground: &mut Ground, standing: &Standing, row: &mut Row) -> Result<()> {
    let who = standing.who();
    let flood = Flood::udp(FLOWS, 1.0);
    ground.flood(standing, &flood.first_packets())?;
    let full = ground.flood(standing, &flood)?;
    row.raw("flood", to_value(full)?);
    if who == Contender::Nobody {
        ensure!(full.arrived == 0, "packets came through where nobody forwards");
        row.set("wire ns", full.generator_ns as f64 / full.sent as f64);
        let paced = ground.flood(standing, &Flood { rate: Some(PACED), ..flood })?;
        row.set("wire paced ns", paced.generator_ns as f64 / paced.sent as f64);
        return Ok(());
    }
    ensure!(full.arrived > 0, "nothing came through");
    ensure!(full.strange == 0, "{} packets were for another host", full.strange);
    row.set("pps", full.rate());
    row.set("ns", full.cpu_ns());
    row.set("own ns", full.balancer_ns());
    row.set("charged", full.charged());
    let paced = ground.flood(standing, &Flood { rate: Some(PACED), ..flood })?;
    row.raw("paced", to_value(paced)?);
    row.set("paced ns", paced.cpu_ns());
    row.set("paced loss", 1.0 - paced.arrived as f64 / paced.sent as f64);
    let large = ground.flood(standing, &Flood { size: 1400, ..flood })?;
    row.raw("large", to_value(large)?);
    row.set("large pps", large.rate());
    if who.knows_connections() || who == Contender::Plain {
        let new = Flood { kind: Kind::Syn, flows: CONNECTIONS, net: 96, seconds: SYN_SECONDS, ..flood };
        let new = ground.flood(standing, &new)?;
        row.raw("syn", to_value(new)?);
        row.set("syn pps", new.rate());
        row.set("syn ns", new.cpu_ns());
    }
    Ok(())
}

fn streams(ground: &Ground, who: Contender, row: &mut Row) -> Result<()> {
    let [p50, p99, p999] = ground.round_trips(1.5)?;
    row.set("p50", p50);
    row.set("p99", p99);
    row.set("p99.9", p999);
    if who.takes_floods() {
        let mut load = ground.background(&Flood { rate: Some(PACED), ..Flood::udp(FLOWS, 2.0) })?;
        let [p50, p99, p999] = ground.round_trips(1.5)?;
        row.set("loaded p50", p50);
        row.set("loaded p99", p99);
        row.set("loaded p99.9", p999);
        load.wait(Duration::from_secs(10))?;
    }
    row.set("cps", ground.connections(2)?);
    row.set("bit/s", ground.throughput(2)?);
    Ok(())
}
