//! The configuration from outside: files with their mistakes, plans against a model, and the way back to text.

use std::time::Duration;

use proptest::prelude::*;
use xvs::config::desired::SCHEDULER;
use xvs::config::document::{AbsentWorker, Compat, Demand, InterfaceTable, Kernel, XdpMode};
use xvs::config::plan::{diff_marks, diff_settings, diff_timeouts, needs_restart};
use xvs::config::render::render;
use xvs::config::rules::{check_server, check_service};
use xvs::config::settings::{Gateway, Mac};
use xvs::config::{DOCUMENT_MAX, Desired, Document, ServiceState, diff};
use xvs::control::protocol::*;
use xvs::control::sysctl::Settings;
use xvs::control::timeouts;

const SCHEDULERS: &[&str] =
    &["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];

/// Every key that there is, each with a value that is not its default where it has one.
const FULL: &str = r#"
[director]
control = "/run/other/xvs.sock"
own_vips = true
vip_interface = "eth1"
absent_worker = "pass"
xdp_mode = "native"
compat = "sane"
kernel = "old"
pin = false
cpus = [2, 3]

[connections]
capacity = 65536

[timeouts]
tcp = 1800
tcpfin = 60
udp = 0
close_wait = 30
sctp_established = 60

[sysctl]
drop_entry = 1
"net.ipv4.vs.sloppy_tcp" = true
xvs.refuse_nodest = 0
sync_threshold = [4, 60]

[frames]
size = 4096
count = 8192
rx_ring = 1024
tx_ring = 512
fill_ring = 4096
completion_ring = 256
huge_pages = "require"
busy_poll = true
busy_poll_budget = 32
linger_us = 400
batch = 128

[[interface]]
name = "eth0"
queues = 2
zero_copy = "off"
gateway_mac = "02:00:00:00:00:0A"
vlan = 100

[[interface]]
name = "eth1"

[[mark]]
mark = 7
destination = "2001:db8:1::/48"
source = "2001:db8::/32"
protocol = "tcp"
ports = "443, 8000-8100,80"

[[mark]]
mark = 8
destination = "192.0.2.20"

[[service]]
protocol = "udp"
address = "192.0.2.10:53"
scheduler = "sh"
flags = ["sh-fallback", "sh-port"]
persistent = 300
netmask = 24
engine = "sip"
one_packet = true

[service.timeouts]
udp = 10
established = 0

[[service.server]]
address = "10.0.0.11:5353"
method = "nat"
weight = 3
upper = 100
lower = 80

[[service.server]]
address = "10.0.0.12"

[[service.server]]
address = "[2001:db8::13]:53"
method = "tun"
tunnel = "gue"
tunnel_port = 6080
tunnel_checksum = "remote"

[[service]]
mark = 7
family = "inet6"

[[service.server]]
address = "2001:db8::14"
"#;

fn read(text: &str) -> Result<Desired, Vec<String>> {
    Desired::read(text, "", SCHEDULERS).map_err(|list| list.iter().map(ToString::to_string).collect())
}

/// Plugins, options and tags arrive as the text that a plugin reads, relative paths start where the caller says, and the
/// rules are read back as they were.
#[test]
fn plugins_options_and_tags_are_read() {
    let text = r#"
[director]
scheduler_dir = "plugins"
watch_schedulers = true

[[scheduler]]
name = "mine"
file = "mine.wasm"
grants = ["log", "time"]

[[service]]
address = "192.0.2.1:80"
scheduler = "wasm:mine"
fallback = "rr"
options = { zone = "a", limit = 0x10, share = 0.5, sticky = true }

[[service.server]]
address = "10.0.0.1:80"
tags = { zone = "a", rack = 7 }
"#;
    let mut desired = read(text).unwrap();
    assert_eq!(desired.relative_path(), Some("mine.wasm".as_ref()));
    desired.start_from("/etc/xvs".as_ref());
    assert_eq!((desired.relative_path(), desired.director().watch_schedulers), (None, true));
    assert_eq!(desired.director().scheduler_dir.as_deref(), Some("/etc/xvs/plugins".as_ref()));
    let plugin = &desired.plugins()[0];
    assert_eq!((plugin.name.as_str(), plugin.grants.to_string().as_str()), ("mine", "time,log"));
    assert_eq!(plugin.file, std::path::Path::new("/etc/xvs/mine.wasm"));
    let state = &desired.services()[0];
    assert_eq!((state.spec.scheduler.as_str(), state.spec.native()), ("wasm:mine", "rr"));
    let options = xvs::config::plugins::text(state.spec.options.as_ref().unwrap());
    assert_eq!(options, "limit=16\nshare=0.5\nsticky=true\nzone=a\n");
    assert_eq!(state.servers[0].tags.unwrap().as_str(), "rack=7,zone=a");
    let again = read(&render(None, desired.services())).unwrap();
    assert_eq!(again.services(), desired.services());
}

/// Each key of the file arrives where it belongs: a key that is parsed and then forgotten would show here.
#[test]
fn every_key_counts() {
    let desired = read(FULL).unwrap();
    let director = desired.director();
    assert_eq!(director.control.as_deref(), Some("/run/other/xvs.sock".as_ref()));
    assert!(director.own_vips && !director.pin);
    assert_eq!(director.vip_interface.as_deref(), Some("eth1"));
    assert_eq!(director.absent_worker, AbsentWorker::Pass);
    assert_eq!((director.xdp_mode, director.compat, director.kernel), (XdpMode::Native, Compat::Sane, Kernel::Old));
    assert_eq!(director.cpus.as_deref(), Some(&[2, 3][..]));
    assert_eq!(desired.capacity(), 65536);
    let seconds = |name: &str| desired.timeouts().get(name).copied();
    let named = ["established", "fin_wait", "udp", "close_wait", "sctp_established", "syn_recv"].map(seconds);
    assert_eq!(named, [1800, 60, 0, 30, 60, 60].map(Some), "syn_recv is IPVS's");
    let wishes: Vec<_> = desired.wishes().iter().map(|wish| (wish.name(), wish.value().to_string())).collect();
    let wished = [("drop_entry", "1"), ("sloppy_tcp", "1"), ("sync_threshold", "4\t60"), ("xvs.refuse_nodest", "0")];
    assert_eq!(wishes, wished.map(|(name, value)| (name, value.to_owned())));
    let frames = desired.frames();
    assert_eq!((frames.size, frames.count, frames.rx_ring, frames.tx_ring), (4096, 8192, 1024, 512));
    assert_eq!((frames.fill_ring, frames.completion_ring, frames.batch), (4096, 256, 128));
    assert_eq!((frames.huge_pages, frames.busy_poll, frames.busy_poll_budget), (Demand::Require, true, 32));
    assert_eq!(frames.linger, Duration::from_micros(400));
    let [first, second] = desired.interfaces() else { panic!("two interfaces") };
    assert_eq!((first.name.as_str(), first.queues, first.zero_copy), ("eth0", Some(2), Demand::Off));
    assert_eq!(first.gateway, Some(Gateway { mac: Mac([2, 0, 0, 0, 0, 10]), vlan: Some(100) }));
    assert_eq!((second.name.as_str(), second.queues, second.zero_copy), ("eth1", None, Demand::Auto));
    assert_eq!(second.gateway, None);

    let rules: Vec<String> = desired.marks().iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        ["mark 7 to 2001:db8:1::/48 protocol tcp ports 80,443,8000-8100 from 2001:db8::/32", "mark 8 to 192.0.2.20/32",]
    );

    let [udp, mark] = desired.services() else { panic!("two services") };
    let id = ServiceId::Address { protocol: Protocol::Udp, address: "192.0.2.10:53".parse().unwrap() };
    assert_eq!(
        udp.spec,
        ServiceSpec {
            id,
            scheduler: "sh".into(),
            flags: SchedFlags { one: true, two: true, three: false },
            persistence: Some(Persistence { timeout_s: 300, mask: Mask::leading(Family::Inet, 24) }),
            engine: Some("sip".into()),
            one_packet: true,
            fallback: None,
            options: None,
        }
    );
    assert_eq!(udp.timeouts, ByState::from([("udp".into(), 10)]), "0 is the director's");
    assert!(mark.timeouts.is_empty());
    let server = |address: &str, method, weight, upper, lower| ServerSpec {
        address: address.parse().unwrap(),
        method,
        weight,
        upper,
        lower,
        tags: None,
    };
    let gue = Method::Tun(Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Remote });
    assert_eq!(
        udp.servers,
        [
            server("10.0.0.11:5353", Method::Nat, 3, 100, 80),
            server("10.0.0.12:53", Method::Dr, 1, 0, 0),
            server("[2001:db8::13]:53", gue, 1, 0, 0),
        ]
    );
    assert_eq!(mark.spec.id, ServiceId::Mark { mark: 7, family: Family::Inet6 });
    assert_eq!(mark.spec.scheduler, SCHEDULER);
    assert_eq!(mark.servers, [server("[2001:db8::14]:0", Method::Dr, 1, 0, 0)]);
}

