//! Connections out of the packets of a capture.
//!
//! A TCP connection begins with a SYN from the client and ends with a RST or the second FIN; a SYN after its end begins
//! another one. Without a SYN it was there before the capture: it is opened at time 0, before all others, and counted
//! apart. UDP is a connection from its first packet on, and the sender of that is the client.
//!
//! Which service: the one that is asked for, or the one that most new connections go to. What goes elsewhere is counted
//! and left out. Invariant: connections of the service are as many as its flows in the capture, none lasts beyond the
//! end of the capture, and their number is bounded.

use std::collections::HashMap;
use std::path::Path;

use xvs_engine::flow::{Address, Endpoint, Flow, Protocol};

use super::capture::{self, Seen, Tally};
use super::error::SimulateError;
use super::workload::{Arrival, End, MOST, Workload};

/// Longest capture, in seconds: a week. Longer ones have wrong stamps, mostly.
const LONGEST_S: u64 = 7 * 86_400;

/// One connection of the capture; stamps in nanoseconds of its clock.
#[derive(Clone, Copy, Debug)]
struct Talk {
    /// From the client to the server, as far as is known.
    flow: Flow,
    first_ns: u64,
    last_ns: u64,
    bytes: u64,
    /// Its beginning was seen.
    begun: bool,
    /// The server answered its SYN, or it spoke without one.
    answered: bool,
    /// FINs of the client's side and of the server's.
    fins: [bool; 2],
    reset: bool,
}

impl Talk {
    fn new(seen: &Seen) -> Self {
        let opens = seen.syn && !seen.ack;
        // The first packet that was seen is an answer to a SYN that was not.
        let flow = if seen.syn && seen.ack { seen.flow.reversed() } else { seen.flow };
        let is_udp = flow.protocol == Protocol::UDP;
        Talk {
            flow,
            first_ns: seen.stamp_ns,
            last_ns: seen.stamp_ns,
            bytes: 0,
            begun: seen.syn || is_udp,
            answered: !opens,
            fins: [false; 2],
            reset: false,
        }
    }

    fn is_over(&self) -> bool {
        self.reset || self.fins == [true; 2]
    }

    fn take(&mut self, seen: &Seen) {
        let from_client = seen.flow.src == self.flow.src;
        self.last_ns = self.last_ns.max(seen.stamp_ns);
        self.bytes += u64::from(seen.length);
        self.reset |= seen.rst;
        self.fins[usize::from(!from_client)] |= seen.fin;
        self.answered |= !from_client || seen.ack;
    }

    fn end(&self) -> End {
        match () {
            () if self.flow.protocol == Protocol::UDP => End::Silent,
            () if self.reset => End::Reset,
            () if self.fins != [false; 2] => End::Closed,
            () if !self.answered => End::HalfOpen,
            () => End::Open,
        }
    }
}

/// Everything that a capture has of connections.
#[derive(Debug, Default)]
struct Talks {
    all: Vec<Talk>,
    /// The latest of these addresses and ports, in either direction.
    known: HashMap<Flow, usize>,
}

impl Talks {
    fn take(&mut self, seen: &Seen, path: &Path) -> Result<(), SimulateError> {
        let found = self.known.get(&seen.flow).or_else(|| self.known.get(&seen.flow.reversed())).copied();
        let opens = seen.syn && !seen.ack;
        let number = match found {
            Some(number) if !(opens && self.all[number].is_over()) => number,
            _ => {
                if self.all.len() == MOST {
                    let what = format!("it has more than {MOST} connections; cut it, as with `editcap -c`");
                    return Err(SimulateError::Capture { path: path.to_owned(), what });
                }
                let talk = Talk::new(seen);
                // A client of the connection before may be the server of this one.
                self.known.remove(&talk.flow.reversed());
                self.known.insert(talk.flow, self.all.len());
                self.all.push(talk);
                self.all.len() - 1
            }
        };
        self.all[number].take(seen);
        Ok(())
    }

    /// The service that most connections begin with. Of equals the one with the least address.
    fn busiest(&self) -> Option<(Protocol, Endpoint)> {
        let mut counts: HashMap<(Protocol, Endpoint), u64> = HashMap::new();
        for talk in self.all.iter().filter(|talk| talk.begun) {
            *counts.entry((talk.flow.protocol, talk.flow.dst)).or_default() += 1;
        }
        let best = counts.into_iter().max_by(|(a, x), (b, y)| x.cmp(y).then_with(|| b.cmp(a)));
        best.map(|(service, _)| service)
    }
}

