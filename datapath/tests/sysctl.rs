//! Settings by name: against what two kernels printed, through the real program over a real socket, and what they move.
//!
//! Behind the socket works a loop over real rules; there is no datapath and no root.

mod frames;
mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use crossbeam_channel::unbounded;
use serde_json::Value;
use xvs::config::document::Compat;
use xvs::control::protocol::{Action, Answer, Assignment, Method, Outcome, RefusalKind, ServerSpec, ServiceSpec};
use xvs::control::socket::{Call, Listening, listen};
use xvs::control::sysctl::table::{self, Applies, TABLE};
use xvs::control::sysctl::{Settings, Wish, read_all};
use xvs_engine::engine::Verdict;
use xvs_engine::switches::Switches;
use xvs_engine::time::Now;

use rules::*;

const WEB: &str = "192.0.2.1:80";
const ONE: &str = "10.0.0.1:80";

/// What the kernels printed.
const KERNELS: [(&str, &str); 2] =
    [("6.12", include_str!("sysctl/kernel-6.12.txt")), ("7.3", include_str!("sysctl/kernel-7.3.txt"))];

fn set(pairs: &[(&str, &str)]) -> Action {
    let assignment = |(name, value): &(&str, &str)| Assignment { name: (*name).into(), value: (*value).into() };
    Action::Set(pairs.iter().map(assignment).collect())
}

fn value(settings: &Settings, name: &str) -> String {
    settings.get(name).unwrap_or_else(|| panic!("{name}")).to_string()
}

/// Guards scripts that read or write any name of a kernel: each is known and has that kernel's default, as it prints it.
#[test]
fn every_name_of_a_kernel_is_known_with_its_default() {
    let settings = Settings::new(Compat::Ipvs);
    for (kernel, text) in KERNELS {
        assert!(text.lines().count() > 30, "{kernel}");
        for line in text.lines() {
            let (name, recorded) = line.split_once(" = ").expect("name = value");
            let setting = table::find(name).unwrap_or_else(|| panic!("{kernel} has {name}"));
            assert_eq!(setting.full_name(), name);
            assert!(setting.kind.read(recorded).is_some(), "{kernel}: {name} takes {recorded}");
            // That one follows from the memory of the machine.
            if setting.name != "sync_qlen_max" {
                assert_eq!(value(&settings, setting.name), recorded, "{kernel}: {name}");
            }
        }
    }
}

/// Guards the table: it is searched by halving, and each line must be whole: a default of its own kind in every profile,
/// sentences that end, a reason where nothing moves, and nothing at all where a cure has no effect.
#[test]
fn the_table_is_in_order() {
    assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
    for setting in TABLE {
        let name = setting.name;
        for profile in [Compat::Ipvs, Compat::Sane] {
            let default = setting.default(profile);
            let read = setting.kind.read(default).unwrap_or_else(|| panic!("{name}: {default}"));
            assert_eq!(read.to_string(), default, "{name}");
        }
        let acts = match setting.applies {
            Applies::Switch(_) | Applies::Control => true,
            Applies::Kept(why) | Applies::Absent(why) => {
                assert!(why.ends_with('.') && why.len() > 30, "{name}: {why}");
                false
            }
        };
        let cured = setting.default(Compat::Sane) != setting.default(Compat::Ipvs);
        assert!(acts || !cured, "{name} is another in profile sane, and has no effect");
        assert!(setting.effect.ends_with('.') && !setting.effect.contains("  "), "{name}: {}", setting.effect);
        for spelling in [setting.full_name(), setting.full_name().replace('.', "/"), name.to_owned()] {
            assert_eq!(table::find(&spelling).map(|found| found.name), Some(name), "{spelling}");
        }
    }
}

