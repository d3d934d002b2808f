//! Frames for the table of verdicts, built layer by layer, with the place where their headers end.
//!
//! etherparse writes the ordinary headers, so that they are right by somebody else's word; what it does not write
//! (SCTP, odd extension headers) is written here byte by byte.

#![allow(dead_code)] // each test program uses a part of it

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};

/// The ways to tag a frame that must make no difference.
pub(crate) const TAGS: [&[u16]; 4] = [&[], &[0x8100], &[0x88a8, 0x8100], &[0x8100, 0x8100]];

/// Who is who, in one family.
pub(crate) struct World {
    pub(crate) version: u8,
    pub(crate) ethertype: u16,
    pub(crate) client: IpAddr,
    pub(crate) vip: IpAddr,
    /// A VIP with a service of any port.
    pub(crate) vip_any: IpAddr,
    pub(crate) rip: IpAddr,
    /// A real server of a service of any port.
    pub(crate) rip_any: IpAddr,
    /// A TUN real server: IP in IP or GRE, and GUE on port 6080.
    pub(crate) far: IpAddr,
    pub(crate) dip: IpAddr,
    pub(crate) router: IpAddr,
    /// ICMP's protocol number.
    pub(crate) icmp: u8,
    pub(crate) echo: u8,
    /// ICMP types that are errors and relayed by a worker.
    pub(crate) errors: &'static [u8],
    /// ICMP types that are none.
    pub(crate) informative: &'static [u8],
    /// A packet of the other family, that an error of this one cannot quote.
    pub(crate) alien: Part,
}

impl World {
    pub(crate) fn v4() -> World {
        let address = |text: &str| text.parse().unwrap();
        World {
            version: 4,
            ethertype: 0x0800,
            client: address("198.51.100.7"),
            vip: address("192.0.2.1"),
            vip_any: address("192.0.2.2"),
            rip: address("10.0.0.11"),
            rip_any: address("10.0.0.12"),
            far: address("10.0.0.13"),
            dip: address("10.0.0.1"),
            router: address("203.0.113.1"),
            icmp: 1,
            echo: 8,
            errors: &[3, 4, 11],
            informative: &[0, 1, 2, 5, 8, 9, 10, 12, 13, 14, 133, 255],
            alien: ip(address("2001:db8::1"), address("2001:db8:c::7"), 6, &Shape::default(), transport(6, 80, 4000)),
        }
    }

    pub(crate) fn v6() -> World {
        let address = |text: &str| text.parse().unwrap();
        World {
            version: 6,
            ethertype: 0x86dd,
            client: address("2001:db8:c::7"),
            vip: address("2001:db8::1"),
            vip_any: address("2001:db8::2"),
            rip: address("fd00::11"),
            rip_any: address("fd00::12"),
            far: address("fd00::13"),
            dip: address("fd00::1"),
            router: address("2001:db8:f::1"),
            icmp: 58,
            echo: 128,
            errors: &[1, 2, 3, 4],
            informative: &[0, 5, 11, 12, 100, 127, 128, 129, 133, 134, 135, 136, 137, 255],
            alien: ip(address("192.0.2.1"), address("198.51.100.7"), 6, &Shape::default(), transport(6, 80, 4000)),
        }
    }
}

/// A stretch of bytes, and how many of them must be there for a decision.
#[derive(Clone, Default)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: usize,
}

impl Part {
    pub(crate) fn payload(bytes: &[u8]) -> Part {
        Part { bytes: bytes.to_vec(), headers: 0 }
    }

    /// Puts a header in front.
    fn behind(self, mut header: Vec<u8>) -> Part {
        let headers = header.len() + self.headers;
        header.extend(self.bytes);
        Part { bytes: header, headers }
    }
}

