//! `xvs replay`: captures in, verdicts and captures out, the same every time.
//!
//! The captures are made here, the frames that come out are read byte by byte and all of their checksums verified.

mod frames;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, TsResolution};
use serde_json::Value;
use xvs::cli::Replay;
use xvs::replay::{ReplayError, replay};

use frames::{ACK, FIN, RST, SYN, Told, fragments, joined, sctp, tcp, udp};

const CLIENT: &str = "198.51.100.7:40000";
const WEB: &str = "192.0.2.10:80";
const DNS: &str = "192.0.2.10:53";
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// A moment of these years: 41 bits of milliseconds.
const START: Duration = Duration::from_millis(1_790_000_000_123);

/// A directory of one test's own, gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("xvs-replay-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a configuration with these services.
    fn site(&self, services: &str) {
        let interface = "[[interface]]\nname = \"eth0\"\ngateway_mac = \"02:00:00:00:00:99\"\n";
        let connections = "[connections]\ncapacity = 1024\n";
        fs::write(self.path("site.toml"), format!("{connections}{interface}{services}")).expect("a file");
    }

    /// Writes a capture: milliseconds since its start, and frames.
    fn capture(&self, frames: &[(u64, Vec<u8>)]) {
        let mut bytes = Vec::new();
        let mut writer = PcapWriter::new(&mut bytes).expect("memory");
        for (ms, frame) in frames {
            let stamp = START + Duration::from_millis(*ms);
            writer.write_packet(&PcapPacket::new(stamp, frame.len() as u32, frame)).expect("memory");
        }
        fs::write(self.path("in.pcap"), bytes).expect("a file");
    }

    fn options(&self) -> Replay {
        Replay {
            config: self.path("site.toml"),
            pcap_in: self.path("in.pcap"),
            pcap_out: self.path("out.pcap"),
            verdicts: Some(self.path("verdicts.json")),
        }
    }

    fn replay(&self) -> String {
        replay(&self.options()).expect("a replay")
    }

    fn wrong(&self) -> (u8, String) {
        let error: ReplayError = replay(&self.options()).expect_err("an error");
        let text = error.to_string();
        assert!(!text.contains('\n'), "one line: {text}");
        (error.exit_code(), text)
    }

    /// The frames that came out, with their times.
    fn sent(&self) -> Vec<(Duration, Vec<u8>)> {
        let file = fs::File::open(self.path("out.pcap")).expect("the capture");
        let mut reader = PcapReader::new(file).expect("a capture");
        let mut frames = Vec::new();
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole packet");
            frames.push((packet.timestamp, packet.data.into_owned()));
        }
        frames
    }

    fn told(&self) -> Vec<Told> {
        self.sent().iter().map(|(_, frame)| frames::read(frame)).collect()
    }

    fn verdicts(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("verdicts.json")).expect("the verdicts");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn web(servers: &[(&str, &str)]) -> String {
    let server = |(address, method): &(&str, &str)| {
        format!("[[service.server]]\naddress = \"{address}\"\nmethod = \"{method}\"\n")
    };
    let servers: String = servers.iter().map(server).collect();
    format!("[[service]]\naddress = \"{WEB}\"\nscheduler = \"rr\"\n{servers}")
}

fn dns(method: &str) -> String {
    format!(
        "[[service]]\nprotocol = \"udp\"\naddress = \"{DNS}\"\nscheduler = \"rr\"\n\
         [[service.server]]\naddress = \"10.0.0.3:53\"\nmethod = \"{method}\"\n"
    )
}

