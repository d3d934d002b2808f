//! The kernel module against the kernel: network namespaces, veth pairs, `ip`, real ARP and ND.
//!
//! The oracle is the kernel itself, in two forms: a mirror that was opened just now must have the same view as one that
//! followed the changes, and `ip route get` must agree with the lookup. Needs root; without it each test says so loudly
//! and passes, unless `XVS_CI` is set.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use xvs::kernel::{
    Answer, Error, Event, Facts, Link, Mirror, Neighbour, NeighbourState, NoRoute, Port, RouteKind, Tag, Unsupported,
    Via, View, advertisement_frame, announce, arp_frame,
};

/// Says loudly that something is not guarded. Straight to the stream: the harness keeps what a passing test prints.
macro_rules! skipped {
    ($($why:tt)+) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("\nSKIPPED: {}\n", format_args!($($why)+)))
            .expect("a terminal or a file")
    };
}

/// Longest wait for something the kernel does at once, or after one exchange of packets.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace that goes away with the value, also when a test panics.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(role: &str) -> Namespace {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("xvsk-{}-{}-{role}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace { name };
        run("ip", &["netns", "add", &namespace.name]);
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` in here and demands success.
    fn ip(&self, arguments: &str) -> String {
        let output = self.try_ip(arguments);
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn try_ip(&self, arguments: &str) -> Output {
        let words = arguments.split_whitespace();
        Command::new("ip").args(["-n", &self.name]).args(words).output().expect("ip is installed")
    }

    /// Runs many `ip` commands by one process.
    fn batch(&self, lines: impl Iterator<Item = String>) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip is installed");
        let mut input = child.stdin.take().expect("a pipe");
        for line in lines {
            writeln!(input, "{line}").expect("ip reads its input");
        }
        drop(input);
        assert!(child.wait().expect("ip ends").success());
    }

    /// Runs a closure in here, on a thread of its own.
    fn enter<Answer: Send>(&self, inside: impl FnOnce() -> Answer + Send) -> Answer {
        let file = fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A mirror of this namespace; it may be used from anywhere.
    fn mirror(&self) -> Mirror {
        self.enter(|| Mirror::open().expect("a mirror"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program is installed");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two namespaces joined by a veth pair, `a0` in the first and `b0` in the second, with addresses of both families.
struct Pair {
    here: Namespace,
    there: Namespace,
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair { here: Namespace::new("here"), there: Namespace::new("there") };
        pair.here.ip(&format!("link add a0 type veth peer name b0 netns {}", pair.there.name));
        pair.here.ip("addr add 192.0.2.1/24 dev a0");
        pair.here.ip("addr add 2001:db8::1/64 dev a0 nodad");
        pair.there.ip("addr add 192.0.2.2/24 dev b0");
        pair.there.ip("addr add 2001:db8::2/64 dev b0 nodad");
        pair.there.ip("link set b0 up");
        pair.here.ip("link set a0 up");
        // The kernel brings a carrier up in its own time, and drops what is sent before.
        let end = Instant::now() + PATIENCE;
        for (side, name) in [(&pair.here, "a0"), (&pair.there, "b0")] {
            while !link(side.mirror().view(), name).running {
                assert!(Instant::now() < end, "{name} does not come up");
                thread::sleep(Duration::from_millis(10));
            }
        }
        pair
    }
}

/// Whether the tests can run; a skip is loud, and a failure where skipping would be a lie.
fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(env::var_os("XVS_CI").is_none(), "XVS_CI is set, and the tests of the kernel module need root");
    skipped!("the tests of the kernel module need root");
    false
}

/// Whether this kernel can make VLAN interfaces; small kernels for virtual machines cannot.
fn has_vlans(namespace: &Namespace) -> bool {
    let made = namespace.try_ip("link add link a0 name probe type vlan id 4000").status.success();
    if made {
        namespace.ip("link del probe");
    } else {
        skipped!("this kernel has no VLAN interfaces (8021q)");
    }
    made
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn link(view: &View, name: &str) -> Link {
    view.link_by_name(name).unwrap_or_else(|| panic!("no link {name}")).clone()
}

/// Receives until the events satisfy `done`, and gives all of them.
fn wait(mirror: &mut Mirror, what: &str, mut done: impl FnMut(&View, &[Event]) -> bool) -> Vec<Event> {
    let end = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    loop {
        mirror.receive(&mut events).expect("receiving");
        if done(mirror.view(), &events) {
            return events;
        }
        assert!(Instant::now() < end, "waited in vain for {what}; events: {events:#?}");
        let mut polled = [PollFd::new(mirror.fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(100_u8)).expect("polling");
    }
}

/// Demands that the mirror's view becomes that of a mirror opened afresh, without being opened afresh itself.
fn settle(namespace: &Namespace, mirror: &mut Mirror, after: &str) -> Vec<Event> {
    let end = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    loop {
        let fresh = namespace.mirror();
        mirror.receive(&mut events).expect("receiving");
        let left = differences(mirror.view(), fresh.view());
        if left.is_empty() {
            assert_eq!(mirror.malformed(), 0, "malformed messages after {after}");
            return events;
        }
        assert!(Instant::now() < end, "after {after}: {left}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The entries that only one of two views has, line by line. What the kernel does not announce does not count: that it
/// began to ask for a neighbour, and that a stale one is in use.
fn differences(followed: &View, fresh: &View) -> String {
    let lines = |view: &View| -> BTreeSet<String> {
        let links = view.links().map(|entry| format!("{entry:?}"));
        let addresses = view.addresses().map(|entry| format!("{entry:?}"));
        let routes = view.routes().iter().map(|entry| format!("{entry:?}"));
        let announced = |state| !matches!(state, NeighbourState::None | NeighbourState::Incomplete);
        let neighbours = view.neighbours().filter(|entry| announced(entry.state)).map(|entry| match entry.state {
            NeighbourState::Delay => format!("{:?}", Neighbour { state: NeighbourState::Stale, ..entry.clone() }),
            _ => format!("{entry:?}"),
        });
        links.chain(addresses).chain(routes).chain(neighbours).collect()
    };
    let (followed, fresh) = (lines(followed), lines(fresh));
    let only = |side: &str, one: &BTreeSet<String>, other: &BTreeSet<String>| -> String {
        one.difference(other).map(|line| format!("\n  only {side}: {line}")).collect()
    };
    only("followed", &followed, &fresh) + &only("fresh", &fresh, &followed)
}

fn via(view: &View, destination: &str) -> Via {
    match view.route(ip(destination)) {
        Answer::Via(via) => via,
        other => panic!("{destination}: a way expected: {other:?}"),
    }
}

/// Guards the first dump: what was configured before the start is there, and leads to the right answers.
#[test]
fn the_first_dump_sees_everything() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    for line in [
        "route add default via 192.0.2.254 metric 100",
        "route add default via 192.0.2.253 metric 50",
        "route add blackhole 198.51.100.0/24",
        "route add unreachable 198.51.101.0/24",
        "route add prohibit 198.51.102.0/24",
        "route add 203.0.113.0/24 via 192.0.2.9 mtu 1400",
        "route add 203.0.114.0/24 via inet6 2001:db8::9",
        "route add 203.0.115.0/24 nexthop via 192.0.2.11 weight 3 nexthop via 192.0.2.12",
        "route add 172.16.0.0/12 dev lo",
        "-6 route add default via 2001:db8::fe",
        "-6 route add blackhole 2001:db8:bad::/48",
        "-6 route add 2001:db8:5::/48 nexthop via 2001:db8::11 nexthop via 2001:db8::12",
        "addr add 192.0.2.60/32 dev a0",
        "addr add 192.0.2.61/32 dev a0",
        "addr add 192.0.2.62/32 dev a0",
        "route add 198.51.103.0/24 via 192.0.2.2 src 192.0.2.61",
        "route add local 198.51.104.0/24 dev lo src 192.0.2.62",
        "addr del 192.0.2.60/32 dev a0",
        "addr del 192.0.2.61/32 dev a0",
        "addr del 192.0.2.62/32 dev a0",
        "addr add 2001:db8:1::60/128 dev a0 nodad",
        "addr add 2001:db8:1::61/128 dev a0 nodad",
        "-6 route add 2001:db8:a::/48 via 2001:db8::7 src 2001:db8:1::61",
        "addr del 2001:db8:1::60/128 dev a0",
        "addr del 2001:db8:1::61/128 dev a0",
        "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev a0 nud permanent",
    ] {
        here.ip(line);
    }
    let mirror = here.mirror();
    let view = mirror.view();

    let a0 = link(view, "a0");
    assert_eq!((a0.kind.as_deref(), a0.mtu, a0.up, a0.running), (Some("veth"), 1500, true, true));
    assert_ne!(a0.mac, [0; 6]);
    assert!(link(view, "lo").loopback);

    assert_eq!(via(view, "8.8.8.8").gateway, Some(ip("192.0.2.253")), "the smaller metric wins");
    assert_eq!(via(view, "8.8.8.8").source, Some(ip("192.0.2.1")));
    assert_eq!(view.route(ip("198.51.100.1")), Answer::None(NoRoute::Blackhole));
    assert_eq!(view.route(ip("198.51.101.1")), Answer::None(NoRoute::Unreachable));
    assert_eq!(view.route(ip("198.51.102.1")), Answer::None(NoRoute::Prohibited));
    let connected = Via { link: a0.index, gateway: None, source: Some(ip("192.0.2.1")), mtu: 1500 };
    assert_eq!(view.route(ip("192.0.2.200")), Answer::Via(connected.clone()));
    assert_eq!(connected.next_hop(ip("192.0.2.200")), ip("192.0.2.200"));
    assert_eq!(view.route(ip("192.0.2.255")), Answer::None(NoRoute::NotUnicast));
    assert_eq!(via(view, "203.0.113.1").mtu, 1400);
    assert_eq!(via(view, "203.0.114.1").gateway, Some(ip("2001:db8::9")), "IPv4 by an IPv6 router");
    let loopback = Unsupported::Link { link: link(view, "lo").index, kind: "loopback".to_owned() };
    assert_eq!(view.route(ip("172.16.0.1")), Answer::Unsupported(loopback));

    for (network, count) in [("203.0.115", 2), ("2001:db8:5:", 2)] {
        let gateways: BTreeSet<_> = (1..60)
            .map(|last| {
                let separator = if network.contains(':') { ":" } else { "." };
                via(view, &format!("{network}{separator}{last}")).gateway
            })
            .collect();
        assert_eq!(gateways.len(), count, "both ways of {network} are used: {gateways:?}");
    }

    let six = via(view, "2600::1");
    assert_eq!((six.gateway, six.source), (Some(ip("2001:db8::fe")), Some(ip("2001:db8::1"))));
    assert_eq!(via(view, "2001:db8::2").gateway, None);
    assert_eq!(view.route(ip("2001:db8:bad::1")), Answer::None(NoRoute::Blackhole));
    for own in ["192.0.2.1", "2001:db8::1", "127.0.0.1", "127.5.5.5", "::1"] {
        assert!(view.is_local(ip(own)), "{own}");
    }
    assert!(!view.is_local(ip("192.0.2.2")));

    assert_eq!(view.port_of(a0.index), Ok(Port { link: a0.index, tags: vec![] }));

    let permanent = view.neighbour(a0.index, ip("192.0.2.77")).expect("the neighbour");
    assert_eq!((permanent.mac, permanent.state), (Some([2, 0, 0, 0, 0, 0x77]), NeighbourState::Permanent));
}

/// Guards VLAN interfaces, one on another: a route by them leads to the port, with the outer tag first.
#[test]
fn stacked_vlans_lead_to_their_port() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    if !has_vlans(here) {
        return;
    }
    let mut mirror = here.mirror();
    for line in [
        "link add link a0 name outer type vlan protocol 802.1ad id 100",
        "link add link outer name inner type vlan id 7",
        "link set outer up",
        "link set inner up",
        "addr add 10.7.0.1/24 dev inner",
    ] {
        here.ip(line);
    }
    settle(here, &mut mirror, "two VLANs");
    let view = mirror.view();
    let a0 = link(view, "a0").index;
    let outer = Tag { ethertype: 0x88a8, id: 100 };
    let inner = Tag { ethertype: 0x8100, id: 7 };
    let tagged = via(view, "10.7.0.9").link;
    assert_eq!(view.port_of(tagged), Ok(Port { link: a0, tags: vec![outer, inner] }));
    assert_eq!(view.port_of(link(view, "outer").index), Ok(Port { link: a0, tags: vec![outer] }));
    here.ip("link del outer");
    settle(here, &mut mirror, "the end of both");
    assert!(mirror.view().link(tagged).is_none());
}

/// Guards the following: after each change that a person or a daemon makes, the view is what a fresh dump gives. Among
/// them are those that the kernel does not announce: routes that go with a link, an address, or one of several next
/// hops.
#[test]
fn the_view_follows_every_change() {
    if !privileged() {
        return;
    }
    let Pair { here, there } = &Pair::new();
    let mut mirror = here.mirror();
    for line in [
        "addr add 192.0.2.50/24 dev a0",
        "addr add 10.1.0.1/24 dev a0",
        "addr add 2001:db8:1::1/64 dev a0",
        "route add 198.51.100.0/24 via 192.0.2.2",
        "route replace 198.51.100.0/24 via 192.0.2.3",
        "route append 198.51.100.0/24 via 192.0.2.4",
        "route replace 198.51.100.0/24 via 192.0.2.5",
        "route del 198.51.100.0/24 via 192.0.2.4",
        "route change 198.51.100.0/24 via 192.0.2.6 mtu 1300",
        "route add 10.0.0.0/8 nexthop via 192.0.2.7 nexthop via 192.0.2.8 weight 9",
        "route add 198.51.102.0/24 via 10.1.0.2 src 192.0.2.50",
        "-6 route add 2001:db8:7::/48 via 2001:db8::7",
        "-6 route append 2001:db8:7::/48 via 2001:db8::8",
        "-6 route append 2001:db8:7::/48 via 2001:db8::9",
        "-6 route del 2001:db8:7::/48 via 2001:db8::8",
        "-6 route replace 2001:db8:7::/48 via 2001:db8::9 metric 5",
        "-6 route add blackhole 2001:db8:8::/48",
        "addr del 192.0.2.50/24 dev a0",
        "addr del 10.1.0.1/24 dev a0",
        "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev a0 nud permanent",
        "neigh replace 192.0.2.77 lladdr 02:00:00:00:00:78 dev a0 nud permanent",
        "neigh add proxy 192.0.2.78 dev a0",
        "neigh del 192.0.2.77 dev a0",
        "link set a0 mtu 1400",
        "link set a0 name renamed",
        "link set renamed down",
        "link set renamed up",
        "link set renamed address 02:00:00:00:aa:01",
        "link add dum0 type veth peer name dum1",
        "link set dum0 up",
        "link set dum1 up",
        "addr add 192.0.2.63/32 dev dum0",
        "route add 198.51.105.0/24 dev dum0",
        "addr del 192.0.2.63/32 dev dum0",
        "addr add 2001:db8::1/64 dev renamed nodad",
        "addr add 2001:db8:d::1/64 dev dum0 nodad",
        "-6 route add 2001:db8:9::/48 nexthop via 2001:db8::7 dev renamed nexthop via 2001:db8:d::7 dev dum0",
        "link set dum0 down",
        "link del dum0",
        "route flush table main",
    ] {
        here.ip(line);
        settle(here, &mut mirror, line);
    }
    // The kernel notices a carrier in its own time.
    for carrier in [false, true] {
        there.ip(&format!("link set b0 {}", if carrier { "up" } else { "down" }));
        wait(&mut mirror, "the carrier", |view, _| {
            link(view, "renamed").up && link(view, "renamed").running == carrier
        });
        settle(here, &mut mirror, "a change of carrier");
    }
}

/// Guards against the kernel's silence where no IPv6 address speaks up: the end of a link's IPv4 routes, and of one of
/// two next hops when its carrier is lost and `ignore_routes_with_linkdown` is set.
#[test]
fn silent_changes_of_ipv4_routes_are_noticed() {
    if !privileged() {
        return;
    }
    let Pair { here, there } = &Pair::new();
    here.ip("link add c0 type veth peer name c1");
    here.enter(|| {
        for (name, value) in [
            ("ipv6/conf/a0/disable_ipv6", "1"),
            ("ipv6/conf/c0/disable_ipv6", "1"),
            ("ipv6/conf/c1/disable_ipv6", "1"),
            ("ipv4/conf/all/ignore_routes_with_linkdown", "1"),
            ("ipv4/conf/a0/ignore_routes_with_linkdown", "1"),
        ] {
            fs::write(format!("/proc/sys/net/{name}"), value).expect("writing a sysctl");
        }
    });
    for line in [
        "link set c0 up",
        "link set c1 up",
        "addr add 10.9.0.1/24 dev c0",
        "route add 198.51.100.0/24 via 192.0.2.2",
        "route add 203.0.113.0/24 nexthop via 192.0.2.2 nexthop via 10.9.0.2",
    ] {
        here.ip(line);
    }
    let mut mirror = here.mirror();
    settle(here, &mut mirror, "the configuration");
    let gateways = |view: &View| -> BTreeSet<IpAddr> {
        (1..60).filter_map(|last| via(view, &format!("203.0.113.{last}")).gateway).collect()
    };
    assert_eq!(gateways(mirror.view()).len(), 2);

    there.ip("link set b0 down");
    wait(&mut mirror, "the loss of one way", |view, _| gateways(view) == BTreeSet::from([ip("10.9.0.2")]));
    settle(here, &mut mirror, "loss of carrier");
    there.ip("link set b0 up");
    wait(&mut mirror, "the return of both ways", |view, _| gateways(view).len() == 2);
    settle(here, &mut mirror, "return of carrier");

    here.ip("link set a0 down");
    wait(&mut mirror, "the end of a route", |view, _| view.route(ip("198.51.100.1")) == Answer::None(NoRoute::Missing));
    settle(here, &mut mirror, "a link that is down");
}

/// Guards the events themselves: the director acts on them, and not on the view alone.
#[test]
fn each_change_is_an_event() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    let mut mirror = here.mirror();
    let a0 = link(mirror.view(), "a0").index;

    here.ip("addr add 192.0.2.50/24 dev a0");
    wait(&mut mirror, "the address", |_, events| {
        events
            .iter()
            .any(|event| matches!(event, Event::Address(own) if own.address == ip("192.0.2.50") && own.secondary))
    });
    here.ip("route add default via 192.0.2.254");
    wait(&mut mirror, "the route", |_, events| {
        events.iter().any(|event| matches!(event, Event::Route(route) if route.gateway() == Some(ip("192.0.2.254"))))
    });
    here.ip("neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev a0 nud permanent");
    wait(&mut mirror, "the neighbour", |_, events| {
        events.iter().any(|event| {
            matches!(event, Event::Neighbour(entry)
            if entry.link == a0 && entry.mac == Some([2, 0, 0, 0, 0, 0x77]))
        })
    });
    here.ip("neigh del 192.0.2.77 dev a0");
    wait(&mut mirror, "the neighbour's end", |_, events| {
        let gone = Event::NeighbourGone { link: a0, address: ip("192.0.2.77") };
        let failed = |event: &Event| matches!(event, Event::Neighbour(entry) if entry.mac.is_none());
        events.contains(&gone) || events.iter().any(failed)
    });
    // The kernel sends no message for this route.
    here.ip("link set a0 down");
    wait(&mut mirror, "the route's end", |view, events| {
        let gone = events.iter().any(|event| matches!(event, Event::RouteGone(route) if route.gateway().is_some()));
        gone && view.route(ip("8.8.8.8")) == Answer::None(NoRoute::Missing)
    });
    assert!(mirror.view().is_local(ip("192.0.2.1")), "an address of a link that is down is still ours");
    here.ip("link del a0");
    wait(&mut mirror, "the link's end", |view, events| {
        events.iter().any(|event| matches!(event, Event::LinkGone(link) if link.name == "a0"))
            && view.addresses_of(a0).count() == 0
            && !view.neighbours().any(|entry| entry.link == a0)
    });
    settle(here, &mut mirror, "the deletion of the link");
}

/// Guards resolution by the kernel on our behalf, by real ARP and ND: a living neighbour, a dead one, one that changes
/// its ethernet address, and one that moves there by announcement.
#[test]
fn neighbours_are_resolved_and_followed() {
    if !privileged() {
        return;
    }
    let Pair { here, there } = &Pair::new();
    let mut mirror = here.mirror();
    let a0 = link(mirror.view(), "a0").index;
    let old = link(there.mirror().view(), "b0").mac;
    for address in ["192.0.2.2", "2001:db8::2"] {
        assert_eq!(mirror.view().neighbour(a0, ip(address)), None, "nobody asked yet");
        mirror.ask_neighbour(a0, ip(address)).expect("asking");
        let events = wait(&mut mirror, address, |view, _| {
            view.neighbour(a0, ip(address)).is_some_and(|entry| entry.mac == Some(old))
        });
        assert!(events.iter().any(|event| matches!(event, Event::Neighbour(entry)
            if entry.address == ip(address) && entry.mac == Some(old) && entry.state == NeighbourState::Reachable)));
    }

    mirror.ask_neighbour(a0, ip("192.0.2.99")).expect("asking");
    wait(&mut mirror, "the failure of a dead neighbour", |view, _| {
        view.neighbour(a0, ip("192.0.2.99"))
            .is_some_and(|entry| entry.state == NeighbourState::Failed && entry.mac.is_none())
    });

    // The other side gets a new ethernet address and tells so by our own announcements.
    let new = [0x02, 0, 0, 0, 0xbb, 0x02];
    there.ip("link set b0 address 02:00:00:00:bb:02");
    let b0 = link(there.mirror().view(), "b0");
    assert_eq!(b0.mac, new);
    for address in ["192.0.2.2", "2001:db8::2"] {
        there.enter(|| announce(&b0, ip(address)).expect("announcing"));
        wait(&mut mirror, "the new ethernet address", |_, events| {
            events.iter().any(|event| {
                matches!(event, Event::Neighbour(entry)
                if entry.address == ip(address) && entry.mac == Some(new))
            })
        });
    }
    // An announced entry is not confirmed; asking confirms it.
    assert_eq!(mirror.view().neighbour(a0, ip("192.0.2.2")).map(|entry| entry.state), Some(NeighbourState::Stale));
    mirror.ask_neighbour(a0, ip("192.0.2.2")).expect("asking");
    wait(&mut mirror, "confirmation", |view, _| {
        view.neighbour(a0, ip("192.0.2.2")).is_some_and(|entry| entry.state == NeighbourState::Reachable)
    });
    settle(here, &mut mirror, "resolution");

    let error = mirror.ask_neighbour(4711, ip("192.0.2.2")).expect_err("there is no such link");
    assert!(matches!(error, Error::NoSuchLink { link: 4711, .. }), "{error}");
}

/// Guards the frames on the wire: what arrives at the other end is what the builders made, with VLAN tags where they
/// belong.
#[test]
fn announcements_arrive() {
    if !privileged() {
        return;
    }
    let Pair { here, there } = &Pair::new();
    let tagged = has_vlans(here);
    if tagged {
        here.ip("link add link a0 name v5 type vlan id 5");
        here.ip("link set v5 up");
    }
    let mirror = here.mirror();
    let a0 = link(mirror.view(), "a0");
    let (four, six) = ("192.0.2.88", "2001:db8::88");
    there.enter(|| {
        let capture = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .expect("a packet socket");
        setsockopt(&capture, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).expect("a timeout");
        here.enter(|| {
            announce(&a0, ip(four)).expect("announcing");
            announce(&a0, ip(six)).expect("announcing");
            if tagged {
                announce(&link(mirror.view(), "v5"), ip(four)).expect("announcing");
            }
        });
        let mut wanted: Vec<Vec<u8>> = vec![
            arp_frame(a0.mac, four.parse().expect("IPv4")).to_vec(),
            advertisement_frame(a0.mac, six.parse().expect("IPv6")).to_vec(),
        ];
        if tagged {
            // The same once more: the tag travels beside the frame, and the packet socket does not show it.
            wanted.push(wanted[0].clone());
        }
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while !wanted.is_empty() {
            assert!(Instant::now() < end, "frames that did not arrive: {wanted:02x?}");
            let Ok(length) = recv(capture.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) else {
                continue;
            };
            if let Some(at) = wanted.iter().position(|frame| frame[..] == buffer[..length]) {
                wanted.swap_remove(at);
            }
        }
    });
    let loopback = link(mirror.view(), "lo");
    assert!(matches!(announce(&loopback, ip(four)), Err(Error::NotEthernet { .. })));
}

/// Guards owning virtual addresses: added once, not taken from others, usable at once, never a source by default.
#[test]
fn virtual_addresses_come_and_go() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    let mut mirror = here.mirror();
    let a0 = link(mirror.view(), "a0").index;
    for (address, prefix) in [("192.0.2.100", 32), ("2001:db8::100", 128)] {
        let address = ip(address);
        assert!(mirror.add_address(a0, address, prefix).expect("adding"));
        assert!(!mirror.add_address(a0, address, prefix).expect("adding again"), "it was there already");
        wait(&mut mirror, "the address", |view, _| view.route(address) == Answer::Local && view.is_local(address));
        settle(here, &mut mirror, "adding an address");
        let own = mirror.view().addresses_of(a0).find(|own| own.address == address).expect("the address").clone();
        assert!(own.is_host() && !own.tentative, "{own:?}");
        assert_eq!(own.deprecated, address.is_ipv6(), "{own:?}");
        assert!(mirror.delete_address(a0, address, prefix).expect("deleting"));
        assert!(!mirror.delete_address(a0, address, prefix).expect("deleting again"), "it was gone already");
        wait(&mut mirror, "the address's end", |view, _| !view.is_local(address));
        settle(here, &mut mirror, "deleting an address");
    }
    assert!(matches!(mirror.add_address(4711, ip("192.0.2.100"), 32), Err(Error::NoSuchLink { .. })));
    assert!(matches!(mirror.add_address(a0, ip("192.0.2.100"), 33), Err(Error::Prefix { .. })));
}

/// Guards against lost events: with room for a few of them and thousands of changes the mirror reads everything again,
/// says so, and its events still tell the whole story.
#[test]
fn lost_events_are_made_good() {
    if !privileged() {
        return;
    }
    const ROUTES: u32 = 4000;
    let Pair { here, .. } = &Pair::new();
    let mut mirror = here.enter(|| Mirror::open_with_buffer(4096).expect("a mirror"));
    let route = |number: u32| format!("10.{}.{}.0/24 via 192.0.2.2", number / 256, number % 256);
    here.batch((0..ROUTES).map(|number| format!("route add {}", route(number))));
    let events = settle(here, &mut mirror, "thousands of new routes");
    let resynced = events.iter().filter(|event| **event == Event::Resynced).count();
    assert!((1..=3).contains(&resynced), "a loss is made good at once, not again and again: {resynced} times");
    let added = events.iter().filter(|event| matches!(event, Event::Route(route) if route.prefix == 24)).count();
    assert_eq!(added, ROUTES as usize);

    here.batch((0..ROUTES).map(|number| format!("route del {}", route(number))));
    let events = settle(here, &mut mirror, "thousands of deleted routes");
    assert!(events.contains(&Event::Resynced));
    let gone = events.iter().filter(|event| matches!(event, Event::RouteGone(route) if route.prefix == 24)).count();
    assert_eq!(gone, ROUTES as usize);

    // And it still listens.
    here.ip("route add 198.51.100.0/24 via 192.0.2.2");
    let events = wait(&mut mirror, "an ordinary event", |_, events| !events.is_empty());
    assert!(!events.contains(&Event::Resynced), "{events:?}");
}

/// Guards a mirror that is read while the tables change without pause: it neither hangs nor ends with another state.
#[test]
fn changes_during_dumps_are_not_lost() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    let mut mirror = here.enter(|| Mirror::open_with_buffer(4096).expect("a mirror"));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            here.batch((0..6000_u32).map(|step| {
                let number = step / 3 * 7 % 500;
                // Deleting what is not there would end the batch, so each step makes what the next one changes.
                let (verb, gateway) = [("replace", 3), ("replace", 4), ("del", 4)][step as usize % 3];
                format!("route {verb} 10.0.{}.{}/32 via 192.0.2.{gateway}", number / 256, number % 256)
            }));
        });
        let mut events = Vec::new();
        while !writer.is_finished() {
            match mirror.receive(&mut events) {
                Ok(()) | Err(Error::Unsettled { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    settle(here, &mut mirror, "a storm of changes");
}

/// What `ip route get` says, in our words.
fn kernel_answer(namespace: &Namespace, destination: &str) -> String {
    let family = if destination.contains(':') { "-6" } else { "-4" };
    let output = namespace.try_ip(&format!("{family} route get {destination}"));
    if !output.status.success() {
        return "none".to_owned();
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1)).copied();
    match words.first().copied() {
        Some("local" | "anycast") => "local".to_owned(),
        Some("broadcast" | "multicast" | "unreachable" | "prohibit" | "blackhole") => "none".to_owned(),
        _ => format!("via {:?} dev {:?} src {:?}", after("via"), after("dev"), after("src")),
    }
}

fn our_answer(view: &View, destination: &str) -> String {
    match view.route(ip(destination)) {
        Answer::Local => "local".to_owned(),
        Answer::None(_) => "none".to_owned(),
        Answer::Via(via) => {
            let gateway = via.gateway.map(|gateway| gateway.to_string());
            let device = view.link(via.link).map(|link| link.name.as_str());
            let source = via.source.map(|source| source.to_string());
            format!("via {:?} dev {device:?} src {:?}", gateway.as_deref(), source.as_deref())
        }
        Answer::Unsupported(reason) => format!("unsupported {reason:?}"),
    }
}

/// Guards the lookup against the kernel's own: overlapping prefixes, metrics, the merged tables of IPv4, `throw`,
/// AnyIP.
#[test]
fn lookups_agree_with_the_kernel() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    for line in [
        "link add c0 type veth peer name c1",
        "link set c0 up",
        "link set c1 up",
        "addr add 10.9.0.1/24 dev c0",
        "addr add 10.9.0.40/32 dev c0",
        "addr add 2001:db8:9::1/64 dev c0 nodad",
        "route add default via 192.0.2.254",
        "route add 10.0.0.0/8 via 192.0.2.10 metric 20",
        "route add 10.0.0.0/8 via 192.0.2.11 metric 10",
        "route add 10.64.0.0/10 via 10.9.0.2",
        "route add 10.64.1.0/24 via 10.9.0.3 src 192.0.2.1",
        "route add blackhole 10.64.2.0/24",
        "route add throw 10.64.3.0/24",
        "route add 10.64.3.0/24 via 192.0.2.33 table default",
        "route add default via 192.0.2.66 table default",
        "route add local 172.16.0.0/12 dev lo table local",
        "route add 172.20.0.0/16 via 10.9.0.4",
        "route add 203.0.113.0/24 via 192.0.2.12 tos 0x10",
        "-6 route add default via 2001:db8::fe metric 30",
        "-6 route add default via 2001:db8::fd metric 20",
        "-6 route add 2001:db8:40::/42 via 2001:db8:9::2",
        "-6 route add unreachable 2001:db8:41::/48",
        "-6 route add throw 2001:db8:42::/48",
        "-6 route add local 2001:db8:50::/44 dev lo",
        "-6 route add 2001:db8:51::/48 via 2001:db8:9::3",
    ] {
        here.ip(line);
    }
    let mut mirror = here.mirror();
    settle(here, &mut mirror, "the configuration");
    let mut destinations: Vec<String> = Vec::new();
    for third in [0, 1, 2, 3, 64, 255] {
        for second in [0, 9, 63, 64, 65, 128] {
            destinations.push(format!("10.{second}.{third}.1"));
            destinations.push(format!("10.{second}.{third}.40"));
        }
        destinations.push(format!("172.{}.0.1", 16 + third % 16));
        destinations.push(format!("192.0.2.{third}"));
        destinations.push(format!("2001:db8:4{}::1", third % 10));
        destinations.push(format!("2001:db8:5{}::1", third % 10));
    }
    destinations.extend(
        [
            "172.20.3.3",
            "8.8.8.8",
            "127.0.0.1",
            "127.1.2.3",
            "203.0.113.5",
            "255.255.255.255",
            "10.9.0.255",
            "2001:db8::2",
        ]
        .map(str::to_owned),
    );
    destinations.extend(["2001:db8:9::1", "2001:db8:9::77", "2001:db8:9::", "2600::1", "::1"].map(str::to_owned));
    for destination in destinations {
        let (ours, theirs) = (our_answer(mirror.view(), &destination), kernel_answer(here, &destination));
        assert_eq!(ours, theirs, "the way to {destination}");
    }
}

/// Guards the facts of an interface: driver, queues, offloads as they are now, in this namespace and not in another.
#[test]
fn facts_of_a_veth() {
    if !privileged() {
        return;
    }
    let here = Namespace::new("facts");
    here.ip("link add a0 numrxqueues 3 numtxqueues 3 mtu 1420 type veth peer name a1");
    let read = || here.enter(|| Facts::read("a0"));
    let facts = read().expect("facts");
    assert_eq!(facts.driver.as_deref(), Some("veth"));
    assert_eq!((facts.link.mtu, facts.link.kind.as_deref()), (1420, Some("veth")));
    assert_eq!(facts.link, link(here.mirror().view(), "a0"));
    let channels = facts.channels.expect("veth tells its queues");
    assert_eq!((facts.receive_queues, channels.receive_max), (channels.receive, 3), "{facts:?}");
    assert!(facts.receive_queues >= 1);
    for (feature, get) in [
        ("rxvlan", (|facts: &Facts| facts.rx_vlan_offload) as fn(&Facts) -> bool),
        ("txvlan", |facts: &Facts| facts.tx_vlan_offload),
        ("gro", |facts: &Facts| facts.gro),
        ("tso", |facts: &Facts| facts.tso),
    ] {
        for on in [false, true] {
            let word = if on { "on" } else { "off" };
            let status =
                Command::new("ip").args(["netns", "exec", &here.name, "ethtool", "-K", "a0", feature, word]).status();
            if !status.is_ok_and(|status| status.success()) {
                skipped!("ethtool is missing or cannot switch {feature}");
                continue;
            }
            assert_eq!(get(&read().expect("facts")), on, "{feature} {word}");
        }
    }
    assert!(matches!(here.enter(|| Facts::read("b0")), Err(Error::NoSuchInterface { name }) if name == "b0"));
}

/// Guards next-hop objects: routes by them are followed when the kernel expands them, and named when it does not; an
/// object that goes away takes its routes with it without a message for each.
#[test]
fn nexthop_objects_are_followed_or_named() {
    if !privileged() {
        return;
    }
    let Pair { here, .. } = &Pair::new();
    let mut mirror = here.mirror();
    if !here.try_ip("nexthop add id 5 via 192.0.2.2 dev a0").status.success() {
        skipped!("no next-hop objects here");
        return;
    }
    here.ip("route add 198.51.100.0/24 nhid 5");
    settle(here, &mut mirror, "a route by an object");
    assert_eq!(via(mirror.view(), "198.51.100.1").gateway, Some(ip("192.0.2.2")));
    here.ip("nexthop replace id 5 via 192.0.2.3 dev a0");
    settle(here, &mut mirror, "a changed object");
    assert_eq!(via(mirror.view(), "198.51.100.1").gateway, Some(ip("192.0.2.3")));
    here.enter(|| fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0")).expect("writing a sysctl");
    let bare = here.mirror();
    let named = Answer::Unsupported(Unsupported::NexthopObject { id: 5 });
    assert_eq!(bare.view().route(ip("198.51.100.1")), named);
    here.ip("nexthop del id 5");
    wait(&mut mirror, "the route's end", |view, _| view.route(ip("198.51.100.1")) == Answer::None(NoRoute::Missing));
    assert!(
        !mirror.view().routes().iter().any(|route| route.kind == RouteKind::Unicast && route.nexthop_object == Some(5))
    );
}
