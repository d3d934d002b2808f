//! Tests of a service: its list, its scheduler's state through changes, and what is never picked.

use super::*;
use crate::flow::Address;
use crate::real::{Generation, Method, Settings};

fn bench(scheduler: &str, servers: u32) -> (Arena, Service) {
    let arena = Arena::new(8, Generation::New);
    let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
    let service = Service::new(0, key, Builtin::from_name(scheduler).unwrap(), Policy::default());
    for id in (0..servers).map(RealId) {
        let endpoint = Endpoint::new(Address::v4([10, 0, 0, id.0 as u8]), 80);
        arena.get(id).reset(&Settings {
            endpoint,
            method: Method::Dr,
            tunnel: Default::default(),
            weight: 1,
            upper: 0,
            lower: 0,
        });
        service.add(&arena, id);
    }
    (arena, service)
}

fn picks(arena: &Arena, service: &Service, count: usize) -> Vec<Option<u32>> {
    let pick = || service.turn().pick(arena, &Request::default()).map(|id| id.0);
    (0..count).map(|_| pick()).collect()
}

/// The newest server stands first, and a removed one is out of the list and not available.
#[test]
fn the_newest_stands_first() {
    let (arena, service) = bench("rr", 3);
    assert_eq!(service.members(), [2, 1, 0].map(RealId));
    assert_eq!(picks(&arena, &service, 4), [2, 1, 0, 2].map(Some));
    service.remove(&arena, RealId(1));
    assert!(!arena.get(RealId(1)).is_available());
    assert_eq!(picks(&arena, &service, 3), [0, 2, 0].map(Some));
    service.remove(&arena, RealId(1));
    assert_eq!(service.members(), [2, 0].map(RealId), "removing twice is removing once");
}

/// A preview tells what the next pick will be, and changes nothing.
#[test]
fn a_preview_changes_nothing() {
    for scheduler in Builtin::NAMES {
        let (arena, service) = bench(scheduler, 3);
        for _ in 0..7 {
            let preview = service.preview(&arena, &Request::default());
            assert_eq!(preview, service.preview(&arena, &Request::default()));
            let picked = service.turn().pick(&arena, &Request::default());
            assert_eq!(preview, picked);
            arena.get(picked.unwrap()).bind();
        }
    }
}

/// Editing a service keeps its scheduler's state if the name is the same, and starts afresh if not.
#[test]
fn an_edit_keeps_the_state_of_the_same_scheduler() {
    let (arena, service) = bench("rr", 3);
    assert_eq!(picks(&arena, &service, 2), [2, 1].map(Some));
    service.edit(&arena, Builtin::from_name("rr").unwrap(), Policy { flags: 1, ..Policy::default() });
    assert_eq!(picks(&arena, &service, 1), [Some(0)]);
    service.edit(&arena, Builtin::from_name("wrr").unwrap(), Policy::default());
    assert_eq!(service.scheduler_name(), "wrr");
    assert_eq!(picks(&arena, &service, 3), [2, 1, 0].map(Some));
}

/// A scheduler hears of a changed weight before it picks again.
#[test]
fn a_quiesced_server_is_not_picked() {
    for scheduler in Builtin::NAMES {
        let (arena, service) = bench(scheduler, 2);
        let real = arena.get(RealId(1));
        let mut settings = Settings {
            endpoint: real.endpoint(),
            method: Method::Dr,
            tunnel: Default::default(),
            weight: 0,
            upper: 0,
            lower: 0,
        };
        service.change(&arena, RealId(1), || real.set(&settings));
        // A hash may lead to the quiesced server, and then there is none.
        let other = if matches!(*scheduler, "dh" | "sh" | "mh") { None } else { Some(0) };
        assert_eq!(picks(&arena, &service, 3), [other; 3], "{scheduler}");
        service.remove(&arena, RealId(0));
        assert_eq!(picks(&arena, &service, 2), [None; 2], "{scheduler}");
        settings.weight = 2;
        service.change(&arena, RealId(1), || real.set(&settings));
        assert_eq!(picks(&arena, &service, 2), [Some(1); 2], "{scheduler}");
    }
}
