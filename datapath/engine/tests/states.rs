//! The state machines over their full product: every state, every event, every side.
//!
//! What is right is not read from the code but from the reference's own tables (IPVS-REFERENCE 3.4), which stand here in
//! its notation and are parsed when the test runs, so that a slip of the pen in either place shows. First the machines
//! alone, then the engine that runs them: states, counts of the real server and timers of real connections.

mod common;

use std::collections::HashMap;

use common::packet::*;
use common::site::*;
use xvs_engine::conn::{Class, Conn, Flags, Side, Slot, Status, sctp as sctp_states, state, tcp as tcp_states};
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Protocol;
use xvs_engine::real::Method;
use xvs_engine::service::Policy;
use xvs_engine::wire::Headers;

/// Columns of the TCP tables, in the order of the states' numbers.
const TCP_COLUMNS: &str = "NO ES SS SR FW TW CL CW LA LI SA";

const TCP: &str = "
| IN syn | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN fin | CL | CW | SS | TW | TW | TW | CL | CW | LA | LI | TW |
| IN ack | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN rst | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | SR |
| OUT syn | SS | ES | SS | SR | SS | SS | SS | SS | SS | LI | SR |
| OUT fin | TW | FW | SS | TW | FW | TW | CL | TW | LA | LI | TW |
| OUT ack | ES | ES | SS | ES | FW | TW | CL | CW | LA | ES | ES |
| OUT rst | CL | CL | SS | CL | CL | TW | CL | CL | CL | CL | CL |
| IN-ONLY syn | SR | ES | ES | SR | SR | SR | SR | SR | SR | SR | SR |
| IN-ONLY fin | CL | FW | SS | TW | FW | TW | CL | CW | LA | LI | TW |
| IN-ONLY ack | ES | ES | SS | ES | FW | TW | CL | CW | CL | LI | ES |
| IN-ONLY rst | CL | CL | CL | SR | CL | CL | CL | CL | LA | LI | CL |";

/// Where `secure_tcp` differs.
const TCP_SECURE: &str = "IN syn SA→SA; IN fin SA→SA; IN ack SR→SR, SA→SA; IN rst SA→CL; OUT syn SR→SA, SA→SA; \
    IN-ONLY syn NO,FW,TW,CL,CW,LA,LI,SA→SA, ES,SS→ES, SR→SR";

const TCP_TIMEOUTS: &str = "
| 0 | NONE | 2 s | | 6 | CLOSE | 10 s |
| 1 | ESTABLISHED | 900 s | | 7 | CLOSE_WAIT | 60 s |
| 2 | SYN_SENT | 120 s | | 8 | LAST_ACK | 30 s |
| 3 | SYN_RECV | 60 s | | 9 | LISTEN | 120 s |
| 4 | FIN_WAIT | 120 s | | 10 | SYNACK | 120 s |
| 5 | TIME_WAIT | 120 s |";

const TCP_ACTIVE: [&str; 4] = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"];

/// The states of SCTP in the order of their numbers, as the tables and as a listing have them.
const SCTP_STATES: &str = "NO=NONE I1=INIT1 IN=INIT CS=C-SENT CR=C-REPLIED CW=C-WAIT CO=COOKIE CE=C-ECHOED ES=ESTABLISHED \
    SS=S-SENT SR=S-RECEIVED SA=S-ACK-SENT RJ=REJECTED CL=CLOSED";

