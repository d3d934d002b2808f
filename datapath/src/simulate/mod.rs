//! `xvs simulate`: new connections through any schedulers in virtual time, and a report of what each makes of them.
//!
//! ```text
//! random < quantity < lineup < event        what people write
//! workload < synthetic, capture < trace     new connections
//! contestant < stage < probe, measure       a scheduler with its servers
//! outcome < course                          one scheduler through it all
//! plot < report                             HTML
//! ```
//!
//! Each scheduler is driven as a worker drives it, by the engine's own service and records of servers ([`stage`]). Not
//! by packets through the rehearsal's workers: which server a new connection gets depends on nothing that they add, and a
//! million connections would be five million packets and a swept table for each scheduler, minutes instead of a second.
//! What a packet does is `xvs replay`'s business.
//!
//! Invariant: the same inputs and seed give the same outcome, to the byte, but for measured costs. A mistake in any input
//! is told before anything is simulated or written.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xvs_engine::flow::{Address, Endpoint, Protocol};
use xvs_engine::sched::Builtin;

use crate::cli::Simulate;
use crate::config::Desired;
use crate::config::desired::ServiceState;
use crate::config::rules::describe;
use crate::control::protocol::{self, ServiceId};
use crate::control::timeouts;
use crate::run::{self, RunError};

mod capture;
mod contestant;
mod course;
mod error;
mod event;
mod lineup;
mod measure;
mod outcome;
mod plot;
mod probe;
mod quantity;
mod random;
mod report;
mod stage;
mod summary;
mod synthetic;
mod trace;
mod workload;

pub use error::SimulateError;

use contestant::Contestant;
use course::Plan;
use event::{Event, Weights};
use lineup::Lineup;
use outcome::{Moment, Simulation};
use synthetic::Formula;
use workload::Memory;

/// Where connections go if nobody says: an address for documentation.
const SERVICE: Endpoint = Endpoint::new(Address::v4([192, 0, 2, 10]), 80);
/// Spans of the series; fewer with many servers, so that a report stays small.
const SPANS: usize = 240;
const SPANS_OF_MANY: usize = 120;
const MANY: usize = 64;

/// Simulates, writes what is to be written, and tells the result in a table.
///
/// # Errors
/// An input is wrong, or a file can not be read or written.
pub fn simulate(options: &Simulate) -> Result<String, SimulateError> {
    refuse_same(options)?;
    let simulation = run(options)?;
    if let Some(path) = &options.json {
        let json = serde_json::to_vec(&simulation).map_err(std::io::Error::from).map_err(file(path))?;
        std::fs::write(path, json).map_err(file(path))?;
    }
    if let Some(path) = &options.report {
        std::fs::write(path, report::render(&simulation)).map_err(file(path))?;
    }
    Ok(summary::render(&simulation))
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> SimulateError {
    let path = path.to_owned();
    move |source| SimulateError::File { path, source }
}

/// Is a file to be written that is read, or written twice?
fn refuse_same(options: &Simulate) -> Result<(), SimulateError> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino(), data.is_file()));
    let read = [&options.trace, &options.config, &options.events].map(|path| path.as_deref().and_then(identity));
    for written in [&options.report, &options.json].into_iter().flatten() {
        let is_read = identity(written).is_some_and(|(.., is_file)| is_file) && read.contains(&identity(written));
        if is_read || options.report == options.json {
            let what = format!("{} is to be written and is another file of this command, too", written.display());
            return Err(SimulateError::Usage(what));
        }
    }
    Ok(())
}

