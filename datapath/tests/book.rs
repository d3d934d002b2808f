//! The rules in force: IPVS's semantics of services and servers (IPVS-REFERENCE 1), what is steered when, and that a
//! refused change leaves nothing.
//!
//! Real engine, real connections, no root: the world beyond the engine is a list.

mod frames;
mod rules;

use proptest::prelude::*;
use xvs::control::protocol::{
    Action, Method, RefusalKind, ServerSpec, ServiceId, ServiceSpec, Timeouts, Tunnel, TunnelChecksum,
};
use xvs_engine::drop::DropReason;
use xvs_engine::engine::Verdict;
use xvs_engine::hop::Port;
use xvs_engine::tunnel::{GueChecksum, Tunnel as Encapsulation};
use xvs_redirect::Key;

use rules::*;

const WEB: &str = "192.0.2.1:80";
const MAIL: &str = "192.0.2.1:25";
const ONE: &str = "10.0.0.1:80";
const TWO: &str = "10.0.0.2:80";
const SENT: Verdict = Verdict::Transmit(Port(0));

/// A site with one service.
fn web() -> Site {
    let mut site = Site::new(16);
    site.change(add_service(WEB));
    site
}

fn syn(client: u16) -> String {
    format!("198.51.100.7:{client}")
}

fn answer(real: &str, client: u16) -> Vec<u8> {
    frames::tcp(real, &syn(client), frames::SYN | frames::ACK, b"")
}

/// Guards the order that every scheduler's ties depend on: the newest server stands first, an edit moves nothing, and
/// one that comes back is the newest.
#[test]
fn the_newest_server_stands_first() {
    let mut site = web();
    for real in [ONE, TWO, "10.0.0.3:80"] {
        site.change(add(WEB, real, Method::Dr));
    }
    assert_eq!(site.servers(WEB), ["10.0.0.3:80", TWO, ONE]);
    site.change(edit(WEB, ONE, Method::Nat));
    site.change(edit(WEB, TWO, Method::Nat));
    assert_eq!(site.servers(WEB), ["10.0.0.3:80", TWO, ONE]);
    site.change(delete(WEB, ONE));
    site.change(add(WEB, ONE, Method::Dr));
    assert_eq!(site.servers(WEB), [ONE, "10.0.0.3:80", TWO]);
    let engine: Vec<_> = site.book.entry(&tcp(WEB)).expect("it").service.members();
    let listed: Vec<_> = site.book.entry(&tcp(WEB)).expect("it").members().map(|member| member.real).collect();
    assert_eq!(engine, listed, "the engine has the same order");
}

/// Guards the kinds of refusal, which tools translate to the kernel's error numbers, and that none changes anything.
#[test]
fn every_mistake_has_its_kind() {
    use RefusalKind::*;
    let mut site = web();
    site.change(add(WEB, ONE, Method::Nat));
    let before = site.rules();
    let with = |change: fn(&mut ServiceSpec)| {
        let mut spec = service(MAIL);
        change(&mut spec);
        Action::AddService(spec)
    };
    let of_server = |change: fn(&mut ServerSpec)| {
        let mut spec = server(TWO, Method::Nat);
        change(&mut spec);
        Action::AddServer { service: tcp(WEB), server: spec }
    };
    let nobody = ServiceId::Mark { mark: 7, family: xvs::control::protocol::Family::Inet };
    let wrong = [
        (add_service(WEB), ServiceExists),
        (with(|spec| spec.scheduler = "best".into()), NoSuchScheduler),
        (with(|spec| spec.one_packet = true), Invalid),
        (with(|spec| spec.id = ServiceId::Mark { mark: 0, family: xvs::control::protocol::Family::Inet }), Invalid),
        (Action::EditService(service(MAIL)), NoSuchService),
        (delete_service(MAIL), NoSuchService),
        (Action::Zero(Some(nobody)), NoSuchService),
        (add(MAIL, ONE, Method::Nat), ServiceNotDefined),
        (edit(MAIL, ONE, Method::Nat), ServiceNotDefined),
        (delete(MAIL, ONE), ServiceNotDefined),
        (add(WEB, ONE, Method::Dr), ServerExists),
        (edit(WEB, TWO, Method::Dr), NoSuchServer),
        (delete(WEB, TWO), NoSuchServer),
        (of_server(|spec| spec.weight = -1), OutOfRange),
        (of_server(|spec| spec.lower = 5), OutOfRange),
        (add(WEB, "[2001:db8::1]:80", Method::Nat), Invalid),
        (of_server(|spec| spec.method = Method::Tun(Tunnel::Gre { checksum: TunnelChecksum::Remote })), Invalid),
        (Action::SetTimeouts(Timeouts { tcp: u32::MAX, tcpfin: 0, udp: 0 }), Invalid),
    ];
    for (action, kind) in wrong {
        assert_eq!(site.refused(action.clone()), kind, "{action:?}");
        assert_eq!(site.rules(), before, "{action:?}");
    }
}

