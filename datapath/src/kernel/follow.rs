//! How a view follows the kernel: messages and fresh dumps in, changes out.
//!
//! Invariant: an event is emitted exactly if the view changed, and the events applied to the old view give the new one.
//! Pure; who reads the messages, and again what a message does not tell, is `mirror`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::address::Address;
use super::decode::Message;
use super::link::Link;
use super::neighbour::Neighbour;
use super::route::{Route, RouteKind};
use super::table::{Forgotten, Learned, Routes};
use super::view::View;

/// A change of the view, after it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new or changed.
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address is new or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route is new. A changed route is a new one and a gone one.
    Route(Route),
    /// A route is gone.
    RouteGone(Route),
    /// A neighbour is new or changed: see its state.
    Neighbour(Neighbour),
    /// The kernel forgot a neighbour.
    NeighbourGone {
        /// Index of the link.
        link: u32,
        /// Its IP address.
        address: IpAddr,
    },
    /// Events were lost; what follows are the differences between before and now.
    Resynced,
}

/// What has to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stale {
    Nothing,
    Routes,
    Everything,
}

/// Applies one message to the view; tells what has to be read again because of it.
pub(super) fn apply(view: &mut View, message: Message, events: &mut Vec<Event>) -> Stale {
    match message {
        Message::Link(link) => {
            let old = view.links.insert(link.index, link.clone());
            let was = old.as_ref().map(|old| (old.up, old.running));
            let is = (link.up, link.running);
            if old.as_ref() != Some(&link) {
                events.push(Event::Link(link));
            }
            if was.is_some_and(|was| was != is) { Stale::Routes } else { Stale::Nothing }
        }
        Message::LinkGone(index) => forget_link(view, index, events),
        Message::Address(address) => {
            let old = view.addresses.insert((address.link, address.address, address.prefix), address.clone());
            if old.as_ref() != Some(&address) {
                events.push(Event::Address(address));
            }
            Stale::Nothing
        }
        Message::AddressGone(address) => {
            if let Some(old) = view.addresses.remove(&(address.link, address.address, address.prefix)) {
                events.push(Event::AddressGone(old));
            }
            if may_take_routes(view, &address) { Stale::Routes } else { Stale::Nothing }
        }
        Message::Route { route, replace } => match view.routes.learn(route.clone(), replace) {
            Learned::Known => Stale::Nothing,
            Learned::Added => {
                events.push(Event::Route(route));
                Stale::Nothing
            }
            Learned::Replaced(old) => {
                events.extend([Event::RouteGone(*old), Event::Route(route)]);
                Stale::Nothing
            }
            Learned::Ambiguous => Stale::Routes,
        },
        Message::RouteGone(route) => match view.routes.forget(&route) {
            Forgotten::Unknown => Stale::Nothing,
            Forgotten::Removed(old) => {
                events.push(Event::RouteGone(*old));
                Stale::Nothing
            }
            Forgotten::Ambiguous => Stale::Routes,
        },
        Message::Neighbour(neighbour) => {
            let old = view.neighbours.insert((neighbour.link, neighbour.address), neighbour.clone());
            if old.as_ref() != Some(&neighbour) {
                events.push(Event::Neighbour(neighbour));
            }
            Stale::Nothing
        }
        Message::NeighbourGone { link, address } => {
            if view.neighbours.remove(&(link, address)).is_some() {
                events.push(Event::NeighbourGone { link, address });
            }
            Stale::Nothing
        }
        Message::Nexthops => Stale::Routes,
        Message::Ignored | Message::Malformed => Stale::Nothing,
    }
}

/// Does the kernel perhaps remove routes with this address without a word? Those of a network; those that start from the
/// address; and all of a link that has lost its last one. A virtual address among thousands takes none but its own, which
/// is announced.
fn may_take_routes(view: &View, gone: &Address) -> bool {
    let is_own = |route: &Route| {
        route.kind == RouteKind::Local && (route.destination, route.prefix) == (gone.address, gone.prefix)
    };
    let is_left = |other: &Address| other.address.is_ipv4() == gone.address.is_ipv4();
    !gone.is_host()
        || !view.addresses_of(gone.link).any(is_left)
        || view.routes.iter().any(|route| route.source == Some(gone.address) && !is_own(route))
}