/// Simulates.
///
/// # Errors
/// An input is wrong, or a file can not be read.
fn run(options: &Simulate) -> Result<Simulation, SimulateError> {
    let state = configured(options)?;
    let asked = service(options, state.as_ref())?;
    let mut lineup = match (&options.servers, &state) {
        (Some(words), _) => Lineup::read(words),
        (None, Some(state)) => Lineup::of_service(state),
        (None, None) => Err("whom to? Name servers with --servers, or a configuration with --config".to_owned()),
    }
    .map_err(SimulateError::Usage)?;
    let names = match (&options.scheduler[..], &state) {
        ([], Some(state)) => vec![state.spec.scheduler.clone()],
        ([], None) => {
            return Err(SimulateError::Usage("which schedulers? As in --scheduler wlc --scheduler mh".to_owned()));
        }
        (names, _) => names.to_vec(),
    };
    let own = state.as_ref().map(|state| (state.spec.scheduler.as_str(), state.spec.flags));
    let contestants = Contestant::all(&names, &options.options, own, options.seed)?;
    let mut inputs = Vec::new();
    let workload = match (&options.trace, &options.synthetic) {
        (Some(path), None) => trace::read(path, asked)?,
        (None, Some(words)) => {
            let (protocol, endpoint) = asked.unwrap_or((Protocol::TCP, SERVICE));
            inputs.push(("connections by formula".to_owned(), words.clone()));
            inputs.push(("seed".to_owned(), options.seed.to_string()));
            Formula::read(words).map_err(SimulateError::Usage)?.generate(endpoint, protocol, options.seed)
        }
        _ => return Err(SimulateError::Usage("which connections? Give either --trace or --synthetic".to_owned())),
    };
    let events = match &options.events {
        Some(path) => event::read(&run::read_text(path)?, path, workload.length_us, &mut lineup)?,
        None => Vec::new(),
    };
    let spans = if lineup.servers().len() > MANY { SPANS_OF_MANY } else { SPANS };
    let spans = spans.min((workload.length_us / 1000).max(1) as usize);
    let memory = memory(state.as_ref());
    let plan = Plan { workload: &workload, lineup: &lineup, events: &events, memory, spans };
    inputs.extend(told(&plan, options, state.as_ref()));
    carry_out(&plan, &contestants, inputs)
}

/// All schedulers, one after the other.
fn carry_out(
    plan: &Plan<'_>,
    contestants: &[Contestant],
    inputs: Vec<(String, String)>,
) -> Result<Simulation, SimulateError> {
    let (mut schedulers, mut measured) = (Vec::new(), Vec::new());
    for contestant in contestants {
        let (outcome, cost) = course::run(plan, contestant).map_err(|fault| {
            let path = PathBuf::from(contestant.name());
            SimulateError::Plugin { path, what: fault.to_string() }
        })?;
        schedulers.push(outcome);
        measured.push(cost);
    }
    let seconds = |us: u64| us as f64 / 1e6;
    Ok(Simulation {
        version: env!("CARGO_PKG_VERSION"),
        inputs,
        seconds: seconds(plan.workload.length_us),
        servers: plan.lineup.servers().iter().map(|server| server.address.to_string()).collect(),
        times: (0..plan.spans).map(|span| seconds(plan.span_end(span))).collect(),
        moments: moments(plan),
        schedulers,
        measured,
    })
}

/// What happens when, and what it takes at least; the same for all schedulers.
fn moments(plan: &Plan<'_>) -> Vec<Moment> {
    let mut weights = Weights::new(plan.lineup);
    let moment = |events: &[Event]| {
        let before = weights.now();
        events.iter().for_each(|event| weights.apply(event));
        let words = events.iter().map(|event| event.words(plan.lineup)).collect();
        Moment { at: events[0].at_us as f64 / 1e6, events: words, least: probe::least(&before, &weights.now()) }
    };
    plan.moments().map(moment).collect()
}

/// The service of the configuration that is simulated, if there is a configuration.
fn configured(options: &Simulate) -> Result<Option<ServiceState>, SimulateError> {
    let Some(path) = &options.config else { return Ok(None) };
    let document = run::read_config(path)?;
    let desired = Desired::validate(document, Builtin::NAMES).map_err(RunError::from)?;
    let all = || desired.services().iter().map(|state| describe(&state.spec.id)).collect::<Vec<_>>().join(", ");
    let found = match &options.service {
        Some(word) => {
            let (protocol, address) = parse_service(word)?;
            let id = ServiceId::Address { protocol, address };
            desired.services().iter().find(|state| state.spec.id == id)
        }
        None if desired.services().len() == 1 => desired.services().first(),
        None => {
            let what = format!("which service of {}? --service names one of: {}", path.display(), all());
            return Err(SimulateError::Usage(what));
        }
    };
    let mut state = found.cloned().ok_or_else(|| {
        let what = format!("{} has no such service; it has: {}", path.display(), all());
        SimulateError::Usage(what)
    })?;
    // The service's own timeouts go before the director's.
    let own = std::mem::replace(&mut state.timeouts, desired.timeouts().clone());
    state.timeouts.extend(own);
    Ok(Some(state))
}