/// Guards the wires: each setting that is said to be a switch of the engine moves one, each another one, and none moves
/// by itself: the defaults of the table are those that the engine has.
#[test]
fn each_setting_moves_its_own_switch() {
    let (untouched, switches) = (Switches::default(), Switches::default());
    let mut settings = Settings::new(Compat::Ipvs);
    settings.act_on(&switches);
    assert_eq!(format!("{switches:?}"), format!("{untouched:?}"));
    let mut moved = BTreeMap::new();
    for setting in TABLE {
        let Applies::Switch(switch) = setting.applies else { continue };
        let other = if setting.default(Compat::Ipvs) == "0" { "1" } else { "0" };
        settings.take(&[Wish::read(setting.name, other).expect("in range")]);
        settings.act_on(&switches);
        assert_eq!(switch(&switches).get().to_string(), other, "{}", setting.name);
        let all = format!("{switches:?}");
        assert_eq!(moved.insert(all, setting.name), None, "{} moves another one's switch", setting.name);
    }
    assert!(moved.len() >= 11, "{moved:?}");
}

/// Guards switches that nobody could set: each has a setting of its name, but for those that the defences move.
#[test]
fn each_switch_has_a_setting() {
    let derived = ["drop_rate", "drop_entry_active", "secure_tcp_active"];
    let all = format!("{:?}", Switches::default());
    let fields: Vec<&str> = all.split(['{', ',']).skip(1).filter_map(|field| field.trim().split(':').next()).collect();
    assert!(fields.len() > 12, "{all}");
    for field in fields.into_iter().filter(|field| !derived.contains(field)) {
        let setting = table::find(field).or_else(|| table::find(&format!("xvs.{field}")));
        let setting = setting.unwrap_or_else(|| panic!("no setting moves the switch {field}"));
        assert!(matches!(setting.applies, Applies::Switch(_)), "{field}");
    }
}

/// Guards all or nothing: one wrong value among right ones, and nothing has changed; all that is wrong is said at once.
#[test]
fn many_are_set_as_one() {
    let mut site = Site::new(4);
    let wrong = [("sloppy_tcp", "1"), ("drop_entry", "4"), ("sloppy_tpc", "1"), ("pmtu_disc", "off")];
    let refusal = site.try_change(set(&wrong)).expect_err("it is wrong");
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    for word in ["drop_entry does not take \"4\": it is 0 to 3", "did you mean \"sloppy_tcp\"?", "pmtu_disc"] {
        assert!(refusal.message.contains(word), "{word} in: {}", refusal.message);
    }
    assert!(!site.shared.switches.sloppy_tcp.is_on());
    assert_eq!(value(site.book.settings(), "sloppy_tcp"), "0");
    let refusal = site.try_change(set(&[("net.ipv4.vs.timeout_established", "1")])).expect_err("of old kernels");
    assert_eq!(refusal.kind, RefusalKind::NoSuchSetting);

    site.change(set(&[("net/ipv4/vs/sloppy_tcp", "1"), ("drop_entry", "1"), ("drop_entry", "3")]));
    assert!(site.shared.switches.sloppy_tcp.is_on());
    assert_eq!(value(site.book.settings(), "drop_entry"), "3", "the last one counts");
}

/// Guards a plan that fails half way: settings are taken back with everything else.
#[test]
fn a_refused_plan_takes_settings_back() {
    let mut site = Site::new(4);
    site.change(add_service(WEB));
    let plan = vec![set(&[("sloppy_tcp", "1")]), add_service(WEB)];
    assert_eq!(site.change_all(plan).expect_err("it is there already").kind, RefusalKind::ServiceExists);
    assert!(!site.shared.switches.sloppy_tcp.is_on());
    assert_eq!(value(site.book.settings(), "sloppy_tcp"), "0");
}

/// Guards the defences: they follow the free entries of the table, write their own modes back as the kernel does, and
/// reach the engine's switches.
#[test]
fn defences_follow_the_table() {
    let mut site = Site::new(4);
    let modes = ["drop_entry", "drop_packet", "secure_tcp"];
    let state = |site: &Site| modes.map(|name| value(site.book.settings(), name)).join(" ");
    let active = |site: &Site| {
        let switches = &site.shared.switches;
        (switches.drop_entry_active.get(), switches.drop_rate.get(), switches.secure_tcp_active.get())
    };
    site.book.defend(Now::default());
    assert_eq!((state(&site).as_str(), active(&site)), ("0 0 0", (0, 0, 0)));
    // The table has 1024 entries and all are free.
    site.change(set(&[("drop_entry", "1"), ("drop_packet", "1"), ("secure_tcp", "1"), ("amemthresh", "2048")]));
    assert_eq!((state(&site).as_str(), active(&site)), ("1 1 1", (0, 0, 0)), "nothing before the next look");
    site.book.defend(Now::default());
    assert_eq!((state(&site).as_str(), active(&site)), ("2 2 2", (1, 2, 1)), "2048 / (2048 - 1024)");
    site.change(set(&[("amemthresh", "1024")]));
    site.book.defend(Now::default());
    assert_eq!((state(&site).as_str(), active(&site)), ("1 1 1", (0, 0, 0)));
    site.change(set(&[("drop_packet", "3"), ("am_droprate", "7"), ("secure_tcp", "0")]));
    site.book.defend(Now::default());
    assert_eq!((state(&site).as_str(), active(&site)), ("1 3 0", (0, 7, 0)));
}