/// Guards `-E` and `-e`: what is not given falls back to its default and does not stay as it was.
#[test]
fn an_edit_replaces_everything_but_the_key() {
    let mut site = web();
    let full = ServerSpec { weight: 7, upper: 100, lower: 50, ..server(ONE, Method::Nat) };
    site.change(Action::AddServer { service: tcp(WEB), server: full });
    site.change(edit(WEB, ONE, Method::Dr));
    assert_eq!(site.view(WEB).servers[0].spec, server(ONE, Method::Dr));
    let real = site.shared.arena.get(site.book.reals()[0].0);
    assert_eq!((real.weight(), real.thresholds()), (1, (0, 0)));
    let mut spec = service(WEB);
    (spec.scheduler, spec.flags.two) = ("wlc".into(), true);
    site.change(Action::EditService(spec));
    assert_eq!(site.book.entry(&tcp(WEB)).expect("it").service.scheduler_name(), "wlc");
    site.change(Action::EditService(service(WEB)));
    assert_eq!(site.view(WEB).spec, service(WEB));
}

/// Guards the revival of IPVS-REFERENCE 1.3: a server that comes back has its old connections, counts and statistics,
/// with the weight and method that it comes back with.
#[test]
fn a_server_that_comes_back_has_its_connections() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Nat));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    let before = site.view(WEB).servers.remove(0);
    assert_eq!((before.active, before.stats.conns, before.stats.in_packets), (1, 1, 1));

    site.change(delete(WEB, ONE));
    let data = frames::tcp(&syn(1), WEB, frames::ACK, b"data");
    assert_eq!(site.forward(&data), Verdict::Drop(DropReason::ServerGone));
    assert!(site.servers(WEB).is_empty());

    site.change(Action::AddServer { service: tcp(WEB), server: ServerSpec { weight: 9, ..server(ONE, Method::Dr) } });
    let after = site.view(WEB).servers.remove(0);
    assert_eq!((after.active, after.stats, after.spec.weight), (before.active, before.stats, 9));
    assert_eq!(site.forward(&data), SENT);
    assert_eq!(site.forward(&answer(ONE, 1)), SENT, "its old connection still is a NAT connection");
}

/// Guards that statistics are the service's own and connection counts the server's: a new service of the same name
/// begins at zero, while its revived server still has its connections.
#[test]
fn a_service_made_anew_counts_from_zero() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Nat));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    site.change(delete_service(WEB));
    site.change(add_service(WEB));
    site.change(add(WEB, ONE, Method::Nat));
    let view = site.view(WEB);
    assert_eq!((view.stats.conns, view.servers[0].stats.in_packets, view.servers[0].active), (0, 0, 1));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    assert_eq!((site.stats(WEB).conns, site.stats(WEB).in_packets), (0, 1));
}

