//! The traffic behind the listings, from the log of whoever made it.
//!
//! The log has a line a connection: `('tcp', (VIP, port, CIP, port), {options}, 'result')`. What was sent is known from
//! it: a handshake, a request, a reply, a FIN of each side unless it was held; or so many datagrams with an answer each.
//! How long requests and replies were is computed from the recorded byte counts, and when they were sent from what was
//! left of the connections' time in the recorded connection table.
//!
//! Invariant: the log's result must be ours (the server that answered), else the traffic is not the recorded one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use xvs::rehearsal::segment::flags::{ACK, FIN, PSH, RST, SYN};
use xvs_engine::flow::Protocol;

use super::recording::{Talk, Wrong};
use super::script::Script;
use super::stage::Stage;
use super::table;

/// A connection of the log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) talk: Talk,
    hold: bool,
    datagrams: usize,
    result: String,
}

impl Line {
    fn is_silent(&self) -> bool {
        self.result.contains("timed out")
    }
}

/// Bytes that the parties said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    request: usize,
    reply: usize,
    question: usize,
    answer: usize,
}

/// What IP and TCP with timestamps take, and a SYN, over IPv4.
const SEGMENT: u64 = 52;
const SYNS: u64 = 60;
const DATAGRAM: u64 = 28;
/// IPv6 takes so much more.
const V6: u64 = 20;
/// A client that gets no answer to its SYN sends it again, this often before the log's client gave up.
const RETRIES: u64 = 3;

/// Reads a log.
pub(crate) fn log(text: &str) -> Result<Vec<Line>, Wrong> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| parse(line).ok_or_else(|| format!("no line of a traffic log: {line}")))
        .collect()
}

fn parse(line: &str) -> Option<Line> {
    let inner = line.trim().strip_prefix('(')?.strip_suffix(')')?;
    let (protocol, rest) = inner.split_once(", (")?;
    let (ends, rest) = rest.split_once("), {")?;
    let (options, result) = rest.split_once("}, ")?;
    let quoted = |text: &str| text.trim_matches(['\'', '"']).to_owned();
    let [vip, vport, cip, cport] = ends.split(", ").collect::<Vec<_>>()[..] else { return None };
    let end = |ip: &str, port: &str| Some(SocketAddr::new(quoted(ip).parse::<IpAddr>().ok()?, port.parse().ok()?));
    let option = |name: &str| options.split(", ").find_map(|option| option.strip_prefix(&format!("'{name}': ")));
    let protocol = match quoted(protocol).as_str() {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        _ => return None,
    };
    Some(Line {
        talk: Talk { protocol, client: end(cip, cport)?, virtual_address: end(vip, vport)? },
        hold: option("hold") == Some("True"),
        datagrams: option("n").map_or(Some(1), |n| n.parse().ok())?,
        result: quoted(result),
    })
}

/// The lengths that make the recorded counters of the log's connections: `ipvsadm -Ln --stats --exact`.
pub(crate) fn lengths(log: &[Line], stats: &str) -> Result<Lengths, Wrong> {
    let mut lengths = Lengths::default();
    let counters = table::counters(stats);
    for (label, [_, in_packets, out_packets, in_bytes, out_bytes]) in counters {
        let of = |line: &&Line| {
            let protocol = if line.talk.protocol == Protocol::UDP { "UDP" } else { "TCP" };
            label == format!("{protocol} {}", line.talk.virtual_address)
        };
        let lines: Vec<&Line> = log.iter().filter(of).collect();
        let Some(first) = lines.first() else { continue };
        let ip = if first.talk.client.is_ipv4() { 0 } else { V6 };
        let (all, closed) = (lines.len() as u64, lines.iter().filter(|line| !line.hold).count() as u64);
        if first.talk.protocol == Protocol::UDP {
            lengths.question = (in_bytes / in_packets.max(1)).saturating_sub(DATAGRAM + ip) as usize;
            if let Some(each) = out_bytes.checked_div(out_packets) {
                lengths.answer = each.saturating_sub(DATAGRAM + ip) as usize;
            }
        } else if in_packets == 4 * all + 2 * closed {
            let overhead = all * (SYNS + 3 * SEGMENT) + 2 * closed * SEGMENT + in_packets * ip;
            lengths.request = (in_bytes.saturating_sub(overhead) / all) as usize;
            if out_packets == 3 * all + closed {
                let overhead = all * (SYNS + 2 * SEGMENT) + closed * SEGMENT + out_packets * ip;
                lengths.reply = (out_bytes.saturating_sub(overhead) / all) as usize;
            }
        }
    }
    if [lengths.request, lengths.reply, lengths.question, lengths.answer].contains(&0) {
        return Err(format!("the lengths of what was said cannot be computed: {lengths:?}"));
    }
    Ok(lengths)
}

