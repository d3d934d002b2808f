//! `rendezvous`: a client stays with its server, and a change of the list moves no other clients than it must.
//!
//! Every pair of client and server has a score that only the two decide; the usable server with the best score gets the
//! connection (highest random weight, Thaler and Ravishankar 1996). When a server goes, its clients spread over the
//! others and nobody else moves; when it comes back, exactly they return. Shares follow the weights: a server of weight
//! `w` asks for the client at the time `-log(u) / w`, with `u` drawn from the hash, and the earliest one wins.
//!
//! What it is not: it keeps no table, so it costs a look at every server for each *new* connection (established ones
//! are the director's memory and are never asked about). The hash has no secret: whoever may choose his own address can
//! choose his server. It looks at the client's address alone, so a large network behind one address goes to one server.
//!
//! Invariant: the pick depends on the client's address and on the servers' addresses, ports and weights, and on nothing
//! else: not on their order in the list, nor on what happened before. So there is no state, and directors with the same
//! rules agree.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use core::cmp::Ordering;

use xvs_sdk::{Reals, Request, Scheduler};

/// Bits behind the point of a logarithm. More would make ties rarer, which are broken by name; each costs a multiplication.
const FRACTION: u32 = 24;

/// The scheduler. It remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendezvous;

impl Scheduler for Rendezvous {
    fn pick<R: Reals + ?Sized>(&mut self, request: &Request, reals: &R) -> Option<usize> {
        let client = mix_address(&request.client);
        let bid = |index: usize| {
            let (address, port) = reals.address(index);
            let name = mix(mix_address(&address) ^ u64::from(port));
            // Usable servers have a weight above 0.
            let weight = reals.weight(index) as u32;
            Bid { index, name, wait: minus_log2(mix(client ^ name)), weight }
        };
        let usable = (0..reals.len()).filter(|&index| reals.is_usable(index));
        usable.map(bid).min_by(Bid::compare).map(|bid| bid.index)
    }
}

/// What a server offers for a client: the smallest `wait / weight` wins.
struct Bid {
    index: usize,
    name: u64,
    wait: u64,
    weight: u32,
}

impl Bid {
    fn compare(&self, other: &Bid) -> Ordering {
        // a / b < c / d without a division: a wait has 31 bits and a weight 31.
        let (own, theirs) = (self.wait * u64::from(other.weight), other.wait * u64::from(self.weight));
        own.cmp(&theirs).then(self.name.cmp(&other.name))
    }
}

/// The 16 bytes of an address in one word.
fn mix_address(address: &[u8; 16]) -> u64 {
    let mut words = [0u64; 2];
    for (index, &byte) in address.iter().enumerate() {
        words[index / 8] = words[index / 8] << 8 | u64::from(byte);
    }
    mix(mix(words[0]) ^ words[1])
}

