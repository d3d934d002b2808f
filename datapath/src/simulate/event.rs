//! What happens to servers during a simulation, from a file of plain lines: `TIME VERB SERVER [VALUE]`.
//!
//! Plain lines and not TOML: an event is one short line, is written by hand, and sorts, diffs and comments out as a line.
//! Invariant: the events stand in the order of their times (of equal times in the file's order), each is possible when
//! it comes, and every server that is named has its number in the lineup. What an event does to a director is the
//! business of `stage.rs`.

use std::path::Path;

use crate::config::problem::{did_you_mean, quote};
use crate::config::rules::THRESHOLD_MAX;

use super::error::SimulateError;
use super::lineup::{Lineup, Server, read_speed, read_weight};
use super::quantity::Unit;

/// Most events of one simulation.
pub(super) const MOST: usize = 1000;

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// It fails: weight 0, as a health checker sets it, and its connections break.
    Down,
    /// It is well again: it has its weight back.
    Up,
    /// An operator sets its weight.
    Weight(i32),
    /// It is added, with this weight.
    Add(i32),
    /// It is removed; its connections go on.
    Remove,
    /// Its thresholds are set, upper and lower.
    Threshold(u32, u32),
    /// It becomes faster or slower.
    Speed(f64),
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    /// When, in microseconds since the beginning.
    pub(super) at_us: u64,
    /// Whom it happens to.
    pub(super) server: usize,
    /// What happens.
    pub(super) change: Change,
}

impl Event {
    /// The event in words, as the file has them.
    pub(super) fn words(&self, lineup: &Lineup) -> String {
        let server = lineup.servers()[self.server].address;
        match self.change {
            Change::Down => format!("down {server}"),
            Change::Up => format!("up {server}"),
            Change::Weight(weight) => format!("weight {server} {weight}"),
            Change::Add(weight) => format!("add {server} {weight}"),
            Change::Remove => format!("remove {server}"),
            Change::Threshold(upper, lower) => format!("threshold {server} {upper}/{lower}"),
            Change::Speed(speed) => format!("speed {server} {speed}"),
        }
    }
}

/// The weights by which servers take new connections, event by event.
#[derive(Debug)]
pub(super) struct Weights(Vec<(bool, bool, i32)>);

impl Weights {
    /// As they are at the beginning.
    pub(super) fn new(lineup: &Lineup) -> Self {
        Weights(lineup.servers().iter().map(|server| (server.present, false, server.weight)).collect())
    }

    /// An event happens.
    pub(super) fn apply(&mut self, event: &Event) {
        let (present, down, weight) = &mut self.0[event.server];
        match event.change {
            Change::Down => *down = true,
            Change::Up => *down = false,
            Change::Weight(new) => *weight = new,
            Change::Add(new) => (*present, *down, *weight) = (true, false, new),
            Change::Remove => *present = false,
            Change::Threshold(..) | Change::Speed(_) => {}
        }
    }

    /// By the servers' numbers; 0 of those that take none.
    pub(super) fn now(&self) -> Vec<i32> {
        self.0.iter().map(|&(present, down, weight)| if present && !down { weight } else { 0 }).collect()
    }
}

const VERBS: [&str; 7] = ["down", "up", "weight", "add", "remove", "threshold", "speed"];

/// Reads a file of events. Servers that it adds join the lineup. `length_us` is how long the simulation is.
///
/// # Errors
/// A line is wrong: told with its number.
pub(super) fn read(text: &str, path: &Path, length_us: u64, lineup: &mut Lineup) -> Result<Vec<Event>, SimulateError> {
    let wrong = |line: usize, what: String| SimulateError::Events { path: path.to_owned(), line, what };
    let mut events = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        if events.len() == MOST {
            return Err(wrong(index + 1, format!("there may be {MOST} events at most")));
        }
        let event = read_event(&words, length_us, lineup).map_err(|what| wrong(index + 1, what))?;
        events.push((index + 1, event));
    }
    events.sort_by_key(|(_, event)| event.at_us);
    let mut standing: Vec<(bool, bool)> = lineup.servers().iter().map(|server| (server.present, false)).collect();
    for (line, event) in &events {
        follow(&mut standing[event.server], event, lineup).map_err(|what| wrong(*line, what))?;
    }
    Ok(events.into_iter().map(|(_, event)| event).collect())
}

