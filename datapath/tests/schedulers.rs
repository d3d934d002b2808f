//! Plugins of services: loading, swapping, trials and what is refused, over real rules, a real engine and real modules.
//!
//! No root, no network, and no thread but the test's: modules are made where they are needed.

mod frames;
mod plugins;
mod rules;

use std::path::{Path, PathBuf};

use xvs::control::protocol::schedulers::{
    Candidate, ComparisonView, Loaded, PluginState, PluginView, SwapTo, TrialKind,
};
use xvs::control::protocol::{
    Action, Grants, Method, Options, Refusal, RefusalKind, SchedulerAction, SchedulerAnswer, ServerSpec, ServiceSpec,
};
use xvs::control::wanted::Wanted;
use xvs_engine::engine::Verdict;

use plugins::{Directory, text};
use rules::*;

const WEB: &str = "192.0.2.1:80";
const MAIL: &str = "192.0.2.1:25";
const SERVERS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
/// It says so of facts: the metric of the newest server.
const METRIC: &str = "i32.const 8272 i64.load i32.wrap_i64 i32.const 3 i32.and";
/// The last character of the newest server's tags, as a figure.
const TAG: &str = "i32.const 8288 i32.const 8280 i32.load i32.add i32.const 1 i32.sub i32.load8_u i32.const 3 i32.and";

/// It does not come to an end when the newest server's tags begin with a q.
const FAULTY: &str = "(if (i32.eq (i32.load8_u (i32.const 8288)) (i32.const 113)) (then (loop br 0))) i32.const 0";

fn ask(site: &mut Site, action: SchedulerAction) -> Result<Option<SchedulerAnswer>, Refusal> {
    let outcome = site.scene().scheduler(action);
    site.book.workshop().clear();
    outcome
}

fn load(site: &mut Site, name: &str, file: &Path) -> Result<Loaded, Refusal> {
    let action = SchedulerAction::Load { name: name.into(), file: file.into(), grants: Grants::default() };
    told(ask(site, action))
}

fn told(outcome: Result<Option<SchedulerAnswer>, Refusal>) -> Result<Loaded, Refusal> {
    outcome.map(|answer| match answer {
        Some(SchedulerAnswer::Loaded(loaded)) => loaded,
        other => panic!("{other:?}"),
    })
}

fn swap(site: &mut Site, name: &str, to: SwapTo) -> Result<Loaded, Refusal> {
    told(ask(site, SchedulerAction::Swap { name: name.into(), to }))
}

fn trial(site: &mut Site, vip: &str, candidate: Candidate, kind: TrialKind) -> Result<Loaded, Refusal> {
    told(ask(site, SchedulerAction::Try { service: tcp(vip), candidate, kind, options: None }))
}

fn status(site: &mut Site, vip: &str) -> PluginView {
    match ask(site, SchedulerAction::Status(Some(tcp(vip)))) {
        Ok(Some(SchedulerAnswer::Status(mut status))) => status.services.remove(0),
        other => panic!("{other:?}"),
    }
}

fn compare(site: &mut Site, vip: &str) -> ComparisonView {
    match ask(site, SchedulerAction::Compare(tcp(vip))) {
        Ok(Some(SchedulerAnswer::Comparison(view))) => *view,
        other => panic!("{other:?}"),
    }
}

fn version(site: &mut Site, vip: &str) -> u32 {
    status(site, vip).live.expect("a plugin").version
}

fn spec(vip: &str, scheduler: &str) -> ServiceSpec {
    ServiceSpec { scheduler: scheduler.into(), ..service(vip) }
}

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Everything that a refused action must leave as it was.
fn all(site: &mut Site) -> String {
    let modules = ask(site, SchedulerAction::List);
    let status = ask(site, SchedulerAction::Status(None));
    format!("{} {modules:?} {status:?}", site.rules())
}

/// The server that a new connection goes to.
fn chosen(site: &Site, vip: &str, client: u16) -> String {
    let counts = |site: &Site| -> Vec<(String, u32)> {
        let servers = site.view(vip).servers;
        servers.iter().map(|server| (server.spec.address.to_string(), server.active + server.inactive)).collect()
    };
    let before = counts(site);
    let verdict = site.connect(&format!("198.51.100.7:{client}"), vip);
    assert!(matches!(verdict, Verdict::Transmit(_)), "{verdict:?}");
    let after = counts(site);
    let (server, _) = after.into_iter().find(|row| !before.contains(row)).expect("somebody has it");
    server
}

