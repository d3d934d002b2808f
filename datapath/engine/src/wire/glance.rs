//! A first glance at a frame: is it what most frames are, and what would its connection's entry say?
//!
//! What most frames are: untagged Ethernet, IPv4 without options and not in fragments or IPv6 without extension headers, TCP or
//! UDP, whole, with a TTL that survives a hop. Their numbers are read in words, as they stand in the entries of connections.
//!
//! Invariant: whatever [`Glance::of`] accepts, [`Headers::parse`](super::Headers::parse) accepts and reads the same from it;
//! what it does not accept means nothing. It changes nothing and judges no connection.

use crate::flow::{MAPPED, Protocol};

use super::TcpFlags;

/// Where the IP packet starts.
pub const L3: usize = 14;
/// Where IPv4's payload starts.
pub const L4: usize = L3 + 20;
/// Where IPv6's payload starts.
pub const L4_OF_6: usize = L3 + 40;
/// Ethernet, IPv4 and TCP without options. A shorter frame (UDP of few bytes that nobody padded) is not one of most.
const FIXED: usize = L4 + 20;
/// The same with IPv6.
const FIXED_6: usize = L4_OF_6 + 20;

/// What was seen: of IPv4, the addresses are source << 32 | destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance<Addresses = u64> {
    /// Source and destination address.
    pub addresses: Addresses,
    /// Source port << 48 | destination port << 32 | protocol << 24 | TCP's flags (of UDP 0) << 16 | length of the IP packet.
    pub rest: u64,
}

/// What was seen of an IPv6 packet: two words of the source address, two of the destination.
pub type Glance6 = Glance<[u64; 4]>;

impl Glance {
    /// Looks at a frame.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED] = frame.first_chunk()?;
        // EtherType, version and length of header; not the type of service. Flags and offset but for DF; TTL above 1.
        let (kind, way) = (be64(fixed, 12), be32(fixed, 20));
        let len = kind >> 16 & 0xffff;
        // The fragment's bits are the upper ones: without them, what is left is small, and not too small.
        let alive = 0x0200..0x1_0000;
        if kind >> 40 != 0x08_0045 || !alive.contains(&(way & 0x3fff_ffff)) || L3 + len as usize > frame.len() {
            return None;
        }
        let rest = payload(fixed, L4, Protocol(way as u8), len, 20)?;
        Some(Glance { addresses: be64(fixed, 26), rest })
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

impl Glance6 {
    /// Looks at a frame.
    #[inline(always)]
    pub fn of_6(frame: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED_6] = frame.first_chunk()?;
        // EtherType and version; not the class and the label of the flow. Length of payload, next header, hop limit above 1.
        let (kind, way) = (be32(fixed, 12), be32(fixed, 18));
        let len = 40 + u64::from(way >> 16);
        let fits = kind & 0xffff_f000 == 0x86dd_6000 && L3 + len as usize <= frame.len() && len < 1 << 16;
        if !fits || way as u8 <= 1 {
            return None;
        }
        let addresses = [be64(fixed, 22), be64(fixed, 30), be64(fixed, 38), be64(fixed, 46)];
        // A mapped address is none on a wire.
        let is_mapped = |high: u64, low: u64| high == 0 && low >> 32 == MAPPED >> 32;
        if is_mapped(addresses[0], addresses[1]) || is_mapped(addresses[2], addresses[3]) {
            return None;
        }
        let rest = payload(fixed, L4_OF_6, Protocol((way >> 8) as u8), len, 40)?;
        Some(Glance { addresses, rest })
    }
}

impl<Addresses> Glance<Addresses> {
    /// Length of the IP packet.
    #[inline(always)]
    pub fn ip_len(&self) -> usize {
        usize::from(self.rest as u16)
    }

    /// Ports and protocol, as of a [flow](crate::flow::Flow::ports).
    #[inline(always)]
    pub fn ports(&self) -> u64 {
        self.rest >> 24
    }

    /// TCP or UDP.
    #[inline(always)]
    pub fn protocol(&self) -> Protocol {
        Protocol((self.rest >> 24) as u8)
    }

    /// UDP? It is TCP otherwise.
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        self.protocol() == Protocol::UDP
    }

    /// TCP's flags; of UDP none.
    #[inline(always)]
    pub fn tcp(&self) -> TcpFlags {
        TcpFlags((self.rest >> 16) as u8)
    }
}

/// All but the addresses of an IP packet of `len` bytes, `header` of which are the IP header.
#[inline(always)]
fn payload<const N: usize>(fixed: &[u8; N], l4: usize, protocol: Protocol, len: u64, header: u64) -> Option<u64> {
    let tcp = match protocol {
        Protocol::TCP => {
            let tcp = u64::from(fixed[l4 + 12] >> 4) * 4;
            if tcp < 20 || len < header + tcp {
                return None;
            }
            fixed[l4 + 13]
        }
        Protocol::UDP if len >= header + 8 => 0,
        _ => return None,
    };
    Some(u64::from(be32(fixed, l4)) << 32 | u64::from(protocol.0) << 24 | u64::from(tcp) << 16 | len)
}

#[inline(always)]
fn be32<const N: usize>(fixed: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(*bytes(fixed, at))
}

#[inline(always)]
fn be64<const N: usize>(fixed: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(*bytes(fixed, at))
}

/// As one load, which assembling bytes one by one is not always.
#[inline(always)]
fn bytes<const N: usize, const M: usize>(fixed: &[u8; N], at: usize) -> &[u8; M] {
    fixed[at..].first_chunk().unwrap_or_else(|| unreachable!("the offsets are fixed"))
}
