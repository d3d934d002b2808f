//! Packets of clients and servers: made as a host would send them, and read as a host would see them.
//!
//! Invariant: what is made has right checksums and lengths. Reading trusts nothing and tells only what is there.
//! Not here: SCTP, options and fragments; whoever wants odd packets makes the bytes himself.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use xvs_engine::flow::Protocol;
use xvs_engine::wire::Mac;

use super::surroundings::{GATEWAY_MAC, OWN_MAC};

/// Flags of a TCP segment.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends it at once.
    pub const RST: u8 = 0x04;
    /// Data follow that the receiver should hand on.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

const TTL: u8 = 64;
/// What Linux sends with a SYN: MSS, SACK, timestamps, window scale.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
/// And with all others: timestamps.
const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 1];

/// A TCP segment or UDP datagram.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Sender.
    pub from: SocketAddr,
    /// Destination; of the same IP version.
    pub to: SocketAddr,
    /// Flags of TCP ([`flags`]).
    pub flags: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// A TCP segment without payload.
    pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Segment<'static> {
        Segment { protocol: Protocol::TCP, from, to, flags, payload: &[] }
    }

    /// The frame, from the gateway to the director. TCP has the options that Linux sends, so that lengths are those of
    /// real traffic.
    pub fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(GATEWAY_MAC, OWN_MAC);
        let net = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), TTL),
            (from, to) => link.ipv4(v4(from), v4(to), TTL),
        };
        let mut frame = Vec::new();
        let (source, destination) = (self.from.port(), self.to.port());
        let written = if self.protocol == Protocol::UDP {
            net.udp(source, destination).write(&mut frame, self.payload)
        } else {
            let has = |flag| self.flags & flag != 0;
            let mut tcp = net.tcp(source, destination, 1, 64240);
            if has(flags::SYN) {
                tcp = tcp.syn();
            }
            if has(flags::FIN) {
                tcp = tcp.fin();
            }
            if has(flags::RST) {
                tcp = tcp.rst();
            }
            if has(flags::PSH) {
                tcp = tcp.psh();
            }
            if has(flags::ACK) {
                tcp = tcp.ack(1);
            }
            let options: &[u8] = match () {
                () if has(flags::SYN) => &SYN_OPTIONS,
                () if has(flags::RST) => &[],
                () => &OPTIONS,
            };
            match tcp.options_raw(options) {
                Ok(tcp) => tcp.write(&mut frame, self.payload),
                Err(_) => return Vec::new(),
            }
        };
        // Writing to memory fails only for payloads that no packet holds; the engine calls an empty frame truncated.
        if written.is_err() {
            frame.clear();
        }
        frame
    }
}

fn v4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Destination MAC.
    pub to_mac: Mac,
    /// Sender; none if the packet has no ports.
    pub from: Option<SocketAddr>,
    /// Destination.
    pub to: Option<SocketAddr>,
}

/// Reads a frame.
pub fn read(frame: &[u8]) -> Option<Seen> {
    let to_mac = frame.first_chunk::<6>().copied()?;
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let ports = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    let (source, destination) = ports.unzip();
    Some(Seen {
        to_mac,
        from: source.map(|port| SocketAddr::new(from, port)),
        to: destination.map(|port| SocketAddr::new(to, port)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the frames: lengths as Linux sends them, and both families read back.
    #[test]
    fn segments_are_what_linux_sends() {
        let address = |text: &str| text.parse().expect("an address");
        for (from, to, ip) in
            [("10.0.0.2:40000", "192.0.2.1:80", 20), ("[2001:db8::2]:40000", "[2001:db8:ff::1]:80", 40)]
        {
            let (from, to) = (address(from), address(to));
            let length = |flags| Segment::tcp(from, to, flags).frame().len() - 14;
            assert_eq!([length(flags::SYN), length(flags::ACK), length(flags::RST)], [ip + 40, ip + 32, ip + 20]);
            let udp = Segment { protocol: Protocol::UDP, from, to, flags: 0, payload: b"hi" }.frame();
            assert_eq!(udp.len() - 14, ip + 10);
            assert_eq!(read(&udp), Some(Seen { to_mac: OWN_MAC, from: Some(from), to: Some(to) }));
        }
        assert_eq!(read(b"short"), None);
    }
}