/// An empty file is a configuration, and its values are the documented defaults.
#[test]
fn nothing_is_required() {
    let desired = read("").unwrap();
    let director = desired.director();
    assert_eq!((&director.control, &director.vip_interface, &director.cpus), (&None, &None, &None));
    assert!(!director.own_vips && director.pin);
    assert_eq!(director.absent_worker, AbsentWorker::Drop);
    assert_eq!((director.xdp_mode, director.compat, director.kernel), (XdpMode::Auto, Compat::Ipvs, Kernel::New));
    assert_eq!(desired.capacity(), 1_048_576);
    assert_eq!(*desired.timeouts(), timeouts::defaults());
    let named = ["established", "fin_wait", "udp", "syn_recv"].map(|name| desired.timeouts().get(name).copied());
    assert_eq!(named, [900, 120, 300, 60].map(Some));
    let frames = desired.frames();
    assert_eq!((frames.size, frames.count, frames.batch), (2048, 4096, 64));
    assert_eq!((frames.rx_ring, frames.tx_ring, frames.fill_ring, frames.completion_ring), (2048, 2048, 2048, 2048));
    assert_eq!((frames.huge_pages, frames.busy_poll, frames.busy_poll_budget), (Demand::Auto, false, 64));
    assert_eq!(frames.linger, Duration::ZERO);
    assert!(desired.interfaces().is_empty() && desired.services().is_empty() && desired.marks().is_empty());
}

/// A service with one server, each with these further lines.
fn with(service: &str, server: &str) -> String {
    format!("[[service]]\naddress = \"192.0.2.1:80\"\n{service}\n[[service.server]]\n{server}\n")
}

