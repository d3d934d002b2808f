//! SCTP (RFC 9260) for kernels without it: both ends of an association on raw sockets, enough to open it, to send one
//! message each way, and to close it.
//!
//! Invariant: a packet counts only with its right CRC32c, ports and verification tag, so what a director changed must have
//! been changed everywhere. Nothing is repeated: a lost packet is a failure.

use std::collections::HashMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use xvs_tests::Answers;

use crate::asked;
use crate::crc32c::crc32c;

pub(crate) const PROTOCOL: i32 = 132;

/// Ports, verification tag, checksum.
const HEADER_LEN: usize = 12;

const LIMIT: Duration = Duration::from_secs(3);

/// Types of chunks.
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// A packet with the right checksum and well-formed chunks.
struct Packet {
    from: u16,
    to: u16,
    tag: u32,
    /// Type and value of each chunk.
    chunks: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    fn read(bytes: &[u8]) -> Result<Self> {
        let (header, mut rest) = bytes.split_first_chunk::<HEADER_LEN>().context("a short packet")?;
        let sum = crc32c([&header[..8], &[0; 4], rest]).to_le_bytes();
        ensure!(sum == header[8..], "a wrong checksum");
        let mut chunks = Vec::new();
        while let Some((head, _)) = rest.split_first_chunk::<4>() {
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            chunks.push((head[0], rest.get(4..len).context("a chunk of a wrong length")?.to_vec()));
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        let [from, to] = [0, 2].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        Ok(Packet { from, to, tag: word(header, 4)?, chunks })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        for (kind, value) in &self.chunks {
            // A message in one piece has both flags; no other chunk here has any.
            bytes.extend([*kind, if *kind == DATA { 3 } else { 0 }]);
            bytes.extend((4 + value.len() as u16).to_be_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let sum = crc32c([bytes.as_slice()]).to_le_bytes();
        bytes[8..HEADER_LEN].copy_from_slice(&sum);
        bytes
    }

    /// The value of the first chunk, which must be of this type.
    fn first(&self, kind: u8) -> Result<&[u8]> {
        match self.chunks.first() {
            Some((first, value)) if *first == kind => Ok(value),
            first => bail!("chunk {:?} in place of {kind}", first.map(|(first, _)| *first)),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("a short chunk")?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// What INIT and its answer begin with: own tag, window, one stream each way, first number.
fn init(tag: u32) -> Vec<u8> {
    words(&[tag, 65535, 0x0001_0001, 1])
}

/// A message: number, stream and its count, no payload protocol.
fn data(payload: &[u8]) -> (u8, Vec<u8>) {
    (DATA, [words(&[1, 0, 0]), payload.to_vec()].concat())
}

fn sack() -> (u8, Vec<u8>) {
    (SACK, words(&[1, 65535, 0]))
}

/// A real server's end, at these ports.
pub(crate) struct Server {
    name: String,
    ports: Vec<u16>,
    /// Tags of living associations, the client's and our own.
    open: HashMap<(SocketAddr, u16), (u32, u32)>,
    tag: u32,
}

impl Server {
    pub(crate) fn new(name: &str, ports: &[u16]) -> Self {
        Server { name: name.to_owned(), ports: ports.to_vec(), open: HashMap::new(), tag: 0x5e00_0000 }
    }

    /// Answers for ever.
    pub(crate) fn run(mut self, socket: &Socket, headed: bool) {
        let mut buffer = vec![0; 65536];
        loop {
            let answered = asked::receive(socket, &mut buffer).and_then(|(len, way)| {
                let start = if headed { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
                let packet = Packet::read(buffer.get(start..len).context("a short packet")?)?;
                if !self.ports.contains(&packet.to) {
                    bail!("port {} is not served", packet.to);
                }
                match self.answer(way.from().ip(), &packet)? {
                    Some(answer) => way.answer(socket, &[&answer.write()]),
                    None => Ok(()),
                }
            });
            if let Err(error) = answered {
                eprintln!("SCTP: a packet was not answered: {error:#}");
            }
        }
    }

    fn answer(&mut self, client: IpAddr, packet: &Packet) -> Result<Option<Packet>> {
        let key = (SocketAddr::new(client, packet.from), packet.to);
        let (kind, value) = packet.chunks.first().context("no chunk")?;
        let (theirs, chunks) = match *kind {
            INIT => {
                ensure!(packet.tag == 0, "INIT with a tag");
                let theirs = word(value, 0)?;
                self.tag += 1;
                // The cookie remembers, not we.
                let cookie = words(&[theirs, self.tag]);
                let parameter = [words(&[0x0007_0000 + 4 + cookie.len() as u32]), cookie].concat();
                (theirs, vec![(INIT_ACK, [init(self.tag), parameter].concat())])
            }
            COOKIE_ECHO => {
                let (theirs, own) = (word(value, 0)?, word(value, 4)?);
                ensure!(packet.tag == own, "a cookie with another tag");
                self.open.insert(key, (theirs, own));
                (theirs, vec![(COOKIE_ACK, Vec::new())])
            }
            other => {
                let (theirs, own) = *self.open.get(&key).context("no association")?;
                ensure!(packet.tag == own, "a wrong tag");
                match other {
                    DATA => {
                        let payload = value.get(12..).context("a short message")?;
                        (theirs, vec![sack(), data(&[self.name.as_bytes(), b" ", payload].concat())])
                    }
                    SHUTDOWN => (theirs, vec![(SHUTDOWN_ACK, Vec::new())]),
                    SHUTDOWN_COMPLETE => {
                        self.open.remove(&key);
                        return Ok(None);
                    }
                    SACK => return Ok(None),
                    other => bail!("chunk {other}"),
                }
            }
        };
        Ok(Some(Packet { from: packet.to, to: packet.from, tag: theirs, chunks }))
    }
}

/// Opens so many associations, says something over each, and closes them if asked to.
pub(crate) fn run(to: SocketAddr, first_port: u16, associations: u16, shut_down: bool) -> Result<Answers> {
    let mut answers = Answers::default();
    for number in 0..associations {
        match Association::new(to, first_port + number).and_then(|association| association.talk(shut_down)) {
            Ok(name) => answers.answered(&name),
            Err(error) => {
                answers.failed(format!("{error:#}"));
                answers.given_up(usize::from(associations - number - 1));
                break;
            }
        }
    }
    Ok(answers)
}

/// A client's end.
struct Association {
    socket: Socket,
    to: SocketAddr,
    port: u16,
    tag: u32,
}

impl Association {
    fn new(to: SocketAddr, port: u16) -> Result<Self> {
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(PROTOCOL))).context("a raw socket")?;
        // From now on the kernel delivers what comes from there and nothing else.
        socket.connect(&SocketAddr::new(to.ip(), 0).into()).context("connect")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Association { socket, to, port, tag: 0xc11e_0000 + u32::from(port) })
    }

    fn talk(&self, shut_down: bool) -> Result<String> {
        let opened = self.exchange(0, vec![(INIT, init(self.tag))]).context("INIT")?;
        let accepted = opened.first(INIT_ACK)?;
        let theirs = word(accepted, 0)?;
        let cookie = accepted.get(20..).context("no cookie")?.to_vec();
        self.exchange(theirs, vec![(COOKIE_ECHO, cookie)]).context("COOKIE ECHO")?.first(COOKIE_ACK)?;
        let question = format!("who? {}", self.port);
        let answered = self.exchange(theirs, vec![data(question.as_bytes())]).context("DATA")?;
        answered.first(SACK)?;
        let message = answered.chunks.get(1).filter(|(kind, _)| *kind == DATA).context("no message")?;
        let text = String::from_utf8_lossy(message.1.get(12..).context("a short message")?).into_owned();
        let (name, repeated) = text.split_once(' ').context("a message without a name")?;
        ensure!(repeated == question, "the message repeats another question");
        self.send(theirs, vec![sack()])?;
        if shut_down {
            self.exchange(theirs, vec![(SHUTDOWN, words(&[1]))]).context("SHUTDOWN")?.first(SHUTDOWN_ACK)?;
            self.send(theirs, vec![(SHUTDOWN_COMPLETE, Vec::new())])?;
        }
        Ok(name.to_owned())
    }

    fn send(&self, tag: u32, chunks: Vec<(u8, Vec<u8>)>) -> Result<()> {
        let packet = Packet { from: self.port, to: self.to.port(), tag, chunks };
        self.socket.send(&packet.write()).context("send")?;
        Ok(())
    }

    /// Sends, and waits for the next packet to this association.
    fn exchange(&self, tag: u32, chunks: Vec<(u8, Vec<u8>)>) -> Result<Packet> {
        self.send(tag, chunks)?;
        let deadline = Instant::now() + LIMIT;
        let mut buffer = vec![0; 65536];
        while Instant::now() < deadline {
            let Ok(len) = (&self.socket).read(&mut buffer) else { continue };
            let start = if self.to.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
            let packet = Packet::read(buffer.get(start..len).context("a short packet")?)?;
            if packet.to == self.port {
                ensure!(packet.from == self.to.port(), "an answer from port {}", packet.from);
                ensure!(packet.tag == self.tag, "an answer with another tag");
                return Ok(packet);
            }
        }
        bail!("no answer within {LIMIT:?}")
    }
}
