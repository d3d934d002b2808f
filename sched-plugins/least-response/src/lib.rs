//! `least-response`: the server that is expected to answer first, in proportion to its weight.
//!
//! The server with the least `(active + 1) * time / weight` gets the connection, where `time` is how long it needs for
//! one: who is twice as slow gets half as many at once. The time comes
//!
//! - from the **metric** that an operator's script feeds (`xvs scheduler metric`), in whatever unit, if it feeds one; a
//!   server whose metric is not fed counts as the average of the others;
//! - or else from the **rates**, by Little's law: whoever has `active` connections and gets `rate` a second keeps each for
//!   `active / rate` seconds. To that one connection a second of average length is added, so that a server which is new or
//!   had nothing to do for a while counts as an average one, and a rate of 0 divides nothing.
//!
//! Options: `source = "auto"` (the default; the metric as soon as one server has one), `"metric"` or `"rates"`.
//!
//! What it is not: rates are sampled every two seconds, so between two samples only `active` moves; `time` by rates is
//! how long a *connection* lasts, which says nothing of single requests in long-lived connections: feed a metric there.
//! A server that hangs gathers connections, so its cost grows with the square of them, and it gets less long before
//! anybody notices.
//!
//! Invariant: `pace[i]` is the time of the server at index `i` in proportion to the average, as it was at most
//! `servers / 2` requests ago: each request looks at two of them anew, because a division for every server and request
//! would be the most of the work. Connections and weights are always those of now.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

use xvs_sdk::{export_scheduler, Change, Facts, Needs, Options, Reals, Request, Scheduler};

/// So many servers are known; those behind them are of average pace.
const MOST: usize = 1024;
/// The pace of an average server.
const AVERAGE: u32 = 1 << 10;
/// The slowest pace that is told apart: a thousand times the average.
const SLOWEST: u64 = 1 << 20;
/// So many servers are looked at anew for a request.
const AT_ONCE: usize = 2;

/// The scheduler.
#[derive(Clone, Debug)]
pub struct LeastResponse {
    source: Source,
    /// Of all servers, in the last round.
    sums: Sums,
    /// Of those that were looked at in this round.
    coming: Sums,
    /// Where the round is.
    next: usize,
    count: usize,
    pace: [u32; MOST],
}

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Auto,
    Metric,
    Rates,
}

/// What servers have together.
#[derive(Clone, Copy, Debug)]
struct Sums {
    active: u64,
    rate: u64,
    metric: u64,
    /// So many have a metric.
    fed: u64,
}

impl Sums {
    const NONE: Sums = Sums { active: 0, rate: 0, metric: 0, fed: 0 };
}

impl LeastResponse {
    /// Adds up what a server has.
    fn count_in(&mut self, active: u32, facts: &Facts<'_>) {
        self.coming.active += u64::from(active);
        self.coming.rate += u64::from(facts.conns_per_s);
        if facts.metric > 0 {
            self.coming.metric = self.coming.metric.saturating_add(facts.metric as u64);
            self.coming.fed += 1;
        }
    }

    /// The round is over.
    fn turn(&mut self) {
        self.sums = self.coming;
        self.coming = Sums::NONE;
        self.next = 0;
    }

    /// A server's time in proportion to the average.
    fn look(&self, active: u32, facts: &Facts<'_>) -> u32 {
        let all = &self.sums;
        let by_metric = self.source == Source::Metric || self.source == Source::Auto && all.fed > 0;
        let (time, average) = if by_metric {
            if facts.metric <= 0 || all.fed == 0 {
                return AVERAGE;
            }
            (facts.metric as u64, all.metric / all.fed)
        } else {
            if all.rate == 0 || all.active == 0 {
                return AVERAGE;
            }
            // Little's law, in units of 1/4096 s.
            let average = (all.active << 12) / all.rate;
            let active = u64::from(active) << 12;
            ((active + average) / (u64::from(facts.conns_per_s) + 1), average)
        };
        // A time of more than 2^53 units is as good as endless.
        (time.min(1 << 53) * u64::from(AVERAGE) / average.max(1)).clamp(1, SLOWEST) as u32
    }

    /// Looks at some servers anew.
    fn refresh<R: Reals + ?Sized>(&mut self, reals: &R) {
        for _ in 0..AT_ONCE.min(self.count) {
            if self.next >= self.count {
                self.turn();
            }
            let (active, facts) = (reals.active(self.next), reals.facts(self.next));
            self.count_in(active, &facts);
            self.pace[self.next] = self.look(active, &facts);
            self.next += 1;
        }
    }
}

impl Default for LeastResponse {
    fn default() -> Self {
        let (source, sums, coming, pace) = (Source::Auto, Sums::NONE, Sums::NONE, [AVERAGE; MOST]);
        LeastResponse { source, sums, coming, next: 0, count: 0, pace }
    }
}