/// The protocol and address that are asked for.
fn service(options: &Simulate, state: Option<&ServiceState>) -> Result<Option<(Protocol, Endpoint)>, SimulateError> {
    let (protocol, address) = match (state.map(|state| state.spec.id), &options.service) {
        (Some(ServiceId::Address { protocol, address }), _) => (protocol, address),
        (Some(ServiceId::Mark { .. }), _) => {
            let what = "a service of a firewall mark can not be simulated: name one with an address".to_owned();
            return Err(SimulateError::Usage(what));
        }
        (None, Some(word)) => parse_service(word)?,
        (None, None) => return Ok(None),
    };
    let protocol = match protocol {
        protocol::Protocol::Tcp => Protocol::TCP,
        protocol::Protocol::Udp => Protocol::UDP,
        protocol::Protocol::Sctp => {
            return Err(SimulateError::Usage("SCTP can not be simulated: TCP and UDP can".to_owned()));
        }
    };
    Ok(Some((protocol, address.into())))
}

/// `VIP:PORT`, `tcp:VIP:PORT` or `udp:VIP:PORT`
fn parse_service(word: &str) -> Result<(protocol::Protocol, std::net::SocketAddr), SimulateError> {
    let (protocol, rest) = match word.split_once(':') {
        Some(("tcp", rest)) => (protocol::Protocol::Tcp, rest),
        Some(("udp", rest)) => (protocol::Protocol::Udp, rest),
        Some(("sctp", rest)) => (protocol::Protocol::Sctp, rest),
        _ => (protocol::Protocol::Tcp, word),
    };
    let address = rest.parse();
    let wrong = |_| {
        SimulateError::Usage(format!("--service {word}: it must be VIP:PORT, as in 192.0.2.10:80 or udp:192.0.2.10:53"))
    };
    Ok((protocol, address.map_err(wrong)?))
}

/// How long the director remembers connections.
fn memory(state: Option<&ServiceState>) -> Memory {
    let mut times: BTreeMap<String, u32> = timeouts::defaults();
    // 0 keeps what the director has.
    times.extend(state.into_iter().flat_map(|state| state.timeouts.clone()).filter(|&(_, seconds)| seconds != 0));
    let seconds = |name: &str| times.get(name).copied().map_or(0.0, f64::from);
    Memory {
        closed_s: seconds("fin_wait"),
        reset_s: seconds("close"),
        half_open_s: seconds("syn_recv"),
        udp_s: seconds("udp"),
    }
}

/// What was simulated, for the head of the report.
fn told(plan: &Plan<'_>, options: &Simulate, state: Option<&ServiceState>) -> Vec<(String, String)> {
    let Plan { workload, lineup, memory, .. } = plan;
    let mut told = workload.notes.clone();
    let mut tell = |name: &str, value: String| told.push((name.to_owned(), value));
    let protocol = workload.protocol.to_string().to_lowercase();
    tell("to", format!("{protocol} {}", workload.service));
    tell("clients", workload.clients.len().to_string());
    tell("connections", format!("{} in {:.3} s", workload.arrivals.len(), workload.length_us as f64 / 1e6));
    let weights = lineup.servers().iter().filter(|server| server.present).map(|server| server.weight);
    let (servers, sum) = weights.fold((0, 0i64), |(count, sum), weight| (count + 1, sum + i64::from(weight)));
    tell("servers", format!("{servers}, of weight {sum} together"));
    if let Some(words) = options.servers.as_ref().filter(|words| words.len() <= 400) {
        tell("--servers", words.clone());
    }
    if let Some(path) = &options.config {
        tell("configuration", path.display().to_string());
    }
    if let Some(path) = &options.events {
        tell("events", format!("{} of {}", plan.events.len(), path.display()));
    }
    if lineup.is_uniform() {
        tell("speed of servers", "all alike: durations are as the workload says".to_owned());
    } else {
        tell("speed of servers", "durations are stretched by speed and capacity".to_owned());
    }
    let remembered = match workload.protocol {
        Protocol::UDP => format!("{} s after the last packet", memory.udp_s),
        _ => format!("{} s after FIN, {} s after RST, inactive", memory.closed_s, memory.reset_s),
    };
    tell("remembered", remembered);
    if state.is_some_and(|state| state.spec.persistence.is_some()) {
        tell("left out: persistence", "the service has it; here each connection asks the scheduler".to_owned());
    }
    told
}
