//! What an entry says of its connection in bits: flags and state.
//!
//! Invariant: plain values, as they stand in the control word. Who changes them is the entry's business.

use crate::real::Method;

/// Flags of a connection; the numbers are IPVS's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// No packet from the real server was seen, or can be.
    pub const NO_OUTPUT: u16 = 0x0080;
    /// Does not count as active.
    pub const INACTIVE: u16 = 0x0100;
    /// A template of persistence.
    pub const TEMPLATE: u16 = 0x1000;
    /// A template of a service that schedules each packet by itself; or a note for answers to such packets, which is found
    /// by them alone and counts nowhere.
    pub const ONE_PACKET: u16 = 0x2000;

    /// Flags of a note for answers.
    pub fn note() -> Self {
        Flags(Method::Nat as u16 | Self::INACTIVE | Self::ONE_PACKET)
    }

    /// A template that leads nowhere any more and waits for its end. (Ours: IPVS gives it ports that nobody asks for.)
    pub const RETIRED: u16 = 0x4000;

    /// Flags of a template that leads to a server of this method.
    pub fn template(method: Method) -> Self {
        Flags(method as u16 | Self::INACTIVE | Self::TEMPLATE)
    }

    /// Flags of a new connection by this method.
    pub fn new(method: Method) -> Self {
        let one_way = if method == Method::Nat { 0 } else { Self::NO_OUTPUT };
        Flags(method as u16 | Self::INACTIVE | one_way)
    }

    /// Is this flag set?
    #[inline]
    pub const fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    /// With this flag set or cleared.
    #[inline]
    pub const fn with(self, flag: u16, set: bool) -> Self {
        Flags(if set { self.0 | flag } else { self.0 & !flag })
    }

    /// The forwarding method that the connection was made with.
    #[inline]
    pub fn method(self) -> Method {
        Method::from_bits(self.0 as u8).unwrap_or(Method::Dr)
    }
}

/// State and flags of a connection at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The protocol's state number; 0 where it has only one.
    pub state: u8,
    /// Flags.
    pub flags: Flags,
}
