//! A rehearsed director on which a recording is played: what was typed, and who talked to whom.
//!
//! Invariant: every command goes through the program's own grammar, every packet through the engine; what is read off
//! is what left the director. The recordings' director saw both directions of NAT connections, and only the clients'
//! of the others.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Icmpv4Type, PacketBuilder, icmpv4};
use xvs::control::protocol::{
    Action, Answer, Assignment, Family, MarkRule, Prefix, Protocol, Server, Service, ServiceId,
};
use xvs::ipvsadm::proc::File;
use xvs::ipvsadm::rehearsed::{Outcome, command};
use xvs::rehearsal::segment::flags::{ACK, FIN, RST, SYN};
use xvs::rehearsal::{Fate, OWN_MAC, Plan, Rehearsal, Segment};
use xvs_engine::engine::Verdict;
use xvs_engine::flow::Flow;
use xvs_engine::real::{Generation, Method};

use super::names::Recorded;
use super::recording::{Listed, Talk, Wrong};

/// The stage.
pub(crate) struct Stage {
    pub(crate) director: Rehearsal,
}

/// A router behind the director.
const ROUTER: [u8; 4] = [10, 1, 0, 1];
/// Servers of a recording at most.
const SERVERS: usize = 4096;

impl Stage {
    /// An empty one with room for so many connections.
    pub(crate) fn new(generation: Generation, connections: u32) -> Self {
        // Two workers, to which packets go in turn: a service's choices must not depend on who makes them.
        Stage { director: Rehearsal::new(&Plan { connections, servers: SERVERS, workers: 2, generation }) }
    }

    /// Runs a command of ipvsadm.
    pub(crate) fn ipvsadm(&mut self, line: &str, stdin: &str) -> Outcome {
        command(&mut self.director, line, stdin, &Recorded)
    }

    /// What a file below `/proc/net` would say.
    pub(crate) fn proc(&mut self, file: &str) -> Result<Outcome, Wrong> {
        let file = File::by_name(file).ok_or_else(|| format!("{file}: a file that `xvs proc` does not have"))?;
        let answer = self.director.act(file.question()).map_err(|refusal| refusal.message)?;
        let stdout = file.text(&answer).ok_or("the answer is to another question")?;
        Ok(Outcome { status: 0, stdout, stderr: String::new() })
    }

