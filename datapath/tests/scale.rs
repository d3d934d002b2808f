//! A running director with ten thousand services and a hundred thousand servers: how long one change takes until it is in
//! force. An answer says that it is: the weight is in the record that the workers read, and every worker has taken the
//! snapshot that the change made.
//!
//! Needs root; without it the test says so loudly and passes, unless `XVS_CI` is set.

mod frames;
mod namespace;
#[allow(dead_code, reason = "nothing is measured here by the kernel's clock")]
mod running;
#[allow(dead_code, reason = "no packet is sent here")]
mod wires;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use xvs::control::client::Client;
use xvs::control::protocol::{
    Action, Answer, Method, Outcome, Protocol, SchedFlags, ServerSpec, ServiceId, ServiceSpec,
};

use running::Running;
use wires::Wires;

const SERVICES: u32 = 10_000;
const SERVERS: u32 = 10;
/// Room for connections, of which there are none: what is done about all of them is to hold up nobody.
const CONNECTIONS: u32 = 1 << 20;
/// Changes that are timed, and the time from one to the next: they meet all that the director does by the clock.
const CHANGES: u32 = 200;
const PACE: Duration = Duration::from_millis(20);
/// Half of the changes take less, and none takes longer than the second, whatever else this machine does.
const USUAL: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(100);

fn service(number: u32) -> ServiceId {
    let address = SocketAddr::from(([192, 0, 2, 10], 1000 + number as u16));
    ServiceId::Address { protocol: Protocol::Tcp, address }
}

fn server(number: u32, place: u32, weight: i64) -> ServerSpec {
    let host = Ipv4Addr::new(10, 0, 0, (2 + (number + place) % 250) as u8);
    let address = SocketAddr::from((host, 1000 + number as u16));
    ServerSpec { address, method: Method::Dr, weight, upper: 0, lower: 0, tags: None }
}

fn rules(number: u32) -> impl Iterator<Item = Action> {
    let (id, flags) = (service(number), SchedFlags::default());
    let (persistence, engine, fallback, options) = Default::default();
    let scheduler = "wrr".to_owned();
    let spec = ServiceSpec { id, scheduler, flags, persistence, engine, one_packet: false, fallback, options };
    let add = move |place| Action::AddServer { service: id, server: server(number, place, 1) };
    std::iter::once(Action::AddService(spec)).chain((0..SERVERS).map(add))
}

fn load(client: &mut Client) {
    let actions: Vec<Action> = (0..SERVICES).flat_map(rules).collect();
    for part in actions.chunks(5_000) {
        let outcome = client.call(Action::Many(part.to_vec())).expect("an answer");
        let Ok(Answer::Many(outcomes)) = outcome else { panic!("{outcome:?}") };
        let refused = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Ok(Answer::Done)));
        assert_eq!(refused, None);
    }
}

/// A change, by its number: weights mostly, and a server and a service that come and go.
fn change(turn: u32) -> Action {
    let number = turn.wrapping_mul(7919) % SERVICES;
    let id = service(number);
    let extra = |number: u32| {
        let ServerSpec { address, .. } = server(number, 0, 1);
        ServerSpec { address: (Ipv4Addr::new(10, 0, 0, 1), address.port()).into(), ..server(number, 0, 1) }
    };
    match turn % 8 {
        0 => Action::AddServer { service: service(turn), server: extra(turn) },
        1 => Action::DeleteServer { service: service(turn - 1), address: extra(turn - 1).address },
        2 => rules(SERVICES).next().expect("a service"),
        3 => Action::DeleteService(service(SERVICES)),
        _ => Action::EditServer { service: id, server: server(number, turn % SERVERS, i64::from(turn)) },
    }
}

/// Guards a director of many services: a change to one of them is in force within milliseconds, whatever the director does
/// about all of them in the same second.
#[test]
fn a_change_among_a_hundred_thousand_servers_is_in_force_at_once() {
    if !nix::unistd::geteuid().is_root() {
        assert!(env::var_os("XVS_CI").is_none(), "XVS_CI is set, and this test needs root");
        writeln!(io::stdout(), "\nSKIPPED: this test needs root").expect("a terminal or a file");
        return;
    }
    let wires = Wires::new(2);
    let running = Running::start_sized(&wires, "human", "", "", CONNECTIONS);
    let mut client = running.client();
    let begun = Instant::now();
    load(&mut client);
    println!("{SERVICES} services with {SERVERS} servers each were loaded in {:.1?}", begun.elapsed());
    let begun = Instant::now();
    let mut times = Vec::new();
    for turn in 0..CHANGES {
        let action = change(turn);
        thread::sleep((begun + PACE * turn).saturating_duration_since(Instant::now()));
        if turn % 50 == 25 {
            // The ways of all servers are found again.
            wires.here.ip(&format!("address add 10.9.0.{turn}/32 dev a0"));
        }
        let asked = Instant::now();
        let outcome = client.call(action).expect("an answer");
        times.push((asked.elapsed(), turn));
        assert_eq!(outcome, Ok(Answer::Done), "change {turn}");
    }
    times.sort();
    let (median, longest) = (times[times.len() / 2].0, times[times.len() - 1].0);
    println!("{CHANGES} changes: median {median:.2?}, the longest: {:.2?}", &times[times.len() - 8..]);
    assert!(median < USUAL && longest < LONGEST, "a change took {median:?}, the longest {longest:?}");
    let (well, log) = running.stop();
    assert!(well, "{log}");
}
