//! Tests of the table: by one thread, by many at once, and with what looks for expired and half-open connections.
//!
//! Not here: tests through whole directors (`tests/`).

use std::sync::Mutex;
use std::sync::atomic::AtomicI64;

use super::super::{Flags, Key4, Key6, New, Shifts, Status, Sweep};
use super::*;
use crate::flow::{Address, Endpoint, Protocol};
use crate::real::{Method, Path, RealId};
use crate::time::Now;

const NOW: Now = Now::from_secs(100);

/// Everything of a connection follows from its number, so that a mix of two is noticed.
fn new_conn(number: u32) -> NewConn {
    let make = |v4: [u8; 4]| match number % 2 {
        0 => Address::v4(v4),
        _ => Address::from_bits((0x2001_0db8 << 96) | (u128::from(u32::from_be_bytes(v4)) * 0x1_0000_0001)),
    };
    let [a, b, c, d] = number.to_be_bytes();
    let method = if number.is_multiple_of(3) { Method::Dr } else { Method::Nat };
    NewConn {
        flow: Flow {
            protocol: Protocol::UDP,
            src: Endpoint::new(make([10 | a, b, c, d]), number as u16),
            dst: Endpoint::new(make([192, 0, 2, 1]), 53),
        },
        server: Endpoint::new(make([172, 16, c, d]), !number as u16),
        real: RealId(number % 7),
        service: number,
        status: Status { state: 0, flags: Flags::new(method) },
        timeout_s: 60,
        reply_path: Path::NoRoute,
        class: (number % 128) as u8,
        parent: None,
    }
}

fn is(conn: &Conn<'_>, new: &NewConn) -> bool {
    conn.flow() == new.flow
        && (conn.server(), conn.real(), conn.service()) == (new.server, new.real, new.service)
        && (conn.status().flags.method(), conn.class()) == (new.status.flags.method(), new.class)
}

fn insert<'t>(table: &'t Table, new: &NewConn) -> Result<Conn<'t>, Full> {
    table.insert(new, table.hash(&new.flow), NOW)
}

fn lookup<'t>(table: &'t Table, flow: &Flow) -> Option<(Conn<'t>, Side)> {
    table.lookup(flow, table.hash(flow))
}

fn reply(new: &NewConn) -> Option<Flow> {
    let nat = new.status.flags.method() == Method::Nat;
    nat.then_some(Flow { protocol: new.flow.protocol, src: new.server, dst: new.flow.src })
}

/// A connection is found by both of its flows, by the right side, and by neither once it is removed.
#[test]
fn both_flows_lead_to_a_connection() {
    let table = Table::new(64, HashKey::from_bytes([1; 32]));
    for number in 0..64 {
        let new = new_conn(number);
        assert!(is(&insert(&table, &new).unwrap(), &new));
        let (found, side) = lookup(&table, &new.flow).unwrap();
        assert!(is(&found, &new));
        assert_eq!(side, if reply(&new).is_some() { Side::In } else { Side::InOnly });
        if let Some(reply) = reply(&new) {
            let (found, side) = lookup(&table, &reply).unwrap();
            assert_eq!((is(&found, &new), side), (true, Side::Out));
        }
        assert!(lookup(&table, &new.flow.reversed()).is_none());
    }
    assert!(insert(&table, &new_conn(64)).is_err());
    assert_eq!((table.len(), table.iter().count()), (64, 64));
    for number in 0..64 {
        let new = new_conn(number);
        let (mut conn, _) = lookup(&table, &new.flow).unwrap();
        assert!(table.remove(&mut conn));
        assert!(!table.remove(&mut conn), "nobody ends a connection twice");
        assert!(lookup(&table, &new.flow).is_none() && table.get(conn.id()).is_none());
    }
    assert!(table.is_empty() && table.index.is_clear());
}

