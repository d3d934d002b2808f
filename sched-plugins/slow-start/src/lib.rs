//! `slow-start`: `wlc`, but a server that came or came back is warmed up.
//!
//! A new server has no connections, so `wlc` sends it everything until it has caught up, just when its caches are cold.
//! Here its weight counts for `from` percent at first, and rises in a straight line to the whole of it over `seconds`.
//! That begins with a request soon after it was added, or after its weight rose from 0. A server that was at its
//! threshold is warm, and one whose weight was edited from one number to another stays as warm as it was.
//!
//! Options: `seconds = 30` (1 to 3600), `from = 10` (percent, 1 to 100).
//!
//! What it is not: the servers that a service begins with are warm, since among equals nothing is gained by waiting.
//! It needs the time, which the operator must grant: `xvs scheduler load slow-start FILE --grant time`.
//!
//! Invariant: `known[i]` is about the server at index `i` after every change of the list, and what counts of its weight
//! is as it was at most `servers / 4` requests ago: each request looks at four of them anew. Unless `unsettled`,
//! all of them are warm or quiesced, and every pick is that of `wlc`.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Needs, Options, Reals, Request, Scheduler};

/// So many servers are known; those behind them are always warm.
const MOST: usize = 1024;

/// The scheduler.
#[derive(Clone, Debug)]
pub struct SlowStart {
    options: Option<Settings>,
    unsettled: bool,
    /// In this round.
    seen_cold: bool,
    /// Where the round is.
    next: usize,
    count: usize,
    known: [Known; MOST],
}

/// Its options.
#[derive(Clone, Copy, Debug)]
struct Settings {
    span_ms: u32,
    from_percent: u32,
}

impl Settings {
    const DEFAULT: Settings = Settings { span_ms: 30_000, from_percent: 10 };
}

/// A server.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: u64,
    warmth: Warmth,
    /// What does not count of its weight, of [`WHOLE`].
    cold: u32,
}

/// All zero.
const WARM: Known = Known { id: 0, warmth: Warm, cold: 0 };

/// How warm a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Warmth {
    /// Its weight counts whole.
    Warm,
    /// The warming begins with the next request.
    New,
    /// Its weight is 0; it will be new when it is not.
    Quiesced,
    /// The warming began then, in milliseconds.
    Since(u64),
}

use Warmth::{New, Quiesced, Since, Warm};

/// The whole of a weight.
const WHOLE: u32 = 1000;
/// So many servers are looked at anew for a request.
const AT_ONCE: usize = 4;

/// In a saved state: what a server has that is new and not yet asked for.
const SAVED_NEW: u64 = u64::MAX;
/// In a saved state: a server's id and when its warming began.
const SAVED_BYTES: usize = 16;

impl SlowStart {
    /// With no servers and no options yet. All of it is zero, so that the module's file does not hold it.
    pub const NEW: SlowStart =
        SlowStart { options: None, unsettled: false, seen_cold: false, next: 0, count: 0, known: [WARM; MOST] };

    fn settings(&self) -> Settings {
        self.options.unwrap_or(Settings::DEFAULT)
    }

    /// What the server at an index is, if it may get connections.
    fn learn<R: Reals + ?Sized>(&mut self, reals: &R, index: usize, warmth: Warmth) {
        let warmth = if reals.weight(index) > 0 { warmth } else { Quiesced };
        let is_cold = matches!(warmth, New | Since(_));
        let cold = if is_cold { WHOLE - WHOLE * self.settings().from_percent / 100 } else { 0 };
        self.known[index] = Known { id: reals.id(index), warmth, cold };
        self.unsettled |= is_cold;
        self.seen_cold |= is_cold;
    }

