//! Many changes in one request: the same outcomes and the same rules as one after the other, and fewer snapshots.

mod frames;
mod rules;

use proptest::prelude::*;
use xvs::control::answer::answer;
use xvs::control::protocol::{Action, Answer, Method, Outcome, RefusalKind, SchedFlags};

use rules::*;

const WEB: &str = "192.0.2.1:80";
const MAIL: &str = "192.0.2.1:25";
const VIPS: [&str; 4] = [WEB, MAIL, "192.0.2.2:21", "192.0.2.3:443"];
const ONE: &str = "10.0.0.1:80";
const TWO: &str = "10.0.0.2:80";

/// Carries them out together.
fn many(site: &mut Site, actions: Vec<Action>) -> Vec<Outcome> {
    match answer(&mut site.scene(), Action::Many(actions)) {
        Ok(Answer::Many(outcomes)) => outcomes,
        other => panic!("{other:?}"),
    }
}

/// Carries them out one after the other.
fn each(site: &mut Site, actions: Vec<Action>) -> Vec<Outcome> {
    let one = |action| answer(&mut site.scene(), action).map_or_else(Outcome::Refused, Outcome::Ok);
    actions.into_iter().map(one).collect()
}

/// What the workers know, of what the book has.
fn known(site: &Site) -> Vec<bool> {
    let entries = site.book.entries();
    let mut known: Vec<bool> = entries.map(|entry| site.world.services.get(entry.service.key).is_some()).collect();
    known.push(known.len() == site.world.services.len());
    known
}

fn action() -> impl Strategy<Value = Action> {
    let vip = || prop::sample::select(VIPS.to_vec());
    // No method whose keys compete with those of services for the last room.
    let server = || prop::sample::select(vec![ONE, TWO, "10.0.0.3:0"]);
    let scheduler = prop::sample::select(vec!["rr", "wlc", "nosuch"]);
    let named = |scheduler: &str, vip: &str| {
        let flags = SchedFlags::default();
        xvs::control::protocol::ServiceSpec { scheduler: scheduler.into(), flags, ..service(vip) }
    };
    prop_oneof![
        6 => (scheduler.clone(), vip()).prop_map(move |(scheduler, vip)| Action::AddService(named(scheduler, vip))),
        6 => (vip(), server()).prop_map(|(vip, real)| add(vip, real, Method::Dr)),
        2 => (vip(), server()).prop_map(|(vip, real)| edit(vip, real, Method::Dr)),
        2 => (vip(), server()).prop_map(|(vip, real)| delete(vip, real)),
        2 => vip().prop_map(delete_service),
        1 => (scheduler, vip()).prop_map(move |(scheduler, vip)| Action::EditService(named(scheduler, vip))),
        1 => vip().prop_map(|vip| Action::Zero(Some(tcp(vip)))),
        1 => vip().prop_map(|vip| Action::Services(Some(tcp(vip)))),
        1 => Just(Action::Flush),
        1 => Just(Action::Status),
    ]
}

proptest! {
    /// Guards a restore: whatever it asks for, mistakes and a full map included, each line comes to what it would come to by
    /// itself, and the rules, what is steered and what the workers know are the same afterwards.
    #[test]
    fn together_is_as_one_after_the_other(
        batches in prop::collection::vec(prop::collection::vec(action(), 0..20), 1..5),
        room in 1usize..5,
    ) {
        let mut sites = [Site::new(64), Site::new(64)];
        sites.iter_mut().for_each(|site| site.world.room = room);
        let [together, apart] = &mut sites;
        for actions in batches {
            prop_assert_eq!(many(together, actions.clone()), each(apart, actions.clone()), "{:?}", actions);
            prop_assert_eq!(together.rules(), apart.rules(), "{:?}", actions);
            prop_assert_eq!(known(together), vec![true; known(together).len()]);
            // What has no room is tried again by itself.
            prop_assert!(room < VIPS.len() || together.world.published <= apart.world.published);
        }
    }
}

/// Guards the time of a restore: the workers hear once of a thousand services, and once more of what takes one away.
#[test]
fn a_row_of_services_makes_one_snapshot() {
    let mut site = Site::new(4096);
    let service = |number: u32| format!("192.0.{}.{}:80", number >> 8, number & 255);
    let rules = |number| [add_service(&service(number)), add(&service(number), ONE, Method::Nat)];
    let outcomes = many(&mut site, (0..1000).flat_map(rules).collect());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ok(Answer::Done))));
    assert_eq!((site.world.published, site.world.services.len()), (1, 1000));
    many(&mut site, vec![add_service(MAIL), delete_service(MAIL), add_service(MAIL), add(MAIL, ONE, Method::Dr)]);
    assert_eq!((site.world.published, site.world.services.len()), (4, 1001));
}

/// Guards a request against itself: many among many would make a line of 64 MiB a recursion without a bottom.
#[test]
fn many_do_not_stand_among_many() {
    let mut site = Site::new(4);
    let outcomes = many(&mut site, vec![Action::Many(vec![add_service(WEB)]), add_service(MAIL)]);
    assert!(matches!(&outcomes[0], Outcome::Refused(refusal) if refusal.kind == RefusalKind::Invalid));
    assert_eq!((outcomes.len(), site.world.services.len()), (2, 1));
}
