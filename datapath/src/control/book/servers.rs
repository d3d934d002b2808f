//! Servers that come into a service, and edits of those that are there.
//!
//! Invariant: a server that was removed and comes back while its connections live is the same one, with its counts. What
//! can fail (rules, steering, room for a record) comes before anything changes. Not here: how one leaves (`removal`).

use super::plugins;
use super::steering::{note_steered, steer_server};
use super::{Book, Member, Outside, Trashed, no_such_server, no_such_service};
use crate::config::rules;
use crate::control::estimate::difference;
use crate::control::keys;
use crate::control::protocol::{Refusal, RefusalKind, ServerSpec, ServiceId};

impl Book {
    /// Adds a server to a service, in front of the others.
    ///
    /// # Errors
    /// No such service, the server is there already, it breaks a rule, or a table is full.
    pub fn add_server(&mut self, id: &ServiceId, spec: ServerSpec, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let entry = self.entry(id).ok_or_else(|| no_such_service(id, RefusalKind::ServiceNotDefined))?;
        if entry.find(spec.address).is_some() {
            let message = format!(
                "server {} is already in service {}; edit it with -e, or delete it first",
                spec.address,
                rules::describe(id)
            );
            return Err(Refusal::new(RefusalKind::ServerExists, message));
        }
        rules::check_server(&entry.spec, &spec)?;
        let service = entry.spec.clone();
        let old = self.trash.get(id, spec.address).and_then(|trashed| trashed.member.spec.tags);
        let spec = ServerSpec { tags: spec.tags.or(old), ..spec }.kept();
        let mut member = match self.trash.get(id, spec.address) {
            Some(trashed) => {
                let steered = steer_server(&service, &spec, &trashed.member.steered, self.observes, outside)?;
                let mut member = self.revive(id, &spec)?;
                member.steered.extend(steered);
                member
            }
            None => {
                let real = self.trash.take_record(&self.shared.arena).ok_or_else(|| self.no_record())?;
                let steered = steer_server(&service, &spec, &[], self.observes, outside);
                let steered = steered.inspect_err(|_| self.trash.give_record(real))?;
                self.shared.arena.get(real).reset(&keys::settings(&spec));
                let mut member = Member::new(spec, real, &self.counters);
                member.steered = steered;
                member
            }
        };
        member.spec = spec;
        note_steered(&mut self.leaving, &service, &member, self.observes);
        let settings = keys::settings(&spec);
        let real = self.shared.arena.get(member.real);
        real.set(&settings);
        real.set_added_weight(settings.weight);
        outside.route(member.real, spec.address.ip());
        let Book { shared, entries, numbers, counters, .. } = self;
        if let Some(entry) = numbers.get(id).and_then(|number| entries.get_mut(number)) {
            let real = member.real;
            entry.members.push(member);
            plugins::announce(entry, &shared.arena, counters);
            entry.service.add(&shared.arena, real);
        }
        Ok(())
    }

    fn no_record(&self) -> Refusal {
        let used = self.trash.used();
        let message = format!(
            "the director has no room for another real server: {used} are in use, removed ones with connections included"
        );
        Refusal::new(RefusalKind::Limit, message)
    }

    /// Takes a server out of the trash, with its counts and connections.
    fn revive(&mut self, id: &ServiceId, spec: &ServerSpec) -> Result<Member, Refusal> {
        let trashed = self.trash.revive(id, spec.address);
        let Trashed { service, mut member, .. } = trashed.ok_or_else(|| no_such_server(id, spec.address))?;
        let Book { entries, numbers, counters, .. } = self;
        let Some(entry) = numbers.get(id).and_then(|number| entries.get_mut(number)) else { return Ok(member) };
        if entry.service.number == service {
            // Counted among those that are gone until now.
            entry.retired = difference(entry.retired, member.traffic(counters));
            member.resume(counters);
        } else {
            // The service is another one with the same key: its counters begin at zero, the connections stay.
            member.begin(counters);
        }
        Ok(member)
    }

    /// Replaces everything of a server but its key.
    ///
    /// # Errors
    /// No such service or server, the new rules break one, or a table is full.
    pub fn edit_server(&mut self, id: &ServiceId, spec: ServerSpec, outside: &mut dyn Outside) -> Result<(), Refusal> {
        let Book { shared, counters, entries, numbers, leaving, observes, .. } = self;
        let entry = numbers.get(id).and_then(|number| entries.get_mut(number));
        let entry = entry.ok_or_else(|| no_such_service(id, RefusalKind::ServiceNotDefined))?;
        let at = entry.find(spec.address).ok_or_else(|| no_such_server(id, spec.address))?;
        rules::check_server(&entry.spec, &spec)?;
        let member = &mut entry.members[at];
        let spec = ServerSpec { tags: spec.tags.or(member.spec.tags), ..spec }.kept();
        let steered = steer_server(&entry.spec, &spec, &member.steered, *observes, outside)?;
        member.steered.extend(steered);
        member.spec = spec;
        note_steered(leaving, &entry.spec, member, *observes);
        let real = member.real;
        plugins::announce(entry, &shared.arena, counters);
        entry.service.change(&shared.arena, real, || shared.arena.get(real).set(&keys::settings(&spec)));
        Ok(())
    }
}
