//! What a scheduler costs as a plugin, beside the same one natively, as a worker asks it: through the service, with its
//! lock, its checks and the plugin's post.
//!
//! ```text
//! cargo bench -p xvs-host --bench picks
//! cargo bench -p xvs-host --bench picks -- rr    # this scheduler's picks alone
//! ```
//!
//! Everything is measured in one run, native and plugin in turns; the median of the rounds is told. Then what is rare:
//! the first pick of a millisecond, when all rows are written; a trap and an exhausted budget, as the packet that meets
//! them waits; and a swap, from the command to the first pick by the new version.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xvs_engine::flow::{Address, Endpoint, Protocol};
use xvs_engine::real::{Arena, Generation, Method, RealId, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_host::{Grants, Host, Limits, Module, Post, Version};
use xvs_sdk::Request;

const ROUNDS: usize = 41;
const PICKS: u32 = 2_000;

/// A service with so many servers of mixed weights and loads.
struct Site {
    arena: Arena,
    service: Service,
    request: Request,
}

impl Site {
    fn new(scheduler: &str, servers: u32) -> Site {
        let arena = Arena::new(1024, Generation::New);
        let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
        let builtin = Builtin::from_name(scheduler).expect("a built-in scheduler");
        let service = Service::new(0, key, builtin, Policy::default());
        for number in 0..servers {
            let endpoint = Endpoint::new(Address::v4([10, 0, (number >> 8) as u8, number as u8]), 80);
            let weight = 1 + (number % 4) as i32;
            let tunnel = Default::default();
            let settings = Settings { endpoint, method: Method::Dr, tunnel, weight, upper: 0, lower: 0 };
            arena.get(RealId(number)).reset(&settings);
            service.add(&arena, RealId(number));
            for _ in 0..number.wrapping_mul(2_654_435_761) % 50 {
                arena.get(RealId(number)).bind();
            }
        }
        let request = Request { protocol: 6, family: 4, now_ms: 1_000, ..Request::default() };
        Site { arena, service, request }
    }

    /// The same with this plugin in front.
    fn with_plugin(scheduler: &str, servers: u32, version: &Arc<Version>) -> (Site, Arc<Post>) {
        let site = Site::new(scheduler, servers);
        let post = Post::new(1, 0);
        site.service.set_guest(post.clone());
        site.go_live(&post, version);
        (site, post)
    }

    fn go_live(&self, post: &Post, version: &Arc<Version>) {
        let live = |site: &xvs_engine::sched::guest::Site<'_>| post.set_live(site, Some(version.clone()), "");
        self.service.with_site(&self.arena, live).expect("it goes to work");
    }

    #[inline(always)]
    fn pick(&mut self) -> Option<RealId> {
        let port = self.request.client_port.wrapping_add(1);
        self.request.client_port = port;
        self.request.client[12..14].copy_from_slice(&port.to_be_bytes());
        self.service.turn().pick(&self.arena, black_box(&self.request))
    }

    /// Nanoseconds of a pick, the mean of a round; each of its own millisecond if `fresh`.
    fn round(&mut self, fresh: bool) -> f64 {
        let begin = Instant::now();
        for _ in 0..PICKS {
            self.request.now_ms += u64::from(fresh);
            black_box(self.pick());
        }
        begin.elapsed().as_nanos() as f64 / f64::from(PICKS)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn module(host: &Host, name: &str) -> Arc<Module> {
    let path = xvs_plugins::module(name).expect("the plugin is built");
    host.load(&std::fs::read(path).expect("it is read"), Grants::ALL).expect("it is right")
}

fn version(module: &Arc<Module>, number: u32) -> Arc<Version> {
    Arc::new(Version { name: "bench".into(), number, module: module.clone() })
}

fn compare(host: &Host, names: &[&str]) {
    println!("ns a pick, median of {ROUNDS} rounds of {PICKS}, in turns\n");
    println!("scheduler  servers    native    plugin      more     ratio    first of a ms");
    for &name in names {
        let version = version(&module(host, name), 1);
        for servers in [4, 16, 256] {
            let mut native = Site::new(name, servers);
            let (mut plugin, _post) = Site::with_plugin(name, servers, &version);
            let (mut natives, mut plugins, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                natives.push(native.round(false));
                plugins.push(plugin.round(false));
                firsts.push(plugin.round(true));
            }
            let [native, plugin, first] = [natives, plugins, firsts].map(median);
            let (more, ratio) = (plugin - native, plugin / native);
            println!("{name:<9} {servers:>8} {native:>9.1} {plugin:>9.1} {more:>9.1} {ratio:>9.2} {first:>16.1}");
        }
    }
}

/// A plugin that picks slot 0, but for this.
fn misbehaving(host: &Host, act: &str) -> Arc<Module> {
    let text = format!(
        r#"(module (memory (export "memory") 1 4)
          (data (i32.const 1024) "XVS1\01\00\00\00\00\00\00\00\00\00\00\00\00\04\00\00\20\00\00\00")
          (func (export "xvs_abi_version") (result i32) i32.const 1)
          (func (export "xvs_table") (result i32) i32.const 1024)
          (func (export "xvs_io") (result i32) i32.const 64)
          (func (export "xvs_config") (result i32) i32.const 0)
          (func (export "xvs_schedule") (result i32) {act} i32.const 0))"#
    );
    host.load(&wat::parse_str(text).expect("a module"), Grants::default()).expect("it is right")
}

/// How long the packet waits that meets this, the native scheduler's pick included: median and longest.
fn misdeeds(host: &Host) {
    println!("\nus of the pick that meets it, 256 servers (the largest budget), native pick included");
    let cases = [
        ("none", ""),
        ("trap", "unreachable"),
        ("endless loop", "(loop $l (br $l))"),
        ("endless division", "(loop $l (drop (i64.div_u (i64.const 7) (i64.load (i32.const 64)))) (br $l))"),
    ];
    for (what, act) in cases {
        let version = version(&misbehaving(host, act), 1);
        let (mut site, post) = Site::with_plugin("wlc", 256, &version);
        let mut waits = Vec::new();
        for _ in 0..300 {
            // A fresh instance each time: after a misdeed there is none.
            site.go_live(&post, &version);
            let begin = Instant::now();
            black_box(site.pick());
            waits.push(begin.elapsed().as_nanos() as f64 / 1000.0);
        }
        let longest = waits.iter().copied().fold(0.0, f64::max);
        println!("{what:<18} median {:>7.2}  longest {longest:>8.2}", median(waits));
    }
}

/// From the command to the first pick by the new version.
fn swaps(host: &Host) {
    println!("\nus from `swap` (the module is loaded) to the first pick by the new version");
    for (name, servers) in [("rr", 16), ("wlc", 256), ("mh", 256)] {
        let module = module(host, name);
        let (mut site, post) = Site::with_plugin("wlc", servers, &version(&module, 1));
        let mut times = Vec::new();
        for number in 2..102 {
            let next = version(&module, number);
            let before = post.status().picks;
            let begin = Instant::now();
            site.go_live(&post, &next);
            black_box(site.pick());
            times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
            assert_eq!(post.status().picks, before + 1, "by the plugin");
        }
        println!("{name:<9} {servers:>8} servers  median {:>8.1}", median(times));
    }
    for name in ["rr", "wlc", "mh"] {
        let bytes = std::fs::read(xvs_plugins::module(name).expect("built")).expect("read");
        let times = (0..9).map(|_| {
            let begin = Instant::now();
            black_box(host.load(&bytes, Grants::ALL).expect("right"));
            begin.elapsed().as_secs_f64() * 1000.0
        });
        println!("load {name} ({} bytes): median {:.1} ms", bytes.len(), median(times.collect()));
    }
}

fn main() {
    let begin = Instant::now();
    let host = Host::new(Limits::default()).expect("a host");
    host.warm_thread();
    const NAMES: [&str; 4] = ["rr", "wrr", "wlc", "mh"];
    // cargo says `--bench`, too.
    let asked: Vec<String> = std::env::args().collect();
    let only: Vec<&str> = NAMES.into_iter().filter(|name| asked.iter().any(|word| word == name)).collect();
    if !only.is_empty() {
        return compare(&host, &only);
    }
    compare(&host, &NAMES);
    misdeeds(&host);
    swaps(&host);
    assert!(begin.elapsed() < Duration::from_secs(600));
}