/// Spreads a word over all words: the finaliser of SplitMix64 (Steele, Lea and Flood 2014). It has an inverse, so no
/// two words become one.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// `-log2(hash / 2^64)` with [`FRACTION`] bits behind the point; above 0. In integers, because floating point may differ
/// from machine to machine, and `core` has no logarithm.
fn minus_log2(hash: u64) -> u64 {
    let hash = hash.max(1); // the logarithm of 0 would be endless
    let zeros = hash.leading_zeros();
    // From here on a number from 1 to 2 with 63 bits behind the point. Its square is 2 or more when the next bit of its
    // logarithm is 1.
    let mut number = hash << zeros;
    let mut log = u64::from(63 - zeros);
    for _ in 0..FRACTION {
        let square = (u128::from(number) * u128::from(number)) >> 63;
        let bit = (square >> 64) as u64;
        number = (square >> bit) as u64;
        log = log << 1 | bit;
    }
    (64 << FRACTION) - log
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    use std::vec::Vec;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Server {
        id: char,
        weight: i32,
        overloaded: bool,
    }

    /// A service's servers, newest first.
    #[derive(Clone, Default)]
    struct List(Vec<Server>);

    /// A service.
    #[derive(Clone, Default)]
    struct Site {
        servers: List,
    }

    impl Reals for List {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn weight(&self, index: usize) -> i32 {
            self.0[index].weight
        }
        fn active(&self, _: usize) -> u32 {
            0
        }
        fn total(&self, _: usize) -> u32 {
            0
        }
        fn is_overloaded(&self, index: usize) -> bool {
            self.0[index].overloaded
        }
        fn address(&self, index: usize) -> ([u8; 16], u16) {
            let mut address = MAPPED;
            address[12..].copy_from_slice(&[192, 168, 0, self.0[index].id as u8]);
            (address, 80)
        }
    }

    impl Site {
        fn new(servers: &[(char, i32)]) -> Site {
            let mut site = Site::default();
            servers.iter().for_each(|&(id, weight)| site.add(id, weight));
            site
        }

        fn at(&self, id: char) -> usize {
            self.servers.0.iter().position(|server| server.id == id).unwrap()
        }

        fn add(&mut self, id: char, weight: i32) {
            self.servers.0.insert(0, Server { id, weight, overloaded: false });
        }

        fn remove(&mut self, id: char) {
            let index = self.at(id);
            self.servers.0.remove(index);
        }

        fn edit(&mut self, id: char, weight: i32) {
            let index = self.at(id);
            self.servers.0[index].weight = weight;
        }

        fn pick(&self, client: u32) -> Option<char> {
            let index = Rendezvous.pick(&request(client, 40_000), &self.servers)?;
            Some(self.servers.0[index].id)
        }

        fn picks(&self) -> Vec<char> {
            (0..CLIENTS).map(|client| self.pick(client).unwrap()).collect()
        }
    }

    const CLIENTS: u32 = 60_000;

    /// What an IPv4 address begins with.
    const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];

    /// A client of 10.0.0.0/8.
    fn request(client: u32, client_port: u16) -> Request {
        let mut address = MAPPED;
        address[12..].copy_from_slice(&(0x0a00_0000 + client).to_be_bytes());
        Request { client: address, client_port, ..Request::default() }
    }

    fn share(picks: &[char], id: char) -> usize {
        picks.iter().filter(|&&picked| picked == id).count()
    }

    /// Neighbouring addresses are the common case; their shares must follow the weights.
    #[test]
    fn shares_follow_the_weights() {
        let picks = Site::new(&[('A', 1), ('B', 2), ('C', 3)]).picks();
        for (id, expected) in [('A', 10_000), ('B', 20_000), ('C', 30_000)] {
            let got = share(&picks, id);
            assert!((expected - 600..=expected + 600).contains(&got), "{}: {}", id, got);
        }
    }

    /// The promise of the scheduler: who was not with the server that goes stays where he is.
    #[test]
    fn a_removed_server_moves_its_own_clients_only() {
        let mut site = Site::new(&[('A', 1), ('B', 2), ('C', 3), ('D', 1)]);
        let before = site.picks();
        site.remove('B');
        let after = site.picks();
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *old == 'B'));
        assert!(['A', 'C', 'D'].iter().all(|&id| share(&after, id) > share(&before, id)), "all get a part of B's");
    }

    /// A server that was restarted gets exactly its clients back, wherever in the list it is now.
    #[test]
    fn a_returning_server_gets_its_clients_back() {
        let mut site = Site::new(&[('A', 1), ('B', 2), ('C', 3)]);
        let before = site.picks();
        site.remove('A');
        site.add('A', 1);
        assert_eq!(site.at('A'), 0);
        assert_eq!(site.picks(), before);
    }

    /// A new server takes from the others and moves nobody between them.
    #[test]
    fn an_added_server_only_takes() {
        let mut site = Site::new(&[('A', 1), ('B', 1)]);
        let before = site.picks();
        site.add('C', 1);
        let after = site.picks();
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *new == 'C'));
    }

    /// More weight takes clients from others and loses none; less weight the reverse.
    #[test]
    fn a_weight_moves_clients_in_one_direction() {
        let mut site = Site::new(&[('A', 2), ('B', 2), ('C', 2)]);
        let before = site.picks();
        site.edit('B', 3);
        let after = site.picks();
        assert!(before.iter().zip(&after).all(|(old, new)| old == new || *new == 'B'));
        assert!(share(&after, 'B') > share(&before, 'B'));
        site.edit('B', 2);
        assert_eq!(site.picks(), before);
    }

    /// Quiesced and overloaded servers get nothing new, and their clients find the same server as if it were gone.
    #[test]
    fn unusable_servers_are_passed_over() {
        let mut site = Site::new(&[('A', 1), ('B', 1), ('C', 1)]);
        let mut without = site.clone();
        without.remove('B');
        site.edit('B', 0);
        assert_eq!(site.picks(), without.picks());
        site.edit('B', 1);
        let index = site.at('B');
        site.servers.0[index].overloaded = true;
        assert_eq!(site.picks(), without.picks());
        site.servers.0.iter_mut().for_each(|server| server.overloaded = true);
        assert_eq!(site.pick(1), None);
        assert_eq!(Site::default().pick(1), None);
    }

    /// The next connection of a client comes from another port and must find the same server.
    #[test]
    fn the_port_does_not_count() {
        let site = Site::new(&[('A', 1), ('B', 1), ('C', 1)]);
        for client in 0..100 {
            let picks: Vec<_> = (1..100).map(|port| Rendezvous.pick(&request(client, port), &site.servers)).collect();
            assert!(picks.iter().all(|pick| *pick == picks[0]));
        }
    }

    /// Two directors whose operators added the servers in another order must agree.
    #[test]
    fn the_order_does_not_count() {
        let one = Site::new(&[('A', 1), ('B', 2), ('C', 3)]);
        let other = Site::new(&[('C', 3), ('A', 1), ('B', 2)]);
        assert_eq!(one.picks(), other.picks());
    }

    /// Two servers on one machine are two servers.
    #[test]
    fn the_servers_port_counts() {
        struct Twins;
        impl Reals for Twins {
            fn len(&self) -> usize {
                2
            }
            fn weight(&self, _: usize) -> i32 {
                1
            }
            fn active(&self, _: usize) -> u32 {
                0
            }
            fn total(&self, _: usize) -> u32 {
                0
            }
            fn is_overloaded(&self, _: usize) -> bool {
                false
            }
            fn address(&self, index: usize) -> ([u8; 16], u16) {
                (MAPPED, 8080 + index as u16)
            }
        }
        let first = (0..CLIENTS).filter(|&client| Rendezvous.pick(&request(client, 1), &Twins) == Some(0)).count();
        assert!((29_000..=31_000).contains(&first), "{}", first);
    }

    /// The largest weights must not overflow the comparison.
    #[test]
    fn the_largest_weights_compare() {
        let site = Site::new(&[('A', i32::MAX), ('B', i32::MAX), ('C', 1)]);
        let picks = site.picks();
        assert!(share(&picks, 'A').abs_diff(share(&picks, 'B')) < 1200);
        assert!(share(&picks, 'C') < 3);
    }

    /// Logarithms: exact for powers of two, falling, never 0, and 31 bits long at most.
    #[test]
    fn logarithms() {
        for power in 0..64 {
            assert_eq!(minus_log2(1 << power), (64 - power) << FRACTION);
        }
        assert_eq!(minus_log2(0), 64 << FRACTION);
        assert!(minus_log2(u64::MAX) > 0);
        let three_quarters = minus_log2(3 << 62) as f64 / f64::from(1 << FRACTION);
        assert!((three_quarters - 0.415_037_5).abs() < 1e-6, "{}", three_quarters);
        let samples = [1, 2, 3, 1 << 20, 5 << 40, 1 << 63, u64::MAX];
        assert!(samples.windows(2).all(|pair| minus_log2(pair[0]) >= minus_log2(pair[1])));
    }
}