/// Guards a whole NAT connection: both directions rewritten, every checksum right, each line of the verdicts telling
/// frame, time, flow, server, and why a stray packet was dropped.
#[test]
fn a_nat_connection_and_a_stray_packet() {
    let directory = Directory::new("nat");
    directory.site(&web(&[("10.0.0.1:8080", "nat")]));
    directory.capture(&[
        (0, tcp(CLIENT, WEB, SYN, b"")),
        (10, tcp("10.0.0.1:8080", CLIENT, SYN | ACK, b"")),
        (20, tcp(CLIENT, WEB, ACK, b"GET / HTTP/1.0\r\n\r\n")),
        (30, tcp("10.0.0.1:8080", CLIENT, ACK, b"odd")),
        (40, tcp("198.51.100.8:1", WEB, RST | ACK, b"stray")),
        (50, tcp(CLIENT, WEB, FIN | ACK, b"")),
    ]);
    assert_eq!(directory.replay(), "6 frames: 5 sent, 1 dropped; 1 connections at the end\n");
    let sent = directory.told();
    let expected = |src: &str, dst: &str, payload: &[u8]| Told {
        to: GATEWAY,
        protocol: 6,
        src: src.into(),
        dst: dst.into(),
        ttl: 63,
        payload: payload.into(),
    };
    assert_eq!(
        sent,
        [
            expected(CLIENT, "10.0.0.1:8080", b""),
            expected(WEB, CLIENT, b""),
            expected(CLIENT, "10.0.0.1:8080", b"GET / HTTP/1.0\r\n\r\n"),
            expected(WEB, CLIENT, b"odd"),
            expected(CLIENT, "10.0.0.1:8080", b""),
        ]
    );
    let stamps: Vec<_> = directory.sent().iter().map(|(stamp, _)| *stamp).collect();
    assert_eq!(stamps[1], START + Duration::from_millis(10), "the capture's own times");
    let verdicts = directory.verdicts();
    assert_eq!(verdicts.len(), 6);
    assert_eq!(verdicts[0]["frame"], 1);
    assert_eq!(verdicts[1]["time_ms"], 1_790_000_000_133_u64);
    assert_eq!(verdicts[0]["verdict"], "transmit");
    assert_eq!(verdicts[0]["flow"], format!("TCP {CLIENT} -> {WEB}"));
    assert_eq!(verdicts[0]["server"], "10.0.0.1:8080");
    assert_eq!(verdicts[1]["server"], "10.0.0.1:8080");
    assert_eq!((&verdicts[4]["verdict"], &verdicts[4]["reason"]), (&"drop".into(), &"no_connection_tcp".into()));
    assert!(verdicts[4].get("server").is_none());
}

/// Guards direct routing and UDP: the packet is the client's but for MAC and TTL.
#[test]
fn direct_routing_changes_the_link_only() {
    let directory = Directory::new("dr");
    directory.site(&(web(&[("10.0.0.1:80", "dr")]) + &dns("dr")));
    directory.capture(&[(0, tcp(CLIENT, WEB, SYN, b"")), (1, udp(CLIENT, DNS, b"query"))]);
    assert_eq!(directory.replay(), "2 frames: 2 sent, 0 dropped; 2 connections at the end\n");
    let sent = directory.told();
    assert_eq!((sent[0].to, sent[0].ttl, sent[0].dst.as_str()), (GATEWAY, 63, WEB));
    assert_eq!((sent[1].payload.as_slice(), sent[1].dst.as_str()), (&b"query"[..], DNS));
}

/// Guards SCTP from the configuration to the wire: an association by NAT to another port, both ways with right
/// checksums, and what is dropped because nobody opened it.
#[test]
fn an_sctp_association() {
    let directory = Directory::new("sctp");
    let server = "[[service.server]]\naddress = \"10.0.0.4:9899\"\nmethod = \"nat\"\n";
    directory.site(&format!("[[service]]\nprotocol = \"sctp\"\naddress = \"192.0.2.10:5060\"\n{server}"));
    let (vip, init, data) = ("192.0.2.10:5060", [1, 0, 0, 4], [0, 3, 0, 8, b'd', b'a', b't', b'a']);
    directory.capture(&[
        (0, sctp(CLIENT, vip, &data)),
        (1, sctp(CLIENT, vip, &init)),
        (2, sctp("10.0.0.4:9899", CLIENT, &[2, 0, 0, 4])),
        (3, sctp(CLIENT, vip, &data)),
    ]);
    assert_eq!(directory.replay(), "4 frames: 3 sent, 1 dropped; 1 connections at the end\n");
    let expected = |src: &str, dst: &str, payload: &[u8]| Told {
        to: GATEWAY,
        protocol: 132,
        src: src.into(),
        dst: dst.into(),
        ttl: 63,
        payload: payload.into(),
    };
    let inside = "10.0.0.4:9899";
    let sent = [expected(CLIENT, inside, &init), expected(vip, CLIENT, &[2, 0, 0, 4]), expected(CLIENT, inside, &data)];
    assert_eq!(directory.told(), sent);
    let verdicts = directory.verdicts();
    assert_eq!(verdicts[0]["reason"], "no_connection_sctp");
    assert_eq!(verdicts[1]["flow"], format!("SCTP {CLIENT} -> {vip}"));
}

