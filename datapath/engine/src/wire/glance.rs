//! A first glance at a frame: is it what most frames are, and what would its connection's entry say?
//!
//! What most frames are: untagged Ethernet, IPv4 without options and not in fragments, TCP or UDP, whole, with a TTL that
//! survives a hop. Their numbers are read in words, as they stand in the entries of connections.
//!
//! Invariant: whatever [`Glance::of`] accepts, [`Headers::parse`](super::Headers::parse) accepts and reads the same from it;
//! what it does not accept means nothing. It changes nothing and judges no connection.

use crate::flow::Protocol;

use super::TcpFlags;

/// Ethernet, IPv4 and TCP without options. A shorter frame (UDP of few bytes that nobody padded) is not one of most.
const FIXED: usize = 14 + 20 + 20;
/// Where the IP packet starts.
pub const L3: usize = 14;
/// Where its payload starts.
pub const L4: usize = L3 + 20;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Source << 32 | destination address.
    pub addresses: u64,
    /// Source port << 48 | destination port << 32 | protocol << 8.
    pub ports: u64,
    /// Length of the IP packet.
    pub len: u16,
    /// TCP's flags; of UDP 0.
    pub tcp: TcpFlags,
}

impl Glance {
    /// Looks at a frame.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED] = frame.first_chunk()?;
        // EtherType, version and length of header; not the type of service. Flags and offset but for DF; TTL; protocol.
        let (kind, way) = (be32(fixed, 12), be32(fixed, 20));
        let len = u16::from_be_bytes([fixed[16], fixed[17]]);
        let fits = kind & 0xffff_ff00 == 0x0800_4500 && way & 0x3fff_0000 == 0 && L3 + usize::from(len) <= frame.len();
        if !fits || way as u16 >> 8 <= 1 {
            return None;
        }
        let protocol = way as u8;
        let tcp = match Protocol(protocol) {
            Protocol::TCP => {
                let header = u16::from(fixed[L4 + 12] >> 4) * 4;
                if header < 20 || len < 20 + header {
                    return None;
                }
                fixed[L4 + 13]
            }
            Protocol::UDP if len >= 20 + 8 => 0,
            _ => return None,
        };
        let addresses = u64::from(be32(fixed, 26)) << 32 | u64::from(be32(fixed, 30));
        let ports = u64::from(be32(fixed, L4)) << 32 | u64::from(protocol) << 8;
        Some(Glance { addresses, ports, len, tcp: TcpFlags(tcp) })
    }

    /// UDP? It is TCP otherwise.
    #[inline]
    pub fn is_udp(&self) -> bool {
        self.ports as u16 >> 8 == u16::from(Protocol::UDP.0)
    }
}

#[inline(always)]
fn be32(fixed: &[u8; FIXED], at: usize) -> u32 {
    u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}
