//! Asks by UDP. A connected socket takes answers from the address that it asked and from no other, so a reply whose
//! source was not rewritten is a failure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xvs_tests::Answers;

use crate::packet;

/// UDP is not repeated: a lost question must not hide.
const LIMIT: Duration = Duration::from_secs(3);

/// After so many sockets without an answer, the others are not tried: each would wait for nothing.
const PATIENCE: usize = 3;

/// From so many sockets, all open at the same time: each is one connection to the director. The first has this port and the others
/// those behind it, if one is told.
pub(crate) fn run(
    to: SocketAddr,
    first_port: Option<u16>,
    sockets: u16,
    asks: usize,
    size: usize,
    reversed: bool,
) -> Result<Answers> {
    let mut answers = Answers::default();
    let mut silent = 0;
    let opened = (0..sockets)
        .map(|number| open_from(to, first_port.map_or(0, |first| first + number)))
        .collect::<Result<Vec<_>>>()?;
    for (number, socket) in opened.iter().enumerate() {
        if silent == PATIENCE {
            answers.given_up((opened.len() - number) * asks);
            break;
        }
        silent += usize::from(!ask_all(socket, asks, size, reversed.then_some(number), &mut answers));
    }
    Ok(answers)
}

/// Asks over one socket until an answer is missing; false if one was.
fn ask_all(socket: &UdpSocket, asks: usize, size: usize, reversed: Option<usize>, answers: &mut Answers) -> bool {
    let mut first: Option<String> = None;
    for number in 0..asks {
        match ask(socket, number, size, reversed) {
            Ok(name) if *first.get_or_insert_with(|| name.clone()) == name => answers.answered(&name),
            Ok(name) => answers.failed(format!("{name} answered in place of the first server")),
            Err(error) => {
                answers.failed(format!("{error:#}"));
                answers.given_up(asks - number - 1);
                return false;
            }
        }
    }
    true
}

pub(crate) fn open(to: SocketAddr) -> Result<UdpSocket> {
    open_from(to, 0)
}

fn open_from(to: SocketAddr, port: u16) -> Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, port).into() } else { (Ipv6Addr::UNSPECIFIED, port).into() };
    let socket = UdpSocket::bind(any).with_context(|| format!("bind to port {port}"))?;
    socket.connect(to).context("connect")?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// Asks; in fragments, the last one first, if it is said which socket this is.
fn ask(socket: &UdpSocket, number: usize, size: usize, reversed: Option<usize>) -> Result<String> {
    let question: Vec<u8> = (0..size).map(|index| (index * 7 + number) as u8).collect();
    match reversed {
        None => drop(socket.send(&question).context("send")?),
        Some(which) => {
            // No two packets that are on their way at the same time have the same number.
            let id = (which * 256 + number + 1) as u16;
            packet::send_reversed(socket.local_addr()?, socket.peer_addr()?, &question, id)?;
        }
    }
    let mut answer = [0; 65536];
    let len = socket.recv(&mut answer).context("receive")?;
    let answer = &answer[..len];
    let Some(end) = answer.iter().position(|byte| *byte == b' ') else { bail!("an answer without a name") };
    ensure!(answer[end + 1..] == question, "the answer repeats another question");
    Ok(String::from_utf8_lossy(&answer[..end]).into_owned())
}
