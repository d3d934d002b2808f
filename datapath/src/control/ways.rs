//! The servers whose ways are to be found again after the network has changed, a piece at a time.
//!
//! Invariant: a record is here with the server that it had when the network changed, or not any more: whoever finds its
//! way meanwhile takes it out. So a record that has got another server never gets the way of the old one.

use std::collections::HashMap;
use std::net::IpAddr;

use xvs_engine::real::RealId;

use super::network::Way;

/// Servers without a new way yet.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// By the numbers of their records.
    servers: Vec<Option<IpAddr>>,
    /// Those before have theirs.
    at: usize,
    /// Ways by address: servers of many services are often the same machines.
    known: HashMap<IpAddr, Way>,
}

impl Ways {
    /// All of these, instead of those that were here.
    pub(super) fn begin(&mut self, reals: Vec<(RealId, IpAddr)>) {
        *self = Ways::default();
        let records = reals.iter().map(|(real, _)| real.0 as usize + 1).max().unwrap_or(0);
        self.servers.resize(records, None);
        reals.into_iter().for_each(|(real, server)| self.servers[real.0 as usize] = Some(server));
    }

    /// This one has its way.
    pub(super) fn forget(&mut self, real: RealId) {
        if let Some(server) = self.servers.get_mut(real.0 as usize) {
            *server = None;
        }
    }

    /// Takes the next one out. After the last one, all memory is given back.
    pub(super) fn next(&mut self) -> Option<(RealId, IpAddr)> {
        while let Some(server) = self.servers.get_mut(self.at) {
            let real = RealId(self.at as u32);
            self.at += 1;
            if let Some(server) = server.take() {
                return Some((real, server));
            }
        }
        *self = Ways::default();
        None
    }

    /// The way of an address, found once. True if it was not known before.
    pub(super) fn way(&mut self, server: IpAddr, find: impl FnOnce() -> Way) -> (Way, bool) {
        let mut is_new = false;
        let way = self.known.entry(server).or_insert_with(|| {
            is_new = true;
            find()
        });
        (way.clone(), is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the way of a server that takes over a record while ways are found again: the old server's is not written.
    #[test]
    fn who_has_a_way_is_not_given_another() {
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut ways = Ways::default();
        assert_eq!(ways.next(), None);
        ways.forget(RealId(3));
        ways.begin(vec![(RealId(5), one), (RealId(2), two), (RealId(3), one)]);
        assert_eq!(ways.next(), Some((RealId(2), two)));
        ways.forget(RealId(3));
        assert_eq!(ways.next(), Some((RealId(5), one)));
        assert_eq!(ways.next(), None);
        ways.begin(vec![(RealId(1), one)]);
        ways.begin(vec![(RealId(0), two)]);
        assert_eq!((ways.next(), ways.next()), (Some((RealId(0), two)), None));
    }
}
