//! Packets for tests, made and judged by etherparse, so that no line of the engine checks itself.
//!
//! [`Ip`] describes an IP packet and builds its bytes with every checksum computed in full; [`verify`] recomputes all
//! of a frame's checksums and lengths, and those of the packets inside it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header,
    NetSlice, SlicedPacket, TcpHeader, TransportSlice, UdpHeader, defrag::IpDefragPool,
};
use xvs_engine::wire::Mac;

/// The client's gateway, the director's two interfaces.
pub const GATEWAY: Mac = [2, 0, 0, 0, 0, 0xfe];
pub const FRONT: Mac = [2, 0, 0, 0, 0, 1];
pub const BACK: Mac = [2, 0, 0, 0, 0, 2];

/// The MAC of a real server.
pub const fn server_mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0x10, last]
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        flags: u8,
        sequence: u32,
    },
    Udp {
        checksum: bool,
    },
    /// The payload is its chunks.
    Sctp {
        tag: u32,
    },
    Raw(u8),
}

/// An IP packet to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    pub class: u8,
    pub dont_fragment: bool,
    pub id: u16,
    /// IPv4 options, or IPv6 extension headers of which the first one's number is given.
    pub options: Vec<u8>,
    pub first_extension: Option<u8>,
    pub body: Body,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A TCP segment.
pub fn tcp(src: &str, dst: &str, flags: u8) -> Ip {
    ip(src, dst, Body::Tcp { flags, sequence: 0x1234_5678 })
}

/// A UDP datagram.
pub fn udp(src: &str, dst: &str, payload: &[u8]) -> Ip {
    Ip { payload: payload.to_vec(), ..ip(src, dst, Body::Udp { checksum: true }) }
}

/// An SCTP packet of these chunks.
pub fn sctp(src: &str, dst: &str, chunks: &[u8]) -> Ip {
    Ip { payload: chunks.to_vec(), ..ip(src, dst, Body::Sctp { tag: 0xfeed_beef }) }
}

/// An IP packet with a body as it is; ports are of no use.
pub fn raw(src: &str, dst: &str, protocol: u8, payload: Vec<u8>) -> Ip {
    let [src, dst] = [src, dst].map(|text| SocketAddr::new(text.parse().unwrap(), 0));
    Ip { src, dst, payload, ..ip("0.0.0.0:0", "0.0.0.0:0", Body::Raw(protocol)) }
}

/// The outer packet of IP in IP around a packet as it is inside the tunnel.
pub fn outer(inner: &Ip, from: &str, to: &str, id: u16) -> Ip {
    let protocol = if inner.src.is_ipv4() { 4 } else { 41 };
    let class = if inner.class & 3 == 3 { inner.class & !3 | 2 } else { inner.class };
    let dont_fragment = inner.src.is_ipv4() && inner.dont_fragment;
    Ip { ttl: inner.ttl, class, dont_fragment, id, ..raw(from, to, protocol, inner.bytes()) }
}

fn ip(src: &str, dst: &str, body: Body) -> Ip {
    Ip {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        ttl: 64,
        class: 0,
        dont_fragment: true,
        id: 0x4d2,
        options: Vec::new(),
        first_extension: None,
        body,
        tcp_options: Vec::new(),
        payload: Vec::new(),
    }
}

