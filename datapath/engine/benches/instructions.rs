//! What a packet costs in instructions: `cargo bench -p xvs-engine --bench instructions` (half a minute).
//!
//! Instructions are the same in every run on every machine of a kind, so a change of the packet path shows here although
//! the machine is busy; what they cost in time, `path.rs` tells. This program runs itself under valgrind's callgrind, each
//! case twice with different numbers of packets, and divides the difference. Without valgrind it says so, and fails.
#![allow(missing_docs, clippy::disallowed_methods)] // a bench starts processes

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::{Command, ExitCode};

use common::packet::*;
use common::site::*;
use xvs_engine::engine::Verdict;
use xvs_engine::real::Method;
use xvs_engine::rings::memory::HEADROOM;
use xvs_engine::wire::Packet;

const CASES: [(&str, Method); 7] = [
    ("dr/hit", Method::Dr),
    ("nat_in/hit", Method::Nat),
    ("nat_out/hit", Method::Nat),
    ("tun/hit", Method::Tun),
    ("dr/udp", Method::Dr),
    ("dr/hit6", Method::Dr),
    ("nat_in/hit6", Method::Nat),
];
const FEW: u64 = 10_000;
const MANY: u64 = 30_000;

/// Forwards a packet of a known connection so many times.
fn run(case: &str, packets: u64) {
    let (_, method) = CASES.into_iter().find(|(name, _)| *name == case).expect("a case");
    let site = Site::with_service(method, 8080);
    let (client, vip) = if case.ends_with('6') { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
    for flags in [SYN, ACK] {
        let verdict = site.forward(&from_client(&tcp(client, vip, flags).bytes())).0;
        assert_eq!(verdict, Verdict::Transmit(SERVERS));
    }
    let frame = match case {
        "nat_out/hit" => from_server(1, &tcp("10.0.0.1:8080", client, ACK).payload([0; 6]).bytes()),
        "dr/udp" => from_client(&udp(client, vip, &[0; 18]).bytes()),
        _ => from_client(&tcp(client, vip, ACK).payload([0; 6]).bytes()),
    };
    let mut chunk = vec![0; 2048];
    let (start, end) = (HEADROOM, HEADROOM + frame.len());
    for _ in 0..packets {
        chunk[start..end].copy_from_slice(&frame);
        let inspected = site.engine.inspect(&chunk[start..end]).expect("a good frame");
        let mut packet = Packet::new(&mut chunk, start, end).expect("it is in the chunk");
        assert!(matches!(site.engine.forward(&mut packet, inspected, site.now), Verdict::Transmit(_)));
    }
}

/// Instructions of a whole run, by callgrind's own total.
fn count(case: &str, packets: u64) -> Option<u64> {
    let own = std::env::current_exe().ok()?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(own);
    let output = command.args(["run", case, &packets.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let total = text.lines().find_map(|line| line.split("Collected : ").nth(1))?.trim().parse().ok();
    total.filter(|_| output.status.success())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if let [_, run_word, case, packets] = &words[..]
        && run_word == "run"
    {
        run(case, packets.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    println!("{:<14} {:>12}", "case", "instructions");
    for (case, _) in CASES {
        let (Some(few), Some(many)) = (count(case, FEW), count(case, MANY)) else {
            eprintln!("{case}: no count; is valgrind installed (apt-get install valgrind)?");
            return ExitCode::FAILURE;
        };
        println!("{case:<14} {:>12.1}", (many - few) as f64 / (MANY - FEW) as f64);
    }
    ExitCode::SUCCESS
}
