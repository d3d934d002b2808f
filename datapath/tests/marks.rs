//! Rules for marks in force: what is steered for them and when, what the workers know by then, and what becomes of
//! living connections.
//!
//! Real engine, real connections, no root: the world beyond the engine is a list.

mod frames;
mod rules;

use proptest::prelude::*;
use xvs::control::protocol::{
    Action, Family, MarkRule, Mask, Method, Persistence, RefusalKind, ServerSpec, ServiceId, ServiceSpec, Tunnel,
};
use xvs_engine::engine::Verdict;
use xvs_engine::flow::{Endpoint, Flow, Protocol as Number};
use xvs_engine::hop::Port;
use xvs_redirect::{Key, Protocol, Range};

use rules::*;

const SENT: Verdict = Verdict::Transmit(Port(0));
const WEB: &str = "192.0.2.1:80";
const ONE: &str = "10.0.0.1:0";
const TWO: &str = "10.0.0.2:8080";

fn id(mark: u32) -> ServiceId {
    ServiceId::Mark { mark, family: Family::Inet }
}

fn add_marked(mark: u32) -> Action {
    Action::AddService(ServiceSpec { id: id(mark), ..service(WEB) })
}

fn add_to(mark: u32, real: &str, method: Method) -> Action {
    Action::AddServer { service: id(mark), server: server(real, method) }
}

/// A rule for this prefix, all protocols, these ports; all of them if there are none.
fn rule(mark: u32, to: &str, ports: &str) -> MarkRule {
    MarkRule {
        mark,
        destination: to.parse().expect("a prefix"),
        source: None,
        protocol: None,
        ports: (!ports.is_empty()).then(|| ports.parse().expect("ports")),
    }
}

fn add_rule(rule: MarkRule) -> Action {
    Action::AddMark { rule, first: false }
}

/// What is steered, in words: `192.0.2.0/24 80-90`, with a `-` in front of what is spared.
fn ranges(site: &Site) -> Vec<String> {
    let told = |range: &Range| {
        let sign = if range.steer { "" } else { "-" };
        let protocol = range.protocol.map(|protocol| format!(" {protocol:?}")).unwrap_or_default();
        format!("{sign}{} {}-{}{protocol}", range.destination, range.first, range.last)
    };
    site.world.ranges.iter().map(told).collect()
}

/// A site with a service of mark 7, one NAT server, and a rule for 192.0.2.0/24 port 80 to 90.
fn marked() -> Site {
    let mut site = Site::new(16);
    site.change(add_rule(rule(7, "192.0.2.0/24", "80-90")));
    site.change(add_marked(7));
    site.change(add_to(7, ONE, Method::Nat));
    site
}

fn syn(client: u16) -> String {
    format!("198.51.100.7:{client}")
}

fn data(site: &Site, client: u16, to: &str) -> Verdict {
    site.forward(&frames::tcp(&syn(client), to, frames::ACK, b"data"))
}

/// Guards the order: workers know of a rule and a service before packets come for them, and packets stop before the
/// workers forget. A rule without a service steers nothing.
#[test]
fn workers_know_before_packets_come() {
    let mut site = Site::new(16);
    site.change(add_rule(rule(7, "192.0.2.0/24", "80")));
    assert_eq!(site.world.marks.rules().len(), 1);
    assert!(!site.world.ranges.iter().any(|range| range.steer));
    site.world.told.clear();
    site.change(add_marked(7));
    assert_eq!(site.world.told, ["publish", "ranges"]);
    assert_eq!(ranges(&site), ["192.0.2.0/24 80-80"]);
    assert!(site.book.mark_views()[0].served);
    site.world.told.clear();
    site.change(add_rule(rule(7, "198.51.100.1", "")));
    assert_eq!(site.world.told, ["publish", "ranges"]);
    assert_eq!(ranges(&site), ["192.0.2.0/24 80-80", "198.51.100.1/32 0-65535"]);
    site.world.told.clear();
    site.change(Action::DeleteMark(rule(7, "192.0.2.0/24", "80")));
    assert_eq!(site.world.told, ["ranges", "publish"]);
    assert_eq!(ranges(&site), ["198.51.100.1/32 0-65535"]);
    site.world.told.clear();
    site.change(Action::DeleteService(id(7)));
    assert_eq!(site.world.told, ["ranges", "publish"]);
    assert_eq!(ranges(&site), ["-198.51.100.1/32 0-65535"], "nobody has the mark any more");
    assert!(!site.book.mark_views()[0].served);
}