/// The machines of a session by their addresses: `ip -n rs1 [-6] addr add 10.1.0.11/24 dev eth0`.
pub(crate) fn machines(script: &Script) -> HashMap<IpAddr, String> {
    let machine = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.windows(2).position(|pair| pair == ["addr", "add"])?;
        let address = words.get(at + 2)?.split('/').next()?.parse().ok()?;
        let name = words.iter().position(|word| *word == "-n").and_then(|n| words.get(n + 1))?;
        (words.first() == Some(&"ip") && words.contains(&"eth0")).then(|| (address, (*name).to_owned()))
    };
    script.machine().iter().filter_map(|(_, line)| machine(line)).collect()
}

/// Plays the log. `ago` tells, for the client's end of a connection, how many seconds ago its last packet came when the
/// connection table was recorded; that moment is the end.
pub(crate) fn play(
    stage: &mut Stage,
    log: &[Line],
    lengths: Lengths,
    ago: &HashMap<SocketAddr, u64>,
    machines: &HashMap<IpAddr, String>,
) -> Result<(), Wrong> {
    let longest = ago.values().copied().max().unwrap_or(0);
    let start = stage.director.now();
    let mut wrong = Vec::new();
    for (line, at) in log.iter().zip(moments(log, ago, longest)) {
        let passed = stage.director.now().since(start);
        stage.director.advance(at.saturating_sub(passed));
        if let Err(what) = one(stage, line, lengths, machines) {
            wrong.push(format!("{} to {}: {what}", line.talk.client, line.talk.virtual_address));
        }
    }
    let passed = stage.director.now().since(start);
    stage.director.advance((longest * 1000).saturating_sub(passed));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// When each line was played, in milliseconds: the table tells the second, and those of one second came one after the
/// other. What is in no table came in the second of the line before.
fn moments(log: &[Line], ago: &HashMap<SocketAddr, u64>, longest: u64) -> Vec<u64> {
    let mut second = 0;
    let seconds: Vec<u64> = log
        .iter()
        .map(|line| {
            if let Some(ago) = ago.get(&line.talk.client) {
                let retries = if line.is_silent() { RETRIES } else { 0 };
                second = second.max(longest.saturating_sub(ago + retries));
            }
            second
        })
        .collect();
    let mut moments = Vec::with_capacity(log.len());
    for group in seconds.chunk_by(|a, b| a == b) {
        let count = group.len() as u64;
        moments.extend((0..count).map(|place| group[0] * 1000 + (place * 1000 + 500) / count));
    }
    moments
}

fn one(stage: &mut Stage, line: &Line, lengths: Lengths, machines: &HashMap<IpAddr, String>) -> Result<(), Wrong> {
    let talk = &line.talk;
    let (request, reply) = (vec![b'q'; lengths.request], vec![b'r'; lengths.reply]);
    let (question, answer) = (vec![b'q'; lengths.question], vec![b'a'; lengths.answer]);
    if talk.protocol == Protocol::UDP {
        for _ in 0..line.datagrams {
            let server = stage.say(talk, 0, &question)?.ok_or("no server")?;
            stage.answer(talk, server, 0, &answer)?;
            expect(line, server, machines)?;
        }
        return Ok(());
    }
    let server = stage.say(talk, SYN, b"")?.ok_or("no server")?;
    if line.result.contains("refused") {
        return stage.answer(talk, server, RST | ACK, b"");
    }
    if line.is_silent() {
        return silence(stage, talk, server);
    }
    expect(line, server, machines)?;
    stage.answer(talk, server, SYN | ACK, b"")?;
    stage.say(talk, ACK, b"")?;
    stage.say(talk, ACK | PSH, &request)?;
    stage.answer(talk, server, ACK, b"")?;
    stage.answer(talk, server, ACK | PSH, &reply)?;
    stage.say(talk, ACK, b"")?;
    if !line.hold {
        stage.say(talk, FIN | ACK, b"")?;
        stage.answer(talk, server, FIN | ACK, b"")?;
        stage.say(talk, ACK, b"")?;
    }
    Ok(())
}

/// The server is not there: the client sends its SYN again, once a second. The director's own kernel asks for the
/// server's MAC three times, then tells the client about every SYN that waited for it, and begins again with the next.
fn silence(stage: &mut Stage, talk: &Talk, server: SocketAddr) -> Result<(), Wrong> {
    for retry in 1..=RETRIES {
        stage.director.advance(1000);
        if retry == RETRIES {
            (0..RETRIES).try_for_each(|_| stage.unreachable(talk, server))?;
        }
        stage.say(talk, SYN, b"")?;
    }
    stage.director.advance(RETRIES * 1000);
    stage.unreachable(talk, server)
}

/// Was it this server that answered?
fn expect(line: &Line, server: SocketAddr, machines: &HashMap<IpAddr, String>) -> Result<(), Wrong> {
    match machines.get(&server.ip()) {
        Some(name) if *name == line.result => Ok(()),
        name => Err(format!("{server} ({name:?}) was chosen, and {} answered", line.result)),
    }
}
