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
    /// What most policies say.
    pub(super) fn terms(&self) -> Terms {
        let more = self.persistence.is_some() || self.engine.is_some();
        let bits = u32::from(self.one_packet) << 16 | u32::from(more) << 17;
        Terms(bits | u32::from(self.class) << 8 | u32::from(self.flags))
    }
}

/// What most policies say, in one word: flags in the lowest byte, class in the next, then bits: one-packet scheduling, and
/// more than fits here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms(pub(super) u32);

impl Terms {
    /// Is it all that the policy says?
    #[inline(always)]
    pub(crate) fn is_all(self) -> bool {
        self.0 >> 17 & 1 == 0
    }

    /// Is each UDP packet scheduled by itself?
    #[inline(always)]
    pub(crate) fn one_packet(self) -> bool {
        self.0 >> 16 & 1 != 0
    }

    /// The class of timeouts.
    #[inline(always)]
    pub(crate) fn class(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The policy, if all of it is here.
    pub(crate) fn policy(self) -> Option<Policy> {
        let (one_packet, class) = (self.one_packet(), self.class());
        let whole = Policy { flags: self.0 as u8, persistence: None, engine: None, one_packet, class };
        self.is_all().then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of terms becomes the policy again, and those of a policy that does not fit say so.
    #[test]
    fn terms_are_the_whole_policy_or_say_so() {
        for bits in 0..16u8 {
            let policy = Policy {
                flags: bits & 7,
                persistence: None,
                engine: None,
                one_packet: bits & 1 != 0,
                class: bits.wrapping_mul(17),
            };
            assert_eq!(policy.terms().policy(), Some(policy));
            let persistence = Some(Persistence { timeout_s: 300, mask: u128::MAX });
            assert_eq!(Policy { persistence, ..policy }.terms().policy(), None);
            let engine = Some(PersistenceEngine::Sip);
            let terms = Policy { engine, ..policy }.terms();
            assert_eq!((terms.policy(), terms.0 as u8), (None, policy.flags));
        }
    }
}