impl Ip {
    pub fn ttl(self, ttl: u8) -> Self {
        Ip { ttl, ..self }
    }

    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Ip { payload: payload.into(), ..self }
    }

    pub fn from(self, src: &str) -> Self {
        Ip { src: src.parse().unwrap(), ..self }
    }

    pub fn to(self, dst: &str) -> Self {
        Ip { dst: dst.parse().unwrap(), ..self }
    }

    pub fn may_fragment(self) -> Self {
        Ip { dont_fragment: false, ..self }
    }

    pub fn no_checksum(self) -> Self {
        Ip { body: Body::Udp { checksum: false }, ..self }
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Sctp { .. } => 132,
            Body::Raw(protocol) => protocol,
        }
    }

    /// Transport header and payload.
    pub fn segment(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (src, dst) = (self.src.ip(), self.dst.ip());
        match self.body {
            Body::Tcp { flags, sequence } => {
                let mut header = TcpHeader::new(self.src.port(), self.dst.port(), sequence, 0x7210);
                (header.fin, header.syn) = (flags & FIN != 0, flags & SYN != 0);
                (header.rst, header.ack) = (flags & RST != 0, flags & ACK != 0);
                header.set_options_raw(&self.tcp_options).unwrap();
                header.checksum = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &self.payload).unwrap()
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &self.payload).unwrap()
                    }
                    _ => panic!("{self:?}"),
                };
                header.write(&mut bytes).unwrap();
            }
            Body::Udp { checksum } => {
                let length = 8 + self.payload.len() as u16;
                let (source_port, destination_port) = (self.src.port(), self.dst.port());
                let mut header = UdpHeader { source_port, destination_port, length, checksum: 0 };
                if checksum {
                    header.checksum = match (src, dst) {
                        (IpAddr::V4(src), IpAddr::V4(dst)) => {
                            header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &self.payload).unwrap()
                        }
                        (IpAddr::V6(src), IpAddr::V6(dst)) => {
                            header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), &self.payload).unwrap()
                        }
                        _ => panic!("{self:?}"),
                    };
                }
                header.write(&mut bytes).unwrap();
            }
            Body::Sctp { tag } => {
                bytes.extend(self.src.port().to_be_bytes());
                bytes.extend(self.dst.port().to_be_bytes());
                bytes.extend(tag.to_be_bytes());
                bytes.extend(crc32c([&bytes[..], &[0; 4], &self.payload].concat()).to_le_bytes());
            }
            Body::Raw(_) => {}
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The IP packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let segment = self.segment();
        let length = self.options.len() + segment.len();
        let mut bytes = Vec::new();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let protocol = IpNumber(self.protocol());
                let payload = segment.len() as u16;
                let mut header = Ipv4Header::new(payload, self.ttl, protocol, src.octets(), dst.octets()).unwrap();
                header.options = self.options.as_slice().try_into().unwrap();
                header.set_payload_len(segment.len()).unwrap();
                header.dscp = (self.class >> 2).try_into().unwrap();
                header.ecn = (self.class & 3).try_into().unwrap();
                (header.identification, header.dont_fragment) = (self.id, self.dont_fragment);
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut bytes).unwrap();
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    traffic_class: self.class,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: length as u16,
                    next_header: IpNumber(self.first_extension.unwrap_or(self.protocol())),
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                header.write(&mut bytes).unwrap();
                bytes.extend_from_slice(&self.options);
            }
            _ => panic!("{self:?}"),
        }
        bytes.extend(segment);
        bytes
    }

    /// The packet in two fragments, cut at this offset of its payload (a multiple of eight).
    pub fn fragments(&self, at: usize) -> [Vec<u8>; 2] {
        self.fragments_at(&[at]).try_into().unwrap()
    }

    /// The packet in fragments, cut at these offsets of its payload (rising multiples of eight).
    pub fn fragments_at(&self, at: &[usize]) -> Vec<Vec<u8>> {
        let length = self.segment().len();
        let starts = [&[0], at].concat();
        let ends = [at, &[length]].concat();
        starts.iter().zip(ends).map(|(&start, end)| self.fragment(start..end)).collect()
    }

    /// The fragment that carries this part of the payload.
    pub fn fragment(&self, part: std::ops::Range<usize>) -> Vec<u8> {
        let segment = self.segment();
        let (offset, more) = (IpFragOffset::try_new((part.start / 8) as u16).unwrap(), part.end < segment.len());
        let piece = &segment[part];
        let mut bytes = Vec::new();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let (mut header, _) = Ipv4Header::from_slice(&self.bytes()).unwrap();
                header.set_payload_len(piece.len()).unwrap();
                (header.dont_fragment, header.more_fragments) = (false, more);
                header.fragment_offset = offset;
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut bytes).unwrap();
            }
            _ => {
                let (mut header, _) = Ipv6Header::from_slice(&self.bytes()).unwrap();
                header.next_header = IpNumber(44);
                header.payload_length = 8 + piece.len() as u16;
                header.write(&mut bytes).unwrap();
                let next = IpNumber(self.protocol());
                Ipv6FragmentHeader::new(next, offset, more, self.id.into()).write(&mut bytes).unwrap();
            }
        }
        bytes.extend_from_slice(piece);
        bytes
    }
}

