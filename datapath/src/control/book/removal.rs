//! What leaves the book: deleted services and servers, and what is steered for them until nobody needs it any more.
//!
//! Invariant: connections outlive the rules that they were made by. A removed server waits in the trash, a removed
//! service's key lingers, until the last of them is over.

use std::net::SocketAddr;

use xvs_engine::conn::Class;

use super::{Book, Member, Outside, Trashed, is_idle, no_such_server, no_such_service};
use crate::control::keys;
use crate::control::protocol::{Refusal, RefusalKind, ServiceId};

impl Book {
    /// Deletes a service with its servers. Their connections are dropped silently from now on, as in IPVS.
    ///
    /// # Errors
    /// There is no such service.
    pub fn delete_service(&mut self, id: &ServiceId, now_ms: u64, outside: &mut dyn Outside) -> Result<(), Refusal> {
        self.close_service(id, now_ms).ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))?;
        self.unsteer_marks(outside);
        self.announce(outside);
        self.end_nodest();
        Ok(())
    }

    /// Takes services back that were opened and have no room.
    pub fn withdraw<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a ServiceId>,
        now_ms: u64,
        outside: &mut dyn Outside,
    ) {
        for id in ids {
            let _ = self.close_service(id, now_ms);
        }
        self.announce(outside);
    }

    /// Deletes all services.
    pub fn flush(&mut self, now_ms: u64, outside: &mut dyn Outside) {
        let all: Vec<ServiceId> = self.entries().map(|entry| entry.spec.id).collect();
        for id in &all {
            self.close_service(id, now_ms);
        }
        self.unsteer_marks(outside);
        self.announce(outside);
        self.end_nodest();
    }

    /// Ends the connections of removed servers at once, if that is wanted (`expire_nodest_conn`).
    fn end_nodest(&self) {
        if self.shared.switches.expire_nodest_conn.is_on() {
            let ended = self.shared.end_nodest();
            tracing::info!(ended, "connections of removed servers were ended");
        }
    }

    fn close_service(&mut self, id: &ServiceId, now_ms: u64) -> Option<()> {
        let entry = self.remove_entry(id)?;
        let (number, traffic) = (entry.service.number, entry.traffic(&self.counters));
        self.totals.retire(traffic, self.sampling.is_ahead(number));
        self.listing.retire(number, traffic);
        for member in entry.members {
            entry.service.remove(&self.shared.arena, member.real);
            self.discard(*id, number, member, now_ms);
        }
        if entry.steered {
            self.lingering.insert(*id);
        }
        // Most have none of their own: the director's stay.
        if entry.class != Class::DIRECTOR {
            self.shared.timeouts.clear(entry.class);
            self.classes.take_back(entry.class);
        }
        Some(())
    }

    /// Deletes a server. Its connections' packets are dropped until it comes back or they time out, as in IPVS.
    ///
    /// # Errors
    /// No such service or server.
    pub fn delete_server(&mut self, id: &ServiceId, address: SocketAddr, now_ms: u64) -> Result<(), Refusal> {
        let Book { shared, counters, entries, numbers, .. } = self;
        let entry = numbers.get(id).and_then(|number| entries.get_mut(number));
        let entry = entry.ok_or_else(|| no_such_service(id, RefusalKind::ServiceNotDefined))?;
        let at = entry.find(address).ok_or_else(|| no_such_server(id, address))?;
        let member = entry.members.remove(at);
        entry.service.remove(&shared.arena, member.real);
        entry.retired += member.traffic(counters);
        let number = entry.service.number;
        self.discard(*id, number, member, now_ms);
        self.end_nodest();
        Ok(())
    }

    fn discard(&mut self, id: ServiceId, service: u32, member: Member, since_ms: u64) {
        // The trash sees to its key now.
        self.leaving.remove(&(id, member.spec.address));
        self.trash.put(id, Trashed { service, member, since_ms });
    }

    /// Forgets what nobody refers to any more: keys of ended connections, servers long in the trash.
    pub fn tidy(&mut self, now_ms: u64, outside: &mut dyn Outside) {
        self.begin_to_tidy(now_ms, outside);
        while self.go_on_tidying(now_ms, usize::MAX, outside) {}
    }

    /// Looks at so many servers in the trash. True if there is more to do.
    pub fn go_on_tidying(&mut self, now_ms: u64, servers: usize, outside: &mut dyn Outside) -> bool {
        let (over, more) = self.trash.empty(&self.shared.arena, now_ms, servers);
        for member in over {
            member.steered.iter().for_each(|key| outside.unsteer(key));
            outside.unroute(member.real);
        }
        more
    }

    /// Forgets keys of ended connections, and begins to look at the trash, which [`go_on_tidying`](Book::go_on_tidying) carries
    /// out.
    pub fn begin_to_tidy(&mut self, now_ms: u64, outside: &mut dyn Outside) {
        let Book { shared, entries, numbers, lingering, leaving, trash, observes, .. } = self;
        if !lingering.is_empty() {
            let busy = trash.services_with_connections(&shared.arena);
            let over = lingering.extract_if(|id| !busy.contains(id));
            over.filter_map(|id| keys::inbound(&id)).for_each(|key| outside.unsteer(&key));
        }
        leaving.retain(|(id, address)| {
            let entry = numbers.get(id).and_then(|number| entries.get_mut(number));
            let member = entry.and_then(|entry| {
                let at = entry.find(*address)?;
                Some((&entry.spec, entry.members.get_mut(at)?))
            });
            let Some((spec, member)) = member else { return false };
            let over = is_idle(&shared.arena, member.real);
            if over {
                let wanted = keys::of_server(spec, &member.spec, *observes);
                member.steered.extract_if(.., |key| !wanted.contains(key)).for_each(|key| outside.unsteer(&key));
            }
            !over
        });
        trash.begin_to_empty();
        self.tidy_marks(now_ms, outside);
    }
}
