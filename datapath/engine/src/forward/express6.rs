//! The rewrites of the express lane for IPv6: untagged, no extension headers.
//!
//! Invariant: as [`express`](super::express) has it for IPv4.

use super::tun::outer_class;
use crate::conn::Shift;
use crate::flow::{Address, Protocol};
use crate::wire::glance::{L3, L4_OF_6 as L4};
use crate::wire::{Glance6, put_u16};

use super::express::{add, looks_partial, shift_payload};

/// The bytes that a rewrite touches: from the link header to the end of TCP's without options.
pub type Headers6 = [u8; L4 + 20];

/// Length of an outer header.
pub const OUTER: usize = 40;

/// Where the checksum of the payload stands.
#[inline(always)]
fn field(glance: &Glance6) -> usize {
    if glance.is_udp() { L4 + 6 } else { L4 + 16 }
}

/// As [`may_be_partial`](super::express::may_be_partial).
#[inline(always)]
pub fn may_be_partial(bytes: &Headers6, glance: &Glance6) -> bool {
    let halves = glance.addresses.iter().map(|word| add((word >> 32) as u32, *word as u32));
    looks_partial(bytes, field(glance), halves.fold(0, add), glance, 40)
}

/// As [`has_checksum`](super::express::has_checksum).
#[inline(always)]
pub fn has_checksum(bytes: &Headers6, glance: &Glance6) -> bool {
    let at = field(glance);
    !glance.is_udp() || bytes[at] | bytes[at + 1] != 0
}

/// The place of the MACs.
#[inline(always)]
pub fn macs(bytes: &mut Headers6) -> &mut [u8; 12] {
    let (macs, _) = bytes.split_first_chunk_mut().unwrap_or_else(|| unreachable!());
    macs
}

/// Sends the packet on as it is, one hop older.
#[inline(always)]
pub fn pass(bytes: &mut Headers6) {
    bytes[L3 + 7] -= 1;
}

/// Gives the packet another destination, and its checksum the shift that follows from it.
#[inline(always)]
pub(crate) fn nat_in(bytes: &mut Headers6, glance: &Glance6, to: ([u64; 2], u16), shift: Shift) {
    pass(bytes);
    shift_payload(bytes, field(glance), glance.is_udp(), shift);
    write(bytes, L3 + 24, to.0);
    put_u16(bytes, L4 + 2, to.1);
}

/// Gives the packet another source, and its checksum the shift that follows from it.
#[inline(always)]
pub(crate) fn nat_out(bytes: &mut Headers6, glance: &Glance6, from: ([u64; 2], u16), shift: Shift) {
    pass(bytes);
    shift_payload(bytes, field(glance), glance.is_udp(), shift);
    write(bytes, L3 + 8, from.0);
    put_u16(bytes, L4, from.1);
}

#[inline(always)]
fn write(bytes: &mut Headers6, at: usize, [high, low]: [u64; 2]) {
    bytes[at..at + 8].copy_from_slice(&high.to_be_bytes());
    bytes[at + 8..at + 16].copy_from_slice(&low.to_be_bytes());
}

/// Takes one hop off the packet inside, which has `len` bytes and begins behind the room for the outer header, and writes that
/// (see [`tun`](super::tun)) and the type of what follows the link header.
#[inline(always)]
pub fn wrap(bytes: &mut Headers6, len: usize, source: Address, server: Address) {
    let inside = L3 + OUTER;
    bytes[inside + 7] -= 1;
    let class = outer_class(bytes[inside] << 4 | bytes[inside + 1] >> 4);
    let (version, ttl) = (6 << 60 | u64::from(class) << 52, u64::from(bytes[inside + 7]));
    let first = version | (len as u64) << 16 | u64::from(Protocol::IPV6.0) << 8 | ttl;
    put_u16(bytes, L3 - 2, 0x86dd);
    bytes[L3..L3 + 8].copy_from_slice(&first.to_be_bytes());
    bytes[L3 + 8..L3 + 24].copy_from_slice(&source.octets16());
    bytes[L3 + 24..L3 + 40].copy_from_slice(&server.octets16());
}