/// Each mistake is told in exactly this sentence at exactly this place: these are read by people at night.
#[test]
fn mistakes_and_what_is_said_about_them() {
    let v = |lines: &str| with(lines, "address = \"10.0.0.1:80\"");
    let s = |lines: &str| with("", &format!("address = \"10.0.0.1:80\"\n{lines}"));
    #[rustfmt::skip]
    let table: Vec<(String, &[&str])> = vec![
        // What is not TOML.
        ("[director\n".into(), &["line 1, column 10: not TOML: unclosed table, expected `]`"]),
        ("[director]\ncontrol = /run/x\n".into(), &["line 2, column 11: not TOML: a value is missing, or it is text without double quotes"]),
        ("[timeouts]\ntcp 900".into(), &["line 2, column 5: not TOML: a key is followed by = and a value"]),
        ("[frames]\nsize = 2048\nsize = 4096".into(), &["line 3, column 1: not TOML: this key or table stands a second time; [[interface]], [[scheduler]], [[mark]], [[service]] and [[service.server]] repeat in double brackets"]),
        ("[frames]\nx = 192.0.2.1\n".into(), &["line 2, column 10: not TOML: this is no number; text and addresses stand in double quotes"]),
        // Names of tables and keys.
        ("[fraems]\n".into(), &[r#"line 1, column 2: fraems: unknown table (did you mean "frames"?); known here: director, connections, timeouts, sysctl, frames, interface, scheduler, mark, service"#]),
        ("[director]\nvip-interface = \"eth0\"\nweight = 1".into(), &[r#"line 2, column 1: director.vip-interface: unknown key (did you mean "vip_interface"?); known here: control, own_vips, vip_interface, observe_replies, absent_worker, xdp_mode, compat, kernel, pin, cpus, scheduler_dir, watch_schedulers"#, "line 3, column 1: director.weight: unknown key (it belongs to [[service.server]]); known here: control, own_vips, vip_interface, observe_replies, absent_worker, xdp_mode, compat, kernel, pin, cpus, scheduler_dir, watch_schedulers"]),
        (s("wieght = 3"), &[r#"line 6, column 1: service[0].server[0].wieght: unknown key (did you mean "weight"?); known here: address, method, weight, upper, lower, tunnel, tunnel_port, tunnel_checksum, tags"#]),
        ("[[frames]]\n".into(), &["line 1, column 3: frames: there is one such table: write [frames] in single brackets"]),
        ("frames = 3".into(), &["line 1, column 1: frames: this is a table: write [frames], then a line for each key"]),
        ("[interface]\nname = \"eth0\"".into(), &["line 1, column 2: interface: there may be several: write [[interface]] in double brackets, once for each"]),
        ("interface = [1]".into(), &["line 1, column 14: interface[0]: this is not a table: write [[interface]], once for each"]),
        ("[service]\n[[service.server]]".into(), &["line 1, column 2: service: there may be several: write [[service]] in double brackets, once for each"]),
        // Types of values.
        ("[director]\npin = \"yes\"\ncontrol = 3\nxdp_mode = \"natve\"\ncompat = 6\ncpus = [0, \"1\"]\nabsent_worker = \"\"".into(), &[r#"line 2, column 7: director.pin: "yes" should be true or false"#, "line 3, column 11: director.control: 3 should be text in double quotes", r#"line 4, column 12: director.xdp_mode: "natve" is not "auto", "native" or "generic" (did you mean "native"?)"#, "line 5, column 10: director.compat: 6 should be a name in double quotes", r#"line 6, column 12: director.cpus: "1" should be a whole number of at most 64 bits"#, r#"line 7, column 17: director.absent_worker: "" is not "drop" or "pass""#]),
        (s("weight = 1.5"), &["line 6, column 10: service[0].server[0].weight: 1.5 should be a whole number of at most 64 bits"]),
        (s("weight = 99999999999999999999"), &["line 6, column 10: service[0].server[0].weight: 99999999999999999999 should be a whole number of at most 64 bits"]),
        // Settings of the process, the table and the rings.
        ("[director]\ncontrol = \"\"\nvip_interface = \"eth0:1\"\ncpus = [0, 0, -1, 1024]".into(), &["line 2, column 1: director.control: this is the path of a socket, as in /run/xvs/xvs.sock", r#"line 3, column 1: director.vip_interface: "eth0:1" is no name of an interface: no spaces, no / and no : in it"#, "line 4, column 12: director.cpus[1]: CPU 0 stands here twice", "line 4, column 15: director.cpus[2]: -1 is out of range: 0 to 1023", "line 4, column 19: director.cpus[3]: 1024 is out of range: 0 to 1023"]),
        ("[director]\ncpus = []".into(), &["line 2, column 1: director.cpus: no CPU is left to run on: name some, or leave the key out for all"]),
        (format!("[director]\ncontrol = \"/{}\"", "x".repeat(107)), &["line 2, column 1: director.control: 108 bytes are too many for a socket's path: 107 at most"]),
        ("[connections]\ncapacity = 0".into(), &["line 2, column 1: connections.capacity: 0 is out of range: 1 to 1073741824 entries"]),
        ("[timeouts]\ntcp = -1\ntcpfin = 2678401".into(), &["line 2, column 1: timeouts.tcp: -1 is out of range: 0 to 2678400 seconds, where 0 keeps what is", "line 3, column 1: timeouts.tcpfin: 2678401 is out of range: 0 to 2678400 seconds, where 0 keeps what is"]),
        ("[frames]\nsize = 3000\ncount = 4\nrx_ring = 1000\ntx_ring = 0\nfill_ring = 131072\nbusy_poll_budget = 65536\nbatch = 0\nlinger_us = 1001".into(), &["line 2, column 1: frames.size: 3000 is not 2048 or 4096 (bytes)", "line 3, column 1: frames.count: 4 is out of range: 16 to 1048576 frames", "line 4, column 1: frames.rx_ring: 1000 is not a power of two: 512 or 1024 would be", "line 5, column 1: frames.tx_ring: 0 is out of range: 8 to 65536 entries", "line 6, column 1: frames.fill_ring: 131072 is out of range: 8 to 65536 entries", "line 7, column 1: frames.busy_poll_budget: 65536 is out of range: 1 to 65535 packets", "line 8, column 1: frames.batch: 0 is out of range: 1 to 1024 packets", "line 9, column 1: frames.linger_us: 1001 is out of range: 0 to 1000 microseconds"]),
        ("[frames]\nrx_ring = 32\ntx_ring = 8\ncount = 100".into(), &["line 1, column 2: frames.batch: a batch of 64 does not fit into rx_ring, which has 32", "line 1, column 2: frames.batch: a batch of 64 does not fit into tx_ring, which has 8", "line 4, column 1: frames.count: 100 frames are too few: a batch of 64 in hand and one to receive into"]),
        ("[timeouts]\ntpc = 1\nudp = \"1\"\nsctp_closd = 1".into(), &["line 2, column 1: timeouts.tpc: unknown key (did you mean \"tcp\"?); known here: NAMES", "line 3, column 7: timeouts.udp: \"1\" should be a whole number of at most 64 bits", "line 4, column 1: timeouts.sctp_closd: unknown key (did you mean \"sctp_closed\"?); known here: NAMES"]),
        ("[timeouts]\ntcp = 1\nestablished = 2".into(), &["line 2, column 1: timeouts.tcp: this is \"established\" already, by another name"]),
        (v("[[service.timeouts]]\nudp = 1"), &["line 3, column 11: service[0].timeouts: there is one such table: write [service.timeouts] in single brackets"]),
        (v("timeouts = 3"), &["line 3, column 1: service[0].timeouts: this is a table: write [service.timeouts], then a line for each key"]),
        (v("timeouts.udp = -1"), &["line 3, column 10: service[0].timeouts.udp: -1 is out of range: 0 to 2678400 seconds, where 0 is the director's"]),
        // Profile and settings.
        ("[director]\ncompat = \"old\"\nkernel = \"new\"".into(), &[r#"line 2, column 1: director.compat: "old" is a kernel's generation, and kernel names another one: write kernel = "old" instead; compat is "ipvs" (the default) or "sane""#]),
        ("sysctl = 1".into(), &["line 1, column 1: sysctl: this is a table: write [sysctl], then a line for each key"]),
        ("[sysctl]\nsloppy_tcp = 1.5\nxvs.refuse_nodest = 1\n\"xvs.refuse_nodest\" = 1".into(), &["line 2, column 1: sysctl.sloppy_tcp: a setting is a whole number, true or false, or text", r#"line 4, column 1: sysctl."xvs.refuse_nodest": this stands here twice, with and without quotes"#]),
        ("[sysctl]\ndrop_entri = 1\nnet.ipv4.vs.drop_packet = 4\nsync_ports = 3".into(), &[r#"line 2, column 1: sysctl.drop_entri: there is no setting "drop_entri" (did you mean "drop_entry"?); `xvs sysctl list --all` tells all"#, r#"line 3, column 13: sysctl.net.ipv4.vs.drop_packet: net.ipv4.vs.drop_packet does not take "4": it is 0 to 3"#, r#"line 4, column 1: sysctl.sync_ports: net.ipv4.vs.sync_ports does not take "3": it is a power of two, 1 to 64"#]),
        ("[sysctl]\nsync_threshold = \"50 50\"".into(), &[r#"line 2, column 1: sysctl.sync_threshold: net.ipv4.vs.sync_threshold does not take "50 50": it is two numbers, a threshold and a period that is 0 or greater, as in "3 50""#]),
        ("[sysctl]\npmtu_disc = 0\n\"net/ipv4/vs/pmtu_disc\" = 0".into(), &[r#"line 2, column 1: sysctl.pmtu_disc: this is "net/ipv4/vs/pmtu_disc" already, by another name"#]),
        // Interfaces.
        ("[[interface]]\nqueues = 0\n[[interface]]\nname = \"a-name-too-long-by-far\"\n[[interface]]\nname = \"e h\"".into(), &[r#"line 1, column 1: interface[0].name: missing: which interface? as in name = "eth0""#, "line 2, column 1: interface[0].queues: 0 is out of range: 1 to 1024 queues", r#"line 4, column 1: interface[1].name: "a-name-too-long-by-far" is too long for an interface: 15 bytes at most"#, r#"line 6, column 1: interface[2].name: "e h" is no name of an interface: no spaces, no / and no : in it"#]),
        ("[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth0\"".into(), &[r#"line 4, column 1: interface[1].name: "eth0" is interface[0] already"#]),
        ("[[interface]]\nname = \"eth0\"\nvlan = 4095".into(), &["line 3, column 1: interface[0].vlan: 4095 is out of range: 1 to 4094", "line 3, column 1: interface[0].vlan: a tag is written towards a static next hop only: add gateway_mac, or leave vlan out"]),
        ("[[interface]]\nname = \"eth0\"\ngateway_mac = \"01:00:5e:00:00:01\"".into(), &["line 3, column 1: interface[0].gateway_mac: 01:00:5e:00:00:01 is a group address: a next hop has a unicast one (first byte even)"]),
        ("[[interface]]\nname = \"eth0\"\ngateway_mac = \"00:00:00:00:00:00\"".into(), &["line 3, column 1: interface[0].gateway_mac: 00:00:00:00:00:00 is nobody's address"]),
        ("[[interface]]\nname = \"eth0\"\ngateway_mac = \"2:0:0:0:0:1\"".into(), &[r#"line 3, column 1: interface[0].gateway_mac: "2:0:0:0:0:1" is not a MAC address: write six bytes as in 02:00:00:00:00:01"#]),
        // Rules for marks.
        ("mark = 1".into(), &["line 1, column 1: mark: there may be several: write [[mark]] in double brackets, once for each"]),
        ("[[mark]]\n".into(), &["line 1, column 1: mark[0].mark: missing: which mark? as in mark = 1", r#"line 1, column 1: mark[0].destination: missing: packets to where, as in "192.0.2.0/24"?"#]),
        ("[[mark]]\nmark = 0\ndestination = \"192.0.2.1\"\nsource = \"2001:db8::/32\"".into(), &["line 2, column 1: mark[0].mark: mark 0 is the mark of unmarked packets: use 1 or more", "line 4, column 1: mark[0].source: source and destination are of different address families: no packet has both"]),
        ("[[mark]]\nmark = 4294967296\ndestination = \"192.0.2.1/24\"\nsource = \"here\"\nports = \"80,0\"\nprotocol = \"icmp\"\nport = 80".into(), &[r#"line 6, column 12: mark[0].protocol: "icmp" is not "tcp", "udp" or "sctp""#, r#"line 7, column 1: mark[0].port: unknown key (did you mean "ports"?); known here: mark, destination, source, protocol, ports"#]),
        ("[[mark]]\nmark = 4294967296\ndestination = \"192.0.2.1/24\"\nsource = \"here\"\nports = \"80,0\"".into(), &["line 2, column 1: mark[0].mark: 4294967296 is out of range: 1 to 4294967295", r#"line 3, column 1: mark[0].destination: "192.0.2.1/24": it has bits beyond its length: 192.0.2.0/24 would be right"#, r#"line 4, column 1: mark[0].source: "here": it is no prefix: write it in figures, as in 192.0.2.0/24 or 2001:db8::/64"#, r#"line 5, column 1: mark[0].ports: "80,0": they are no ports: write numbers from 1 to 65535, as in 80,443,8000-8100"#]),
        // A rule that is not understood does not shift the numbers of those behind it.
        ("[[mark]]\n[[mark]]\nmark = 1\ndestination = \"192.0.2.1\"\n[[mark]]\nmark = 2\ndestination = \"192.0.2.1/32\"".into(), &["line 1, column 1: mark[0].mark: missing: which mark? as in mark = 1", r#"line 1, column 1: mark[0].destination: missing: packets to where, as in "192.0.2.0/24"?"#, "line 7, column 1: mark[2].destination: the same packets have mark 1 already: two rules for them can not both count"]),
        // Keys of services.
        ("[[service]]".into(), &[r#"line 1, column 1: service[0].address: missing: which address, as in "192.0.2.10:80"? Or which firewall mark?"#]),
        ("[[service]]\naddress = \"192.0.2.1:80\"\nmark = 1".into(), &["line 3, column 1: service[0].mark: a service has an address or a mark, not both"]),
        ("[[service]]\naddress = \"www.example.org:80\"".into(), &[r#"line 2, column 1: service[0].address: "www.example.org:80" is no address: write it in figures with its port, as in "192.0.2.10:80" or "[2001:db8::1]:80""#]),
        ("[[service]]\naddress = \"192.0.2.1\"".into(), &["line 2, column 1: service[0].address: port 0 stands for every port, and only a persistent service can have that: name a port or make it persistent"]),
        ("[[service]]\naddress = \"0.0.0.0:80\"".into(), &["line 2, column 1: service[0].address: a virtual service cannot have the unspecified address (0.0.0.0): it must be unicast"]),
        ("[[service]]\naddress = \"224.0.0.1:80\"".into(), &["line 2, column 1: service[0].address: a virtual service cannot have a multicast address (224.0.0.1): it must be unicast"]),
        ("[[service]]\naddress = \"[::ffff:192.0.2.1]:80\"".into(), &["line 2, column 1: service[0].address: a virtual service cannot have an IPv4 address in IPv6 clothes (::ffff:192.0.2.1): it must be unicast"]),
        ("[[service]]\naddress = \"[2001:db8::1%4]:80\"".into(), &["line 2, column 1: service[0].address: a virtual service cannot have a zone or flow label ([2001:db8::1%4]:80): leave it out"]),
        ("[[service]]\nmark = 0".into(), &["line 2, column 1: service[0].mark: mark 0 is the mark of unmarked packets: use 1 or more"]),
        ("[[service]]\nmark = -1".into(), &["line 2, column 1: service[0].mark: -1 is out of range: 1 to 4294967295"]),
        ("[[service]]\nmark = 1\nprotocol = \"udp\"".into(), &["line 3, column 1: service[0].protocol: a mark stands for every protocol: leave protocol out"]),
        // Attributes of services.
        (v("family = \"inet\""), &["line 3, column 1: service[0].family: the address tells it: leave family out"]),
        (v("protocol = \"icmp\""), &[r#"line 3, column 12: service[0].protocol: "icmp" is not "tcp", "udp" or "sctp""#]),
        (v("scheduler = \"wlcc\""), &[r#"line 3, column 1: service[0].scheduler: no scheduler "wlcc" (did you mean "wlc"?); there are: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos, and wasm:NAME for a plugin"#]),
        (v("scheduler = \"wasm:A\"\nfallback = \"wasm:b\""), &[r#"line 3, column 1: service[0].scheduler: "A" can not be the name of a plugin: it has 1 to 32 characters of a-z, 0-9, - and _, and begins with a letter or a figure"#, r#"line 4, column 1: service[0].fallback: a plugin such as "wasm:b" can not be the fallback: name a native scheduler"#]),
        (v("fallback = \"wlcc\"\noptions = 3"), &["line 4, column 1: service[0].options: this is a table of names and values, as in options = { zone = \"a\" }"]),
        (v("options = { zone = [1], limit = 1979-05-27 }"), &["line 3, column 20: service[0].options.zone: this is text in double quotes, a number of at most 64 bits, true or false", "line 3, column 33: service[0].options.limit: this is text in double quotes, a number of at most 64 bits, true or false"]),
        (v("options = { \"a b\" = 1 }"), &[r#"line 3, column 1: service[0].options: "a b" can not be the name of an option: it has 1 to 64 letters, figures, -, _ and ."#]),
        (v("options = { a = \"x\\ny\" }"), &["line 3, column 1: service[0].options: the value of option a has control characters: it is one line of text"]),
        (s("tags = { zone = \"a,b\" }"), &[r#"line 6, column 1: service[0].server[0].tags: "a,b" can not be part of a tag: no comma, no equal sign, no control characters"#]),
        ("[[scheduler]]\nname = \"A\"\n[[scheduler]]\nfile = \"\"\ngrants = [\"tine\"]".into(), &[r#"line 1, column 1: scheduler[0].file: missing: which module, as in file = "/etc/xvs/schedulers/mine.wasm"?"#, r#"line 2, column 1: scheduler[0].name: "A" can not be the name of a plugin: it has 1 to 32 characters of a-z, 0-9, - and _, and begins with a letter or a figure"#, "line 3, column 1: scheduler[1].name: missing: which name? A service says wasm:NAME then", r#"line 4, column 1: scheduler[1].file: missing: which module, as in file = "/etc/xvs/schedulers/mine.wasm"?"#, r#"line 5, column 11: scheduler[1].grants[0]: nothing "tine" (did you mean "time"?) can be granted; there are: time, random, log"#]),
        ("[[scheduler]]\nname = \"a\"\nfile = \"a\"\n[[scheduler]]\nname = \"a\"\nfile = \"b\"".into(), &[r#"line 5, column 1: scheduler[1].name: "a" is scheduler[0] already"#]),
        ("[director]\nwatch_schedulers = true".into(), &["line 2, column 1: director.watch_schedulers: there is no directory to watch: name scheduler_dir, too"]),
        (v("flags = [\"sh-port\"]"), &[r#"line 3, column 1: service[0].flags: flag sh-port is of scheduler sh, not of "wlc""#]),
        (v("flags = [\"flag-4\"]"), &[r#"line 3, column 1: service[0].flags: no scheduler flag "flag-4" (did you mean "flag-1"?); there are: flag-1, flag-2, flag-3, sh-fallback, sh-port, mh-fallback, mh-port"#]),
        (v("persistent = 0"), &["line 3, column 1: service[0].persistent: a persistence of 0 seconds is out of range: 1 to 2678400 (31 days)"]),
        (v("persistent = -5"), &["line 3, column 1: service[0].persistent: a persistence of -5 seconds is out of range: 1 to 2678400 (31 days)"]),
        (v("netmask = 24"), &["line 3, column 1: service[0].netmask: it groups the clients of a persistent service: add persistent, or leave netmask out"]),
        (v("persistent = 300\nnetmask = 33"), &["line 4, column 1: service[0].netmask: prefix length 33 is out of range: 0 to 32"]),
        (v("persistent = 300\nnetmask = 256"), &["line 4, column 1: service[0].netmask: prefix length 256 is out of range: 0 to 32"]),
        (v("persistent = 300\nnetmask = \"255.0.256.0\""), &["line 4, column 1: service[0].netmask: \"255.0.256.0\" is not an IPv4 mask such as \"255.255.255.0\""]),
        (v("persistent = 300\nnetmask = true"), &["line 4, column 11: service[0].netmask: true should be a prefix length, or an IPv4 mask in double quotes"]),
        (v("engine = \"rtp\""), &[r#"line 3, column 1: service[0].engine: no persistence engine "rtp"; there is: sip"#]),
        (v("protocol = \"sctp\"\none_packet = true"), &["line 4, column 1: service[0].one_packet: one-packet scheduling is for udp only, this is sctp"]),
        (v("one_packet = true"), &["line 3, column 1: service[0].one_packet: one-packet scheduling is for udp only, this is tcp"]),
        (format!("{}{}", v(""), v("")), &["line 7, column 1: service[1].address: tcp 192.0.2.1:80 is service[0] already"]),
        // Servers.
        (s("[[service.server]]\naddress = \"10.0.0.1\""), &["line 7, column 1: service[0].server[1].address: 10.0.0.1:80 is server[0] already"]),
        (s("weight = -1"), &["line 6, column 1: service[0].server[0].weight: weight -1 is out of range: 0 (no new connections) to 2147483647"]),
        (s("weight = 2147483648"), &["line 6, column 1: service[0].server[0].weight: weight 2147483648 is out of range: 0 (no new connections) to 2147483647"]),
        (s("weight = -1\nlower = 5"), &["line 6, column 1: service[0].server[0].weight: weight -1 is out of range: 0 (no new connections) to 2147483647", "line 7, column 1: service[0].server[0].lower: the lower threshold 5 is above the upper one, which is 0: it must not be"]),
        (s("lower = 5"), &["line 6, column 1: service[0].server[0].lower: the lower threshold 5 is above the upper one, which is 0: it must not be"]),
        (s("upper = 4\nlower = 5"), &["line 7, column 1: service[0].server[0].lower: the lower threshold 5 is above the upper one, which is 4: it must not be"]),
        (s("upper = 2147483648"), &["line 6, column 1: service[0].server[0].upper: threshold 2147483648 is out of range: 0 (none) to 2147483647"]),
        (s("upper = -1\nlower = -1"), &["line 6, column 1: service[0].server[0].upper: threshold -1 is out of range: 0 (none) to 2147483647", "line 7, column 1: service[0].server[0].lower: threshold -1 is out of range: 0 (none) to 2147483647"]),
        (s("method = \"masq\""), &[r#"line 6, column 10: service[0].server[0].method: "masq" is not "nat", "dr" or "tun""#]),
        (s("tunnel = \"ipip\""), &["line 6, column 1: service[0].server[0].tunnel: it goes with the method tun only: leave tunnel out, or change that"]),
        (s("method = \"tun\"\ntunnel_port = 1"), &["line 7, column 1: service[0].server[0].tunnel_port: it goes with the method tun with tunnel gue only: leave tunnel_port out, or change that"]),
        (s("method = \"tun\"\ntunnel = \"gue\""), &["line 4, column 1: service[0].server[0].tunnel_port: gue needs the port that the server decapsulates on"]),
        (s("method = \"tun\"\ntunnel = \"gue\"\ntunnel_port = 65536"), &["line 8, column 1: service[0].server[0].tunnel_port: 65536 is out of range: 1 to 65535"]),
        (s("method = \"tun\"\ntunnel = \"gre\"\ntunnel_checksum = \"remote\""), &["line 8, column 1: service[0].server[0].tunnel_checksum: gre has no remote checksum: use none or full"]),
        (s("method = \"tun\"\ntunnel_checksum = \"none\""), &["line 7, column 1: service[0].server[0].tunnel_checksum: it goes with the method tun with tunnel gue or gre only: leave tunnel_checksum out, or change that"]),
        (with("", ""), &[r#"line 4, column 1: service[0].server[0].address: missing: which server, as in "10.0.0.11:8080"?"#]),
        (with("", "address = \"10.0.0.1:8080\""), &["line 5, column 1: service[0].server[0].address: dr does not translate ports: port 8080 must be the service's port 80, or the method nat"]),
        (with("", "address = \"[2001:db8::1]:80\""), &["line 5, column 1: service[0].server[0].address: service and server are of different address families, which only a tunnel joins: use tun"]),
        (with("", "address = \"[fe80::1]:80\"\nmethod = \"tun\""), &["line 5, column 1: service[0].server[0].address: a real server cannot have a link-local address (fe80::1): use a routable one"]),
        (with("", "address = \"255.255.255.255\""), &["line 5, column 1: service[0].server[0].address: a real server cannot have the broadcast address (255.255.255.255): it must be unicast"]),
        (with("", "address = \"10.0.0.1:http\""), &[r#"line 5, column 1: service[0].server[0].address: "10.0.0.1:http" is no address: write it in figures with its port, as in "192.0.2.10:80" or "[2001:db8::1]:80""#]),
    ];
    let names = timeouts::names().join(", ");
    for (text, expected) in table {
        let expected: Vec<String> = expected.iter().map(|line| line.replace("NAMES", &names)).collect();
        assert_eq!(read(&text).expect_err(&text), expected, "{text}");
    }
}

/// What IPVS takes is taken, however odd it looks: a rule too many turns people away who come with rules that work.
#[test]
fn what_ipvs_takes_is_taken() {
    for text in [
        // Every port of a VIP, all clients as one; servers that keep the port and one that does not.
        "[[service]]\naddress = \"192.0.2.1\"\npersistent = 1\nnetmask = 0\n[[service.server]]\naddress = \"10.0.0.1\"\n\
         [[service.server]]\naddress = \"10.0.0.1:80\"\nmethod = \"nat\"",
        // A mark has no port that a server's could differ from, and one-packet scheduling passes.
        "[[service]]\nmark = 4294967295\none_packet = true\n[[service.server]]\naddress = \"10.0.0.1:80\"",
        // The same mark once for each IP version; the same address once for each protocol.
        "[[service]]\nmark = 1\n[[service]]\nmark = 1\nfamily = \"inet6\"",
        "[[service]]\naddress = \"192.0.2.1:53\"\n[[service]]\naddress = \"192.0.2.1:53\"\nprotocol = \"udp\"",
        // One server on two ports; the greatest weight and thresholds.
        "[[service]]\naddress = \"192.0.2.1:80\"\n[[service.server]]\naddress = \"10.0.0.1:1\"\nmethod = \"nat\"\n\
         [[service.server]]\naddress = \"10.0.0.1:2\"\nmethod = \"nat\"\nweight = 2147483647\nupper = 2147483647\n\
         lower = 2147483647",
        // A server of the other family behind a tunnel; the director itself as a server.
        "[[service]]\naddress = \"[2001:db8::1]:80\"\n[[service.server]]\naddress = \"10.0.0.1\"\nmethod = \"tun\"\n\
         [[service.server]]\naddress = \"[::1]:80\"\nmethod = \"nat\"",
        // A NAT server on port 0.
        "[[service]]\naddress = \"192.0.2.1:80\"\n[[service.server]]\naddress = \"10.0.0.1:0\"\nmethod = \"nat\"",
    ] {
        assert_eq!(read(text).err(), None, "{text}");
    }
}

/// The name of the file stands before the place, as compilers and editors write and read it.
#[test]
fn problems_name_their_file() {
    let list = Desired::read("[[service]]\nmark = 0\n", "site.toml", SCHEDULERS).unwrap_err();
    assert_eq!(
        list[0].to_string(),
        "site.toml:2:1: service[0].mark: mark 0 is the mark of unmarked packets: use 1 or more"
    );
    let refusal = Refusal::from(&list[..]);
    assert_eq!((refusal.kind, refusal.message), (RefusalKind::Document, list[0].to_string()));
}

/// The former spelling of the kernel's generation still counts, and whoever reads the log is told what to write; a
/// setting that moves nothing here is kept and said to be so. What moves something needs no word.
#[test]
fn what_is_right_may_be_worth_a_note() {
    let notes =
        |text: &str| -> Vec<String> { read(text).expect(text).notes().iter().map(ToString::to_string).collect() };
    let former = "[director]\ncompat = \"old\"\n";
    let director = read(former).unwrap().director().clone();
    assert_eq!((director.compat, director.kernel), (Compat::Ipvs, Kernel::Old));
    assert_eq!(
        notes(former),
        [
            r#"line 2, column 1: director.compat: "old" is a kernel's generation and counts as such: write kernel = "old" instead; compat is "ipvs" (the default) or "sane""#
        ]
    );
    assert_eq!(
        notes("[sysctl]\nconntrack = 1\nsync_version = 1\ndrop_entry = 3\n"),
        [
            "line 2, column 1: sysctl.conntrack: net.ipv4.vs.conntrack is kept and has no effect here. There is no netfilter \
          on this path, thus no connection tracking to keep in step."
        ]
    );
    assert!(notes("[director]\ncompat = \"sane\"\nkernel = \"new\"\n").is_empty());
}

/// The profile gives the defaults, and what the file names counts more; a file applied later changes what it names and
/// nothing else, and a defence that is on by itself is no difference.
#[test]
fn profiles_give_defaults_and_lines_beat_them() {
    let value = |settings: &Settings, name: &str| settings.get(name).expect(name).to_string();
    let sane = read("[director]\ncompat = \"sane\"\n[sysctl]\nconn_reuse_mode = 1\ndrop_packet = 2\n").unwrap();
    let mut settings = sane.settings();
    for (name, expected) in [
        ("expire_nodest_conn", "1"),
        ("expire_quiescent_template", "1"),
        ("xvs.refuse_nodest", "1"),
        ("conn_reuse_mode", "1"),
        ("drop_packet", "2"),
        ("pmtu_disc", "1"),
    ] {
        assert_eq!(value(&settings, name), expected, "{name}");
    }
    let ipvs = read("").unwrap().settings();
    assert_eq!(["expire_nodest_conn", "xvs.refuse_nodest"].map(|name| value(&ipvs, name)), ["0", "0"]);

    assert_eq!(diff_settings(&settings, &sane), None, "as it began");
    let next = read("[sysctl]\nsloppy_tcp = 1\ndrop_packet = 1\n").unwrap();
    let step = diff_settings(&settings, &next).expect("a difference");
    assert_eq!(step.sentence, "Set: sloppy_tcp 0 to 1.");
    let Action::Set(assignments) = step.action else { panic!("{:?}", step.action) };
    settings.take(&xvs::control::sysctl::read_all(&assignments).unwrap());
    assert_eq!(diff_settings(&settings, &next), None);
    assert_eq!(value(&settings, "expire_nodest_conn"), "1", "not named, not touched");
    assert_eq!(needs_restart(&sane, &next), ["director.compat"]);
}

/// One wrong value must not hide another, in whatever table.
#[test]
fn all_problems_come_at_once() {
    let text = FULL
        .replace("capacity = 65536", "capacity = 0")
        .replace("rx_ring = 1024", "rx_ring = 1023")
        .replace("vlan = 100", "vlan = 0")
        .replace("weight = 3", "weight = -3")
        .replace("mark = 7", "mark = 0")
        .replace("\"2001:db8::14\"", "\"fe80::14\"");
    let paths: Vec<String> = Desired::read(&text, "", SCHEDULERS).unwrap_err().into_iter().map(|p| p.path).collect();
    let expected = [
        "connections.capacity",
        "frames.rx_ring",
        "interface[0].vlan",
        "mark[0].mark",
        "service[0].server[0].weight",
        "service[1].mark",
        "service[1].server[0].address",
    ];
    assert_eq!(paths, expected);
}

/// A service whose key is wrong still has its servers judged, and they are not blamed for the key.
#[test]
fn a_wrong_service_does_not_hide_its_servers() {
    let text = "[[service]]\naddress = \"x\"\nnetmask = 0\npersistent = 0\n[[service.server]]\naddress = \"10.0.0.1:80\"\n\
                weight = -1\n[[service.server]]\nlower = 3\n";
    let paths: Vec<String> = Desired::read(text, "", SCHEDULERS).unwrap_err().into_iter().map(|p| p.path).collect();
    assert_eq!(
        paths,
        [
            "service[0].address",
            "service[0].persistent",
            "service[0].server[0].weight",
            "service[0].server[1].address",
            "service[0].server[1].lower",
        ]
    );
}

/// A document beyond the limit is refused unread, and nesting without end does not eat the stack.
#[test]
fn documents_are_bounded() {
    let long = "#".repeat(DOCUMENT_MAX + 1);
    assert_eq!(read(&long).unwrap_err(), ["4194305 bytes are too many: a configuration has 4194304 at most"]);
    for deep in [vec!["a"; 100_000].join(".") + " = 1", "a = ".to_owned() + &"[".repeat(100_000)] {
        assert!(read(&deep).unwrap_err()[0].contains("recur"));
    }
    let wrong: String = (0..50_000).map(|i| format!("key{i} = 1\n")).collect();
    assert_eq!(read(&wrong).unwrap_err().len(), 101);
}

fn service_spec(address: &str) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId::Address { protocol: Protocol::Tcp, address: address.parse().unwrap() },
        scheduler: "wlc".into(),
        flags: SchedFlags::default(),
        persistence: None,
        engine: None,
        one_packet: false,
        fallback: None,
        options: None,
    }
}

fn server_spec(address: &str) -> ServerSpec {
    ServerSpec { address: address.parse().unwrap(), method: Method::Nat, weight: 1, upper: 0, lower: 0, tags: None }
}

/// Tools tell errors apart by their kind: each broken rule has the kernel's error for it.
#[test]
fn refusals_are_of_the_kernels_kind() {
    let good = service_spec("192.0.2.1:80");
    assert_eq!(check_service(&good, SCHEDULERS), Ok(()));
    let kind = |change: fn(&mut ServiceSpec)| {
        let mut spec = service_spec("192.0.2.1:80");
        change(&mut spec);
        check_service(&spec, SCHEDULERS).unwrap_err().kind
    };
    assert_eq!(kind(|spec| spec.scheduler = "best".into()), RefusalKind::NoSuchScheduler);
    assert_eq!(kind(|spec| spec.engine = Some("rtp".into())), RefusalKind::NoSuchScheduler);
    assert_eq!(kind(|spec| spec.one_packet = true), RefusalKind::Invalid);
    assert_eq!(kind(|spec| spec.id = ServiceId::Mark { mark: 0, family: Family::Inet }), RefusalKind::Invalid);
    assert_eq!(
        kind(|spec| spec.persistence = Some(Persistence { timeout_s: 300, mask: Mask::Prefix(33) })),
        RefusalKind::Invalid
    );
    let zero = check_service(&service_spec("192.0.2.1:0"), SCHEDULERS).unwrap_err();
    assert_eq!(
        zero.message,
        "tcp 192.0.2.1:0: port 0 stands for every port, and only a persistent service can have that: name a port or \
         make it persistent"
    );

    let kind = |change: fn(&mut ServerSpec)| {
        let mut spec = server_spec("10.0.0.1:80");
        change(&mut spec);
        check_server(&service_spec("192.0.2.1:80"), &spec).unwrap_err().kind
    };
    assert_eq!(check_server(&good, &server_spec("10.0.0.1:8080")), Ok(()));
    assert_eq!(kind(|spec| spec.weight = -1), RefusalKind::OutOfRange);
    assert_eq!(kind(|spec| spec.weight = 1 << 31), RefusalKind::OutOfRange);
    assert_eq!(kind(|spec| spec.lower = 5), RefusalKind::OutOfRange);
    assert_eq!(kind(|spec| spec.upper = 1 << 31), RefusalKind::Invalid);
    assert_eq!(kind(|spec| spec.address.set_ip("224.0.0.1".parse().unwrap())), RefusalKind::Invalid);
    assert_eq!(kind(|spec| spec.address.set_ip("2001:db8::1".parse().unwrap())), RefusalKind::Invalid);
    let gue = Tunnel::Gue { port: 0, checksum: TunnelChecksum::None };
    let server = ServerSpec { method: Method::Tun(gue), ..server_spec("10.0.0.1:80") };
    let refusal = check_server(&good, &server).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    assert_eq!(
        refusal.message,
        "server 10.0.0.1:80 of tcp 192.0.2.1:80: gue needs the port that the server decapsulates on"
    );
}

/// A plan is read by a person before it is carried out: its order, and its sentences.
#[test]
fn a_plan_reads_well() {
    let before = read(
        r#"
        [[service]]
        address = "192.0.2.1:80"
        timeouts.established = 60
        [[service.server]]
        address = "10.0.0.1"
        [[service.server]]
        address = "10.0.0.2"
        [[service]]
        mark = 1
        [[service.server]]
        address = "10.0.0.1"
        "#,
    );
    let after = read(
        r#"
        [timeouts]
        tcp = 1800
        udp = 0
        [[service]]
        address = "192.0.2.1:80"
        scheduler = "sh"
        flags = ["sh-port"]
        persistent = 300
        timeouts.close_wait = 10
        [[service.server]]
        address = "10.0.0.3"
        [[service.server]]
        address = "10.0.0.1"
        weight = 0
        upper = 100
        [[service]]
        protocol = "udp"
        address = "[2001:db8::1]:53"
        one_packet = true
        timeouts.udp = 5
        [[service.server]]
        address = "10.0.0.9:53"
        method = "tun"
        tunnel = "gue"
        tunnel_port = 6080
        "#,
    );
    let (before, after) = (before.unwrap(), after.unwrap());
    assert_eq!(
        diff(before.services(), &after).sentences(),
        [
            "Change service tcp 192.0.2.1:80: scheduler wlc to sh, flags none to sh-port, persistence off to 300 s by /32.",
            "Set the timeouts of tcp 192.0.2.1:80: close_wait the director's to 10 s, established 60 s to the director's.",
            "Add server 10.0.0.3:80 to tcp 192.0.2.1:80: dr, weight 1.",
            "Change server 10.0.0.1:80 of tcp 192.0.2.1:80: weight 1 to 0, upper threshold none to 100.",
            "Add service udp [2001:db8::1]:53 with scheduler wlc, each packet for itself.",
            "Set the timeouts of udp [2001:db8::1]:53: udp the director's to 5 s.",
            "Add server 10.0.0.9:53 to udp [2001:db8::1]:53: tun (gue to port 6080, no checksum), weight 1.",
            "Remove server 10.0.0.2:80 from tcp 192.0.2.1:80.",
            "Remove server 10.0.0.1:0 from mark 1 (inet).",
            "Remove service mark 1 (inet).",
        ]
    );
    let defaults = timeouts::defaults().into_iter();
    let current: Vec<_> = defaults.map(|(state, seconds)| StateTimeout { state, seconds, own: false }).collect();
    let step = diff_timeouts(&current, &after).unwrap();
    let set = ByState::from([("established".into(), 1800)]);
    assert_eq!(step.action, Action::SetStateTimeouts { service: None, timeouts: set, replace: false });
    assert_eq!(step.sentence, "Set the timeouts: established 900 s to 1800 s.");
    assert_eq!(diff_timeouts(&current, &before), None);
    assert_eq!(needs_restart(&before, &after), Vec::<&str>::new());
    assert_eq!(needs_restart(&before, &read("[frames]\nbatch = 32").unwrap()), ["frames"]);
}

/// Rules for marks are a list whose order counts: the plan replaces it whole, and tells what that comes to.
#[test]
fn a_plan_for_marks_reads_well() {
    let rule = |mark: u32, to: &str| format!("[[mark]]\nmark = {mark}\ndestination = \"{to}\"\n");
    let (one, two, three) = (rule(1, "192.0.2.1"), rule(2, "192.0.2.0/24"), rule(3, "2001:db8::/64"));
    let before = read(&format!("{one}{two}")).unwrap();
    let told = |text: String| {
        let after = read(&text).unwrap();
        let step = diff_marks(before.marks(), &after)?;
        assert_eq!(step.action, Action::ReplaceMarks(after.marks().to_vec()));
        Some(step.sentence)
    };
    assert_eq!(told(format!("{one}{two}")), None);
    for (text, sentence) in [
        (format!("{two}{three}"), "add mark 3 to 2001:db8::/64, remove mark 1 to 192.0.2.1/32"),
        (String::new(), "remove mark 1 to 192.0.2.1/32, remove mark 2 to 192.0.2.0/24"),
        (format!("{two}{one}"), "order them as in the file"),
        (format!("{two}{three}{one}"), "add mark 3 to 2001:db8::/64, order them as in the file"),
        (format!("{three}{one}{two}"), "add mark 3 to 2001:db8::/64"),
    ] {
        assert_eq!(told(text), Some(format!("Change the rules for marks: {sentence}.")));
    }
}

/// More ranges than one prefix has room for are told before anything is asked of a director.
#[test]
fn too_many_ranges_are_found_in_the_file() {
    let ports: Vec<String> = (0..40).map(|n| (1000 + 2 * n).to_string()).collect();
    let rule = format!("[[mark]]\nmark = 1\ndestination = \"192.0.2.0/24\"\nports = \"{}\"\n", ports.join(","));
    let room = |text: &str| {
        let desired = read(text).unwrap();
        xvs::control::book::check_room(desired.marks(), desired.services())
    };
    assert_eq!(room(&rule), Ok(()), "nobody has the mark: nothing is steered");
    let refused = room(&format!("{rule}[[service]]\nmark = 1\n")).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Limit, "{refused:?}");
    assert!(refused.message.contains("192.0.2.0/24") && refused.message.contains("32 fit"), "{refused:?}");
}

/// A listing has the newest server first. Taken as a file's order it would turn the list around at each save and load,
/// and with it who wins a tie.
#[test]
fn a_listing_is_turned_into_the_order_of_adding() {
    let server = |address: &str| Server {
        spec: server_spec(address),
        active: 0,
        inactive: 0,
        persistent: 0,
        overloaded: false,
        path: String::new(),
        stats: Stats::default(),
    };
    let service = Service {
        spec: service_spec("192.0.2.1:80"),
        timeouts: ByState::from([("udp".into(), 9)]),
        stats: Stats::default(),
        servers: vec![server("10.0.0.2:80"), server("10.0.0.1:80")],
    };
    let state = ServiceState::from(&service);
    assert_eq!(state.servers, [server_spec("10.0.0.1:80"), server_spec("10.0.0.2:80")]);
    assert_eq!(state.timeouts, service.timeouts);
}

/// What `render` writes is meant to be edited: no key that says nothing, no array of inline tables.
#[test]
fn rendered_rules_look_like_a_file_of_a_person() {
    let state = ServiceState {
        spec: ServiceSpec {
            flags: SchedFlags { one: true, ..SchedFlags::default() },
            scheduler: "mh".into(),
            persistence: Some(Persistence { timeout_s: 300, mask: Mask::full(Family::Inet) }),
            ..service_spec("192.0.2.1:80")
        },
        timeouts: ByState::from([("established".into(), 3600)]),
        servers: vec![ServerSpec {
            method: Method::Tun(Tunnel::Gre { checksum: TunnelChecksum::Full }),
            upper: 10,
            ..server_spec("10.0.0.1:80")
        }],
    };
    let expected = r#"# The rules of a director: virtual services and their real servers, in the order of adding.

[timeouts]
tcp = 900
tcpfin = 120
udp = 300

[[service]]
protocol = "tcp"
address = "192.0.2.1:80"
scheduler = "mh"
flags = ["mh-fallback"]
persistent = 300

[service.timeouts]
established = 3600

[[service.server]]
address = "10.0.0.1:80"
method = "tun"
weight = 1
upper = 10
tunnel = "gre"
tunnel_checksum = "full"
"#;
    assert_eq!(render(Some(&Timeouts { tcp: 900, tcpfin: 120, udp: 300 }), &[state]), expected);
    assert_eq!(read(&render(None, &[])).unwrap(), read("").unwrap());
}

/// The rules as IPVS would hold them: every action must fit the state that it meets, as the kernel would insist.
fn carry_out(mut state: Vec<ServiceState>, actions: impl IntoIterator<Item = Action>) -> Vec<ServiceState> {
    fn find(state: &mut [ServiceState], id: ServiceId) -> &mut ServiceState {
        state.iter_mut().find(|state| state.spec.id == id).expect("a service that exists")
    }
    let mut removing = false;
    for action in actions {
        let removes = matches!(action, Action::DeleteServer { .. } | Action::DeleteService(_));
        assert!(removes || !removing, "removal comes last");
        removing = removes;
        match action {
            Action::AddService(spec) => {
                assert!(state.iter().all(|state| state.spec.id != spec.id));
                state.push(ServiceState { spec: spec.kept(), timeouts: ByState::new(), servers: Vec::new() });
            }
            Action::EditService(spec) => {
                let id = spec.id;
                // An edit of a plan says everything, so it keeps nothing of what was.
                assert_eq!(spec, spec.clone().explicit());
                find(&mut state, id).spec = spec.kept();
            }
            Action::DeleteService(id) => {
                assert!(find(&mut state, id).servers.is_empty(), "servers go before their service");
                state.retain(|state| state.spec.id != id);
            }
            Action::AddServer { service, server } => {
                let servers = &mut find(&mut state, service).servers;
                assert!(servers.iter().all(|other| other.address != server.address));
                assert_eq!(server, server.explicit());
                servers.push(server.kept());
            }
            Action::EditServer { service, server } => {
                let servers = &mut find(&mut state, service).servers;
                *servers.iter_mut().find(|other| other.address == server.address).expect("a server") = server.kept();
                assert_eq!(server, server.explicit());
            }
            Action::DeleteServer { service, address } => {
                let servers = &mut find(&mut state, service).servers;
                let before = servers.len();
                servers.retain(|other| other.address != address);
                assert_eq!(servers.len() + 1, before);
            }
            Action::SetStateTimeouts { service: Some(id), timeouts, replace: true } => {
                find(&mut state, id).timeouts = timeouts;
            }
            other => panic!("no plan has {other:?}"),
        }
    }
    state
}

/// Sorted by keys, for comparison where order does not matter.
fn sorted(mut state: Vec<ServiceState>) -> Vec<ServiceState> {
    state.sort_by_key(|state| state.spec.id);
    state.iter_mut().for_each(|state| state.servers.sort_by_key(|server| server.address));
    state
}

/// Addresses from a small pool, so that two sets of rules often have one in common.
fn any_address(pool: &'static [&'static str], ports: &'static [u16]) -> impl Strategy<Value = std::net::SocketAddr> {
    (prop::sample::select(pool), prop::sample::select(ports))
        .prop_map(|(ip, port)| std::net::SocketAddr::new(ip.parse().unwrap(), port))
}

const VIPS: &[&str] = &["192.0.2.1", "192.0.2.2", "2001:db8::1"];
const RIPS: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8:1::1", "2001:db8:1::2"];
const ODD: &[&str] =
    &["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "::", "ff02::1", "fe80::1", "::ffff:10.0.0.1", "::1"];

fn any_id(pool: &'static [&'static str]) -> impl Strategy<Value = ServiceId> {
    let protocol = prop::sample::select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..]);
    let family = prop::sample::select(&[Family::Inet, Family::Inet6][..]);
    prop_oneof![
        3 => (protocol, any_address(pool, &[0, 53, 80]))
            .prop_map(|(protocol, address)| ServiceId::Address { protocol, address }),
        1 => (0u32..3, family).prop_map(|(mark, family)| ServiceId::Mark { mark, family }),
    ]
}

/// A service that may break any rule.
fn any_service(pool: &'static [&'static str]) -> impl Strategy<Value = ServiceSpec> {
    let scheduler = prop_oneof![9 => prop::sample::select(SCHEDULERS).prop_map(str::to_owned), 1 => ".{0,20}", 1 => "wasm:[a-z]{0,3}"];
    let flags = any::<(bool, bool, bool)>().prop_map(|(one, two, three)| SchedFlags { one, two, three });
    let persistence = prop::option::of((
        prop_oneof![9 => 1u32..=2_678_400, 1 => any::<u32>()],
        prop_oneof![any::<u32>(), (0u32..=32).prop_map(|length| u32::MAX.checked_shl(32 - length).unwrap_or(0))],
        prop_oneof![9 => 1u8..=128, 1 => any::<u8>()],
    ));
    let engine = prop_oneof![5 => Just(None), 4 => Just(Some("sip".to_owned())), 1 => ".{0,20}".prop_map(Some)];
    let fallback = prop_oneof![6 => Just(None), 3 => prop::sample::select(SCHEDULERS).prop_map(Some)];
    let options = prop::option::of(prop::collection::btree_map("[a-z.]{1,3}", ".{0,5}", 0..3));
    (any_id(pool), scheduler, flags, persistence, engine, any::<bool>(), (fallback, options)).prop_map(
        |(id, scheduler, flags, persistence, engine, one_packet, (fallback, options))| {
            let persistence = persistence.map(|(timeout_s, bits, length)| {
                let mask = match id.family() {
                    Family::Inet => Mask::Dotted(bits.into()),
                    Family::Inet6 => Mask::Prefix(length),
                };
                Persistence { timeout_s, mask }
            });
            let fallback = fallback.map(str::to_owned);
            ServiceSpec { id, scheduler, flags, persistence, engine, one_packet, fallback, options }.kept()
        },
    )
}

/// A server that may break any rule.
fn any_server(pool: &'static [&'static str]) -> impl Strategy<Value = ServerSpec> {
    let checksum = || prop::sample::select(&[TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote][..]);
    let method = prop_oneof![
        Just(Method::Nat),
        Just(Method::Dr),
        Just(Method::Tun(Tunnel::Ipip)),
        (0u16..4, checksum()).prop_map(|(port, checksum)| Method::Tun(Tunnel::Gue { port, checksum })),
        checksum().prop_map(|checksum| Method::Tun(Tunnel::Gre { checksum })),
    ];
    let weight = prop_oneof![9 => 0i64..10, 1 => any::<i64>()];
    let threshold = || prop_oneof![9 => 0u32..10, 1 => any::<u32>()];
    let tags = prop::option::of(prop::sample::select(&["", "zone=a", "rack=7,zone= b"][..]));
    (any_address(pool, &[0, 53, 80]), method, weight, threshold(), threshold(), tags).prop_map(
        |(address, method, weight, upper, lower, tags)| {
            let tags = tags.map(|tags| tags.parse().unwrap());
            ServerSpec { address, method, weight, upper, lower, tags }.kept()
        },
    )
}

/// The service with its most frequent mistakes mended, so that most of them are good and still varied.
fn mended_service(mut spec: ServiceSpec) -> ServiceSpec {
    if let ServiceId::Mark { mark, .. } = &mut spec.id {
        *mark = (*mark).max(1);
    }
    let udp = matches!(spec.id, ServiceId::Address { protocol: Protocol::Udp, .. } | ServiceId::Mark { .. });
    spec.one_packet &= udp;
    if matches!(spec.id, ServiceId::Address { address, .. } if address.port() == 0) && spec.persistence.is_none() {
        spec.persistence = Some(Persistence { timeout_s: 360, mask: Mask::full(spec.id.family()) });
    }
    spec
}

/// The same for a server of this service.
fn mended_server(service: &ServiceSpec, mut server: ServerSpec) -> ServerSpec {
    if (service.id.family() == Family::Inet) != server.address.is_ipv4() && !matches!(server.method, Method::Tun(_)) {
        server.method = Method::Tun(Tunnel::Ipip);
    }
    if let (ServiceId::Address { address, .. }, true) = (service.id, server.method != Method::Nat) {
        server.address.set_port(address.port());
    }
    server.lower = server.lower.min(server.upper);
    server
}

/// Rules that break none: drawn freely, mended, and what is still refused left out.
fn any_rules() -> impl Strategy<Value = Vec<ServiceState>> {
    let servers = prop::collection::vec(any_server(RIPS), 0..8);
    prop::collection::vec((any_service(VIPS), servers), 0..12).prop_map(|drawn| {
        let mut rules: Vec<ServiceState> = Vec::new();
        for (spec, drawn) in drawn {
            let spec = mended_service(spec);
            if check_service(&spec, SCHEDULERS).is_err() || rules.iter().any(|state| state.spec.id == spec.id) {
                continue;
            }
            let mut servers: Vec<ServerSpec> = Vec::new();
            for server in drawn {
                let server = mended_server(&spec, server);
                let twice = servers.iter().any(|other| other.address == server.address);
                if !twice && check_server(&spec, &server).is_ok() {
                    servers.push(server);
                }
            }
            // Some have their own, and those that are in both sets of rules differ.
            let names = ["established", "udp", "sctp_closed"];
            let seconds = servers.len() as u32;
            let own = names.into_iter().take(servers.len() % 4).map(|name| (name.to_owned(), seconds));
            rules.push(ServiceState { spec, timeouts: own.collect(), servers });
        }
        rules
    })
}

proptest! {
    /// Rules survive the way to text and back, down to the order of the servers.
    #[test]
    fn rendered_rules_are_read_back(rules in any_rules()) {
        let text = render(None, &rules);
        let desired = read(&text).map_err(|list| TestCaseError::fail(format!("{list:?}\n{text}")))?;
        prop_assert_eq!(desired.services(), &rules[..]);
    }

    /// A plan leads from any rules to any others; then there is nothing left to do. Servers that stay keep their
    /// places, new ones come after them in the file's order.
    #[test]
    fn a_plan_leads_to_what_is_wanted(current in any_rules(), wanted in any_rules()) {
        let next = read(&render(None, &wanted)).unwrap();
        let plan = diff(&current, &next);
        let actions: Vec<Action> = plan.steps.iter().map(|step| step.action.clone()).collect();
        let reached = carry_out(current.clone(), actions);
        for state in &reached {
            let old = current.iter().find(|old| old.spec.id == state.spec.id);
            let is_old = |server: &ServerSpec| {
                old.is_some_and(|old| old.servers.iter().any(|other| other.address == server.address))
            };
            let after = next.services().iter().find(|after| after.spec.id == state.spec.id).unwrap();
            let added: Vec<_> = state.servers.iter().filter(|server| !is_old(server)).collect();
            let wanted: Vec<_> = after.servers.iter().filter(|server| !is_old(server)).collect();
            prop_assert_eq!(&added, &wanted);
            prop_assert!(state.servers.ends_with(&added.into_iter().copied().collect::<Vec<_>>()));
        }
        prop_assert!(diff(&reached, &next).is_empty());
        prop_assert!(diff(next.services(), &next).is_empty());
        prop_assert_eq!(sorted(reached), sorted(wanted));
        prop_assert!(plan.sentences().iter().all(|sentence| sentence.ends_with('.') && !sentence.contains('\n')));
    }

    /// What the file accepts, the command accepts, and the reverse.
    #[test]
    fn the_file_and_the_command_agree(
        spec in prop_oneof![any_service(VIPS), any_service(ODD)],
        server in prop_oneof![any_server(RIPS), any_server(ODD)],
        mend in any::<(bool, bool)>(),
    ) {
        let spec = if mend.0 { mended_service(spec) } else { spec };
        let server = if mend.1 { mended_server(&spec, server) } else { server };
        let command = check_service(&spec, SCHEDULERS).is_ok() && check_server(&spec, &server).is_ok();
        let file = read(&render(None, &[ServiceState { spec, timeouts: ByState::new(), servers: vec![server] }]));
        prop_assert_eq!(command, file.is_ok(), "{:?}", file);
    }

    /// No text whatever makes the reader panic, and each problem is one line.
    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,200}", file in "(?s).{0,10}") {
        if let Err(list) = Desired::read(&text, &file, SCHEDULERS) {
            prop_assert!(!list.is_empty());
            for problem in list {
                prop_assert!(!problem.to_string().contains(char::is_control));
            }
        }
    }

    /// The same for text that is nearly a configuration, which gets further in.
    #[test]
    fn any_damage_is_read_or_refused(
        cuts in prop::collection::vec((0usize..2000, 0usize..12, prop::sample::select(&PIECES[..])), 1..6),
    ) {
        let mut text = FULL.to_owned();
        for (at, length, piece) in cuts {
            // The file is ASCII and so are the pieces: every index is a boundary.
            let at = at.min(text.len());
            text.replace_range(at..(at + length).min(text.len()), piece);
        }
        if let Err(list) = Desired::read(&text, "", SCHEDULERS) {
            for problem in list {
                prop_assert!(!problem.to_string().contains(char::is_control));
                prop_assert!(problem.place.is_some() || problem.path.is_empty(), "{}", problem);
            }
        }
    }

    /// A document need not come from text: one that a program fills in is judged the same, without places.
    #[test]
    fn documents_may_be_made_by_hand(name in ".{0,20}", queues in any::<i64>()) {
        let mut document = Document::default();
        document.interface.push(InterfaceTable { name: Some(name), queues: Some(queues), ..Default::default() });
        if let Err(list) = Desired::validate(document, SCHEDULERS) {
            prop_assert!(list.iter().all(|problem| problem.place.is_none()));
        }
    }
}

/// What damage leaves behind.
const PIECES: [&str; 16] = [
    "",
    "\n",
    "\"",
    "]",
    "[[service]]\n",
    "[[service.server]]\n",
    "=",
    "-1",
    "99999999999",
    "1.5",
    "true",
    "{ a = 1 }",
    "[1, \"x\"]",
    "1979-05-27",
    "\\u0007",
    "# ",
];
