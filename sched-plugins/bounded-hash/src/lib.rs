//! `bounded-hash`: a client stays with its server as long as that one does not bear much more than its share.
//!
//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016): no server gets a connection if it
//! would then have more than `bound` percent of its share of all active connections (by weight, rounded up). Among
//! those below their bounds the client goes to the first in an order that only the client, and the servers' names and
//! weights decide (rendezvous hashing). So while the load is even nobody moves; a server that is full passes on what is
//! too much, each client to the next in its own order, hence to all others alike; and a server that goes moves its own
//! clients, and those whom its going pushes over a bound.
//!
//! Options: `bound = 125` (percent, 101 to 1000): lower is more even, higher is more faithful. `key = "client"` (the
//! default) or `"connection"`, which counts the client's port as well.
//!
//! What it is not: `rendezvous` beside it knows no bound and moves fewer clients. Directors agree as long as no server
//! is full; each knows its own connections only.
//!
//! Invariant: the pick depends on the client and on names, weights and active connections of the servers that are usable;
//! their sum is that of the request before, so that one walk along the list is enough. Not all of them can be full then,
//! because the bounds sum up to more than there is, unless much came in between: the least loaded one has it in that case.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

use xvs_sdk::hash::{mix_address, wait, wait_at_least};
use xvs_sdk::{export_scheduler, mix, Change, Needs, Options, Reals, Request, Scheduler};

/// The scheduler.
#[derive(Clone, Copy, Debug)]
pub struct BoundedHash {
    /// Percent of its share that a server may bear.
    bound: u32,
    /// The client's port counts.
    by_connection: bool,
    /// Active connections of all usable servers.
    connections: u64,
    /// Weights of all usable servers.
    weights: u64,
}

impl Default for BoundedHash {
    fn default() -> Self {
        BoundedHash { bound: 125, by_connection: false, connections: 0, weights: 0 }
    }
}

impl Scheduler for BoundedHash {
    const NEEDS: Needs = Needs::COUNTS;

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let options = Options::new(options);
        options.only(&["bound", "key"], "the options are `bound` and `key`")?;
        let percent = options.number("bound", 101..=1000, "`bound` is a number of percent from 101 to 1000")?;
        self.bound = percent.unwrap_or(125) as u32;
        self.by_connection = match options.get("key") {
            None | Some(b"client") => false,
            Some(b"connection") => true,
            _ => return Err("`key` is client or connection"),
        };
        Ok(())
    }

    fn reals_changed<R: Reals + ?Sized>(&mut self, reals: &R, _change: Change) {
        (self.connections, self.weights) = (0, 0);
        for index in (0..reals.len()).filter(|&index| reals.is_usable(index)) {
            self.connections += active(reals, index);
            self.weights += weight(reals, index);
        }
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        // Full: active >= bound / 100 * connections * weight / weights, with the new connection among them. One fraction
        // for all servers, so that the loop does not divide. The share is rounded up: who bears less than one
        // connection's worth may have one.
        let for_weight = (self.connections + 1) * u64::from(self.bound);
        let for_active = self.weights * 100;
        let (mut connections, mut weights) = (0, 0);

        let port = if self.by_connection { u64::from(request.client_port) } else { 0 };
        let client = mix(mix_address(&request.client) ^ port);
        let (mut best, mut least) = (None, None);
        // Nobody's offer, which every other is before; and nobody's load, which every other is below.
        let (mut best_wait, mut best_weight, mut best_name) = (1, 0, 0);
        let (mut least_load, mut its_weight) = (1, 0);
        for index in 0..reals.len() {
            if !reals.is_usable(index) {
                continue;
            }
            let (active, weight) = (active(reals, index), weight(reals, index));
            connections += active;
            weights += weight;
            if active * for_active >= weight * for_weight {
                if active * its_weight < least_load * weight {
                    least = Some(index);
                    (least_load, its_weight) = (active, weight);
                }
                continue;
            }
            let name = reals.id(index);
            let hash = mix(client ^ name);
            // a / b < c / d without a division: a wait has 31 bits and a weight 16. Most are out of the race already by
            // the least that they may be, which costs nothing to know.
            if wait_at_least(hash) * best_weight > best_wait * weight {
                continue;
            }
            let wait = wait(hash);
            // Names decide between equals.
            let (own, other) = (wait * best_weight, best_wait * weight);
            if own < other || own == other && name < best_name {
                best = Some(index);
                (best_wait, best_weight, best_name) = (wait, weight, name);
            }
        }
        (self.connections, self.weights) = (connections, weights);
        best.or(least)
    }
}

