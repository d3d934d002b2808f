//! Bytes and what they mean: parsing, views, checksums. Nothing here knows of services or connections.

pub mod checksum;
pub mod glance;
pub mod headers;
pub mod packet;
pub mod sctp;
pub mod sip;

pub use glance::{Glance, Glance6};
pub use headers::{Fragment, Headers, Tags, TcpFlags};
pub use packet::Packet;
pub use sctp::{SctpChunks, SctpEvent};

/// A MAC address.
pub type Mac = [u8; 6];

/// The EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// The EtherType of an 802.1ad service tag.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Reads a big-endian `u16`. Panics beyond the end: for offsets that [`Headers`] vouches for.
#[inline]
pub fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes a big-endian `u16`. Panics beyond the end: for offsets that [`Headers`] vouches for.
#[inline]
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