/// Takes a link out of the view, with what hangs on it: its index may soon mean another link.
fn forget_link(view: &mut View, index: u32, events: &mut Vec<Event>) -> Stale {
    let Some(link) = view.links.remove(&index) else { return Stale::Nothing };
    // The kernel sends these before the link's own end; this is for the case that it does not.
    let addresses: Vec<Address> = view.addresses_of(index).cloned().collect();
    for address in addresses {
        view.addresses.remove(&(address.link, address.address, address.prefix));
        events.push(Event::AddressGone(address));
    }
    view.neighbours.retain(|(link, address), _| {
        if *link == index {
            events.push(Event::NeighbourGone { link: index, address: *address });
        }
        *link != index
    });
    events.push(Event::LinkGone(link));
    Stale::Routes
}

/// Puts freshly read routes in place of the known ones.
pub(super) fn replace_routes(view: &mut View, routes: Routes, events: &mut Vec<Event>) {
    let (gone, added) = Routes::difference(&view.routes, &routes);
    events.extend(gone.into_iter().map(Event::RouteGone));
    events.extend(added.into_iter().map(Event::Route));
    view.routes = routes;
}

/// Puts a freshly read state in place of the known one. What others refer to comes first: links before addresses before
/// routes before neighbours; what is gone goes in the opposite order.
pub(super) fn replace_view(view: &mut View, new: View, events: &mut Vec<Event>) {
    for key in view.neighbours.keys().filter(|key| !new.neighbours.contains_key(key)) {
        events.push(Event::NeighbourGone { link: key.0, address: key.1 });
    }
    let gone = missing(&view.addresses, &new.addresses);
    events.extend(gone.into_iter().map(Event::AddressGone));
    let links_gone: Vec<Event> = missing(&view.links, &new.links).into_iter().map(Event::LinkGone).collect();
    events.extend(changed(&view.links, &new.links).into_iter().map(Event::Link));
    events.extend(changed(&view.addresses, &new.addresses).into_iter().map(Event::Address));
    let View { links, addresses, routes, neighbours } = new;
    replace_routes(view, routes, events);
    for (key, neighbour) in &neighbours {
        if view.neighbours.get(key) != Some(neighbour) {
            events.push(Event::Neighbour(neighbour.clone()));
        }
    }
    events.extend(links_gone);
    view.links = links;
    view.addresses = addresses;
    view.neighbours = neighbours;
}

/// The values of `old` whose keys `new` does not have.
fn missing<Key: Ord, Value: Clone>(old: &BTreeMap<Key, Value>, new: &BTreeMap<Key, Value>) -> Vec<Value> {
    old.iter().filter(|(key, _)| !new.contains_key(key)).map(|(_, value)| value.clone()).collect()
}

