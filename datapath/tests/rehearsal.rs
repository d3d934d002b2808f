//! The rehearsed director: what is typed, who talks, and what time does to it.

mod plugins;

use std::net::{IpAddr, SocketAddr};

use xvs::control::protocol::{Action, Assignment, Grants, MarkRule, SchedulerAction};
use xvs::ipvsadm::names::Names;
use xvs::ipvsadm::rehearsed::{Outcome, command};
use xvs::rehearsal::segment::flags::{ACK, FIN, RST, SYN};
use xvs::rehearsal::{Fate, Plan, Rehearsal, Segment};
use xvs_engine::drop::DropReason;
use xvs_engine::flow::Protocol;
use xvs_engine::real::Generation;

/// Numbers only.
struct Nameless;

impl Names for Nameless {
    fn address(&self, _: &str) -> Option<IpAddr> {
        None
    }

    fn host(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn port(&self, _: &str, _: xvs::control::protocol::Protocol) -> Option<u16> {
        None
    }

    fn service(&self, _: u16, _: xvs::control::protocol::Protocol) -> Option<String> {
        None
    }
}

struct Site(Rehearsal);

impl Site {
    fn new(lines: &[&str]) -> Site {
        let plan = Plan { connections: 4096, servers: 64, workers: 2, generation: Generation::New };
        let mut site = Site(Rehearsal::new(&plan));
        for line in lines {
            site.run(line);
        }
        site
    }

    fn outcome(&mut self, line: &str) -> Outcome {
        command(&mut self.0, &format!("ipvsadm {line}"), "", &Nameless)
    }