/// Guards tunnels: the client's packet comes out whole, wrapped from the documentation's address to the server.
#[test]
fn a_tunnel_wraps_the_packet() {
    let directory = Directory::new("tun");
    directory.site(&dns("tun"));
    directory.capture(&[(0, udp(CLIENT, DNS, b"query"))]);
    directory.replay();
    let outer = directory.told().remove(0);
    assert_eq!((outer.protocol, outer.src.as_str(), outer.dst.as_str()), (4, "192.0.2.254", "10.0.0.3"));
    let inner = frames::read_ip(GATEWAY, &outer.payload);
    assert_eq!((inner.src.as_str(), inner.dst.as_str(), inner.ttl), (CLIENT, DNS, 63));
    assert_eq!(inner.payload, b"query");
}

/// Guards fragments: one that comes before the first waits for it, for a second at most; what does not fit the tunnel is
/// cut. The output has what leaves, and no frame that waited.
#[test]
fn fragments_come_in_any_order() {
    let directory = Directory::new("fragments");
    let payload = [7; 1900];
    let [first, later] = fragments(&udp(CLIENT, DNS, &payload), 1480);
    directory.site(&dns("nat"));
    directory.capture(&[(0, later.clone()), (999, first.clone())]);
    assert_eq!(directory.replay(), "2 frames: 2 sent, 0 dropped; 1 connections at the end\n");
    let sent = directory.sent().into_iter().map(|(_, frame)| frame).collect();
    let told = frames::read(&joined(sent));
    assert_eq!((told.dst.as_str(), told.payload.as_slice()), ("10.0.0.3:53", &payload[..]));
    assert_eq!(
        (&directory.verdicts()[0]["verdict"], &directory.verdicts()[1]["verdict"]),
        (&"hold".into(), &"transmit".into())
    );

    directory.capture(&[(0, later.clone()), (1000, first.clone()), (1001, udp(CLIENT, DNS, b"alone"))]);
    assert_eq!(directory.replay(), "3 frames: 2 sent, 1 dropped; 1 connections at the end\n");
    directory.capture(&[(0, later.clone())]);
    assert_eq!(directory.replay(), "1 frames: 0 sent, 1 dropped; 0 connections at the end\n");

    directory.site(&dns("tun"));
    directory.capture(&[(0, first), (1, later)]);
    assert_eq!(directory.replay(), "2 frames: 2 sent, 0 dropped; 1 connections at the end\n");
    let sent: Vec<_> = directory.sent().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 14 + 20 + 20, 14 + 20 + 448]);
    assert_eq!(frames::read(&joined(sent[..2].to_vec())).payload.len(), 1500);
    assert_eq!(directory.verdicts()[0]["verdict"], "split");
}

/// Guards time: a capture of today lives by its own clock, so connections last between packets and end when they are
/// over. (Milliseconds since 1970 once overflowed the table's time, and every connection was over at once.)
#[test]
fn connections_live_by_the_captures_clock() {
    let directory = Directory::new("clock");
    directory.site(&(web(&[("10.0.0.1:80", "nat"), ("10.0.0.2:80", "nat")]) + &dns("nat")));
    directory.capture(&[
        (0, udp(CLIENT, DNS, b"1")),
        (200_000, udp(CLIENT, DNS, b"2")),
        (400_000, udp("10.0.0.3:53", CLIENT, b"answer")),
        (399_000, udp("10.0.0.3:53", CLIENT, b"stamped earlier than the one before it")),
        (800_000, udp("10.0.0.3:53", CLIENT, b"late: five minutes are over")),
    ]);
    assert_eq!(directory.replay(), "5 frames: 4 sent, 1 dropped; 0 connections at the end\n");
    assert_eq!(directory.verdicts()[4]["reason"], "no_connection_reply");
}

/// Guards the promise that a replay repeats: both files equal byte for byte.
#[test]
fn a_replay_repeats() {
    let directory = Directory::new("twice");
    directory.site(&(web(&[("10.0.0.1:80", "nat"), ("10.0.0.2:80", "dr")]) + &dns("tun")));
    let flows = (0..300u16).flat_map(|n| {
        let client = format!("198.51.100.{}:{}", n % 250 + 1, 1024 + n);
        let ms = u64::from(n) * 7;
        [(ms, tcp(&client, WEB, SYN, b"")), (ms + 3, udp(&client, DNS, &n.to_be_bytes()))]
    });
    directory.capture(&flows.collect::<Vec<_>>());
    let files = || ["out.pcap", "verdicts.json"].map(|name| fs::read(directory.path(name)).expect("a file"));
    let first = (directory.replay(), files());
    assert_eq!((directory.replay(), files()), first);
}

