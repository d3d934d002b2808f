//! The terms under which the rules of a [`Book`] are carried out: settings and timeouts.
//!
//! Invariant: a service that has timeouts of its own has a class of the engine to itself, until it has none any more or is
//! deleted; its connections take theirs from there.

use xvs_engine::conn::Class;
use xvs_engine::time::Now;

use super::{Book, no_such_service};
use crate::config::rules;
use crate::control::protocol::{ByState, Refusal, RefusalKind, ServiceId, TimeoutSet};
use crate::control::sysctl::{Settings, Wish};
use crate::control::{keys, timeouts};

impl Book {
    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Begins anew with these settings.
    pub fn begin_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.act();
    }

    /// Changes settings.
    pub fn set(&mut self, wishes: Vec<Wish>) {
        let estimated = self.settings.estimates();
        self.settings.take(&wishes);
        self.act();
        if !estimated && self.settings.estimates() {
            self.entries.values_mut().for_each(|entry| entry.resume(&self.counters));
        }
    }

    /// What the settings say is done from now on.
    fn act(&self) {
        self.settings.act_on(&self.shared.switches);
        // Schedulers have it from their services.
        self.remember();
    }

    /// Looks after the defences, once a second.
    pub fn defend(&mut self, now: Now) {
        let table = &self.shared.table;
        self.settings.defend(&self.shared.switches, table.capacity().saturating_sub(table.len()));
        if self.shared.switches.drop_entry_active.is_on() {
            self.shared.sacrifice(&mut self.cull, now);
        }
    }

    /// The timeouts of one service; or the director's, and those of all services that have their own.
    ///
    /// # Errors
    /// There is no such service.
    pub fn timeouts(&self, id: Option<&ServiceId>) -> Result<Vec<TimeoutSet>, Refusal> {
        let set = |service, class| TimeoutSet { service, timeouts: timeouts::states(&self.shared, class) };
        if let Some(id) = id {
            let entry = self.entry(id).ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))?;
            let mut set = set(Some(*id), entry.class);
            // What the director has of its own is not the service's.
            set.timeouts.iter_mut().for_each(|timeout| timeout.own &= entry.class != Class::DIRECTOR);
            return Ok(vec![set]);
        }
        let own = self.entries().filter(|entry| entry.class != Class::DIRECTOR);
        let own = own.map(|entry| set(Some(entry.spec.id), entry.class));
        Ok(std::iter::once(set(None, Class::DIRECTOR)).chain(own).collect())
    }

    /// Gives a service timeouts of its own, besides or instead of those that it has; 0 takes one back.
    ///
    /// # Errors
    /// There is no such service or timeout, or too many services have their own.
    pub fn set_timeouts(&mut self, id: &ServiceId, set: &ByState, replace: bool) -> Result<(), Refusal> {
        let set = timeouts::check(set)?;
        let Book { shared, entries, numbers, classes, .. } = self;
        let entry = numbers.get(id).and_then(|number| entries.get_mut(number));
        let entry = entry.ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))?;
        let mut wanted = if replace { ByState::new() } else { entry.timeouts.clone() };
        wanted.extend(set);
        wanted.retain(|_, seconds| *seconds != 0);
        let class = match (entry.class, wanted.is_empty()) {
            (Class::DIRECTOR, false) => classes.lend().ok_or_else(|| {
                let message = format!("service {}: all sets of timeouts are lent to services", rules::describe(id));
                Refusal::new(RefusalKind::Limit, message)
            })?,
            (class, false) => class,
            (_, true) => Class::DIRECTOR,
        };
        if entry.class != Class::DIRECTOR {
            shared.timeouts.clear(entry.class);
        }
        if class != Class::DIRECTOR {
            timeouts::set_states(shared, class, &wanted);
        }
        if class != entry.class {
            let scheduler = keys::scheduler(&entry.spec)?;
            entry.service.edit(&shared.arena, scheduler, keys::policy(&entry.spec, class));
            classes.take_back(std::mem::replace(&mut entry.class, class));
        }
        entry.timeouts = wanted;
        Ok(())
    }
}
