//! The servers of a simulation: who they are, what weights they begin with, and how fast they are.
//!
//! A server's number is its place here, also while it is in no list: servers that an event adds later stand behind those
//! that are there from the beginning. Invariant: no address stands here twice, and there is at least one server.
//!
//! How fast a server is: it takes `1 / speed` times as long for a connection as the workload says, and once more
//! `active / capacity` times as long if it has more active connections than its capacity when the connection begins. So
//! it is told at the beginning of a connection how long it will last: simple, and enough to tell a scheduler that looks
//! at connections from one that does not. Without these words all servers are alike.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use xvs_sdk::abi::TAGS_MAX;

use crate::config::desired::ServiceState;
use crate::config::problem::{did_you_mean, quote};
use crate::config::rules::{THRESHOLD_MAX, WEIGHT_MAX};

use super::quantity::number;

/// Most servers of one simulation: more make no report that can be read.
pub(super) const MOST: usize = 1024;

/// A real server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Server {
    /// RIP and port.
    pub(super) address: SocketAddr,
    /// Weight to begin with; 0 quiesces.
    pub(super) weight: i32,
    /// Upper connection threshold, 0 for none.
    pub(super) upper: u32,
    /// Lower connection threshold, 0 for three quarters of the upper one.
    pub(super) lower: u32,
    /// Half of it doubles the time that a connection lasts; above 0.
    pub(super) speed: f64,
    /// Active connections up to which it is not slower, 0 for any number.
    pub(super) capacity: u32,
    /// Its tags as plugins see them: `rack=7,zone=a`, at most [`TAGS_MAX`] bytes.
    pub(super) tags: String,
    /// Is it in the list from the beginning?
    pub(super) present: bool,
}

impl Server {
    /// A server like any other.
    pub(super) fn new(address: SocketAddr) -> Self {
        Server { address, weight: 1, upper: 0, lower: 0, speed: 1.0, capacity: 0, tags: String::new(), present: true }
    }
}

/// All servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lineup(Vec<Server>);

impl Lineup {
    /// Reads `--servers`: a number, or `ADDRESS:PORT[=WEIGHT][/NAME=VALUE...],...`.
    ///
    /// # Errors
    /// The words are wrong: a sentence.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
            let count = count.ok_or_else(|| format!("--servers {text}: there may be 1 to {MOST} servers"))?;
            let address = |n: usize| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + n as u32)), 80);
            return Ok(Lineup((0..count).map(|n| Server::new(address(n))).collect()));
        }
        let mut lineup = Lineup::default();
        for word in text.split(',') {
            let server = read_server(word.trim()).map_err(|what| format!("--servers: {what}"))?;
            lineup.push(server).map_err(|what| format!("--servers: {what}"))?;
        }
        Ok(lineup)
    }

    /// The servers of a service of a configuration, in the file's order.
    ///
    /// # Errors
    /// It has none, or too many.
    pub(super) fn of_service(state: &ServiceState) -> Result<Self, String> {
        let mut lineup = Lineup::default();
        for spec in &state.servers {
            let weight = i32::try_from(spec.weight).unwrap_or(i32::MAX);
            let (upper, lower) = (spec.upper, spec.lower);
            let tags = spec.tags.as_ref().map(|tags| tags.as_str().to_owned()).unwrap_or_default();
            lineup.push(Server { weight, upper, lower, tags, ..Server::new(spec.address) })?;
        }
        if lineup.0.is_empty() { Err("the service has no servers".to_owned()) } else { Ok(lineup) }
    }

    /// Adds a server; its number comes back.
    ///
    /// # Errors
    /// It is there, or there are too many.
    pub(super) fn push(&mut self, server: Server) -> Result<usize, String> {
        if self.0.iter().any(|other| other.address == server.address) {
            return Err(format!("{} stands there twice", server.address));
        }
        if self.0.len() == MOST {
            return Err(format!("there may be {MOST} servers at most"));
        }
        self.0.push(server);
        Ok(self.0.len() - 1)
    }

    /// The number of a server by its address; the port may be left out where the address alone tells.
    ///
    /// # Errors
    /// It is no address, nobody's or not only one server's.
    pub(super) fn find(&self, word: &str) -> Result<Option<usize>, String> {
        if let Ok(address) = word.parse::<SocketAddr>() {
            return Ok(self.0.iter().position(|server| server.address == address));
        }
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        let ip: IpAddr =
            bare.parse().map_err(|_| format!("{} is no server's address, as in 10.0.0.1:80", quote(word)))?;
        let mut found = self.0.iter().enumerate().filter(|(_, server)| server.address.ip() == ip);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(format!("{word} has several ports: say which, as in 10.0.0.1:80")),
            (one, _) => Ok(one.map(|(number, _)| number)),
        }
    }

    /// The servers by their numbers.
    pub(super) fn servers(&self) -> &[Server] {
        &self.0
    }

    /// Is every server like any other in how long it takes?
    pub(super) fn is_uniform(&self) -> bool {
        self.0.iter().all(|server| server.speed == 1.0 && server.capacity == 0)
    }
}

