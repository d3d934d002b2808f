//! The schedulers against the kernel's recorded choices, step by step.
//!
//! Replays `recordings/kernel-*/*.csv`: services and servers come from `setup-commands.txt`, changes from the `cmd:` rows,
//! numbers of connections from the server list that the kernel had before each row, and every choice is compared.
//! `XVS_TRACES=DIR cargo test -p xvs-engine --test traces -- --nocapture` does the same with other recordings.
//!
//! What it does not do: connection states, timers and persistence; those are the business of other tests.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use xvs_engine::flow::{Address, Endpoint, Protocol};
use xvs_engine::real::{Arena, Generation, Method, RealId, Settings};
use xvs_engine::sched::Builtin;
use xvs_engine::service::{Policy, Service, ServiceKey};
use xvs_sdk::Request;

/// `1.2.3.4:80` or `[2001:db8::1]:80`.
fn endpoint(text: &str) -> Endpoint {
    let (address, port) = text.rsplit_once(':').unwrap();
    Endpoint::new(address_of(address.trim_matches(['[', ']'])), port.parse().unwrap())
}

fn address_of(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// What a scenario's commands have built.
struct Site {
    arena: Arena,
    service: Option<Service>,
    scheduler: String,
    one_packet: bool,
    known: HashMap<Endpoint, RealId>,
}

/// One row of a recording.
struct Row<'a> {
    columns: Vec<&'a str>,
}

impl Row<'_> {
    fn event(&self) -> &str {
        self.columns[8]
    }

    /// Endpoint, weight, active and total of each server before the event.
    fn servers(&self) -> Vec<(Endpoint, i32, u32, u32)> {
        let server = |text: &str| {
            let mut parts = text.split('/');
            let endpoint = endpoint(parts.next().unwrap());
            let [weight, active, inactive] = [(); 3].map(|()| parts.next().unwrap()[1..].parse::<u32>().unwrap());
            (endpoint, weight as i32, active, active + inactive)
        };
        self.columns[9].split_whitespace().map(server).collect()
    }

    fn request(&self, step: u64) -> Request {
        Request {
            client: address_of(self.columns[2]).octets16(),
            client_port: self.columns[3].parse().unwrap(),
            virtual_address: address_of(self.columns[4]).octets16(),
            virtual_port: self.columns[5].parse().unwrap(),
            protocol: if self.columns[6] == "tcp" { 6 } else { 17 },
            flags: 0,
            hash: step,
            now_s: step,
        }
    }
}

impl Site {
    fn new(generation: Generation) -> Self {
        let (scheduler, known) = (String::new(), HashMap::new());
        Site { arena: Arena::new(64, generation), service: None, scheduler, one_packet: false, known }
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    /// Carries out an ipvsadm command.
    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let after = |option: &str| words.iter().position(|word| *word == option).map(|at| words[at + 1]);
        let number = |option: &str| after(option).map_or(0, |text| text.parse::<u32>().unwrap());
        match words[1] {
            "-C" => *self = Site::new(self.arena.generation()),
            "-A" | "-E" => {
                let flag = |name: &str| match name {
                    "sh-fallback" | "mh-fallback" => 1,
                    "sh-port" | "mh-port" => 2,
                    other => panic!("{other}"),
                };
                let flags = after("-b").map_or(0, |names| names.split(',').map(flag).sum());
                let policy = Policy { flags, ..Policy::default() };
                let name = after("-s").unwrap();
                let scheduler = Builtin::from_name(name).unwrap();
                let key = ServiceKey::Address(Protocol::TCP, Endpoint::new(Address::v4([192, 0, 2, 1]), 80));
                (self.scheduler, self.one_packet) = (name.to_string(), words.contains(&"--ops"));
                match &self.service {
                    Some(service) => service.edit(&self.arena, scheduler, policy),
                    None => self.service = Some(Service::new(0, key, scheduler, policy)),
                }
            }
            "-a" | "-e" | "-d" => {
                let endpoint = endpoint(after("-r").unwrap());
                let weight = after("-w").map_or(1, |text| text.parse().unwrap());
                let (upper, lower) = (number("-x"), number("-y"));
                self.server(
                    words[1],
                    &Settings { endpoint, method: Method::Nat, tunnel: Default::default(), weight, upper, lower },
                );
            }
            other => panic!("{other}: {command}"),
        }
    }

