//! `rendezvous`: a client stays with its server, and a change of the list moves no other clients than it must.
//!
//! Every pair of client and server has a score that only the two decide; the usable server with the best score gets the
//! connection (highest random weight, Thaler and Ravishankar 1996). When a server goes, its clients spread over the
//! others and nobody else moves; when it comes back, exactly they return. Shares follow the weights: a server of weight
//! `w` asks for the client at the time `-log(u) / w`, with `u` drawn from the hash, and the earliest one wins.
//!
//! Options: `key = "client"` (the default) keeps a client with one server; `key = "connection"` counts the client's port
//! as well, so that a large network behind one address is spread.
//!
//! What it is not: it keeps no table, so it costs a look at every server for each *new* connection (established ones
//! are the director's memory and are never asked about). The hash has no secret: whoever may choose his own address can
//! choose his server.
//!
//! Invariant: the pick depends on the client and on the servers' addresses, ports and weights, and on nothing else: not
//! on their order in the list, nor on what happened before. So directors with the same rules agree.
#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

use xvs_sdk::hash::{mix_address, wait, wait_at_least};
use xvs_sdk::{export_scheduler, mix, Needs, Options, Reals, Request, Scheduler};

/// The scheduler. It remembers its option and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendezvous {
    /// The client's port counts.
    by_connection: bool,
}

impl Scheduler for Rendezvous {
    /// Weights and names are in the table anyway.
    const NEEDS: Needs = Needs::NOTHING;

    fn configure(&mut self, options: &[u8]) -> Result<(), &'static str> {
        let options = Options::new(options);
        options.only(&["key"], "the only option is `key`")?;
        self.by_connection = match options.get("key") {
            None | Some(b"client") => false,
            Some(b"connection") => true,
            _ => return Err("`key` is client or connection"),
        };
        Ok(())
    }

    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let port = if self.by_connection { u64::from(request.client_port) } else { 0 };
        let client = mix(mix_address(&request.client) ^ port);
        let mut best = None;
        // Nobody's offer, which every other is before.
        let (mut best_wait, mut best_weight, mut best_name) = (1, 0, 0);
        for index in 0..reals.len() {
            if !reals.is_usable(index) {
                continue;
            }
            let (name, weight) = (reals.id(index), reals.weight(index) as u64);
            let hash = mix(client ^ name);
            // a / b < c / d without a division: a wait has 31 bits and a weight 31. Most are out of the race already by
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
        best
    }
}

export_scheduler!(Rendezvous, uses = [options]);

#[cfg(test)]
mod tests {
    use plugin_bench::{share, Bench};

    use super::*;

    const CLIENTS: u32 = 60_000;

    fn bench(servers: &[(char, i32)]) -> Bench<Rendezvous> {
        Bench::new(servers)
    }

    /// Neighbouring addresses are the common case; their shares must follow the weights.
    #[test]
    fn shares_follow_the_weights() {
        let picks = bench(&[('A', 1), ('B', 2), ('C', 3)]).clients(CLIENTS);
        for (id, expected) in [('A', 10_000), ('B', 20_000), ('C', 30_000)] {
            let got = share(&picks, id);
            assert!((expected - 600..=expected + 600).contains(&got), "{id}: {got}");
        }
    }

