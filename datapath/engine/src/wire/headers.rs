//! Where the headers of a packet are, and what they say about its flow.
//!
//! Ethernet with up to two VLAN tags, IPv4 with options (RFC 791), IPv6 with extension headers (RFC 8200), then the
//! ports of TCP, UDP and SCTP.
//!
//! Invariant: [`Headers::parse`] is the only constructor, but for [`Headers::seen`], which gives the same; and every offset in a `Headers` lies inside the packet that
//! it was parsed from: `l3 < l4 <= end <= packet length`, the whole IP header before `l4`, and for a protocol with
//! ports (and no later fragment) its whole fixed header before `end`. It is not `Copy`: whoever moves the packet's
//! head consumes it.

use crate::drop::DropReason;
use crate::flow::{Address, Endpoint, Family, Flow, Protocol};

use super::glance::{self, Glance};
use super::sctp::{self, SctpChunks};
use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, get_u16};

/// VLAN tags that a frame may carry: the customer's and the provider's.
pub const MAX_TAGS: usize = 2;

/// Extension headers that are followed in an IPv6 packet; real traffic has one or two.
const MAX_EXTENSIONS: usize = 6;

/// The VLAN tags of a frame, outermost first, as they stand on the wire (TPID and TCI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    count: u8,
    tags: [[u8; 4]; MAX_TAGS],
}

impl Tags {
    /// These tags, (TPID, VLAN id) each, outermost first; `None` for more than two.
    pub fn new(tags: &[(u16, u16)]) -> Option<Self> {
        if tags.len() > MAX_TAGS {
            return None;
        }
        let mut all = Tags::default();
        for &(tpid, id) in tags {
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), id.to_be_bytes());
            all.push([a, b, c, d]);
        }
        Some(all)
    }

    fn push(&mut self, tag: [u8; 4]) {
        self.tags[usize::from(self.count)] = tag;
        self.count += 1;
    }

    /// The tags, four bytes each.
    #[inline]
    pub fn as_slice(&self) -> &[[u8; 4]] {
        &self.tags[..usize::from(self.count)]
    }
}

/// Is the packet a fragment?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// No: it has all its bytes.
    Whole,
    /// The first one: it has the ports.
    First(u32),
    /// A later one: it has no ports. The value identifies the packet that it is a part of.
    Later(u32),
}

/// The flags of a TCP segment that the state machine reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Is this flag set?
    #[inline]
    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// The headers of one packet: offsets from its first byte, and its flow.
#[derive(Debug, PartialEq, Eq)]
pub struct Headers {
    /// VLAN tags.
    pub tags: Tags,
    /// IP version.
    pub family: Family,
    /// The IP header.
    pub l3: usize,
    /// What follows the IP header and its extensions.
    pub l4: usize,
    /// The end of the IP packet; what follows is the link's padding.
    pub end: usize,
    /// Fragmentation.
    pub fragment: Fragment,
    /// Addresses, protocol and ports (0 for later fragments and protocols without).
    pub flow: Flow,
    /// TCP's flags, 0 for others.
    pub tcp: TcpFlags,
    /// SCTP's chunks, none for others.
    pub sctp: SctpChunks,
}