/// The values of `new` that `old` does not have, or has otherwise.
fn changed<Key: Ord, Value: Clone + PartialEq>(old: &BTreeMap<Key, Value>, new: &BTreeMap<Key, Value>) -> Vec<Value> {
    new.iter().filter(|(key, value)| old.get(key) != Some(value)).map(|(_, value)| value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::neighbour::NeighbourState;

    fn link(index: u32, up: bool) -> Link {
        Link { index, name: format!("eth{index}"), up, running: up, ethernet: true, ..Link::default() }
    }

    fn address(link: u32, last: u8) -> Address {
        Address {
            link,
            address: IpAddr::from([10, 0, 0, last]),
            prefix: 24,
            scope: 0,
            secondary: false,
            tentative: false,
            deprecated: false,
        }
    }

    fn route(last: u8, metric: u32) -> Route {
        Route {
            table: 254,
            destination: IpAddr::from([10, 0, 0, last]),
            prefix: 32,
            tos: 0,
            metric,
            kind: RouteKind::Blackhole,
            source: None,
            mtu: None,
            protocol: 4,
            hops: Vec::new(),
            nexthop_object: None,
        }
    }

    fn neighbour(link: u32, last: u8, mac: Option<u8>) -> Neighbour {
        Neighbour {
            link,
            address: IpAddr::from([10, 0, 0, last]),
            mac: mac.map(|last| [2, 0, 0, 0, 0, last]),
            state: if mac.is_some() { NeighbourState::Reachable } else { NeighbourState::Failed },
        }
    }

    /// What a consumer who only sees events would believe.
    fn believe(view: &mut View, events: &[Event]) {
        for event in events.iter().cloned() {
            match event {
                Event::Link(link) => drop(view.links.insert(link.index, link)),
                Event::LinkGone(link) => assert!(view.links.remove(&link.index).is_some()),
                Event::Address(own) => drop(view.addresses.insert((own.link, own.address, own.prefix), own)),
                Event::AddressGone(own) => {
                    assert!(view.addresses.remove(&(own.link, own.address, own.prefix)).is_some());
                }
                Event::Route(route) => view.routes.insert(route),
                Event::RouteGone(route) => assert!(matches!(view.routes.forget(&route), Forgotten::Removed(_))),
                Event::Neighbour(entry) => drop(view.neighbours.insert((entry.link, entry.address), entry)),
                Event::NeighbourGone { link, address } => {
                    assert!(view.neighbours.remove(&(link, address)).is_some());
                }
                Event::Resynced => {}
            }
        }
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let mac = prop_oneof![Just(None), (1_u8..3).prop_map(Some)];
        prop_oneof![
            (1_u32..4, any::<bool>()).prop_map(|(index, up)| Message::Link(link(index, up))),
            (1_u32..4).prop_map(Message::LinkGone),
            (1_u32..4, 1_u8..4).prop_map(|(link, last)| Message::Address(address(link, last))),
            (1_u32..4, 1_u8..4).prop_map(|(link, last)| Message::AddressGone(address(link, last))),
            (1_u8..4, 1_u32..3)
                .prop_map(|(last, metric)| Message::Route { route: route(last, metric), replace: false }),
            (1_u8..4, 1_u32..3).prop_map(|(last, metric)| Message::RouteGone(route(last, metric))),
            (1_u32..4, 1_u8..4, mac).prop_map(|(link, last, mac)| Message::Neighbour(neighbour(link, last, mac))),
            (1_u32..4, 1_u8..4)
                .prop_map(|(link, last)| Message::NeighbourGone { link, address: IpAddr::from([10, 0, 0, last]) }),
        ]
    }

    /// Guards the kernel's silent removals: these events must lead to the routes being read again.
    #[test]
    fn events_that_remove_routes_silently_are_recognised() {
        let mut view = View::default();
        let mut tell = |message| apply(&mut view, message, &mut Vec::new());
        assert_eq!(tell(Message::Link(link(1, true))), Stale::Nothing);
        assert_eq!(tell(Message::Link(Link { mtu: 9000, ..link(1, true) })), Stale::Nothing);
        assert_eq!(tell(Message::Link(link(1, false))), Stale::Routes);
        assert_eq!(tell(Message::Address(address(1, 1))), Stale::Nothing);
        assert_eq!(tell(Message::AddressGone(address(1, 1))), Stale::Routes);
        let host = |last| Address { prefix: 32, ..address(1, last) };
        for own in [address(1, 1), host(2), host(3)] {
            tell(Message::Address(own));
        }
        assert_eq!(tell(Message::AddressGone(host(3))), Stale::Nothing, "others are left");
        assert_eq!(tell(Message::AddressGone(address(1, 1))), Stale::Routes, "a network goes");
        assert_eq!(tell(Message::AddressGone(host(2))), Stale::Routes, "none is left");
        assert_eq!(tell(Message::LinkGone(1)), Stale::Routes);
        assert_eq!(tell(Message::Nexthops), Stale::Routes);
    }

    proptest! {
        /// Guards the invariant for messages: who applies the events has the view, and nothing is said twice.
        #[test]
        fn events_of_messages_tell_the_whole_story(messages in proptest::collection::vec(any_message(), 0..40)) {
            let mut view = View::default();
            let mut believed = View::default();
            for message in messages {
                let before = view.clone();
                let mut events = Vec::new();
                apply(&mut view, message, &mut events);
                prop_assert_eq!(events.is_empty(), before == view);
                believe(&mut believed, &events);
                prop_assert_eq!(&believed, &view);
            }
        }

        /// Guards the invariant for a fresh dump, whatever was before.
        #[test]
        fn events_of_a_dump_tell_the_whole_story(
            before in proptest::collection::vec(any_message(), 0..30),
            after in proptest::collection::vec(any_message(), 0..30),
        ) {
            let build = |messages: Vec<Message>| {
                let mut view = View::default();
                for message in messages {
                    apply(&mut view, message, &mut Vec::new());
                }
                view
            };
            let (mut view, new) = (build(before), build(after));
            let mut believed = view.clone();
            let mut events = Vec::new();
            replace_view(&mut view, new.clone(), &mut events);
            prop_assert_eq!(&view, &new);
            believe(&mut believed, &events);
            prop_assert_eq!(&believed, &new);
        }
    }
}