/// Guards statistics against going backwards, which every graph would show as a huge rate, whatever becomes of servers.
#[test]
fn service_statistics_never_go_backwards() {
    let mut site = web();
    let mut last = 0;
    for round in 0..6 {
        for real in [ONE, TWO] {
            site.change(add(WEB, real, Method::Nat));
        }
        for client in 0..4 {
            let _ = site.connect(&syn(100 * round + client), WEB);
        }
        site.change(delete(WEB, ONE));
        // Late answers of a removed server are counted with its record.
        let _ = site.forward(&answer(ONE, 100 * round));
        let stats = site.stats(WEB);
        assert!(stats.in_packets >= last, "{} after {last}", stats.in_packets);
        last = stats.in_packets;
        site.change(delete(WEB, TWO));
        assert!(site.stats(WEB).in_packets >= last);
        if round == 3 {
            site.pass_seconds(1100); // beyond the trash and the longest timeout: other records, other baselines
        }
    }
    assert_eq!(last, 24);
}

/// Guards `-Z`: counts and rates begin again, connections and what is counted later stay.
#[test]
fn zeroing_begins_again() {
    let mut site = web();
    site.change(add_service(MAIL));
    site.change(add(WEB, ONE, Method::Nat));
    site.change(add(MAIL, TWO, Method::Nat));
    for vip in [WEB, MAIL] {
        assert_eq!(site.connect(&syn(1), vip), SENT);
    }
    site.book.sample();
    assert!(site.stats(WEB).in_bps > 0);
    site.change(Action::Zero(Some(tcp(WEB))));
    assert_eq!((site.stats(WEB), site.stats(MAIL).conns), (Default::default(), 1));
    assert_eq!(site.view(WEB).servers[0].active, 1);
    assert_eq!(site.connect(&syn(2), WEB), SENT);
    assert_eq!((site.stats(WEB).conns, site.view(WEB).servers[0].stats.conns), (1, 1));
    site.change(Action::Zero(None));
    assert_eq!((site.stats(WEB).conns, site.stats(MAIL).conns), (0, 0));
    site.book.sample();
    assert_eq!(site.stats(WEB).in_bps, 0);
}

/// Guards living connections of a removed service against the kernel, which would reset them: its packets go to the
/// workers until the last connection is over, and not longer.
#[test]
fn a_removed_service_is_steered_until_its_last_connection_is_over() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Nat));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    site.change(delete_service(WEB));
    assert!(site.world.services.is_empty(), "the workers know it no more");
    site.pass_seconds(30);
    assert!(site.world.steered.contains_key(&inbound(WEB)));
    site.pass_seconds(60);
    assert!(!site.world.steered.contains_key(&inbound(WEB)), "half-open connections last a minute");
    site.pass_seconds(120);
    assert!(site.world.steered.is_empty(), "{:?}", site.world.steered);
}

/// Guards the order of a plan's removals: servers go before their service, and the service's key still has to wait for
/// the connections of servers that are gone already.
#[test]
fn connections_of_servers_removed_before_their_service_count() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Dr));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    site.change_all(vec![delete(WEB, ONE), delete_service(WEB)]).expect("it is right");
    site.pass_seconds(1);
    assert!(site.world.steered.contains_key(&inbound(WEB)), "the kernel would reset a living connection");
    site.pass_seconds(200);
    assert!(site.world.steered.is_empty());
}

/// Guards a service that is removed and made again while connections live: one key, steered once, and never lost.
#[test]
fn a_service_made_anew_takes_its_key_over() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Dr));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    for _ in 0..5 {
        site.change(delete_service(WEB));
        site.change(add_service(WEB));
        assert_eq!(site.world.steered.get(&inbound(WEB)), Some(&1));
    }
    site.pass_seconds(300);
    assert_eq!(site.world.steered.get(&inbound(WEB)), Some(&1), "the living service keeps it");
}

/// Guards answers of NAT connections: they are steered from before the first connection until after the last one,
/// through changes of the method.
#[test]
fn answers_are_steered_while_nat_connections_last() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Dr));
    assert!(!site.world.steered.contains_key(&reply(ONE)));
    site.change(edit(WEB, ONE, Method::Nat));
    assert!(site.world.steered.contains_key(&reply(ONE)));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    for _ in 0..3 {
        site.change(edit(WEB, ONE, Method::Dr));
        site.pass_seconds(1);
        assert_eq!(site.world.steered.get(&reply(ONE)), Some(&1), "the connection still is a NAT connection");
        site.change(edit(WEB, ONE, Method::Nat));
    }
    site.change(edit(WEB, ONE, Method::Dr));
    site.pass_seconds(70);
    assert!(!site.world.steered.contains_key(&reply(ONE)));
    assert_eq!(site.world.steered.len(), 1, "{:?}", site.world.steered);
}