fn read_server(word: &str) -> Result<Server, String> {
    let mut parts = word.split('/');
    let head = parts.next().unwrap_or_default();
    let (address, weight) = head.split_once('=').map_or((head, None), |(address, weight)| (address, Some(weight)));
    let address: SocketAddr =
        address.parse().map_err(|_| format!("{} is no address with a port, as in 10.0.0.1:80", quote(address)))?;
    let mut server = Server::new(address);
    if let Some(weight) = weight {
        server.weight = read_weight(weight)?;
    }
    let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let wrong = |right: &str| format!("{address}: {} must be {right}", quote(name));
        if let Some(tag) = name.strip_prefix("tag.") {
            let is_plain = |text: &str| !text.is_empty() && !text.contains([',', '=']);
            if !is_plain(tag) || !is_plain(value) {
                return Err(wrong("tag.NAME=VALUE, as in tag.zone=a"));
            }
            tags.insert(tag, value);
            continue;
        }
        match name {
            "speed" => {
                server.speed = read_speed(value).ok_or_else(|| wrong("above 0 and at most 1000, as in speed=0.5"))?
            }
            "capacity" | "upper" | "lower" => {
                let value = value.parse().ok().filter(|&value: &u32| u64::from(value) <= THRESHOLD_MAX as u64);
                let value = value.ok_or_else(|| wrong("a number of connections, as in capacity=200"))?;
                match name {
                    "capacity" => server.capacity = value,
                    "upper" => server.upper = value,
                    _ => server.lower = value,
                }
            }
            _ => {
                let known = ["speed", "capacity", "upper", "lower", "tag.zone"];
                let near = did_you_mean(name, &known);
                return Err(format!(
                    "{address} has no {}{near}: speed, capacity, upper, lower and tag.NAME are known",
                    quote(name)
                ));
            }
        }
    }
    server.tags = tags.iter().map(|(tag, value)| format!("{tag}={value}")).collect::<Vec<_>>().join(",");
    if server.tags.len() > TAGS_MAX {
        return Err(format!("{address}: its tags have {} bytes; at most {TAGS_MAX} are told", server.tags.len()));
    }
    if server.upper != 0 && server.lower > server.upper {
        return Err(format!("{address}: lower={} is above upper={}", server.lower, server.upper));
    }
    Ok(server)
}

/// A weight, as ipvsadm takes it.
///
/// # Errors
/// It is none: a sentence.
pub(super) fn read_weight(word: &str) -> Result<i32, String> {
    let weight = word.parse().ok().filter(|&weight: &i32| weight >= 0 && i64::from(weight) <= WEIGHT_MAX);
    weight.ok_or_else(|| format!("{} is no weight: 0 to {WEIGHT_MAX}", quote(word)))
}

/// A speed, if it is one.
pub(super) fn read_speed(word: &str) -> Option<f64> {
    number(word).filter(|speed| (0.001..=1000.0).contains(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of the handbook are read as they are meant.
    #[test]
    fn servers_are_read() {
        let lineup = Lineup::read("10.0.0.1:80=3/speed=0.5/upper=100, 10.0.0.2:80").unwrap();
        let first = &lineup.servers()[0];
        assert_eq!((first.weight, first.speed, first.upper), (3, 0.5, 100));
        assert_eq!(lineup.servers()[1].weight, 1);
        assert_eq!(Lineup::read("300").unwrap().servers()[299].address.to_string(), "10.0.1.44:80");
        assert_eq!(lineup.find("10.0.0.2"), Ok(Some(1)));
        assert_eq!(lineup.find("10.0.0.9:80"), Ok(None));
    }

    /// Mistakes are sentences that name the server.
    #[test]
    fn mistakes_are_sentences() {
        for (wrong, word) in [
            ("0", "1 to"),
            ("", "no address"),
            ("10.0.0.1", "with a port"),
            ("10.0.0.1:80=-1", "weight"),
            ("10.0.0.1:80,10.0.0.1:80", "twice"),
            ("10.0.0.1:80/sped=2", "did you mean"),
            ("10.0.0.1:80/speed=0", "above 0"),
            ("10.0.0.1:80/upper=1/lower=2", "above upper"),
        ] {
            let told = Lineup::read(wrong).unwrap_err();
            assert!(told.contains(word), "{wrong}: {told}");
        }
    }
}