/// What the fragments in these frames are the parts of, put together by etherparse: the payload behind the IP header.
/// `None` if a part is missing, or they do not belong together.
pub fn reassemble<'a>(frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Option<Vec<u8>> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for frame in frames {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        assert!(whole.is_none(), "one fragment too many");
        whole = pool.process_sliced_packet(&packet, (), ()).unwrap();
    }
    whole.map(|whole| whole.payload)
}

/// A frame: an IP packet behind a link header.
pub fn frame(to: Mac, from: Mac, tags: &[[u8; 4]], ip: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if ip.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0] };
    [&to[..], &from, tags.as_flattened(), &ethertype, ip].concat()
}

/// A client's frame as it comes in, and a frame as it leaves to a client.
pub fn from_client(ip: &[u8]) -> Vec<u8> {
    frame(FRONT, GATEWAY, &[], ip)
}

pub fn to_client(ip: &[u8]) -> Vec<u8> {
    frame(GATEWAY, FRONT, &[], ip)
}

/// A frame as it leaves to a real server, and one as it comes from there.
pub fn to_server(last: u8, ip: &[u8]) -> Vec<u8> {
    frame(server_mac(last), BACK, &[], ip)
}

pub fn from_server(last: u8, ip: &[u8]) -> Vec<u8> {
    frame(BACK, server_mac(last), &[], ip)
}

/// CRC32c bit by bit, as the polynomial has it: slow, and nobody else's.
pub fn crc32c(bytes: impl AsRef<[u8]>) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.as_ref().iter().fold(!0, step)
}

/// Leaves in the packet what a virtual sender does: the folded sum of the pseudo-header instead of a checksum, or nothing
/// (SCTP).
pub fn make_partial(ip: &mut [u8]) {
    let (l4, pseudo) = match ip[0] >> 4 {
        4 => (usize::from(ip[0] & 15) * 4, ip[12..20].to_vec()),
        _ => (40, ip[8..40].to_vec()),
    };
    let protocol = if ip[0] >> 4 == 4 { ip[9] } else { ip[6] };
    if protocol == 132 {
        ip[l4 + 8..l4 + 12].fill(0);
        return;
    }
    let mut sum = u32::from(protocol) + (ip.len() - l4) as u32;
    for pair in pseudo.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    let sum = (sum >> 16) + (sum & 0xffff);
    let half = ((sum >> 16) + (sum & 0xffff)) as u16;
    let at = l4 + if protocol == 6 { 16 } else { 6 };
    ip[at..at + 2].copy_from_slice(&half.to_be_bytes());
}

/// Recomputes every checksum and length of a frame and of the packets in it; says what is wrong.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| format!("{error}"))?;
    verify_packet(&packet)
}

/// The same for a bare IP packet.
pub fn verify_ip(ip: &[u8]) -> Result<(), String> {
    verify_packet(&SlicedPacket::from_ip(ip).map_err(|error| format!("{error}"))?)
}

fn same(what: &str, stands: u16, computed: u16) -> Result<(), String> {
    (stands == computed).then_some(()).ok_or(format!("{what}: {stands:#06x} stands there, {computed:#06x} is right"))
}