/// Guards frames that were cut when they were captured (`tcpdump -s`), nanoseconds, and an empty capture.
#[test]
fn unusual_captures_are_read() {
    let directory = Directory::new("unusual");
    directory.site(&dns("nat"));
    let frame = udp(CLIENT, DNS, &[7; 200]);
    let header = PcapHeader { snaplen: 64, ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
    let mut bytes = Vec::new();
    let mut writer = PcapWriter::with_header(&mut bytes, header).expect("memory");
    let stamp = START + Duration::from_nanos(7);
    writer.write_packet(&PcapPacket::new(stamp, frame.len() as u32, &frame[..64])).expect("memory");
    let short = udp(CLIENT, DNS, b"x");
    writer.write_packet(&PcapPacket::new(stamp, short.len() as u32, &short)).expect("memory");
    fs::write(directory.path("in.pcap"), bytes).expect("a file");
    assert_eq!(directory.replay(), "2 frames: 1 sent, 1 dropped; 1 connections at the end\n");
    assert_eq!(directory.verdicts()[0]["reason"], "truncated");
    assert_eq!(directory.sent()[0].0, stamp, "nanoseconds stay");

    directory.capture(&[]);
    assert_eq!(directory.replay(), "0 frames: 0 sent, 0 dropped; 0 connections at the end\n");
}

/// Guards every error of a replay: its kind by the exit code, the file and the cure in one line.
#[test]
fn errors_name_the_file_and_the_cure() {
    let directory = Directory::new("errors");
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path(name), bytes).expect("a file");
    let expect = |code: u8, words: &[&str]| {
        let (told, text) = directory.wrong();
        assert_eq!(told, code, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} in: {text}"));
    };
    expect(3, &["site.toml"]);
    write("site.toml", b"[[service]]\naddress = \"nonsense\"\n");
    expect(2, &["site.toml", "nonsense"]);
    directory.site(&dns("nat"));
    expect(3, &["in.pcap"]);
    write("in.pcap", b"this is no capture, but it is longer than a header of one");
    expect(12, &["in.pcap", "no pcap file", "tcpdump"]);
    write("in.pcap", b"short");
    expect(12, &["in.pcap", "no pcap file"]);
    write("in.pcap", &[0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28]);
    expect(12, &["pcapng", "editcap"]);
    let header = PcapHeader { datalink: DataLink::LINUX_SLL, ..PcapHeader::default() };
    let mut bytes = Vec::new();
    PcapWriter::with_header(&mut bytes, header).expect("memory");
    write("in.pcap", &bytes);
    expect(12, &["link type", "LINUX_SLL", "Ethernet"]);
    directory.capture(&[(0, udp(CLIENT, DNS, b"1")), (1, udp(CLIENT, DNS, b"2"))]);
    let whole = fs::read(directory.path("in.pcap")).expect("the capture");
    write("in.pcap", &whole[..whole.len() - 5]);
    expect(12, &["frame 2", "ends in the middle"]);
    write("in.pcap", &whole[..whole.len() - 55]);
    expect(12, &["frame 2", "ends in the middle"]);
    write("in.pcap", &whole);
    let text = directory.options();
    let to = |pcap_out: &Path, verdicts: Option<PathBuf>| {
        let options =
            Replay { pcap_out: pcap_out.into(), verdicts, config: text.config.clone(), pcap_in: text.pcap_in.clone() };
        let error = replay(&options).expect_err("an error");
        (error.exit_code(), error.to_string())
    };
    let (code, told) = to(&directory.path("in.pcap"), None);
    assert!(code == 3 && told.contains("another file"), "{told}");
    assert_eq!(fs::read(directory.path("in.pcap")).expect("it is there").len(), whole.len(), "it was not emptied");
    let out = directory.path("new.pcap");
    assert_eq!(to(&out, Some(out.clone())).0, 3);
    assert_eq!(to(&directory.path("no/such/directory"), None).0, 3);
    #[cfg(target_os = "linux")]
    assert!(to(Path::new("/dev/full"), None).1.contains("/dev/full"), "a full disk is told");
}