    /// Looks at some servers anew: what waited for a request begins now, what is over is over.
    fn advance(&mut self, now_ms: u64) {
        let Settings { span_ms, from_percent } = self.settings();
        let (span_ms, first) = (u64::from(span_ms), WHOLE * from_percent / 100);
        for _ in 0..AT_ONCE.min(self.count) {
            if self.next >= self.count {
                // A whole round without one that is not warm.
                self.unsettled = core::mem::take(&mut self.seen_cold);
                self.next = 0;
            }
            let known = &mut self.known[self.next];
            if known.warmth == New {
                known.warmth = Since(now_ms);
            }
            known.cold = 0;
            if let Since(began) = known.warmth {
                // A time that is still to come was another clock's.
                let gone = now_ms.wrapping_sub(began);
                if gone < span_ms {
                    self.seen_cold = true;
                    known.cold = WHOLE - first - (u64::from(WHOLE - first) * gone / span_ms) as u32;
                } else {
                    known.warmth = Warm;
                }
            }
            self.next += 1;
        }
    }
}

impl Default for SlowStart {
    fn default() -> Self {
        SlowStart::NEW
    }
}

impl Scheduler for SlowStart {
    const NEEDS: Needs = Needs::COUNTS;

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let options = Options::new(options);
        options.only(&["from", "seconds"], "the options are `from` and `seconds`")?;
        let seconds = options.number("seconds", 1..=3600, "`seconds` is a number from 1 to 3600")?;
        let percent = options.number("from", 1..=100, "`from` is a number of percent from 1 to 100")?;
        let mut settings = Settings::DEFAULT;
        settings.span_ms = seconds.map_or(settings.span_ms, |seconds| 1000 * seconds as u32);
        settings.from_percent = percent.map_or(settings.from_percent, |percent| percent as u32);
        self.options = Some(settings);
        Ok(())
    }

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        let before = self.count;
        let count = reals.len().min(MOST);
        self.count = count;
        match change {
            Change::All => {
                self.unsettled = false;
                (0..count).for_each(|index| self.learn(reals, index, Warm));
            }
            Change::Added(index) if index < count => {
                shift(self.known[index..count].iter_mut());
                self.learn(reals, index, New);
            }
            Change::Removed(index) if index < before => {
                shift(self.known[index..before].iter_mut().rev());
                if count == before {
                    // One that there was no room for moves in.
                    self.learn(reals, count - 1, Warm);
                }
            }
            Change::Edited(index) if index < count => {
                let warmth = self.known[index].warmth;
                self.learn(reals, index, if warmth == Quiesced { New } else { warmth });
            }
            _ => {}
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        if self.unsettled {
            self.advance(request.now_ms);
        }
        if self.unsettled {
            least(reals, |index| WHOLE - self.known.get(index).map_or(0, |known| known.cold))
        } else {
            least(reals, |_| WHOLE)
        }
    }

    fn save(&self, into: &mut [u8]) -> Option<usize> {
        let mut entries = into.chunks_exact_mut(SAVED_BYTES);
        let mut bytes = 0;
        for known in &self.known[..self.count] {
            let began = match known.warmth {
                New => SAVED_NEW,
                Since(began) => began,
                Warm | Quiesced => continue,
            };
            // No room: the rest will be warm.
            let entry = match entries.next() {
                Some(entry) => entry,
                None => break,
            };
            entry[..8].copy_from_slice(&known.id.to_le_bytes());
            entry[8..].copy_from_slice(&began.to_le_bytes());
            bytes += SAVED_BYTES;
        }
        Some(bytes)
    }

    fn restore<R: Reals + ?Sized>(&mut self, reals: &R, from: &[u8]) -> bool {
        if from.len() % SAVED_BYTES != 0 {
            return false;
        }
        for entry in from.chunks_exact(SAVED_BYTES) {
            let word = |at: usize| entry[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            if let Some(index) = self.known[..self.count].iter().position(|known| known.id == word(0)) {
                self.learn(reals, index, if word(8) == SAVED_NEW { New } else { Since(word(8)) });
            }
        }
        true
    }
}