fn read_event(words: &[&str], length_us: u64, lineup: &mut Lineup) -> Result<Event, String> {
    let [time, verb, server, values @ ..] = words else {
        return Err("an event is TIME VERB SERVER [VALUE], as in: 30s down 10.0.0.1:80".to_owned());
    };
    let seconds = Unit::Time.read(time)?;
    let at_us = (seconds * 1e6) as u64;
    if at_us > length_us {
        return Err(format!("{time} is after the end: the simulation is {:.3} s long", length_us as f64 / 1e6));
    }
    if !VERBS.contains(verb) {
        let near = did_you_mean(verb, &VERBS);
        return Err(format!("nothing called {} can happen{near}: {} can", quote(verb), VERBS.join(", ")));
    }
    let number = match lineup.find(server)? {
        Some(number) => number,
        None if *verb == "add" => {
            let address = server.parse();
            let address =
                address.map_err(|_| format!("{} needs a port to be added, as in 10.0.0.9:80", quote(server)))?;
            lineup.push(Server { present: false, ..Server::new(address) })?
        }
        None => return Err(format!("there is no server {server}: it must stand in --servers, or be added")),
    };
    let one = |what: &str| match values {
        [value] => Ok(*value),
        _ => Err(format!("{verb} takes {what}")),
    };
    let change = match *verb {
        "weight" => Change::Weight(read_weight(one("one value: weight 10.0.0.1:80 3")?)?),
        "add" if values.is_empty() => Change::Add(1),
        "add" => Change::Add(read_weight(one("a weight at most: add 10.0.0.9:80 3")?)?),
        "threshold" => threshold(one("one value: threshold 10.0.0.1:80 100, or 100/80")?)?,
        "speed" => {
            let value = one("one value: speed 10.0.0.1:80 0.5")?;
            Change::Speed(read_speed(value).ok_or_else(|| format!("{} is no speed: 0.001 to 1000", quote(value)))?)
        }
        _ if !values.is_empty() => return Err(format!("{verb} takes no value, and {} stands there", quote(values[0]))),
        "down" => Change::Down,
        "up" => Change::Up,
        _ => Change::Remove,
    };
    Ok(Event { at_us, server: number, change })
}

fn threshold(value: &str) -> Result<Change, String> {
    let (upper, lower) = value.split_once('/').unwrap_or((value, "0"));
    let read = |word: &str| word.parse().ok().filter(|&value: &u32| i64::from(value) <= THRESHOLD_MAX as i64);
    match (read(upper), read(lower)) {
        (Some(upper), Some(lower)) if upper == 0 || lower <= upper => Ok(Change::Threshold(upper, lower)),
        _ => Err(format!("{} are no thresholds: UPPER, or UPPER/LOWER with the lower one not above", quote(value))),
    }
}

/// Is the event possible after those before it? Follows who is in the list, and who is down.
fn follow((present, down): &mut (bool, bool), event: &Event, lineup: &Lineup) -> Result<(), String> {
    let server = lineup.servers()[event.server].address;
    let no = |what: &str| Err(format!("{server} {what} at that time"));
    match event.change {
        Change::Add(_) if *present => return no("is there"),
        Change::Add(_) => (*present, *down) = (true, false),
        _ if !*present => return no("is not there"),
        Change::Remove => *present = false,
        Change::Down if *down => return no("is down"),
        Change::Down => *down = true,
        Change::Up if !*down => return no("is not down"),
        Change::Up => *down = false,
        Change::Weight(_) | Change::Threshold(..) | Change::Speed(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Result<(Vec<Event>, Lineup), String> {
        let mut lineup = Lineup::read("3").unwrap();
        let events = read(text, Path::new("events"), 60_000_000, &mut lineup).map_err(|error| error.to_string())?;
        Ok((events, lineup))
    }

    /// Events come in the order of their times, and an added server gets a number.
    #[test]
    fn events_are_read_in_order() {
        let (events, lineup) =
            events("# a day\n40s up 10.0.0.1\n20s down 10.0.0.1:80 # broken\n\n30s add 10.0.0.9:80 5\n").unwrap();
        let changes: Vec<_> =
            events.iter().map(|event| (event.at_us / 1_000_000, event.server, event.change)).collect();
        assert_eq!(changes, [(20, 0, Change::Down), (30, 3, Change::Add(5)), (40, 0, Change::Up)]);
        assert!(!lineup.servers()[3].present);
        assert_eq!(events[1].words(&lineup), "add 10.0.0.9:80 5");
    }

    /// A mistake is told with its line, also one that only the events before it make a mistake.
    #[test]
    fn mistakes_have_line_numbers() {
        for (text, told) in [
            ("\n5s fall 10.0.0.1", "line 2: nothing called \"fall\""),
            ("5s down", "line 1: an event is"),
            ("70s down 10.0.0.1", "line 1: 70s is after the end"),
            ("5s weight 10.0.0.1", "line 1: weight takes"),
            ("5s down 10.0.0.1 now", "line 1: down takes no value"),
            ("5s up 10.0.0.1", "line 1: 10.0.0.1:80 is not down"),
            ("9s up 10.0.0.1\n5s down 10.0.0.1\n7s up 10.0.0.1", "line 1: 10.0.0.1:80 is not down"),
            ("5s add 10.0.0.1:80", "line 1: 10.0.0.1:80 is there"),
            ("5s remove 10.0.0.8:80", "line 1: there is no server"),
            ("5s threshold 10.0.0.1 5/6", "line 1: \"5/6\" are no thresholds"),
            ("x down 10.0.0.1", "line 1: \"x\" is not a time"),
        ] {
            let error = events(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