/// Reads the connections of one service.
///
/// # Errors
/// The file is no capture, or has no connection of that service.
pub(super) fn read(path: &Path, asked: Option<(Protocol, Endpoint)>) -> Result<Workload, SimulateError> {
    let mut talks = Talks::default();
    let (mut begin, mut end) = (u64::MAX, 0);
    let tally = capture::read(path, |seen| {
        (begin, end) = (begin.min(seen.stamp_ns), end.max(seen.stamp_ns));
        talks.take(&seen, path)
    })?;
    let nothing = |what: String| SimulateError::Capture { path: path.to_owned(), what };
    let span_s = end.saturating_sub(begin) / 1_000_000_000;
    if span_s > LONGEST_S {
        let what = "its stamps are wrong, or it is too long: at most a week can be simulated";
        return Err(nothing(format!("its frames are {span_s} s apart: {what}")));
    }
    let service = asked.or_else(|| talks.busiest());
    let (protocol, endpoint) =
        service.ok_or_else(|| nothing(format!("no connection begins in its {} frames", tally.frames)))?;

    let mut builder = Builder { begin, clients: Vec::new(), numbers: HashMap::new(), arrivals: Vec::new(), carried: 0 };
    let mut elsewhere = 0u64;
    for talk in &talks.all {
        let reversed = talk.flow.reversed();
        match () {
            () if talk.flow.protocol != protocol => elsewhere += 1,
            () if talk.flow.dst == endpoint => builder.add(talk, &talk.flow),
            // The server was heard first, of a connection that had begun before.
            () if reversed.dst == endpoint && !talk.begun => builder.add(talk, &reversed),
            () => elsewhere += 1,
        }
    }
    let Builder { clients, mut arrivals, carried, .. } = builder;
    if arrivals.is_empty() {
        let name = protocol.to_string().to_lowercase();
        return Err(nothing(format!("no connection of its {} frames goes to {name}:{endpoint}", tally.frames)));
    }
    arrivals.sort_by_key(|&(carried, arrival)| (!carried, arrival.at_us));
    let arrivals = arrivals.into_iter().map(|(_, arrival)| arrival).collect();
    // A capture of one packet has no length; a simulation has.
    let length_us = (end.saturating_sub(begin) / 1000).max(1000);
    let notes = notes(path, &tally, asked.is_none(), carried, elsewhere);
    Ok(Workload { service: endpoint, protocol, clients, arrivals, carried, length_us, notes })
}

fn notes(path: &Path, tally: &Tally, guessed: bool, carried: usize, elsewhere: u64) -> Vec<(String, String)> {
    let mut notes = vec![("capture".to_owned(), path.display().to_string())];
    notes.push(("frames".to_owned(), tally.frames.to_string()));
    if guessed {
        notes.push(("service".to_owned(), "the one that most connections of the capture go to".to_owned()));
    }
    if carried > 0 {
        notes.push(("there before the beginning".to_owned(), format!("{carried} connections, opened at time 0")));
    }
    if elsewhere > 0 {
        notes.push(("left out: other services".to_owned(), format!("{elsewhere} connections")));
    }
    for (why, count) in &tally.passed {
        notes.push((format!("left out: {why}"), format!("{count} frames")));
    }
    if tally.cut {
        notes.push(("end".to_owned(), "the file ends in the middle of a frame".to_owned()));
    }
    notes
}

struct Builder {
    begin: u64,
    clients: Vec<Address>,
    numbers: HashMap<Address, u32>,
    arrivals: Vec<(bool, Arrival)>,
    carried: usize,
}

impl Builder {
    fn add(&mut self, talk: &Talk, flow: &Flow) {
        let next = self.clients.len() as u32;
        let client = *self.numbers.entry(flow.src.address).or_insert(next);
        if client == next {
            self.clients.push(flow.src.address);
        }
        let since = |stamp: u64| stamp.saturating_sub(self.begin) / 1000;
        let carried = !talk.begun;
        self.carried += usize::from(carried);
        let at_us = if carried { 0 } else { since(talk.first_ns) };
        let life_us = since(talk.last_ns).saturating_sub(at_us);
        let arrival = Arrival { at_us, life_us, bytes: talk.bytes, client, port: flow.src.port, end: talk.end() };
        self.arrivals.push((carried, arrival));
    }
}
