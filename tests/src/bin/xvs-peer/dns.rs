//! Asks a DNS server for the text of a name, all questions from one port, as a resolver in front of many users does.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xvs_tests::Answers;

/// UDP is not repeated: a lost question must not hide.
const LIMIT: Duration = Duration::from_secs(3);

/// A text record of the Internet, as a question has them.
const TXT_IN: [u8; 4] = [0, 16, 0, 1];

pub(crate) fn run(to: SocketAddr, name: &str, asks: u16) -> Result<Answers> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).context("bind")?;
    socket.connect(to).context("connect")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut answers = Answers::default();
    for id in 1..=asks {
        match ask(&socket, name, id) {
            Ok(text) => answers.answered(&text),
            Err(error) => {
                answers.failed(format!("{error:#}"));
                answers.given_up(usize::from(asks - id));
                break;
            }
        }
    }
    Ok(answers)
}

/// One question (RFC 1035); an answer counts only if it is ours, without an error, and has one text.
fn ask(socket: &UdpSocket, name: &str, id: u16) -> Result<String> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion is desired; one question
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(TXT_IN);
    socket.send(&question).context("send")?;
    let mut answer = [0; 1500];
    let len = socket.recv(&mut answer).context("receive")?;
    let answer = answer.get(..len).context("a long answer")?;
    let (head, record) = answer.split_at_checked(question.len()).context("a short answer")?;
    ensure!(head[..2] == question[..2], "the answer to another question");
    ensure!(head[2] & 0x80 != 0 && head[3] & 0x0f == 0, "no answer but code {}", head[3] & 0x0f);
    ensure!(head[6..8] == [0, 1], "{} records", u16::from_be_bytes([head[6], head[7]]));
    // The record: a pointer to the name, type and class, time to live, length; then one string with its own length.
    ensure!(record.get(2..6) == Some(&TXT_IN), "the record is no text");
    let text_len = usize::from(*record.get(12).context("a short record")?);
    let text = record.get(13..13 + text_len).context("a short text")?;
    Ok(String::from_utf8_lossy(text).into_owned())
}