/// Guards tunnels: a server's record has its encapsulation, errors about it are steered from before the first connection
/// until after the last one, through changes of port, kind and method.
#[test]
fn errors_about_tunnels_are_steered() {
    let gue = |port| Method::Tun(Tunnel::Gue { port, checksum: TunnelChecksum::Remote });
    let mut site = web();
    let record = |site: &Site| site.shared.arena.get(site.book.reals()[0].0).tunnel();
    site.change(add(WEB, ONE, gue(6080)));
    assert_eq!(record(&site), Encapsulation::Gue { port: 6080, checksum: GueChecksum::Remote });
    let steered = |site: &Site, keys: &[Key]| {
        let mut wanted = [&[inbound(WEB)], keys].concat();
        wanted.sort_unstable();
        assert_eq!(site.world.steered.keys().copied().collect::<Vec<_>>(), wanted);
    };
    steered(&site, &[tunnel(ONE, 6080)]);
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    site.change(edit(WEB, ONE, gue(6081)));
    site.change(edit(WEB, ONE, gue(6081)));
    assert_eq!(record(&site), Encapsulation::Gue { port: 6081, checksum: GueChecksum::Remote });
    steered(&site, &[tunnel(ONE, 6080), tunnel(ONE, 6081)]);
    let gre = Method::Tun(Tunnel::Gre { checksum: TunnelChecksum::Full });
    site.change(edit(WEB, ONE, gre));
    assert_eq!(record(&site), Encapsulation::Gre { checksum: true });
    site.change(edit(WEB, ONE, Method::Nat));
    assert_eq!(record(&site), Encapsulation::Ipip);
    let all = [tunnel(ONE, 6080), tunnel(ONE, 6081), tunnel(ONE, 0), reply(ONE)];
    steered(&site, &all);
    site.pass_seconds(1);
    steered(&site, &all);
    site.pass_seconds(70);
    steered(&site, &[reply(ONE)]);
    site.change(edit(WEB, ONE, gre));
    site.change(delete(WEB, ONE));
    site.pass_seconds(130);
    steered(&site, &[]);
}

/// Guards two services with the same real server against each other: one's end does not take the other's answers.
#[test]
fn services_share_the_answers_of_a_server() {
    let mut site = web();
    site.change(add_service(MAIL));
    for vip in [WEB, MAIL] {
        site.change(add(vip, ONE, Method::Nat));
    }
    assert_eq!(site.world.steered.get(&reply(ONE)), Some(&2));
    site.change(delete_service(MAIL));
    site.pass_seconds(200);
    assert_eq!(site.world.steered.get(&reply(ONE)), Some(&1));
}

/// Guards the trash's time: a removed server without connections is kept for two minutes and not for ever.
#[test]
fn the_trash_is_emptied() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Nat));
    assert_eq!(site.connect(&syn(1), WEB), SENT);
    site.change(delete(WEB, ONE));
    site.pass_seconds(100);
    assert_eq!(site.book.reals().len(), 1);
    site.pass_seconds(21);
    assert_eq!(site.book.reals().len(), 0);
    site.change(add(WEB, ONE, Method::Nat));
    assert_eq!(site.view(WEB).servers[0].stats.conns, 0, "it is another server of the same name");
    assert_eq!(site.stats(WEB).conns, 1, "the service still had that connection");
}

