//! `zone-aware`: servers of the director's own zone first; the others when these can not, or bear too much.
//!
//! Traffic between zones costs time and money. Servers are tagged with their zone in the configuration
//! (`tags = { zone = "a" }`), and the director's own zone is an option of the service. Among the servers of the zone it is
//! `wlc`. When none of them is usable, it is `wlc` among all others. With a `limit`, the best server of the zone must not
//! have that many active connections for each unit of its weight; from there on all servers compete, so that the zone
//! gets back what others bear more easily, and never more than that.
//!
//! Options: `zone = "a"` (must be given), `limit = 100` (1 to 1000000; none without), `tag = "zone"` names another tag.
//!
//! What it is not: it does not know how far other zones are from each other; they are all "elsewhere".
//!
//! Invariant: `local[i]` says whether the server at index `i` is of the zone, after every change of the list: tags are
//! read when they change, and not for every request.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Needs, Options, Reals, Request, Scheduler};

/// So many servers are known; those behind them are elsewhere.
const MOST: usize = 1024;
/// Most bytes of a tag's name, and of its value: there is no room for more in a server's tags.
const WORD: usize = 112;

/// The scheduler.
#[derive(Clone, Debug)]
pub struct ZoneAware {
    tag: Word,
    zone: Word,
    /// Active connections for each unit of weight.
    limit: Option<u32>,
    count: usize,
    local: [bool; MOST],
}

/// A short text.
#[derive(Clone, Copy, Debug)]
struct Word {
    len: usize,
    bytes: [u8; WORD],
}

impl Word {
    const EMPTY: Word = Word { len: 0, bytes: [0; WORD] };

    /// None if it is empty or too long.
    fn new(text: &[u8]) -> Option<Word> {
        let mut word = Word { len: text.len(), ..Word::EMPTY };
        word.bytes.get_mut(..text.len()).filter(|bytes| !bytes.is_empty())?.copy_from_slice(text);
        Some(word)
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl ZoneAware {
    fn is_local<R: Reals + ?Sized>(&self, reals: &R, index: usize) -> bool {
        let facts = reals.facts(index);
        facts.tags.split(|&byte| byte == b',').any(|pair| {
            let value = pair.strip_prefix(self.tag.text()).and_then(|rest| rest.strip_prefix(b"="));
            value == Some(self.zone.text())
        })
    }
}

impl Default for ZoneAware {
    fn default() -> Self {
        ZoneAware { tag: Word::EMPTY, zone: Word::EMPTY, limit: None, count: 0, local: [false; MOST] }
    }
}

impl Scheduler for ZoneAware {
    const NEEDS: Needs = Needs::COUNTS.and(Needs::FACTS);

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let options = Options::new(options);
        options.only(&["limit", "tag", "zone"], "the options are `limit`, `tag` and `zone`")?;
        self.tag = Word::new(options.get("tag").unwrap_or(b"zone")).ok_or("`tag` is the name of a tag")?;
        let zone = options.get("zone").ok_or("`zone` must say in which zone the director is")?;
        self.zone = Word::new(zone).ok_or("`zone` is the value of a tag, of 1 to 112 bytes")?;
        let limit = options.number("limit", 1..=1_000_000, "`limit` is a number from 1 to 1000000")?;
        self.limit = limit.map(|limit| limit as u32);
        Ok(())
    }

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        let before = self.count;
        let count = reals.len().min(MOST);
        self.count = count;
        match change {
            Change::All => (0..count).for_each(|index| self.local[index] = self.is_local(reals, index)),
            Change::Added(index) if index < count => {
                self.local.copy_within(index..count - 1, index + 1);
                self.local[index] = self.is_local(reals, index);
            }
            Change::Removed(index) if index < before => {
                self.local.copy_within(index + 1..before, index);
                if count == before {
                    // One that there was no room for moves in.
                    self.local[count - 1] = self.is_local(reals, count - 1);
                }
            }
            Change::Edited(index) if index < count => self.local[index] = self.is_local(reals, index),
            _ => {}
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        let home = self.least(reals, true);
        let home = match home {
            // It is not full, or nothing is too much.
            Some(home) if self.limit.map_or(true, |limit| home.active < u64::from(limit) * home.weight) => {
                return Some(home.index);
            }
            home => home,
        };
        match (home, self.least(reals, false)) {
            (Some(home), Some(away)) if away.is_below(&home) => Some(away.index),
            (home, away) => home.or(away).map(|best| best.index),
        }
    }
}

impl ZoneAware {
    /// The first usable server of the least load for its weight, as `wlc` weighs it, of the zone or of the others.
    fn least<R: Reals + ?Sized>(&self, reals: &R, local: bool) -> Option<Best> {
        let mut best = None;
        // Nobody's load, which every other is below.
        let (mut least_load, mut its_weight) = (1, 0);
        for index in 0..reals.len() {
            if self.local.get(index).map_or(false, |&own| own) != local || !reals.is_usable(index) {
                continue;
            }
            // Sixteen million connections at one server are the most that is told apart: the products fit into 64 bits.
            let load = reals.overhead(index).min(u64::from(u32::MAX));
            let weight = u64::from(reals.weight(index) as u32);
            if load * its_weight < least_load * weight {
                best = Some(index);
                (least_load, its_weight) = (load, weight);
            }
        }
        let best = best?;
        Some(Best { index: best, active: reals.active(best).into(), load: least_load, weight: its_weight })
    }
}

/// A server that is the best of some.
struct Best {
    index: usize,
    active: u64,
    load: u64,
    weight: u64,
}

impl Best {
    /// Compared without dividing.
    fn is_below(&self, other: &Best) -> bool {
        self.load * other.weight < other.load * self.weight
    }
}

export_scheduler!(ZoneAware, capacity = MOST, uses = [options]);

#[cfg(test)]
mod tests {
    use plugin_bench::{share, Bench};

