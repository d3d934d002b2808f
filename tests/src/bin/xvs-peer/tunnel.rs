//! Asks by UDP through a tunnel that this program makes itself: what a director would do, for the test of the lab alone.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use xvs_tests::Answers;

use crate::checksum::sum;

const QUESTION: &[u8] = b"who?";
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) fn run(own: IpAddr, to: SocketAddr, server: IpAddr) -> Result<Answers> {
    let socket = UdpSocket::bind((own, 0)).context("bind")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let inner = packet(socket.local_addr()?, to);
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

/// A UDP packet with its IP header.
fn packet(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let len = 8 + QUESTION.len() as u16;
    let mut udp = Vec::new();
    for field in [from.port(), to.port(), len, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(QUESTION);
    let (addresses, mut header) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0];
            header[2..4].copy_from_slice(&(20 + len).to_be_bytes());
            header.extend(&addresses);
            let check = !sum([header.as_slice()]);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            (addresses, header)
        }
        (from, to) => {
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let addresses = [octets(from), octets(to)].concat();
            let mut header = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
            header[4..6].copy_from_slice(&len.to_be_bytes());
            header.extend(&addresses);
            (addresses, header)
        }
    };
    let check = !sum([addresses.as_slice(), &[0, 17], &len.to_be_bytes(), &udp]);
    udp[6..8].copy_from_slice(&check.to_be_bytes());
    header.extend(&udp);
    header
}