/// Guards other changes against useless work: servers, other services and other families tell no ranges.
#[test]
fn only_marks_and_their_services_tell_ranges() {
    let mut site = marked();
    site.world.told.clear();
    site.change(add_to(7, TWO, Method::Nat));
    site.change(Action::EditServer { service: id(7), server: server(TWO, Method::Dr) });
    site.change(Action::EditService(ServiceSpec { scheduler: "wlc".into(), id: id(7), ..service(WEB) }));
    assert!(site.world.told.is_empty(), "{:?}", site.world.told);
    site.change(add_service(WEB));
    site.change(delete_service(WEB));
    let other = ServiceId::Mark { mark: 7, family: Family::Inet6 };
    site.change(Action::AddService(ServiceSpec { id: other, ..service(WEB) }));
    assert_eq!(site.world.told, ["publish"; 3], "the same number of the other family is another mark");
}

/// Guards every mistake: its kind, its words, and that nothing has changed.
#[test]
fn every_mistake_has_its_kind() {
    use RefusalKind::*;
    let mut site = marked();
    let before = site.rules();
    let mixed = MarkRule { source: Some("2001:db8::/32".parse().expect("a prefix")), ..rule(7, "192.0.2.1", "") };
    let many = (0..5000u32).map(|n| rule(1, &format!("10.{}.{}.0/24", n >> 8, n & 255), "")).collect();
    let wrong = [
        (add_rule(rule(0, "192.0.2.1", "")), Invalid, "mark 0"),
        (add_rule(mixed), Invalid, "different address families"),
        (add_rule(rule(7, "192.0.2.0/24", "80-90")), MarkExists, "mark 7 already"),
        (add_rule(rule(8, "192.0.2.0/24", "80-90")), MarkExists, "mark 7 already"),
        (Action::DeleteMark(rule(8, "192.0.2.0/24", "80-90")), NoSuchMark, "xvs mark list"),
        (Action::DeleteMark(rule(7, "192.0.2.0/24", "80")), NoSuchMark, "mark 7 to 192.0.2.0/24 ports 80;"),
        (Action::ReplaceMarks(vec![rule(1, "::/0", ""), rule(2, "::/0", "")]), MarkExists, "mark 1 already"),
        (Action::ReplaceMarks(many), Limit, "4096 at most"),
    ];
    for (action, kind, word) in wrong {
        let refusal = site.try_change(action.clone()).expect_err("it is wrong");
        assert!(refusal.kind == kind && refusal.message.contains(word), "{action:?}: {refusal:?}");
        assert_eq!(site.rules(), before, "{action:?}");
    }
}

/// Guards against a full map: rule or service are refused, the workers do not know them, and the plan that held them is
/// taken back as a whole.
#[test]
fn no_room_for_ranges_leaves_everything_as_it_was() {
    let mut site = marked();
    let before = site.rules();
    site.world.ranges_room = 1;
    let more = add_rule(rule(7, "198.51.100.0/24", ""));
    assert_eq!(site.refused(more.clone()), RefusalKind::Limit);
    assert_eq!(site.rules(), before);
    let plan = vec![
        Action::ReplaceMarks(vec![rule(8, "198.51.100.0/24", ""), rule(7, "192.0.2.0/24", "80-90")]),
        add_marked(8),
        add_to(8, TWO, Method::Nat),
        add_service(WEB),
        Action::DeleteService(id(7)),
    ];
    assert_eq!(site.change_all(plan.clone()).expect_err("no room").kind, RefusalKind::Limit);
    site.pass_seconds(130);
    assert_eq!(site.rules(), before);
    assert_eq!(site.connect(&syn(1), "192.0.2.9:85"), SENT);
    site.world.ranges_room = 10;
    site.change(more);
    site.change_all(plan).expect("there is room");
    assert_eq!(site.connect(&syn(2), "198.51.100.9:1"), SENT);
}

