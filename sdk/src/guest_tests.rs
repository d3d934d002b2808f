//! A guest driven natively, the way the director drives a module: through its buffers.

extern crate std;

use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::{Facts, Health, Needs, Reals};

/// What it saw of a server: weight, active, total, usable, overloaded, last weight, id, health.
type Seen = (i32, u32, u32, bool, bool, i32, u64, Health);

/// Remembers what it is told, and picks what it is told to by the request's mark.
#[derive(Default)]
struct Witness {
    heard: Vec<(i32, usize, i32)>,
    options: Vec<u8>,
    seen: Vec<Seen>,
    clock: u64,
}

impl Scheduler for Witness {
    const NEEDS: Needs = Needs::COUNTS.and(Needs::FACTS);

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        self.options = options.to_vec();
        if options == b"wrong=1" {
            return Err("there is no option `wrong`");
        }
        Ok(())
    }

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        let (kind, index) = match change {
            Change::All => (0, 0),
            Change::Added(index) => (1, index),
            Change::Removed(index) => (2, index),
            Change::Edited(index) => (3, index),
        };
        self.heard.push((kind, index, reals.len() as i32));
    }

    fn health_changed<R: Reals + ?Sized>(&mut self, _: &R, index: usize) {
        self.heard.push((10, index, 0));
    }

    fn connections_changed<R: Reals + ?Sized>(&mut self, _: &R, index: usize, delta: i32) {
        self.heard.push((11, index, delta));
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        self.clock = request.now_ms;
        self.seen = (0..reals.len())
            .map(|i| {
                let usable = (reals.is_usable(i), reals.is_overloaded(i));
                let rest = (reals.last_weight(i), reals.id(i), reals.health(i));
                (reals.weight(i), reals.active(i), reals.total(i), usable.0, usable.1, rest.0, rest.1, rest.2)
            })
            .collect();
        match request.mark {
            0 => None,
            1 => Some(usize::MAX),
            2 => Some(reals.weight(reals.len()) as usize),
            mark => Some(mark as usize),
        }
    }

    fn save(&self, into: &mut [u8]) -> Option<usize> {
        into[..2].copy_from_slice(b"ok");
        Some(if self.heard.is_empty() { 2 } else { into.len() + 1 })
    }

    fn restore<R: Reals + ?Sized>(&mut self, _: &R, from: &[u8]) -> bool {
        from == b"ok"
    }
}

type Four = Buffers<4, 4, 4096, 4096>;

/// A scheduler and its buffers.
struct Guest {
    buffers: Box<Four>,
    seat: Seat<Witness>,
}

impl Guest {
    /// Calls an export that asks for a row.
    fn schedule(&self, grant: impl FnOnce(&mut Request)) -> i32 {
        // SAFETY: nothing else runs.
        unsafe { self.buffers.schedule(&self.seat, grant) }
    }

    /// What the scheduler saw.
    fn witness(&self) -> &Witness {
        // SAFETY: nothing else runs.
        unsafe { self.seat.scheduler() }
    }
}

fn guest() -> Guest {
    let guest = Guest { buffers: Box::new(Four::empty()), seat: Seat::unmade() };
    // SAFETY: nothing else runs.
    unsafe { guest.seat.make(Witness::default) };
    guest
}

/// Writes as the director would: at an address, in bytes of its own choice.
fn poke<T>(base: *mut u8, offset: usize, value: T) {
    // SAFETY: the tests write within the buffers, between two calls.
    unsafe { base.add(offset).cast::<T>().write_unaligned(value) }
}

fn peek(base: *mut u8, offset: usize) -> u32 {
    // SAFETY: as above.
    unsafe { base.add(offset).cast::<u32>().read_unaligned() }
}

/// The director accepts a module by these words: magic, version, capacity and strides, at the documented places.
#[test]
fn heads_are_filled() {
    let guest = guest();
    // SAFETY: nothing else runs.
    let (table, facts, options, state) =
        unsafe { (guest.buffers.table(), guest.buffers.facts(), guest.buffers.options(), guest.buffers.state()) };
    assert_eq!([0, 4, 16, 20].map(|at| peek(table, at)), [abi::MAGIC, 1, 4, 32]);
    assert_eq!([0, 4, 8].map(|at| peek(facts, at)), [abi::MAGIC, 4, 192]);
    assert_eq!((peek(options, 0), peek(state, 0)), (4096, 4096));
    let small = Buffers::<4, 0, 0, 0>::empty();
    // SAFETY: nothing else runs.
    unsafe { assert!(small.facts().is_null() && small.options().is_null() && small.state().is_null()) };
}

