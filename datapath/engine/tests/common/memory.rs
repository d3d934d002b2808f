//! What a table that is filled by packets takes of the machine's memory.
//!
//! Each table is made in a process of its own, as a director makes its own once: an allocator that had memory before would
//! give it again, and clear all of it.
#![allow(dead_code, unreachable_pub, reason = "each test file takes what it needs")]

use xvs_engine::engine::Verdict;
use xvs_engine::flow::{Family, Protocol};
use xvs_engine::real::Method;
use xvs_engine::rings::memory::HEADROOM;
use xvs_engine::wire::Packet;

use super::packet::{SYN, from_client, tcp};
use super::site::{CLIENT4, CLIENT6, SERVERS, Site, VIP4, VIP6};

/// Bytes of memory that the process has, by the kernel's count.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Opens so many connections through an engine whose table holds no more; gives the bytes of memory for each of them,
/// entries and index together.
fn bytes_a_connection(family: Family, method: Method, count: u32) -> f64 {
    let before = resident();
    let mut site = Site::new(count);
    let (vip, client, server) = match family {
        Family::Inet => (VIP4, CLIENT4, "10.0.0.1:8080"),
        Family::Inet6 => (VIP6, CLIENT6, "[fd00::1]:8080"),
    };
    let service = site.add_service(Protocol::TCP, vip, "wrr");
    site.add_real_with(service, server, method, |_| {});
    let frame = from_client(&tcp(client, vip, SYN).bytes());
    // The last four bytes of the source address, and the source port, which nobody checks the sum of.
    let (address, port) = if family == Family::Inet { (26, 34) } else { (34, 54) };
    let mut chunk = vec![0; 2048];
    let (start, end) = (HEADROOM, HEADROOM + frame.len());
    for number in 0..count {
        let bytes = &mut chunk[start..end];
        bytes.copy_from_slice(&frame);
        bytes[address..address + 4].copy_from_slice(&(0x0b00_0000 + number / 50_000).to_be_bytes());
        bytes[port..port + 2].copy_from_slice(&(10_000 + (number % 50_000) as u16).to_be_bytes());
        let inspected = site.engine.inspect(bytes).expect("a packet");
        let mut packet = Packet::new(&mut chunk, start, end).expect("it fits");
        assert_eq!(site.engine.forward(&mut packet, inspected, site.now), Verdict::Transmit(SERVERS), "{number}");
    }
    assert_eq!(site.shared.table.len(), count);
    (resident() - before) as f64 / f64::from(count)
}

/// Names the case that a process is to measure, and no more.
const CASE: &str = "XVS_MEMORY_CASE";
/// Stands before what it measured.
const MEASURED: &str = "bytes a connection: ";

/// Is this process one that measures a case? Then it has done so.
pub fn is_case() -> bool {
    let Ok(case) = std::env::var(CASE) else { return false };
    let mut words = case.split(' ');
    let family = if words.next() == Some("Inet6") { Family::Inet6 } else { Family::Inet };
    let method = match words.next() {
        Some("Nat") => Method::Nat,
        Some("Tun") => Method::Tun,
        _ => Method::Dr,
    };
    let count = words.next().and_then(|count| count.parse().ok()).expect("a number of connections");
    println!("{MEASURED}{}", bytes_a_connection(family, method, count));
    true
}

/// Measures a case in a process of its own: this program again, with these arguments.
pub fn measure(family: Family, method: Method, count: u32, args: &[&str]) -> f64 {
    let program = std::env::current_exe().expect("it runs");
    let case = format!("{family:?} {method:?} {count}");
    let output = std::process::Command::new(program).args(args).env(CASE, case).output().expect("it runs again");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes = told.split(MEASURED).nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    bytes.unwrap_or_else(|| panic!("it measured nothing: {told}{}", String::from_utf8_lossy(&output.stderr)))
}
