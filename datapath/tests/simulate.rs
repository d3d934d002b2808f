//! `xvs simulate`: the same every time, as good as a scheduler's rule says, and never at a loss for a sentence.

mod frames;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use proptest::prelude::*;
use serde_json::Value;
use xvs::cli::Simulate;
use xvs::simulate::simulate;

use frames::{ACK, FIN, RST, SYN, tcp, udp};

/// A directory of one test's own, gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("xvs-simulate-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// Runs it, and gives the numbers.
    fn json(&self, options: Simulate) -> Value {
        let path = self.0.join("out.json");
        simulate(&Simulate { json: Some(path.clone()), ..options }).expect("a simulation");
        serde_json::from_slice(&fs::read(path).expect("the numbers")).expect("JSON")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A simulation of these schedulers.
fn of(schedulers: &[&str], synthetic: &str, servers: &str) -> Simulate {
    Simulate {
        scheduler: schedulers.iter().map(|name| (*name).to_owned()).collect(),
        synthetic: Some(synthetic.to_owned()),
        servers: Some(servers.to_owned()),
        seed: 1,
        ..Simulate::default()
    }
}

fn counts(json: &Value, scheduler: usize) -> Vec<u64> {
    let list = json["schedulers"][scheduler]["by_server"].as_array().expect("a list");
    list.iter().map(|count| count.as_u64().expect("a number")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Runs it and demands a failure in one line.
fn wrong(options: &Simulate) -> (u8, String) {
    let error = simulate(options).expect_err("an error");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    (error.exit_code(), text)
}

/// Two runs of the same inputs and seed differ in nothing but what was measured; another seed is other traffic.
#[test]
fn a_simulation_repeats_to_the_byte() {
    let directory = Directory::new();
    let events = directory.write("events", "2s down 10.0.0.1\n4s up 10.0.0.1\n5s add 10.0.0.9:80 3\n");
    let run = |seed| {
        let names = ["rr", "wrr", "wlc", "lblcr", "twos", "nq", "sh", "mh"];
        let options = of(&names, "rate=500,seconds=8,clients=300,zipf=1,duration=lognormal:1s/1", "5");
        let mut json = directory.json(Simulate { seed, events: Some(events.clone()), ..options });
        json.as_object_mut().expect("an object").remove("measured").expect("costs stand apart");
        serde_json::to_string(&json).expect("JSON")
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Each scheduler does what its rule says: `rr` in equal parts, `wrr` and `wlc` by weight, `sh` and `mh` by client.
#[test]
fn schedulers_keep_their_rules() {
    let directory = Directory::new();
    let json = directory.json(of(
        &["rr", "wrr", "wlc", "mh", "sh"],
        "rate=1000,seconds=20,clients=500",
        "10.0.0.1:80=3,10.0.0.2:80,10.0.0.3:80",
    ));
    let rr = counts(&json, 0);
    assert!(rr.iter().max().unwrap() - rr.iter().min().unwrap() <= 1, "{rr:?}");
    let wrr = counts(&json, 1);
    assert!(wrr[0].abs_diff(3 * wrr[1]) <= 3 && wrr[1].abs_diff(wrr[2]) <= 1, "{wrr:?}");
    let wlc = &json["schedulers"][2];
    assert!(number(&wlc["balance"]["ratio_mean"]) < 1.05, "{}", wlc["balance"]);
    for hash in [3, 4] {
        let scheduler = &json["schedulers"][hash];
        assert_eq!(scheduler["elsewhere"], 0, "{}", scheduler["label"]);
        assert!(scheduler["returned"].as_u64().unwrap() > 15_000);
    }
}

/// Removing one of ten servers moves about a tenth of `mh`'s clients and nobody without need, and nine tenths of `sh`'s
/// and `rr`'s; without an event `mh` moves nobody, and `rr` as many as with it.
#[test]
fn disruption_is_told_apart_from_restlessness() {
    let directory = Directory::new();
    let events = directory.write("events", "5s remove 10.0.0.4\n");
    let options = of(&["mh", "sh", "rr"], "rate=2000,seconds=10,clients=1000", "10");
    let json = directory.json(Simulate { events: Some(events), ..options });
    assert!((number(&json["moments"][0]["least"]) - 0.1).abs() < 1e-6);
    let probes = |scheduler: usize, what: &str| number(&json["schedulers"][scheduler]["moments"][0]["probes"][what]);
    assert_eq!(probes(0, "anyway"), 0.0);
    assert!(probes(0, "moved") >= probes(0, "forced") && probes(0, "moved") < 0.15, "{}", probes(0, "moved"));
    assert!((probes(0, "forced") - 0.1).abs() < 0.02);
    assert!(probes(1, "moved") > 0.5 && probes(1, "anyway") == 0.0);
    assert!((probes(2, "moved") - 0.9).abs() < 0.02 && (probes(2, "anyway") - 0.9).abs() < 0.02);
    let real = &json["schedulers"][0]["moments"][0];
    let share = number(&real["elsewhere"]) / number(&real["returned"]);
    assert!(share > 0.05 && share < 0.16, "real clients agree with the probes: {share}");
}

/// A server that is down gets nothing and its connections break; one at its threshold gets no more than that.
#[test]
fn events_and_thresholds_act() {
    let directory = Directory::new();
    let events = directory.write("events", "5s down 10.0.0.1\n");
    let options = of(&["rr"], "rate=1000,seconds=10,duration=fixed:1s", "10.0.0.1:80,10.0.0.2:80/upper=50");
    let json = directory.json(Simulate { events: Some(events), ..options });
    let one = &json["schedulers"][0];
    assert!(number(&one["broken"]) > 300.0 && number(&one["refused"]) > 4000.0, "{}", one["refused"]);
    assert_eq!(counts(&json, 0)[1], 50, "closed connections count for a threshold while they are remembered");
    let begun = one["series"]["begun"][0].as_array().unwrap();
    assert!(begun[begun.len() / 2 + 1..].iter().all(|count| count == 0));
}

/// A slow server holds connections for longer; a scheduler that counts gives it fewer of them, one that does not drowns it.
#[test]
fn slow_servers_are_noticed_by_those_who_count() {
    let directory = Directory::new();
    let json = directory.json(of(
        &["rr", "wlc"],
        "rate=1000,seconds=20,duration=fixed:1s",
        "10.0.0.1:80/speed=0.2,10.0.0.2:80",
    ));
    let ratio = |scheduler: usize| number(&json["schedulers"][scheduler]["balance"]["ratio_mean"]);
    assert!(ratio(0) > 1.5 && ratio(1) < 1.05, "{} {}", ratio(0), ratio(1));
    assert!(number(&json["schedulers"][1]["slowdown"]) < number(&json["schedulers"][0]["slowdown"]));
}

const VIP: &str = "192.0.2.10:80";

fn frames() -> Vec<(u64, Vec<u8>)> {
    let (one, two, old) = ("198.51.100.1:1001", "198.51.100.2:1002", "198.51.100.3:1003");
    vec![
        (0, tcp(old, VIP, ACK, b"there before")),
        (100, tcp(one, VIP, SYN, b"")),
        (101, tcp(VIP, one, SYN | ACK, b"")),
        (102, tcp(one, VIP, ACK, b"question")),
        (200, tcp(two, VIP, SYN, b"")),
        (201, tcp(VIP, two, RST | ACK, b"")),
        (300, udp("198.51.100.9:5353", "192.0.2.11:53", b"elsewhere")),
        (1100, tcp(one, VIP, FIN | ACK, b"")),
        (1101, tcp(VIP, one, FIN | ACK, b"")),
        (1500, tcp(one, VIP, SYN, b"")),
        (1600, vec![0; 60]),
        (2000, tcp(VIP, old, ACK, b"")),
    ]
}

fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).expect("memory");
    for (ms, frame) in frames {
        let stamp = Duration::from_millis(1_790_000_000_000 + ms);
        writer.write_packet(&PcapPacket::new(stamp, frame.len() as u32, frame)).expect("memory");
    }
    writer.into_writer()
}

fn pcapng(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).expect("memory");
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).expect("memory");
    for (ms, frame) in frames {
        // The crate writes the number as it is; without an option its unit is a microsecond.
        let timestamp = Duration::from_nanos((1_790_000_000_000 + ms) * 1000);
        let (original_len, data) = (frame.len() as u32, frame.as_slice().into());
        let block = EnhancedPacketBlock { interface_id: 0, timestamp, original_len, data, options: Vec::new() };
        writer.write_pcapng_block(block).expect("memory");
    }
    writer.into_inner()
}

fn traced(path: PathBuf, service: Option<&str>) -> Simulate {
    let service = service.map(str::to_owned);
    Simulate { trace: Some(path), service, synthetic: None, ..of(&["rr"], "", "2") }
}

/// Both forms of capture give the same connections: those that begin, that were there before, that are reset, that come
/// again from the same port; everything else is counted and left out.
#[test]
fn a_capture_tells_its_connections() {
    let directory = Directory::new();
    let mut told = Vec::new();
    for (name, bytes) in [("a.pcap", pcap(&frames())), ("a.pcapng", pcapng(&frames()))] {
        let json = directory.json(traced(directory.write(name, bytes), None));
        assert_eq!(number(&json["seconds"]), 2.0);
        let one = &json["schedulers"][0];
        assert_eq!(one["served"], 4, "two of one client, one that was reset, one that was there before");
        let inputs = json["inputs"].to_string();
        for line in [
            "1 connections, opened at time 0",
            "left out: other services\",\"1 connections",
            "left out: not IP\",\"1 frames",
            "tcp 192.0.2.10:80",
        ] {
            assert!(inputs.contains(line), "{line}: {inputs}");
        }
        let alive: Vec<u64> =
            one["series"]["alive"].as_array().unwrap().iter().map(|s| s[150].as_u64().unwrap()).collect();
        assert_eq!(alive.iter().sum::<u64>(), 1, "at 1.25 s only the old one is alive");
        told.push((one["by_server"].clone(), one["bytes_by_server"].clone()));
    }
    assert_eq!(told[0], told[1]);
    let json = directory.json(traced(directory.write("b.pcap", pcap(&frames())), Some("udp:192.0.2.11:53")));
    assert_eq!(json["schedulers"][0]["served"], 1);
}

/// A configuration gives service, servers, scheduler and timeouts.
#[test]
fn a_configuration_gives_the_service() {
    let directory = Directory::new();
    let config = directory.write(
        "site.toml",
        "[[service]]\naddress = \"192.0.2.10:80\"\nscheduler = \"sh\"\nflags = [\"sh-port\"]\n\
         [[service.server]]\naddress = \"10.0.0.1:80\"\n[[service.server]]\naddress = \"10.0.0.2:80\"\nweight = 2\n",
    );
    let options = Simulate { config: Some(config), servers: None, ..of(&[], "rate=100,seconds=2", "") };
    let json = directory.json(options);
    assert_eq!((&json["schedulers"][0]["label"], &json["schedulers"][0]["options"]), (&"sh".into(), &"sh-port".into()));
    assert_eq!(counts(&json, 0).len(), 2);
}

/// The report stands alone, and nothing of a file or of the command line becomes markup in it.
#[test]
fn the_report_stands_alone() {
    let directory = Directory::new();
    let nasty = "<img src=x onerror=alert(1)>\"'&</script>";
    let events = directory.write("events <b>.txt", "1s down 10.0.0.1\n");
    let report = directory.0.join("report.html");
    let mut options = of(&[&format!("{nasty}=rr"), "mh"], "rate=200,seconds=3,clients=50", "40");
    options.scheduler[0] = format!("{}=rr", nasty.replace(['/', '='], "!"));
    simulate(&Simulate { events: Some(events), report: Some(report.clone()), ..options }).expect("a simulation");
    let html = fs::read_to_string(report).expect("the report");
    assert!(!html.contains("<img") && !html.contains("<b>.txt") && html.contains("&lt;img src!x onerror!alert(1)&gt;"));
    assert_eq!(html.matches("</script").count(), 2);
    for address in ["http:", "https:", "src=\"", "url(", "@import", "href="] {
        assert!(!html.contains(address), "{address}");
    }
    for part in ["At a glance", "What each event disturbed", "prefers-color-scheme", "class=\"band\"", "viewport"] {
        assert!(html.contains(part), "{part}");
    }
    // Two curves for each kind of load, and the ones over time.
    assert!(html.matches("<svg").count() >= 6);
}

/// `wlc` as a plugin.
const WLC: &str = include_str!("../host/tests/modules/wlc.wat");

/// A plugin that is `wlc` spreads load as the built-in does, through the director's own host; and it repeats to the byte.
#[test]
fn a_plugin_takes_part() {
    let directory = Directory::new();
    let file = directory.write("mine.wasm", wat::parse_str(WLC).expect("a module"));
    let events = directory.write("events", "3s down 10.0.0.1\n6s up 10.0.0.1\n");
    let run = || {
        let options = of(
            &["wlc", &file.display().to_string()],
            "rate=1000,seconds=10,duration=exp:1s",
            "10.0.0.1:80=3,10.0.0.2:80,10.0.0.3:80",
        );
        let mut json = directory.json(Simulate { events: Some(events.clone()), ..options });
        json.as_object_mut().expect("an object").remove("measured");
        json
    };
    let json = run();
    let plugin = &json["schedulers"][1];
    assert_eq!(plugin["label"], "mine");
    assert_eq!((&plugin["plugin"]["picks"], &plugin["plugin"]["fallback"]), (&plugin["served"], &0.into()));
    for (native, plugin) in counts(&json, 0).into_iter().zip(counts(&json, 1)) {
        assert!(native.abs_diff(plugin) < 100, "{native} {plugin}");
    }
    assert_eq!(json, run());
}

/// A plugin that traps is replaced and sent into quarantine as in a director, and every connection is served all the same.
#[test]
fn a_faulty_plugin_is_told_of() {
    let directory = Directory::new();
    let text = r#"(module (memory (export "memory") 1 4)
        (data (i32.const 1024) "XVS1\01\00\00\00\00\00\00\00\00\00\00\00\08\00\00\00\20\00\00\00")
        (global $calls (mut i32) (i32.const 0))
        (func (export "xvs_abi_version") (result i32) i32.const 1)
        (func (export "xvs_table") (result i32) i32.const 1024)
        (func (export "xvs_io") (result i32) i32.const 64)
        (func (export "xvs_config") (result i32) i32.const 0)
        (func (export "xvs_schedule") (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.gt_u (global.get $calls) (i32.const 2000)) (then unreachable))
            i32.const -2))"#;
    let file = directory.write("trap.wasm", wat::parse_str(text).expect("a module"));
    let json = directory.json(of(&[&file.display().to_string()], "rate=1000,seconds=20", "4"));
    let one = &json["schedulers"][0];
    assert_eq!(one["refused"], 0);
    let record = &one["plugin"];
    assert!(number(&record["quarantines"]) >= 1.0 && record["last_fault"].is_string(), "{record}");
    let report = directory.0.join("report.html");
    let options = of(&[&file.display().to_string()], "rate=1000,seconds=20", "4");
    simulate(&Simulate { report: Some(report.clone()), ..options }).expect("a simulation");
    assert!(fs::read_to_string(report).expect("the report").contains("<h2>Plugins</h2>"));
    // It takes no options, and has room for eight servers.
    let options = Simulate { options: vec!["trap:a=1".into()], ..of(&[&file.display().to_string()], "rate=9", "4") };
    assert_eq!(wrong(&options).0, 1);
    assert_eq!(wrong(&of(&[&file.display().to_string()], "rate=9", "9")).0, 1);
}