/// Guards `run_estimation` = 0 and an empty `est_cpulist`: rates and shown counters stand still while packets are counted
/// all the same, and go on from the true counts afterwards without a leap of the rates.
#[test]
fn without_estimation_listings_stand_still() {
    for (stop, go) in [(("run_estimation", "0"), ("run_estimation", "1")), (("est_cpulist", ""), ("est_cpulist", "0"))]
    {
        let mut site = Site::new(4);
        site.change(add_service(WEB));
        site.change(add(WEB, ONE, Method::Dr));
        let connect = |site: &mut Site, ports: std::ops::Range<u16>| {
            for port in ports {
                let _ = site.connect(&format!("198.51.100.7:{port}"), WEB);
            }
        };
        connect(&mut site, 1000..1100);
        site.book.sample();
        let before = site.stats(WEB);
        assert_eq!((before.conns, before.cps), (100, 12));
        site.change(set(&[stop]));
        connect(&mut site, 1100..1150);
        site.book.sample();
        assert_eq!(site.stats(WEB), before, "{stop:?}");
        site.change(set(&[go]));
        assert_eq!((site.stats(WEB).conns, site.stats(WEB).cps), (150, 0));
        connect(&mut site, 1150..1250);
        site.book.sample();
        assert_eq!(site.stats(WEB).cps, 12, "not those of the time between");
    }
}

/// Guards `lblc_expiration`: it reaches the schedulers of services that are there already and of those that come, and
/// nothing is forgotten earlier than it says.
#[test]
fn schedulers_hear_for_how_long_to_remember() {
    let lblc = || Action::AddService(ServiceSpec { scheduler: "lblc".into(), ..service(WEB) });
    let weight = |weight| {
        let server = ServerSpec { weight, ..server("10.0.0.2:80", Method::Dr) };
        Action::EditServer { service: tcp(WEB), server }
    };
    for (seconds, before, expected) in [(600, true, "10.0.0.2"), (600, false, "10.0.0.2"), (86_400, true, "10.0.0.1")] {
        let mut site = Site::new(4);
        let wish = set(&[("lblc_expiration", &seconds.to_string())]);
        if before {
            site.change(wish.clone());
        }
        site.change(lblc());
        site.change(add(WEB, ONE, Method::Dr));
        site.change(add(WEB, "10.0.0.2:80", Method::Dr));
        site.change(weight(0));
        assert!(matches!(site.connect("198.51.100.7:1", WEB), Verdict::Transmit(_)));
        site.change(weight(100));
        if !before {
            site.change(wish);
        }
        site.now = site.now.plus_millis(2 * 3_600_000);
        let _ = site.connect("198.51.100.7:2", WEB);
        let conn = site.shared.table.iter().find(|conn| conn.client().port == 2).expect("a connection");
        let server = std::net::SocketAddr::from(site.shared.arena.get(conn.real()).endpoint()).ip().to_string();
        assert_eq!(server, expected, "{seconds} s, set {}", if before { "before" } else { "after" });
    }
}

/// A director without a datapath that knows settings.
struct Director {
    path: PathBuf,
    listening: Option<Listening>,
    thread: Option<JoinHandle<()>>,
}