const SCTP: &str = "
| data | NO→ES | NO→ES | NO,CW→ES |
| init | NO→I1; I1,RJ,CL→IN | every state except ES→CW | NO→I1; I1,CS,CR,CW,RJ,CL→IN |
| init-ack | NO,I1,IN→CW; CW→CO | NO,I1,IN→CS | NO,I1,IN,CS,CR,CW→CE |
| cookie-echo | NO,CS→CR; I1→IN | NO,I1,IN,CS,CR,CW,CO→CE | NO,I1,IN,CS,CR,CW→ES |
| cookie-ack | NO,CE→ES | NO,I1,IN,CS,CR,CW,CO,CE→ES | NO,CS,CR,CO,CE→ES |
| shutdown | NO,ES→SR | NO,I1,IN,CS,CR,CW,CO,CE,ES→SS | NO,ES→SR |
| shutdown-ack | NO,SS,SA→CL; I1→IN | NO,I1,IN,CS,CR,SS,SR→SA | NO,ES,SS,SA→CL; I1→IN |
| shutdown-complete | NO,I1,IN,SA→CL | NO→CL | NO,I1,IN,CS,CR,SR,SA→CL |
| error | NO,CE→CL | NO,I1,IN,CS,CR→CL | NO→CL |
| abort | CW→RJ, else→CL | I1→RJ, else→CL | CW→RJ, else→CL |";

const SCTP_TIMEOUTS: &str = "NONE 2; INIT1 4; INIT, C-SENT, C-REPLIED, C-WAIT, COOKIE, C-ECHOED 61; ESTABLISHED 900; \
    S-SENT, S-RECEIVED, S-ACK-SENT, CLOSED 61; REJECTED 4";

const SIDES: [(&str, Side); 3] = [("IN", Side::In), ("OUT", Side::Out), ("IN-ONLY", Side::InOnly)];

/// What follows, by side, event and state.
type Tables = HashMap<(&'static str, &'static str, u8), u8>;

/// A machine as the reference has it.
struct Reference {
    protocol: Protocol,
    names: Vec<&'static str>,
    timeouts: Vec<u64>,
    active: Vec<&'static str>,
    tables: Tables,
}

fn number(columns: &[&str], state: &str) -> u8 {
    columns.iter().position(|column| *column == state).unwrap_or_else(|| panic!("{state} in {columns:?}")) as u8
}

/// "A,B→C; D→E": each state that changes, and to what.
fn changes(columns: &[&str], text: &str) -> Vec<(u8, u8)> {
    if let Some((except, to)) = text.strip_prefix("every state except ").map(|rest| rest.split_once('→').unwrap()) {
        let (except, to) = (number(columns, except), number(columns, to));
        return (0..columns.len() as u8).filter(|state| *state != except).map(|state| (state, to)).collect();
    }
    let (mut found, mut waiting) = (Vec::new(), Vec::new());
    for part in text.split([',', ';']).map(str::trim) {
        let (from, to) = part.split_once('→').map_or((part, None), |(from, to)| (from, Some(to)));
        match from {
            "else" => waiting.extend((0..columns.len() as u8).filter(|s| found.iter().all(|(from, _)| from != s))),
            from => waiting.push(number(columns, from)),
        }
        if let Some(to) = to {
            found.extend(waiting.drain(..).map(|from| (from, number(columns, to))));
        }
    }
    assert!(waiting.is_empty(), "{text}");
    found
}

fn tcp_reference(secure: bool) -> Reference {
    let columns: Vec<_> = TCP_COLUMNS.split(' ').collect();
    let mut tables = Tables::new();
    for line in TCP.lines().filter(|line| !line.is_empty()) {
        let cells: Vec<_> = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let (side, event) = cells[0].split_once(' ').unwrap();
        for (state, to) in cells[1..].iter().enumerate() {
            tables.insert((side, event, state as u8), number(&columns, to));
        }
    }
    assert_eq!(tables.len(), 3 * 4 * 11);
    for part in TCP_SECURE.split("; ").filter(|_| secure) {
        let [side, event, cells] = part.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        for (from, to) in changes(&columns, cells) {
            tables.insert((side, event, from), to).expect("it replaces a cell");
        }
    }
    let cells: Vec<_> = TCP_TIMEOUTS.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let mut states: Vec<(usize, &str, u64)> = cells
        .chunks(3)
        .map(|cells| (cells[0].parse().unwrap(), cells[1], cells[2].trim_end_matches(" s").parse().unwrap()))
        .collect();
    states.sort_unstable();
    assert!(states.iter().enumerate().all(|(number, state)| number == state.0));
    Reference {
        protocol: Protocol::TCP,
        names: states.iter().map(|state| state.1).collect(),
        timeouts: states.iter().map(|state| state.2).collect(),
        active: TCP_ACTIVE.to_vec(),
        tables,
    }
}