/// Moves each one to where the next one is. By hand, since `copy_within` goes by the byte, which a plugin pays for.
fn shift<'a>(list: impl Iterator<Item = &'a mut Known>) {
    let Known { mut id, mut warmth, mut cold } = WARM;
    for known in list {
        core::mem::swap(&mut id, &mut known.id);
        core::mem::swap(&mut warmth, &mut known.warmth);
        core::mem::swap(&mut cold, &mut known.cold);
    }
}

/// The first usable server of the least load for the part of its weight that counts, as `wlc` weighs it. Compared without
/// dividing. The products fit into 64 bits: weights have 16 bits in LVS's own tools, and no server has 2^29 connections
/// (one that had would be taken for a less loaded one).
fn least<R: Reals + ?Sized>(reals: &R, part: impl Fn(usize) -> u32) -> Option<usize> {
    let mut best = None;
    // Nobody's load, which every other is below.
    let (mut least_load, mut its_weight) = (1u64, 0u64);
    for index in 0..reals.len() {
        if !reals.is_usable(index) {
            continue;
        }
        let load = reals.overhead(index);
        let weight = u64::from((reals.weight(index) as u32).min(65_535)) * u64::from(part(index));
        if load.wrapping_mul(its_weight) < least_load.wrapping_mul(weight) {
            best = Some(index);
            (least_load, its_weight) = (load, weight);
        }
    }
    best
}

export_scheduler!(SlowStart, capacity = MOST, new = SlowStart::NEW, uses = [options, state], grants = [time]);

#[cfg(test)]
mod tests {
    use plugin_bench::{share, Bench};

    use super::*;

    /// A and B with 100 connections each, warm, and C that was just added, with 10 seconds for all of it.
    fn bench() -> Bench<SlowStart> {
        let mut bench = Bench::<SlowStart>::with("from=10\nseconds=10\n", &[('A', 1), ('B', 1)]).unwrap();
        bench.scheduler.reals_changed(&bench.servers, Change::All);
        bench.request.now_ms = 5_000;
        bench.load('A', 100);
        bench.load('B', 100);
        bench.add('C', 1);
        bench
    }

    /// How many connections C has when it is as loaded as the others, for what its weight counts now.
    fn caught_up_with(bench: &mut Bench<SlowStart>) -> usize {
        (0..1000)
            .find(|&count| {
                bench.load('C', count);
                bench.ask() != Some('C')
            })
            .unwrap_or(1000) as usize
    }

    /// The promise: a straight line from a tenth to the whole.
    #[test]
    fn a_new_server_is_warmed_up() {
        let mut bench = bench();
        assert_eq!(caught_up_with(&mut bench), 11, "a tenth of 100, and one more because it is the newest");
        for (after_ms, expected) in [(0, 11), (5_000, 56), (9_000, 92), (10_000, 101), (60_000, 101)] {
            bench.request.now_ms = 5_000 + after_ms;
            assert_eq!(caught_up_with(&mut bench), expected, "after {after_ms} ms");
        }
    }

    /// It begins with the first request, and not while a service is asleep.
    #[test]
    fn the_first_request_begins_it() {
        let mut bench = bench();
        bench.request.now_ms = 3_600_000;
        assert_eq!(caught_up_with(&mut bench), 11);
    }

    /// A server that was quiesced is cold again; an edit that is none of that changes nothing.
    #[test]
    fn coming_back_is_warmed_up_too() {
        let mut bench = bench();
        caught_up_with(&mut bench);
        bench.request.now_ms = 15_000;
        assert_eq!(caught_up_with(&mut bench), 101);
        bench.edit('C', 1);
        assert_eq!(caught_up_with(&mut bench), 101);
        bench.edit('C', 0);
        assert_eq!(caught_up_with(&mut bench), 0);
        bench.request.now_ms = 99_000;
        bench.edit('C', 1);
        assert_eq!(caught_up_with(&mut bench), 11);
        bench.request.now_ms = 104_000;
        bench.edit('C', 2);
        assert_eq!(caught_up_with(&mut bench), 111, "half warm, with twice the weight");
    }

