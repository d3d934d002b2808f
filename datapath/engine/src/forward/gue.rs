//! Generic UDP encapsulation, version 0: a UDP header and four bytes that say which IP version follows.
//!
//! The four bytes: version 0, no control message, no optional words, protocol 4 or 41, no flags. The source port tells
//! routers the inner flow apart: it is the flow's hash, mapped into the range of local ports, the same for each packet
//! of a flow.
//!
//! The outer checksum is 0 ("nocsum", for IPv6 outside as well, which RFC 6935 allows tunnels) or that of the whole
//! datagram. "remcsum" is the same as "csum" here: it differs only for a packet whose inner checksum is left to the
//! hardware, and such a one is completed before it comes here ([`checksum`](super::checksum)); so there are no optional
//! words to write (IPVS-REFERENCE 4.5.3).

use crate::flow::{Address, FlowHash, Protocol};
use crate::wire::checksum::Sum;
use crate::wire::put_u16;

/// Where source ports start, and how many there are: Linux's range of local ports, 32768 to 60999, whose last one the
/// kernel's own mapping never reaches.
const FIRST_PORT: u32 = 32768;
const PORTS: u64 = 60999 - 32768;

/// The source port of a flow.
#[inline]
pub(super) fn source_port(flow: FlowHash) -> u16 {
    let hash = flow.0 >> 32;
    (FIRST_PORT + ((hash * PORTS) >> 32) as u32) as u16
}

/// May this be the source port of a flow?
pub(super) fn is_source_port(port: u16) -> bool {
    let first = u64::from(FIRST_PORT);
    (first..first + PORTS).contains(&port.into())
}

/// Writes the headers before an IP packet of this protocol number (4 or 41), with the checksum field 0. `datagram`
/// begins with the room for them and ends with the packet. `None` if it is too long.
#[inline]
pub(super) fn write(datagram: &mut [u8], inner: Protocol, source_port: u16, port: u16) -> Option<()> {
    let length = u16::try_from(datagram.len()).ok()?;
    put_u16(datagram, 0, source_port);
    put_u16(datagram, 2, port);
    put_u16(datagram, 4, length);
    put_u16(datagram, 6, 0);
    datagram[8..12].copy_from_slice(&[0, inner.0, 0, 0]);
    Some(())
}

/// Fills in the outer checksum of a datagram whose field is 0.
pub(super) fn sum(datagram: &mut [u8], source: Address, server: Address) {
    let sum = Sum::default().pseudo(source, server, Protocol::UDP, datagram.len()).bytes(datagram).finish();
    put_u16(datagram, 6, if sum == 0 { 0xffff } else { sum });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports stay in the kernel's default range, reach both of its ends, and are spread evenly.
    #[test]
    fn source_ports_fill_their_range() {
        assert_eq!(source_port(FlowHash(0)), 32768);
        assert_eq!(source_port(FlowHash(u64::MAX)), 60998);
        assert_eq!(source_port(FlowHash(1 << 63)), 32768 + 14115);
    }
}
