//! The rewrites of the express lane: IPv4, untagged, no options; a few stores over the headers.
//!
//! Invariant: the bytes that come out are those that [`decrement_ttl`](super::decrement_ttl), [`nat`](super::nat),
//! [`tun`](super::tun) and [`link`](super::link) make of the packet. They work on what a [`Glance`] has accepted: its
//! offsets are fixed.

use crate::wire::glance::{L3, L4};
use crate::wire::{Glance, Packet, get_u16, put_u16};

/// The bytes that a rewrite touches: from the link header up to the checksum of TCP.
pub type Headers4 = [u8; L4 + 18];

/// Length of an outer IPv4 header.
const OUTER: usize = 20;

/// Times 65,535 it is 1.
const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;

/// An address and a port, host order.
#[derive(Clone, Copy, Debug)]
pub struct End4 {
    /// The address.
    pub address: u32,
    /// The port.
    pub port: u16,
}

/// What an outer header is made of.
#[derive(Clone, Copy, Debug)]
pub struct Outer4 {
    /// The director's address.
    pub source: u32,
    /// The real server's.
    pub server: u32,
    /// Identification, if the packet may be fragmented.
    pub ident: Option<u16>,
}

/// Where the checksum of the payload stands.
#[inline(always)]
fn field(glance: &Glance) -> usize {
    if glance.is_udp() { L4 + 6 } else { L4 + 16 }
}

/// Has the sender left the payload's checksum to hardware ([`checksum`](super::checksum))?
#[inline(always)]
pub fn is_partial(bytes: &Headers4, glance: &Glance) -> bool {
    let protocol = glance.ports as u16 >> 8;
    let addresses = (glance.addresses >> 32) + u64::from(glance.addresses as u32);
    let sum = addresses + u64::from(protocol) + u64::from(glance.len) - 20;
    // Folded it is the checksum if the difference is a multiple of 65,535, which one multiplication tells: by the inverse of
    // that, multiples become small numbers. (No sum folds to 0, but 0 is then a difference of 65,535 from 65,535.)
    let checksum = get_u16(bytes, field(glance));
    let difference = (sum + 0xffff).wrapping_sub(checksum.into());
    checksum != 0 && difference.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// Is there a checksum to be mended? A UDP packet without one is given one elsewhere.
#[inline(always)]
pub fn has_checksum(bytes: &Headers4, glance: &Glance) -> bool {
    !glance.is_udp() || get_u16(bytes, field(glance)) != 0
}

/// The place of the MACs.
#[inline(always)]
pub fn macs(bytes: &mut Headers4) -> &mut [u8; 12] {
    let (macs, _) = bytes.split_first_chunk_mut().unwrap_or_else(|| unreachable!());
    macs
}

/// Sends the packet on as it is, one hop older.
#[inline(always)]
pub fn pass(bytes: &mut Headers4) {
    age(bytes, L3);
}

/// Gives the packet another destination.
#[inline(always)]
pub fn nat_in(bytes: &mut Headers4, glance: &Glance, to: End4) {
    let was = End4 { address: glance.addresses as u32, port: (glance.ports >> 32) as u16 };
    translate(bytes, glance, was, to);
    bytes[L3 + 16..L3 + 20].copy_from_slice(&to.address.to_be_bytes());
    put_u16(bytes, L4 + 2, to.port);
}

/// Gives the packet another source.
#[inline(always)]
pub fn nat_out(bytes: &mut Headers4, glance: &Glance, from: End4) {
    let was = End4 { address: (glance.addresses >> 32) as u32, port: (glance.ports >> 48) as u16 };
    translate(bytes, glance, was, from);
    bytes[L3 + 12..L3 + 16].copy_from_slice(&from.address.to_be_bytes());
    put_u16(bytes, L4, from.port);
}

/// Moves the head of the frame so that an outer header fits before the IP packet of `len` bytes, and cuts off what is
/// behind that. The frame then begins with a link header that is not written but for its type. `None`, and nothing done,
/// if there is no room.
#[inline(always)]
pub fn widen<'p>(packet: &'p mut Packet<'_>, len: usize) -> Option<&'p mut Headers4> {
    packet.rehead(L3, L3 + OUTER)?;
    packet.set_len(L3 + OUTER + len);
    let bytes: &mut Headers4 = packet.head_mut()?;
    bytes[12..14].copy_from_slice(&[8, 0]);
    Some(bytes)
}

/// Must the packet behind the outer header not be fragmented?
#[inline(always)]
pub fn dont_fragment(bytes: &Headers4) -> bool {
    bytes[L3 + OUTER + 6] & 0x40 != 0
}

/// Takes one hop off the TTL of the packet inside, which has `len` bytes, and writes the outer header (see [`tun`](super::tun)).
#[inline(always)]
pub fn wrap(bytes: &mut Headers4, len: usize, outer: Outer4) {
    let Outer4 { source, server, ident } = outer;
    let inside = L3 + OUTER;
    age(bytes, inside);
    let class = bytes[inside + 1];
    let class = if class & 3 == 3 { class & !3 | 2 } else { class };
    let first = 0x4500_0000 | u32::from(class) << 16 | (OUTER + len) as u32;
    let second = ident.map_or(0x4000, |ident| u32::from(ident) << 16);
    let third = u32::from(bytes[inside + 8]) << 24 | 4 << 16;
    let words = [first, second, third, source, server];
    let sum = words.iter().map(|&word| u64::from(word)).sum();
    let words = [first, second, third | u32::from(!fold(sum)), source, server];
    for (at, word) in words.iter().enumerate() {
        bytes[L3 + at * 4..L3 + at * 4 + 4].copy_from_slice(&word.to_be_bytes());
    }
}

/// TTL and both checksums for a change of one end (RFC 1624, equation 3).
#[inline(always)]
fn translate(bytes: &mut Headers4, glance: &Glance, old: End4, new: End4) {
    // What the word of TTL and protocol does to a checksum, whatever it is: !before + after.
    const OLDER: u64 = 0xfeff;
    let addresses = u64::from(!old.address) + u64::from(new.address);
    bytes[L3 + 8] -= 1;
    let sum = addresses + OLDER + u64::from(!get_u16(bytes, L3 + 10));
    put_u16(bytes, L3 + 10, !fold(sum));
    let at = field(glance);
    let sum = addresses + u64::from(!old.port) + u64::from(new.port) + u64::from(!get_u16(bytes, at));
    let sum = !fold(sum);
    put_u16(bytes, at, if sum == 0 && glance.is_udp() { 0xffff } else { sum });
}

/// Takes one hop off the TTL, which a glance has found to be large enough: the checksum grows by what it loses.
#[inline(always)]
fn age(bytes: &mut Headers4, l3: usize) {
    bytes[l3 + 8] -= 1;
    let sum = u32::from(get_u16(bytes, l3 + 10)) + 0x0100;
    put_u16(bytes, l3 + 10, (sum + u32::from(sum >= 0xffff)) as u16);
}

/// A sum of less than 2^40 in 16 bits, with its carries. 16-bit words may stand in it in any place of 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}
