//! The recordings, and how they are played against the model.
//!
//! Invariant: every command goes through the real grammar and the real output; only the director is a model.

use std::io::Cursor;
use std::path::PathBuf;

use xvs::control::protocol::{Connection, Family, Protocol, Server, Service, ServiceId};
use xvs::ipvsadm::run::{World, main};

use crate::model::{Model, Recorded};

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) exit: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command line (split at spaces) with this on its standard input.
pub(crate) fn run(model: &mut Model, command: &str, stdin: &str) -> Outcome {
    let args: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = main(
        &args,
        &mut World {
            stdin: &mut Cursor::new(stdin.as_bytes()),
            stdout: &mut stdout,
            stderr: &mut stderr,
            names: &Recorded,
            director: model,
        },
    );
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Outcome { exit, stdout: text(stdout), stderr: text(stderr) }
}

/// Runs commands as a shell would: `;` between them, `| grep TEXT` behind one.
pub(crate) fn shell(model: &mut Model, line: &str, stdin: &str) -> Outcome {
    let mut all = Outcome { exit: 0, stdout: String::new(), stderr: String::new() };
    for command in line.split(';') {
        let (command, filter) = command.split_once("| grep ").unwrap_or((command, ""));
        let outcome = run(model, command, stdin);
        let kept = outcome.stdout.split_inclusive('\n').filter(|line| line.contains(filter.trim()));
        all.stdout.extend(kept);
        all.stderr += &outcome.stderr;
        all.exit = outcome.exit;
    }
    all
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What the real program printed under this name.
pub(crate) fn printed(name: &str) -> String {
    std::fs::read_to_string(file(&format!("{name}.out"))).unwrap_or_default()
}

/// A line of the index.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) exit: u8,
    pub(crate) complained: bool,
    pub(crate) command: String,
}

/// The rows whose names start so, in the order in which they were recorded.
pub(crate) fn rows(prefix: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(file("index.tsv")).expect("the index");
    let row = |line: &str| {
        let [name, exit, complained, command] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("four columns: {line}")
        };
        Row {
            name: name.to_owned(),
            exit: exit.parse().expect("a status"),
            complained: !complained.is_empty(),
            command: command.to_owned(),
        }
    };
    let rows: Vec<Row> = text.lines().skip(1).filter(|line| line.starts_with(prefix)).map(row).collect();
    assert!(!rows.is_empty(), "no row {prefix}");
    rows
}

/// A model after the commands of a section of the setup.
pub(crate) fn after(section: &str) -> Model {
    let text = std::fs::read_to_string(file("setup-commands.txt")).expect("the commands");
    let lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let commands: Vec<&str> = lines.take_while(|line| !line.starts_with('[')).collect();
    assert!(!commands.is_empty(), "no section {section}");
    let mut model = Model::default();
    for command in commands {
        let outcome = run(&mut model, command, "");
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (0, ""), "{command}");
    }
    model
}

/// Plays a row: exit status, whether something was complained about, and every byte of the output.
pub(crate) fn play(model: &mut Model, row: &Row, stdin: &str) {
    if row.command.contains("--nosort") {
        order_as_printed(model, &printed(&row.name));
    }
    let outcome = shell(model, &row.command, stdin);
    assert_eq!(outcome.stdout, printed(&row.name), "{}: {}", row.name, row.command);
    assert_eq!(outcome.exit, row.exit, "{}: {}", row.name, row.command);
    assert_eq!(!outcome.stderr.is_empty(), row.complained, "{}: {}", row.name, outcome.stderr);
}

/// The label of a service in a numeric listing.
fn label(id: &ServiceId) -> String {
    match id {
        ServiceId::Mark { mark, family: Family::Inet } => format!("FWM {mark}"),
        ServiceId::Mark { mark, family: Family::Inet6 } => format!("FWM {mark} IPv6"),
        ServiceId::Address { protocol, address } => {
            let protocol = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            format!("{protocol} {address}")
        }
    }
}

/// Puts the services into the order of a listing. The kernel's own order is that of a hash table; the order of servers
/// is left to the model.
fn order_as_printed(model: &mut Model, listing: &str) {
    let lines: Vec<String> =
        listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    model.services.services.sort_by_key(|service| {
        let label = label(&service.spec.id) + " ";
        lines.iter().position(|line| format!("{line} ").starts_with(&label))
    });
}

/// Calls back with each service, each of its servers (or none, for its own line) and the numbers behind them.
fn numbers(
    model: &mut Model,
    listing: &str,
    columns: usize,
    mut take: impl FnMut(&mut Service, Option<usize>, &[u64]),
) {
    let mut current = None;
    for line in listing.lines().skip(3) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let tail = &words[words.len().saturating_sub(columns)..];
        let values: Vec<u64> = tail.iter().filter_map(|word| word.parse().ok()).collect();
        match words.strip_prefix(&["->"]) {
            None => {
                let line = words.join(" ") + " ";
                let services = &mut model.services.services;
                current = services.iter().position(|service| line.starts_with(&(label(&service.spec.id) + " ")));
                let service = &mut services[current.expect("a known service")];
                take(service, None, &values);
            }
            Some(rest) => {
                let service = &mut model.services.services[current.expect("a service above its servers")];
                let is = |server: &Server| server.spec.address.to_string() == rest[0];
                let server = service.servers.iter().position(is).expect("a known server");
                take(service, Some(server), &values);
            }
        }
    }
}

/// Gives the model the counters and rates that were recorded.
pub(crate) fn traffic(model: &mut Model) {
    numbers(model, &printed("C-traffic-Ln-stats-exact"), 5, |service, server, values| {
        let stats = stats(service, server);
        [stats.conns, stats.in_packets, stats.out_packets, stats.in_bytes, stats.out_bytes] =
            values.try_into().expect("five numbers");
    });
    numbers(model, &printed("C-traffic-Ln-rate-exact"), 5, |service, server, values| {
        let stats = stats(service, server);
        [stats.cps, stats.in_pps, stats.out_pps, stats.in_bps, stats.out_bps] =
            values.try_into().expect("five numbers");
    });
    numbers(model, &printed("C-traffic-Ln-persistent-conn"), 3, |service, server, values| {
        if let Some(server) = server {
            let server = &mut service.servers[server];
            [server.persistent, server.active, server.inactive] =
                [0, 1, 2].map(|index| u32::try_from(values[index]).expect("a small number"));
        }
    });
}

fn stats(service: &mut Service, server: Option<usize>) -> &mut xvs::control::protocol::Stats {
    match server {
        Some(server) => &mut service.servers[server].stats,
        None => &mut service.stats,
    }
}

/// The connections of a numeric listing.
pub(crate) fn connections(listing: &str) -> Vec<Connection> {
    let row = |line: &str| {
        let [protocol, expire, state, client, target, server] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let (minutes, seconds) = expire.split_once(':')?;
        Some(Connection {
            protocol: if protocol == "TCP" { 6 } else { 17 },
            state: state.to_owned(),
            expires_s: minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?,
            client: client.parse().ok()?,
            virtual_address: target.parse().ok()?,
            server: server.parse().ok()?,
            engine: None,
        })
    };
    listing.lines().filter_map(row).collect()
}
