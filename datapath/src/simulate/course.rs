//! One scheduler through all connections and events, in virtual time.
//!
//! At each instant first the connections end that are due, then a span of the series is closed, then events happen, then
//! new connections come. Invariant: the same inputs give the same outcome; what is kept grows with the connections that
//! the director would remember at once, and with the clients (two bytes for each), and with nothing else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use xvs_engine::flow::Protocol;
use xvs_engine::service::ServiceKey;
use xvs_host::Fault;

use super::contestant::Contestant;
use super::event::Event;
use super::lineup::Lineup;
use super::measure;
use super::outcome::{Balance, Evenness, Measured, Outcome, Reaction, Record, Series};
use super::probe;
use super::stage::Stage;
use super::workload::{Arrival, End, Memory, Workload};

/// The director's clock at the beginning, in milliseconds: not 0, as in a director that runs.
const START_MS: u64 = 1_000_000;
/// How often a plugin is looked after, in microseconds, and after how many of those times rates are sampled.
const TICK_US: u64 = 100_000;
const TICKS: u64 = 20;
/// The span after a moment in which clients are watched: this part of the whole time.
const WATCHED: u64 = 10;

/// What all schedulers go through.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// New connections.
    pub(super) workload: &'a Workload,
    /// Servers.
    pub(super) lineup: &'a Lineup,
    /// Events, in the order of their times.
    pub(super) events: &'a [Event],
    /// How long connections are remembered.
    pub(super) memory: Memory,
    /// Number of spans.
    pub(super) spans: usize,
}

impl Plan<'_> {
    /// The end of a span, in microseconds.
    pub(super) fn span_end(&self, span: usize) -> u64 {
        (u128::from(self.workload.length_us) * (span as u128 + 1) / self.spans as u128) as u64
    }

    /// Events of one time, together.
    pub(super) fn moments(&self) -> impl Iterator<Item = &[Event]> {
        self.events.chunk_by(|one, other| one.at_us == other.at_us)
    }

    /// The service's key.
    pub(super) fn key(&self) -> ServiceKey {
        ServiceKey::Address(self.workload.protocol, self.workload.service)
    }
}

/// The last packet of a connection: when and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ending {
    at_us: u64,
    server: u16,
    epoch: u32,
    /// It goes by FIN, by RST, or is forgotten at once.
    kind: u8,
}

const FORGET: u8 = 2;

struct Course<'a> {
    plan: &'a Plan<'a>,
    stage: Stage<'a>,
    is_udp: bool,
    endings: BinaryHeap<Reverse<Ending>>,
    /// Inactive connections until they are forgotten: after a FIN (and of UDP), after a RST.
    idle: [VecDeque<Ending>; 2],
    idle_us: [u64; 2],
    /// Connections alive, by server.
    alive: Vec<u32>,
    /// Where each client was last: the server's number and 1, or 0.
    last: Vec<u16>,
    span: usize,
    stretched: f64,
    watch: Option<Watch>,
    /// When the plugin is looked after next; never without one.
    tick_us: u64,
    /// Connections by server when rates were sampled last.
    sampled: Vec<u64>,
    outcome: Outcome,
}

/// Clients that come again after a moment.
struct Watch {
    moment: usize,
    until_us: u64,
    /// Where each was before the moment; 0 once it came again.
    before: Vec<u16>,
}

/// Runs one scheduler.
///
/// # Errors
/// It is a plugin, and refuses its options or its servers.
pub(super) fn run(plan: &Plan<'_>, contestant: &Contestant) -> Result<(Outcome, Measured), Fault> {
    let begin = Instant::now();
    let mut course = Course::new(plan, contestant)?;
    let mut moments = plan.moments().peekable();
    for (number, arrival) in plan.workload.arrivals.iter().enumerate() {
        // What was there before the beginning was there before its events, too.
        if number >= plan.workload.carried {
            while let Some(events) = moments.next_if(|events| events[0].at_us <= arrival.at_us) {
                course.happen(events)?;
            }
        }
        course.advance(arrival.at_us);
        course.arrive(arrival, number < plan.workload.carried);
    }
    for events in moments {
        course.happen(events)?;
    }
    course.advance(plan.workload.length_us);
    course.outcome.plugin = course.stage.status().as_ref().and_then(Record::of);
    let cost = measure::cost(&course.stage, plan.workload, START_MS + plan.workload.length_us / 1000);
    let outcome = course.finish();
    let measured = Measured { label: outcome.label.clone(), pick: cost, seconds: begin.elapsed().as_secs_f64() };
    Ok((outcome, measured))
}