impl Scheduler for LeastResponse {
    const NEEDS: Needs = Needs::COUNTS.and(Needs::FACTS);

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let options = Options::new(options);
        options.only(&["source"], "the only option is `source`")?;
        self.source = match options.get("source") {
            None | Some(b"auto") => Source::Auto,
            Some(b"metric") => Source::Metric,
            Some(b"rates") => Source::Rates,
            _ => return Err("`source` is auto, metric or rates"),
        };
        Ok(())
    }

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, change: Change) {
        let before = self.count;
        let count = reals.len().min(MOST);
        self.count = count;
        match change {
            Change::All => {
                self.coming = Sums::NONE;
                (0..count).for_each(|index| self.count_in(reals.active(index), &reals.facts(index)));
                self.turn();
                for index in 0..count {
                    self.pace[index] = self.look(reals.active(index), &reals.facts(index));
                }
            }
            Change::Added(index) if index < count => {
                self.pace.copy_within(index..count - 1, index + 1);
                self.pace[index] = self.look(reals.active(index), &reals.facts(index));
            }
            Change::Removed(index) if index < before => self.pace.copy_within(index + 1..before, index),
            _ => {}
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
        self.refresh(reals);
        let mut best = None;
        // Nobody's cost, which every other is below.
        let (mut least_cost, mut its_weight) = (1, 0);
        for index in 0..reals.len() {
            if !reals.is_usable(index) {
                continue;
            }
            let pace = self.pace.get(index).map_or(AVERAGE, |&pace| pace);
            // Compared without dividing. The products fit into 64 bits: 27 and 20, and 16 as in LVS's own tools.
            let cost = (u64::from(reals.active(index).min(1 << 27)) + 1) * u64::from(pace);
            let weight = u64::from((reals.weight(index) as u32).min(65_535));
            if cost * its_weight < least_cost * weight {
                best = Some(index);
                (least_cost, its_weight) = (cost, weight);
            }
        }
        best
    }
}

export_scheduler!(LeastResponse, capacity = MOST, uses = [options]);

#[cfg(test)]
mod tests {
    use plugin_bench::{share, Bench};

    use super::*;

    fn bench(servers: &[(char, i32)]) -> Bench<LeastResponse> {
        Bench::new(servers)
    }

    /// Asks until every server was looked at since the facts were set.
    fn look_around(bench: &mut Bench<LeastResponse>) {
        (0..3 * bench.servers.0.len()).for_each(|_| {
            bench.ask();
        });
    }

    /// Before anything is known of times, it is least connections by weight.
    #[test]
    fn without_times_the_weights_decide() {
        let picks: Vec<_> = bench(&[('A', 1), ('B', 2), ('C', 3)]).picks(60).chars().map(Some).collect();
        assert_eq!([share(&picks, 'A'), share(&picks, 'B'), share(&picks, 'C')], [10, 20, 30]);
    }

    /// By metric, connections at once are in inverse proportion to the time of one.
    #[test]
    fn a_slow_server_bears_less_by_its_metric() {
        let mut bench = bench(&[('A', 1), ('B', 1)]);
        bench.server('A').metric = 30;
        bench.server('B').metric = 10;
        look_around(&mut bench);
        let picks: Vec<_> = bench.picks(80).chars().map(Some).collect();
        assert_eq!([share(&picks, 'A'), share(&picks, 'B')], [20, 60]);
    }

    /// A server whose metric nobody feeds must neither get all nor nothing.
    #[test]
    fn an_unfed_server_counts_as_the_average() {
        let mut bench = bench(&[('A', 1), ('B', 1), ('C', 1)]);
        bench.server('A').metric = 30;
        bench.server('B').metric = 10;
        look_around(&mut bench);
        let picks: Vec<_> = bench.picks(110).chars().map(Some).collect();
        assert_eq!([share(&picks, 'A'), share(&picks, 'B'), share(&picks, 'C')], [20, 60, 30]);
    }

    /// By rates: with as many connections, the one that finishes more of them a second is faster.
    #[test]
    fn the_rates_tell_the_time() {
        let mut bench = bench(&[('A', 1), ('B', 1)]);
        bench.load('A', 100);
        bench.load('B', 100);
        bench.server('A').conns_per_s = 500;
        bench.server('B').conns_per_s = 100;
        look_around(&mut bench);
        assert_eq!(bench.ask(), Some('A'));
        bench.load('A', 230);
        look_around(&mut bench);
        assert_eq!(bench.ask(), Some('B'), "its {} s are not made up for any more", 230.0 / 500.0);
    }

    /// A server that hangs takes connections in and finishes none; it must not get its share for long.
    #[test]
    fn a_hanging_server_starves() {
        let mut bench = bench(&[('A', 1), ('B', 1)]);
        // B finishes what it gets at once; both get what they get over two seconds.
        let mut hung = 0;
        for _ in 0..20 {
            let picks: Vec<_> = (0..100).map(|_| bench.serve()).collect();
            hung += share(&picks, 'A');
            bench.server('A').conns_per_s = share(&picks, 'A') as u32 / 2;
            bench.server('B').conns_per_s = share(&picks, 'B') as u32 / 2;
            bench.load('B', 5);
        }
        assert!(hung < 150, "{hung} of 2000");
    }

    /// The option decides when both are known.
    #[test]
    fn the_source_is_chosen() {
        for (options, expected) in [("", 'A'), ("source=metric\n", 'A'), ("source=rates\n", 'B')] {
            let mut bench = Bench::<LeastResponse>::with(options, &[('A', 1), ('B', 1)]).unwrap();
            bench.server('A').metric = 1;
            bench.server('B').metric = 9;
            bench.server('B').conns_per_s = 100;
            bench.load('A', 4);
            bench.load('B', 4);
            look_around(&mut bench);
            assert_eq!(bench.ask(), Some(expected), "{options}");
        }
    }

    /// Quiesced and overloaded servers get nothing, and do not count in the averages.
    #[test]
    fn unusable_servers_are_passed_over() {
        let mut bench = bench(&[('A', 1), ('B', 1)]);
        bench.edit('B', 0);
        assert_eq!(bench.picks(2), "AA");
        bench.overload('A', true);
        assert_eq!(bench.ask(), None);
    }

    /// A misspelt option must not be taken for the default.
    #[test]
    fn wrong_options_are_refused() {
        let refusal = |options| Bench::<LeastResponse>::with(options, &[]).err();
        assert_eq!(refusal("source=rate\n"), Some("`source` is auto, metric or rates"));
        assert_eq!(refusal("sauce=rates\n"), Some("the only option is `source`"));
    }
}
