//! Packets of many clients: one frame that etherparse has built, with another client's address and port in it each time.
//!
//! Invariant: every packet is whole: its length, its IP checksum and its transport checksum are right.

use super::common::packet::{BACK, FRONT, GATEWAY, frame, server_mac, tcp};
use super::common::site::{VIP4, VIP6};

/// Bytes of the smallest frame on the wire, without its check sequence.
pub const SMALLEST: usize = 60;
const NOBODY4: &str = "0.0.0.0:0";
const NOBODY6: &str = "[::]:0";
/// The first client's address.
const CLIENTS4: u32 = 0x0b00_0000;
const CLIENTS6: u128 = 0x2001_0db8_000c << 80;
/// Clients that have an address of their own; the next ones come from other ports.
const ADDRESSES: u32 = 1 << 20;
const FIRST_PORT: u16 = 1024;
/// Bytes of the largest frame, and of the largest that still fits an IPv4 tunnel.
pub const LONGEST: usize = 1514;
pub const LONGEST_INSIDE: usize = 1494;
/// Where real servers listen.
pub const SERVER_PORT: u16 = 8080;

/// The address (IPv4) and port of a client.
pub fn client4(number: u32) -> ([u8; 4], u16) {
    ((CLIENTS4 + number % ADDRESSES).to_be_bytes(), FIRST_PORT + (number / ADDRESSES) as u16)
}

/// The address (IPv6) and port of a client.
pub fn client6(number: u32) -> ([u8; 16], u16) {
    let address = CLIENTS6 | u128::from(number % ADDRESSES);
    (address.to_be_bytes(), FIRST_PORT + (number / ADDRESSES) as u16)
}

/// Frames of one length that differ in their client, and those from servers in the server, too.
#[derive(Clone, Debug)]
pub struct Stream {
    bytes: Vec<u8>,
    is_v4: bool,
    from_servers: bool,
}

impl Stream {
    /// TCP segments from clients to the VIP, in frames of this length.
    pub fn from_clients(is_v4: bool, flags: u8, length: usize) -> Self {
        let packet = if is_v4 { tcp(NOBODY4, VIP4, flags) } else { tcp(NOBODY6, VIP6, flags) };
        let bytes = frame(FRONT, GATEWAY, &[], &packet.clone().payload(padding(is_v4, length)).bytes());
        assert!(bytes.len() == length || !is_v4);
        Stream { bytes, is_v4, from_servers: false }
    }

    /// TCP segments from servers to clients, in frames of this length.
    pub fn from_servers(is_v4: bool, flags: u8, length: usize) -> Self {
        let (nobody, server) = if is_v4 { (NOBODY4, "10.0.0.0:8080") } else { (NOBODY6, "[fd00::]:8080") };
        let packet = tcp(server, nobody, flags).payload(padding(is_v4, length));
        Stream { bytes: frame(BACK, server_mac(1), &[], &packet.bytes()), is_v4, from_servers: true }
    }

    pub fn is_from_servers(&self) -> bool {
        self.from_servers
    }

    /// Writes the packet of this client (and from the server whose address ends so); gives its length.
    #[inline]
    pub fn write(&self, client: u32, server: u8, into: &mut [u8]) -> usize {
        let into = &mut into[..self.bytes.len()];
        into.copy_from_slice(&self.bytes);
        let mut sum = Sum::default();
        let (address_at, port_at, l4) = match (self.is_v4, self.from_servers) {
            (true, false) => (26, 34, 34),
            (true, true) => (30, 36, 34),
            (false, false) => (22, 54, 54),
            (false, true) => (38, 56, 54),
        };
        let port = if self.is_v4 {
            let (address, port) = client4(client);
            sum.put(into, address_at, &address);
            port
        } else {
            let (address, port) = client6(client);
            sum.put(into, address_at, &address);
            port
        };
        if self.from_servers {
            into[if self.is_v4 { 29 } else { 37 }] = server;
            sum.0 += u32::from(server);
        }
        if self.is_v4 {
            sum.apply(into, 24);
        }
        sum.put(into, port_at, &port.to_be_bytes());
        sum.apply(into, l4 + 16);
        into.len()
    }
}

/// The mix of lengths that is called IMIX: seven smallest frames, four of 590 bytes, one of the largest, in twelve.
pub fn imix(make: impl Fn(usize) -> Stream) -> Vec<Stream> {
    let (small, middle, large) = (SMALLEST, 590, LONGEST);
    [small, middle, small, small, middle, small, large, small, middle, small, small, middle].map(make).to_vec()
}

/// What fills up a frame of this length; one that is shorter than its headers gets none.
fn padding(is_v4: bool, length: usize) -> Vec<u8> {
    vec![0; length.saturating_sub(14 + 20 + if is_v4 { 20 } else { 40 })]
}

/// What was written where nothing stood, for the checksums.
#[derive(Default)]
struct Sum(u32);

impl Sum {
    fn put(&mut self, into: &mut [u8], at: usize, bytes: &[u8]) {
        into[at..at + bytes.len()].copy_from_slice(bytes);
        self.0 += bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    }

    fn apply(&self, into: &mut [u8], at: usize) {
        let mut sum = self.0 + u32::from(!u16::from_be_bytes([into[at], into[at + 1]]));
        while sum >> 16 != 0 {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        into[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}
