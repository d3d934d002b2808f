//! A director of ten thousand services: what is changed about one of them is nothing to the others.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xvs_tests::{Family, Flow, Lab, Method, Outcome, Running, Service, story};

const SERVICES: u32 = 10_000;
/// Changes, and the time from one to the next if the machine keeps up.
const CHANGES: u32 = 100;
const PACE: Duration = Duration::from_millis(20);
/// A packet each millisecond, for longer than the changes take.
const PACKETS: u64 = 5_000;
const INTERVAL: Duration = Duration::from_millis(1);

/// One of the other services, each with an address of its own.
fn other(number: u32) -> String {
    format!("-t 10.77.{}.{}:80", number >> 8, number & 255)
}

/// As many services and their servers, in the form of `xvsadm -S`.
fn rules() -> Result<String> {
    let mut rules = String::new();
    for number in 0..SERVICES {
        let key = other(number);
        writeln!(rules, "-A {key} -s wrr\n-a {key} -r 10.2.0.11:{} -m -w 1", 1000 + number)?;
    }
    Ok(rules)
}

fn change(ds: &Running) -> Result<()> {
    let started = Instant::now();
    for turn in 0..CHANGES {
        let number = turn * 97 % SERVICES;
        ds.xvsadm(&format!("-e {} -r 10.2.0.11:{} -m -w {}", other(number), 1000 + number, 2 + turn))?;
        thread::sleep((started + PACE * (turn + 1)).saturating_duration_since(Instant::now()));
    }
    println!("  {CHANGES} changes in {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Sends the flow while the changes are made.
fn flow_under_changes(lab: &Lab, ds: &Running, service: &Service) -> Result<Flow> {
    let (client, to) = (lab.client(), service.address());
    thread::scope(|scope| {
        let flow = scope.spawn(move || client.flow(to, PACKETS, INTERVAL));
        change(ds)?;
        flow.join().ok().context("the flow panicked")?
    })
}

#[test]
fn changes_among_ten_thousand_services_cost_no_packet() -> Outcome {
    story("a flow loses no packet while other ones of ten thousand services are changed", || {
        let lab = Lab::two_arm(1)?;
        let ds = lab.director().start(&lab.director().site())?;
        let begun = Instant::now();
        ds.restore(&rules()?)?;
        println!("  {SERVICES} services in {:.1} s", begun.elapsed().as_secs_f32());
        let server = lab.server(1).address().socket(Family::V4, 5353);
        let service = Service::udp(lab.vip(0).socket(Family::V4, 5353)).server(server, Method::Nat, "");
        service.add(&ds)?;
        // The server's MAC is asked for first: packets wait for that, in small numbers.
        lab.client().udp(service.address(), 1, 1, 32)?.all_answered()?;
        let Flow { sent, answered, longest_gap_us } = flow_under_changes(&lab, &ds, &service)?;
        println!("  {answered} of {sent} packets came back, the longest gap was {longest_gap_us} us");
        ensure!(answered == sent, "{} of {sent} packets were lost; drops: {:?}", sent - answered, ds.drops()?);
        let key = other(97);
        let listed = ds.xvsadm(&format!("-L -n {key}"))?;
        ensure!(listed.contains("10.2.0.11:1097"), "a service of the restore is not there: {listed}");
        let weight = |line: &str| line.split_whitespace().nth(3).and_then(|weight| weight.parse::<u32>().ok());
        let weight = listed.lines().filter(|line| line.contains("10.2.0.11:1097")).find_map(weight);
        ensure!(weight == Some(3), "its change is not in force: {listed}");
        Ok(())
    })
}
