//! What a new connection costs in a worker when a plugin schedules it, beside the same scheduler natively: the whole breath,
//! from the rings to the entry in the table and back.
//!
//! ```text
//! cargo bench -p xvs-host --bench newcomers
//! ```
//!
//! Frames, director and clock are those of the engine's own benches (`datapath/engine/benches/support`): first packets of
//! new connections, by DR, 16 servers or 256, 100,000 connections beside them, batches of 64. Native and plugin in turns,
//! rounds of eight times 4096 packets; the median of the rounds is told, in nanoseconds of processor time a packet.
//!
//! Not here: a pick alone (`picks.rs`).
#![allow(missing_docs)]

#[path = "../../engine/benches/support/mod.rs"]
mod support;

use std::sync::Arc;

use support::common::packet::SYN;
use support::load::{ARRIVALS, Load, Plan, capacity_for};
use support::stream::{SMALLEST, Stream};
use support::timing::median_and_least;
use xvs_host::{Grants, Host, Limits, Post, Version};

const CONNECTIONS: u32 = 100_000;
const ROUNDS: usize = 15;
const TURNS: usize = 8;

fn director(scheduler: &'static str, servers: u32) -> Load {
    let capacity = capacity_for(CONNECTIONS);
    Load::new(Plan { scheduler, servers, connections: CONNECTIONS, capacity, ..Plan::default() })
}

/// A director whose service asks this scheduler's plugin.
fn with_plugin(host: &Host, scheduler: &'static str, servers: u32) -> (Load, Arc<Post>) {
    let load = director(scheduler, servers);
    let path = xvs_plugins::module(scheduler).expect("the plugin is built");
    let module = host.load(&std::fs::read(path).expect("it is read"), Grants::ALL).expect("it is right");
    let post = Post::new(1, 0);
    assert!(load.service.set_guest(post.clone()));
    let version = Arc::new(Version { name: scheduler.into(), number: 1, module });
    let live = |site: &xvs_engine::sched::guest::Site<'_>| post.set_live(site, Some(version.clone()), "");
    load.service.with_site(&load.shared.arena, live).expect("it goes to work");
    (load, post)
}

/// Nanoseconds a packet, over a round.
fn round(load: &mut Load, stream: &Stream) -> f64 {
    let mut spent = 0;
    for turn in 0..=TURNS {
        load.arrive_new(stream);
        let time = load.breathe_timed(ARRIVALS);
        spent += if turn > 0 { time } else { 0 };
    }
    load.forget_new();
    spent as f64 / (TURNS * ARRIVALS) as f64
}

fn main() {
    let host = Host::new(Limits::default()).expect("a host");
    host.warm_thread();
    let stream = Stream::from_clients(true, SYN, SMALLEST);
    println!("ns a new connection, median of {ROUNDS} rounds, in turns\n");
    println!("scheduler  servers    native    plugin     ratio");
    for (scheduler, servers) in [("rr", 16), ("wrr", 16), ("wlc", 16), ("wlc", 256), ("mh", 16)] {
        let mut native = director(scheduler, servers);
        let (mut plugin, post) = with_plugin(&host, scheduler, servers);
        let rounds: Vec<_> = (0..ROUNDS).map(|_| (round(&mut native, &stream), round(&mut plugin, &stream))).collect();
        let all = (ROUNDS * (TURNS + 1) * ARRIVALS) as u64;
        assert_eq!(post.status().picks, all, "all by the plugin");
        let (native, _) = median_and_least(rounds.iter().map(|(native, _)| *native));
        let (plugin, _) = median_and_least(rounds.iter().map(|(_, plugin)| *plugin));
        let (ratio, _) = median_and_least(rounds.iter().map(|(native, plugin)| plugin / native));
        println!("{scheduler:<9} {servers:>8} {native:>9.0} {plugin:>9.0} {ratio:>9.2}");
    }
}