impl Director {
    fn start(name: &str) -> Director {
        let path = std::env::temp_dir().join(format!("xvs-sysctl-{name}-{}", std::process::id())).join("d/xvs.sock");
        let (calls, inlet) = unbounded::<Call>();
        let listening = Some(listen(&path, calls).expect("a socket"));
        let thread = thread::spawn(move || {
            let mut site = Site::new(4);
            for Call { action, reply, .. } in inlet {
                let outcome = match action {
                    Action::Settings(names) => site.book.settings().states(&names),
                    Action::Set(assignments) => site.scene().set(assignments),
                    other => panic!("nobody asks for {other:?}"),
                };
                let _ =
                    reply.send(outcome.map_or_else(Outcome::Refused, |states| Outcome::Ok(Answer::Settings(states))));
            }
        });
        Director { path, listening, thread: Some(thread) }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
        command.arg("sysctl").args(words).env("XVS_SOCKET", &self.path).output().expect("the program runs")
    }

    /// Exit code, standard output, standard error.
    fn ask(&self, words: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.run(words);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (status.code().expect("it ended"), text(stdout), text(stderr))
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        drop(self.listening.take());
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = self.path.ancestors().nth(2).map(fs::remove_dir_all);
    }
}

/// Guards scripts: `get` and `set` print what sysctl(8) prints, to the byte, with its exit status for success.
#[test]
fn the_program_prints_what_sysctl_prints() {
    let director = Director::start("prints");
    for (words, printed) in [
        (&["get", "drop_entry"][..], "net.ipv4.vs.drop_entry = 0\n"),
        (
            &["get", "net.ipv4.vs.sync_threshold", "net/ipv4/vs/pmtu_disc"],
            "net.ipv4.vs.sync_threshold = 3\t50\nnet.ipv4.vs.pmtu_disc = 1\n",
        ),
        (&["get", "-n", "am_droprate", "xvs.refuse_nodest"], "10\n0\n"),
        (
            &["set", "net.ipv4.vs.drop_entry=1", "xvs.refuse_nodest = 1"],
            "net.ipv4.vs.drop_entry = 1\nxvs.refuse_nodest = 1\n",
        ),
        (&["set", "-n", "sloppy_tcp=0x1"], "1\n"),
        (&["get", "drop_entry", "sloppy_tcp"], "net.ipv4.vs.drop_entry = 1\nnet.ipv4.vs.sloppy_tcp = 1\n"),
        (&["set", "est_cpulist="], "net.ipv4.vs.est_cpulist = \n"),
    ] {
        assert_eq!(director.ask(words), (0, printed.to_owned(), String::new()), "{words:?}");
    }
    let all: Vec<&str> = KERNELS[0].1.lines().filter_map(|line| line.split(" = ").next()).collect();
    let fresh = Director::start("fresh");
    let (code, stdout, _) = fresh.ask(&[&["get"], &all[..]].concat());
    let own =
        |text: &str| text.lines().filter(|line| !line.contains("sync_qlen_max")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((code, own(&stdout)), (0, own(KERNELS[0].1)), "a whole kernel");
}

/// Guards people: what is kept without effect says so on the side and is no failure; mistakes have the exit codes of the
/// README, one line, and change nothing.
#[test]
fn the_program_says_what_is_futile_and_what_is_wrong() {
    let director = Director::start("wrong");
    let (code, stdout, stderr) = director.ask(&["set", "conntrack=1", "sloppy_tcp=1"]);
    assert_eq!((code, stdout.as_str()), (0, "net.ipv4.vs.conntrack = 1\nnet.ipv4.vs.sloppy_tcp = 1\n"));
    assert_eq!(
        stderr,
        "xvs: note: net.ipv4.vs.conntrack is kept and has no effect here. There is no netfilter on this path, thus no \
         connection tracking to keep in step.\n"
    );
    assert_eq!(director.ask(&["set", "conntrack=0"]).2, "", "the default needs no word");
    for (words, code, told) in [
        (&["get", "sloppy_tpc"][..], 1, "did you mean \"sloppy_tcp\"?"),
        (&["set", "sloppy_tcp=2"], 1, "net.ipv4.vs.sloppy_tcp does not take \"2\": it is 0 to 1"),
        (&["set", "sloppy_tcp=0", "secure_tcp=-1"], 1, "secure_tcp"),
        (&["set", "sloppy_tcp"], 64, "NAME=VALUE"),
        (&["set", "=1"], 64, "NAME=VALUE"),
        (&["set"], 64, "NAME=VALUE"),
        (&["get"], 64, "NAME"),
        (&[], 64, "xvs"),
        (&["dance"], 64, "dance"),
    ] {
        let (got, stdout, stderr) = director.ask(words);
        assert_eq!((got, stdout.as_str(), stderr.lines().count()), (code, "", 1), "{words:?}: {stderr}");
        assert!(stderr.starts_with("xvs: ") && stderr.contains(told), "{words:?}: {stderr}");
    }
    assert_eq!(director.ask(&["get", "-n", "sloppy_tcp"]).1, "1\n", "all or nothing");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
    let output = command.args(["sysctl", "list"]).env("XVS_SOCKET", "/nonexistent/xvs.sock").output().expect("it runs");
    assert_eq!(output.status.code(), Some(20), "nobody answers");
}

/// Guards the listing: every line tells name, value, whether it acts and what it does, in columns; a changed value is
/// marked; the rest is counted or, with `--all`, listed with its reason.
#[test]
fn the_listing_is_for_people() {
    let director = Director::start("list");
    director.ask(&["set", "drop_entry=3", "sync_threshold=3 0"]);
    let (code, list, _) = director.ask(&["list"]);
    assert_eq!(code, 0);
    let acting =
        TABLE.iter().filter(|setting| matches!(setting.applies, Applies::Switch(_) | Applies::Control)).count();
    assert_eq!(list.lines().count(), acting + 1, "{list}");
    let silent = TABLE.len() - acting;
    assert_eq!(
        list.lines().last(),
        Some(format!("{silent} more are known and have no effect here: `xvs sysctl list --all`").as_str())
    );
    let line = |text: &str, name: &str| -> String {
        text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}")).to_owned()
    };
    assert_eq!(
        line(&list, "xvs.refuse_nodest"),
        "xvs.refuse_nodest                     = 0      acts  1 answers a packet of a connection whose server was removed with a \
         reset (TCP) or \"port unreachable\"; 0 drops it in silence, as the kernel does, and counts it."
    );
    assert!(line(&list, "net.ipv4.vs.drop_entry ").contains("= 3      acts  [default 0] Ends connections"));
    let (_, all, _) = director.ask(&["list", "--all"]);
    assert_eq!(all.lines().count(), TABLE.len());
    assert_eq!(
        line(&all, "net.ipv4.vs.sync_threshold"),
        "net.ipv4.vs.sync_threshold            = 3 0         kept  [default 3 50] After how many packets a connection is told \
         to the backup, and again every how many. Connections are not synchronised between directors yet."
    );
    assert!(line(&all, "net.ipv4.vs.conntrack").contains("  n/a   1 keeps netfilter's records"), "{all}");

    let json = |words: &[&str]| -> Value { serde_json::from_slice(&director.run(words).stdout).expect("JSON") };
    let told = json(&["list", "--json", "--all"]);
    let settings = told["settings"].as_array().expect("a list");
    assert_eq!(settings.len(), TABLE.len());
    let conntrack = settings.iter().find(|setting| setting["name"] == "net.ipv4.vs.conntrack").expect("it");
    assert_eq!((&conntrack["standing"], &conntrack["takes"]), (&"not_applicable".into(), &"0 to 1".into()));
    assert_eq!(json(&["list", "--json"])["settings"].as_array().map(Vec::len), Some(acting));
}

/// Guards round trips: what is printed can be set again, whatever was set, and sets the same.
#[test]
fn what_is_printed_can_be_set() {
    let mut settings = Settings::new(Compat::Sane);
    settings.take(&read_all(&[Assignment { name: "sync_threshold".into(), value: "7\t0".into() }]).expect("right"));
    let states = settings.states(&[]).expect("all");
    let again: Vec<Assignment> =
        states.iter().map(|state| Assignment { name: state.name.clone(), value: state.value.clone() }).collect();
    let mut other = Settings::new(Compat::Ipvs);
    other.take(&read_all(&again).expect("right"));
    let values = |settings: &Settings| TABLE.iter().map(|setting| value(settings, setting.name)).collect::<Vec<_>>();
    assert_eq!(values(&other), values(&settings));
}
