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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Source << 32 | destination address.
    pub addresses: u64,
    /// Source port << 48 | destination port << 32 | length of the IP packet << 16 | protocol << 8 | TCP's flags (of UDP 0).
    pub rest: u64,
}

impl Glance {
    /// Looks at a frame.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED] = frame.first_chunk()?;
        // EtherType, version and length of header; not the type of service. Flags and offset but for DF; TTL above 1.
        let (kind, way) = (be64(fixed, 12), be32(fixed, 20));
        let len = kind >> 16 & 0xffff;
        let fits = kind >> 40 == 0x08_0045 && way & 0x3fff_0000 == 0 && L3 + len as usize <= frame.len();
        if !fits || way & 0xfe00 == 0 {
            return None;
        }
        let protocol = way as u8;
        let tcp = match Protocol(protocol) {
            Protocol::TCP => {
                let header = u64::from(fixed[L4 + 12] >> 4) * 4;
                if header < 20 || len < 20 + header {
                    return None;
                }
                fixed[L4 + 13]
            }
            Protocol::UDP if len >= 20 + 8 => 0,
            _ => return None,
        };
        let ports = u64::from(be32(fixed, L4)) << 32;
        let rest = ports | len << 16 | u64::from(protocol) << 8 | u64::from(tcp);
        Some(Glance { addresses: be64(fixed, 26), rest })
    }

    /// Length of the IP packet.
    #[inline(always)]
    pub fn ip_len(&self) -> usize {
        usize::from((self.rest >> 16) as u16)
    }

    /// Source port << 48 | destination port << 32 | protocol << 8.
    #[inline(always)]
    pub fn ports(&self) -> u64 {
        self.rest & 0xffff_ffff_0000_ff00
    }

    /// TCP or UDP.
    #[inline(always)]
    pub fn protocol(&self) -> Protocol {
        Protocol((self.rest >> 8) as u8)
    }

    /// UDP? It is TCP otherwise.
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.protocol() == Protocol::UDP
    }

    /// TCP's flags; of UDP none.
    #[inline(always)]
    pub fn tcp(&self) -> TcpFlags {
        TcpFlags(self.rest as u8)
    }

    /// Source address and port, host order.
    #[inline(always)]
    pub fn source(&self) -> (u32, u16) {
        ((self.addresses >> 32) as u32, (self.rest >> 48) as u16)
    }

    /// Destination address and port, host order.
    #[inline(always)]
    pub fn destination(&self) -> (u32, u16) {
        (self.addresses as u32, (self.rest >> 32) as u16)
    }
}

#[inline(always)]
fn be32(fixed: &[u8; FIXED], at: usize) -> u32 {
    u32::from_be_bytes(*bytes(fixed, at))
}

#[inline(always)]
fn be64(fixed: &[u8; FIXED], at: usize) -> u64 {
    u64::from_be_bytes(*bytes(fixed, at))
}

/// As one load, which assembling bytes one by one is not always.
#[inline(always)]
fn bytes<const N: usize>(fixed: &[u8; FIXED], at: usize) -> &[u8; N] {
    fixed[at..].first_chunk().unwrap_or_else(|| unreachable!("the offsets are fixed"))
}
