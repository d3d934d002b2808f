//! How long a connection is remembered, by protocol and state: a book of sets, one for the director and one for each
//! service that has its own.
//!
//! A set is called a [`Class`], because connections of many services may share one. Class 0 is the director's own, which
//! `ipvsadm --set` changes. A value that a class does not have is the director's; one that the director was not given
//! is IPVS's default. That is resolved when a value is set, so that a packet reads one number.
//!
//! Shared by all workers and set by the operator while they run; a connection takes a new value with its next packet.
//! Invariant: what is in force for a class is what its own value, the director's and the default say, as soon as the
//! last setter has returned, however many set at once. It is not the timeouts of persistence: those belong to services.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use super::timer::MAX_S;
use super::{sctp, tcp};

/// Seconds that a UDP flow is remembered after its last packet, unless set otherwise.
pub const UDP_DEFAULT_S: u32 = 300;

/// How many classes there are.
pub const CLASSES: usize = 1 << 7;

/// A set of timeouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Class(u8);

impl Class {
    /// The director's own.
    pub const DIRECTOR: Class = Class(0);

    /// By its number; `None` beyond the last one.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < CLASSES { Some(Class(number)) } else { None }
    }

    /// From the low seven bits of a word.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Class(bits & (CLASSES - 1) as u8)
    }

    /// Its number: seven bits.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// One timeout of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u8);

const TCP: usize = tcp::STATES.len();
const SCTP: usize = sctp::STATES.len();
const SLOTS: usize = TCP + 1 + SCTP;

impl Slot {
    /// A UDP flow's.
    pub const UDP: Slot = Slot(TCP as u8);

    /// Of a TCP state.
    #[inline]
    pub const fn tcp(state: tcp::State) -> Self {
        Slot(state as u8)
    }

    /// Of an SCTP state.
    #[inline]
    pub const fn sctp(state: sctp::State) -> Self {
        Slot((TCP + 1) as u8 + state as u8)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS as u8).map(Slot)
    }

    /// IPVS's timeout in seconds.
    pub fn default_s(self) -> u32 {
        match usize::from(self.0) {
            number if number < TCP => tcp::STATES[number].default_timeout_s(),
            TCP => UDP_DEFAULT_S,
            number => sctp::STATES[number - TCP - 1].default_timeout_s(),
        }
    }
}

/// A set has room for the slots of a power of two, so that its place needs no multiplication and no check.
type Set = [AtomicU32; SLOTS.next_power_of_two()];

/// The timeouts in force, in seconds.
#[derive(Debug)]
pub struct Timeouts {
    /// What was set for each class; 0: nothing.
    own: Box<[Set; CLASSES]>,
    /// What follows from it.
    in_force: Box<[Set; CLASSES]>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let book = |value: fn(Slot) -> u32| -> Box<[Set; CLASSES]> {
            let number = |slot: usize| slot.min(SLOTS - 1) as u8;
            let set = |_| std::array::from_fn(|slot| AtomicU32::new(value(Slot(number(slot)))));
            Box::new(std::array::from_fn(set))
        };
        Timeouts { own: book(|_| 0), in_force: book(Slot::default_s) }
    }
}

impl Timeouts {
    /// The timeout in force.
    #[inline(always)]
    pub fn get(&self, class: Class, slot: Slot) -> u32 {
        at(&self.in_force, class, slot).load(Relaxed)
    }

    /// Of a TCP state.
    #[inline]
    pub fn tcp(&self, class: Class, state: tcp::State) -> u32 {
        self.get(class, Slot::tcp(state))
    }

    /// Of a UDP flow.
    #[inline]
    pub fn udp(&self, class: Class) -> u32 {
        self.get(class, Slot::UDP)
    }

    /// Of an SCTP state.
    #[inline]
    pub fn sctp(&self, class: Class, state: sctp::State) -> u32 {
        self.get(class, Slot::sctp(state))
    }

    /// The class's own value; `None` if it goes by the director's, or the director by the default.
    pub fn own(&self, class: Class, slot: Slot) -> Option<u32> {
        Some(at(&self.own, class, slot).load(SeqCst)).filter(|seconds| *seconds != 0)
    }

    /// Sets a timeout of a class. 0 takes its own value back: it is the director's again; the director's is the default.
    pub fn set(&self, class: Class, slot: Slot, seconds: u32) {
        at(&self.own, class, slot).store(seconds, SeqCst);
        if class == Class::DIRECTOR {
            (0..CLASSES as u8).for_each(|number| self.resolve(Class(number), slot));
        } else {
            self.resolve(class, slot);
        }
    }