    /// The servers that a service begins with are warm: it is `wlc` (these are its vectors).
    #[test]
    fn when_settled_it_is_wlc() {
        let mut bench = Bench::<SlowStart>::new(&[('A', 1), ('B', 2), ('C', 3)]);
        bench.scheduler.reals_changed(&bench.servers, Change::All);
        assert_eq!(bench.picks(12), "CBACBCCBACBC");
    }

    /// Indices move when a server comes or goes; the warming must stay with its server.
    #[test]
    fn the_warming_follows_its_server() {
        let mut bench = bench();
        caught_up_with(&mut bench);
        bench.remove('A');
        bench.add('D', 0);
        bench.remove('B');
        bench.add('B', 1);
        bench.load('B', 100);
        bench.request.now_ms = 15_000;
        bench.ask();
        bench.request.now_ms = 25_000;
        assert_eq!(caught_up_with(&mut bench), 100, "C and B are warm, and B is newer");
        bench.remove('D');
        assert_eq!(caught_up_with(&mut bench), 100);
    }

    /// A server at its threshold gets nothing, and is as warm afterwards.
    #[test]
    fn unusable_servers_are_passed_over() {
        let mut bench = Bench::<SlowStart>::new(&[('A', 1), ('B', 0)]);
        assert_eq!(bench.picks(2), "AA");
        bench.overload('A', true);
        assert_eq!(bench.ask(), None);
        bench.overload('A', false);
        assert_eq!(bench.picks(2), "AA");
    }

    /// The next version of a plugin must not begin anew with a server that is half warm.
    #[test]
    fn the_warming_is_handed_over() {
        let mut old = bench();
        caught_up_with(&mut old);
        old.add('D', 1);
        let mut state = [0; 4096];
        let len = old.scheduler.save(&mut state).unwrap();
        assert_eq!(len, 2 * SAVED_BYTES);
        let mut new = old.clone();
        new.scheduler = SlowStart::NEW;
        new.scheduler.configure(b"seconds=10\n").unwrap();
        new.scheduler.reals_changed(&new.servers, Change::All);
        assert!(new.scheduler.restore(&new.servers, &state[..len]));
        assert!(!new.scheduler.restore(&new.servers, &state[..len - 1]));
        for now_ms in [7_000, 12_000, 14_999, 17_000, 30_000] {
            (old.request.now_ms, new.request.now_ms) = (now_ms, now_ms);
            assert_eq!(old.picks(50), new.picks(50), "at {now_ms} ms");
        }
    }

    /// More servers than it knows: those beyond are warm, and nothing is written where nothing is.
    #[test]
    fn a_long_list_is_served() {
        let names: Vec<char> = ('\u{4e00}'..'\u{9000}').take(MOST + 3).collect();
        let servers: Vec<(char, i32)> = names.iter().map(|&name| (name, 1)).collect();
        let mut bench = Bench::<SlowStart>::new(&servers);
        let picks: Vec<_> = (0..2 * servers.len()).map(|_| bench.serve()).collect();
        assert!(share(&picks, names[0]) > share(&picks, names[MOST]), "the oldest is warm");
        names.iter().for_each(|&name| bench.remove(name));
        assert_eq!(bench.ask(), None);
    }

    /// A misspelt option must not be taken for the default.
    #[test]
    fn wrong_options_are_refused() {
        let refusal = |options| Bench::<SlowStart>::with(options, &[]).err();
        assert_eq!(refusal("seconds=0\n"), Some("`seconds` is a number from 1 to 3600"));
        assert_eq!(refusal("from=101\n"), Some("`from` is a number of percent from 1 to 100"));
        assert_eq!(refusal("second=5\n"), Some("the options are `from` and `seconds`"));
    }
}
