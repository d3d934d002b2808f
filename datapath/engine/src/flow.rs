//! Who talks to whom: addresses, endpoints, flows and their hash.
//!
//! Invariant: an IPv4 address is kept in its IPv6-mapped form, and no packet with a real mapped address passes the
//! parser, so one type serves both families and never confuses them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What stands above the 32 bits of an IPv4 address in the lower half of its IPv6-mapped form.
pub(crate) const MAPPED: u64 = 0xffff_0000_0000;

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// An IPv4 or IPv6 address. (Two words and not one of 128 bits, whose alignment would make every flow half as large again.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address {
    high: u64,
    low: u64,
}

impl Address {
    /// From the four bytes of an IPv4 header.
    #[inline]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Address { high: 0, low: MAPPED | u32::from_be_bytes(bytes) as u64 }
    }

    /// From the sixteen bytes of an IPv6 header.
    #[inline]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        Address::from_bits(u128::from_be_bytes(bytes))
    }

    /// From its 128 bits, host order.
    #[inline]
    pub const fn from_bits(bits: u128) -> Self {
        Address { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// All 128 bits, host order; an IPv4 address in its mapped form.
    #[inline]
    pub const fn bits(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// The IP version.
    #[inline]
    pub const fn family(self) -> Family {
        if self.high == 0 && self.low >> 32 == MAPPED >> 32 { Family::Inet } else { Family::Inet6 }
    }

    /// The 32 bits of an IPv4 address, host order (the low bits of an IPv6 one).
    #[inline]
    pub const fn low32(self) -> u32 {
        self.low as u32
    }

    /// The four bytes of an IPv4 address.
    #[inline]
    pub const fn octets4(self) -> [u8; 4] {
        (self.low as u32).to_be_bytes()
    }

    /// The sixteen bytes of an IPv6 address, or of the mapped form of an IPv4 one.
    #[inline]
    pub const fn octets16(self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    /// Can a host have this address? (Not unspecified, loopback, multicast or broadcast.)
    #[inline]
    pub fn is_host(self) -> bool {
        match self.family() {
            Family::Inet => {
                let first = self.octets4()[0];
                first != 0 && first != 127 && first < 224
            }
            Family::Inet6 => self.bits() > 1 && self.high >> 56 != 0xff,
        }
    }

    /// Its first `prefix` bits (of 32 or 128), the rest zero.
    pub fn masked(self, prefix: u8) -> Self {
        let host = match self.family() {
            Family::Inet => 32u32.saturating_sub(prefix.into()),
            Family::Inet6 => 128u32.saturating_sub(prefix.into()),
        };
        match u128::MAX.checked_shl(host) {
            Some(mask) if host > 0 => Address::from_bits(self.bits() & mask),
            Some(_) => self,
            None => Address::default(),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Address::v4(v4.octets()),
            IpAddr::V6(v6) => Address::v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        match address.family() {
            Family::Inet => Ipv4Addr::from(address.octets4()).into(),
            Family::Inet6 => Ipv6Addr::from(address.octets16()).into(),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port, host order; 0 where the protocol has none.
    pub port: u16,
}

impl Endpoint {
    /// An address and a port.
    #[inline]
    pub const fn new(address: Address, port: u16) -> Self {
        Endpoint { address, port }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Endpoint::new(socket.ip().into(), socket.port())
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        SocketAddr::new(endpoint.address.into(), endpoint.port)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SocketAddr::from(*self), f)
    }
}

/// IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv4's ICMP.
    pub const ICMP: Protocol = Protocol(1);
    /// IPv4 in IP.
    pub const IPV4: Protocol = Protocol(4);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// IPv6 in IP.
    pub const IPV6: Protocol = Protocol(41);
    /// IPv6's ICMP.
    pub const ICMPV6: Protocol = Protocol(58);
    /// GRE.
    pub const GRE: Protocol = Protocol(47);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);

    /// IPsec's encapsulated payload.
    pub const ESP: Protocol = Protocol(50);
    /// IPsec's authentication header.
    pub const AH: Protocol = Protocol(51);

    /// ESP or AH.
    #[inline]
    pub const fn is_ipsec(self) -> bool {
        matches!(self, Protocol::ESP | Protocol::AH)
    }

    /// TCP, UDP or SCTP: a protocol with ports at the usual place.
    #[inline]
    pub const fn has_ports(self) -> bool {
        matches!(self, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Protocol::TCP => f.write_str("TCP"),
            Protocol::UDP => f.write_str("UDP"),
            Protocol::SCTP => f.write_str("SCTP"),
            Protocol::ICMP => f.write_str("ICMP"),
            Protocol::ICMPV6 => f.write_str("ICMPv6"),
            Protocol(number) => write!(f, "protocol {number}"),
        }
    }
}

/// A packet's addresses, ports and protocol, as they stand in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flow {
    /// IP protocol.
    pub protocol: Protocol,
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
}

impl Flow {
    /// Both ports and the protocol in one word: source port << 24 | destination port << 8 | protocol.
    #[inline]
    pub const fn ports(&self) -> u64 {
        (self.src.port as u64) << 24 | (self.dst.port as u64) << 8 | self.protocol.0 as u64
    }

    /// The flow of the answers.
    #[inline]
    pub const fn reversed(self) -> Flow {
        Flow { protocol: self.protocol, src: self.dst, dst: self.src }
    }

    /// The IP version.
    #[inline]
    pub const fn family(&self) -> Family {
        self.src.address.family()
    }
}

/// The hash of a [`Flow`] under a [`HashKey`]: computed once a packet and carried along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowHash(pub u64);

/// The secret of the flow hash. An attacker who does not know it can not choose which buckets fill up.
#[derive(Clone, Copy, Debug)]
pub struct HashKey([u64; 4]);

impl HashKey {
    /// A key from 32 random bytes. The lowest bits are forced to one, so no factor is ever zero by itself.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0u64; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)) | 1;
        }
        HashKey(words)
    }

    /// Hashes a flow: two folded 64 x 64 bit multiplications for IPv4, four for IPv6.
    #[inline]
    pub fn hash(&self, flow: &Flow) -> FlowHash {
        let ports = flow.ports();
        let (src, dst) = (flow.src.address, flow.dst.address);
        if flow.family() == Family::Inet {
            return self.hash4(u64::from(src.low32()) << 32 | u64::from(dst.low32()), ports);
        }
        self.hash6([src.high, src.low, dst.high, dst.low], ports)
    }

    /// The same for IPv6 by its words: two of the source address, two of the destination, and as for IPv4.
    #[inline(always)]
    pub(crate) fn hash6(&self, [src_high, src_low, dst_high, dst_low]: [u64; 4], ports: u64) -> FlowHash {
        let [a, b, c, d] = self.0;
        let src = fold(src_low ^ a, src_high ^ b);
        self.hash4(src.rotate_left(29) ^ fold(dst_low ^ c, dst_high ^ d), ports)
    }

    /// The same for IPv4 by its words: source << 32 | destination address, and the [ports](Flow::ports).
    #[inline(always)]
    pub(crate) fn hash4(&self, addresses: u64, ports: u64) -> FlowHash {
        let [a, b, c, d] = self.0;
        let mixed = fold(addresses ^ a, ports ^ b);
        FlowHash(fold(mixed ^ c, mixed.rotate_left(32) ^ d))
    }

    /// A hash of what was hashed before and of these bytes.
    pub fn mix(&self, hash: FlowHash, bytes: &[u8]) -> FlowHash {
        let [a, b, c, d] = self.0;
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let halves = bytes.chunks(16).map(|chunk| chunk.split_at(chunk.len().min(8)));
        let mixed = halves.fold(hash.0 ^ a, |mixed, (low, high)| fold(word(low) ^ b, word(high) ^ mixed));
        FlowHash(fold(mixed ^ c, bytes.len() as u64 ^ d))
    }
}