fn verify_packet(packet: &SlicedPacket<'_>) -> Result<(), String> {
    let (payload, fragmented) = match packet.net.as_ref().ok_or("no IP header")? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            same("IPv4 header", header.header_checksum, header.calc_header_checksum())?;
            (ip.payload(), ip.is_payload_fragmented())
        }
        NetSlice::Ipv6(ip) => (ip.payload(), ip.is_payload_fragmented()),
        NetSlice::Arp(_) => return Err("ARP".into()),
    };
    if fragmented {
        return Ok(()); // its checksum covers bytes that are elsewhere
    }
    if matches!(payload.ip_number, IpNumber(4) | IpNumber(41)) {
        return verify_ip(payload.payload);
    }
    if payload.ip_number == IpNumber(132) {
        let packet = payload.payload;
        let stands = packet[8..12].try_into().map(u32::from_le_bytes).unwrap();
        let right = crc32c([&packet[..8], &[0; 4], &packet[12..]].concat());
        return (stands == right)
            .then_some(())
            .ok_or(format!("SCTP: {stands:#010x} stands there, {right:#010x} is right"));
    }
    match (packet.net.as_ref(), packet.transport.as_ref()) {
        (Some(NetSlice::Ipv4(ip)), Some(transport)) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            match transport {
                TransportSlice::Tcp(tcp) => same("TCP", tcp.checksum(), tcp.calc_checksum_ipv4(src, dst).unwrap()),
                TransportSlice::Udp(udp) if udp.checksum() == 0 => Ok(()),
                TransportSlice::Udp(udp) => {
                    same("UDP length", udp.length(), payload.payload.len() as u16)?;
                    let right = udp.to_header().calc_checksum_ipv4_raw(src, dst, udp.payload()).unwrap();
                    same("UDP", udp.checksum(), right)
                }
                TransportSlice::Icmpv4(icmp) => verify_icmp4(icmp),
                _ => Ok(()),
            }
        }
        (Some(NetSlice::Ipv6(ip)), Some(transport)) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            match transport {
                TransportSlice::Tcp(tcp) => same("TCP", tcp.checksum(), tcp.calc_checksum_ipv6(src, dst).unwrap()),
                TransportSlice::Udp(udp) => {
                    same("UDP length", udp.length(), payload.payload.len() as u16)?;
                    let right = udp.to_header().calc_checksum_ipv6_raw(src, dst, udp.payload()).unwrap();
                    same("UDP", udp.checksum(), right)
                }
                TransportSlice::Icmpv6(icmp) => verify_icmp6(icmp, src, dst),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn verify_icmp4(icmp: &Icmpv4Slice<'_>) -> Result<(), String> {
    same("ICMP", icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()))
}

fn verify_icmp6(icmp: &Icmpv6Slice<'_>, src: [u8; 16], dst: [u8; 16]) -> Result<(), String> {
    icmp.is_checksum_valid(src, dst).then_some(()).ok_or_else(|| "ICMPv6 checksum".into())
}

/// An ICMP error of this type and code about a packet, with the four bytes behind the checksum.
pub fn icmp_error(src: &str, dst: &str, numbers: [u8; 2], rest: u32, quoted: &[u8]) -> Ip {
    let v4 = src.parse::<IpAddr>().unwrap().is_ipv4();
    let mut message = vec![numbers[0], numbers[1], 0, 0];
    message.extend(rest.to_be_bytes());
    message.extend_from_slice(quoted);
    let mut sum = 0u32;
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    };
    add(&message);
    if !v4 {
        for end in [src, dst] {
            add(&end.parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        add(&(message.len() as u32).to_be_bytes());
        add(&[0, 58]);
    }
    while sum >> 16 != 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Ip { class: 0, dont_fragment: false, id: 0, ..raw(src, dst, if v4 { 1 } else { 58 }, message) }
}
