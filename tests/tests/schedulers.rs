//! Plugin schedulers under real traffic: swapped, tried, promoted, faulty, refused, and followed in files.
//!
//! Two workers, each with its own instance of a plugin, except where a story needs less. Clients and servers are real
//! kernels, and every request is counted: a story ends well only if none failed.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xvs_tests::{
    Answers, Cases, Expected, Family, Finished, Lab, Load, Method, Outcome, Plan, Running, Service, story, wait_until,
};

/// What must happen does so within this time, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(20);

/// Receive queues of each of the director's interfaces, and so its workers.
const WORKERS: u32 = 2;

/// Requests that a load has under way at most: so many answers may be counted to the wrong side of a change.
const UNDER_WAY: u64 = 4;

/// Swaps of the first story.
const SWAPS: usize = 100;

fn lab(servers: usize, clients: usize) -> Result<Lab> {
    Plan::two_arm().servers(servers).clients(clients).queues(WORKERS).build()
}

/// The file of a module of `sched-plugins`.
fn module(name: &str) -> Result<String> {
    Ok(xvs_plugins::module(name)?.to_string_lossy().into_owned())
}

fn vip(lab: &Lab, number: usize, port: u16) -> SocketAddr {
    lab.vip(number).socket(Family::V4, port)
}

fn rip(lab: &Lab, number: usize) -> SocketAddr {
    lab.server(number).address().socket(Family::V4, 80)
}

/// A service with these servers and weights, by NAT.
fn service(lab: &Lab, to: SocketAddr, scheduler: &str, servers: &[(usize, u32)]) -> Service {
    servers.iter().fold(Service::tcp(to).scheduler(scheduler), |service, (number, weight)| {
        service.server(rip(lab, *number), Method::Nat, &format!("-w {weight}"))
    })
}

/// How `xvs scheduler` is told which service.
fn id(service: &Service) -> String {
    format!("tcp:{}", service.address())
}

/// What `xvs scheduler status` says of a service.
fn view(ds: &Running, id: &str) -> Result<Value> {
    Ok(ds.scheduler(&["status", id])?["status"]["services"][0].clone())
}

/// The version that serves.
fn live_version(ds: &Running, id: &str) -> Result<u64> {
    let view = view(ds, id)?;
    view["live"]["version"].as_u64().with_context(|| format!("no live version: {view}"))
}

fn number(view: &Value, name: &str) -> Result<u64> {
    view[name].as_u64().with_context(|| format!("no {name} in {view}"))
}

fn set_weight(ds: &Running, service: &Service, server: SocketAddr, weight: u64) -> Result<()> {
    ds.xvsadm(&format!("-e {} -r {server} -m -w {weight}", service.key())).map(drop)
}

/// What a load was answered from here on: `count` answers or more. Those under way now are not among them.
fn from_here(load: &mut Load, count: u64) -> Result<Answers> {
    let before = load.wait_for(2 * UNDER_WAY, LIMIT)?;
    Ok(load.wait_for(count, LIMIT)?.since(&before))
}

/// The refusal of a command: exit code 1 and one sentence, which has this word.
fn refused(finished: &Finished, word: &str) -> Result<()> {
    let said = finished.stderr.trim();
    ensure!(finished.code == Some(1), "`{}` must be refused: {} {said}", finished.line, finished.outcome());
    ensure!(!said.is_empty() && said.contains(word), "`{}`: {word:?} is not in: {said}", finished.line);
    Ok(())
}

/// Active connections of a server, in the listing.
fn active(ds: &Running, server: SocketAddr) -> Result<u64> {
    let (listed, name) = (ds.xvsadm("-L -n")?, server.to_string());
    let line = listed.lines().find(|line| line.split_whitespace().nth(1) == Some(name.as_str()));
    let count = line.and_then(|line| line.split_whitespace().nth(4)?.parse().ok());
    count.with_context(|| format!("{server} is not listed: {listed}"))
}