/// Guards a full arena: the refusal says so, nothing has changed, and there is room again when the trash is emptied.
#[test]
fn a_full_arena_refuses_and_recovers() {
    let mut site = Site::new(4);
    site.change(add_service(WEB));
    for last in 1..=4 {
        site.change(add(WEB, &format!("10.0.0.{last}:80"), Method::Nat));
    }
    let before = site.rules();
    assert_eq!(site.refused(add(WEB, "10.0.0.5:80", Method::Nat)), RefusalKind::Limit);
    assert_eq!(site.rules(), before);
    site.change(delete(WEB, "10.0.0.1:80"));
    assert_eq!(site.refused(add(WEB, "10.0.0.5:80", Method::Nat)), RefusalKind::Limit, "it may still come back");
    site.pass_seconds(121);
    site.change(add(WEB, "10.0.0.5:80", Method::Nat));
}

/// Guards every change against a full map of the XDP program: refused, nothing has changed, nothing is unsteered later
/// that others have.
#[test]
fn a_full_map_refuses_and_leaves_nothing() {
    let mut site = web();
    site.change(add(WEB, ONE, Method::Dr));
    site.change(add(WEB, "10.0.0.9:80", Method::Nat));
    site.change(delete(WEB, "10.0.0.9:80"));
    let before = site.rules();
    site.world.room = 2;
    let full = [add_service(MAIL), add(WEB, TWO, Method::Nat), edit(WEB, ONE, Method::Nat)];
    for action in &full {
        assert_eq!(site.refused(action.clone()), RefusalKind::Limit, "{action:?}");
        assert_eq!(site.rules(), before, "{action:?}");
    }
    assert_eq!(site.world.services.len(), 1, "the workers forgot the refused service");
    site.world.room = 10;
    for action in full {
        site.change(action);
    }
    site.pass_seconds(300);
    for key in [inbound(WEB), inbound(MAIL), reply(ONE), reply(TWO)] {
        assert_eq!(site.world.steered.get(&key), Some(&1), "{key:?}");
    }
}

/// Guards the workers against useless snapshots: only services make new ones, and a plan makes one for all of them.
#[test]
fn only_services_make_snapshots() {
    let mut site = web();
    assert_eq!(site.world.published, 1);
    for number in 1..=15 {
        site.change(add(WEB, &format!("10.0.1.{number}:80"), Method::Dr));
    }
    site.change(edit(WEB, "10.0.1.1:80", Method::Nat));
    site.change(delete(WEB, "10.0.1.2:80"));
    site.change(Action::EditService(service(WEB)));
    site.change(Action::Zero(None));
    assert_eq!(site.world.published, 1);
    let actions = (1..=50).map(|port| add_service(&format!("192.0.2.9:{port}"))).collect();
    site.change_all(actions).expect("it is right");
    assert_eq!((site.world.published, site.world.services.len()), (2, 51));
    site.change(Action::Flush);
    assert_eq!((site.world.published, site.world.services.len()), (3, 0));
}

/// Guards a plan that is refused half way: the rules are what they were, and so is what is steered, soon.
#[test]
fn a_refused_plan_leaves_nothing() {
    let mut site = web();
    let full = ServerSpec { weight: 7, ..server(ONE, Method::Dr) };
    site.change(Action::AddServer { service: tcp(WEB), server: full });
    let before = site.rules();
    let mut wlc = service(WEB);
    wlc.scheduler = "wlc".into();
    let plan = |last: Action| {
        let quiet = ServerSpec { weight: 0, ..full };
        vec![
            Action::EditService(wlc.clone()),
            Action::EditServer { service: tcp(WEB), server: quiet },
            add_service(MAIL),
            add(MAIL, TWO, Method::Nat),
            add(WEB, TWO, Method::Nat),
            last,
        ]
    };
    assert_eq!(site.change_all(plan(add(WEB, TWO, Method::Dr))).expect_err("twice").kind, RefusalKind::ServerExists);
    site.pass_seconds(130);
    assert_eq!(site.rules(), before);

    site.world.room = 1;
    assert_eq!(site.change_all(plan(delete(WEB, ONE))).expect_err("no room").kind, RefusalKind::Limit);
    site.pass_seconds(130);
    assert_eq!(site.rules(), before);

    // There is room for the answers, and none for the new service: found out last.
    site.world.room = 2;
    assert_eq!(site.change_all(plan(delete(WEB, ONE))).expect_err("no room").kind, RefusalKind::Limit);
    site.pass_seconds(130);
    assert_eq!(site.rules(), before);
    assert_eq!(site.connect(&syn(1), WEB), SENT);

    site.world.room = 10;
    site.change_all(plan(delete(WEB, ONE))).expect("there is room");
    assert_eq!((site.servers(WEB), site.servers(MAIL)), (vec![TWO.to_owned()], vec![TWO.to_owned()]));
}

