//! How a service treats new connections, besides its scheduler.
//!
//! Invariant: plain values. What most policies say fits into one word, which is read without the service's lock; a policy
//! that does not fit says so in that word.

/// Persistence of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Life of a new template, in seconds.
    pub timeout_s: u32,
    /// The bits of a client's address (IPv4: in its mapped form) that clients of one template share.
    pub mask: u128,
}

/// What knows a client by its messages instead of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistenceEngine {
    /// SIP over UDP: each call is a client of its own, known by its Call-ID.
    Sip,
}

/// How a service treats new connections, besides its scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The scheduler's three flags.
    pub flags: u8,
    /// Persistence, if it has it.
    pub persistence: Option<Persistence>,
    /// What tells one client from another, besides addresses. It also lets NAT servers begin connections outwards.
    pub engine: Option<PersistenceEngine>,
    /// Each UDP packet is scheduled by itself.
    pub one_packet: bool,
    /// The class of timeouts of its connections; 0 is the director's own.
    pub class: u8,
}

impl Policy {
    /// Flags in the lowest byte, class in the next, then bits: one-packet scheduling, and more than fits here.
    pub(super) fn packed(&self) -> u32 {
        let more = self.persistence.is_some() || self.engine.is_some();
        u32::from(self.flags) | u32::from(self.class) << 8 | u32::from(self.one_packet) << 16 | u32::from(more) << 17
    }

    /// The policy, if all of it is there.
    pub(super) fn unpacked(packed: u32) -> Option<Policy> {
        let (flags, class, one_packet) = (packed as u8, (packed >> 8) as u8, packed >> 16 & 1 != 0);
        let whole = Policy { flags, persistence: None, engine: None, one_packet, class };
        (packed >> 17 & 1 == 0).then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is packed is the policy again, and a policy that does not fit says so.
    #[test]
    fn policies_are_packed_whole_or_not_at_all() {
        for bits in 0..16u8 {
            let policy = Policy {
                flags: bits & 7,
                persistence: None,
                engine: None,
                one_packet: bits & 1 != 0,
                class: bits.wrapping_mul(17),
            };
            assert_eq!(Policy::unpacked(policy.packed()), Some(policy));
            let persistence = Some(Persistence { timeout_s: 300, mask: u128::MAX });
            assert_eq!(Policy::unpacked(Policy { persistence, ..policy }.packed()), None);
            let engine = Some(PersistenceEngine::Sip);
            let packed = Policy { engine, ..policy }.packed();
            assert_eq!((Policy::unpacked(packed), packed as u8), (None, policy.flags));
        }
    }
}