    /// The promise of the scheduler: who was not with the server that goes stays where he is.
    #[test]
    fn a_removed_server_moves_its_own_clients_only() {
        let mut bench = bench(&[('A', 1), ('B', 2), ('C', 3), ('D', 1)]);
        let before = bench.clients(CLIENTS);
        bench.remove('B');
        let after = bench.clients(CLIENTS);
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *old == Some('B')));
        assert!(['A', 'C', 'D'].iter().all(|&id| share(&after, id) > share(&before, id)), "all get a part of B's");
    }

    /// A server that was restarted gets exactly its clients back, wherever in the list it is now.
    #[test]
    fn a_returning_server_gets_its_clients_back() {
        let mut bench = bench(&[('A', 1), ('B', 2), ('C', 3)]);
        let before = bench.clients(CLIENTS);
        bench.remove('A');
        bench.add('A', 1);
        assert_eq!(bench.servers.at('A'), 0);
        assert_eq!(bench.clients(CLIENTS), before);
    }

    /// A new server takes from the others and moves nobody between them.
    #[test]
    fn an_added_server_only_takes() {
        let mut bench = bench(&[('A', 1), ('B', 1)]);
        let before = bench.clients(CLIENTS);
        bench.add('C', 1);
        let after = bench.clients(CLIENTS);
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *new == Some('C')));
    }

    /// More weight takes clients from others and loses none; less weight the reverse.
    #[test]
    fn a_weight_moves_clients_in_one_direction() {
        let mut bench = bench(&[('A', 2), ('B', 2), ('C', 2)]);
        let before = bench.clients(CLIENTS);
        bench.edit('B', 3);
        let after = bench.clients(CLIENTS);
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *new == Some('B')));
        assert!(share(&after, 'B') > share(&before, 'B'));
        bench.edit('B', 2);
        assert_eq!(bench.clients(CLIENTS), before);
    }

    /// Quiesced and overloaded servers get nothing new, and their clients find the same server as if it were gone.
    #[test]
    fn unusable_servers_are_passed_over() {
        let mut bench = bench(&[('A', 1), ('B', 1), ('C', 1)]);
        let mut without = bench.clone();
        without.remove('B');
        bench.edit('B', 0);
        assert_eq!(bench.clients(CLIENTS), without.clients(CLIENTS));
        bench.edit('B', 1);
        bench.overload('B', true);
        assert_eq!(bench.clients(CLIENTS), without.clients(CLIENTS));
        ['A', 'C'].iter().for_each(|&name| bench.overload(name, true));
        assert_eq!(bench.ask(), None);
        assert_eq!(Bench::<Rendezvous>::new(&[]).ask(), None);
    }

    /// The next connection of a client comes from another port and must find the same server, unless told otherwise.
    #[test]
    fn the_port_counts_if_told() {
        let mut by_client = bench(&[('A', 1), ('B', 1), ('C', 1)]);
        let first = by_client.from(7, 1).ask();
        assert!((1..1000).all(|port| by_client.from(7, port).ask() == first));
        let servers = [('A', 1), ('B', 1), ('C', 1)];
        let mut by_connection = Bench::<Rendezvous>::with("key=connection\n", &servers).unwrap();
        let picks: Vec<_> = (0..3000).map(|port| by_connection.from(7, port).ask()).collect();
        assert!(['A', 'B', 'C'].iter().all(|&name| (850..1150).contains(&share(&picks, name))));
    }

    /// Two directors whose operators added the servers in another order must agree.
    #[test]
    fn the_order_does_not_count() {
        let mut one = bench(&[('A', 1), ('B', 2), ('C', 3)]);
        let mut other = bench(&[('C', 3), ('A', 1), ('B', 2)]);
        assert_eq!(one.clients(CLIENTS), other.clients(CLIENTS));
    }

    /// The largest weights must not overflow the comparison.
    #[test]
    fn the_largest_weights_compare() {
        let picks = bench(&[('A', i32::MAX), ('B', i32::MAX), ('C', 1)]).clients(CLIENTS);
        assert!(share(&picks, 'A').abs_diff(share(&picks, 'B')) < 1200);
        assert!(share(&picks, 'C') < 3);
    }

    /// A misspelt option must not be taken for the default.
    #[test]
    fn wrong_options_are_refused() {
        assert_eq!(Bench::<Rendezvous>::with("key=port\n", &[]).err(), Some("`key` is client or connection"));
        assert_eq!(Bench::<Rendezvous>::with("kee=client\n", &[]).err(), Some("the only option is `key`"));
    }
}
