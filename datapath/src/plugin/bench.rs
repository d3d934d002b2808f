//! `xvs plugin bench`: what a pick costs, beside built-in schedulers.
//!
//! All of them stand behind a service of the engine, and are asked as a worker asks. Rounds are interleaved, so that
//! whatever disturbs the machine disturbs all alike; a figure is the median of its rounds.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use xvs_engine::flow::{Address, Endpoint, Protocol};
use xvs_engine::real::{Arena, Generation, Method, RealId, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::sched::guest::Guest;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_host::check::Chance;
use xvs_host::{Module, Post, Version};
use xvs_sdk::Request;

use super::{Outcome, PluginError, Subject};

/// Numbers of servers.
const SIZES: [u32; 3] = [4, 16, 256];
/// Rounds, and picks in each.
const ROUNDS: usize = 41;
const PICKS: usize = 500;

/// `xvs plugin bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// The module, and what it needs.
    #[command(flatten)]
    pub subject: Subject,
    /// Built-in schedulers to measure beside it.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "rr,wrr,wlc,mh")]
    pub beside: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A scheduler's figures among so many servers, in nanoseconds a pick.
#[derive(Debug, Serialize)]
struct Figure {
    servers: u32,
    scheduler: String,
    /// Within a breath: only what it chose itself is new.
    ns: f64,
    /// The first of a breath: the counts of all servers are looked at.
    first_ns: f64,
    /// The module's time by this one's.
    ratio: f64,
}

/// A service that is asked.
struct Stand {
    name: String,
    service: Service,
    rounds: Vec<f64>,
    first_rounds: Vec<f64>,
    breath: u64,
}

pub(super) fn run(options: &Bench) -> Result<Outcome, PluginError> {
    for name in &options.beside {
        if Builtin::from_name(name).is_none() {
            return Err(PluginError::Unknown(name.clone()));
        }
    }
    let module = options.subject.load()?;
    let path = &options.subject.file;
    let name = path.file_stem().map_or_else(|| "module".into(), |stem| stem.to_string_lossy().into_owned());
    let mut figures = Vec::new();
    for servers in SIZES.into_iter().filter(|&servers| servers as usize <= module.capacity()) {
        let unfit = |why: String| PluginError::Unfit { path: path.clone(), more: format!(": {why}") };
        figures.extend(measure(&module, &name, &options.subject.text(), &options.beside, servers).map_err(unfit)?);
    }
    let text = if options.json {
        serde_json::to_string_pretty(&figures).map(|text| text + "\n").unwrap_or_default()
    } else {
        render(&figures)
    };
    Ok(Outcome { text, error: None })
}

fn measure(
    module: &Arc<Module>,
    name: &str,
    options: &str,
    beside: &[String],
    servers: u32,
) -> Result<Vec<Figure>, String> {
    let arena = Arena::new(servers as usize, Generation::New);
    let (mut chance, members) = (Chance::new(3), (0..servers).rev().map(RealId).collect::<Vec<_>>());
    for id in (0..servers).map(RealId) {
        let [high, low] = (id.0 as u16).to_be_bytes();
        arena.get(id).reset(&Settings {
            endpoint: Endpoint::new(Address::v4([10, 0, high, low]), 80),
            method: Method::Dr,
            tunnel: Default::default(),
            weight: 1 + chance.below(10) as i32,
            upper: 0,
            lower: 0,
        });
        for _ in 0..chance.below(50) {
            arena.get(id).bind();
        }
    }
    let builtin =
        |name: &str| Builtin::from_name(name).ok_or_else(|| format!("there is no built-in scheduler {name:?}"));
    let fallback = builtin("rr")?;
    let mut stands = vec![stand(&arena, name, fallback, &members)];
    let post = Post::new(1, 0);
    let version = Version { name: name.to_owned(), number: 1, module: Arc::clone(module) };
    let live = Some(Arc::new(version));
    let set = stands[0].service.with_site(&arena, |site| post.set_live(site, live, options));
    set.map_err(|fault| fault.to_string())?;
    let guest: Arc<dyn Guest> = post.clone();
    stands[0].service.set_guest(guest);
    for name in beside {
        stands.push(stand(&arena, name, builtin(name)?, &members));
    }
    let requests: Vec<Request> = (0..PICKS).map(|_| request(&mut chance)).collect();
    for _ in 0..ROUNDS {
        for stand in &mut stands {
            stand.ask(&arena, &requests);
        }
    }
    if let Some(fault) = post.status().live.and_then(|standing| standing.last_fault) {
        return Err(format!("it did not serve all picks among {servers} servers: {fault}"));
    }
    let mut figures: Vec<Figure> = stands
        .into_iter()
        .map(|stand| {
            let (ns, first_ns) = (median(stand.rounds), median(stand.first_rounds));
            Figure { servers, scheduler: stand.name, ns, first_ns, ratio: 1.0 }
        })
        .collect();
    let own = figures[0].ns;
    figures.iter_mut().for_each(|figure| figure.ratio = own / figure.ns);
    Ok(figures)
}

fn stand(arena: &Arena, name: &str, scheduler: Builtin, members: &[RealId]) -> Stand {
    let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 10]), 80));
    let service = Service::new(0, key, scheduler, Policy::default());
    for &member in members.iter().rev() {
        service.add(arena, member);
    }
    Stand { name: name.to_owned(), service, rounds: Vec::new(), first_rounds: Vec::new(), breath: 0 }
}

impl Stand {
    /// A round of picks in one breath, and a round of breaths of one pick.
    fn ask(&mut self, arena: &Arena, requests: &[Request]) {
        for every in [false, true] {
            let begin = Instant::now();
            for request in requests {
                self.breath += u64::from(every);
                let request = Request { now_ms: self.breath, ..*request };
                let chosen = std::hint::black_box(self.service.turn().pick(arena, &request));
                if let Some(chosen) = chosen {
                    // The connection comes and goes: its server's row is new, and loads stay what they are.
                    arena.get(chosen).bind();
                    arena.get(chosen).unbind(false);
                }
            }
            let ns = begin.elapsed().as_secs_f64() * 1e9 / requests.len() as f64;
            if every { self.first_rounds.push(ns) } else { self.rounds.push(ns) }
        }
        self.breath += 1;
    }
}

fn request(chance: &mut Chance) -> Request {
    let flow = chance.flow();
    Request {
        client: flow.client,
        virtual_address: flow.virtual_address,
        client_port: flow.client_port,
        virtual_port: flow.virtual_port,
        protocol: flow.protocol,
        family: flow.family,
        hash: flow.hash,
        ..Request::default()
    }
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn render(figures: &[Figure]) -> String {
    let mut text = "servers  scheduler             ns/pick  first of a breath  module by it\n".to_owned();
    for figure in figures {
        let Figure { servers, scheduler, ns, first_ns, ratio } = figure;
        // Writing to a string can not fail.
        let _ = writeln!(text, "{servers:>7}  {scheduler:<20} {ns:>8.1}  {first_ns:>17.1}  {ratio:>11.2}x");
    }
    text
}
