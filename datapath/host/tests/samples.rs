//! The schedulers of `sched-plugins`: as modules they pick what they pick natively, and `rr`, `wrr` and `wlc` pick what
//! the director's own do. Random histories: requests, connections that close, weights, servers that come and go, servers
//! at their thresholds, tags, rates, metrics, time, and versions that take over from each other.
//!
//! `XVS_RUNS=n` sets the steps of a history; without it there are 1 000 000 of them in a release build, and 30 000 in
//! others. Not here: what a broken plugin does (`hostile` tests), and what the rules of the schedulers are for (their own
//! native tests).

mod twins;

use twins::{Kind, Twins, module, write};
use xvs_engine::sched::Builtin;
use xvs_host::Grants;
use xvs_sdk::Scheduler;
use xvs_sdk::abi::{self, Flow};

use plugin_bench::{List, Server};

fn steps() -> u64 {
    let given = std::env::var("XVS_RUNS").ok().and_then(|runs| runs.parse().ok());
    given.unwrap_or(if cfg!(debug_assertions) { 30_000 } else { 1_000_000 })
}

/// Both forms live through a history for each of these options.
fn agree<S: Scheduler>(name: &str, grants: &str, options: &[&str], make: fn() -> S) {
    let module = module(name, grants.parse().unwrap());
    let steps = steps() / options.len() as u64;
    for (seed, options) in (1..).zip(options) {
        let kind = Kind { make, module: module.clone(), options: (*options).to_owned() };
        let mut twins = Twins::new(kind, seed);
        twins.live(steps);
        println!("{name} {options:?}: {} picks, at most {} % of a budget", twins.picks, twins.worst_percent);
        assert!(twins.picks > steps / 4, "most requests find a server");
    }
}

/// As the built-in: the two that LVS's users have most, and the simplest.
fn as_built_in(name: &'static str, make: fn() -> Builtin) {
    agree(name, "", &[""], make);
}

/// The differential of round robin.
#[test]
fn rr_is_the_built_in() {
    as_built_in("rr", || Builtin::from_name("rr").unwrap());
}

/// The differential of weighted round robin, which has the most to remember.
#[test]
fn wrr_is_the_built_in() {
    as_built_in("wrr", || Builtin::from_name("wrr").unwrap());
}

/// The differential of weighted least connection, LVS's default.
#[test]
fn wlc_is_the_built_in() {
    as_built_in("wlc", || Builtin::from_name("wlc").unwrap());
}

/// Without options, and with each.
#[test]
fn bounded_hash_agrees() {
    agree("bounded-hash", "", &["", "bound=110\nkey=connection\n"], bounded_hash::BoundedHash::default);
}

/// Facts arrive: rates and metrics.
#[test]
fn least_response_agrees() {
    let options = ["", "source=metric\n", "source=rates\n"];
    agree("least-response", "", &options, least_response::LeastResponse::default);
}

/// Names arrive.
#[test]
fn rendezvous_agrees() {
    agree("rendezvous", "", &["", "key=connection\n"], rendezvous::Rendezvous::default);
}

/// Time arrives, and the state is handed over.
#[test]
fn slow_start_agrees() {
    agree("slow-start", "time", &["", "from=1\nseconds=5\n"], slow_start::SlowStart::default);
}

/// Random numbers arrive.
#[test]
fn two_choices_agrees() {
    agree("two-choices", "random", &["", "choices=3\n"], two_choices::TwoChoices::default);
}

/// Tags arrive.
#[test]
fn zone_aware_agrees() {
    let options = ["zone=a\n", "limit=3\nzone=a\n", "tag=rack\nzone=7\n"];
    agree("zone-aware", "", &options, zone_aware::ZoneAware::default);
}

/// A request must fit into its budget whatever the length of the list, up to a length that the READMEs promise, at its
/// dearest: everybody loaded and usable, the best server last.
#[test]
fn requests_stay_within_their_budgets() {
    let samples = [
        ("bounded-hash", "", ""),
        ("least-response", "", ""),
        ("rendezvous", "", ""),
        ("slow-start", "time", ""),
        ("two-choices", "random", ""),
        ("wlc", "", ""),
        ("zone-aware", "", "zone=a\n"),
    ];
    for (name, grants, options) in samples {
        let module = module(name, grants.parse::<Grants>().unwrap());
        for servers in [1, 2, 4, 16, 64, 256] {
            let mut instance = module.instantiate(1).unwrap();
            instance.configure(options).unwrap();
            let mut list = List::default();
            write(&mut instance, &list);
            assert_eq!(instance.changed(abi::CHANGED_ALL, 0, module.limits().fuel_setup), Ok(false));
            let mut worst_change = 0;
            for number in 0..servers {
                let server = Server::new(char::from_u32(0x4e00 + number).unwrap(), 1 + number as i32 % 7);
                let load = 1000 - number;
                let tags = "rack=7,zone=a".to_owned();
                list.0.insert(0, Server { active: load, total: load, conns_per_s: load, metric: 5, tags, ..server });
                write(&mut instance, &list);
                instance.changed(abi::CHANGED_ADDED, 0, module.limits().fuel_setup).unwrap();
                worst_change = instance.fuel_used();
            }
            list.0.reverse();
            write(&mut instance, &list);
            let budget = module.budget(servers as usize);
            let worst = (0..500u32).map(|number| {
                let mut flow = Flow::default();
                flow.client[12..].copy_from_slice(&number.to_be_bytes());
                instance.pick(&flow, module.limits().fuel_setup).unwrap();
                instance.fuel_used()
            });
            let worst = worst.max().unwrap();
            println!("{name}, {servers} servers: {worst} of {budget}; a server more: {worst_change}");
            assert!(worst <= budget, "{name}, {servers} servers: {worst} of {budget}");
            assert!(worst_change <= budget, "{name}, a server beside {servers}: {worst_change} of {budget}");
        }
    }
}