/// Every mistake has its exit code and a sentence that says what would be right.
#[test]
fn mistakes_are_told() {
    let directory = Directory::new();
    let good = || of(&["rr"], "rate=10,seconds=1", "2");
    let bad_events = directory.write("events", "1s drop 10.0.0.1\n");
    let no_capture = directory.write("text.pcap", "no capture at all, but long enough for a header");
    let elsewhere = directory.write("a.pcap", pcap(&frames()));
    let mut ages = frames();
    ages[11].0 += 8 * 86_400_000;
    let ages = directory.write("ages.pcap", pcap(&ages));
    let not_wasm = directory.write("mine.wasm", "no module");
    let cases: Vec<(Simulate, u8, &str)> = vec![
        (Simulate { scheduler: vec!["wlcc".into()], ..good() }, 64, "did you mean \"wlc\""),
        (Simulate { scheduler: vec![], ..good() }, 64, "which schedulers?"),
        (Simulate { scheduler: vec!["rr".into(), "rr".into()], ..good() }, 64, "two schedulers are called"),
        (Simulate { scheduler: vec![not_wasm.display().to_string()], ..good() }, 1, "mine.wasm: "),
        (Simulate { scheduler: vec!["./none.wasm".into()], ..good() }, 3, "none.wasm"),
        (Simulate { options: vec!["mh:flags=x".into()], ..good() }, 64, "no --scheduler is called"),
        (Simulate { options: vec!["rr".into()], ..good() }, 64, "NAME:OPTION=VALUE"),
        (Simulate { servers: None, ..good() }, 64, "whom to?"),
        (Simulate { synthetic: None, ..good() }, 64, "which connections?"),
        (Simulate { service: Some("web".into()), ..good() }, 64, "VIP:PORT"),
        (Simulate { events: Some(bad_events), ..good() }, 2, "line 1: nothing called \"drop\""),
        (traced(ages, None), 12, "at most a week"),
        (traced(no_capture, None), 12, "it is no pcap or pcapng file"),
        (
            traced(elsewhere.clone(), Some("192.0.2.77:80")),
            12,
            "no connection of its 12 frames goes to tcp:192.0.2.77:80",
        ),
        (traced(directory.0.join("none.pcap"), None), 3, "none.pcap"),
        (Simulate { report: Some(elsewhere.clone()), ..traced(elsewhere, None) }, 64, "is to be written"),
    ];
    for (options, code, told) in cases {
        let (found, text) = wrong(&options);
        assert!(found == code && text.contains(told), "{code} {told}: {found} {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// No capture makes it panic or run for ever, however broken: it is simulated, or refused in a sentence.
    #[test]
    fn no_capture_breaks_it(
        ng in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let directory = Directory::new();
        let mut bytes = if ng { pcapng(&frames()) } else { pcap(&frames()) };
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let path = directory.write("a.pcap", &bytes);
        if let Err(error) = simulate(&traced(path, None)) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