/// Who holds a connection that ended and whose entry is another one's now can tell, changes nothing of the other
/// one, and still knows its own real server: the counts are settled by it, after the entry is free. (It once read
/// the new one's number, and took the wrong server's count down.)
#[test]
fn a_connection_in_hand_stays_what_it_was() {
    let table = Table::new(1, HashKey::from_bytes([1; 32]));
    let (old, new) = (new_conn(2), new_conn(4));
    let mut held = insert(&table, &old).unwrap();
    let late = held;
    assert!(table.remove(&mut held));
    let other = insert(&table, &new).unwrap();
    assert_eq!(other.id(), held.id());
    assert_eq!((held.real(), late.real(), other.real()), (old.real, old.real, new.real));
    assert_eq!((held.is_current(), late.is_current(), other.is_current()), (false, false, true));
    let mut late = late;
    assert!(late.update(|status| Status { state: 9, ..status }).is_none());
    assert!(!table.remove(&mut late));
    late.set_reply_path(Path::Local);
    assert!(is(&lookup(&table, &new.flow).unwrap().0, &new));
    assert_eq!(lookup(&table, &new.flow).unwrap().0.reply_path(), Path::NoRoute);
}

/// Threads make, find and end connections of their own and of everybody in a table that is too small for all:
/// what a thread made by itself is always found, no reader sees a mix of two, every end is counted for the right
/// server, and nothing is left.
#[test]
fn threads_agree() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    const SHARED: u32 = 64;
    let table = Table::new(96, HashKey::from_bytes([7; 32]));
    let turn = Mutex::new(());
    let counts: [AtomicI64; 7] = Default::default();
    let settle = |conn: &Conn<'_>| counts[conn.real().0 as usize].fetch_sub(1, Relaxed);
    let work = |thread: u32| {
        let mut state = thread + 1;
        for round in 0..ROUNDS {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let own = new_conn(1 << 16 | thread << 12 | (round % 8));
            if let Ok(mut conn) = insert(&table, &own) {
                counts[own.real.0 as usize].fetch_add(1, Relaxed);
                let (found, _) = lookup(&table, &own.flow).expect("its maker finds it");
                assert_eq!(found.id(), conn.id());
                if let Some(reply) = reply(&own) {
                    assert!(lookup(&table, &reply).is_some_and(|(conn, side)| is(&conn, &own) && side == Side::Out));
                }
                assert!(table.remove(&mut conn));
                assert!(lookup(&table, &own.flow).is_none());
                settle(&conn);
            }
            let common = new_conn((state >> 16) % SHARED);
            match lookup(&table, &common.flow) {
                Some((mut conn, _)) => {
                    assert!(is(&conn, &common) || !conn.is_current(), "{conn:?}");
                    assert_eq!(conn.real(), common.real);
                    if state & 0x8000 != 0 && table.remove(&mut conn) {
                        settle(&conn);
                    }
                }
                None => {
                    let _turn = turn.lock().unwrap();
                    if lookup(&table, &common.flow).is_none() && insert(&table, &common).is_ok() {
                        counts[common.real.0 as usize].fetch_add(1, Relaxed);
                    }
                }
            }
            for conn in table.iter().take(3) {
                assert!(is(&conn, &new_conn(conn.service())) || !conn.is_current(), "{conn:?}");
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || work(thread));
        }
    });
    for number in 0..SHARED {
        let new = new_conn(number);
        if let Some((mut conn, _)) = lookup(&table, &new.flow) {
            assert!(table.remove(&mut conn));
            settle(&conn);
        }
        assert!(lookup(&table, &new.flow).is_none(), "{number} was there twice");
    }
    assert!(table.is_empty() && table.iter().next().is_none());
    assert!(table.index.is_clear(), "a key was left in the index");
    assert!(counts.iter().all(|count| count.load(Relaxed) == 0), "{counts:?}");
    for number in (0..192).step_by(2) {
        assert!(insert(&table, &new_conn(number)).is_ok(), "an entry was lost: {number}");
    }
}