/// A site with a service of three servers and a plugin that takes the newest one.
fn web(directory: &Directory) -> Site {
    let mut site = Site::new(64);
    let file = directory.plugin("mine", &text(8, "", "i32.const 0"));
    let loaded = load(&mut site, "mine", &file).expect("a plugin");
    assert_eq!((loaded.version, loaded.current, loaded.sha256.len()), (1, true, 64));
    site.change(Action::AddService(spec(WEB, "wasm:mine")));
    for real in SERVERS {
        site.change(add(WEB, real, Method::Nat));
    }
    site
}

/// Guards the way of a plugin into service: refused while it is nowhere, taken from the directory, asked for new
/// connections, and its name is what listings say.
#[test]
fn a_service_has_its_plugin_from_the_start() {
    let directory = Directory::new("start");
    let mut site = Site::new(64);
    let add_web = || Action::AddService(spec(WEB, "wasm:mine"));
    assert_eq!(site.refused(add_web()), RefusalKind::NoSuchScheduler);
    site.book.look_for_plugins_in(Some(directory.0.clone()));
    assert_eq!(site.refused(add_web()), RefusalKind::NoSuchScheduler);
    std::fs::write(directory.0.join("mine.wasm"), "half").expect("a file");
    let refusal = site.try_change(add_web()).expect_err("no module");
    assert!(refusal.kind == RefusalKind::BadPlugin && refusal.message.contains("mine.wasm"), "{refusal:?}");
    site.book.workshop().clear();
    directory.plugin("mine", &text(8, "", "i32.const 0"));
    site.change(add_web());
    for real in SERVERS {
        site.change(add(WEB, real, Method::Nat));
    }
    assert_eq!(site.view(WEB).spec.scheduler, "wasm:mine");
    assert_eq!(chosen(&site, WEB, 1), SERVERS[2], "the newest one");
    let status = status(&mut site, WEB);
    assert_eq!((status.picks, status.fallback_picks, status.fallback.as_str()), (1, 0, "wlc"));
    assert_eq!(status.live.map(|live| live.state), Some(PluginState::Live));
    assert_eq!(site.refused(Action::AddService(spec(MAIL, "wasm:Mine"))), RefusalKind::NoSuchScheduler);
}

/// Guards a swap: other services of the name get the version too, existing connections stay, and there is a way back.
#[test]
fn a_swap_and_the_way_back() {
    let directory = Directory::new("swap");
    let mut site = web(&directory);
    site.change(Action::AddService(spec(MAIL, "wasm:mine")));
    site.change(add(MAIL, "10.0.0.9:25", Method::Nat));
    assert_eq!(chosen(&site, WEB, 1), SERVERS[2]);
    let second = directory.plugin("second", &text(8, "", "i32.const 1"));
    let loaded = load(&mut site, "mine", &second).expect("a plugin");
    assert_eq!((loaded.version, loaded.current, loaded.known), (2, false, false));
    assert!(load(&mut site, "mine", &second).expect("it is there").known, "the same is no new version");
    assert_eq!(chosen(&site, WEB, 2), SERVERS[2], "not before the swap");
    let loaded = swap(&mut site, "mine", SwapTo::Newest).expect("a swap");
    assert_eq!((loaded.version, loaded.services), (2, vec![tcp(WEB), tcp(MAIL)]));
    assert_eq!(chosen(&site, WEB, 3), SERVERS[1]);
    assert_eq!((version(&mut site, WEB), version(&mut site, MAIL)), (2, 2));
    assert_eq!(site.view(WEB).servers[0].inactive + site.view(WEB).servers[0].active, 2, "connections stay");
    let loaded = told(ask(&mut site, SchedulerAction::Rollback { name: "mine".into() })).expect("a way back");
    assert_eq!((loaded.version, loaded.current), (1, true));
    assert_eq!(chosen(&site, WEB, 4), SERVERS[2]);
    assert_eq!(
        swap(&mut site, "mine", SwapTo::File(second)).map(|loaded| (loaded.version, loaded.known)),
        Ok((2, true))
    );
}