    use super::*;

    /// A and B are in zone a, Y and Z in zone b, and N nowhere.
    fn bench(options: &str) -> Bench<ZoneAware> {
        let mut bench = Bench::<ZoneAware>::with(options, &[]).unwrap();
        for (name, tags) in [('A', "zone=a"), ('B', "rack=7,zone=a"), ('Y', "zone=b"), ('Z', "zone=b"), ('N', "")] {
            bench.add_tagged(name, 1, tags);
        }
        bench
    }

    fn picks(bench: &mut Bench<ZoneAware>, count: usize) -> Vec<Option<char>> {
        (0..count).map(|_| bench.serve()).collect()
    }

    /// The promise: nothing leaves the zone while it can serve, whatever it bears.
    #[test]
    fn the_zone_comes_first() {
        let picked = picks(&mut bench("zone=a\n"), 100);
        assert_eq!([share(&picked, 'A'), share(&picked, 'B')], [50, 50]);
        let picked = picks(&mut bench("zone=b\n"), 100);
        assert_eq!([share(&picked, 'Y'), share(&picked, 'Z')], [50, 50]);
    }

    /// A zone whose servers are all quiesced or at their thresholds is served elsewhere, until one is back.
    #[test]
    fn an_unusable_zone_spills_over() {
        let mut bench = bench("zone=a\n");
        bench.edit('A', 0);
        bench.overload('B', true);
        let picked = picks(&mut bench, 99);
        assert!(['Y', 'Z', 'N'].iter().all(|&name| share(&picked, name) == 33));
        bench.overload('B', false);
        assert_eq!(share(&picks(&mut bench, 100), 'B'), 100);
        for name in ['B', 'Y', 'Z', 'N'] {
            bench.overload(name, true);
        }
        assert_eq!(bench.ask(), None);
    }

    /// Up to the limit everything stays; beyond it, the load of all servers is levelled.
    #[test]
    fn a_loaded_zone_spills_over() {
        let mut bench = bench("limit=10\nzone=a\n");
        let picked = picks(&mut bench, 20);
        assert_eq!([share(&picked, 'A'), share(&picked, 'B')], [10, 10]);
        let picked = picks(&mut bench, 30);
        assert!(['Y', 'Z', 'N'].iter().all(|&name| share(&picked, name) == 10));
        let picked = picks(&mut bench, 50);
        assert!(['A', 'B', 'Y', 'Z', 'N'].iter().all(|&name| share(&picked, name) == 10));
        bench.load('A', 5);
        assert_eq!(bench.ask(), Some('A'));
    }

    /// Twice the weight may bear twice the limit.
    #[test]
    fn the_limit_is_for_each_unit_of_weight() {
        let mut bench = bench("limit=10\nzone=a\n");
        bench.edit('A', 3);
        bench.edit('B', 0);
        assert_eq!(share(&picks(&mut bench, 30), 'A'), 30);
        assert_eq!(share(&picks(&mut bench, 30), 'A'), 0);
    }

    /// Tags are read when they change: new ones count at once, and stay with their server when the list moves.
    #[test]
    fn tags_follow_their_servers() {
        let mut bench = bench("zone=a\n");
        bench.tag('A', "zone=b");
        bench.remove('Y');
        bench.add_tagged('C', 1, "zone=aa");
        bench.add_tagged('D', 1, "azone=a");
        assert_eq!(share(&picks(&mut bench, 10), 'B'), 10);
        bench.remove('B');
        bench.tag('Z', "rack=1,zone=a");
        assert_eq!(share(&picks(&mut bench, 10), 'Z'), 10);
    }

    /// Another tag than `zone` can tell it.
    #[test]
    fn the_tag_is_chosen() {
        assert_eq!(share(&picks(&mut bench("tag=rack\nzone=7\n"), 10), 'B'), 10);
    }

    /// Without a zone it would do nothing, and a misspelt option must not be taken for the default.
    #[test]
    fn wrong_options_are_refused() {
        let refusal = |options| Bench::<ZoneAware>::with(options, &[]).err();
        assert_eq!(refusal(""), Some("`zone` must say in which zone the director is"));
        assert_eq!(refusal("zone=\n"), Some("`zone` is the value of a tag, of 1 to 112 bytes"));
        assert_eq!(refusal("tag=\nzone=a\n"), Some("`tag` is the name of a tag"));
        assert_eq!(refusal("limit=0\nzone=a\n"), Some("`limit` is a number from 1 to 1000000"));
        assert_eq!(refusal("sone=a\n"), Some("the options are `limit`, `tag` and `zone`"));
    }
}