/// Guards hot swapping: versions, servers and weights change under load, and no request fails.
#[test]
fn a_hundred_swaps_cost_no_request() -> Outcome {
    story(
        "100 swaps between three plugins, with servers that come and go and weights that change, fail no request and \
         move no connection; then each rule gives the shares that it should, and there is a way back",
        || {
            let lab = lab(4, 1)?;
            let ds = lab.director().start(&lab.director().site())?;
            for name in ["wrr", "wlc", "rendezvous"] {
                ds.scheduler(&["load", "web", &module(name)?])?;
            }
            let web = service(&lab, vip(&lab, 0, 80), "wasm:web", &[(1, 1), (2, 2), (3, 1)]);
            web.add(&ds)?;
            let mut fresh = lab.client().keep_asking(web.address(), UNDER_WAY as usize)?;
            let mut kept = lab.client().keep_connections(web.address(), 16)?;
            kept.wait_for(32, LIMIT)?;
            let started = Instant::now();
            for turn in 1..=SWAPS {
                swap_in_a_storm(&lab, &ds, &web, &mut fresh, turn)?;
            }
            println!("  {SWAPS} swaps in {:.1} s", started.elapsed().as_secs_f32());
            kept.wait_for(32, LIMIT)?;

            // The shares of wrr, per worker exact but for an unfinished round; of rendezvous, one server for one client.
            ds.scheduler(&["swap", "web", "1"])?;
            for (server, weight) in [(1, 1), (2, 2), (3, 1)] {
                set_weight(&ds, &web, rip(&lab, server), weight)?;
            }
            let later = from_here(&mut fresh, 400)?;
            let (quarter, slack) = (later.total() / 4, 16);
            let about = |count: u64| Expected::Between(count - slack, count + slack);
            later.are(&[("rs1", about(quarter)), ("rs2", about(2 * quarter)), ("rs3", about(quarter))])?;
            ds.scheduler(&["swap", "web", "3"])?;
            let later = from_here(&mut fresh, 100)?;
            later.all_answered()?;
            ensure!(later.from.len() == 1, "one client has one server by rendezvous: {later}");

            let back = ds.scheduler(&["rollback", "web"])?;
            ensure!(back["loaded"]["version"] == 1 && live_version(&ds, &id(&web))? == 1, "back to wrr: {back}");
            let later = from_here(&mut fresh, 100)?;
            ensure!(later.from.len() == 3, "wrr asks all three: {later}");
            let view = view(&ds, &id(&web))?;
            ensure!(view["live"]["state"] == "live" && view["live"]["faults"] == Value::Array(vec![]), "{view}");
            ensure!(number(&view, "fallback_picks")? == 0, "the plugins chose for every connection: {view}");
            for load in [fresh, kept] {
                let answers = load.stop()?;
                println!("  {answers}");
                answers.all_answered()?;
            }
            Ok(())
        },
    )
}

/// One swap, and a change to the servers at some of them.
fn swap_in_a_storm(lab: &Lab, ds: &Running, web: &Service, fresh: &mut Load, turn: usize) -> Result<()> {
    let (rs4, version) = (rip(lab, 4), (turn % 3 + 1).to_string());
    let swapped = ds.scheduler(&["swap", "web", &version])?;
    ensure!(swapped["loaded"]["services"].as_array().map(Vec::len) == Some(1), "turn {turn}: {swapped}");
    match turn % 10 {
        1 | 7 => set_weight(ds, web, rip(lab, 1 + turn % 3), 1 + turn as u64 % 4),
        3 => ds.xvsadm(&format!("-a {} -r {rs4} -m -w 3", web.key())).map(drop),
        5 => set_weight(ds, web, rs4, 0),
        9 => {
            // It goes when nobody is with it any more.
            fresh.wait_for(2 * UNDER_WAY, LIMIT)?;
            wait_until("rs4 without connections", LIMIT, || active(ds, rs4).is_ok_and(|count| count == 0))?;
            ds.xvsadm(&format!("-d {} -r {rs4}", web.key())).map(drop)
        }
        _ => Ok(()),
    }
}

/// Guards trials: a shadow changes nothing and is counted, promotion and canary lose nothing, and a canary ends at once.
#[test]
fn a_candidate_is_tried_under_load() -> Outcome {
    story(
        "wlc as a plugin in the shadow of the built-in one agrees with it and is promoted under load; a canary has its \
         share of the connections, counted by its server, and none after its end",
        || {
            let lab = lab(3, 2)?;
            let ds = lab.director().start(&lab.director().site())?;
            let mut cases = Cases::new();
            cases.case("shadow and promotion", || shadow_and_promote(&lab, &ds));
            cases.case("canary of 20 %", || canary(&lab, &ds));
            cases.finish()
        },
    )
}