/// Guards a plan: its rules come into force with the services that it adds, after the workers know both, and before
/// anything goes.
#[test]
fn a_plan_brings_rules_and_services_together() {
    let mut site = marked();
    site.world.told.clear();
    let plan = vec![
        Action::ReplaceMarks(vec![rule(8, "192.0.2.0/24", "80-90")]),
        add_marked(8),
        add_to(8, TWO, Method::Nat),
        Action::DeleteService(id(7)),
    ];
    site.change_all(plan).expect("it is right");
    assert_eq!(site.world.told, ["publish", "publish"], "what is steered is the same before and after");
    assert_eq!(ranges(&site), ["192.0.2.0/24 80-90"]);
    assert_eq!(site.connect(&syn(1), "192.0.2.1:80"), SENT);
}

/// Guards a plan that edits a service of marks between new rules and new services: nothing is steered before the workers
/// know all of it.
#[test]
fn an_edit_within_a_plan_steers_nothing_early() {
    let mut site = marked();
    site.world.told.clear();
    let edited = ServiceSpec { scheduler: "wlc".into(), id: id(7), ..service(WEB) };
    let plan = vec![
        Action::ReplaceMarks(vec![rule(7, "192.0.2.0/24", ""), rule(8, "198.51.100.0/24", "")]),
        Action::EditService(edited),
        add_marked(8),
    ];
    site.change_all(plan).expect("it is right");
    assert_eq!(site.world.told, ["publish", "ranges"]);
    assert_eq!(ranges(&site), ["192.0.2.0/24 0-65535", "198.51.100.0/24 0-65535"]);
}

/// Guards answers of NAT servers: a mark stands for every protocol, and a server on port 0 answers from any port.
#[test]
fn answers_of_every_protocol_are_steered() {
    let mut site = marked();
    let replies = |real: &str| {
        let real = address(real);
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| Key::Reply {
            protocol,
            address: real.ip(),
            port: real.port(),
        })
    };
    site.change(add_to(7, TWO, Method::Nat));
    for key in [replies(ONE), replies(TWO)].concat() {
        assert_eq!(site.world.steered.get(&key), Some(&1), "{key:?}");
    }
    assert_eq!(site.world.steered.len(), 6);
    site.change(Action::EditServer { service: id(7), server: server(TWO, Method::Dr) });
    site.pass_seconds(1);
    assert_eq!(site.world.steered.len(), 3, "{:?}", site.world.steered);
    site.world.room = 5;
    let nat = Action::EditServer { service: id(7), server: server(TWO, Method::Nat) };
    assert_eq!(site.refused(nat), RefusalKind::Limit);
    assert_eq!(site.world.steered.len(), 3, "two of three had room, and were taken back");
    site.change(Action::Flush);
    site.pass_seconds(200);
    assert!(site.world.steered.is_empty());
}

