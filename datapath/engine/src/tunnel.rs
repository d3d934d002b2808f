//! How packets are wrapped for a TUN real server: what an operator sets, and how a record keeps it.
//!
//! Invariant: a tunnel fits a 32-bit word and comes back from it as it was, so a record is read in one load and an edit
//! is seen whole. The bytes of a tunnel are in [`forward`](crate::forward).

use crate::flow::Family;

/// An encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IP in IP: nothing between the two IP headers.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// Destination port.
        port: u16,
        /// What stands in the outer UDP checksum.
        checksum: GueChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// With a checksum over GRE header and payload.
        checksum: bool,
    },
}

/// What stands in the outer UDP checksum of GUE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GueChecksum {
    /// 0, for IPv6 outside as well (RFC 6935).
    #[default]
    None,
    /// The checksum.
    Full,
    /// The checksum, and the inner one left to the receiver if it is partial. The director completes partial checksums
    /// before it looks at a packet, so none is left here, and IPVS sends such packets as with `Full`.
    Remote,
}

const KIND_GUE: u32 = 1;
const KIND_GRE: u32 = 2;

impl Tunnel {
    /// As a record keeps it: port, checksum, kind.
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Tunnel::Ipip => 0,
            Tunnel::Gue { port, checksum } => (port as u32) << 16 | (checksum as u32) << 8 | KIND_GUE,
            Tunnel::Gre { checksum } => (checksum as u32) << 8 | KIND_GRE,
        }
    }

    /// From [`Tunnel::bits`].
    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        let checksum = (bits >> 8) as u8;
        match bits & 0xff {
            KIND_GUE => {
                let checksum = match checksum {
                    0 => GueChecksum::None,
                    1 => GueChecksum::Full,
                    _ => GueChecksum::Remote,
                };
                Tunnel::Gue { port: (bits >> 16) as u16, checksum }
            }
            KIND_GRE => Tunnel::Gre { checksum: checksum != 0 },
            _ => Tunnel::Ipip,
        }
    }

    /// Bytes between the outer and the inner IP header.
    #[inline]
    pub const fn header(self) -> usize {
        match self {
            Tunnel::Ipip => 0,
            Tunnel::Gue { .. } => 8 + 4,
            Tunnel::Gre { checksum: false } => 4,
            Tunnel::Gre { checksum: true } => 8,
        }
    }

    /// Bytes that a packet grows by: the tunnel's own, and an outer IP header of this family.
    #[inline]
    pub const fn overhead(self, outer: Family) -> usize {
        let ip = match outer {
            Family::Inet => 20,
            Family::Inet6 => 40,
        };
        ip + self.header()
    }
}

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tunnel::Ipip => f.write_str("IPIP"),
            Tunnel::Gue { port, .. } => write!(f, "GUE, port {port}"),
            Tunnel::Gre { .. } => f.write_str("GRE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record must give back the tunnel that was set, and no two may share a word.
    #[test]
    fn tunnels_come_back_from_their_bits() {
        let gue = |port, checksum| Tunnel::Gue { port, checksum };
        let all = [
            Tunnel::Ipip,
            gue(1, GueChecksum::None),
            gue(6080, GueChecksum::Full),
            gue(65535, GueChecksum::Remote),
            gue(65535, GueChecksum::Full),
            Tunnel::Gre { checksum: false },
            Tunnel::Gre { checksum: true },
        ];
        for (index, tunnel) in all.into_iter().enumerate() {
            assert_eq!(Tunnel::from_bits(tunnel.bits()), tunnel);
            assert!(all[..index].iter().all(|other| other.bits() != tunnel.bits()));
        }
    }

    /// IPVS-REFERENCE 4.5.3: extra bytes of each kind.
    #[test]
    fn overheads_are_the_kernels() {
        let gue = Tunnel::Gue { port: 6080, checksum: GueChecksum::Remote };
        let overheads = |tunnel: Tunnel| [Family::Inet, Family::Inet6].map(|family| tunnel.overhead(family));
        assert_eq!(overheads(Tunnel::Ipip), [20, 40]);
        assert_eq!(overheads(gue), [32, 52]);
        assert_eq!(overheads(Tunnel::Gre { checksum: false }), [24, 44]);
        assert_eq!(overheads(Tunnel::Gre { checksum: true }), [28, 48]);
    }
}
