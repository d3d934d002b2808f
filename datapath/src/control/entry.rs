//! A service in force and its servers, as the [`Book`](super::book::Book) keeps them.
//!
//! Invariant: a service's traffic is that of its servers and of those that are gone, so it never goes backwards when a
//! server goes or comes back. Who may be in the list, and what is steered for it, is the book's business.

use std::net::SocketAddr;
use std::sync::Arc;

use xvs_engine::conn::Class;
use xvs_engine::counters::{Counters, Traffic};
use xvs_engine::real::{Arena, RealId};
use xvs_engine::service::Service;
use xvs_redirect::Key;

use super::beside::{Beside, Fact};
use super::estimate::difference;
use super::protocol::{self, ByState, ServerSpec, ServiceSpec};
use super::tally::{self, Tally};

/// What all workers count.
pub(super) type AllCounters = [Arc<Counters>];

/// A service and its servers.
#[derive(Debug)]
pub struct Entry {
    /// Its rules.
    pub spec: ServiceSpec,
    /// The engine's side of it.
    pub service: Arc<Service>,
    /// Timeouts of its own, by the states' own names.
    pub timeouts: ByState,
    /// Where the engine has them; the director's if there are none.
    pub(super) class: Class,
    /// Its servers, oldest first, so that adding one moves none.
    pub(super) members: Vec<Member>,
    /// Traffic of servers that are gone.
    pub(super) retired: Traffic,
    tally: Tally,
    /// Its packets go to the workers.
    pub(super) steered: bool,
    /// Its plugin, and the candidate that it tries.
    pub(super) beside: Beside,
}

/// A server of a service.
#[derive(Debug)]
pub struct Member {
    /// Its rules.
    pub spec: ServerSpec,
    /// Its record in the engine's arena.
    pub real: RealId,
    /// The record's traffic when this server took it over from another one.
    base: Traffic,
    tally: Tally,
    /// What a person's script says of it to plugins.
    pub(super) metric: i64,
    /// What is steered to the workers for it, by its method, and by those it had while its oldest connections were made.
    pub(super) steered: Vec<Key>,
}

impl Member {
    /// A server over a record; what the record counted before is not its own.
    pub(super) fn new(spec: ServerSpec, real: RealId, counters: &AllCounters) -> Self {
        let base = tally::of_record(counters, real);
        Member { spec, real, base, tally: Tally::default(), metric: 0, steered: Vec::new() }
    }

    /// All its traffic.
    pub(super) fn traffic(&self, counters: &AllCounters) -> Traffic {
        difference(tally::of_record(counters, self.real), self.base)
    }

    /// Counts from now on, as a new server would.
    pub(super) fn begin(&mut self, counters: &AllCounters) {
        self.base = tally::of_record(counters, self.real);
        self.tally = Tally::default();
    }

    /// Goes on counting, after a time without samples.
    pub(super) fn resume(&mut self, counters: &AllCounters) {
        self.tally.resume(self.traffic(counters));
    }

    /// What plugins may know of it.
    fn fact(&self, counters: &AllCounters) -> Fact {
        Fact {
            real: self.real,
            address: self.spec.address,
            stats: self.tally.stats(self.traffic(counters)),
            metric: self.metric,
            tags: self.spec.tags.unwrap_or_default(),
        }
    }
}

impl Entry {
    /// A service without servers.
    pub(super) fn new(spec: ServiceSpec, service: Arc<Service>, steered: bool) -> Self {
        let (timeouts, members, retired, tally, beside) = Default::default();
        Entry { spec, service, timeouts, class: Class::DIRECTOR, members, retired, tally, steered, beside }
    }

    /// Its servers, newest first.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.members.iter().rev()
    }

    /// What plugins may know of its servers, newest first.
    pub(super) fn facts(&self, counters: &AllCounters) -> Vec<Fact> {
        self.members().map(|member| member.fact(counters)).collect()
    }

    /// The place of a server.
    pub(super) fn find(&self, address: SocketAddr) -> Option<usize> {
        self.members.iter().position(|member| member.spec.address == address)
    }

    /// All its traffic, that of servers that are gone included.
    pub(super) fn traffic(&self, counters: &AllCounters) -> Traffic {
        self.members.iter().fold(self.retired, |mut sum, member| {
            sum += member.traffic(counters);
            sum
        })
    }

    /// Counting begins again, for the service and for its servers.
    pub(super) fn zero(&mut self, counters: &AllCounters) {
        for member in &mut self.members {
            member.tally.zero(member.traffic(counters));
        }
        self.tally.zero(self.traffic(counters));
    }

    /// Samples are taken again, after a time without.
    pub(super) fn resume(&mut self, counters: &AllCounters) {
        self.members.iter_mut().for_each(|member| member.resume(counters));
        self.tally.resume(self.traffic(counters));
    }

    /// A sample for the rates of the service and of its servers. Gives all its traffic.
    pub(super) fn sample(&mut self, counters: &AllCounters) -> Traffic {
        let mut sum = self.retired;
        for member in &mut self.members {
            let traffic = member.traffic(counters);
            member.tally.sample(traffic);
            sum += traffic;
        }
        self.tally.sample(sum);
        sum
    }

    /// The service as it is, for a listing; if it is not `live`, with the counts of the last sample. `path` tells how
    /// packets reach a server.
    pub(super) fn view(
        &self,
        arena: &Arena,
        counters: &AllCounters,
        live: bool,
        path: impl Fn(RealId) -> String,
    ) -> protocol::Service {
        let stats = |tally: &Tally, traffic| tally.stats(if live { traffic } else { tally.sampled() });
        let server = |member: &Member| {
            let real = arena.get(member.real);
            let counts = real.counts();
            protocol::Server {
                spec: member.spec,
                active: counts.active,
                inactive: counts.inactive(),
                persistent: real.templates(),
                overloaded: real.is_overloaded(),
                path: path(member.real),
                stats: stats(&member.tally, member.traffic(counters)),
            }
        };
        protocol::Service {
            spec: self.spec.clone(),
            timeouts: self.timeouts.clone(),
            stats: stats(&self.tally, self.traffic(counters)),
            servers: self.members().map(server).collect(),
        }
    }
}