    fn run(&mut self, line: &str) -> String {
        let outcome = self.outcome(line);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""), "{line}");
        outcome.stdout
    }

    /// The connection table without its two title lines, sorted.
    fn connections(&mut self) -> Vec<String> {
        let mut rows: Vec<String> = self.run("-Lnc").lines().skip(2).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// Every packet to this address carries the mark.
    fn mark(&mut self, mark: u32, destination: &str) {
        let destination = destination.parse().expect("an address");
        let rule = MarkRule { mark, destination, source: None, protocol: None, ports: None };
        self.0.act(Action::AddMark { rule, first: false }).expect("it is right");
    }

    fn send(&mut self, from: &str, to: &str, flags: u8) -> Fate {
        self.0.send(&Segment::tcp(address(from), address(to), flags))
    }

    /// A handshake with a NAT server.
    fn open(&mut self, client: &str, service: &str) -> SocketAddr {
        let Fate::Server(server) = self.send(client, service, SYN) else { panic!("{client} is not served") };
        let reply = self.send(&server.to_string(), client, SYN | ACK);
        assert_eq!(reply, Fate::Client { from: address(service), to: address(client) });
        assert_eq!(self.send(client, service, ACK), Fate::Server(server));
        server
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

const VIP: &str = "192.0.2.1:80";

/// Guards the listing of templates: port 0, NONE until a connection stands, ASSURED then, their own clock; and that a
/// client comes back to its server.
#[test]
fn templates_are_listed() {
    let mut site = Site::new(&[
        "-A -t 192.0.2.1:80 -s rr -p 300 -M 255.255.255.0",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m",
        "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m",
    ]);
    assert_eq!(site.send("198.51.100.7:4000", VIP, SYN), Fate::Server(address("10.0.0.2:80")));
    assert_eq!(
        site.connections(),
        [
            "TCP 01:00  SYN_RECV    198.51.100.7:4000  192.0.2.1:80       10.0.0.2:80",
            "TCP 05:00  NONE        198.51.100.0:0     192.0.2.1:80       10.0.0.2:80",
        ]
    );
    site.0.advance(10_000);
    assert_eq!(site.open("198.51.100.8:4000", VIP), address("10.0.0.2:80"), "the same 24 bits");
    let rows = site.connections();
    assert!(
        rows.contains(&"TCP 05:00  ASSURED     198.51.100.0:0     192.0.2.1:80       10.0.0.2:80".to_owned()),
        "{rows:?}"
    );
    assert_eq!(site.open("198.51.101.8:4000", VIP), address("10.0.0.1:8080"), "others are scheduled");
    let persistent = site.run("-Ln --persistent-conn");
    assert!(
        persistent.contains("  -> 10.0.0.2:80                  1         1           2          0"),
        "{persistent}"
    );
}

/// Guards the listing of a mark service's templates: every protocol, the mark where an address would be.
#[test]
fn templates_of_marks_are_listed() {
    let mut site = Site::new(&["-A -f 7 -s rr -p 60", "-a -f 7 -r 10.0.0.1:0 -g"]);
    site.mark(7, "192.0.2.9");
    assert_eq!(site.send("198.51.100.7:4000", "192.0.2.9:22", SYN), Fate::Server(address("10.0.0.1:22")));
    assert_eq!(
        site.connections(),
        [
            "IP  01:00  NONE        198.51.100.7:0     0.0.0.7:0          10.0.0.1:0",
            "TCP 01:00  SYN_RECV    198.51.100.7:4000  192.0.2.9:22       10.0.0.1:22",
        ]
    );
    assert!(site.run("-Ln -f 7").contains("FWM  7 rr persistent 60\n"));
}

/// Guards the virtual clock: connections end at their time and are not counted any more, and rates rise and fade.
#[test]
fn time_passes() {
    let mut site = Site::new(&["-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m"]);
    let count = |site: &mut Site, counts: &str| {
        let listing = site.run("-Ln -t 192.0.2.1:80");
        assert!(listing.contains(&format!("Masq    1      {counts}")), "{counts}: {listing}");
    };
    site.open("198.51.100.7:4000", VIP);
    count(&mut site, "1          0");
    assert_eq!(site.send("198.51.100.7:4000", VIP, RST), Fate::Server(address("10.0.0.1:80")));
    count(&mut site, "0          1");
    site.0.advance(9_900);
    count(&mut site, "0          1");
    site.0.advance(200);
    count(&mut site, "0          0");
    assert!(site.connections().is_empty());

    site.0.advance(60_000);
    for client in 0..200 {
        site.send(&format!("198.51.100.9:{}", 2000 + client), VIP, SYN);
    }
    site.0.advance(2_000);
    let rate = |site: &mut Site| site.run("-Ln -t 192.0.2.1:80 --rate").lines().nth(2).map(str::to_owned);
    assert_eq!(
        rate(&mut site).as_deref(),
        Some("TCP  192.0.2.1:80                       25       25        0     1500        0")
    );
    site.0.advance(60_000);
    assert_eq!(
        rate(&mut site).as_deref(),
        Some("TCP  192.0.2.1:80                        0        0        0        0        0")
    );
}

/// Guards a removed server: its connections are dropped and listed, and adding it again brings them back.
#[test]
fn a_removed_server_comes_back() {
    let mut site = Site::new(&["-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m"]);
    site.open("198.51.100.7:4000", VIP);
    site.run("-d -t 192.0.2.1:80 -r 10.0.0.1:80");
    assert_eq!(site.send("198.51.100.7:4000", VIP, ACK), Fate::Dropped(DropReason::ServerGone));
    assert_eq!(site.connections().len(), 1);
    assert_eq!(site.send("198.51.100.8:4000", VIP, SYN), Fate::Refused, "nobody is there for a new client");
    site.run("-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 5");
    assert_eq!(site.send("198.51.100.7:4000", VIP, FIN | ACK), Fate::Server(address("10.0.0.1:80")));
    let listing = site.run("-Ln -t 192.0.2.1:80");
    assert!(listing.contains("  -> 10.0.0.1:80                  Masq    5      0          1"), "{listing}");
    assert_eq!(site.outcome("-Ln -t 192.0.2.9:80").status, 1);
}

/// Guards one-packet scheduling and what is read off: each datagram is scheduled and leaves no entry; a DR server is told
/// by its MAC, a tunnelled one by the outer header.
#[test]
fn whom_a_packet_is_for() {
    let mut site = Site::new(&[
        "-A -u 192.0.2.1:53 -s rr -o",
        "-a -u 192.0.2.1:53 -r 10.0.0.1 -g",
        "-a -u 192.0.2.1:53 -r 10.0.0.2 -i",
        "-a -u 192.0.2.1:53 -r 10.0.0.3:5353 -m",
    ]);
    let mut chosen = Vec::new();
    for _ in 0..4 {
        let (from, to) = (address("198.51.100.7:4000"), address("192.0.2.1:53"));
        match site.0.send(&Segment { protocol: Protocol::UDP, from, to, flags: 0, payload: b"?" }) {
            Fate::Server(server) => chosen.push(server.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(chosen, ["10.0.0.3:5353", "10.0.0.2:53", "10.0.0.1:53", "10.0.0.3:5353"]);
    assert!(site.connections().is_empty());
    assert!(site.run("-Ln --stats").contains("UDP  192.0.2.1:53                        4        4        0"));
}

/// Guards the engine for SIP from the command line to the listing: calls are scheduled each by itself, listed with their
/// Call-IDs, a message without one is dropped, and a server's answer leaves from the VIP; an edit without it ends that.
#[test]
fn calls_are_listed() {
    let mut site = Site::new(&[
        "-A -u 192.0.2.4:5060 -s rr --pe sip -p 60 --ops",
        "-a -u 192.0.2.4:5060 -r 10.0.0.1:5060 -m",
        "-a -u 192.0.2.4:5060 -r 10.0.0.2:5060 -m",
    ]);
    let (client, service) = (address("198.51.100.7:5060"), address("192.0.2.4:5060"));
    let message = |site: &mut Site, from, to, header: &str| {
        let payload = format!("OPTIONS sip:x SIP/2.0\r\n{header}\r\n\r\n").into_bytes();
        site.0.send(&Segment { protocol: Protocol::UDP, from, to, flags: 0, payload: &payload })
    };
    let [one, two] = ["10.0.0.1:5060", "10.0.0.2:5060"].map(address);
    for (header, server) in [("Call-ID: a@x", two), ("i: b@x", one), ("Call-ID: a@x", two)] {
        assert_eq!(message(&mut site, client, service, header), Fate::Server(server), "{header}");
    }
    assert_eq!(message(&mut site, client, service, "Subject: x"), Fate::Dropped(DropReason::NoCallId));
    assert_eq!(message(&mut site, two, client, "Call-ID: a@x"), Fate::Client { from: service, to: client });
    let rows = |site: &mut Site, line: &str| {
        let mut rows: Vec<String> = site.run(line).lines().skip(2).map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let row = |server| format!("UDP 01:00  NONE        198.51.100.7:0     192.0.2.4:5060     {server}");
    let known = [(one, "b@x"), (two, "a@x")];
    assert_eq!(
        rows(&mut site, "-Lnc --persistent-conn"),
        known.map(|(server, call)| format!("{}    sip                {call}", row(server)))
    );
    assert_eq!(rows(&mut site, "-Lnc"), known.map(|(server, _)| row(server)));
    let persistent = site.run("-Ln --persistent-conn");
    assert!(persistent.contains("UDP  192.0.2.4:5060 rr persistent 60 pe sip ops\n"), "{persistent}");
    site.run("-E -u 192.0.2.4:5060 -s rr -p 60 --ops");
    assert_eq!(message(&mut site, two, client, "Call-ID: a@x"), Fate::Dropped(DropReason::NoConnectionReply));
    assert!(matches!(message(&mut site, client, service, "Subject: x"), Fate::Server(_)), "by its address now");
    site.0.advance(62_000);
    assert!(site.connections().is_empty());
}

/// Guards `cache_bypass` from the setting to the listing: a client whose mark service has no server goes to where it wanted,
/// listed with no destination and counted nowhere; without the setting it is refused.
#[test]
fn without_a_server_a_client_goes_on() {
    let mut site = Site::new(&["-A -f 7 -s rr -p 60", "-a -f 7 -r 10.0.0.1:0 -g -w 0"]);
    site.mark(7, "203.0.113.0/24");
    let (client, web) = ("198.51.100.7:4000", "203.0.113.80:80");
    assert_eq!(site.send(client, web, SYN), Fate::Refused);
    let setting = Assignment { name: "net.ipv4.vs.cache_bypass".to_owned(), value: "1".to_owned() };
    site.0.act(Action::Set(vec![setting])).expect("it exists");
    assert_eq!(site.send(client, web, SYN), Fate::Client { from: address(client), to: address(web) });
    let row = "TCP 01:00  SYN_RECV    198.51.100.7:4000  203.0.113.80:80    0.0.0.0:0";
    assert_eq!(site.connections(), [row], "and no template");
    let stats = site.run("-Ln --stats");
    assert!(
        stats.contains("FWM  7                                   0        0        0        0        0\n"),
        "{stats}"
    );
    site.run("-e -f 7 -r 10.0.0.1:0 -g -w 1");
    assert_eq!(site.send(client, web, ACK), Fate::Client { from: address(client), to: address(web) }, "as it began");
    assert_eq!(site.send("198.51.100.7:4001", web, SYN), Fate::Server(address("10.0.0.1:80")));
}

/// Guards LVS's own tools with plugins: what -S saves, -R brings back, and the listing names the plugin.
#[test]
fn a_plugin_is_saved_and_restored() {
    let directory = plugins::Directory::new("saved");
    let file = directory.plugin("mine", &plugins::text(8, "", "i32.const 0"));
    let mut site = Site::new(&[]);
    let load = SchedulerAction::Load { name: "mine".into(), file, grants: Grants::default() };
    site.0.act(Action::Scheduler(load)).expect("a plugin");
    site.run("-A -t 192.0.2.1:80 -s wasm:mine");
    site.run("-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m");
    site.run("-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m");
    let saved = site.run("-Sn");
    assert!(saved.contains("-A -t 192.0.2.1:80 -s wasm:mine\n"), "{saved}");
    assert!(site.run("-Ln").contains("TCP  192.0.2.1:80 wasm:mine"));
    site.run("-C");
    let restored = command(&mut site.0, "ipvsadm -R", &saved, &Nameless);
    assert_eq!((restored.status, restored.stderr.as_str()), (0, ""));
    assert_eq!(site.run("-Sn"), saved);
    let client = "198.51.100.7:40000".parse().expect("an address");
    let virtual_address = "192.0.2.1:80".parse().expect("an address");
    let segment = Segment::tcp(client, virtual_address, SYN);
    assert_eq!(site.0.send(&segment), Fate::Server("10.0.0.2:80".parse().expect("an address")), "the plugin's choice");
    site.0.advance(5000);
    let refused = site.outcome("-A -t 192.0.2.1:25 -s wasm:other");
    assert!(refused.status != 0 && refused.stderr.contains("xvs scheduler load other FILE"), "{refused:?}");
}