    /// Takes all own values of a class back: its connections go by the director's from their next packet on.
    pub fn clear(&self, class: Class) {
        Slot::all().for_each(|slot| self.set(class, slot, 0));
    }

    /// What follows from what was set.
    fn wanted(&self, class: Class, slot: Slot) -> u32 {
        let seconds = self.own(class, slot).or_else(|| self.own(Class::DIRECTOR, slot));
        seconds.unwrap_or_else(|| slot.default_s()).min(MAX_S)
    }

    /// Brings into force what is wanted. Whoever stores looks again, so the last one to store has seen the last value.
    fn resolve(&self, class: Class, slot: Slot) {
        loop {
            let seconds = self.wanted(class, slot);
            at(&self.in_force, class, slot).store(seconds, SeqCst);
            if self.wanted(class, slot) == seconds {
                return;
            }
        }
    }
}

#[inline(always)]
fn at(book: &[Set; CLASSES], class: Class, slot: Slot) -> &AtomicU32 {
    let slots = &book[usize::from(class.0) & (CLASSES - 1)];
    &slots[usize::from(slot.0) & (slots.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Every slot is another one, and begins as its protocol's state has it.
    #[test]
    fn slots_are_distinct_and_begin_as_ipvs_has_them() {
        let timeouts = Timeouts::default();
        let tcp = tcp::STATES.map(|state| (Slot::tcp(state), state.default_timeout_s()));
        let sctp = sctp::STATES.map(|state| (Slot::sctp(state), state.default_timeout_s()));
        let all: HashMap<_, _> = tcp.into_iter().chain(sctp).chain([(Slot::UDP, UDP_DEFAULT_S)]).collect();
        assert_eq!(all.len(), SLOTS);
        assert!(Slot::all().all(|slot| all.contains_key(&slot)));
        for class in [0, 1, 127].map(|number| Class::new(number).unwrap()) {
            for (&slot, &seconds) in &all {
                assert_eq!((timeouts.get(class, slot), timeouts.own(class, slot)), (seconds, None));
            }
        }
        assert_eq!(Class::new(128), None);
        assert_eq!(Class::from_bits(0x85).number(), 5);
    }

    /// Two who set at once leave behind what the values say that were stored last, not what one of them once saw.
    #[test]
    fn setters_at_once_agree() {
        let timeouts = Timeouts::default();
        let own = Class::new(5).unwrap();
        for round in 0..2000 {
            std::thread::scope(|scope| {
                scope.spawn(|| timeouts.set(Class::DIRECTOR, Slot::UDP, 1 + round));
                scope.spawn(|| timeouts.set(own, Slot::UDP, if round % 2 == 0 { 0 } else { 7 }));
            });
            assert_eq!(timeouts.udp(own), if round % 2 == 0 { 1 + round } else { 7 });
            assert_eq!(timeouts.udp(Class::DIRECTOR), 1 + round);
        }
    }

    proptest! {
        /// Whatever is set and cleared in whatever order: a class's own value, or the director's, or the default.
        #[test]
        fn own_value_or_directors_or_default(steps in proptest::collection::vec(
            (0u8..4, 0u8..SLOTS as u8, prop_oneof![Just(0u32), 1u32..100_000], 0u8..8), 1..60))
        {
            let timeouts = Timeouts::default();
            let mut model = HashMap::new();
            for (class, slot, seconds, how) in steps {
                match how {
                    0 => {
                        timeouts.clear(Class(class));
                        model.retain(|&(owner, _), _| owner != class);
                    }
                    _ => {
                        timeouts.set(Class(class), Slot(slot), seconds);
                        model.insert((class, slot), seconds);
                    }
                }
                model.retain(|_, seconds| *seconds != 0);
                for (class, slot) in (0u8..5).flat_map(|class| Slot::all().map(move |slot| (class, slot))) {
                    let own = model.get(&(class, slot.0));
                    let expected = own.or(model.get(&(0, slot.0))).copied().unwrap_or(slot.default_s());
                    prop_assert_eq!(timeouts.get(Class(class), slot), expected);
                    prop_assert_eq!(timeouts.own(Class(class), slot), own.copied());
                }
            }
        }
    }
}
