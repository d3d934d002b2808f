//! Fragments in an order in which no router should deliver them: the last one first, in both directions.
//!
//! In their right order they are among the cases of `forwarding.rs`.

use anyhow::{Result, ensure};
use xvs_tests::{Cases, Counters, Family, Lab, Method, Outcome, Plan, Service, UDP_REVERSED_PORTS, story};

/// Questions of a case: so many sockets, so many questions each, so many bytes in each.
const SOCKETS: usize = 6;
const ASKS: usize = 4;
const SIZE: usize = 8000;

/// Length of "rsN " before the repeated question.
const NAME_LEN: usize = 4;

/// Fragments of a question, and of an answer.
const PIECES: usize = 6;

const UDP_HEADER_LEN: usize = 8;
const IPV6_FRAGMENT_LEN: usize = 8;

/// Bytes of all fragments of a datagram with so much in it.
fn total(family: Family, size: usize) -> i64 {
    let extension = if family == Family::V6 { IPV6_FRAGMENT_LEN } else { 0 };
    (PIECES * (family.header_len() as usize + extension) + UDP_HEADER_LEN + size) as i64
}

/// Every method and family in this lab, with every counter to the packet and byte.
fn reversed_everywhere(lab: &Lab) -> Result<()> {
    let ds = lab.director().start(&lab.director().site())?;
    let port = UDP_REVERSED_PORTS[0];
    let mut cases = Cases::new();
    let kinds = [
        (Method::Nat, Family::V4, Family::V4),
        (Method::Nat, Family::V6, Family::V6),
        (Method::Dr, Family::V4, Family::V4),
        (Method::Dr, Family::V6, Family::V6),
        (Method::Tun, Family::V4, Family::V4),
        (Method::Tun, Family::V4, Family::V6),
        (Method::Tun, Family::V6, Family::V4),
        (Method::Tun, Family::V6, Family::V6),
    ];
    for (number, (method, vip, rip)) in kinds.into_iter().enumerate() {
        cases.case(&format!("{} {} in {}", method.name(), vip.name(), rip.name()), || {
            let service = Service::udp(lab.vip(number).socket(vip, port)).all_servers(lab, rip, port, method);
            service.during(&ds, || {
                let before = ds.counters()?;
                let answers = lab.client().udp_reversed(service.address(), SOCKETS, ASKS, SIZE)?;
                answers.are_even(&["rs1", "rs2"], (SOCKETS * ASKS / 2) as u64)?;
                let datagrams = (SOCKETS * ASKS) as i64;
                let packets = datagrams * PIECES as i64;
                let back = match method.sees_replies() {
                    true => (packets, datagrams * total(vip, SIZE + NAME_LEN)),
                    false => (0, 0),
                };
                let there = (packets, datagrams * total(vip, SIZE));
                before.moved(&ds.counters()?).exactly(&service.movement(SOCKETS as i64, there, back))
            })
        });
    }
    cases.case("nothing was cut once more", || {
        let cut = Counters::from_json(&ds.status_json()?["status"]["engine"]).get("split");
        ensure!(cut == 0, "{cut} packets were cut");
        Ok(())
    });
    cases.finish()
}

#[test]
fn the_last_fragment_first() -> Outcome {
    story("large datagrams whose fragments come last one first, both ways, are forwarded whole by every method", || {
        reversed_everywhere(&Lab::two_arm(2)?)
    })
}

#[test]
fn the_last_fragment_first_over_two_queues() -> Outcome {
    story("the same with two workers, where answers come to another queue than questions", || {
        reversed_everywhere(&Plan::two_arm().servers(2).queues(2).build()?)
    })
}