    /// Carries out what was typed in a shell.
    pub(crate) fn typed(&mut self, line: &str) -> Result<(), Wrong> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied() {
            Some("ipvsadm") => match self.ipvsadm(line, "") {
                Outcome { status: 0, .. } => Ok(()),
                Outcome { status, stderr, .. } => Err(format!("`{line}` ended with {status}: {}", stderr.trim())),
            },
            Some("sysctl") => {
                let assigned = words[1..].iter().filter_map(|word| word.trim_matches('"').split_once('='));
                let mut known = false;
                for (name, value) in assigned {
                    let name = name.strip_prefix("net.ipv4.vs.").ok_or_else(|| format!("`{line}`: not IPVS's"))?;
                    self.set(name, value)?;
                    known = true;
                }
                if known { Ok(()) } else { Err(format!("`{line}` sets nothing")) }
            }
            Some(word) if word.contains("tables") => self.marks(&words),
            _ => Err(format!("`{line}`: a command that this judge does not know")),
        }
    }

    /// Is there such a setting? A kernel later than the director may have others.
    pub(crate) fn knows(&mut self, name: &str) -> bool {
        self.director.act(Action::Settings(vec![name.to_owned()])).is_ok()
    }

    /// Sets one of `net.ipv4.vs`.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        let assignment = Assignment { name: name.to_owned(), value: value.to_owned() };
        self.director.act(Action::Set(vec![assignment])).map(drop).map_err(|refusal| refusal.message)
    }

    /// `iptables ... -d ADDRESS [-p PROTOCOL --dport PORT] -j MARK --set-mark MARK`
    fn marks(&mut self, words: &[&str]) -> Result<(), Wrong> {
        let line = words.join(" ");
        let behind = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1));
        let known = ["-t", "mangle", "-A", "PREROUTING", "-d", "-p", "--dport", "-j", "MARK", "--set-mark"];
        let unknown = words[1..].iter().find(|word| word.starts_with('-') && !known.contains(word));
        if let Some(word) = unknown {
            return Err(format!("`{line}`: {word} is an option that this judge does not know"));
        }
        let wrong = |what: String| format!("`{line}`: {what}");
        let (destination, mark) = behind("-d").zip(behind("--set-mark")).ok_or_else(|| wrong("not a mark".into()))?;
        let protocol = match behind("-p").copied() {
            None => None,
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            Some(other) => return Err(wrong(format!("{other} is a protocol that this judge does not know"))),
        };
        let rule = MarkRule {
            mark: mark.parse().map_err(|_| wrong("no mark".into()))?,
            destination: destination.parse().map_err(&wrong)?,
            source: None,
            protocol,
            ports: behind("--dport").map(|ports| ports.replace(':', "-").parse().map_err(&wrong)).transpose()?,
        };
        self.mark(rule).map_err(wrong)
    }

    fn mark(&mut self, rule: MarkRule) -> Result<(), Wrong> {
        self.director.act(Action::AddMark { rule, first: false }).map(drop).map_err(|refusal| refusal.message)
    }

    /// Marks all packets to these addresses for the mark service of their family, if there is one.
    pub(crate) fn mark_all(&mut self, addresses: &[IpAddr]) -> Result<(), Wrong> {
        for family in [Family::Inet, Family::Inet6] {
            let marks: Vec<u32> = self
                .services()
                .iter()
                .filter_map(|service| match service.spec.id {
                    ServiceId::Mark { mark, family: own } if own == family => Some(mark),
                    _ => None,
                })
                .collect();
            match marks[..] {
                [] => {}
                [mark] => {
                    for address in addresses.iter().filter(|address| address.is_ipv4() == (family == Family::Inet)) {
                        let (destination, source, protocol, ports) = (Prefix::host(*address), None, None, None);
                        self.mark(MarkRule { mark, destination, source, protocol, ports })?;
                    }
                }
                _ => return Err("several mark services: nobody can tell which packets had which mark".to_owned()),
            }
        }
        Ok(())
    }

    /// The services.
    pub(crate) fn services(&mut self) -> Vec<Service> {
        match self.director.act(Action::Services(None)) {
            Ok(Answer::Services(services)) => services.services,
            other => panic!("services were asked for: {other:?}"),
        }
    }

    /// The service that a packet belongs to; without one, the only service.
    pub(crate) fn service(&mut self, talk: Option<&Talk>) -> Option<Service> {
        let services = self.services();
        let rank = |service: &Service| match (service.spec.id, talk) {
            (ServiceId::Mark { family, .. }, Some(talk)) => {
                u8::from((family == Family::Inet) == talk.virtual_address.is_ipv4())
            }
            (ServiceId::Address { address, .. }, Some(talk)) if address == talk.virtual_address => 3,
            (ServiceId::Address { address, .. }, Some(talk)) if address.ip() == talk.virtual_address.ip() => 2,
            _ => 0,
        };
        services.into_iter().rev().max_by_key(rank)
    }

    /// A segment or datagram of the client; gives the server that it went to, or none if it was refused.
    pub(crate) fn say(&mut self, talk: &Talk, flags: u8, payload: &[u8]) -> Result<Option<SocketAddr>, Wrong> {
        let Talk { protocol, client, virtual_address } = *talk;
        match self.director.send(&Segment { protocol, from: client, to: virtual_address, flags, payload }) {
            Fate::Server(server) => Ok(Some(server)),
            Fate::Refused => Ok(None),
            Fate::Dropped(reason) => Err(format!("dropped ({})", reason.name())),
            other => Err(format!("{other:?}")),
        }
    }

    /// A segment or datagram of a server, which must reach the client from the virtual address. Only NAT servers
    /// answer through the director.
    pub(crate) fn answer(&mut self, talk: &Talk, server: SocketAddr, flags: u8, payload: &[u8]) -> Result<(), Wrong> {
        if !self.is_nat(talk, server) {
            return Ok(());
        }
        let answer = Segment { protocol: talk.protocol, from: server, to: talk.client, flags, payload };
        match self.director.send(&answer) {
            Fate::Client { from, to } if (from, to) == (talk.virtual_address, talk.client) => Ok(()),
            other => Err(format!("the answer of {server}: {other:?}")),
        }
    }

    /// A router behind the director tells the client that a server cannot be reached, quoting the client's SYN.
    pub(crate) fn unreachable(&mut self, talk: &Talk, server: SocketAddr) -> Result<(), Wrong> {
        let quoted = Segment::tcp(talk.client, server, SYN).frame();
        let (IpAddr::V4(client), Some(quoted)) = (talk.client.ip(), quoted.get(14..)) else {
            return Err("only IPv4 is written down here".to_owned());
        };
        let host = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Host);
        let message = PacketBuilder::ethernet2([2; 6], OWN_MAC).ipv4(ROUTER, client.octets(), 64).icmpv4(host);
        let mut frame = Vec::new();
        message.write(&mut frame, quoted).map_err(|error| error.to_string())?;
        match self.director.forward(&frame) {
            (Verdict::Transmit(_), _) => Ok(()),
            (verdict, _) => Err(format!("the error about {server}: {verdict:?}")),
        }
    }

    fn is_nat(&mut self, talk: &Talk, server: SocketAddr) -> bool {
        let flow = Flow { protocol: talk.protocol, src: talk.client.into(), dst: talk.virtual_address.into() };
        let table = &self.director.shared().table;
        let found = table.lookup(&flow, table.hash(&flow));
        found.is_some_and(|(conn, _)| {
            conn.status().flags.method() == Method::Nat && SocketAddr::from(conn.server()) == server
        })
    }

    /// A UDP packet.
    pub(crate) fn packet(&mut self, talk: &Talk) -> Result<Option<SocketAddr>, Wrong> {
        self.say(talk, 0, b"hi")
    }

    /// A handshake.
    pub(crate) fn open(&mut self, talk: &Talk) -> Result<Option<SocketAddr>, Wrong> {
        let Some(server) = self.say(talk, SYN, b"")? else { return Ok(None) };
        self.answer(talk, server, SYN | ACK, b"")?;
        self.same(talk, server, ACK)?;
        Ok(Some(server))
    }

    /// FIN of the client, then of the server, and the last ACK.
    pub(crate) fn close(&mut self, talk: &Talk) -> Result<Option<SocketAddr>, Wrong> {
        let Some(server) = self.say(talk, FIN | ACK, b"")? else { return Ok(None) };
        self.answer(talk, server, FIN | ACK, b"")?;
        self.same(talk, server, ACK)?;
        Ok(Some(server))
    }

    /// RST of the client.
    pub(crate) fn reset(&mut self, talk: &Talk) -> Result<Option<SocketAddr>, Wrong> {
        self.say(talk, RST, b"")
    }

    fn same(&mut self, talk: &Talk, server: SocketAddr, flags: u8) -> Result<(), Wrong> {
        match self.say(talk, flags, b"")? {
            Some(other) if other == server => Ok(()),
            other => Err(format!("a connection of {server} went on to {other:?}")),
        }
    }
}

/// A server as rows list it.
pub(crate) fn listed(server: &Server) -> Listed {
    Listed {
        address: server.spec.address,
        weight: server.spec.weight,
        active: server.active,
        inactive: server.inactive,
    }
}
