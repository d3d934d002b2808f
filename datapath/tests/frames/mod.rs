//! Ethernet frames for tests, made and judged byte by byte, with no help of the code under test.
#![allow(dead_code, unreachable_pub, reason = "each test file takes what it needs")]

use std::net::{Ipv4Addr, SocketAddrV4};

/// MACs of whoever sends a frame to the director, and of the director.
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;

/// The Internet checksum of these bytes, in a message where its field is 0.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

fn v4(address: &str) -> SocketAddrV4 {
    address.parse().expect("an IPv4 address with a port")
}

/// An IPv4 header and what it carries.
fn ip(protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, segment: &[u8]) -> Vec<u8> {
    let length = (20 + segment.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend_from_slice(segment);
    header
}

fn pseudo(protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut bytes = src.octets().to_vec();
    bytes.extend(dst.octets());
    bytes.extend([0, protocol]);
    bytes.extend((length as u16).to_be_bytes());
    bytes
}

/// A frame around an IP packet, from the peer to the director.
pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    [&DIRECTOR[..], &PEER, &[0x08, 0], ip].concat()
}

/// A TCP segment in a frame.
pub fn tcp(src: &str, dst: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (v4(src), v4(dst));
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x72, 0x10, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    let sum = checksum(&[&pseudo(6, *src.ip(), *dst.ip(), segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ethernet(&ip(6, *src.ip(), *dst.ip(), &segment))
}

/// A UDP datagram in a frame.
pub fn udp(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (v4(src), v4(dst));
    let length = 8 + payload.len();
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend((length as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend_from_slice(payload);
    let sum = match checksum(&[&pseudo(17, *src.ip(), *dst.ip(), length), &segment]) {
        0 => 0xffff,
        sum => sum,
    };
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
    ethernet(&ip(17, *src.ip(), *dst.ip(), &segment))
}

/// CRC32c bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.iter().fold(!0, step)
}

/// An SCTP packet in a frame.
pub fn sctp(src: &str, dst: &str, chunks: &[u8]) -> Vec<u8> {
    let (src, dst) = (v4(src), v4(dst));
    let ports = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    let mut packet = [&ports[..], &[0, 0, 0, 9, 0, 0, 0, 0], chunks].concat();
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    ethernet(&ip(132, *src.ip(), *dst.ip(), &packet))
}

/// The packet of a frame in two fragments, cut at this offset of its segment (a multiple of eight).
pub fn fragments(frame: &[u8], at: usize) -> [Vec<u8>; 2] {
    let (header, segment) = frame[14..].split_at(20);
    [(0x2000, &segment[..at]), (at / 8, &segment[at..])].map(|(offset, piece)| {
        let mut header = header.to_vec();
        header[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
        header[6..8].copy_from_slice(&(offset as u16).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        ethernet(&[&header[..], piece].concat())
    })
}

/// The frame that these fragments, in any order, are the parts of; none may be missing or overlap.
pub fn joined(mut fragments: Vec<Vec<u8>>) -> Vec<u8> {
    let offset = |frame: &Vec<u8>| usize::from(u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff) * 8;
    fragments.sort_by_key(offset);
    let mut whole = fragments[0][..34].to_vec();
    for (number, piece) in fragments.iter().enumerate() {
        assert_eq!(checksum(&[&piece[14..34]]), 0, "a fragment's own checksum");
        assert_eq!((offset(piece), piece[20] & 0x20 != 0), (whole.len() - 34, number + 1 < fragments.len()));
        whole.extend(&piece[34..]);
    }
    let length = (whole.len() - 14) as u16;
    whole[16..18].copy_from_slice(&length.to_be_bytes());
    whole[20..22].fill(0);
    whole[24..26].fill(0);
    let sum = checksum(&[&whole[14..34]]);
    whole[24..26].copy_from_slice(&sum.to_be_bytes());
    whole
}

/// What a frame says: destination MAC, protocol, addresses, TTL, payload of the transport. Every checksum is verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub to: [u8; 6],
    pub protocol: u8,
    pub src: String,
    pub dst: String,
    pub ttl: u8,
    pub payload: Vec<u8>,
}

/// Reads a frame without VLAN tags.
pub fn read(frame: &[u8]) -> Told {
    assert_eq!(frame[12..14], [0x08, 0], "IPv4");
    read_ip(frame[..6].try_into().expect("a MAC"), &frame[14..])
}

/// Reads an IP packet.
pub fn read_ip(to: [u8; 6], ip: &[u8]) -> Told {
    let ip = &ip[..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
    assert_eq!(checksum(&[&ip[..20]]), 0, "the IP header's checksum");
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let (src, dst, protocol, segment) = (address(12), address(16), ip[9], &ip[20..]);
    if protocol == 4 {
        let (src, dst) = (src.to_string(), dst.to_string());
        return Told { to, protocol, src, dst, ttl: ip[8], payload: segment.to_vec() };
    }
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    if protocol == 132 {
        let sum = crc32c(&[&segment[..8], &[0; 4], &segment[12..]].concat());
        assert_eq!(segment[8..12], sum.to_le_bytes(), "SCTP's checksum");
    } else {
        assert_eq!(checksum(&[&pseudo(protocol, src, dst, segment.len()), segment]), 0, "the transport's checksum");
    }
    let start = match protocol {
        6 => usize::from(segment[12] >> 4) * 4,
        132 => 12,
        _ => 8,
    };
    Told {
        to,
        protocol,
        src: format!("{src}:{}", port(0)),
        dst: format!("{dst}:{}", port(2)),
        ttl: ip[8],
        payload: segment[start..].to_vec(),
    }
}