impl<'a> Course<'a> {
    fn new(plan: &'a Plan<'a>, contestant: &'a Contestant) -> Result<Self, Fault> {
        let servers = plan.lineup.servers().len();
        let is_udp = plan.workload.protocol == Protocol::UDP;
        let empty = || vec![0; plan.spans];
        let by_server = || vec![empty(); servers];
        let series = Series {
            alive: by_server(),
            begun: by_server(),
            refused: empty(),
            returned: empty(),
            elsewhere: empty(),
            ..Series::default()
        };
        let outcome = Outcome {
            label: contestant.label().to_owned(),
            scheduler: contestant.name(),
            options: contestant.options(),
            plugin: None,
            served: 0,
            refused: 0,
            broken: 0,
            slowdown: 1.0,
            returned: 0,
            elsewhere: 0,
            by_server: vec![0; servers],
            bytes_by_server: vec![0; servers],
            balance: Balance::default(),
            moments: Vec::new(),
            series,
        };
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let closed = if is_udp { plan.memory.udp_s } else { plan.memory.closed_s };
        let stage = Stage::new(contestant, plan.lineup, plan.key())?;
        let tick_us = if stage.is_plugin() { 0 } else { u64::MAX };
        Ok(Course {
            plan,
            stage,
            is_udp,
            endings: BinaryHeap::new(),
            idle: Default::default(),
            idle_us: [micros(closed), micros(plan.memory.reset_s)],
            alive: vec![0; servers],
            last: vec![0; plan.workload.clients.len()],
            span: 0,
            stretched: 0.0,
            watch: None,
            tick_us,
            sampled: vec![0; servers],
            outcome,
        })
    }

    /// Everything happens that is due until a time.
    fn advance(&mut self, to_us: u64) {
        loop {
            let ending = self.endings.peek().map_or(u64::MAX, |Reverse(ending)| ending.at_us);
            let [closed, reset] = [0, 1].map(|kind: usize| self.idle[kind].front().map_or(u64::MAX, |idle| idle.at_us));
            let span = if self.span < self.plan.spans { self.plan.span_end(self.span) } else { u64::MAX };
            let next = ending.min(closed).min(reset).min(span).min(self.tick_us);
            if next > to_us || next == u64::MAX {
                return;
            }
            if next == ending {
                self.end();
            } else if next == closed {
                self.forget(0);
            } else if next == reset {
                self.forget(1);
            } else if next == span {
                self.close_span();
            } else {
                self.tick();
            }
        }
    }

    /// The plugin is looked after.
    fn tick(&mut self) {
        self.stage.tick(START_MS + self.tick_us / 1000);
        if self.tick_us.is_multiple_of(TICK_US * TICKS) {
            let now = self.outcome.by_server.clone();
            let before = std::mem::replace(&mut self.sampled, now);
            let begun: Vec<u64> = self.sampled.iter().zip(before).map(|(now, before)| now - before).collect();
            self.stage.sample(&begun, (TICK_US * TICKS) as f64 / 1e6);
        }
        self.tick_us += TICK_US;
    }

    /// The next connection has its last packet.
    fn end(&mut self) {
        let Some(Reverse(ending)) = self.endings.pop() else { return };
        let server = usize::from(ending.server);
        if self.stage.epoch(server) != ending.epoch {
            return;
        }
        self.alive[server] -= 1;
        if ending.kind == FORGET {
            return self.stage.close(server, !self.is_udp);
        }
        if !self.is_udp {
            self.stage.quiet(server);
        }
        let kind = usize::from(ending.kind);
        self.idle[kind].push_back(Ending { at_us: ending.at_us.saturating_add(self.idle_us[kind]), ..ending });
    }

    /// The next inactive connection is forgotten.
    fn forget(&mut self, kind: usize) {
        let Some(idle) = self.idle[kind].pop_front() else { return };
        if self.stage.epoch(idle.server.into()) == idle.epoch {
            self.stage.close(idle.server.into(), false);
        }
    }

    fn close_span(&mut self) {
        let series = &mut self.outcome.series;
        for (alive, &now) in series.alive.iter_mut().zip(&self.alive) {
            alive[self.span] = now;
        }
        let loads = self.alive.iter().enumerate().map(|(server, &alive)| (alive, self.stage.weight(server)));
        let even = Evenness::of(loads);
        series.ratio.push(even.map(|even| even.ratio));
        series.jain.push(even.map(|even| even.jain));
        series.variation.push(even.map(|even| even.variation));
        self.span += 1;
    }

