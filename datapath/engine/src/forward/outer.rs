//! The outer IP header of a tunnel (RFC 2003, RFC 2473).
//!
//! As IPVS writes it: the TTL is the inner one after its decrement; the traffic class is copied, with congestion marks
//! by the full-functionality rule of RFC 3168; the flow label is 0; and IPv4's identification counts on where the packet
//! may be fragmented, and is 0 where it may not (RFC 6864).
//!
//! Not here: whether "don't fragment" is set, and what stands behind this header.

use crate::flow::{Address, Family, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::{Headers, put_u16};

/// What the outer header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) source: Address,
    pub(super) server: Address,
    /// Traffic class, as [`class`] makes it of the inner one.
    pub(super) class: u8,
    pub(super) ttl: u8,
    pub(super) protocol: Protocol,
    /// Identification, where the packet may be fragmented; `None` where it may not.
    pub(super) ident: Option<u16>,
}

impl Outer {
    /// Writes the header to where `header` begins; `payload` is the length of what follows. `None` if that is too long.
    #[inline]
    pub(super) fn write(&self, header: &mut [u8], payload: usize) -> Option<()> {
        match self.server.family() {
            Family::Inet => {
                let mut ip = [0; 20];
                ip[0] = 0x45;
                ip[1] = self.class;
                put_u16(&mut ip, 2, u16::try_from(payload + 20).ok()?);
                put_u16(&mut ip, 4, self.ident.unwrap_or(0));
                put_u16(&mut ip, 6, if self.ident.is_none() { 0x4000 } else { 0 });
                ip[8] = self.ttl;
                ip[9] = self.protocol.0;
                ip[12..16].copy_from_slice(&self.source.octets4());
                ip[16..20].copy_from_slice(&self.server.octets4());
                let checksum = Sum::default().bytes(&ip).finish();
                put_u16(&mut ip, 10, checksum);
                *header.first_chunk_mut()? = ip;
            }
            Family::Inet6 => {
                let mut ip = [0; 40];
                ip[0] = 0x60 | self.class >> 4;
                ip[1] = self.class << 4;
                put_u16(&mut ip, 4, u16::try_from(payload).ok()?);
                ip[6] = self.protocol.0;
                ip[7] = self.ttl;
                ip[8..24].copy_from_slice(&self.source.octets16());
                ip[24..40].copy_from_slice(&self.server.octets16());
                *header.first_chunk_mut()? = ip;
            }
        }
        Some(())
    }
}

/// The outer traffic class: the inner one, but "congestion experienced" starts afresh as "capable" (RFC 3168, 9.1.1).
#[inline]
pub(super) fn class(frame: &[u8], headers: &Headers) -> u8 {
    let class = match headers.family {
        Family::Inet => frame[headers.l3 + 1],
        Family::Inet6 => frame[headers.l3] << 4 | frame[headers.l3 + 1] >> 4,
    };
    if class & 3 == 3 { class & !3 | 2 } else { class }
}