/// Guards persistent services of many ports: their servers keep the client's port, so answers come from any; also when
/// persistence comes later, and when it goes while connections live.
#[test]
fn answers_of_persistent_services_come_from_any_port() {
    let any = |protocol| Key::Reply { protocol, address: address(TWO).ip(), port: 0 };
    let persistent = |mut spec: ServiceSpec| {
        spec.persistence = Some(Persistence { timeout_s: 300, mask: Mask::leading(Family::Inet, 32) });
        spec
    };
    let ftp = "192.0.2.1:21";
    for (plain, protocols) in [
        (ServiceSpec { id: id(7), ..service(WEB) }, &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..]),
        (service(ftp), &[Protocol::Tcp][..]),
    ] {
        let mut site = Site::new(16);
        site.change(add_rule(rule(7, "192.0.2.0/24", "")));
        site.change(Action::AddService(plain.clone()));
        site.change(Action::AddServer { service: plain.id, server: server(TWO, Method::Nat) });
        assert!(!site.world.steered.contains_key(&any(Protocol::Tcp)));
        let before = site.rules();
        site.world.room = site.world.steered.len() + protocols.len() - 1;
        assert_eq!(site.refused(Action::EditService(persistent(plain.clone()))), RefusalKind::Limit);
        assert_eq!(site.rules(), before);
        site.world.room = usize::MAX;
        site.change(Action::EditService(persistent(plain.clone())));
        for &protocol in protocols {
            assert_eq!(site.world.steered.get(&any(protocol)), Some(&1), "{protocol:?}");
        }
        let data = if plain.id == id(7) { "192.0.2.1:999" } else { "192.0.2.1:2000" };
        assert_eq!(site.connect(&syn(1), data), SENT);
        let real = data.replace("192.0.2.1", "10.0.0.2");
        let answer = frames::tcp(&real, &syn(1), frames::SYN | frames::ACK, b"");
        assert_eq!(site.forward(&answer), SENT);
        site.change(Action::EditService(plain.clone()));
        assert!(site.world.steered.contains_key(&any(Protocol::Tcp)), "the connection lives");
        site.change(Action::DeleteService(plain.id));
        site.pass_seconds(500);
        assert!(site.world.steered.is_empty(), "{:?}", site.world.steered);
    }
}

/// Guards FTP's data connections (IPVS-REFERENCE 4.2): steered while the service on port 21 is persistent, and for those
/// that live when it is not any more.
#[test]
fn data_ports_of_persistent_ftp_are_steered() {
    let ftp = "192.0.2.1:21";
    let mut site = Site::new(16);
    site.change(add_service(ftp));
    site.change(add(ftp, "10.0.0.2:21", Method::Nat));
    assert!(ranges(&site).is_empty());
    let mut spec = service(ftp);
    spec.persistence = Some(Persistence { timeout_s: 300, mask: Mask::leading(Family::Inet, 32) });
    site.world.ranges_room = 1;
    assert_eq!(site.refused(Action::EditService(spec.clone())), RefusalKind::Limit);
    assert_eq!(site.view(ftp).spec, service(ftp));
    site.world.ranges_room = 2;
    site.change(Action::EditService(spec));
    let data = ["192.0.2.1/32 20-20 Tcp", "192.0.2.1/32 1024-65535 Tcp"];
    assert_eq!(ranges(&site), data);
    assert_eq!(site.connect(&syn(1), "192.0.2.1:2000"), SENT);
    site.change(Action::EditService(service(ftp)));
    assert_eq!(ranges(&site), data, "a data connection lives");
    site.pass_seconds(70);
    assert!(ranges(&site).is_empty());
}

/// Guards living connections of a removed mark service against the kernel, which would reset them: their ranges stay
/// steered until the last one is over, and not longer; at once if there is none.
#[test]
fn a_removed_mark_service_is_steered_until_its_last_connection_is_over() {
    let mut site = marked();
    site.change(Action::DeleteService(id(7)));
    assert!(!ranges(&site).iter().any(|range| !range.starts_with('-')), "{:?}", ranges(&site));
    site.change(add_marked(7));
    site.change(add_to(7, ONE, Method::Nat));
    assert_eq!(site.connect(&syn(1), "192.0.2.77:85"), SENT);
    site.change(Action::DeleteService(id(7)));
    assert_eq!(ranges(&site), ["192.0.2.0/24 80-90", "-192.0.2.0/24 80-90"]);
    site.pass_seconds(30);
    assert_eq!(ranges(&site).len(), 2);
    site.pass_seconds(60);
    assert_eq!(ranges(&site), ["-192.0.2.0/24 80-90"], "half-open connections last a minute");
}

