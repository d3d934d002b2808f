//! UDP packets with their IP headers, whole or in fragments, written by hand: what no socket of the kernel would send.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::checksum::sum;

/// A raw socket of this protocol sends packets whose IP header the sender wrote.
const PROTOCOL_RAW: i32 = 255;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_FRAGMENT: u8 = 44;

/// Payload of a full fragment, a multiple of 8: fits an MTU of 1500 with the headers of any family in a tunnel of any.
const FRAGMENT_LEN: usize = 1400;

/// A UDP packet with its IP header.
pub(crate) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(from, to, payload);
    let mut packet = header(from.ip(), to.ip(), datagram.len(), PROTOCOL_UDP, [0x40, 0], 1);
    packet.extend(datagram);
    packet
}

/// Sends a UDP packet in fragments, the last one first.
pub(crate) fn send_reversed(from: SocketAddr, to: SocketAddr, payload: &[u8], number: u16) -> Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(PROTOCOL_RAW))).context("a raw socket")?;
    // The header alone would not make the kernel look for the way from there.
    socket.bind(&SocketAddr::new(from.ip(), 0).into()).context("bind a raw socket")?;
    let datagram = datagram(from, to, payload);
    let pieces: Vec<_> = datagram.chunks(FRAGMENT_LEN).enumerate().collect();
    for (index, piece) in pieces.iter().rev() {
        let (units, more) = ((index * FRAGMENT_LEN / 8) as u16, index + 1 < pieces.len());
        let packet = if to.is_ipv4() {
            let field = (units | u16::from(more) << 13).to_be_bytes();
            let mut packet = header(from.ip(), to.ip(), piece.len(), PROTOCOL_UDP, field, number);
            packet.extend(*piece);
            packet
        } else {
            let mut packet = header(from.ip(), to.ip(), 8 + piece.len(), PROTOCOL_FRAGMENT, [0, 0], 0);
            packet.extend([PROTOCOL_UDP, 0]);
            packet.extend((units << 3 | u16::from(more)).to_be_bytes());
            packet.extend(u32::from(number).to_be_bytes());
            packet.extend(*piece);
            packet
        };
        socket.send_to(&packet, &SocketAddr::new(to.ip(), 0).into()).context("send a fragment")?;
    }
    Ok(())
}

fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    let mut udp = Vec::new();
    for field in [from.port(), to.port(), len, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(payload);
    let addresses = [octets(from.ip()), octets(to.ip())].concat();
    let check = match !sum([addresses.as_slice(), &[0, PROTOCOL_UDP], &len.to_be_bytes(), &udp]) {
        0 => 0xffff,
        check => check,
    };
    udp[6..8].copy_from_slice(&check.to_be_bytes());
    udp
}

/// An IP header in front of `len` bytes; `flags` are IPv4's flags with the fragment offset.
fn header(from: IpAddr, to: IpAddr, len: usize, next: u8, flags: [u8; 2], number: u16) -> Vec<u8> {
    let addresses = [octets(from), octets(to)].concat();
    if from.is_ipv4() {
        let (total, id) = ((20 + len as u16).to_be_bytes(), number.to_be_bytes());
        let mut header = vec![0x45, 0, total[0], total[1], id[0], id[1], flags[0], flags[1], 64, next, 0, 0];
        header.extend(&addresses);
        let check = !sum([header.as_slice()]);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        header
    } else {
        let len = (len as u16).to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, len[0], len[1], next, 64];
        header.extend(&addresses);
        header
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
