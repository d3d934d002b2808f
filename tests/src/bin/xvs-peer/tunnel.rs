//! Asks by UDP through a tunnel that this program makes itself: what a director would do, for the test of the lab alone.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use xvs_tests::Answers;

use crate::packet;

const QUESTION: &[u8] = b"who?";
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) fn run(own: IpAddr, to: SocketAddr, server: IpAddr) -> Result<Answers> {
    let socket = UdpSocket::bind((own, 0)).context("bind")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let inner = packet::udp(socket.local_addr()?, to, QUESTION);
    let protocol = if to.is_ipv4() { 4 } else { 41 };
    let domain = if server.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let tunnel = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).context("a raw socket needs root")?;
    tunnel.send_to(&inner, &SocketAddr::new(server, 0).into()).context("send")?;
    let mut answers = Answers::default();
    let mut answer = [0; 2048];
    match socket.recv_from(&mut answer) {
        Ok((len, from)) if from == to => {
            let text = String::from_utf8_lossy(&answer[..len]).into_owned();
            answers.answered(text.split(' ').next().unwrap_or_default());
        }
        Ok((_, from)) => answers.failed(format!("{from} answered in place of {to}")),
        Err(error) => answers.failed(error),
    }
    Ok(answers)
}
