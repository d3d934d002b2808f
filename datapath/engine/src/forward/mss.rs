//! The clamping of MSS: a SYN that goes into a tunnel asks for segments no larger than what fits the tunnel.
//!
//! The option in a client's SYN limits what the *server* sends. For a tunnelled server that is all that the director can
//! do: its answers do not pass here, so what the client sends is not limited by an option, but by path MTU discovery
//! (the director's "fragmentation needed"). It helps all the same: a server's large segments need not find out about
//! the client's way by errors that some network filters. IPVS has no such thing; it is off unless switched on
//! (`xvs.mss_clamp`).
//!
//! Invariant: the option only ever becomes smaller, everything else stays, and the checksum follows by difference. A
//! SYN without the option gets none: its peer then sends no more than 536 bytes (IPv6: 1220), which fit. What comes
//! behind options that contradict themselves is left alone.

use crate::flow::Family;
use crate::wire::checksum::Delta;
use crate::wire::{Headers, TcpFlags, get_u16, put_u16};

/// Where TCP's options begin, and where its checksum stands.
const OPTIONS: usize = 20;
const CHECKSUM: usize = 16;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const MSS_LENGTH: usize = 4;

/// Lowers the MSS option of a SYN to what fits IP packets of `room` bytes. `true` if it was larger.
pub fn clamp(frame: &mut [u8], headers: &Headers, room: usize) -> bool {
    if !headers.tcp.has(TcpFlags::SYN) {
        return false;
    }
    let ip = if headers.family == Family::Inet { 20 } else { 40 };
    let fits = u16::try_from(room.saturating_sub(ip + 20)).unwrap_or(u16::MAX);
    // The parser vouches for the fixed header and for the length of the options.
    let segment = &mut frame[headers.l4..headers.end];
    let length = usize::from(segment[12] >> 4) * 4;
    let Some(at) = find(&segment[..length]) else { return false };
    let asked = get_u16(segment, at);
    if asked <= fits {
        return false;
    }
    put_u16(segment, at, fits);
    // At an odd place the value lies across two words of the sum, and counts with its bytes swapped.
    let delta = match at % 2 {
        0 => Delta::default().u16(asked, fits),
        _ => Delta::default().u16(asked.swap_bytes(), fits.swap_bytes()),
    };
    let checksum = delta.apply(get_u16(segment, CHECKSUM));
    put_u16(segment, CHECKSUM, checksum);
    true
}

/// Where the value of the MSS option stands in a TCP header.
fn find(header: &[u8]) -> Option<usize> {
    let mut at = OPTIONS;
    loop {
        match *header.get(at)? {
            END => return None,
            NOTHING => at += 1,
            kind => {
                let length = usize::from(*header.get(at + 1)?);
                if length < 2 || at + length > header.len() {
                    return None;
                }
                if kind == MSS {
                    return (length == MSS_LENGTH).then_some(at + 2);
                }
                at += length;
            }
        }
    }
}