    fn server(&mut self, command: &str, settings: &Settings) {
        let known = self.known.get(&settings.endpoint).copied();
        let id = known.unwrap_or(RealId(self.known.len() as u32));
        self.known.insert(settings.endpoint, id);
        let real = self.arena.get(id);
        match command {
            "-a" => {
                match known {
                    Some(_) => real.set(settings),
                    None => real.reset(settings),
                }
                real.set_added_weight(settings.weight);
                self.service().add(&self.arena, id);
            }
            "-e" => self.service().change(&self.arena, id, || real.set(settings)),
            _ => self.service().remove(&self.arena, id),
        }
    }

    /// Brings the numbers of connections to what the kernel had, one connection after the other, so that thresholds
    /// act as they did.
    fn count(&self, row: &Row<'_>) {
        let servers = row.servers();
        if servers.is_empty() {
            return;
        }
        let members = self.service().members();
        assert_eq!(members.len(), servers.len(), "the list");
        for (&id, &(endpoint, weight, active, total)) in members.iter().zip(&servers) {
            let real = self.arena.get(id);
            assert_eq!((real.endpoint(), real.weight()), (endpoint, weight), "the list");
            while real.counts().active > active {
                real.set_active(false);
            }
            while real.counts().total > total {
                real.unbind(false);
            }
            while real.counts().total < total {
                real.bind();
            }
            while real.counts().active < active {
                real.set_active(true);
            }
        }
    }

    fn choose(&self, request: &Request) -> Option<RealId> {
        self.service().turn().pick(&self.arena, request)
    }

    /// Chances of each server under `twos`, by the rule.
    fn chances(&self) -> HashMap<RealId, f64> {
        let members = self.service().members();
        let usable = members.iter().filter(|&&id| {
            let real = self.arena.get(id);
            !real.is_overloaded() && real.weight() > 0
        });
        let usable: Vec<_> = usable.collect();
        let sum: i32 = usable.iter().map(|&&id| self.arena.get(id).weight()).sum();
        let drawn = |place: usize| {
            let extra = i32::from(place == 0);
            f64::from(self.arena.get(*usable[place]).weight() + extra) / f64::from(sum + 1)
        };
        let load = |place: usize| {
            let (real, generation) = (self.arena.get(*usable[place]), self.arena.generation());
            let counts = real.counts();
            let rest = if generation == Generation::New { counts.total } else { counts.inactive() };
            f64::from(256 * counts.active + rest) / f64::from(real.weight())
        };
        let mut chances = HashMap::new();
        for first in 0..usable.len() {
            for second in 0..usable.len() {
                let winner = if load(first) > load(second) { second } else { first };
                *chances.entry(*usable[winner]).or_insert(0.0) += drawn(first) * drawn(second);
            }
        }
        chances
    }
}

/// How often each server was chosen, how often that was to be expected, and the variance of it.
#[derive(Default)]
struct Lottery(HashMap<RealId, [f64; 3]>);

impl Lottery {
    fn expect(&mut self, chances: &HashMap<RealId, f64>) {
        for (&id, chance) in chances {
            let entry = self.0.entry(id).or_default();
            entry[1] += chance;
            entry[2] += chance * (1.0 - chance);
        }
    }

    fn drawn(&mut self, id: RealId) {
        self.0.entry(id).or_default()[0] += 1.0;
    }

    /// Is every server within four standard deviations?
    fn is_fair(&self) -> bool {
        self.0.values().all(|[chosen, expected, variance]| (chosen - expected).abs() <= 4.0 * variance.sqrt() + 1e-9)
    }
}

/// The commands of each scenario.
fn scenarios(text: &str) -> HashMap<&str, Vec<&str>> {
    let mut scenarios: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut name = "";
    for line in text.lines().map(str::trim) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(scenario) => name = scenario,
            None if line.starts_with("ipvsadm") => scenarios.entry(name).or_default().push(line),
            None => {}
        }
    }
    scenarios
}