/// The upper and the lower half of a product, folded into one word: every input bit reaches every output bit.
#[inline]
const fn fold(x: u64, y: u64) -> u64 {
    let product = x as u128 * y as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(src: &str, dst: &str) -> Flow {
        let [src, dst] = [src, dst].map(|text| Endpoint::from(text.parse::<SocketAddr>().unwrap()));
        Flow { protocol: Protocol::TCP, src, dst }
    }

    /// An address must come back from its bytes as it went in, and know its family.
    #[test]
    fn addresses_keep_their_family_and_text() {
        for text in ["192.0.2.1", "2001:db8::1", "::1", "255.255.255.255"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Address::from(ip).to_string(), text);
            assert_eq!(Address::from(ip).family() == Family::Inet, ip.is_ipv4());
        }
    }

    /// Persistence masks the client's address: the edges of the prefix length must not overflow.
    #[test]
    fn masks_cut_at_the_prefix() {
        let mask = |text: &str, prefix| Address::from(text.parse::<IpAddr>().unwrap()).masked(prefix).to_string();
        assert_eq!(mask("192.0.2.255", 24), "192.0.2.0");
        assert_eq!(mask("192.0.2.255", 32), "192.0.2.255");
        assert_eq!(mask("192.0.2.255", 0), "0.0.0.0");
        assert_eq!(mask("2001:db8:1:2:3::4", 64), "2001:db8:1:2::");
        assert_eq!(mask("2001:db8::4", 128), "2001:db8::4");
        assert_eq!(mask("2001:db8::4", 0), "::");
    }

    /// Sequential clients and ports are the common case: they must spread over the buckets, under any key.
    #[test]
    fn sequential_flows_spread_evenly() {
        for key in [[0u8; 32], [0xa5; 32], core::array::from_fn(|i| i as u8 * 7 + 1)] {
            let key = HashKey::from_bytes(key);
            let mut buckets = [0u32; 256];
            for client in 0..256u32 {
                for port in 0..256u16 {
                    let mut flow = flow("10.0.0.0:1024", "192.0.2.1:80");
                    flow.src = Endpoint::new(Address::v4((0x0a00_0000 + client).to_be_bytes()), 1024 + port);
                    buckets[(key.hash(&flow).0 >> 56) as usize] += 1;
                }
            }
            assert!(buckets.iter().all(|&count| (160..=360).contains(&count)), "{buckets:?}");
        }
    }

    /// Calls of one client differ in their Call-IDs only: each byte must count, the length, and what was hashed before.
    #[test]
    fn every_byte_that_is_mixed_in_counts() {
        let key = HashKey::from_bytes(core::array::from_fn(|at| (at as u8).wrapping_mul(151) ^ 0x5a));
        let base = [7; 40];
        let mut hashes: Vec<u64> = (0..40).map(|length| key.mix(FlowHash(1), &base[..length]).0).collect();
        hashes.push(key.mix(FlowHash(2), &base[..20]).0);
        for (at, bit) in (0..40).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = base;
            changed[at] ^= 1 << bit;
            hashes.push(key.mix(FlowHash(1), &changed).0);
        }
        let all = hashes.len();
        let mut buckets = [0; 16];
        hashes.iter().for_each(|hash| buckets[(hash & 15) as usize] += 1);
        assert!(buckets.iter().all(|&count| (8..=44).contains(&count)), "{buckets:?}");
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }

    /// A connection is found by its flow only: each part of it must count in the hash.
    #[test]
    fn every_part_of_a_flow_counts() {
        let key = HashKey::from_bytes([3; 32]);
        for (src, dst, other) in
            [("10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"), ("[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8:0:1::3]:3")]
        {
            let base = flow(src, dst);
            let other = flow(other, dst).src;
            let mut changed = vec![base.reversed(), Flow { protocol: Protocol::UDP, ..base }];
            for port in [false, true] {
                let part = |own: Endpoint| match port {
                    true => Endpoint::new(own.address, other.port),
                    false => Endpoint::new(other.address, own.port),
                };
                changed.push(Flow { src: part(base.src), ..base });
                changed.push(Flow { dst: part(base.dst), ..base });
            }
            for flow in changed {
                assert_ne!(key.hash(&base), key.hash(&flow), "{flow:?}");
            }
        }
    }
}