/// A usable server's weight. Its limit is that of LVS's own tools; with it, and with that of [`active`], the products
/// above fit into 64 bits for a thousand servers.
fn weight<R: Reals + ?Sized>(reals: &R, index: usize) -> u64 {
    u64::from((reals.weight(index) as u32).min(65_535))
}

/// A server's active connections.
fn active<R: Reals + ?Sized>(reals: &R, index: usize) -> u64 {
    u64::from(reals.active(index).min(1 << 27))
}

export_scheduler!(BoundedHash, uses = [options]);

#[cfg(test)]
mod tests {
    use plugin_bench::{share, Bench};

    use super::*;

    const SERVERS: [(char, i32); 4] = [('A', 1), ('B', 2), ('C', 3), ('D', 4)];

    /// The promise of the bound: at every moment, whoever the clients are.
    #[test]
    fn no_server_bears_more_than_its_bound() {
        let mut bench = Bench::<BoundedHash>::with("bound=110\n", &SERVERS).unwrap();
        for number in 1..=5000 {
            // Half of all connections come from one client.
            let client = if number % 2 == 0 { 7 } else { number };
            assert!(bench.from(client, 1).serve().is_some());
            for (name, weight) in SERVERS {
                let most = (1.1 * f64::from(number) * f64::from(weight) / 10.0).ceil();
                let active = f64::from(bench.server(name).active);
                assert!(active <= most, "{name} has {active} of {number}");
            }
        }
    }

    /// Without load nobody is full, and it hashes.
    #[test]
    fn a_client_stays_while_nobody_is_full() {
        let mut bench = Bench::<BoundedHash>::new(&SERVERS);
        ["A", "B", "C", "D"].iter().zip([100, 200, 300, 400]).for_each(|(name, active)| {
            bench.load(name.chars().next().unwrap(), active);
        });
        let before = bench.clients(10_000);
        for (name, expected) in [('A', 1000), ('B', 2000), ('C', 3000), ('D', 4000)] {
            assert!(share(&before, name).abs_diff(expected) < 200, "{name}: {}", share(&before, name));
        }
        bench.load('B', 210);
        assert_eq!(bench.clients(10_000), before, "B is busy and not full");
    }

    /// A full server passes on its own clients, to all others, and nobody else moves.
    #[test]
    fn a_full_server_passes_on() {
        let mut bench = Bench::<BoundedHash>::new(&SERVERS);
        for (name, active) in [('A', 100), ('B', 200), ('C', 300), ('D', 400)] {
            bench.load(name, active);
        }
        let before = bench.clients(10_000);
        bench.load('B', 300);
        let after = bench.clients(10_000);
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *old == Some('B')));
        assert_eq!(share(&after, 'B'), 0);
        assert!(['A', 'C', 'D'].iter().all(|&name| share(&after, name) > share(&before, name)));
        bench.load('B', 200);
        assert_eq!(bench.clients(10_000), before, "they come back");
    }

    /// A server that goes or is quiesced moves its own clients only; one that comes back finds them again.
    #[test]
    fn a_missing_server_moves_its_own_clients() {
        let mut bench = Bench::<BoundedHash>::new(&SERVERS);
        let before = bench.clients(5000);
        bench.edit('C', 0);
        let quiesced = bench.clients(5000);
        assert!(before.iter().zip(&quiesced).all(|(old, new)| old == new || *old == Some('C')));
        bench.remove('C');
        assert_eq!(bench.clients(5000), quiesced);
        bench.add('C', 3);
        assert_eq!(bench.clients(5000), before);
    }

    /// Nobody usable, and nobody at all.
    #[test]
    fn nobody_is_nobody() {
        let mut bench = Bench::<BoundedHash>::new(&[('A', 1)]);
        bench.overload('A', true);
        assert_eq!(bench.ask(), None);
        assert_eq!(Bench::<BoundedHash>::new(&[]).ask(), None);
    }

    /// A misspelt option must not be taken for the default.
    #[test]
    fn wrong_options_are_refused() {
        let refusal = |options| Bench::<BoundedHash>::with(options, &[]).err();
        assert_eq!(refusal("bound=100\n"), Some("`bound` is a number of percent from 101 to 1000"));
        assert_eq!(refusal("key=port\n"), Some("`key` is client or connection"));
        assert_eq!(refusal("bounds=120\n"), Some("the options are `bound` and `key`"));
    }
}
