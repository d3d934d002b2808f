//! The rewrites of the express lane: IPv4, untagged, no options; a few stores over the headers.
//!
//! Invariant: the bytes that come out are those that [`decrement_ttl`](super::decrement_ttl), [`nat`](super::nat),
//! [`tun`](super::tun) and [`link`](super::link) make of the packet. They work on what a [`Glance`] has accepted: its
//! offsets are fixed.

pub use crate::wire::glance::L3;
use crate::wire::glance::L4;

use super::tun::outer_class;
use crate::conn::{End4, Shift};
use crate::wire::{Glance, Packet, get_u16, put_u16};

/// The bytes that a rewrite touches: from the link header to the end of TCP's without options, or of the inner IPv4 header.
pub type Headers4 = [u8; L4 + 20];

/// Length of an outer IPv4 header.
pub const OUTER: usize = 20;

/// Times 65,535 it is 1.
const INVERSE: u32 = 0xfffe_ffff;

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

/// May the sender have left the payload's checksum to hardware ([`checksum`](super::checksum))? (Of packets without a checksum
/// a few look as if.)
#[inline(always)]
pub fn may_be_partial(bytes: &Headers4, glance: &Glance) -> bool {
    let addresses = add((glance.addresses >> 32) as u32, glance.addresses as u32);
    looks_partial(bytes, field(glance), addresses, glance, 20)
}

/// The same for a packet whose addresses have this sum and whose IP header this length.
#[inline(always)]
pub(super) fn looks_partial<A, const N: usize>(
    bytes: &[u8; N],
    field: usize,
    addresses: u32,
    glance: &Glance<A>,
    header: u32,
) -> bool {
    // All sums are modulo 2^32 - 1, a multiple of 65,535, so that their words of 16 bits may stand in either half.
    let rest = u32::from(glance.protocol().0) + glance.ip_len() as u32 + 0xffff - header;
    let difference = add(addresses, rest - u32::from(get_u16(bytes, field)));
    // The sum is the checksum if they differ by a multiple of 65,535, which one multiplication tells: by the inverse of
    // that, multiples become small numbers.
    difference.wrapping_mul(INVERSE) <= u32::MAX / 0xffff
}

/// The sum modulo 2^32 - 1.
#[inline(always)]
pub(super) fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
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

/// Gives the packet another destination, and its checksums the shift that follows from it.
#[inline(always)]
pub(crate) fn nat_in(bytes: &mut Headers4, glance: &Glance, to: End4, shift: Shift) {
    translate(bytes, glance, shift);
    bytes[L3 + 16..L3 + 20].copy_from_slice(&to.address.to_be_bytes());
    put_u16(bytes, L4 + 2, to.port);
}

/// Gives the packet another source, and its checksums the shift that follows from it.
#[inline(always)]
pub(crate) fn nat_out(bytes: &mut Headers4, glance: &Glance, from: End4, shift: Shift) {
    translate(bytes, glance, shift);
    bytes[L3 + 12..L3 + 16].copy_from_slice(&from.address.to_be_bytes());
    put_u16(bytes, L4, from.port);
}

/// Moves the head of the frame so that an outer header fits before the IP packet of `len` bytes, and cuts off what is
/// behind that. `None`, and nothing done, if there is no room.
#[inline(always)]
pub fn widen<'p>(packet: &'p mut Packet<'_>, len: usize) -> Option<&'p mut Headers4> {
    packet.rehead(L3, L3 + OUTER)?;
    packet.set_len(L3 + OUTER + len);
    packet.head_mut()
}

/// Must the packet behind the outer header not be fragmented?
#[inline(always)]
pub fn dont_fragment(bytes: &Headers4) -> bool {
    bytes[L3 + OUTER + 6] & 0x40 != 0
}

/// Takes one hop off the TTL of the packet inside, which has `len` bytes, and writes the outer header (see [`tun`](super::tun))
/// and the type of what follows the link header.
#[inline(always)]
pub fn wrap(bytes: &mut Headers4, len: usize, outer: Outer4) {
    let Outer4 { source, server, ident } = outer;
    let inside = L3 + OUTER;
    age(bytes, inside);
    let class = outer_class(bytes[inside + 1]);
    let first = 0x4500_0000 | u32::from(class) << 16 | (OUTER + len) as u32;
    let second = ident.map_or(0x4000, |ident| u32::from(ident) << 16);
    let third = u32::from(bytes[inside + 8]) << 24 | 4 << 16;
    let ends = u64::from(source) << 32 | u64::from(server);
    let sum = [first, second, third, source, server].iter().map(|&word| u64::from(word)).sum();
    let head = u64::from(first) << 32 | u64::from(second);
    put_u16(bytes, L3 - 2, 0x0800);
    bytes[L3..L3 + 8].copy_from_slice(&head.to_be_bytes());
    bytes[L3 + 8..L3 + 12].copy_from_slice(&(third | u32::from(!fold(sum))).to_be_bytes());
    bytes[L3 + 12..L3 + 20].copy_from_slice(&ends.to_be_bytes());
}

/// TTL and both checksums.
#[inline(always)]
fn translate(bytes: &mut Headers4, glance: &Glance, shift: Shift) {
    bytes[L3 + 8] -= 1;
    let ip = shifted(bytes, L3 + 10, shift.ip);
    bytes[L3 + 10..L3 + 12].copy_from_slice(&ip.to_ne_bytes());
    shift_payload(bytes, field(glance), glance.is_udp(), shift);
}

/// The checksum of TCP or UDP.
#[inline(always)]
pub(super) fn shift_payload<const N: usize>(bytes: &mut [u8; N], at: usize, is_udp: bool, shift: Shift) {
    let payload = shifted(bytes, at, shift.payload);
    let payload = if payload == 0 && is_udp { 0xffff } else { payload };
    bytes[at..at + 2].copy_from_slice(&payload.to_ne_bytes());
}

/// What a checksum becomes, in the order of bytes that it has in memory: sums do not depend on that.
#[inline(always)]
fn shifted<const N: usize>(bytes: &[u8; N], at: usize, shift: u16) -> u16 {
    let (sum, carry) = (!u16::from_ne_bytes([bytes[at], bytes[at + 1]])).overflowing_add(shift);
    !(sum + u16::from(carry))
}

/// Takes one hop off the TTL, which a glance has found to be large enough: the checksum grows by what it loses.
#[inline(always)]
fn age(bytes: &mut Headers4, l3: usize) {
    bytes[l3 + 8] -= 1;
    // In the order of bytes that it has in memory: sums do not depend on that.
    let sum = u32::from(u16::from_ne_bytes([bytes[l3 + 10], bytes[l3 + 11]])) + u32::from(0x0100_u16.to_be());
    let sum = (sum + u32::from(sum >= 0xffff)) as u16;
    bytes[l3 + 10..l3 + 12].copy_from_slice(&sum.to_ne_bytes());
}

/// A sum of less than 2^40 in 16 bits, with its carries. 16-bit words may stand in it in any place of 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = ((sum >> 16) + (sum & 0xffff)) as u32;
    // Upper and lower half are added in both orders: the carry of the lower sum is what the upper one still lacks.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}
