//! What happens to the bytes of a packet on its way through: one file a method, each rewrite in one place.
//!
//! Everything here works on a parsed packet and changes it in its frame. Which connection, which server and which next
//! hop is decided elsewhere.

pub mod checksum;
pub mod crc32c;
pub mod cut;
pub mod express;
pub mod express6;
mod gre;
mod gue;
pub mod icmp;
pub mod link;
pub mod mss;
pub mod nat;
mod own;
pub mod quoted;
pub mod reset;
pub mod tun;

use crate::flow::Family;
use crate::wire::checksum::Delta;
use crate::wire::{Headers, get_u16, put_u16};

/// Takes one hop off the TTL or hop limit. The caller has checked that it is above 1.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], headers: &Headers) {
    match headers.family {
        Family::Inet => {
            let at = headers.l3 + 8;
            let before = get_u16(frame, at); // TTL and protocol: the 16-bit word that the checksum covers
            let after = before.wrapping_sub(0x0100);
            put_u16(frame, at, after);
            let checksum = get_u16(frame, headers.l3 + 10);
            put_u16(frame, headers.l3 + 10, Delta::default().u16(before, after).apply(checksum));
        }
        Family::Inet6 => frame[headers.l3 + 7] = frame[headers.l3 + 7].wrapping_sub(1),
    }
}