impl Headers {
    /// Parses a frame.
    ///
    /// # Errors
    /// A [`DropReason`] that says what is wrong with it.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Headers, DropReason> {
        let mut l3 = 14;
        let mut tags = Tags::default();
        let mut ethertype = u16_at(frame, 12)?;
        while matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ) {
            if tags.as_slice().len() == MAX_TAGS {
                return Err(DropReason::NotIp);
            }
            tags.push(*frame.get(l3 - 2..).and_then(|tag| tag.first_chunk()).ok_or(DropReason::Truncated)?);
            ethertype = u16_at(frame, l3 + 2)?;
            l3 += 4;
        }
        match ethertype {
            ETHERTYPE_IPV4 => Self::ipv4(frame, tags, l3),
            ETHERTYPE_IPV6 => Self::ipv6(frame, tags, l3),
            _ => Err(DropReason::NotIp),
        }
    }

    /// The headers of a packet that a [`Glance`] has accepted.
    #[inline]
    pub fn seen(glance: &Glance) -> Self {
        let end = |(address, port): (u32, u16)| Endpoint::new(Address::v4(address.to_be_bytes()), port);
        let (src, dst) = (end(glance.source()), end(glance.destination()));
        let flow = Flow { protocol: glance.protocol(), src, dst };
        let (tags, sctp) = (Tags::default(), SctpChunks::default());
        let end = glance::L3 + glance.ip_len();
        let (l3, l4, tcp, fragment) = (glance::L3, glance::L4, glance.tcp(), Fragment::Whole);
        Headers { tags, family: Family::Inet, l3, l4, end, fragment, flow, tcp, sctp }
    }

    /// Parses an IP packet without a link header, as an ICMP error quotes it: it may be cut off behind its first
    /// eight bytes of payload, so `end` may lie beyond what is there and only the ports are vouched for.
    pub fn parse_quoted(quoted: &[u8]) -> Result<Headers, DropReason> {
        match quoted.first().ok_or(DropReason::Truncated)? >> 4 {
            4 => Self::ipv4_header(quoted, Tags::default(), 0).and_then(|headers| headers.quoted_ports(quoted)),
            6 => Self::ipv6_header(quoted, Tags::default(), 0).and_then(|headers| headers.quoted_ports(quoted)),
            _ => Err(DropReason::Malformed),
        }
    }

    #[inline]
    fn ipv4(frame: &[u8], tags: Tags, l3: usize) -> Result<Headers, DropReason> {
        let headers = Self::ipv4_header(frame, tags, l3)?;
        if headers.end > frame.len() {
            return Err(DropReason::Truncated);
        }
        headers.ports(frame)
    }

    #[inline]
    fn ipv4_header(frame: &[u8], tags: Tags, l3: usize) -> Result<Headers, DropReason> {
        let fixed: &[u8; 20] = frame.get(l3..).and_then(<[u8]>::first_chunk).ok_or(DropReason::Truncated)?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let l4 = l3 + usize::from(fixed[0] & 15) * 4;
        if fixed[0] >> 4 != 4 || l4 < l3 + 20 || l3 + length < l4 {
            return Err(DropReason::Malformed);
        }
        if l4 > frame.len() {
            return Err(DropReason::Truncated);
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        let id = u32::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let fragment = match (fragment & 0x1fff, fragment & 0x2000) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First(id),
            _ => Fragment::Later(id),
        };
        let address = |at: usize| Address::v4([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let flow = Flow {
            protocol: Protocol(fixed[9]),
            src: Endpoint::new(address(12), 0),
            dst: Endpoint::new(address(16), 0),
        };
        let (tcp, sctp) = (TcpFlags::default(), SctpChunks::default());
        Ok(Headers { tags, family: Family::Inet, l3, l4, end: l3 + length, fragment, flow, tcp, sctp })
    }

    #[inline]
    fn ipv6(frame: &[u8], tags: Tags, l3: usize) -> Result<Headers, DropReason> {
        let headers = Self::ipv6_header(frame, tags, l3)?;
        if headers.end > frame.len() {
            return Err(DropReason::Truncated);
        }
        headers.ports(frame)
    }

    #[inline]
    fn ipv6_header(frame: &[u8], tags: Tags, l3: usize) -> Result<Headers, DropReason> {
        let fixed: &[u8; 40] = frame.get(l3..).and_then(<[u8]>::first_chunk).ok_or(DropReason::Truncated)?;
        if fixed[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let end = l3 + 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let address = |at: usize| fixed[at..].first_chunk().map(|bytes| Address::v6(*bytes)).unwrap_or_default();
        let (src, dst) = (address(8), address(24));
        if src.family() == Family::Inet || dst.family() == Family::Inet {
            return Err(DropReason::Martian); // a mapped address on the wire would pass for an IPv4 one
        }
        let (protocol, l4, fragment) = extensions(frame, fixed[6], l3 + 40)?;
        if l4 > end {
            return Err(DropReason::Malformed);
        }
        let flow = Flow { protocol, src: Endpoint::new(src, 0), dst: Endpoint::new(dst, 0) };
        let (tcp, sctp) = (TcpFlags::default(), SctpChunks::default());
        Ok(Headers { tags, family: Family::Inet6, l3, l4, end, fragment, flow, tcp, sctp })
    }

    /// Reads ports, TCP flags and SCTP chunks; checks that the transport header's fixed part is all there.
    #[inline]
    fn ports(mut self, frame: &[u8]) -> Result<Headers, DropReason> {
        let fixed = match self.flow.protocol {
            _ if matches!(self.fragment, Fragment::Later(_)) => return Ok(self),
            Protocol::TCP => 20,
            Protocol::UDP => 8,
            Protocol::SCTP => sctp::COMMON,
            _ => return Ok(self),
        };
        let header = frame.get(self.l4..self.end).filter(|l4| l4.len() >= fixed).ok_or(DropReason::Truncated)?;
        self.flow.src.port = get_u16(header, 0);
        self.flow.dst.port = get_u16(header, 2);
        match self.flow.protocol {
            Protocol::TCP => {
                let length = usize::from(header[12] >> 4) * 4;
                if length < 20 || length > header.len() {
                    return Err(DropReason::Malformed);
                }
                self.tcp = TcpFlags(header[13]);
            }
            Protocol::SCTP => self.sctp = SctpChunks::read(header),
            _ => {}
        }
        Ok(self)
    }

    fn quoted_ports(mut self, quoted: &[u8]) -> Result<Headers, DropReason> {
        if self.flow.protocol.has_ports() && !matches!(self.fragment, Fragment::Later(_)) {
            self.flow.src.port = u16_at(quoted, self.l4)?;
            self.flow.dst.port = u16_at(quoted, self.l4 + 2)?;
        }
        Ok(self)
    }

    /// TTL or hop limit.
    #[inline]
    pub fn ttl(&self, frame: &[u8]) -> u8 {
        frame[self.l3 + if self.family == Family::Inet { 8 } else { 7 }]
    }

    /// The length of the IP packet in bytes, as IPVS counts it.
    #[inline]
    pub fn ip_len(&self) -> usize {
        self.end - self.l3
    }

    /// What a UDP packet carries, or its first fragment; nothing of any other packet.
    pub fn datagram<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let carries = self.flow.protocol == Protocol::UDP && !matches!(self.fragment, Fragment::Later(_));
        if carries { frame.get(self.l4 + 8..self.end).unwrap_or_default() } else { &[] }
    }

    /// Is IPv4's "don't fragment" set? (IPv6 never lets a router fragment.)
    #[inline]
    pub fn dont_fragment(&self, frame: &[u8]) -> bool {
        self.family == Family::Inet6 || frame[self.l3 + 6] & 0x40 != 0
    }
}

/// Follows the extension headers of IPv6 to the transport header.
#[inline]
fn extensions(frame: &[u8], mut next: u8, mut at: usize) -> Result<(Protocol, usize, Fragment), DropReason> {
    let mut fragment = Fragment::Whole;
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            // hop-by-hop, routing, destination options
            0 | 43 | 60 => 8 + usize::from(byte_at(frame, at + 1)?) * 8,
            44 => {
                let header: &[u8; 8] = frame.get(at..).and_then(<[u8]>::first_chunk).ok_or(DropReason::Truncated)?;
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                match (u16::from_be_bytes([header[2], header[3]]) & !7, header[3] & 1) {
                    (0, 0) => {} // an atomic fragment (RFC 6946) is a whole packet
                    (0, _) => fragment = Fragment::First(id),
                    _ => return Ok((Protocol(header[0]), at + 8, Fragment::Later(id))),
                }
                8
            }
            // authentication header: its length counts 4-byte words
            51 => 8 + usize::from(byte_at(frame, at + 1)?) * 4,
            _ => return Ok((Protocol(next), at, fragment)),
        };
        next = byte_at(frame, at)?;
        at += length;
    }
    Err(DropReason::ExtensionHeaders)
}

#[inline]
fn byte_at(frame: &[u8], at: usize) -> Result<u8, DropReason> {
    frame.get(at).copied().ok_or(DropReason::Truncated)
}

#[inline]
fn u16_at(frame: &[u8], at: usize) -> Result<u16, DropReason> {
    frame.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u16::from_be_bytes(*bytes)).ok_or(DropReason::Truncated)
}