/// Guards the way of a new service into force: its servers are there before its first packet is steered.
#[test]
fn a_planned_service_is_steered_last() {
    let mut site = Site::new(16);
    site.world.room = 1;
    let plan = vec![add_service(WEB), add(WEB, ONE, Method::Nat)];
    assert!(site.change_all(plan.clone()).expect_err("no room").message.contains("full"));
    assert_eq!(site.world.routed.len(), 1, "the server was there before the service's key was tried");
    site.world.room = 2;
    site.pass_seconds(121);
    site.change_all(plan).expect("there is room");
}

// A random life of the rules against a model of a few lines.

const VIPS: [&str; 3] = ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"];
const REALS: [&str; 4] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
const METHODS: [Method; 4] = [
    Method::Nat,
    Method::Dr,
    Method::Tun(Tunnel::Ipip),
    Method::Tun(Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Full }),
];

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few of them")]
enum Step {
    Do(Action),
    Connect(usize, u16),
    Pass(u64),
    Sample,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || (0..VIPS.len(), 0..REALS.len(), 0..METHODS.len(), 0i64..4);
    let server = |(_, real, method, weight): (usize, usize, usize, i64)| ServerSpec {
        weight,
        ..server(REALS[real], METHODS[method])
    };
    prop_oneof![
        3 => (0..VIPS.len()).prop_map(|vip| Step::Do(add_service(VIPS[vip]))),
        2 => (0..VIPS.len()).prop_map(|vip| Step::Do(delete_service(VIPS[vip]))),
        1 => (0..VIPS.len()).prop_map(|vip| Step::Do(Action::EditService(service(VIPS[vip])))),
        8 => at().prop_map(move |at| Step::Do(Action::AddServer { service: tcp(VIPS[at.0]), server: server(at) })),
        4 => at().prop_map(move |at| Step::Do(Action::EditServer { service: tcp(VIPS[at.0]), server: server(at) })),
        4 => at().prop_map(|(vip, real, ..)| Step::Do(delete(VIPS[vip], REALS[real]))),
        1 => Just(Step::Do(Action::Flush)),
        1 => Just(Step::Do(Action::Zero(None))),
        8 => (0..VIPS.len(), 1000u16..1040).prop_map(|(vip, client)| Step::Connect(vip, client)),
        4 => (1u64..200).prop_map(Step::Pass),
        1 => Just(Step::Sample),
    ]
}

/// What the rules should be: services in the order of their making, servers newest first.
#[derive(Clone, Default)]
struct Model(Vec<(ServiceId, Vec<ServerSpec>)>);

