//! A scheduler outside the engine at work: its word is advice, and every connection is served whatever it says.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex};

use common::packet::*;
use common::site::*;
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::{Arena, Method, RealId};
use xvs_engine::sched::guest::{Advice, Guest, Opinion, Site as List};
use xvs_engine::service::{Persistence, Policy};
use xvs_engine::wire::Packet;
use xvs_sdk::{Change, Request};

/// Says what it is told to say, and remembers what it was told.
#[derive(Debug)]
struct Parrot {
    says: Mutex<Advice>,
    is_active: AtomicBool,
    version: Mutex<u64>,
    asked: Mutex<Vec<Request>>,
    heard: Mutex<Vec<Option<RealId>>>,
    changes: Mutex<Vec<(Change, Vec<RealId>)>>,
    overruled: AtomicU32,
    /// Whom it waits for before it answers.
    others: Option<Barrier>,
}

impl Parrot {
    fn new(says: Advice, others: Option<Barrier>) -> Arc<Parrot> {
        Arc::new(Parrot {
            says: says.into(),
            is_active: true.into(),
            version: Mutex::default(),
            asked: Mutex::default(),
            heard: Mutex::default(),
            changes: Mutex::default(),
            overruled: AtomicU32::default(),
            others,
        })
    }

    fn say(&self, advice: Advice) {
        *self.says.lock().unwrap() = advice;
    }
}

impl Guest for Parrot {
    fn is_active(&self) -> bool {
        self.is_active.load(Relaxed)
    }
    fn advise(&self, _arena: &Arena, request: &Request) -> Opinion {
        self.asked.lock().unwrap().push(*request);
        if let Some(others) = &self.others {
            others.wait();
        }
        Opinion { advice: *self.says.lock().unwrap(), version: *self.version.lock().unwrap(), listens: true }
    }
    fn hear(&self, _arena: &Arena, _request: &Request, chosen: Option<RealId>) {
        self.heard.lock().unwrap().push(chosen);
    }
    fn overruled(&self, _request: &Request) {
        self.overruled.fetch_add(1, Relaxed);
    }
    fn changed(&self, site: &List<'_>, change: Change) {
        *self.version.lock().unwrap() = site.version;
        self.changes.lock().unwrap().push((change, site.members.to_vec()));
    }
    fn preview(&self, _site: &List<'_>, _request: &Request) -> Advice {
        *self.says.lock().unwrap()
    }
}

/// A site whose service has three servers by rr and this guest.
fn site(guest: &Arc<Parrot>, policy: Policy) -> Site {
    let mut site = Site::new(1 << 12);
    let service = site.add_service_with(Protocol::TCP, VIP4, "rr", policy);
    assert!(site.services[service].set_guest(guest.clone()));
    for last in 1..=3 {
        site.add_real(service, &format!("10.0.0.{last}:80"), Method::Dr);
    }
    site
}

fn syn(port: u16) -> Vec<u8> {
    from_client(&tcp(&format!("198.51.100.7:{port}"), VIP4, SYN).bytes())
}

/// The last byte of the server's MAC that a connection's first packet goes to; none if it is refused with an ICMP error.
fn goes_to(site: &Site, port: u16) -> Option<u8> {
    match site.forward(&syn(port)) {
        (Verdict::Transmit(SERVERS), bytes) => Some(bytes[5]),
        (Verdict::Reflect, _) => None,
        (verdict, _) => panic!("{verdict:?}"),
    }
}

/// What it names is taken; what it leaves, the native scheduler serves, and it hears of each; nobody means nobody; a
/// guest that is not active is not asked at all.
#[test]
fn its_advice_is_taken() {
    let parrot = Parrot::new(Advice::Real(RealId(1)), None);
    let site = site(&parrot, Policy::default());
    assert_eq!([1, 2].map(|port| goes_to(&site, port)), [Some(2), Some(2)]);
    parrot.say(Advice::Native);
    assert_eq!([3, 4, 5].map(|port| goes_to(&site, port)), [Some(3), Some(2), Some(1)], "rr's own order");
    parrot.say(Advice::Nobody);
    assert_eq!(goes_to(&site, 6), None);
    let heard = [Some(1), Some(1), Some(2), Some(1), Some(0), None].map(|number| number.map(RealId));
    assert_eq!(*parrot.heard.lock().unwrap(), heard);
    parrot.is_active.store(false, Relaxed);
    assert_eq!(goes_to(&site, 7), Some(3));
    assert_eq!(parrot.asked.lock().unwrap().len(), 6);
}

/// It is told all of a request: flags, service, family and where the packet came in.
#[test]
fn it_is_told_the_whole_request() {
    let parrot = Parrot::new(Advice::Native, None);
    let mut site = site(&parrot, Policy { flags: 5, ..Policy::default() });
    let second = site.another_engine();
    second.arrive_on(1);
    let _ = site.forward_by(&second, &syn(9));
    let request = parrot.asked.lock().unwrap()[0];
    assert_eq!((request.flags, request.service, request.mark, request.family), (5, 0, 0, 4));
    assert_eq!((request.interface, request.queue, request.client_port, request.virtual_port), (1, 1, 9, 80));
    assert_eq!((request.protocol, request.now_ms), (6, 1_000_000));
    assert_eq!(request.client[10..], [0xff, 0xff, 198, 51, 100, 7]);
}