/// Guards connections against changes of the rules: a rule that is deleted, replaced or overruled steers what it brought
/// until that is over. Connections of other services do not keep it.
#[test]
fn a_removed_rule_is_steered_until_its_last_connection_is_over() {
    let exception = MarkRule { mark: 9, ..rule(9, "192.0.2.0/25", "") };
    let changes = [
        Action::DeleteMark(rule(7, "192.0.2.0/24", "80-90")),
        Action::ReplaceMarks(vec![rule(7, "192.0.2.0/24", "80")]),
        Action::ReplaceMarks(vec![rule(9, "192.0.2.0/24", "80-90")]),
        Action::AddMark { rule: exception, first: true },
    ];
    for change in changes {
        let mut site = marked();
        site.change(add_service("192.0.2.1:85"));
        site.change(add("192.0.2.1:85", "10.0.0.3:85", Method::Dr));
        site.change(Action::DeleteMark(rule(7, "192.0.2.0/24", "80-90")));
        assert_eq!(site.connect(&syn(9), "192.0.2.1:85"), SENT, "one of the exact service");
        site.change(add_rule(rule(7, "192.0.2.0/24", "80-90")));
        site.change(Action::DeleteMark(rule(7, "192.0.2.0/24", "80-90")));
        assert!(ranges(&site).is_empty(), "the exact service has a key of its own: {:?}", ranges(&site));
        site.change(add_rule(rule(7, "192.0.2.0/24", "80-90")));

        assert_eq!(site.connect(&syn(1), "192.0.2.77:85"), SENT);
        site.change(change.clone());
        assert_eq!(ranges(&site)[0], "192.0.2.0/24 80-90", "{change:?}: in front of all others");
        assert_eq!(data(&site, 1, "192.0.2.77:85"), SENT);
        let with = ranges(&site).len();
        // The other connection goes on: it must not keep the rule.
        for _ in 0..30 {
            site.pass_seconds(40);
            assert_eq!(data(&site, 9, "192.0.2.1:85"), SENT);
        }
        assert_eq!(ranges(&site).len(), with - 1, "{change:?}: {:?}", ranges(&site));
    }
}

/// Guards rules that come back: the rule in force steers, and the retired one is forgotten.
#[test]
fn a_rule_that_comes_back_is_one_rule() {
    let mut site = marked();
    assert_eq!(site.connect(&syn(1), "192.0.2.77:85"), SENT);
    for _ in 0..5 {
        site.change(Action::DeleteMark(rule(7, "192.0.2.0/24", "80-90")));
        site.change(add_rule(rule(7, "192.0.2.0/24", "80-90")));
    }
    assert_eq!(ranges(&site), ["192.0.2.0/24 80-90"; 2]);
    site.pass_seconds(6);
    assert_eq!(ranges(&site), ["192.0.2.0/24 80-90"]);
    assert_eq!(data(&site, 1, "192.0.2.77:85"), SENT);
}

// A random life of rules and mark services against what they say.

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few of them")]
enum Step {
    Do(Action),
    Connect(usize, u16, u16),
    Pass(u64),
}

const TARGETS: [&str; 4] = ["192.0.2.1", "192.0.2.2", "192.0.3.1", "198.51.100.1"];
const PREFIXES: [&str; 5] = ["192.0.2.1/32", "192.0.2.0/24", "192.0.0.0/16", "198.51.100.0/24", "0.0.0.0/0"];

fn any_rule() -> impl Strategy<Value = MarkRule> {
    (1u32..4, 0..PREFIXES.len(), prop::sample::select(vec!["", "80", "80-90", "85,100-200"]))
        .prop_map(|(mark, prefix, ports)| rule(mark, PREFIXES[prefix], ports))
}

