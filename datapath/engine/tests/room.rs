//! Room in the table for the new connections of a batch, which a worker counts for several at a time.

mod common;

use common::packet::*;
use common::site::*;
use xvs_engine::drop::DropReason;
use xvs_engine::engine::{Candidate, Engine, Tally, Verdict};
use xvs_engine::flow::Protocol;
use xvs_engine::real::Method;
use xvs_engine::rings::memory::HEADROOM;
use xvs_engine::wire::Packet;

/// A site with room for so many connections, and a service for datagrams, whose connections give way to no other.
fn site(connections: u32) -> Site {
    let mut site = Site::new(connections);
    let service = site.add_service(Protocol::UDP, VIP4, "rr");
    site.add_real(service, "10.0.0.1:53", Method::Nat);
    site
}

/// First packets of clients with these ports in one batch; tells how many were sent. `inside` sees the table before its end.
fn batch(site: &Site, engine: &Engine, ports: std::ops::Range<u16>, inside: impl FnOnce(u32)) -> usize {
    let frames = ports.map(|port| from_client(&udp(&format!("198.51.100.1:1{port:03}"), VIP4, &[7; 18]).bytes()));
    let frames: Vec<Vec<u8>> = frames.collect();
    engine.begin_batch();
    let mut candidates: Vec<Candidate> = frames.iter().map(|frame| engine.glance(frame).unwrap()).collect();
    engine.guess(&mut candidates);
    let verdicts = frames.iter().zip(&candidates).map(|(frame, candidate)| {
        let mut chunk = vec![0; 4096];
        chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let mut packet = Packet::new(&mut chunk, HEADROOM, HEADROOM + frame.len()).unwrap();
        engine.forward_seen(&mut packet, candidate, site.now)
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    assert!(
        verdicts.iter().all(|verdict| [Verdict::Transmit(SERVERS), dropped(DropReason::TableFull)].contains(verdict))
    );
    inside(site.shared.table.len());
    engine.settle_tally(Tally::default());
    verdicts.iter().filter(|verdict| **verdict == Verdict::Transmit(SERVERS)).count()
}

/// Guards the count of connections, which is all that keeps the table from being overfilled, and what others may have of it:
/// after each batch it is that of the entries, whatever the batch before was like, and what is counted for nothing in
/// between is never more than that one had.
#[test]
fn what_is_counted_for_a_batch_is_taken_back() {
    let mut site = site(16);
    let other = site.another_engine();
    let len = || site.shared.table.len();
    let own = &site.engine;
    assert_eq!(batch(&site, own, 1..5, |len| assert_eq!(len, 4)), 4);
    assert_eq!(len(), 4);
    // As many are expected as came before, but one did.
    assert_eq!(batch(&site, own, 5..6, |len| assert_eq!(len, 8, "one and three that may come")), 1);
    assert_eq!(len(), 5);
    assert_eq!(batch(&site, own, 6..6, |len| assert_eq!(len, 5)), 0);
    assert_eq!(batch(&site, own, 6..12, |_| ()), 6);
    assert_eq!(batch(&site, &other, 12..15, |_| ()), 3);
    assert_eq!((len(), site.shared.table.iter().count()), (14, 14));
    // There is room for two, and not for the six that are expected.
    assert_eq!(batch(&site, own, 15..20, |len| assert_eq!(len, 16)), 2);
    assert_eq!(batch(&site, &other, 20..23, |len| assert_eq!(len, 16)), 0);
    assert_eq!((len(), site.shared.table.iter().count()), (16, 16));
    // And when they have ended, for all again.
    site.pass_seconds(400);
    assert_eq!(site.shared.table.len(), 0);
    assert_eq!(batch(&site, &other, 1..17, |_| ()), 16);
    assert_eq!(batch(&site, &site.engine, 17..18, |len| assert_eq!(len, 16)), 0);
}
