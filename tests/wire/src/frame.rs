//! The template of the generator's frames: all headers, with a source of zeros.
//!
//! Invariant: both checksums are right for a source address and port of zero, so that adding the source to them makes
//! them right for any.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Bytes of headers that the generator writes into each frame: Ethernet, IPv4 and TCP; with UDP also its first data.
pub const HEADERS: usize = 54;
const ETH: usize = 14;
const IP: usize = 20;

/// What kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// UDP.
    Udp,
    /// TCP, SYN: a new connection each time if flows do not come back.
    Syn,
    /// TCP, ACK: more of a connection that a SYN has opened.
    Ack,
}

impl Kind {
    /// TCP?
    pub fn is_tcp(self) -> bool {
        self != Kind::Udp
    }
}

/// A frame of `size` bytes (without FCS) to this MAC and address.
pub fn template(kind: Kind, to_mac: [u8; 6], from_mac: [u8; 6], to: SocketAddrV4, size: usize) -> Vec<u8> {
    let mut frame = vec![0; size.max(HEADERS)];
    frame[..6].copy_from_slice(&to_mac);
    frame[6..12].copy_from_slice(&from_mac);
    frame[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    let ip_len = (frame.len() - ETH) as u16;
    let (ip, segment) = frame[ETH..].split_at_mut(IP);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[6] = 0x40; // don't fragment
    ip[8] = 64;
    ip[9] = if kind.is_tcp() { 6 } else { 17 };
    ip[16..20].copy_from_slice(&to.ip().octets());
    let checksum = !sum(ip, 0);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    let at = match kind {
        Kind::Udp => {
            let len = segment.len() as u16;
            segment[4..6].copy_from_slice(&len.to_be_bytes());
            6
        }
        Kind::Syn | Kind::Ack => {
            segment[4..8].copy_from_slice(&1_000_u32.to_be_bytes());
            segment[12] = 5 << 4;
            segment[13] = if kind == Kind::Syn { 0x02 } else { 0x10 };
            segment[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
            16
        }
    };
    let checksum = !sum(segment, pseudo_header(*to.ip(), ip[9], segment.len()));
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The words of the pseudo header without the source.
fn pseudo_header(to: Ipv4Addr, protocol: u8, len: usize) -> u32 {
    let to = u32::from(to);
    (to >> 16) + (to & 0xffff) + u32::from(protocol) + len as u32
}

/// The folded sum of 16-bit words.
fn sum(bytes: &[u8], more: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum = words.sum::<u32>() + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards what the BPF program builds upon: adding a source to both checksums makes the packet right.
    #[test]
    fn a_template_with_a_source_added_is_a_right_packet() {
        for kind in [Kind::Udp, Kind::Syn, Kind::Ack] {
            let to = "10.1.0.100:9".parse().expect("an address");
            let mut frame = template(kind, [2; 6], [4; 6], to, 60);
            frame[26..30].copy_from_slice(&[10, 64, 3, 7]);
            frame[34..36].copy_from_slice(&1234_u16.to_be_bytes());
            let words = 0x0a40 + 0x0307;
            let add = |frame: &mut [u8], at: usize, words: u32| {
                let old = u16::from_be_bytes([frame[at], frame[at + 1]]);
                let new = !sum(&(!old).to_be_bytes(), words);
                frame[at..at + 2].copy_from_slice(&new.to_be_bytes());
            };
            add(&mut frame, 24, words);
            add(&mut frame, if kind.is_tcp() { 50 } else { 40 }, words + 1234);
            assert_eq!(sum(&frame[14..34], 0), 0xffff, "{kind:?}: IP");
            let pseudo = pseudo_header(*to.ip(), frame[23], frame.len() - 34) + words;
            assert_eq!(sum(&frame[34..], pseudo), 0xffff, "{kind:?}: segment");
        }
    }
}
