//! A plugin's post beside a service: whatever the plugin does, each connection is served, and the control side can
//! exchange everything under the workers' hands.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use common::*;
use xvs_engine::flow::{Address, Endpoint, Protocol};
use xvs_engine::real::{Arena, Generation, Method, RealId, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::sched::guest::Site;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_host::{EventKind, Fault, Grants, Host, Post, Trial, Trust, Version};
use xvs_sdk::Request;

/// Picks by the client's port: 60001 traps, 60002 never ends, 60003 names slot 999, 60004 finds nobody, 60005 leaves it
/// to the native scheduler, 60006 names slot 2 whatever it is; every other port is the slot itself.
fn by_port() -> String {
    let port = "(i32.load16_u (i32.const 112))";
    let is = |number: u32, then: &str| format!("(if (i32.eq {port} (i32.const {number})) (then {then}))");
    let cases = [
        is(60_001, "unreachable"),
        is(60_002, "(loop $on (br $on))"),
        is(60_003, "(return (i32.const 999))"),
        is(60_004, "(return (i32.const -1))"),
        is(60_005, "(return (i32.const -2))"),
        is(60_006, "(return (i32.const 2))"),
    ];
    plugin("", &format!("{} {port}", cases.join(" ")))
}

/// A service whose native scheduler is `wlc`, and a post for two workers. Time goes on by a millisecond a pick.
struct Bench {
    host: Host,
    arena: Arena,
    service: Service,
    post: Arc<Post>,
    now_ms: u64,
    versions: u32,
}

impl Bench {
    fn new(servers: u32) -> Bench {
        let arena = Arena::new(64, Generation::New);
        let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
        let service = Service::new(7, key, Builtin::from_name("wlc").unwrap(), Policy::default());
        let post = Post::new(2, 7);
        assert!(service.set_guest(post.clone()));
        let mut bench = Bench { host: host(), arena, service, post, now_ms: 1_000, versions: 0 };
        (0..servers).for_each(|number| bench.add(number));
        bench
    }

    fn settings(number: u32, weight: i32) -> Settings {
        let endpoint = Endpoint::new(Address::v4([10, 0, 0, number as u8 + 1]), 80);
        Settings { endpoint, method: Method::Dr, tunnel: Default::default(), weight, upper: 0, lower: 0 }
    }

    /// Server `number` becomes the first in the list.
    fn add(&mut self, number: u32) {
        self.arena.get(RealId(number)).reset(&Bench::settings(number, 1));
        self.service.add(&self.arena, RealId(number));
    }

    fn weigh(&self, number: u32, weight: i32) {
        let real = self.arena.get(RealId(number));
        self.service.change(&self.arena, RealId(number), || real.set(&Bench::settings(number, weight)));
    }

    fn version(&mut self, text: &str) -> Arc<Version> {
        let module = load(&self.host, text, Grants::ALL).unwrap();
        self.versions += 1;
        Arc::new(Version { name: "test".into(), number: self.versions, module })
    }

    fn on_site<T>(&self, act: impl FnOnce(&Site<'_>) -> T) -> T {
        self.service.with_site(&self.arena, act)
    }

    fn live(&mut self, text: &str) -> Result<(), Fault> {
        let version = self.version(text);
        self.on_site(|site| self.post.set_live(site, Some(version), ""))
    }

    fn try_out(&mut self, text: &str, trial: Trial) -> Result<(), Fault> {
        let version = self.version(text);
        self.on_site(|site| self.post.set_trial(site, Some((version, trial)), ""))
    }

    fn tick(&self) {
        self.on_site(|site| self.post.tick(site, self.now_ms));
    }

    /// The number of the server that a worker's new connection from this port goes to; it is counted there.
    fn pick_by(&mut self, queue: u32, client_port: u16) -> Option<u32> {
        self.now_ms += 1;
        let hash = u64::from(client_port).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let request = Request { queue, client_port, hash, now_ms: self.now_ms, ..Request::default() };
        let picked = self.service.turn().pick(&self.arena, &request)?;
        self.arena.get(picked).bind();
        Some(picked.0)
    }

    fn pick(&mut self, client_port: u16) -> Option<u32> {
        self.pick_by(0, client_port)
    }

    fn faults(&self) -> Vec<(&'static str, u64)> {
        self.post.status().live.unwrap().faults
    }
}

/// Its slots are the list's, newest first, for every worker; what it leaves is the native scheduler's; the counts say
/// who chose.
#[test]
fn a_plugin_picks_for_every_worker() {
    let mut bench = Bench::new(3);
    bench.live(&by_port()).unwrap();
    assert_eq!([0, 1, 2].map(|port| bench.pick_by(0, port)), [2, 1, 0].map(Some));
    assert_eq!([0, 1, 2].map(|port| bench.pick_by(1, port)), [2, 1, 0].map(Some));
    assert_eq!(bench.pick(60_005), Some(2), "all are equal, and wlc takes the first");
    let status = bench.post.status();
    assert_eq!((status.picks, status.fallback, status.trust), (6, 1, Trust::Live));
    let live = status.live.unwrap();
    assert_eq!((live.version.name.as_str(), live.version.number, live.instances), ("test", 1, 2));
    assert!(live.worst_fuel > 0 && live.worst_fuel < live.budget && live.budget == 2_450, "{live:?}");
    bench.on_site(|site| bench.post.set_live(site, None, "")).unwrap();
    assert_eq!(bench.pick(0), Some(1), "the native scheduler's again");
    assert_eq!(bench.post.status().picks, 6);
}

/// Each misdeed is named and counted, and its connection goes where the native scheduler says.
#[test]
fn every_misdeed_is_served_by_the_native_scheduler() {
    for (port, reason) in [(60_001, "trap"), (60_002, "budget"), (60_003, "bad_index"), (60_004, "denied")] {
        let mut bench = Bench::new(3);
        bench.live(&by_port()).unwrap();
        assert_eq!(bench.pick(port), Some(2), "{reason}");
        assert_eq!(bench.faults(), [(reason, 1)]);
        assert!(bench.post.status().live.unwrap().last_fault.is_some());
    }
    let mut bench = Bench::new(3);
    bench.live(&by_port()).unwrap();
    bench.weigh(0, 0);
    assert_eq!(bench.pick(60_006), Some(2));
    assert_eq!(bench.faults(), [("unusable", 1)]);
    bench.weigh(1, 0);
    bench.weigh(2, 0);
    assert_eq!(bench.pick(60_004), None, "nobody is right when nobody is usable");
    assert_eq!(bench.faults(), [("unusable", 1)]);
}

/// After a trap the instance is not asked; the next tick makes a new one; the other worker's goes on meanwhile.
#[test]
fn a_broken_instance_is_replaced_by_the_control_side() {
    let mut bench = Bench::new(3);
    bench.live(&by_port()).unwrap();
    bench.pick(60_001);
    assert_eq!(bench.post.status().live.unwrap().instances, 1);
    assert_eq!(bench.pick_by(1, 0), Some(2), "by the plugin");
    let before = bench.post.status().fallback;
    bench.pick(2);
    assert_eq!(bench.post.status().fallback, before + 1);
    bench.tick();
    assert_eq!(bench.post.status().live.unwrap().instances, 2);
    assert_eq!(bench.pick(2), Some(0), "by the plugin again");
}

/// Three strikes within a minute, by whichever workers, are a quarantine for all; one exhausted budget is enough. It
/// ends by itself, and at the fourth only by a person.
#[test]
fn strikes_lead_to_quarantine_and_back() {
    let mut bench = Bench::new(3);
    bench.live(&by_port()).unwrap();
    for queue in [0, 1, 0] {
        assert_eq!(bench.post.status().trust, Trust::Live);
        bench.pick_by(queue, 60_003);
    }
    assert_eq!(bench.post.status().trust, Trust::Quarantined { until_ms: bench.now_ms + 1_000 });
    let picks = bench.post.status().picks;
    bench.pick_by(0, 0);
    bench.pick_by(1, 0);
    assert_eq!(bench.post.status().picks, picks, "nobody asks it");
    for wait_ms in [1_000, 10_000, 100_000] {
        bench.tick();
        assert_ne!(bench.post.status().trust, Trust::Live);
        bench.now_ms += wait_ms;
        bench.tick();
        assert_eq!(bench.post.status().trust, Trust::Live);
        assert_eq!(bench.pick(1), Some(1));
        bench.pick(60_002);
    }
    assert_eq!(bench.post.status().trust, Trust::Stopped);
    bench.now_ms += 1_000_000_000;
    bench.tick();
    assert_eq!(bench.post.status().trust, Trust::Stopped);
    bench.post.retry();
    bench.tick();
    assert_eq!((bench.post.status().trust, bench.pick(1)), (Trust::Live, Some(1)));
    let kinds: Vec<_> = bench.post.take_events().iter().map(|event| event.kind).collect();
    use EventKind::{Fault, Quarantined, Released, Stopped};
    assert_eq!(
        kinds,
        [Fault, Fault, Quarantined, Released, Quarantined, Released, Quarantined, Released, Stopped],
        "each is told once"
    );
}

/// What can not go to work changes nothing: wrong options, too many servers, a trap while it is made.
#[test]
fn a_failed_load_leaves_the_live_one_alone() {
    let mut bench = Bench::new(3);
    bench.live(&by_port()).unwrap();
    let version = bench.version(&plugin("(func (export \"xvs_configure\") (result i32) i32.const -1)", "i32.const 0"));
    let refused = bench.on_site(|site| bench.post.set_live(site, Some(version), "color=red"));
    assert!(matches!(refused, Err(Fault::Refused(_))), "{refused:?}");
    let traps = plugin("(func (export \"xvs_changed\") (param i32 i32) (result i32) unreachable)", "i32.const 0");
    assert_eq!(bench.live(&traps).unwrap_err().reason(), "trap");
    assert_eq!(bench.try_out(&traps, Trial::Shadow { one_in: 1 }).unwrap_err().reason(), "trap");
    assert_eq!(bench.pick(2), Some(0));
    assert_eq!(bench.post.status().live.unwrap().version.number, 1);
    assert!(bench.post.status().candidate.is_none());
    let mut many = Bench::new(9);
    assert_eq!(many.live(&by_port()), Err(Fault::Full { capacity: 8 }));
    assert_eq!(many.pick(1), Some(8), "wlc's");
}

/// A service that outgrows the plugin's table is served natively, and by the plugin again when it shrinks.
#[test]
fn too_many_servers_are_the_native_schedulers() {
    let mut bench = Bench::new(8);
    bench.live(&by_port()).unwrap();
    assert_eq!(bench.pick(7), Some(0));
    bench.add(8);
    assert_eq!(bench.faults(), [("full", 2)], "one for each worker");
    assert_eq!(bench.pick(7), Some(8), "wlc's: the new one has no connections");
    bench.service.remove(&bench.arena, RealId(8));
    bench.now_ms += 1_000;
    bench.tick();
    assert_eq!(bench.pick(7), Some(0));
}

/// Through the service, its lock and its post: the real `wrr` and `wlc` pick what the built-in ones pick, over a million
/// random picks, edits, additions, removals, openings and closings (a thirtieth of that in a debug build). New versions
/// take over in between, with the state of the old ones.
#[test]
fn wrr_and_wlc_are_the_built_ins() {
    const STEPS: u32 = if cfg!(debug_assertions) { 30_000 } else { 1_000_000 };
    for name in ["wrr", "wlc"] {
        let bench = Bench::new(4);
        let module = bench.host.load(&real_plugin(name), Grants::default()).unwrap();
        let version = |number| Arc::new(Version { name: name.into(), number, module: module.clone() });
        bench.on_site(|site| bench.post.set_live(site, Some(version(1)), "")).unwrap();
        let twin = Bench::new(4);
        twin.service.edit(&twin.arena, Builtin::from_name(name).unwrap(), Policy::default());
        let mut both = [bench, twin];
        let (mut random, mut number) = (0x2545_f491_4f6c_dd1d_u64, 1);
        let (mut open, mut present) = (Vec::new(), [true; 6]);
        (present[4], present[5]) = (false, false);
        for step in 0..STEPS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let server = (random >> 32) as u32 % 6;
            let at = server as usize;
            match random % 32 {
                0 => {
                    both.iter().filter(|_| present[at]).for_each(|bench| bench.weigh(server, (random >> 40) as i32 & 7))
                }
                1 => {
                    present[at] = !present[at];
                    open.retain(|&(at, _)| at != server);
                    for bench in &mut both {
                        match present[at] {
                            true => bench.add(server),
                            false => bench.service.remove(&bench.arena, RealId(server)),
                        }
                    }
                }
                2..12 if !open.is_empty() => {
                    let (server, active) = open.swap_remove((random >> 40) as usize % open.len());
                    both.iter().for_each(|bench| bench.arena.get(RealId(server)).unbind(active));
                }
                12..16 if !open.is_empty() => {
                    let index = (random >> 40) as usize % open.len();
                    let (server, active) = &mut open[index];
                    *active = !*active;
                    both.iter().for_each(|bench| bench.arena.get(RealId(*server)).set_active(*active));
                }
                _ => {
                    let [one, two] = both.each_mut().map(|bench| bench.pick(9));
                    assert_eq!(one, two, "{name}, step {step}");
                    open.extend(one.map(|server| (server, false)));
                }
            }
            if step % 4_096 == 4_095 {
                number += 1;
                let bench = &both[0];
                bench.on_site(|site| bench.post.set_live(site, Some(version(number)), "")).unwrap();
            }
        }
        let status = both[0].post.status();
        assert_eq!((status.fallback, status.live.unwrap().faults), (0, vec![]), "{name}");
        assert!(status.picks > u64::from(STEPS) / 3);
    }
}

/// What a version saves the next one of the same name begins with, worker by worker; a plugin of another name begins anew.
#[test]
fn state_goes_from_version_to_version() {
    // Counts its picks, and names slot count % 3.
    let counts = plugin(
        r#"(func (export "xvs_state") (result i32) i32.const 4096)
          (func (export "xvs_state_save") (result i32)
            (i32.store (i32.const 4104) (i32.load (i32.const 128))) i32.const 4)
          (func (export "xvs_state_load") (result i32)
            (i32.store (i32.const 128) (i32.load (i32.const 4104))) i32.const 0)"#,
        "(i32.store (i32.const 128) (i32.add (i32.load (i32.const 128)) (i32.const 1)))
         (i32.rem_u (i32.load (i32.const 128)) (i32.const 3))",
    );
    let mut bench = Bench::new(3);
    bench.live(&counts).unwrap();
    assert_eq!([0, 0, 1].map(|queue| bench.pick_by(queue, 0)), [1, 0, 1].map(Some));
    bench.live(&counts).unwrap();
    assert_eq!([0, 1].map(|queue| bench.pick_by(queue, 0)), [2, 0].map(Some), "each worker's own");
    let module = load(&bench.host, &counts, Grants::ALL).unwrap();
    let other = Arc::new(Version { name: "other".into(), number: 1, module });
    bench.on_site(|site| bench.post.set_live(site, Some(other), "")).unwrap();
    assert_eq!(bench.pick(0), Some(1));
}

/// Counts: the worker's own last pick is known to the next one at once, everybody else's from the next breath on, also
/// when the clock stands still.
#[test]
fn rows_are_fresh_at_every_breath() {
    let mut bench = Bench::new(3);
    bench.live(WLC).unwrap();
    let ask = |bench: &Bench, breath| {
        let request = Request { breath, now_ms: bench.now_ms, ..Request::default() };
        bench.service.turn().pick(&bench.arena, &request).map(|id| id.0)
    };
    let mut own = Vec::new();
    for _ in 0..3 {
        let picked = ask(&bench, 0).unwrap();
        bench.arena.get(RealId(picked)).bind();
        own.push(picked);
    }
    assert_eq!(own, [2, 1, 0], "its own picks count at once");
    (0..5).for_each(|_| bench.arena.get(RealId(2)).bind());
    bench.arena.get(RealId(1)).unbind(false);
    assert_eq!(ask(&bench, 0), Some(2), "within the breath it knows no better");
    assert_eq!(ask(&bench, 1), Some(1));
}

/// What a plugin writes over its table's head is gone at the next breath, and a row at the latest after as many breaths
/// as there are servers.
#[test]
fn scribbles_do_not_stay() {
    let weight = "(i32.load (i32.add (i32.const 1056) (i32.shl (i32.load16_u (i32.const 112)) (i32.const 5))))";
    // From port 60000 it makes head and rows zero; else it names a slot if the row of this number has a weight.
    let scribbles = plugin(
        "",
        &format!(
            "(local $at i32)
             (if (i32.ge_u (i32.load16_u (i32.const 112)) (i32.const 60000)) (then
               (local.set $at (i32.const 1024))
               (loop $next
                 (i64.store (local.get $at) (i64.const 0))
                 (local.set $at (i32.add (local.get $at) (i32.const 8)))
                 (br_if $next (i32.lt_u (local.get $at) (i32.const 1152))))
               (return (i32.const -2))))
             (if (i32.eqz (i32.load (i32.const 1036))) (then (return (i32.const -2))))
             (select (i32.load16_u (i32.const 112)) (i32.const -2) {weight})"
        ),
    );
    let mut bench = Bench::new(3);
    bench.live(&scribbles).unwrap();
    assert_eq!([0, 1, 2].map(|port| bench.pick(port)), [2, 1, 0].map(Some));
    bench.pick(60_000);
    let before = bench.post.status().picks;
    for _ in 0..3 {
        bench.pick(0);
    }
    assert!(bench.post.status().picks > before, "its head is whole, and its first row soon");
    assert_eq!([0, 1, 2].map(|port| bench.pick(port)), [2, 1, 0].map(Some));
    assert_eq!(bench.faults(), []);
}

/// A shadow is asked about one connection in so many, and changes nothing; agreement and shares are counted.
#[test]
fn a_shadow_is_only_counted() {
    let mut bench = Bench::new(2);
    bench.live(&by_port()).unwrap();
    bench.try_out(&plugin("", "i32.const 0"), Trial::Shadow { one_in: 4 }).unwrap();
    for port in 0..400 {
        assert_eq!(bench.pick(port % 2), Some(1 - u32::from(port % 2)));
    }
    let comparison = bench.on_site(|site| bench.post.comparison(site)).unwrap();
    assert_eq!((comparison.asked, comparison.agreed), (100, 0), "every fourth has an odd port");
    let shares: Vec<_> = comparison.servers.iter().map(|share| (share.real.0, share.live, share.candidate)).collect();
    assert_eq!(shares, [(1, 0, 100), (0, 100, 0)]);
    assert_eq!((comparison.live_skew, comparison.candidate_skew), (2.0, 2.0));
    bench.on_site(|site| bench.post.set_trial(site, None, "")).unwrap();
    assert!(bench.on_site(|site| bench.post.comparison(site)).is_none());
}

/// A shadow works beside a native scheduler, too; promoted, it is the live one with the instances that it has.
#[test]
fn a_shadow_beside_a_native_scheduler_is_promoted() {
    let mut bench = Bench::new(3);
    bench.try_out(&by_port(), Trial::Shadow { one_in: 1 }).unwrap();
    assert_eq!([2, 2, 2].map(|port| bench.pick(port)), [2, 1, 0].map(Some), "wlc's");
    let comparison = bench.on_site(|site| bench.post.comparison(site)).unwrap();
    assert_eq!((comparison.asked, comparison.agreed), (3, 1));
    assert_eq!(bench.post.status().fallback, 0);
    assert_eq!(bench.post.promote().unwrap().number, 1);
    assert_eq!([2, 2, 2].map(|port| bench.pick(port)), [0, 0, 0].map(Some));
    assert!(bench.post.promote().is_err());
}

/// A canary takes its share of connections, chosen by their hash, and gives it back at once; what it does wrong is served
/// by the live plugin, and it is withdrawn, which the live one does not notice.
#[test]
fn a_canary_takes_its_share_and_no_more() {
    let mut bench = Bench::new(3);
    bench.live(&plugin("", "i32.const 0")).unwrap();
    bench.try_out(&plugin("", "i32.const 1"), Trial::Canary { per_mille: 250 }).unwrap();
    let share = |bench: &mut Bench| (0..4000).filter(|&port| bench.pick(port) == Some(1)).count();
    let taken = share(&mut bench);
    assert!((800..1200).contains(&taken), "{taken}");
    let comparison = bench.on_site(|site| bench.post.comparison(site)).unwrap();
    let shares: Vec<_> = comparison.servers.iter().map(|share| (share.live, share.candidate)).collect();
    assert_eq!(shares, [(4000 - taken as u64, 0), (0, taken as u64), (0, 0)]);
    bench.post.change_trial(Trial::Canary { per_mille: 0 }).unwrap();
    assert_eq!(share(&mut bench), 0);
    bench.try_out(&plugin("", "(loop $on (br $on)) i32.const 1"), Trial::Canary { per_mille: 1000 }).unwrap();
    assert!((0..100).all(|port| bench.pick(port) == Some(2)), "the live one's");
    let status = bench.post.status();
    assert_eq!((status.trust, status.candidate.unwrap().0.faults), (Trust::Live, vec![("budget", 1)]));
    assert!(bench.post.promote().unwrap_err().contains("withdrawn"));
}

/// A preview is asked of a copy.
#[test]
fn a_preview_leaves_no_trace() {
    let mut bench = Bench::new(3);
    bench.live(&by_port()).unwrap();
    let request = Request { client_port: 2, now_ms: bench.now_ms, ..Request::default() };
    assert_eq!(bench.service.preview(&bench.arena, &request), Some(RealId(0)));
    assert_eq!(bench.post.status().picks, 0);
}

/// Workers pick while the control side swaps versions, tries candidates, changes weights and servers: every connection
/// gets a server of the list, and nobody waits for long.
#[test]
fn everything_is_exchanged_under_load() {
    let mut bench = Bench::new(4);
    bench.live(&by_port()).unwrap();
    let versions = [WLC, &by_port(), &plugin("", "i32.const 0")].map(|text| bench.version(text));
    let stop = AtomicBool::new(false);
    let bench = &bench;
    let served: Vec<u64> = std::thread::scope(|scope| {
        let worker = |queue: u32| {
            let stop = &stop;
            move || {
                let mut served = 0u64;
                while !stop.load(Relaxed) {
                    let client_port = (served % 4) as u16;
                    let hash = served.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let request = Request { queue, client_port, hash, now_ms: served / 50, ..Request::default() };
                    let picked = bench.service.turn().pick(&bench.arena, &request);
                    assert!(picked.is_some_and(|id| id.0 < 6), "{picked:?}");
                    served += 1;
                }
                served
            }
        };
        let workers = [scope.spawn(worker(0)), scope.spawn(worker(1))];
        for round in 0..120usize {
            let version = versions[round % 3].clone();
            bench.on_site(|site| bench.post.set_live(site, Some(version), "")).unwrap();
            let number = 4 + (round % 2) as u32;
            bench.arena.get(RealId(number)).reset(&Bench::settings(number, 1));
            bench.service.add(&bench.arena, RealId(number));
            bench.weigh(round as u32 % 4, 1 + round as i32 % 3);
            let trial = Trial::Canary { per_mille: 500 };
            let candidate = (versions[(round + 1) % 3].clone(), trial);
            bench.on_site(|site| bench.post.set_trial(site, Some(candidate), "")).unwrap();
            if round % 5 == 0 {
                bench.post.promote().unwrap();
            }
            bench.service.remove(&bench.arena, RealId(number));
            bench.tick();
        }
        stop.store(true, Relaxed);
        workers.map(|worker| worker.join().unwrap()).to_vec()
    });
    let status = bench.post.status();
    assert!(served.iter().all(|&served| served > 120), "{served:?}");
    assert_eq!(status.live.unwrap().faults, [], "no one did wrong");
    assert_eq!(status.fallback, 0);
}