/// Evictions and sweeps run beside the making of connections: neither may meet one that is half made.
#[test]
fn evictions_meet_no_half_made_connection() {
    const ROUNDS: u32 = if cfg!(debug_assertions) { 20_000 } else { 200_000 };
    let table = Table::new(4, HashKey::from_bytes([7; 32]));
    let work = |thread: u32| {
        let mut sweep = Sweep::new(0, 1);
        for round in 0..ROUNDS {
            let mut new = new_conn((thread << 12) | (round % 8));
            new.flow.protocol = Protocol::TCP; // half open, so it may be evicted
            if insert(&table, &new).is_err() {
                table.evict(new.flow.family(), |conn| assert_eq!(conn.protocol(), Protocol::TCP));
            }
            sweep.step(&table, NOW.plus_millis(u64::from(round)), |_| ());
            if let Some((mut conn, _)) = lookup(&table, &new.flow) {
                table.remove(&mut conn);
            }
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || work(thread));
        }
    });
    while table.evict(Family::Inet, |_| ()) {}
    assert!(table.is_empty() && table.index.is_clear());
}

/// Each worker sweeps its share and all of them the whole table, about once a second.
#[test]
fn sweeps_find_every_expired_connection() {
    let table = Table::new(2000, HashKey::from_bytes([7; 32]));
    for number in 0..2000 {
        insert(&table, &new_conn(number)).unwrap();
    }
    let mut sweeps = [0, 1, 2].map(|worker| Sweep::new(worker, 3));
    let mut ended = 0;
    for step in 0..600 {
        for sweep in &mut sweeps {
            sweep.step(&table, NOW.plus_millis(step * 100), |_| ended += 1);
        }
    }
    assert_eq!(ended, 0, "60 s are not over");
    for step in 600..616 {
        for sweep in &mut sweeps {
            sweep.step(&table, NOW.plus_millis(step * 100), |_| ended += 1);
        }
    }
    assert_eq!((ended, table.len(), table.index.is_clear()), (2000, 0, true));
}

/// An IPv4 connection by NAT that owes the key of its answers: from the same number always the same.
fn owing(table: &Table, number: u32) -> (New<Key4>, FlowHash, FlowHash) {
    let (addresses, ports) = (u64::from(number) << 32 | 0xc000_0201, u64::from(number as u16) << 24 | 53 << 8 | 17);
    let server = End4 { address: 0xac10_0000 | number, port: 53 };
    let status = Status { state: 0, flags: Flags::new(Method::Nat) };
    let (real, reply_path) = (RealId(number % 7), Path::NoRoute.bits());
    let (shifts, class) = (Some(Shifts::between4(End4 { address: 0xc000_0201, port: 53 }, server)), 0);
    let key = Key4 { addresses, ports, server };
    let new = New { key, real, service: number, status, timeout_s: 60, reply_path, shifts, class };
    (new, table.hash4(addresses, ports), key.answers(table))
}

/// A connection that owes a key is found by its client's flow, and by its answers once it has paid; the hash of these is
/// that of their flow. One that is ended before keeps its entry until then, and nothing is left of it.
#[test]
fn what_is_owed_is_paid_or_given_back() {
    let table = Table::new(1, HashKey::from_bytes([3; 32]));
    let (new, hash, answers) = owing(&table, 77);
    assert!(table.count(1));
    let id = table.insert4(&new, hash, true, NOW).unwrap();
    let conn = table.get(id).unwrap();
    let reply = Flow { protocol: conn.protocol(), src: conn.server(), dst: conn.client() };
    assert_eq!((table.hash(&conn.flow()), table.hash(&reply)), (hash, answers));
    assert!(lookup(&table, &conn.flow()).is_some() && lookup(&table, &reply).is_none());
    assert!(table.enter_answers(id, answers));
    assert!(lookup(&table, &reply).is_some_and(|(found, side)| found.id() == id && side == Side::Out));
    assert!(table.remove(&mut table.get(id).unwrap()));
    assert!(table.is_empty() && table.index.is_clear());

    assert!(table.count(1));
    let id = table.insert4(&new, hash, true, NOW).unwrap();
    let mut conn = table.get(id).unwrap();
    conn.update(|status| Status { state: 1, ..status });
    assert!(table.remove(&mut conn) && !table.remove(&mut conn));
    assert!(table.get(id).is_none() && lookup(&table, &conn.flow()).is_none());
    assert!(!table.count(1), "its entry is not free yet");
    assert!(table.enter_answers(id, answers), "nobody has to end it");
    assert!(table.is_empty() && table.index.is_clear());
    assert!(table.count(1) && table.insert4(&new, hash, false, NOW).is_ok());
}

