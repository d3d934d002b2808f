//! What becomes of a packet (decision record 0006).
//!
//! Invariant: one word, so that it is returned in a register. A verdict is carried out by the worker, which has the frames.

use std::num::NonZeroU16;

use crate::drop::DropReason;
use crate::hop::{HopId, Port};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is ready: send it through this device.
    Transmit(Port),
    /// It is ready but for its size: cut it into IP packets of at most `mtu` bytes, and send them through this device.
    Split {
        /// The device.
        port: Port,
        /// The largest IP packet that takes this way.
        mtu: u16,
    },
    /// It became an answer to its sender: send it back through the device that it came in by.
    Reflect,
    /// It can not go on yet: keep it for a moment, then ask again.
    Hold(Awaited),
    /// It goes no further.
    Drop(DropReason),
}

impl Verdict {
    /// The verdict on a packet that is also too large for its way, and may be cut.
    #[cold]
    pub(super) fn cut(self, mtu: usize) -> Self {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        match self {
            Verdict::Transmit(port) => Verdict::Split { port, mtu },
            Verdict::Hold(Awaited::Mac { hop, .. }) => {
                Verdict::Hold(Awaited::Mac { hop, mtu: NonZeroU16::new(mtu.max(1)) })
            }
            other => other,
        }
    }
}

/// What a packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The MAC of its next hop; all else is ready. Ask [`release`](super::Engine::release).
    Mac {
        /// The next hop.
        hop: HopId,
        /// It must be cut to this size then.
        mtu: Option<NonZeroU16>,
    },
    /// The first fragment of its packet; it is as it came. Ask [`forward`](super::Engine::forward) again when that one has passed.
    FirstFragment,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A verdict is returned for each packet, in a register.
    #[test]
    fn a_verdict_is_one_word() {
        assert_eq!(size_of::<Result<Verdict, DropReason>>(), 8);
    }
}