fn sctp_reference() -> Reference {
    let (columns, names): (Vec<_>, Vec<_>) = SCTP_STATES.split_whitespace().map(|s| s.split_once('=').unwrap()).unzip();
    let mut tables = Tables::new();
    for line in SCTP.lines().filter(|line| !line.is_empty()) {
        let cells: Vec<_> = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        for ((side, _), text) in SIDES.iter().zip(&cells[1..]) {
            tables.extend((0..columns.len() as u8).map(|state| ((*side, cells[0], state), state)));
            tables.extend(changes(&columns, text).into_iter().map(|(from, to)| ((*side, cells[0], from), to)));
        }
    }
    assert_eq!(tables.len(), 3 * 10 * 14);
    let mut seconds = HashMap::new();
    for part in SCTP_TIMEOUTS.split("; ") {
        let (states, value) = part.rsplit_once(' ').unwrap();
        seconds.extend(states.split(", ").map(|state| (state, value.parse().unwrap())));
    }
    let timeouts = names.iter().map(|name| seconds[name]).collect();
    Reference { protocol: Protocol::SCTP, names, timeouts, active: vec!["ESTABLISHED"], tables }
}

impl Reference {
    fn is_active(&self, state: u8) -> bool {
        self.active.contains(&self.names[usize::from(state)])
    }

    /// One packet for each event: the event, and what makes it.
    fn events(&self) -> Vec<(&'static str, u8)> {
        match self.protocol {
            Protocol::TCP => vec![("syn", SYN), ("fin", FIN), ("ack", ACK), ("rst", RST)],
            _ => {
                let names = self.tables.keys().map(|(_, event, _)| *event).collect::<std::collections::HashSet<_>>();
                names.into_iter().map(|name| (name, chunk_type(name))).collect()
            }
        }
    }

    /// A packet that makes an event.
    fn packet(&self, src: &str, dst: &str, maker: u8) -> Ip {
        match self.protocol {
            Protocol::TCP => tcp(src, dst, maker),
            _ => sctp(src, dst, &[maker, 0, 0, 4]),
        }
    }

    /// What a step must lead to: state, active, timeout in seconds.
    fn expected(&self, side: &'static str, event: &'static str, state: u8) -> (u8, bool, u64) {
        let next = self.tables[&(side, event, state)];
        (next, self.is_active(next), self.timeouts[usize::from(next)])
    }
}

fn chunk_type(event: &str) -> u8 {
    let types = [
        ("data", 0),
        ("init", 1),
        ("init-ack", 2),
        ("abort", 6),
        ("shutdown", 7),
        ("shutdown-ack", 8),
        ("error", 9),
        ("cookie-echo", 10),
        ("cookie-ack", 11),
        ("shutdown-complete", 14),
    ];
    types.iter().find(|(name, _)| *name == event).unwrap_or_else(|| panic!("{event}")).1
}

fn parse(ip: &[u8]) -> Headers {
    Headers::parse(&from_client(ip)).unwrap()
}

fn step(side: Side, headers: &Headers, state: u8, secure: bool) -> (u8, bool, u64) {
    let step = state::next(side, headers, state, secure);
    assert_eq!(step.slot, state::slot(headers.flow.protocol, step.state));
    (step.state, step.active, step.slot.default_s().into())
}

/// TCP, normal and secure: every combination of flags, in every state, on every side, leads where the reference says,
/// with its activity and timeout. The first of RST, SYN, FIN, ACK counts; none of them closes.
#[test]
fn tcp_full_product() {
    for secure in [false, true] {
        let reference = tcp_reference(secure);
        for flags in 0..=u8::MAX {
            let mut ip = tcp(CLIENT4, VIP4, 0).bytes();
            ip[20 + 13] = flags;
            let headers = parse(&ip);
            let events = [("rst", RST), ("syn", SYN), ("fin", FIN), ("ack", ACK)];
            let event = events.iter().find(|(_, flag)| flags & flag != 0);
            for (state, (name, side)) in (0..11).flat_map(|state| SIDES.map(|side| (state, side))) {
                let expected = event.map_or((6, false, 10), |(event, _)| reference.expected(name, event, state));
                let got = step(side, &headers, state, secure);
                assert_eq!(got, expected, "secure {secure}, {name}, flags {flags:#04x}, state {state}");
            }
        }
    }
}

