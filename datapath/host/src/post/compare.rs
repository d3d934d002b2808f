//! The live scheduler and a candidate, side by side: who would have got what.
//!
//! Counted per worker by its own thread, added up for a person. A pick of the live one is what the connection got in the
//! end, whoever chose it; under a canary each group is counted by itself.
//!
//! What it can not tell: a candidate in the shadow sees the connections that the *live* one's choices made, so one that
//! balances by counts is judged by its answers to somebody else's load. A canary tells more.

use xvs_engine::real::{Arena, RealId};

/// Picks of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pair {
    live: u64,
    candidate: u64,
}

/// One worker's counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    servers: Vec<(RealId, Pair)>,
    asked: u64,
    agreed: u64,
    nobody: Pair,
}

impl Tally {
    fn pair(&mut self, server: Option<RealId>) -> &mut Pair {
        let Some(id) = server else { return &mut self.nobody };
        let at = match self.servers.iter().position(|(known, _)| *known == id) {
            Some(at) => at,
            None => {
                self.servers.push((id, Pair::default()));
                self.servers.len() - 1
            }
        };
        &mut self.servers[at].1
    }

    /// Both were asked about one connection.
    pub(super) fn both(&mut self, live: Option<RealId>, candidate: Option<RealId>) {
        self.asked += 1;
        self.agreed += u64::from(live == candidate);
        self.pair(live).live += 1;
        self.pair(candidate).candidate += 1;
    }

    /// The connection really went by one of them.
    pub(super) fn one(&mut self, is_candidate: bool, server: Option<RealId>) {
        let pair = self.pair(server);
        if is_candidate { pair.candidate += 1 } else { pair.live += 1 }
    }

    /// Makes room, so that counting allocates nothing.
    pub(super) fn make_room(&mut self, members: &[RealId]) {
        for &id in members {
            self.pair(Some(id));
        }
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.asked += other.asked;
        self.agreed += other.agreed;
        self.nobody.live += other.nobody.live;
        self.nobody.candidate += other.nobody.candidate;
        for (id, theirs) in &other.servers {
            let ours = self.pair(Some(*id));
            ours.live += theirs.live;
            ours.candidate += theirs.candidate;
        }
    }

    /// The result for these servers; others were removed meanwhile.
    pub(super) fn result(&self, arena: &Arena, members: &[RealId]) -> Comparison {
        let weights: i64 = members.iter().map(|&id| i64::from(arena.get(id).weight())).sum();
        let totals = self.servers.iter().fold(Pair::default(), |sum, (_, pair)| Pair {
            live: sum.live + pair.live,
            candidate: sum.candidate + pair.candidate,
        });
        let servers: Vec<Share> = members
            .iter()
            .map(|&id| {
                let found = self.servers.iter().find(|(known, _)| *known == id);
                let pair = found.map(|(_, pair)| *pair).unwrap_or_default();
                let fair = i64::from(arena.get(id).weight()) as f64 / (weights.max(1)) as f64;
                Share { real: id, fair, live: pair.live, candidate: pair.candidate }
            })
            .collect();
        let skew = |picks: fn(&Share) -> u64, total: u64| {
            let most = servers.iter().filter(|share| share.fair > 0.0 && total > 0);
            most.map(|share| picks(share) as f64 / total as f64 / share.fair).fold(0.0, f64::max)
        };
        let (live_skew, candidate_skew) =
            (skew(|share| share.live, totals.live), skew(|share| share.candidate, totals.candidate));
        Comparison {
            asked: self.asked,
            agreed: self.agreed,
            live_skew,
            candidate_skew,
            live_nobody: self.nobody.live,
            candidate_nobody: self.nobody.candidate,
            servers,
        }
    }
}

/// How a candidate does beside the live scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Connections about which both were asked (shadow).
    pub asked: u64,
    /// Of those, how often both named the same server.
    pub agreed: u64,
    /// The largest share of a server, as a multiple of what its weight asks for: 1 is even.
    pub live_skew: f64,
    /// The same for the candidate.
    pub candidate_skew: f64,
    /// Connections that got no server.
    pub live_nobody: u64,
    /// Connections for which the candidate found none.
    pub candidate_nobody: u64,
    /// Server by server, newest first.
    pub servers: Vec<Share>,
}

/// What a server got, and would have got.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The server.
    pub real: RealId,
    /// Its weight's share of all weights, 0 to 1.
    pub fair: f64,
    /// New connections by the live scheduler.
    pub live: u64,
    /// New connections by the candidate.
    pub candidate: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use xvs_engine::flow::{Address, Endpoint};
    use xvs_engine::real::{Generation, Method, Settings};

    /// Shares, agreement and skew must be those of the picks, and the sum over workers that of all.
    #[test]
    fn the_sum_tells_shares_and_skew() {
        let arena = Arena::new(4, Generation::New);
        let members = [RealId(1), RealId(0)];
        for (&id, weight) in members.iter().zip([3, 1]) {
            let endpoint = Endpoint::new(Address::v4([10, 0, 0, 1]), 80);
            let tunnel = Default::default();
            arena.get(id).reset(&Settings { endpoint, method: Method::Dr, tunnel, weight, upper: 0, lower: 0 });
        }
        let [mut one, mut two] = [Tally::default(), Tally::default()];
        one.make_room(&members);
        for _ in 0..3 {
            one.both(Some(RealId(1)), Some(RealId(0)));
        }
        two.both(Some(RealId(0)), Some(RealId(0)));
        two.both(None, None);
        let mut sum = Tally::default();
        sum.add(&one);
        sum.add(&two);
        let result = sum.result(&arena, &members);
        assert_eq!((result.asked, result.agreed, result.live_nobody, result.candidate_nobody), (5, 2, 1, 1));
        let shares: Vec<_> = result.servers.iter().map(|share| (share.live, share.candidate)).collect();
        assert_eq!(shares, [(3, 0), (1, 4)]);
        assert_eq!((result.live_skew, result.candidate_skew), (1.0, 4.0));
    }
}
