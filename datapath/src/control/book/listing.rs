//! A listing of all services, made a piece at a time: other requests go on meanwhile.
//!
//! Invariant: it has each service once that is there from its begin to its end, as it was at one moment; its totals count
//! nothing twice, and leave nothing out because its service went.

use xvs_engine::counters::Traffic;
use xvs_engine::real::RealId;

use super::super::protocol::{Service, Stats};
use super::super::round::Round;
use super::Book;

/// A listing on its way.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) round: Round,
    services: Vec<Service>,
    /// Traffic of the services that it has, and of those that are gone.
    sum: Traffic,
}

impl Listing {
    /// A service goes, with this traffic.
    pub(super) fn retire(&mut self, number: u32, service: Traffic) {
        if self.round.is_ahead(number) {
            self.sum += service;
        }
    }
}

impl Book {
    /// Begins to list all services, which [`go_on_listing`](Book::go_on_listing) carries out. One that is on its way is given
    /// up.
    pub fn begin_listing(&mut self) {
        let services = Vec::with_capacity(self.entries.len());
        self.listing = Listing { round: Round::default(), services, sum: self.totals.gone() };
        self.listing.round.begin();
    }

    /// Is a listing on its way?
    pub fn is_listing(&self) -> bool {
        self.listing.round.next().is_some()
    }

    /// Lists services with about so many servers. Gives all of them, and the totals, when it has come to the end. `path`
    /// tells how packets reach a server.
    pub fn go_on_listing(
        &mut self,
        mut servers: usize,
        path: impl Fn(RealId) -> String,
    ) -> Option<(Vec<Service>, Stats)> {
        let live = self.settings.estimates();
        let Book { entries, counters, shared, listing, totals, .. } = self;
        for (number, entry) in entries.range(listing.round.next()?..) {
            if servers == 0 {
                listing.round.stop(Some(*number));
                return None;
            }
            listing.services.push(entry.view(&shared.arena, counters, live, &path));
            listing.sum += entry.traffic(counters);
            servers = servers.saturating_sub(1 + entry.members.len());
        }
        listing.round.stop(None);
        Some((std::mem::take(&mut listing.services), totals.stats(live, listing.sum)))
    }
}