/// Replays one recording; gives equal and compared steps.
fn replay(generation: Generation, commands: &[&str], text: &str) -> (usize, usize, Vec<String>) {
    let rows: Vec<Row<'_>> = text.lines().skip(1).map(|line| Row { columns: line.split(',').collect() }).collect();
    let later: Vec<&str> = rows.iter().filter_map(|row| row.event().strip_prefix("cmd:")).collect();
    let typed = commands.strip_suffix(&["ipvsadm -C"]).unwrap_or(commands);
    let first = typed.strip_suffix(later.as_slice()).expect("the recording's commands end the scenario's");
    let mut site = Site::new(generation);
    first.iter().for_each(|command| site.run(command));
    let (mut equal, mut compared, mut complaints) = (0, 0, Vec::new());
    let (mut theirs, mut ours) = (Lottery::default(), Lottery::default());
    for (step, row) in rows.iter().enumerate() {
        site.count(row);
        if let Some(command) = row.event().strip_prefix("cmd:") {
            site.run(command);
        }
        if !matches!(row.event(), "open" | "pkt") {
            continue;
        }
        let chosen = (row.columns[7] != "NONE").then(|| site.known[&endpoint(row.columns[7])]);
        let picked = site.choose(&row.request(step as u64));
        compared += 1;
        if site.scheduler == "twos" {
            let chances = site.chances();
            theirs.expect(&chances);
            ours.expect(&chances);
            let possible = |id: &Option<RealId>| id.is_some_and(|id| chances.contains_key(&id));
            equal += usize::from(possible(&chosen) && possible(&picked));
            chosen.into_iter().for_each(|id| theirs.drawn(id));
            picked.into_iter().for_each(|id| ours.drawn(id));
        } else if picked == chosen {
            equal += 1;
        } else {
            let name = picked.map_or("NONE".into(), |id| site.arena.get(id).endpoint().to_string());
            complaints.push(format!("step {step}: {name} instead of {}", row.columns[7]));
        }
        if let Some(real) = chosen.map(|id| site.arena.get(id)) {
            real.bind();
            match row.event() {
                "open" => real.set_active(true),
                _ if site.one_packet => real.unbind(false),
                _ => {}
            }
        }
    }
    for (lottery, whose) in [(theirs, "theirs"), (ours, "ours")] {
        if !lottery.is_fair() {
            complaints.push(format!("{whose} does not follow the rule: {:?}", lottery.0));
        }
    }
    (equal, compared, complaints)
}

/// Every recorded choice is ours too; those of `twos` follow the rule, and so do ours.
#[test]
fn the_kernels_choices_are_ours() {
    let own = || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings").into();
    let root = std::env::var_os("XVS_TRACES").unwrap_or_else(own);
    let mut sums: HashMap<String, (usize, usize, usize)> = HashMap::new();
    let mut failures = 0;
    for kernel in sorted(Path::new(&root)).iter().filter(|path| path.join("setup-commands.txt").exists()) {
        let setup = fs::read_to_string(kernel.join("setup-commands.txt")).unwrap();
        let scenarios = scenarios(&setup);
        let kernel_name = kernel.file_name().unwrap().to_str().unwrap();
        let generation = if kernel_name.starts_with("kernel-6") { Generation::Old } else { Generation::New };
        for path in sorted(kernel).iter().filter(|path| path.extension().is_some_and(|extension| extension == "csv")) {
            let name = path.file_stem().unwrap().to_str().unwrap();
            // Persistence decides most of these, and the scheduler only the rest.
            if name.starts_with("persist-") {
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let (equal, compared, complaints) = replay(generation, &scenarios[name], &text);
            println!("{kernel_name} {name}: {equal} of {compared} steps equal");
            complaints.iter().take(5).for_each(|complaint| println!("    {complaint}"));
            failures += usize::from(equal != compared || !complaints.is_empty());
            let scheduler = name.split('-').next().unwrap().to_string();
            let sum = sums.entry(scheduler).or_default();
            *sum = (sum.0 + 1, sum.1 + equal, sum.2 + compared);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort();
    assert!(sums.iter().any(|(_, (_, _, compared))| *compared > 0), "no recording in {}", root.display());
    for (scheduler, (files, equal, compared)) in sums {
        println!("{scheduler:6} {files:4} files {equal:6} of {compared:6} steps equal");
    }
    assert_eq!(failures, 0, "recordings that differ");
}

/// A directory's entries in order.
fn sorted(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