fn shadow_and_promote(lab: &Lab, ds: &Running) -> Result<()> {
    let web = service(lab, vip(lab, 0, 80), "wlc", &[(1, 1), (2, 2), (3, 3)]);
    web.add(ds)?;
    let id = id(&web);
    ds.scheduler(&["shadow", &id, &module("wlc")?])?;
    let mut fresh = lab.client().keep_asking(web.address(), UNDER_WAY as usize)?;
    let kept = lab.client().keep_connections(web.address(), 12)?;
    fresh.wait_for(400, LIMIT)?;
    let (seen, asked, agreed) = compared(ds, &id)?;
    // How often depends on how fresh each one's counts are.
    ensure!(asked >= 400 && agreed * 10 >= asked * 9, "the same rule agrees with itself: {seen}");
    let servers = seen["servers"].as_array().context("shares")?;
    for side in ["live", "candidate"] {
        let shares: Vec<u64> = servers.iter().filter_map(|server| server[side].as_u64()).collect();
        ensure!(shares.len() == 3 && shares.iter().sum::<u64>() == asked, "{side}: {shares:?} of {asked}");
        ensure!(shares.iter().all(|share| *share > 0), "{side}: everybody has a share: {shares:?}");
    }
    let text = ds.xvs(&["scheduler", "compare", &id])?;
    ensure!(text.contains("agreed on") && text.contains("skew"), "people read it too: {text}");

    let promoted = ds.scheduler(&["promote", &id])?;
    ensure!(promoted["loaded"]["name"] == "wlc", "{promoted}");
    let before = number(&view(ds, &id)?, "picks")?;
    let later = from_here(&mut fresh, 200)?;
    // One more kept connection weighs as much as 256 that ended: a server that has it may get none meanwhile.
    ensure!(later.from.len() >= 2, "more than one server has a share: {later}");
    let view = view(ds, &id)?;
    ensure!(number(&view, "picks")? >= before + 200 && view["scheduler"] == "wasm:wlc", "the plugin chooses: {view}");
    ensure!(view["live"]["faults"] == Value::Array(vec![]) && number(&view, "fallback_picks")? == 0, "{view}");
    fresh.stop()?.all_answered()?;
    kept.stop()?.all_answered()
}

/// What `compare` says, and on how many of how many connections both agreed.
fn compared(ds: &Running, id: &str) -> Result<(Value, u64, u64)> {
    let seen = ds.scheduler(&["compare", id])?["comparison"].clone();
    let (asked, agreed) = (number(&seen, "asked")?, number(&seen, "agreed")?);
    println!("  agreed on {agreed} of {asked}");
    Ok((seen, asked, agreed))
}

/// The live scheduler takes rs1 for its weight, the candidate the newest server, which is rs2.
fn canary(lab: &Lab, ds: &Running) -> Result<()> {
    let web = service(lab, vip(lab, 1, 80), "fo", &[(1, 9), (2, 1)]);
    web.add(ds)?;
    let mut fresh = lab.clients()[1].keep_asking(web.address(), UNDER_WAY as usize)?;
    from_here(&mut fresh, 50)?.are(&[("rs1", Expected::Between(50, u64::MAX))])?;
    let id = id(&web);
    ds.scheduler(&["canary", &id, &module("faulty")?, "--share", "20%"])?;
    let later = from_here(&mut fresh, 600)?;
    // Ports decide; five standard deviations to each side.
    let (share, all) = (later.share("rs2"), later.total());
    println!("  {share} of {all}");
    ensure!((all * 12 / 100..=all * 28 / 100).contains(&share), "20 % go by the candidate: {later}");
    let seen = ds.scheduler(&["compare", &id])?["comparison"].clone();
    let chosen: u64 =
        seen["servers"].as_array().into_iter().flatten().filter_map(|one| one["candidate"].as_u64()).sum();
    ensure!(chosen >= share, "what the candidate chose is counted: {seen}");
    ds.scheduler(&["canary", &id, "--off"])?;
    from_here(&mut fresh, 200)?.are(&[("rs1", Expected::Between(200, u64::MAX))])?;
    fresh.stop()?.all_answered()
}