fn step() -> impl Strategy<Value = Step> {
    let methods = || prop::sample::select(vec![Method::Nat, Method::Dr, Method::Tun(Tunnel::Ipip)]);
    prop_oneof![
        3 => (1u32..4).prop_map(|mark| Step::Do(add_marked(mark))),
        2 => (1u32..4).prop_map(|mark| Step::Do(Action::DeleteService(id(mark)))),
        6 => (1u32..4, 1u8..4, methods()).prop_map(|(mark, last, method)| {
            let server = ServerSpec { address: address(&format!("10.0.0.{last}:0")), ..server(ONE, method) };
            Step::Do(Action::AddServer { service: id(mark), server })
        }),
        4 => (any_rule(), any::<bool>()).prop_map(|(rule, first)| Step::Do(Action::AddMark { rule, first })),
        3 => any_rule().prop_map(|rule| Step::Do(Action::DeleteMark(rule))),
        1 => prop::collection::vec(any_rule(), 0..4).prop_map(|rules| Step::Do(Action::ReplaceMarks(rules))),
        1 => Just(Step::Do(Action::Flush)),
        8 => (0..TARGETS.len(), prop::sample::select(vec![79u16, 80, 85, 90, 150]), 1000u16..1040)
            .prop_map(|(target, port, client)| Step::Connect(target, port, client)),
        3 => (1u64..100).prop_map(Step::Pass),
    ]
}

/// Does the list of ranges steer this flow? Read from the top.
fn steers(ranges: &[Range], flow: &Flow) -> bool {
    let fits = |range: &&Range| {
        let std::net::IpAddr::V4(own) = range.destination.address else { return false };
        let cut = |bits: u32| bits.checked_shr(32 - u32::from(range.destination.length)).unwrap_or(0);
        cut(own.to_bits()) == cut(flow.dst.address.low32()) && (range.first..=range.last).contains(&flow.dst.port)
    };
    ranges.iter().find(fits).is_some_and(|range| range.steer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Guards any life of rules, services, connections and time: what leads to a service is steered; a living connection
    /// is never left to the kernel; and when all connections are over, nothing else is steered.
    #[test]
    fn any_life_of_marks_steers_what_it_must(steps in prop::collection::vec(step(), 1..60)) {
        let mut site = Site::new(16);
        let flow = |target: &str, port: u16| Flow {
            protocol: Number::TCP,
            src: Endpoint::from(address("198.51.100.7:1")),
            dst: Endpoint::from(address(&format!("{target}:{port}"))),
        };
        let leads = |site: &Site, flow: &Flow| {
            let rule = site.book.marks().rule(flow).map(|(at, _)| &site.book.mark_rules()[at]);
            rule.is_some_and(|rule| site.book.entry(&rule.service()).is_some())
        };
        for step in steps {
            match step {
                Step::Do(action) => drop(site.try_change(action)),
                Step::Connect(target, port, client) => {
                    // Only what is steered comes to a worker.
                    let to = format!("{}:{port}", TARGETS[target]);
                    if steers(&site.world.ranges, &flow(TARGETS[target], port)) {
                        let _ = site.connect(&syn(client), &to);
                    }
                }
                Step::Pass(seconds) => site.pass_seconds(seconds),
            }
            for conn in site.shared.table.iter() {
                prop_assert!(steers(&site.world.ranges, &conn.flow()), "{:?} is lost: {:?}", conn.flow(), ranges(&site));
            }
            for target in TARGETS {
                for port in [79, 80, 85, 90, 150] {
                    let flow = flow(target, port);
                    prop_assert!(!leads(&site, &flow) || steers(&site.world.ranges, &flow), "{:?}", flow);
                }
            }
            prop_assert_eq!(site.world.marks.rules(), site.book.marks().rules(), "the workers know the rules");
        }
        site.pass_seconds(1200);
        prop_assert!(site.shared.table.is_empty());
        for target in TARGETS {
            for port in [79, 80, 85, 90, 150] {
                let flow = flow(target, port);
                prop_assert_eq!(leads(&site, &flow), steers(&site.world.ranges, &flow), "{:?}", flow);
            }
        }
    }
}