impl Model {
    /// Carries an action out; false if it must be refused.
    fn accepts(&mut self, action: &Action) -> bool {
        let at = |model: &Model, id: &ServiceId| model.0.iter().position(|(other, _)| other == id);
        match action {
            Action::AddService(spec) => {
                let new = at(self, &spec.id).is_none();
                if new {
                    self.0.push((spec.id, Vec::new()));
                }
                new
            }
            Action::EditService(spec) => at(self, &spec.id).is_some(),
            Action::DeleteService(id) => at(self, id).map(|at| self.0.remove(at)).is_some(),
            Action::Flush => {
                self.0.clear();
                true
            }
            Action::AddServer { service, server } => {
                let Some(at) = at(self, service) else { return false };
                let servers = &mut self.0[at].1;
                let new = servers.iter().all(|other| other.address != server.address);
                if new {
                    servers.insert(0, *server);
                }
                new
            }
            Action::EditServer { service, server } => {
                let Some(at) = at(self, service) else { return false };
                let found = self.0[at].1.iter_mut().find(|other| other.address == server.address);
                found.map(|found| *found = *server).is_some()
            }
            Action::DeleteServer { service, address } => {
                let Some(at) = at(self, service) else { return false };
                let servers = &mut self.0[at].1;
                let found = servers.iter().position(|server| server.address == *address);
                found.map(|found| servers.remove(found)).is_some()
            }
            _ => true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Guards the book against any sequence of actions, connections and time: it accepts and lists exactly what the
    /// model does; what is in force is steered; connections are counted where they are; and when all is over nothing
    /// is steered, kept, or lost.
    #[test]
    fn any_life_of_the_rules_follows_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut site = Site::new(12);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Do(action) => {
                    let before = (site.rules(), model.clone());
                    let full = match site.try_change(action.clone()) {
                        Ok(()) => None,
                        Err(refusal) => Some(refusal.kind),
                    };
                    if full == Some(RefusalKind::Limit) {
                        prop_assert_eq!(site.rules(), before.0);
                        continue;
                    }
                    prop_assert_eq!(full.is_none(), model.accepts(&action), "{:?}: {:?}", action, full);
                }
                Step::Connect(vip, client) => drop(site.connect(&syn(client), VIPS[vip])),
                Step::Pass(seconds) => site.pass_seconds(seconds),
                Step::Sample => site.book.sample(),
            }
            let listed: Vec<_> = site.book.entries()
                .map(|entry| (entry.spec.id, entry.members().map(|member| member.spec).collect::<Vec<_>>())).collect();
            prop_assert_eq!(&listed, &model.0);
            prop_assert_eq!(site.world.services.len(), model.0.len(), "the workers know the services");
            for (id, servers) in &model.0 {
                let ServiceId::Address { address, .. } = id else { unreachable!() };
                prop_assert!(site.world.steered.contains_key(&inbound(&address.to_string())));
                for server in servers {
                    let address = server.address.to_string();
                    let key = match server.method {
                        Method::Nat => reply(&address),
                        Method::Dr => continue,
                        Method::Tun(Tunnel::Gue { port, .. }) => tunnel(&address, port),
                        Method::Tun(_) => tunnel(&address, 0),
                    };
                    prop_assert!(site.world.steered.contains_key(&key));
                }
            }
            let reals = site.book.reals();
            let mut ids: Vec<_> = reals.iter().map(|(real, _)| *real).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), reals.len(), "no record is used twice");
            let counted: u32 = ids.iter().map(|real| site.shared.arena.get(*real).counts().total).sum();
            prop_assert_eq!(counted, site.shared.table.len(), "every connection is counted with a record in use");
        }
        site.change(Action::Flush);
        site.pass_seconds(1200);
        prop_assert!(site.world.steered.is_empty(), "{:?}", site.world.steered);
        prop_assert!(site.book.reals().is_empty());
        prop_assert!(site.shared.table.is_empty());
    }
}

/// Guards the watching of answers (`observe_replies`): with it the answers of DR and TUN servers from the VIP are steered
/// for as long as one of them is there, and without it they are not.
#[test]
fn answers_from_the_vip_are_watched_on_request() {
    let answers = |site: &Site| {
        let vip = address(WEB).ip();
        site.world.steered.keys().filter(|key| matches!(key, Key::Reply { address, .. } if *address == vip)).count()
    };
    let mut site = web();
    site.change(add(WEB, ONE, Method::Dr));
    assert_eq!(answers(&site), 0);
    let mut site = web();
    site.book.observe_replies(true);
    let port = address(WEB).port();
    let servers = [(1, Method::Dr), (2, Method::Tun(Tunnel::Ipip))]
        .map(|(last, method)| (format!("10.0.0.{last}:{port}"), method));
    for (server, method) in &servers {
        site.change(add(WEB, server, *method));
    }
    assert_eq!(answers(&site), 1, "one key, wanted twice");
    for (server, _) in &servers {
        site.change(delete(WEB, server));
    }
    site.pass_seconds(121);
    assert_eq!(answers(&site), 0);
}