/// A wrong of `faulty` in a pick: its name, the port that chooses it, and what the director may call it; nothing if the
/// director need not mind.
type Wrong = (&'static str, u16, &'static [&'static str]);

/// The same steps without a wrong, to compare with: a port that is no mode's number is as good as the one that is.
const WELL: &[Wrong] = &[("well", 4000, &[]), ("well too", 4100, &[])];

/// The table of `faulty.c`, but for `count`, which is a choice like another. A stack that overflows within the plugin's memory may also use up the budget first.
const WRONGS: &[Wrong] = &[
    ("spin", 4001, &["budget"]),
    ("trap", 4002, &["trap"]),
    ("divide", 4003, &["trap"]),
    ("overflow", 4004, &["trap", "stack", "budget"]),
    ("recurse", 4005, &["stack", "budget"]),
    ("outside", 4006, &["trap"]),
    ("scribble", 4007, &["trap"]),
    ("indirect", 4008, &["trap"]),
    ("grow", 4009, &["memory"]),
    ("hoard", 4010, &["memory"]),
    ("nonsense", 4011, &["bad_index"]),
    ("just-beyond", 4012, &["bad_index"]),
    ("negative", 4013, &["bad_index"]),
    ("nobody", 4014, &["denied"]),
    ("fallback", 4015, &[]),
    ("unusable", 4016, &["unusable"]),
    ("corrupt-head", 4017, &[]),
    ("corrupt-rows", 4018, &["budget"]),
    ("corrupt-flow", 4019, &[]),
    ("slow", 4021, &["budget"]),
];

/// Strikes that lead to quarantine; as many clients ask, each once and from the same port.
const STRIKES: usize = 3;

/// A broken instance is replaced within this time (it is 100 ms), if the machine is not very busy.
const MENDED: Duration = Duration::from_millis(200);

/// The first quarantine lasts so long.
const QUARANTINE: Duration = Duration::from_secs(1);

/// Guards the director against a plugin that goes wrong in service, in every way that `faulty` knows.
#[test]
fn a_faulty_plugin_hurts_nobody() -> Outcome {
    story(
        "whatever a plugin does in a choice, each request is answered, the service beside it is as fast as before, \
         status and log name the fault, and `retry` brings the plugin back",
        || {
            // Two services with the same servers have clients of their own: by NAT one server would see the port of both.
            let lab = lab(3, 2 + STRIKES)?;
            let ds = lab.director().start(&lab.director().site())?;
            ds.scheduler(&["load", "faulty", &module("faulty")?])?;
            // The oldest server is the last row, and it is not usable.
            let web = service(&lab, vip(&lab, 0, 80), "wasm:faulty", &[(3, 0), (1, 1), (2, 1)]);
            web.add(&ds)?;
            ds.scheduler(&["options", &id(&web), "when=port"])?;
            let beside = service(&lab, vip(&lab, 1, 80), "rr", &[(1, 1), (2, 1)]);
            beside.add(&ds)?;
            let mut calm = lab.clients()[1].keep_asking(beside.address(), 2)?;
            let mut own = lab.client().keep_asking(web.address(), 2)?;
            calm.wait_for(50, LIMIT)?;

            let mut cases = Cases::new();
            let mut rates = Vec::new();
            for wrongs in [WELL, WRONGS] {
                let (before, started) = (calm.so_far()?.total(), Instant::now());
                for wrong in wrongs {
                    cases.case(wrong.0, || go_wrong(&lab, &ds, &web, &mut own, wrong));
                }
                rates.push((calm.so_far()?.total() - before) as f64 / started.elapsed().as_secs_f64());
            }
            println!("  beside it: {:.0} requests a second before, {:.0} then", rates[0], rates[1]);
            cases.case("the service beside it", || {
                ensure!(rates[1] > rates[0] / 2.0, "requests a second before and then: {rates:?}");
                calm.stop()?.all_answered()
            });
            cases.case("its own service", || own.stop()?.all_answered());
            cases.finish()
        },
    )
}

/// What status says of faults: how often each happened.
fn faults(view: &Value) -> BTreeMap<String, u64> {
    let told: Vec<(String, u64)> = serde_json::from_value(view["live"]["faults"].clone()).unwrap_or_default();
    told.into_iter().collect()
}

/// Waits until both workers have an instance that works, and it was asked for a while.
fn settle(own: &mut Load) -> Result<()> {
    std::thread::sleep(MENDED);
    own.wait_for(60, LIMIT).map(drop)
}

/// Lets the plugin do one wrong as often as is too much, and brings it back.
fn go_wrong(lab: &Lab, ds: &Running, web: &Service, own: &mut Load, (name, port, reasons): &Wrong) -> Result<()> {
    let (id, url) = (id(web), format!("http://{}/", web.address()));
    // New instances: one whose table was overwritten, and nothing else, would go on.
    ds.scheduler(&["options", &id, &format!("for={name}")])?;
    let before = faults(&view(ds, &id)?);
    let new = |view: &Value| -> BTreeMap<String, u64> {
        let more = faults(view).into_iter().map(|(reason, count)| {
            let old = before.get(&reason).copied().unwrap_or(0);
            (reason, count - old)
        });
        more.filter(|(_, count)| *count > 0).collect()
    };
    let log = ds.log().len();
    let (mut latest, mut asked_at) = (Value::Null, Instant::now());
    for client in &lab.clients()[2..] {
        settle(own)?;
        asked_at = Instant::now();
        client.curl_from(*port, &url)?.all_answered().with_context(|| format!("{name}: from port {port}"))?;
        latest = view(ds, &id)?;
        if number(&latest["live"], "quarantines")? > 0 {
            break;
        }
    }
    let seen = new(&latest);
    println!("  {name}: {seen:?}");
    if reasons.is_empty() {
        ensure!(seen.is_empty() && latest["live"]["state"] == "live", "{name} is no fault: {seen:?}, {latest}");
        return Ok(());
    }
    ensure!(seen.len() == 1 && seen.keys().all(|reason| reasons.contains(&reason.as_str())), "{name}: {seen:?}");
    ensure!(number(&latest["live"], "quarantines")? == 1, "{name} led to quarantine: {latest}");
    let is_over = asked_at.elapsed() > QUARANTINE;
    ensure!(latest["live"]["state"]["quarantined"]["for_s"].is_u64() || is_over, "{name}: in quarantine: {latest}");
    let sha256 = latest["live"]["sha256"].as_str().and_then(|sha256| sha256.get(..12)).context("no hash")?.to_owned();
    wait_until("the alarm", LIMIT, || {
        let told = ds.log();
        told.get(log..).unwrap_or_default().lines().any(|line| line.contains("ERROR") && line.contains(&sha256))
    })?;
    ds.scheduler(&["retry", &id])?;
    let back = view(ds, &id)?;
    ensure!(back["live"]["state"] == "live" && back["live"]["quarantines"] == 0, "{name}: retry forgives: {back}");
    settle(own)?;
    let later = view(ds, &id)?;
    ensure!(number(&later, "picks")? > number(&back, "picks")?, "{name}: the plugin is asked again: {later}");
    Ok(())
}

/// Guards the way into service: what fails a check is refused with a reason, and what is live goes on.
#[test]
fn what_must_not_serve_is_refused() -> Outcome {
    story(
        "damaged, oversized, over-demanding, endless and unwilling plugins are refused in a sentence, and the live one \
         does not notice; a module with a wrong byte is refused, or harmless",
        || {
            let lab = lab(2, 2)?;
            let ds = lab.director().start(&lab.director().site())?;
            for name in ["wlc", "faulty"] {
                ds.scheduler(&["load", name, &module(name)?])?;
            }
            let web = service(&lab, vip(&lab, 0, 80), "wasm:wlc", &[(1, 1), (2, 1)]);
            let odd = service(&lab, vip(&lab, 1, 80), "wasm:faulty", &[(1, 1), (2, 1)]);
            web.add(&ds)?;
            odd.add(&ds)?;
            let (fresh, also) =
                (lab.client().keep_asking(web.address(), 2)?, lab.clients()[1].keep_asking(odd.address(), 2)?);
            let whole = fs::read(module("wlc")?)?;
            let noise: Vec<u8> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            let mut headed = b"\0asm\x01\0\0\0".to_vec();
            headed.extend(&noise);
            let mut wrong_head = whole.clone();
            wrong_head[4] ^= 2;
            // A custom section of a megabyte and more: valid, and too large.
            let mut large = whole.clone();
            large.extend([0, 0x81, 0x80, 0x40, 0]);
            large.resize(large.len() + (1 << 20), 0);
            let files: [(&str, &[u8], &str); 7] = [
                ("noise", &noise, ""),
                ("noise behind a head", &headed, ""),
                ("nothing", &[], ""),
                ("half of a module", &whole[..whole.len() / 2], ""),
                ("all but its last byte", &whole[..whole.len() - 1], ""),
                ("another version of WebAssembly", &wrong_head, ""),
                ("more than a megabyte", &large, "bytes"),
            ];
            let mut cases = Cases::new();
            let path = lab.directory().join("wrong.wasm");
            for (what, bytes, word) in files {
                cases.case(what, || {
                    fs::write(&path, bytes)?;
                    no_way_in(&ds, &web, &path.to_string_lossy(), word)
                });
            }
            let greedy = module("faulty-time")?;
            cases.case("imports without grants", || no_way_in(&ds, &web, &greedy, "grant"));
            cases.case("no file", || no_way_in(&ds, &web, "/nonexistent.wasm", "can not read"));
            for (mode, word) in [
                ("spin", "budget"),
                ("trap", "trap"),
                ("nonsense", ""),
                ("nobody", ""),
                ("setup-spin", "budget"),
                ("setup-trap", "trap"),
                ("setup-refuse", "as it was told to"),
                ("setup-mute", "refused"),
                ("change-spin", "budget"),
                ("change-trap", "trap"),
                ("no-such-mode", "its source has the list"),
            ] {
                cases.case(&format!("options mode={mode}"), || {
                    let before = view(&ds, &id(&odd))?["options"].clone();
                    let set = ds.try_xvs(&["scheduler", "options", &id(&odd), &format!("mode={mode}")])?;
                    refused(&set, word)?;
                    ensure!(view(&ds, &id(&odd))?["options"] == before, "the options are as they were");
                    Ok(())
                });
            }
            cases.case("odd at changes, events and in its state", || odd_behaviour(&lab, &ds, &odd));
            cases.case("a wrong byte somewhere", || wrong_bytes(&ds, &web, &whole, &path));
            cases.case("all requests", || {
                fresh.stop()?.all_answered()?;
                also.stop()?.all_answered()
            });
            cases.finish()
        },
    )
}

/// A file gets in nowhere: not as a new name, not by swap, not on trial.
fn no_way_in(ds: &Running, web: &Service, file: &str, word: &str) -> Result<()> {
    let id = id(web);
    let (modules, live) = (ds.scheduler(&["list"])?, live_version(ds, &id)?);
    for words in [["load", "other", file], ["swap", "wlc", file], ["shadow", &id, file]] {
        let all: Vec<&str> = ["scheduler"].iter().chain(&words).copied().collect();
        refused(&ds.try_xvs(&all)?, word)?;
    }
    ensure!(ds.scheduler(&["list"])? == modules && live_version(ds, &id)? == live, "a refused file left a trace");
    Ok(())
}

/// What `faulty` does when the list changes, connections come, or its state is asked for: taken or refused, and then
/// servers change and versions are swapped.
fn odd_behaviour(lab: &Lab, ds: &Running, odd: &Service) -> Result<()> {
    let id = id(odd);
    for mode in
        ["change-rebuild", "change-nonsense", "event-spin", "event-trap", "state-lie", "state-trap", "state-spin"]
    {
        let set = ds.try_xvs(&["scheduler", "options", &id, &format!("mode={mode}")])?;
        let outcome = if set.code == Some(0) { "taken" } else { "refused" };
        ensure!(matches!(set.code, Some(0 | 1)), "{mode}: {} {}", set.outcome(), set.stderr);
        for weight in [2, 1] {
            set_weight(ds, odd, rip(lab, 1), weight)?;
        }
        let answers = lab.clients()[1].curl_n(&format!("http://{}/", odd.address()), 10)?;
        answers.all_answered().with_context(|| mode.to_owned())?;
        let view = view(ds, &id)?;
        println!("  {mode}: {outcome}; faults {}", view["live"]["faults"]);
        // The way back is open whatever the state was.
        ds.scheduler(&["options", &id, "--clear"]).with_context(|| mode.to_owned())?;
        ds.scheduler(&["retry", &id])?;
    }
    Ok(())
}

/// Real modules with one wrong byte: refused in a sentence, or swapped in, and then requests are served all the same.
fn wrong_bytes(ds: &Running, web: &Service, whole: &[u8], path: &Path) -> Result<()> {
    let mut taken = 0;
    for turn in 1..=16 {
        let mut bytes = whole.to_vec();
        let at = turn * (whole.len() - 1) / 16;
        bytes[at] ^= 1 << (turn % 8);
        fs::write(path, &bytes)?;
        let swapped = ds.try_xvs(&["scheduler", "swap", "wlc", &path.to_string_lossy()])?;
        match swapped.code {
            Some(0) => taken += 1,
            _ => refused(&swapped, "").with_context(|| format!("byte {at}"))?,
        }
    }
    println!("  {taken} of 16 were taken");
    ds.scheduler(&["swap", "wlc", &module("wlc")?])?;
    ensure!(view(ds, &id(web))?["live"]["state"] == "live", "the whole one is live");
    Ok(())
}

/// A configuration with a watched directory, and a service that keeps to servers of this zone: rs1 and rs2 are of `a`,
/// rs3 of `b`.
fn zoned(lab: &Lab, directory: &Path, zone: &str) -> Result<String> {
    let (watched, file) = (directory.display(), module("zone-aware")?);
    let mut text = format!("[director]\nscheduler_dir = \"{watched}\"\nwatch_schedulers = true\n\n");
    text += &lab.director().site();
    text += &format!("\n[[scheduler]]\nname = \"zone\"\nfile = \"{file}\"\n");
    text += &format!("\n[[service]]\naddress = \"{}\"\nscheduler = \"wasm:zone\"\n", vip(lab, 0, 80));
    text += &format!("fallback = \"rr\"\noptions = {{ zone = \"{zone}\" }}\n");
    for (number, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        let address = rip(lab, number);
        text +=
            &format!("[[service.server]]\naddress = \"{address}\"\nmethod = \"nat\"\ntags = {{ zone = \"{zone}\" }}\n");
    }
    Ok(text)
}

/// Moves a module into the watched directory, whole.
fn put(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let (half, whole) = (directory.join(format!(".{name}.tmp")), directory.join(format!("{name}.wasm")));
    fs::write(&half, bytes)?;
    fs::rename(&half, &whole)?;
    Ok(whole)
}

/// Demands that these servers answer, and no others.
fn only(answers: &Answers, servers: &[&str]) -> Result<()> {
    let some = servers.iter().map(|server| (*server, Expected::Between(1, u64::MAX)));
    answers.are(&some.collect::<Vec<_>>())
}

/// Demands that nobody but these answers. Which of them does is not asked: by least connections, two connections more
/// that stay at one of them are as much as hundreds of requests that went by.
fn none_but(answers: &Answers, servers: &[&str]) -> Result<()> {
    let any = servers.iter().map(|server| (*server, Expected::Between(0, u64::MAX)));
    answers.are(&any.collect::<Vec<_>>())
}

/// Guards plugins in files: the configuration, the watched directory, what `xvsadm` saves, and a new start.
#[test]
fn plugins_come_from_files() -> Outcome {
    story(
        "a configuration's plugin serves by its options and tags, also after they are changed under load and after \
         kill -9; a file in the watched directory is taken, a broken one is not; `xvsadm -S` and `-R` know plugins",
        || {
            // The watched plugin has a client of its own: by NAT one server would see its port twice.
            let lab = lab(3, 2)?;
            let directory = lab.directory().join("schedulers");
            fs::create_dir_all(&directory)?;
            let ds = lab.director().start(&zoned(&lab, &directory, "a")?)?;
            let to = vip(&lab, 0, 80);
            let url = format!("http://{to}/");
            let mut cases = Cases::new();
            cases.case("options and tags", || only(&lab.client().curl_n(&url, 20)?, &["rs1", "rs2"]));
            let seen = service(&lab, vip(&lab, 1, 80), "wasm:seen", &[(1, 1), (2, 1), (3, 1)]);
            cases.case("the watched directory", || watched(&lab, &ds, &directory, &seen));
            cases.case("saved and restored", || {
                let saved = ds.xvsadm("-S -n")?;
                let of_seen = |line: &&str| line.contains(&seen.key());
                let lines: String = saved.lines().filter(of_seen).map(|line| format!("{line}\n")).collect();
                ensure!(lines.contains("-s wasm:seen") && lines.lines().count() == 4, "{saved}");
                seen.remove(&ds)?;
                ds.restore(&lines)?;
                let again = ds.xvsadm("-S -n")?;
                ensure!(lines.lines().all(|line| again.lines().any(|other| other == line)), "{lines}\nbecame {again}");
                lab.clients()[1].curl_n(&format!("http://{}/", seen.address()), 12)?.all_answered()
            });
            cases.case("an option is changed by `apply`, under load", || {
                let mut fresh = lab.client().keep_asking(to, UNDER_WAY as usize)?;
                let kept = lab.client().keep_connections(to, 8)?;
                none_but(&from_here(&mut fresh, 50)?, &["rs1", "rs2"])?;
                let file = lab.directory().join("other.toml");
                fs::write(&file, zoned(&lab, &directory, "b")?)?;
                ds.xvs(&["apply", &file.to_string_lossy()])?;
                only(&from_here(&mut fresh, 100)?, &["rs3"])?;
                fresh.stop()?.all_answered()?;
                kept.stop()?.all_answered()
            });
            cases.case("killed and started again", || {
                ds.kill()?;
                let ds = lab.director().start(&zoned(&lab, &directory, "a")?)?;
                only(&lab.client().curl_n(&url, 20)?, &["rs1", "rs2"])?;
                wait_until("the watched plugin", LIMIT, || {
                    ds.scheduler(&["list"]).is_ok_and(|list| list.to_string().contains("\"seen\""))
                })?;
                seen.add(&ds)?;
                only(&lab.clients()[1].curl_n(&format!("http://{}/", seen.address()), 12)?, &["rs1", "rs2", "rs3"])
            });
            cases.finish()
        },
    )
}

/// A new file is loaded, a changed one is swapped in under load, a broken one changes nothing and is told.
fn watched(lab: &Lab, ds: &Running, directory: &Path, seen: &Service) -> Result<()> {
    put(directory, "seen", &fs::read(module("wrr")?)?)?;
    wait_until("the new file", LIMIT, || {
        ds.scheduler(&["list"]).is_ok_and(|list| list.to_string().contains("\"seen\""))
    })?;
    seen.add(ds)?;
    let mut fresh = lab.clients()[1].keep_asking(seen.address(), UNDER_WAY as usize)?;
    let kept = lab.clients()[1].keep_connections(seen.address(), 8)?;
    fresh.wait_for(50, LIMIT)?;
    let id = id(seen);
    let wlc = fs::read(module("wlc")?)?;
    put(directory, "seen", &wlc)?;
    wait_until("the changed file", LIMIT, || live_version(ds, &id).is_ok_and(|version| version == 2))?;
    fresh.wait_for(50, LIMIT)?;
    let broken = put(directory, "seen", &wlc[..wlc.len() / 2])?;
    let told = || -> Result<String> { Ok(ds.scheduler(&["status"])?["status"]["refused"][0].to_string()) };
    wait_until("word of the broken file", LIMIT, || {
        told().is_ok_and(|told| told.contains(&broken.to_string_lossy().into_owned()))
    })?;
    ensure!(live_version(ds, &id)? == 2, "what is live stays");
    put(directory, "seen", &wlc)?;
    wait_until("the file that was mended", LIMIT, || told().is_ok_and(|told| told == "null"))?;
    ensure!(live_version(ds, &id)? == 2, "it is what was live already");
    fresh.stop()?.all_answered()?;
    kept.stop()?.all_answered()
}
