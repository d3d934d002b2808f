//! IP headers of the director's own: outside of a tunnel, before an ICMP error, before a reset.
//!
//! No options, flow label 0; IPv4's identification is 0 where the packet may not be fragmented (RFC 6864). Not here: what
//! the fields are for each of them, and what stands behind the header.

use crate::flow::{Address, Family, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::put_u16;

/// What the header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) source: Address,
    pub(super) destination: Address,
    /// Traffic class (IPv4: type of service).
    pub(super) class: u8,
    pub(super) ttl: u8,
    pub(super) protocol: Protocol,
    /// Identification, where the packet may be fragmented; `None` where it may not.
    pub(super) ident: Option<u16>,
}

impl Own {
    /// Writes the header to where `header` begins; `payload` is the length of what follows. `None` if that is too long.
    #[inline]
    pub(super) fn write(&self, header: &mut [u8], payload: usize) -> Option<()> {
        match self.destination.family() {
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
                ip[16..20].copy_from_slice(&self.destination.octets4());
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
                ip[24..40].copy_from_slice(&self.destination.octets16());
                *header.first_chunk_mut()? = ip;
            }
        }
        Some(())
    }
}