/// An IPv6 extension header: in units of its length field, or offset in units of eight bytes and "more follow".
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extension {
    HopByHop(u8),
    Routing(u8),
    Destination(u8),
    Fragment(u16, bool),
    Authentication(u8),
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Extension::HopByHop(_) => 0,
            Extension::Routing(_) => 43,
            Extension::Fragment(..) => 44,
            Extension::Authentication(_) => 51,
            Extension::Destination(_) => 60,
        }
    }

    /// A header that states garbage wherever it should not be read: a length in a fragment header, for one.
    fn write(self, next: u8) -> Vec<u8> {
        let (length, size) = match self {
            Extension::HopByHop(length) | Extension::Routing(length) | Extension::Destination(length) => {
                (length, (usize::from(length) + 1) * 8)
            }
            Extension::Authentication(length) => (length, (usize::from(length) + 2) * 4),
            Extension::Fragment(..) => (77, 8),
        };
        let mut bytes = vec![0xaa; size];
        bytes[0] = next;
        bytes[1] = length;
        if let Extension::Fragment(offset, more) = self {
            bytes[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
        }
        bytes
    }
}

/// What makes an IP header longer or a packet shorter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// IPv4: options, in words of four bytes.
    pub(crate) options: u8,
    /// IPv6: extension headers.
    pub(crate) extensions: Vec<Extension>,
    /// Offset in units of eight bytes, and "more follow". In IPv6 it comes after the other extension headers.
    pub(crate) fragment: Option<(u16, bool)>,
}

impl Shape {
    pub(crate) fn options(options: u8) -> Shape {
        Shape { options, ..Shape::default() }
    }

    pub(crate) fn extensions(extensions: &[Extension]) -> Shape {
        Shape { extensions: extensions.to_vec(), ..Shape::default() }
    }

    pub(crate) fn fragment(offset: u16, more: bool) -> Shape {
        Shape { fragment: Some((offset, more)), ..Shape::default() }
    }
}

/// A transport header with ten bytes behind it. It counts as headers in full.
pub(crate) fn transport(protocol: u8, source: u16, destination: u16) -> Part {
    let mut header = Vec::new();
    match protocol {
        6 => TcpHeader::new(source, destination, 1, 1024).write(&mut header).unwrap(),
        132 => {
            header.extend(source.to_be_bytes());
            header.extend(destination.to_be_bytes());
            header.extend([0; 8]);
        }
        // UDP, and whatever else shall look like it.
        _ => UdpHeader { source_port: source, destination_port: destination, length: 18, checksum: 0 }
            .write(&mut header)
            .unwrap(),
    }
    Part::payload(b"0123456789").behind(header)
}

/// An ICMP or ICMPv6 header around what it quotes.
pub(crate) fn icmp(kind: u8, quoted: &Part) -> Part {
    quoted.clone().behind(vec![kind, 0, 0, 0, 0, 0, 0, 0])
}

/// An IP header around a part. Of a later fragment, what follows the IP header is data: no header must be complete.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, shape: &Shape, mut part: Part) -> Part {
    let mut extensions = shape.extensions.clone();
    if let (Some((offset, more)), IpAddr::V6(_)) = (shape.fragment, source) {
        extensions.push(Extension::Fragment(offset, more));
    }
    let later = shape.fragment.is_some_and(|(offset, _)| offset > 0)
        || extensions.iter().any(|one| matches!(one, Extension::Fragment(offset, _) if *offset > 0));
    if later {
        part.headers = 0;
    }
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (offset, more) = shape.fragment.unwrap_or((0, false));
            let mut header =
                Ipv4Header::new(part.bytes.len() as u16, 64, IpNumber(protocol), source.octets(), destination.octets())
                    .unwrap();
            header.options = Ipv4Options::try_from(&vec![1; usize::from(shape.options) * 4][..]).unwrap();
            header.total_len = (header.header_len() + part.bytes.len()) as u16;
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.more_fragments = more;
            header.header_checksum = header.calc_header_checksum();
            let mut bytes = Vec::new();
            header.write_raw(&mut bytes).unwrap();
            part.behind(bytes)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut next = protocol;
            for extension in extensions.into_iter().rev() {
                part = part.behind(extension.write(next));
                next = extension.number();
            }
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: part.bytes.len() as u16,
                next_header: IpNumber(next),
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
            };
            let mut bytes = Vec::new();
            header.write(&mut bytes).unwrap();
            part.behind(bytes)
        }
        _ => panic!("two families in one packet"),
    }
}

/// An Ethernet header with tags around a packet.
pub(crate) fn ethernet(tags: &[u16], ethertype: u16, packet: &Part) -> Part {
    let mut header = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        header.extend(tag.to_be_bytes());
        header.extend([0, 42]);
    }
    header.extend(ethertype.to_be_bytes());
    packet.clone().behind(header)
}