/// SCTP: every type of chunk, alone and with an ABORT behind it, in every state, on every side. `secure_tcp` is not its
/// business, and a packet without a chunk changes nothing.
#[test]
fn sctp_full_product() {
    let reference = sctp_reference();
    let named: HashMap<_, _> = reference.events().into_iter().map(|(event, kind)| (kind, event)).collect();
    assert_eq!(named.len(), 10);
    for kind in 0..=u8::MAX {
        let alone = parse(&sctp(CLIENT4, VIP4, &[kind, 0, 0, 4]).bytes());
        let bundled = parse(&sctp(CLIENT4, VIP4, &[kind, 0, 0, 6, 1, 2, 0, 0, 6, 0, 0, 4]).bytes());
        let event = named.get(&kind).copied().unwrap_or("data");
        let with_abort = if event.starts_with("cookie") { "abort" } else { event };
        for (state, (name, side)) in (0..14).flat_map(|state| SIDES.map(|side| (state, side))) {
            for secure in [false, true] {
                let expected = reference.expected(name, event, state);
                assert_eq!(step(side, &alone, state, secure), expected, "{name}, type {kind}, state {state}");
                let expected = reference.expected(name, with_abort, state);
                assert_eq!(step(side, &bundled, state, secure), expected, "{name}, type {kind} + ABORT, state {state}");
            }
        }
    }
    let empty = parse(&sctp(CLIENT4, VIP4, &[]).bytes());
    for (state, (_, side)) in (0..14).flat_map(|state| SIDES.map(|side| (state, side))) {
        let stays = (state, reference.is_active(state), reference.timeouts[usize::from(state)]);
        assert_eq!(step(side, &empty, state, false), stays);
    }
}

/// UDP has one state, which is never active and lasts 300 s.
#[test]
fn udp_has_one_state() {
    let headers = parse(&udp(CLIENT4, VIP4, b"q").bytes());
    for (_, side) in SIDES {
        assert_eq!(step(side, &headers, 0, true), (0, false, 300));
        assert_eq!(state::assures(Protocol::UDP, side, 0, 0), side == Side::Out);
    }
    assert_eq!(state::name(Protocol::UDP, 0), "UDP");
}

/// Names are the listing's, and which states are over or half open is as the reference has it (3.9, 3.11).
#[test]
fn names_and_kinds_of_states() {
    for (reference, over, half_open) in [
        (tcp_reference(false), &["TIME_WAIT", "CLOSE"][..], &["NONE", "SYN_SENT", "SYN_RECV", "SYNACK"][..]),
        (sctp_reference(), &["CLOSED"], &["INIT1", "INIT"]),
    ] {
        for (state, name) in (0u8..).zip(&reference.names) {
            let protocol = reference.protocol;
            assert_eq!(state::name(protocol, state), *name);
            assert_eq!(state::is_over(protocol, state), over.contains(name), "{name}");
            let assures = |before| state::assures(protocol, Side::In, before, state);
            assert_eq!((assures(0), assures(state)), (*name == "ESTABLISHED", false));
            assert_eq!(state::is_half_open(protocol, state), half_open.contains(name), "{name}");
        }
        assert_eq!(state::name(reference.protocol, reference.names.len() as u8), "NONE");
    }
}

/// Brings a connection into a state, as if packets had.
fn force(site: &Site, conn: &mut Conn<'_>, reference: &Reference, state: u8) {
    let active = reference.is_active(state);
    let change = |status: Status| Status { state, flags: status.flags.with(Flags::INACTIVE, !active) };
    let (before, _) = conn.update(change).unwrap();
    if before.flags.has(Flags::INACTIVE) == active {
        site.shared.arena.get(conn.real()).set_active(active);
    }
    conn.touch(site.now, reference.timeouts[usize::from(state)] as u32);
}