    /// Events of one time happen.
    fn happen(&mut self, events: &[Event]) -> Result<(), Fault> {
        let at_us = events[0].at_us;
        self.advance(at_us);
        let probes = probe::rehearse(&self.stage, events, self.plan.workload, START_MS + at_us / 1000)?;
        for event in events {
            let before = self.stage.epoch(event.server);
            self.stage.apply(event);
            if self.stage.epoch(event.server) != before {
                self.outcome.broken += u64::from(self.alive[event.server]);
                self.alive[event.server] = 0;
            }
        }
        let watched_us = self.plan.workload.length_us / WATCHED;
        let usual = self.usual(at_us.saturating_sub(watched_us), at_us);
        let moment = self.outcome.moments.len();
        self.outcome.moments.push(Reaction { probes, returned: 0, elsewhere: 0, usual });
        self.watch = Some(Watch { moment, until_us: at_us + watched_us, before: self.last.clone() });
        Ok(())
    }

    /// The share of returning connections that met another server in the spans between two times.
    fn usual(&self, from_us: u64, to_us: u64) -> Option<f64> {
        let within = |span: &usize| {
            let begin = span.checked_sub(1).map_or(0, |before| self.plan.span_end(before));
            begin >= from_us && self.plan.span_end(*span) <= to_us
        };
        let series = &self.outcome.series;
        let (mut returned, mut elsewhere) = (0u64, 0u64);
        for span in (0..self.plan.spans).filter(within) {
            returned += u64::from(series.returned[span]);
            elsewhere += u64::from(series.elsewhere[span]);
        }
        (returned > 0).then(|| elsewhere as f64 / returned as f64)
    }

    /// A new connection comes.
    fn arrive(&mut self, arrival: &Arrival, carried: bool) {
        let span = self.span.min(self.plan.spans - 1);
        let request = self.stage.request(&self.plan.workload.flow(arrival), START_MS + arrival.at_us / 1000);
        let Some(server) = self.stage.pick(&request) else {
            self.outcome.refused += 1;
            self.outcome.series.refused[span] += 1;
            return self.miss(arrival, span);
        };
        self.stage.open(server, !self.is_udp);
        self.outcome.served += 1;
        self.outcome.by_server[server] += 1;
        self.outcome.bytes_by_server[server] += arrival.bytes;
        if !carried {
            self.outcome.series.begun[server][span] += 1;
        }
        self.remember(arrival, server, span);

        let stretch = self.stage.stretch(server, self.alive[server]);
        self.alive[server] += 1;
        self.stretched += stretch;
        let (kind, extra_s) = match arrival.end {
            End::Closed | End::Silent => (0, 0.0),
            End::Reset => (1, 0.0),
            End::HalfOpen => (FORGET, self.plan.memory.half_open_s),
            End::Open => return,
        };
        let life_us = (arrival.life_us as f64 * stretch + extra_s * 1e6) as u64;
        let (at_us, epoch) = (arrival.at_us.saturating_add(life_us), self.stage.epoch(server));
        self.endings.push(Reverse(Ending { at_us, server: server as u16, epoch, kind }));
    }

    /// Notes where a client is, and whether it was elsewhere before.
    fn remember(&mut self, arrival: &Arrival, server: usize, span: usize) {
        let here = server as u16 + 1;
        let before = std::mem::replace(&mut self.last[arrival.client as usize], here);
        self.compare(arrival, before, here, span);
    }

    /// A client found no server: that is another one than before, too, but the next time counts from the last server.
    fn miss(&mut self, arrival: &Arrival, span: usize) {
        self.compare(arrival, self.last[arrival.client as usize], 0, span);
    }

    fn compare(&mut self, arrival: &Arrival, before: u16, here: u16, span: usize) {
        if before != 0 {
            self.outcome.returned += 1;
            self.outcome.series.returned[span] += 1;
            self.outcome.elsewhere += u64::from(before != here);
            self.outcome.series.elsewhere[span] += u32::from(before != here);
        }
        if let Some(watch) = &mut self.watch
            && arrival.at_us <= watch.until_us
        {
            let before = std::mem::take(&mut watch.before[arrival.client as usize]);
            if before != 0 {
                let reaction = &mut self.outcome.moments[watch.moment];
                reaction.returned += 1;
                reaction.elsewhere += u64::from(before != here);
            }
        }
    }

    fn finish(mut self) -> Outcome {
        let outcome = &mut self.outcome;
        if outcome.served > 0 {
            outcome.slowdown = self.stretched / outcome.served as f64;
        }
        let mean = |values: &[Option<f64>]| {
            let known: Vec<f64> = values.iter().flatten().copied().collect();
            if known.is_empty() { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 }
        };
        let series = &outcome.series;
        outcome.balance = Balance {
            ratio_mean: mean(&series.ratio),
            ratio_worst: series.ratio.iter().flatten().copied().fold(0.0, f64::max),
            jain_mean: mean(&series.jain),
            variation_mean: mean(&series.variation),
        };
        self.outcome
    }
}