/// Guards all or nothing: a version that one service can not have, a file that is none, a version that is not there, and
/// nothing has changed.
#[test]
fn what_is_refused_has_changed_nothing() {
    let directory = Directory::new("refused");
    let mut site = web(&directory);
    site.change(Action::AddService(spec(MAIL, "wasm:mine")));
    let small = directory.plugin("small", &text(2, "", "i32.const 1"));
    let picky = directory
        .plugin("picky", &text(8, r#"(func (export "xvs_configure") (result i32) i32.const -1)"#, "i32.const 0"));
    let endless = directory.plugin("endless", &text(8, "", "(loop br 0) unreachable"));
    std::fs::write(directory.0.join("none.wasm"), "none").expect("a file");
    let none = directory.0.join("none.wasm");
    let before = all(&mut site);
    let file = |path: &PathBuf| SwapTo::File(path.clone());
    let candidate = |path: &PathBuf| Candidate::File(path.clone());
    let shadow = TrialKind::Shadow { one_in: 1 };
    let refused: Vec<(&str, RefusalKind, Result<Loaded, Refusal>)> = vec![
        ("rows", RefusalKind::BadPlugin, swap(&mut site, "mine", file(&small))),
        ("refused its options", RefusalKind::BadPlugin, swap(&mut site, "mine", file(&picky))),
        ("end within its budget", RefusalKind::BadPlugin, swap(&mut site, "mine", file(&endless))),
        ("no scheduler", RefusalKind::BadPlugin, swap(&mut site, "mine", file(&none))),
        ("can not read", RefusalKind::BadPlugin, swap(&mut site, "mine", file(&directory.0.join("nowhere.wasm")))),
        ("no version 7; there are: 1", RefusalKind::NoSuchPlugin, swap(&mut site, "mine", SwapTo::Version(7))),
        ("there are: mine", RefusalKind::NoSuchPlugin, swap(&mut site, "other", SwapTo::Newest)),
        (
            "no version before",
            RefusalKind::NoSuchPlugin,
            told(ask(&mut site, SchedulerAction::Rollback { name: "mine".into() })),
        ),
        ("rows", RefusalKind::BadPlugin, trial(&mut site, WEB, candidate(&small), shadow)),
        ("name of a plugin", RefusalKind::Invalid, trial(&mut site, WEB, candidate(&"/A.wasm".into()), shadow)),
        (
            "0.1%",
            RefusalKind::Invalid,
            trial(&mut site, WEB, Candidate::Name("mine".into()), TrialKind::Canary { per_mille: 0 }),
        ),
        ("name of a plugin", RefusalKind::Invalid, load(&mut site, "Mine", &small)),
        ("there is no candidate", RefusalKind::BadPlugin, told(ask(&mut site, SchedulerAction::Promote(tcp(WEB))))),
    ];
    for (word, kind, outcome) in refused {
        let refusal = outcome.expect_err(word);
        assert!(refusal.kind == kind && refusal.message.contains(word), "{word}: {refusal:?}");
    }
    let unload = |version| SchedulerAction::Unload { name: "mine".into(), version };
    for action in [unload(None), unload(Some(1))] {
        assert_eq!(ask(&mut site, action).map(drop).map_err(|refusal| refusal.kind), Err(RefusalKind::InUse));
    }
    assert_eq!(all(&mut site), before);
}

/// Guards the number of versions: the oldest go that nobody needs, and those that a service tries stay.
#[test]
fn few_versions_are_kept() {
    let directory = Directory::new("kept");
    let mut site = web(&directory);
    for number in 2..=9 {
        let file = directory.plugin("next", &text(8, "", &format!("i32.const 0 i32.const {number} drop")));
        assert_eq!(load(&mut site, "mine", &file).map(|loaded| loaded.version), Ok(number));
        if number == 2 {
            trial(&mut site, WEB, Candidate::Name("mine".into()), TrialKind::Shadow { one_in: 1 }).expect("a trial");
        }
    }
    let kept: Vec<u32> = site.book.modules()[0].versions.iter().map(|version| version.version).collect();
    assert_eq!(kept, [1, 2, 7, 8, 9], "the current one, that on trial, and the newest");
    assert!(ask(&mut site, SchedulerAction::Unload { name: "mine".into(), version: Some(8) }).is_ok());
    site.change(delete_service(WEB));
    assert!(ask(&mut site, SchedulerAction::Unload { name: "mine".into(), version: None }).is_ok());
    assert!(site.book.modules().is_empty());
}

/// Guards tools that know nothing of plugins: their edits keep options, fallback and tags, a server that comes back has its
/// tags; and a native scheduler in between moves no connection.
#[test]
fn edits_keep_what_they_can_not_say() {
    let directory = Directory::new("keep");
    let mut site = web(&directory);
    let full =
        ServiceSpec { fallback: Some("rr".into()), options: Some(options(&[("zone", "a")])), ..spec(WEB, "wasm:mine") };
    site.change(Action::EditService(full.clone()));
    let tagged = ServerSpec { tags: "zone=a".parse().ok(), ..server(SERVERS[0], Method::Nat) };
    site.change(Action::EditServer { service: tcp(WEB), server: tagged });
    chosen(&site, WEB, 1);
    site.change(Action::EditService(spec(WEB, "wasm:mine")));
    site.change(edit(WEB, SERVERS[0], Method::Nat));
    assert_eq!(site.view(WEB).spec, full);
    site.change(delete(WEB, SERVERS[0]));
    site.change(add(WEB, SERVERS[0], Method::Nat));
    assert_eq!(site.view(WEB).servers[0].spec.tags, tagged.tags);
    site.change(Action::EditService(spec(WEB, "wrr")));
    assert!(ask(&mut site, SchedulerAction::Status(Some(tcp(WEB)))).is_err(), "no plugin is left");
    chosen(&site, WEB, 2);
    site.change(Action::EditService(spec(WEB, "wasm:mine")));
    assert_eq!(site.view(WEB).spec, full);
    let total: u32 = site.view(WEB).servers.iter().map(|server| server.active + server.inactive).sum();
    assert_eq!(total, 2, "connections stay");
    site.change(Action::EditService(spec(WEB, "wasm:mine").explicit()));
    assert_eq!(site.view(WEB).spec, spec(WEB, "wasm:mine"), "a file that is silent has none");
}

/// Guards a plan: modules are loaded and swapped with the rest of it, and taken back with the rest of it.
#[test]
fn a_plan_is_taken_back_with_its_plugins() {
    let directory = Directory::new("plan");
    let mut site = web(&directory);
    let second = directory.plugin("second", &text(8, "", "i32.const 1"));
    let other = directory.plugin("other", &text(8, "", "i32.const 2"));
    let load = |name: &str, file: &Path| {
        Action::Scheduler(SchedulerAction::Load { name: name.into(), file: file.into(), grants: Grants::default() })
    };
    let swap = Action::Scheduler(SchedulerAction::Swap { name: "mine".into(), to: SwapTo::Newest });
    let steps = vec![
        load("mine", &second),
        load("other", &other),
        swap,
        Action::AddService(spec(MAIL, "wasm:other")),
        Action::EditService(spec(WEB, "wasm:other").explicit()),
    ];
    let before = all(&mut site);
    let wrong = [steps.clone(), vec![add(MAIL, "0.0.0.0:25", Method::Nat)]].concat();
    assert!(site.change_all(wrong).is_err());
    assert_eq!(all(&mut site), before);
    assert_eq!(chosen(&site, WEB, 1), SERVERS[2]);
    site.change_all(steps).expect("it is right");
    assert_eq!(chosen(&site, WEB, 2), SERVERS[0]);
    assert_eq!(site.book.modules().len(), 2);
}

/// Guards what plugins know of servers: metrics at once, tags with the change that brings them.
#[test]
fn metrics_and_tags_reach_the_plugin() {
    let directory = Directory::new("facts");
    let mut site = web(&directory);
    let metric = directory.plugin("metric", &text(8, "", METRIC));
    swap(&mut site, "mine", SwapTo::File(metric)).expect("a swap");
    assert_eq!(chosen(&site, WEB, 1), SERVERS[2], "0 at first");
    let tell = |value| SchedulerAction::Metric { service: tcp(WEB), server: address(SERVERS[2]), value };
    ask(&mut site, tell(2)).expect("a server");
    assert_eq!(chosen(&site, WEB, 2), SERVERS[0]);
    let nobody = SchedulerAction::Metric { service: tcp(WEB), server: address("10.0.0.99:80"), value: 1 };
    assert_eq!(ask(&mut site, nobody).map_err(|refusal| refusal.kind), Err(RefusalKind::NoSuchServer));
    let tag = directory.plugin("tag", &text(8, "", TAG));
    let tagged = |text: &str| ServerSpec { tags: text.parse().ok(), ..server(SERVERS[2], Method::Nat) };
    site.change(Action::EditServer { service: tcp(WEB), server: tagged("slot=1") });
    swap(&mut site, "mine", SwapTo::File(tag)).expect("a swap");
    assert_eq!(chosen(&site, WEB, 3), SERVERS[1]);
    site.change(Action::EditServer { service: tcp(WEB), server: tagged("slot=2") });
    assert_eq!(chosen(&site, WEB, 4), SERVERS[0]);
    site.pass_seconds(1);
    site.book.sample();
    assert_eq!(chosen(&site, WEB, 5), SERVERS[0], "rates do not wipe out what else is known");
}

/// Guards options: what is set, kept, taken away and refused.
#[test]
fn options_change_one_by_one() {
    let directory = Directory::new("options");
    let mut site = web(&directory);
    let change = |site: &mut Site, set: &[(&str, &str)], unset: &[&str], clear| {
        let unset = unset.iter().map(|name| name.to_string()).collect();
        match ask(site, SchedulerAction::Options { service: tcp(WEB), set: options(set), unset, clear }) {
            Ok(Some(SchedulerAnswer::Options(options))) => Ok(options),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.kind),
        }
    };
    assert_eq!(change(&mut site, &[("a", "1"), ("b", "2")], &[], false), Ok(options(&[("a", "1"), ("b", "2")])));
    assert_eq!(change(&mut site, &[("a", "3")], &["b"], false), Ok(options(&[("a", "3")])));
    assert_eq!(change(&mut site, &[], &["b"], false), Err(RefusalKind::Invalid));
    assert_eq!(change(&mut site, &[("a", "x\ny")], &[], false), Err(RefusalKind::Invalid));
    // The module has room for 64 bytes.
    assert_eq!(change(&mut site, &[("b", &"x".repeat(100))], &[], false), Err(RefusalKind::BadPlugin));
    assert_eq!(site.view(WEB).spec.options, Some(options(&[("a", "3")])));
    assert_eq!(change(&mut site, &[], &[], true), Ok(Options::new()));
    assert_eq!(site.view(WEB).spec.options, None);
}

/// Guards trials: a native scheduler has a candidate too, both are counted, and the better one is promoted; after that the
/// service is named after it.
#[test]
fn a_candidate_is_compared_and_promoted() {
    let directory = Directory::new("trial");
    let mut site = Site::new(64);
    site.change(Action::AddService(spec(WEB, "rr")));
    for real in SERVERS {
        site.change(add(WEB, real, Method::Nat));
    }
    let file = directory.plugin("first_one", &text(8, "", "i32.const 0"));
    let loaded = trial(&mut site, WEB, Candidate::File(file), TrialKind::Shadow { one_in: 1 }).expect("a trial");
    assert_eq!((loaded.name.as_str(), loaded.version), ("first_one", 1));
    for client in 101..=130 {
        chosen(&site, WEB, client);
    }
    let seen = compare(&mut site, WEB);
    assert_eq!((seen.scheduler.as_str(), seen.asked, seen.agreed), ("rr", 30, 10));
    let shares: Vec<_> = seen.servers.iter().map(|share| (share.live, share.candidate)).collect();
    assert_eq!(shares, [(10, 30), (10, 0), (10, 0)]);
    assert!(seen.live_skew == 1.0 && seen.candidate_skew > 2.9, "{seen:?}");
    let text = xvs::render::schedulers::answer(&SchedulerAnswer::Comparison(Box::new(seen)));
    for word in ["30 connections", "10 (33.3%)", "shadow 1/1", "10.0.0.1:80", "skew", "worst choice"] {
        assert!(text.contains(word), "{word} in:\n{text}");
    }
    trial(&mut site, WEB, Candidate::Name("first_one".into()), TrialKind::Canary { per_mille: 1000 })
        .expect("a canary");
    assert_eq!(chosen(&site, WEB, 40), SERVERS[2]);
    let promoted = told(ask(&mut site, SchedulerAction::Promote(tcp(WEB)))).expect("it is well");
    assert_eq!((promoted.version, promoted.current), (1, true));
    assert_eq!(site.view(WEB).spec.scheduler, "wasm:first_one");
    assert_eq!(chosen(&site, WEB, 41), SERVERS[2]);
    assert!(ask(&mut site, SchedulerAction::EndTrial(tcp(WEB))).is_err(), "it is over");
}

/// Guards a plugin that goes wrong: every connection is served, the fault is told with the module's name, and a person lets
/// it back.
#[test]
fn a_quarantine_is_told_and_lifted() {
    let directory = Directory::new("faulty");
    let mut site = web(&directory);
    let faulty = directory.plugin("faulty", &text(8, "", FAULTY));
    swap(&mut site, "mine", SwapTo::File(faulty)).expect("nobody tried it");
    site.change(Action::EditServer {
        service: tcp(WEB),
        server: ServerSpec { tags: "quit=1".parse().ok(), ..server(SERVERS[2], Method::Nat) },
    });
    for client in 1..=6 {
        chosen(&site, WEB, client);
    }
    let alarms = site.book.alarms(site.now.millis());
    assert!(
        alarms.len() == 1 && alarms[0].contains("wasm:mine version 2") && alarms[0].contains("budget"),
        "{alarms:?}"
    );
    let view = status(&mut site, WEB);
    let live = view.live.clone().expect("a plugin");
    assert!(matches!(live.state, PluginState::Quarantined { .. }), "{live:?}");
    assert!(view.fallback_picks > 0 && live.faults.iter().any(|(reason, count)| reason == "budget" && *count == 1));
    let text =
        xvs::render::schedulers::answer(&ask(&mut site, SchedulerAction::Status(None)).expect("it").expect("it"));
    assert!(text.contains("in quarantine") && text.contains("last fault"), "{text}");
    site.book.tend(site.now.millis());
    ask(&mut site, SchedulerAction::Retry(tcp(WEB))).expect("a plugin");
    assert!(site.book.alarms(site.now.millis()).is_empty());
    told(ask(&mut site, SchedulerAction::Rollback { name: "mine".into() })).expect("a way back");
    site.book.tend(site.now.millis());
    assert_eq!(chosen(&site, WEB, 9), SERVERS[2]);
}

/// Guards the watched directory: a new file is loaded, a changed one is swapped in, the same one does nothing, and what is
/// no scheduler leaves the live one alone.
#[test]
fn a_changed_file_is_swapped_in() {
    let directory = Directory::new("watched");
    let mut site = web(&directory);
    let follow = |site: &mut Site, file: PathBuf| {
        let wanted = Wanted { place: String::new(), name: "mine".into(), file, grants: Grants::default() };
        let outcome = site.scene().follow_file(wanted);
        site.book.workshop().clear();
        outcome
    };
    follow(&mut site, directory.0.join("mine.wasm")).expect("the same");
    assert_eq!(version(&mut site, WEB), 1);
    let file = directory.plugin("mine", &text(8, "", "i32.const 1"));
    follow(&mut site, file.clone()).expect("another one");
    assert_eq!((version(&mut site, WEB), chosen(&site, WEB, 1)), (2, SERVERS[1].to_owned()));
    std::fs::write(&file, "half of it").expect("a file");
    let before = all(&mut site);
    assert_eq!(follow(&mut site, file).map_err(|refusal| refusal.kind), Err(RefusalKind::BadPlugin));
    assert_eq!(all(&mut site), before);
}