/// The engine runs the machines: a packet moves the state of its connection, one count of its real server at most, and
/// the timer, in every state, by every event, on every side. (A packet that opens the ports of an ended connection
/// again makes a new one and is tested elsewhere.)
#[test]
fn the_engine_follows_them() {
    for (reference, secure) in [(tcp_reference(false), false), (tcp_reference(true), true), (sctp_reference(), false)] {
        for (method, sides) in [(Method::Nat, &SIDES[..2]), (Method::Dr, &SIDES[2..])] {
            let mut site = Site::with_service(method, 8080);
            site.shared.switches.secure_tcp_active.set(secure.into());
            let mut client_port = 2000;
            let opener = if reference.protocol == Protocol::TCP { SYN } else { chunk_type("init") };
            let states = 0..reference.names.len() as u8;
            for (state, (name, side)) in states.flat_map(|state| sides.iter().map(move |side| (state, *side))) {
                for (event, maker) in reference.events() {
                    if side != Side::Out && maker == opener && state::is_over(reference.protocol, state) {
                        continue;
                    }
                    client_port += 1;
                    let client = format!("198.51.100.7:{client_port}");
                    let opening = reference.packet(&client, VIP4, opener);
                    let _ = site.forward(&from_client(&opening.bytes()));
                    let flow = parse(&opening.bytes()).flow;
                    let find = || site.shared.table.lookup(&flow, site.shared.table.hash(&flow)).unwrap().0;
                    let mut conn = find();
                    force(&site, &mut conn, &reference, state);
                    let (active, inactive) = site.counts(conn.real());
                    site.now = site.now.plus_millis(1500);
                    let frame = match side {
                        Side::Out => from_server(1, &reference.packet("10.0.0.1:8080", &client, maker).bytes()),
                        _ => from_client(&reference.packet(&client, VIP4, maker).bytes()),
                    };
                    let what = format!("secure {secure}, {method:?}, {name} {event}, state {state}");
                    assert!(matches!(site.forward(&frame).0, Verdict::Transmit(_)), "{what}");
                    let (next, is_active, seconds) = reference.expected(name, event, state);
                    let was_active = reference.is_active(state);
                    let after =
                        (active - u32::from(was_active) + u32::from(is_active), inactive + u32::from(was_active));
                    let after = (after.0, after.1 - u32::from(is_active));
                    let conn = site.shared.table.lookup(&flow, site.shared.table.hash(&flow)).unwrap().0;
                    assert_eq!(conn.status().state, next, "{what}");
                    assert_eq!(site.counts(conn.real()), after, "{what}");
                    assert_eq!(conn.expires_in(site.now), seconds * 1000, "{what}");
                }
            }
        }
    }
}

/// A timeout that is set is taken by the next packet of a connection in that state, and by no other's.
#[test]
fn set_timeouts_are_followed() {
    let site = Site::with_service(Method::Nat, 8080);
    for (slot, seconds) in (100..).zip(Slot::all().collect::<Vec<_>>()).map(|(s, slot)| (slot, s)) {
        site.shared.timeouts.set(Class::DIRECTOR, slot, seconds);
    }
    for (ip, expected) in [
        (tcp(CLIENT4, VIP4, SYN), 100 + 3),
        (udp(CLIENT4, VIP4, b"q"), 100 + 11),
        (sctp(CLIENT4, VIP4, &[1, 0, 0, 4]), 100 + 12 + 1),
    ] {
        assert_eq!(site.forward(&from_client(&ip.bytes())).0, Verdict::Transmit(SERVERS));
        let flow = parse(&ip.bytes()).flow;
        let (conn, _) = site.shared.table.lookup(&flow, site.shared.table.hash(&flow)).unwrap();
        assert_eq!(conn.expires_in(site.now), expected * 1000);
    }
}

