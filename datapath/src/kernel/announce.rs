//! Telling the neighbours where a virtual address now lives.
//!
//! Invariant: one call, one frame, byte for byte as RFC 826 and RFC 5227 (IPv4: an ARP request whose sender and target
//! are the address itself, to everybody) or RFC 4861 section 7.2.6 (IPv6: an unsolicited neighbour advertisement with
//! the override flag, to all nodes, hop limit 255) have it. The request form of ARP is used because more hosts learn
//! from it than from the reply form. What it is not: no repetition (frames get lost; the caller repeats two or three
//! times), no duplicate detection. The frame goes out by the named link, so the kernel puts the VLAN tags of a VLAN
//! interface on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};

use super::error::Error;
use super::link::Link;

const BROADCAST: [u8; 6] = [0xff; 6];
/// 33:33 and the last four bytes of ff02::1 (RFC 2464 section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Length of a neighbour advertisement with one option.
const ADVERTISEMENT_BYTES: u16 = 32;
const ICMPV6: u8 = 58;

/// Sends one announcement of `address` by `link`, with the link's ethernet address.
pub fn announce(link: &Link, address: IpAddr) -> Result<(), Error> {
    if !link.ethernet || link.loopback {
        return Err(Error::NotEthernet { name: link.name.clone(), kind: link.kind_name() });
    }
    let doing = || format!("announce {address} on {}", link.name);
    match address {
        IpAddr::V4(address) => send(link.index, &arp_frame(link.mac, address)),
        IpAddr::V6(address) => send(link.index, &advertisement_frame(link.mac, address)),
    }
    .map_err(|error| Error::about_link(link.index, doing(), error))
}

/// A gratuitous ARP request: "who has `address`? tell `address`".
pub fn arp_frame(mac: [u8; 6], address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    let mut writer = Writer { frame: &mut frame, at: 0 };
    writer.put(&BROADCAST).put(&mac).put(&[0x08, 0x06]);
    // Ethernet, IPv4, six and four bytes of address, request.
    writer.put(&[0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    writer.put(&mac).put(&address.octets());
    writer.put(&[0; 6]).put(&address.octets());
    frame
}

/// An unsolicited neighbour advertisement: "`address` is at `mac`", to all nodes.
pub fn advertisement_frame(mac: [u8; 6], address: Ipv6Addr) -> [u8; 86] {
    let mut message = [0; ADVERTISEMENT_BYTES as usize];
    // Type 136, code 0, checksum to come; flags: override, neither router nor solicited.
    Writer { frame: &mut message, at: 0 }
        .put(&[136, 0, 0, 0, 0x20, 0, 0, 0])
        .put(&address.octets())
        // Option: target link-layer address, in units of eight bytes.
        .put(&[2, 1])
        .put(&mac);
    let checksum = icmpv6_checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [0; 86];
    let mut writer = Writer { frame: &mut frame, at: 0 };
    writer.put(&ALL_NODES_MAC).put(&mac).put(&[0x86, 0xdd]);
    writer.put(&[0x60, 0, 0, 0]).put(&ADVERTISEMENT_BYTES.to_be_bytes()).put(&[ICMPV6, 255]);
    writer.put(&address.octets()).put(&ALL_NODES.octets());
    writer.put(&message);
    frame
}

/// Fills a frame from front to back.
struct Writer<'a> {
    frame: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.at + bytes.len();
        // The lengths are constants of this file; a mistake would show in the first test.
        self.frame[self.at..end].copy_from_slice(bytes);
        self.at = end;
        self
    }
}

/// RFC 4443 section 2.3: the internet checksum over a pseudo-header and the message.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        // All three parts are of even length.
        bytes.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum()
    };
    let addresses = words(&source.octets()) + words(&destination.octets());
    let mut sum = addresses + u32::from(ADVERTISEMENT_BYTES) + u32::from(ICMPV6) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn send(link: u32, frame: &[u8]) -> io::Result<()> {
    // Protocol 0: this socket only sends, and must not get a copy of every frame of the machine.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let sent = sendto(socket.as_raw_fd(), frame, &link_address(link)?, MsgFlags::empty())?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The address of a link for a packet socket.
///
/// JUSTIFICATION: nix has no safe constructor for it. Its only safe source, `getifaddrs`, reads all addresses of the
/// machine, which for ten thousand virtual addresses to announce would be a hundred million.
fn link_address(link: u32) -> io::Result<LinkAddr> {
    let index = i32::try_from(link).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        // The frame bears its own header, so the kernel needs no destination here.
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a live, initialised `sockaddr_ll` of the given length, and is not kept.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) };
    address.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x02, 0x00, 0x5e, 0x10, 0x20, 0x30];

    /// Guards every byte of the gratuitous ARP request; hosts ignore it if one is wrong.
    #[test]
    fn gratuitous_arp_byte_by_byte() {
        let frame = arp_frame(MAC, Ipv4Addr::new(192, 0, 2, 10));
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x5e, 0x10, 0x20, 0x30, 0x08, 0x06,
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
            0x02, 0x00, 0x5e, 0x10, 0x20, 0x30, 192, 0, 2, 10,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 192, 0, 2, 10,
        ];
        assert_eq!(frame, expected);
    }

    /// Guards every byte of the advertisement. The checksum by hand: 2dc9 (source) + ff03 (group) + 005a (length,
    /// protocol) + 8800 + 2000 + 2dc9 (target) + 0201 + 0200 + 5e10 + 2030 = 2 8530, folded 8532, inverted 7acd.
    #[test]
    fn neighbour_advertisement_byte_by_byte() {
        let frame = advertisement_frame(MAC, "2001:db8::10".parse().expect("an address"));
        #[rustfmt::skip]
        let expected = [
            0x33, 0x33, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x5e, 0x10, 0x20, 0x30, 0x86, 0xdd,
            0x60, 0x00, 0x00, 0x00, 0x00, 0x20, 58, 255,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
            136, 0, 0x7a, 0xcd, 0x20, 0x00, 0x00, 0x00,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            2, 1, 0x02, 0x00, 0x5e, 0x10, 0x20, 0x30,
        ];
        assert_eq!(frame[..], expected[..]);
    }

    /// Guards the rule that verifying a message with its checksum in place gives zero.
    #[test]
    fn the_checksum_verifies() {
        for last in 0..=255_u16 {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, last << 8, 0xffff, 0xffff, 1, last);
            let frame = advertisement_frame(MAC, address);
            assert_eq!(icmpv6_checksum(address, ALL_NODES, &frame[54..]), 0);
        }
    }

    /// Guards against announcing on a link that has no ethernet address to announce.
    #[test]
    fn a_link_without_ethernet_is_refused() {
        let link = Link { index: 1, name: "lo".to_owned(), loopback: true, ..Link::default() };
        assert!(matches!(announce(&link, Ipv4Addr::LOCALHOST.into()), Err(Error::NotEthernet { .. })));
    }
}