/// The same of IPv6.
fn owing6(table: &Table, number: u32) -> (New<Key6>, FlowHash, FlowHash) {
    let (new, ..) = owing(table, number);
    let (high, ports) = (0x2001_0db8 << 32, new.key.ports);
    let (addresses, server) = ([high, number.into(), high, 0], ([high, 1 << 32 | u64::from(number)], 53));
    let key = Key6 { addresses, ports, server };
    let New { real, service, status, timeout_s, reply_path, class, .. } = new;
    let shifts = Some(Shifts::between6(([high, 0], 53), server));
    let new = New { key, real, service, status, timeout_s, reply_path, shifts, class };
    (new, table.key.hash6(addresses, ports), key.answers(table))
}

/// The table, if there is room for a connection more.
fn counted(table: &Table) -> Option<&Table> {
    table.count(1).then_some(table)
}

/// Connections of both families are made by two threads, which pay what they owe a little later, and ended by a third as
/// soon as it sees them: each ends once, and no key and no entry is lost.
#[test]
fn ends_and_debts_meet_in_any_order() {
    const ROUNDS: u32 = 300_000;
    let table = Table::new(24, HashKey::from_bytes([5; 32]));
    let (made, ended, left) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(2));
    let is_new = |client: Address, vip: Address, ports: u64, hash| {
        let (src, dst) = (Endpoint::new(client, (ports >> 24) as u16), Endpoint::new(vip, (ports >> 8) as u16));
        table.lookup(&Flow { protocol: Protocol::UDP, src, dst }, hash).is_none()
    };
    let make4 = |number| {
        let (new, hash, answers) = owing(&table, number);
        let [client, vip] =
            [new.key.addresses >> 32, new.key.addresses].map(|bits| Address::v4((bits as u32).to_be_bytes()));
        let id = is_new(client, vip, new.key.ports, hash).then(|| counted(&table)?.insert4(&new, hash, true, NOW).ok());
        id.flatten().map(|id| (id, answers))
    };
    let make6 = |number| {
        let (new, hash, answers) = owing6(&table, number);
        let [a, b, c, d] = new.key.addresses.map(u128::from);
        let [client, vip] = [a << 64 | b, c << 64 | d].map(Address::from_bits);
        let id = is_new(client, vip, new.key.ports, hash).then(|| counted(&table)?.insert6(&new, hash, true, NOW).ok());
        id.flatten().map(|id| (id, answers))
    };
    let maker = |thread: u32| {
        let mut owed = Vec::new();
        for round in 0..ROUNDS {
            let number = (thread << 16) | (round % 16);
            if let Some(debt) = if round & 16 == 0 { make4(number) } else { make6(number) } {
                made.fetch_add(1, Relaxed);
                owed.push(debt);
            }
            if owed.len() > 3 {
                assert!(owed.drain(..).all(|(id, answers)| table.enter_answers(id, answers)));
            }
        }
        assert!(owed.drain(..).all(|(id, answers)| table.enter_answers(id, answers)));
        left.fetch_sub(1, Relaxed);
    };
    let (maker, table) = (&maker, &table);
    std::thread::scope(|scope| {
        (1..3).for_each(|thread| drop(scope.spawn(move || maker(thread))));
        while left.load(Relaxed) > 0 || table.iter().next().is_some() {
            for mut conn in table.iter() {
                ended.fetch_add(table.remove(&mut conn).into(), Relaxed);
            }
        }
    });
    assert_eq!(made.load(Relaxed), ended.into_inner());
    assert!(table.is_empty() && table.index.is_clear());
    let take = |number: u32| {
        let hash = FlowHash(u64::from(number) << 40);
        assert!(table.count(1));
        match number % 2 {
            0 => table.insert4(&owing(table, number).0, hash, false, NOW).is_ok(),
            _ => table.insert6(&owing6(table, number).0, hash, false, NOW).is_ok(),
        }
    };
    assert!((0..24).all(take));
}