/// A service with timeouts of its own gives them to its connections, by protocol and state; what it does not set is the
/// director's, and other services know nothing of it.
#[test]
fn a_service_has_timeouts_of_its_own() {
    let mut site = Site::with_service(Method::Nat, 8080);
    let class = Class::new(3).unwrap();
    let policy = Policy { class: class.number(), ..Policy::default() };
    for (protocol, port) in [(Protocol::TCP, 81), (Protocol::SCTP, 82), (Protocol::UDP, 83)] {
        let service = site.add_service_with(protocol, &format!("192.0.2.1:{port}"), "rr", policy);
        site.add_real(service, "10.0.0.2:8080", Method::Nat);
    }
    let timeouts = &site.shared.timeouts;
    timeouts.set(class, Slot::tcp(tcp_states::State::Established), 30);
    timeouts.set(class, Slot::sctp(sctp_states::State::Init), 31);
    timeouts.set(class, Slot::UDP, 32);
    timeouts.set(Class::DIRECTOR, Slot::tcp(tcp_states::State::SynRecv), 33);
    let init = [1, 0, 0, 4];
    for (own, others) in [
        (
            vec![(tcp(CLIENT4, "192.0.2.1:81", SYN), 33), (tcp(CLIENT4, "192.0.2.1:81", ACK), 30)],
            vec![(tcp(CLIENT4, VIP4, SYN), 33), (tcp(CLIENT4, VIP4, ACK), 900)],
        ),
        (
            vec![(sctp(CLIENT4, "192.0.2.1:82", &init), 4), (sctp(CLIENT4, "192.0.2.1:82", &init), 31)],
            vec![(sctp(CLIENT4, VIP4, &init), 4), (sctp(CLIENT4, VIP4, &init), 61)],
        ),
        (vec![(udp(CLIENT4, "192.0.2.1:83", b"q"), 32)], vec![(udp(CLIENT4, VIP4, b"q"), 300)]),
    ] {
        for (ip, seconds) in own.into_iter().chain(others) {
            assert_eq!(site.forward(&from_client(&ip.bytes())).0, Verdict::Transmit(SERVERS));
            let flow = parse(&ip.bytes()).flow;
            let (conn, _) = site.shared.table.lookup(&flow, site.shared.table.hash(&flow)).unwrap();
            assert_eq!(conn.expires_in(site.now), seconds * 1000, "{ip:?}");
        }
    }
    timeouts.clear(class);
    let packet = udp(CLIENT4, "192.0.2.1:83", b"q").bytes();
    let _ = site.forward(&from_client(&packet));
    let flow = parse(&packet).flow;
    assert_eq!(site.shared.table.lookup(&flow, site.shared.table.hash(&flow)).unwrap().0.expires_in(site.now), 300_000);
}

/// The short way of most packets says what the whole machine would say: same state, same timeout, in both tables.
#[test]
fn the_short_way_agrees_with_the_machine() {
    let mut short = 0;
    for packet in [tcp(CLIENT4, VIP4, ACK), udp(CLIENT4, VIP4, b"q")] {
        for flags in 0..=255u8 {
            let mut frame = from_client(&packet.bytes());
            if packet.body != udp(CLIENT4, VIP4, b"").body {
                frame[14 + 20 + 13] = flags;
            }
            let headers = Headers::parse(&frame).unwrap();
            for side in [Side::In, Side::Out, Side::InOnly] {
                for number in 0..tcp_states::STATES.len() as u8 {
                    let is_udp = headers.flow.protocol == Protocol::UDP;
                    let number = if is_udp { state::FIRST } else { number };
                    let Some(slot) = state::stays(&headers, side, number) else { continue };
                    short += 1;
                    let active = !is_udp && tcp_states::State::from_bits(number).is_active();
                    for secure in [false, true] {
                        let step = state::next(side, &headers, number, secure);
                        assert_eq!(step, state::Step { state: number, active, slot }, "{flags:#x} {side:?} {number}");
                    }
                }
            }
        }
    }
    assert!(short > 0);
}
