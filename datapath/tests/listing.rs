//! Listings of all services that are made a piece at a time, while rules change between the pieces.
//!
//! Real engine, real connections, no root.

mod frames;
mod rules;

use xvs::control::protocol::{Method, Stats};
use xvs_engine::engine::Verdict;
use xvs_engine::hop::Port;

use rules::*;

const VIPS: [&str; 4] = ["192.0.2.1:80", "192.0.2.1:81", "192.0.2.1:82", "192.0.2.1:83"];
const LATE: &str = "192.0.2.1:84";

/// Four services with a server and a connection each.
fn site() -> Site {
    let mut site = Site::new(16);
    for (number, vip) in VIPS.iter().enumerate() {
        site.change(add_service(vip));
        site.change(add(vip, &format!("10.0.0.{}:80", number + 1), Method::Nat));
        assert_eq!(site.connect("198.51.100.7:40000", vip), Verdict::Transmit(Port(0)));
    }
    site
}

/// Goes on with a listing, by pieces of so many servers; the addresses that it has, and its totals.
fn finish(site: &mut Site, servers: usize) -> (Vec<String>, Stats) {
    loop {
        if let Some((services, totals)) = site.book.go_on_listing(servers, |_| String::new()) {
            let ids = services.iter().map(|service| service.spec.id);
            let known = VIPS.iter().copied().chain([LATE]);
            let name = |id| known.clone().find(|vip| tcp(vip) == id).expect("one of ours").to_owned();
            return (ids.map(name).collect(), totals);
        }
    }
}

/// Guards listings beside changes: a service that stays is listed once, one that comes meanwhile too, and the totals have the
/// connections of each service once, whether it went before its turn, after it, or not at all.
#[test]
fn a_listing_in_pieces_is_whole() {
    let mut site = site();
    site.book.begin_listing();
    assert!(site.book.go_on_listing(4, |_| String::new()).is_none(), "two services are a piece");
    site.change(delete_service(VIPS[0]));
    site.change(delete_service(VIPS[2]));
    site.change(add_service(LATE));
    let (listed, totals) = finish(&mut site, 1);
    assert_eq!(listed, [VIPS[0], VIPS[1], VIPS[3], LATE], "the first one was there when its turn came");
    assert_eq!(totals.conns, 4);
    assert!(!site.book.is_listing());
}

/// Guards a listing that another one overtakes: that begins anew, and has what was changed before it.
#[test]
fn a_new_listing_begins_anew() {
    let mut site = site();
    site.book.begin_listing();
    assert!(site.book.go_on_listing(4, |_| String::new()).is_none());
    site.change(delete_service(VIPS[0]));
    site.book.begin_listing();
    let (listed, totals) = finish(&mut site, usize::MAX);
    assert_eq!(listed, VIPS[1..]);
    assert_eq!(totals.conns, 4);
}