/// A row that the director writes is the row that the scheduler sees, and a count beyond the capacity is none.
#[test]
fn rows_are_seen() {
    let guest = guest();
    // SAFETY: nothing else runs.
    let table = unsafe { guest.buffers.table() };
    poke(table, 12, 2u32);
    let row = |flags| Row { weight: 5, active: 6, total: 7, flags, last_weight: 8, health: 100, id: 9 };
    poke(table, 32, row(abi::ROW_USABLE));
    poke(table, 64, Row { weight: 0, ..row(abi::ROW_QUIESCED | abi::ROW_OVERLOADED) });
    poke(guest.buffers.flow(), 44, 3u32);
    assert_eq!(guest.schedule(|request| request.now_ms = 77), 3);
    let seen = &guest.witness().seen;
    assert_eq!(seen[0], (5, 6, 7, true, false, 8, 9, Health::Well));
    assert_eq!(seen[1], (0, 6, 7, false, true, 8, 9, Health::Quiesced));
    assert_eq!(guest.witness().clock, 77);
    poke(table, 12, u32::MAX);
    guest.schedule(|_| ());
    assert_eq!(guest.witness().seen.len(), 4);
}

/// Nobody is -1, and an index that is none never turns into -1, which a plugin with `DENY` may say.
#[test]
fn answers_keep_their_meaning() {
    let guest = guest();
    assert_eq!(guest.schedule(|_| ()), abi::NOBODY);
    poke(guest.buffers.flow(), 44, 1u32);
    assert_eq!(guest.schedule(|_| ()), abi::FALLBACK);
}

/// A look beyond the list must end in a trap, not in other memory.
#[test]
#[should_panic(expected = "beyond the list")]
fn a_look_beyond_the_list_is_a_panic() {
    let guest = guest();
    poke(guest.buffers.flow(), 44, 2u32);
    guest.schedule(|_| ());
}

/// Facts stand where the specification says, and a length beyond the tags is cut.
#[test]
fn facts_are_seen() {
    let guest = guest();
    // SAFETY: nothing else runs.
    let (table, facts) = unsafe { (guest.buffers.table(), guest.buffers.facts()) };
    poke(table, 12, 2u32);
    poke(facts, 16 + 192 + 16, 8080u16);
    poke(facts, 16 + 192 + 64, -5i64);
    poke(facts, 16 + 192 + 72, 1000u32);
    poke(facts, 16 + 192 + 80, *b"zone=a,rack=7");
    // SAFETY: nobody writes while the view lives.
    let view = unsafe { guest.buffers.view() };
    assert_eq!(view.address(1), ([0; 16], 8080));
    assert_eq!((view.facts(1).metric, view.facts(1).tags.len()), (-5, 112));
    assert_eq!(view.facts(1).tag("zone"), Some(&b"a"[..]));
    assert_eq!(view.facts(2), Facts::default());
}

/// Events arrive as they were told; a kind of a later version means that all is new.
#[test]
fn events_are_heard() {
    let guest = guest();
    // SAFETY: nothing else runs.
    unsafe {
        for (kind, index) in [(0, 0), (1, 2), (2, 1), (3, 3), (9, 9)] {
            assert_eq!(guest.buffers.changed(&guest.seat, kind, index), abi::CHANGED_DONE);
        }
        guest.buffers.health(&guest.seat, 2);
        guest.buffers.connections(&guest.seat, 3, -1);
        let expected = [(0, 0, 0), (1, 2, 0), (2, 1, 0), (3, 3, 0), (0, 0, 0), (10, 2, 0), (11, 3, -1)];
        assert_eq!(guest.witness().heard, expected);
    }
}

/// Options are taken in, or refused with a sentence in the same buffer.
#[test]
fn options_are_taken_or_refused() {
    let guest = guest();
    // SAFETY: nothing else runs.
    unsafe {
        let options = guest.buffers.options();
        poke(options, 4, 7u32);
        poke(options, 8, *b"right=1");
        assert_eq!(guest.buffers.configure(&guest.seat), 0);
        assert_eq!(guest.witness().options, b"right=1");
        poke(options, 8, *b"wrong=1");
        assert_eq!(guest.buffers.configure(&guest.seat), -1);
        let text = std::slice::from_raw_parts(options.add(8), peek(options, 4) as usize);
        assert_eq!(text, b"there is no option `wrong`");
    }
}

/// State goes out and in; a length beyond the buffer is a refusal to save.
#[test]
fn state_is_handed_over() {
    let guest = guest();
    // SAFETY: nothing else runs.
    unsafe {
        let state = guest.buffers.state();
        assert_eq!((guest.buffers.save(&guest.seat), peek(state, 4)), (2, 2));
        assert_eq!(guest.buffers.restore(&guest.seat), 0);
        poke(state, 4, 1u32);
        assert_eq!(guest.buffers.restore(&guest.seat), -1);
        guest.buffers.changed(&guest.seat, 0, 0);
        assert_eq!(guest.buffers.save(&guest.seat), -1);
    }
}
