//! Which bits of a client's address count for persistence (`-M`).
//!
//! IPVS takes any IPv4 mask, one with holes included, and for IPv6 a prefix length. Written as it is typed:
//! `"255.0.255.0"`, or the number 64. Invariant: each set of bits has one form, so equal masks are equal values.
//!
//! Not here: which of them a service may have; that is for `config::rules`.

use std::fmt;
use std::net::Ipv4Addr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Family;

/// The bits of a client's address that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Of an IPv4 address.
    Dotted(Ipv4Addr),
    /// The first so many of an IPv6 address.
    Prefix(u8),
}

impl Mask {
    /// All bits.
    pub fn full(family: Family) -> Mask {
        match family {
            Family::Inet => Mask::Dotted(Ipv4Addr::BROADCAST),
            Family::Inet6 => Mask::Prefix(128),
        }
    }

    /// The first `length` bits; those that there are if it is longer than the address.
    pub fn leading(family: Family, length: u8) -> Mask {
        match family {
            Family::Inet => {
                let bits = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
                Mask::Dotted(Ipv4Addr::from(bits))
            }
            Family::Inet6 => Mask::Prefix(length),
        }
    }

    /// How many leading bits these are; `None` if the mask has holes.
    pub fn length(self) -> Option<u8> {
        match self {
            Mask::Prefix(length) => Some(length),
            Mask::Dotted(mask) => {
                let bits = u32::from(mask);
                (bits.leading_ones() + bits.trailing_zeros().min(bits.count_zeros()) == 32)
                    .then_some(bits.leading_ones() as u8)
            }
        }
    }

    /// The IP version that it is for.
    pub fn family(self) -> Family {
        match self {
            Mask::Dotted(_) => Family::Inet,
            Mask::Prefix(_) => Family::Inet6,
        }
    }

    /// The mask over the engine's 128 bits of an address, in which an IPv4 address is a mapped one and stays one.
    pub fn bits(self) -> u128 {
        match self {
            Mask::Dotted(mask) => u128::MAX << 32 | u128::from(u32::from(mask)),
            Mask::Prefix(length) => u128::MAX.checked_shl(128u32.saturating_sub(length.into())).unwrap_or(0),
        }
    }
}

/// As ipvsadm writes it.
impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mask::Dotted(mask) => mask.fmt(f),
            Mask::Prefix(length) => length.fmt(f),
        }
    }
}

impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Mask::Dotted(mask) => serializer.collect_str(mask),
            Mask::Prefix(length) => serializer.serialize_u8(*length),
        }
    }
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Mask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an IPv4 mask in quotes or an IPv6 prefix length")
            }

            fn visit_u64<E: de::Error>(self, length: u64) -> Result<Mask, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(length), &self);
                u8::try_from(length).map(Mask::Prefix).map_err(wrong)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Mask, E> {
                text.parse().map(Mask::Dotted).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the arithmetic of masks: lengths, holes, and the bits that the engine applies.
    #[test]
    fn lengths_holes_and_bits() {
        let dotted = |text: &str| Mask::Dotted(text.parse().expect("a mask"));
        assert_eq!(dotted("255.255.255.0").length(), Some(24));
        assert_eq!(dotted("255.255.255.255"), Mask::full(Family::Inet));
        assert_eq!((dotted("255.255.255.255").length(), dotted("0.0.0.0").length()), (Some(32), Some(0)));
        assert_eq!((dotted("255.0.255.0").length(), dotted("0.0.0.1").length()), (None, None));
        for length in 0..=32 {
            assert_eq!(Mask::leading(Family::Inet, length).length(), Some(length));
        }
        // An IPv4 address stays what it is, and no IPv6 address becomes one.
        let address = 0xffff_c000_0201_u128;
        assert_eq!(address & dotted("255.0.255.0").bits(), 0xffff_c000_0200);
        assert_eq!(address & dotted("0.0.0.0").bits(), 0xffff_0000_0000);
        assert_eq!(Mask::Prefix(64).bits(), u128::from(u64::MAX) << 64);
        assert_eq!((Mask::Prefix(128).bits(), Mask::Prefix(0).bits()), (u128::MAX, 0));
    }

    /// Guards the form on the control socket, and that nonsense there is refused.
    #[test]
    fn written_as_typed() {
        for (mask, json) in [(Mask::Prefix(64), "64"), (Mask::Dotted([255, 0, 255, 0].into()), "\"255.0.255.0\"")] {
            assert_eq!(serde_json::to_string(&mask).expect("text"), json);
            assert_eq!(serde_json::from_str::<Mask>(json).expect("a mask"), mask);
        }
        for wrong in ["256", "-1", "\"255.255\"", "\"64\"", "null", "1.5"] {
            assert!(serde_json::from_str::<Mask>(wrong).is_err(), "{wrong}");
        }
    }
}