/// A server that is quiesced, at its threshold, removed, or another service's is not taken, whatever version of the
/// list it knows: the native scheduler serves the same connection.
#[test]
fn a_server_that_can_not_serve_is_not_taken() {
    let parrot = Parrot::new(Advice::Real(RealId(2)), None);
    let mut site = site(&parrot, Policy::default());
    let arena = &site.shared.arena;
    site.services[0].remove(arena, RealId(2));
    assert_eq!(goes_to(&site, 1), Some(2), "removed");
    let real = arena.get(RealId(1));
    let mut settings = xvs_engine::real::Settings {
        endpoint: real.endpoint(),
        method: Method::Dr,
        tunnel: Default::default(),
        weight: 0,
        upper: 0,
        lower: 0,
    };
    site.services[0].change(arena, RealId(1), || real.set(&settings));
    parrot.say(Advice::Real(RealId(1)));
    assert_eq!(goes_to(&site, 2), Some(1), "quiesced");
    (settings.weight, settings.upper) = (1, 1);
    site.services[0].change(arena, RealId(1), || real.set(&settings));
    assert_eq!(goes_to(&site, 3), Some(1), "at its threshold: one connection is there from before");
    let other = site.add_service(Protocol::TCP, "192.0.2.9:80", "rr");
    let foreign = site.add_real(other, "10.0.0.9:80", Method::Dr);
    parrot.say(Advice::Real(foreign));
    *parrot.version.lock().unwrap() -= 1;
    assert_eq!(goes_to(&site, 4), Some(1), "another service's");
    assert_eq!(parrot.overruled.load(Relaxed), 4);
}

/// It hears of every change of the list after it, in order.
#[test]
fn it_hears_of_every_change() {
    let parrot = Parrot::new(Advice::Native, None);
    let site = site(&parrot, Policy::default());
    let arena = &site.shared.arena;
    site.services[0].change(arena, RealId(0), || ());
    site.services[0].remove(arena, RealId(1));
    site.services[0].remove(arena, RealId(1));
    let ids = |numbers: &[u32]| numbers.iter().map(|&number| RealId(number)).collect::<Vec<_>>();
    let expected = [
        (Change::Added(0), ids(&[0])),
        (Change::Added(0), ids(&[1, 0])),
        (Change::Added(0), ids(&[2, 1, 0])),
        (Change::Edited(2), ids(&[2, 1, 0])),
        (Change::Removed(1), ids(&[2, 0])),
    ];
    assert_eq!(*parrot.changes.lock().unwrap(), expected);
}

/// While it is asked the service is not locked; a connection whose first packet two workers have at once is entered
/// once all the same, and a client whose two first connections they have gets one template.
#[test]
fn two_workers_at_once_make_one_connection_and_one_template() {
    let persistence = Persistence { timeout_s: 60, mask: u128::MAX };
    let by_both_ways = |(policy, ports)| [(policy, ports, true), (policy, ports, false)];
    let cases = [
        (Policy::default(), [1, 1]),
        (Policy { persistence: Some(persistence), ..Policy::default() }, [1, 1]),
        (Policy { persistence: Some(persistence), ..Policy::default() }, [1, 2]),
    ];
    for (policy, ports, fast) in cases.into_iter().flat_map(by_both_ways) {
        // Both must have asked before either is answered.
        let parrot = Parrot::new(Advice::Native, Some(Barrier::new(2)));
        let mut site = site(&parrot, policy);
        // An engine is one worker's own: it moves into its thread.
        let engines = [site.another_engine(), site.another_engine()];
        let now = site.now;
        let servers: HashSet<u8> = std::thread::scope(|scope| {
            let threads = engines.into_iter().zip(ports.map(syn)).map(|(engine, frame)| {
                scope.spawn(move || {
                    let mut chunk = [0u8; 512];
                    chunk[256..256 + frame.len()].copy_from_slice(&frame);
                    let mut packet = Packet::new(&mut chunk, 256, 256 + frame.len()).unwrap();
                    engine.begin_batch();
                    let verdict = match fast {
                        true => engine.forward_seen(&mut packet, &engine.glance(&frame).unwrap(), now),
                        false => engine.forward(&mut packet, engine.inspect(&frame).unwrap(), now),
                    };
                    assert_eq!(verdict, Verdict::Transmit(SERVERS));
                    packet.bytes()[5]
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(servers.len(), 1, "{ports:?}");
        let conns: Vec<_> = site.shared.table.iter().collect();
        let distinct = HashSet::from(ports).len();
        let templates = conns.iter().filter(|conn| conn.is_template()).count();
        assert_eq!(conns.len() - templates, distinct, "{ports:?}");
        assert_eq!(templates, usize::from(policy.persistence.is_some()), "{ports:?}");
        let total: u32 = (0..3).map(|id| site.counts(RealId(id))).map(|(active, inactive)| active + inactive).sum();
        assert_eq!(total as usize, distinct, "{ports:?}");
    }
}

/// A preview goes by its advice, if that could be taken, and changes nothing.
#[test]
fn a_preview_asks_it_too() {
    let parrot = Parrot::new(Advice::Real(RealId(0)), None);
    let site = site(&parrot, Policy::default());
    assert!(site.services[0].asks_guest());
    let preview = || site.services[0].preview(&site.shared.arena, &Request::default());
    assert_eq!(preview(), Some(RealId(0)));
    parrot.say(Advice::Nobody);
    assert_eq!(preview(), None);
    parrot.say(Advice::Native);
    assert_eq!([preview(), preview()], [Some(RealId(2)); 2]);
    assert!(parrot.asked.lock().unwrap().is_empty());
}
