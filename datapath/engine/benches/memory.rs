//! What a connection takes of memory: `cargo bench -p xvs-engine --bench memory`, with other numbers of connections
//! behind `--`.
//!
//! A table is filled to the last place by packets through the engine; the kernel tells what the process has. Each
//! table has a process of its own.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::memory::{is_case, measure};
use xvs_engine::flow::Family;
use xvs_engine::real::Method;

fn main() {
    if is_case() {
        return;
    }
    let counts: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1_000_000, 10_000_000] } else { counts };
    for family in [Family::Inet, Family::Inet6] {
        for method in [Method::Dr, Method::Nat, Method::Tun] {
            for &count in &counts {
                let bytes = measure(family, method, count, &[]);
                println!("{family:?} {method:?}, {count} connections: {bytes:.1} bytes a connection");
            }
        }
    }
}
