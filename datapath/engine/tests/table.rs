//! The connection table against a model: a `HashMap` that does the obvious, under virtual time.
//!
//! What threads do to it is tested beside its source, where the index can be looked into.

mod common;

use std::collections::HashMap;

use common::site::address;
use proptest::collection::vec;
use proptest::prelude::*;
use xvs_engine::conn::{Flags, NewConn, Side, Status, Sweep, Table, tcp};
use xvs_engine::flow::{Endpoint, Family, Flow, HashKey, Protocol};
use xvs_engine::real::{Method, Path, RealId};
use xvs_engine::time::Now;

const CAPACITY: u32 = 24;
const KEYS: u16 = 40;

/// What is done to the table.
#[derive(Clone, Debug)]
enum Step {
    Insert { key: u16, timeout_s: u32 },
    Remove { key: u16 },
    Establish { key: u16 },
    Touch { key: u16, timeout_s: u32 },
    Evict { v4: bool },
    Wait { millis: u64 },
}

fn steps() -> impl Strategy<Value = Step> {
    let (key, timeout_s) = (|| 0..KEYS, || 1u32..100);
    prop_oneof![
        8 => (key(), timeout_s()).prop_map(|(key, timeout_s)| Step::Insert { key, timeout_s }),
        3 => key().prop_map(|key| Step::Remove { key }),
        3 => key().prop_map(|key| Step::Establish { key }),
        3 => (key(), timeout_s()).prop_map(|(key, timeout_s)| Step::Touch { key, timeout_s }),
        2 => any::<bool>().prop_map(|v4| Step::Evict { v4 }),
        3 => (1u64..30_000).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn new_conn(key: u16, timeout_s: u32) -> NewConn {
    let (client, vip, server) = match key % 3 {
        0 => ("2001:db8:c::1", "2001:db8::1", "fd00::1"),
        _ => ("198.51.100.1", "192.0.2.1", "10.0.0.1"),
    };
    let method = if key.is_multiple_of(4) { Method::Tun } else { Method::Nat };
    NewConn {
        flow: Flow {
            protocol: Protocol::TCP,
            src: Endpoint::new(address(client), 1000 + key),
            dst: Endpoint::new(address(vip), 80),
        },
        server: Endpoint::new(address(server), 8080),
        real: RealId(key.into()),
        service: 0,
        status: Status { state: tcp::State::SynRecv as u8, flags: Flags::new(method) },
        timeout_s,
        reply_path: Path::NoRoute,
        class: 0,
        parent: None,
    }
}

/// What the model knows of a connection.
#[derive(Clone, Debug)]
struct Known {
    seen: u64,
    timeout_s: u32,
    half_open: bool,
}

impl Known {
    fn is_expired(&self, now: u64) -> bool {
        self.seen + u64::from(self.timeout_s) * 1000 <= now
    }

    /// Writes at most once a second, or sixteen times in a shorter timeout.
    fn touch(&mut self, now: u64, timeout_s: u32) {
        let grain = 1000.min(u64::from(timeout_s) * 1000 / 16);
        if self.timeout_s != timeout_s || now - self.seen >= grain {
            (self.seen, self.timeout_s) = (now, timeout_s);
        }
    }
}

#[derive(Default)]
struct Model {
    known: HashMap<u16, Known>,
    now: u64,
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let table = Table::new(CAPACITY, HashKey::from_bytes([0x33; 32]));
    let mut sweep = Sweep::new(0, 1);
    let mut model = Model { now: 5000, ..Model::default() };
    for step in steps {
        let now = Now::from_millis(model.now);
        let find = |key: u16| {
            let flow = new_conn(key, 1).flow;
            table.lookup(&flow, table.hash(&flow)).map(|(conn, _)| conn)
        };
        match *step {
            Step::Insert { key, timeout_s } => {
                if find(key).is_some() {
                    continue;
                }
                let new = new_conn(key, timeout_s);
                let made = table.insert(&new, table.hash(&new.flow), now);
                prop_assert_eq!(made.is_ok(), model.known.len() < CAPACITY as usize);
                if made.is_ok() {
                    model.known.insert(key, Known { seen: model.now, timeout_s, half_open: true });
                }
            }
            Step::Remove { key } => {
                let removed = find(key).is_some_and(|mut conn| table.remove(&mut conn));
                prop_assert_eq!(removed, model.known.remove(&key).is_some());
            }
            Step::Establish { key } => {
                if let Some(mut conn) = find(key) {
                    conn.update(|status| Status { state: tcp::State::Established as u8, ..status });
                }
                if let Some(known) = model.known.get_mut(&key) {
                    known.half_open = false;
                }
            }
            Step::Touch { key, timeout_s } => {
                if let (Some(conn), Some(known)) = (find(key), model.known.get_mut(&key)) {
                    conn.touch(now, timeout_s);
                    known.touch(model.now, timeout_s);
                    let left = (known.seen + u64::from(timeout_s) * 1000).saturating_sub(model.now);
                    prop_assert_eq!(conn.expires_in(now), left);
                }
            }
            Step::Evict { v4 } => {
                let family = if v4 { Family::Inet } else { Family::Inet6 };
                let mut gone = None;
                let evicted = table.evict(family, |conn| gone = Some(conn.real().0 as u16));
                prop_assert_eq!(evicted, model.known.values().any(|known| known.half_open));
                if let Some(key) = gone {
                    let victim = model.known.remove(&key).expect("what was evicted was there");
                    prop_assert!(victim.half_open, "an established one gave way");
                    // The table is smaller than a probe, so the oldest of the family is found.
                    let is_own = |key: u16| key.is_multiple_of(3) != v4;
                    for (other, known) in model.known.iter().filter(|(_, known)| known.half_open) {
                        prop_assert!(known.seen >= victim.seen || !(is_own(*other) && is_own(key)));
                        prop_assert!(is_own(key) || !is_own(*other), "the own family gives way first");
                    }
                }
            }
            Step::Wait { millis } => {
                model.now += millis;
                let now = Now::from_millis(model.now);
                sweep.step(&table, now, |conn| {
                    let known = model.known.remove(&(conn.real().0 as u16));
                    assert!(known.is_some_and(|known| known.is_expired(model.now)), "ended before its time");
                });
            }
        }
        agree(&table, &model)?;
    }
    for _ in 0..8 {
        model.now += 60_000;
        sweep.step(&table, Now::from_millis(model.now), |_| ());
    }
    prop_assert!(table.is_empty(), "everything ends in the end");
    Ok(())
}

/// Table and model hold the same connections, each found by each of its flows and by no other.
fn agree(table: &Table, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len() as usize, model.known.len());
    let mut listed: Vec<_> = table.iter().map(|conn| conn.real().0 as u16).collect();
    listed.sort_unstable();
    let mut expected: Vec<_> = model.known.keys().copied().collect();
    expected.sort_unstable();
    prop_assert_eq!(listed, expected, "each once");
    for key in 0..KEYS {
        let new = new_conn(key, 1);
        let found = table.lookup(&new.flow, table.hash(&new.flow));
        prop_assert_eq!(found.map(|(conn, _)| conn.real()), model.known.get(&key).map(|_| RealId(key.into())));
        let reply = Flow { protocol: Protocol::TCP, src: new.server, dst: new.flow.src };
        let found = table.lookup(&reply, table.hash(&reply));
        let nat = new.status.flags.method() == Method::Nat;
        prop_assert_eq!(found.map(|(_, side)| side), (nat && model.known.contains_key(&key)).then_some(Side::Out));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order, the table holds what a plain map would.
    #[test]
    fn the_table_agrees_with_a_map(steps in vec(steps(), 1..120)) {
        run(&steps)?;
    }
}
