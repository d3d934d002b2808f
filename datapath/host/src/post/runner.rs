//! A plugin at work for one worker: an instance, the list that it knows, and how fresh that is.
//!
//! Rows are written from the records of the servers, which are the truth, and never read back. What changed of them is
//! written at the first pick of each of the worker's breaths (a batch of packets: tens of microseconds), so a plugin knows
//! the connections of all workers as they were then; where its own last pick went is written before the next one. Each
//! time the table's head and one row, in turn, are written whole: so what a plugin scribbled there does not stay.
//!
//! Invariant: rows, members and the instance's count are of one list, the one of `list_version`. What a plugin answers is
//! checked here against that list; whether it still holds is the service's to say. Nothing is allocated for a pick.

use std::sync::Arc;

use xvs_engine::real::{Arena, RealId};
use xvs_engine::sched::guest::{Advice, Site};
use xvs_sdk::{Change, Needs, Request, abi};

use super::conduct::Misdeed;
use super::ledger::FactBook;
use crate::{Fault, Instance, Module};

/// Picks between two looks at the fuel that one took: it costs some nanoseconds to ask.
const LOOK: u32 = 16;

/// A version of a plugin.
#[derive(Debug)]
pub struct Version {
    /// The plugin's name.
    pub name: String,
    /// Its number among the versions of that name, from 1.
    pub number: u32,
    /// The compiled module.
    pub module: Arc<Module>,
}

/// What an instance is made from.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) version: Arc<Version>,
    pub(super) options: String,
}

/// What was last written of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    active: u32,
    total: u32,
    flags: u32,
}

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) recipe: Recipe,
    instance: Instance,
    members: Vec<RealId>,
    list_version: u64,
    seen: Vec<Seen>,
    /// The breath in which all rows were looked at, and its time.
    fresh: Option<(u64, u64)>,
    /// The row that is written whole next.
    heal: usize,
    /// The row of the last pick.
    stale: Option<usize>,
    hears_health: bool,
    hears_conns: bool,
    budget: u64,
    worst_fuel: u64,
    /// Picks until the fuel is looked at again.
    until_look: u32,
    counts: bool,
    /// It trapped, and answers no more.
    pub(super) is_broken: bool,
}

impl Runner {
    /// Makes an instance that knows options and servers, and has what its forerunner left.
    pub(super) fn build(
        recipe: &Recipe,
        seed: u64,
        site: &Site<'_>,
        facts: &FactBook,
        state: Option<&[u8]>,
        now_ms: u64,
    ) -> Result<Runner, Fault> {
        let module = &recipe.version.module;
        let mut instance = module.instantiate(seed)?;
        instance.set_now(now_ms);
        instance.configure(&recipe.options)?;
        let offers = module.offers();
        let mut runner = Runner {
            recipe: recipe.clone(),
            instance,
            members: Vec::new(),
            list_version: 0,
            seen: Vec::new(),
            fresh: None,
            heal: 0,
            stale: None,
            hears_health: offers.on_health,
            hears_conns: offers.on_conn,
            budget: 0,
            worst_fuel: 0,
            until_look: 0,
            counts: module.needs().has(Needs::COUNTS),
            is_broken: false,
        };
        runner.take_list(site, facts)?;
        let fuel = module.limits().fuel_setup;
        runner.instance.changed(abi::CHANGED_ALL, 0, fuel)?;
        if let Some(state) = state {
            // A later version may not understand its forerunner: it begins anew then.
            runner.instance.restore(state)?;
        }
        Ok(runner)
    }

    /// What it would hand over to the next version.
    pub(super) fn save(&mut self) -> Option<Vec<u8>> {
        if self.is_broken {
            return None;
        }
        let saved = self.instance.save(self.recipe.version.module.limits().fuel_most);
        self.is_broken |= saved.is_err();
        saved.ok().flatten()
    }

    /// Writes the whole list.
    fn take_list(&mut self, site: &Site<'_>, facts: &FactBook) -> Result<(), Fault> {
        self.instance.set_count(site.members.len())?;
        self.members.clear();
        self.members.extend_from_slice(site.members);
        self.list_version = site.version;
        self.seen.clear();
        self.stale = None;
        self.budget = self.recipe.version.module.budget(site.members.len());
        for (index, &id) in site.members.iter().enumerate() {
            let (row, seen) = row(site.arena, id);
            self.instance.write_row(index, &row);
            self.seen.push(seen);
        }
        self.write_facts(site.arena, facts);
        Ok(())
    }

    /// Writes the facts of all servers, if it wants any.
    pub(super) fn write_facts(&mut self, arena: &Arena, facts: &FactBook) {
        if self.recipe.version.module.offers().facts {
            for (index, &id) in self.members.iter().enumerate() {
                self.instance.write_facts(index, &facts.of(arena, id));
            }
        }
    }

    /// Takes a change of the list in. True if a new instance must be made instead.
    pub(super) fn changed(&mut self, site: &Site<'_>, facts: &FactBook, change: Change) -> Result<bool, Fault> {
        if self.recipe.version.module.needs().has(Needs::REBUILD) {
            return Ok(true);
        }
        self.take_list(site, facts)?;
        let (kind, index) = match change {
            Change::All => (abi::CHANGED_ALL, 0),
            Change::Added(index) => (abi::CHANGED_ADDED, index),
            Change::Removed(index) => (abi::CHANGED_REMOVED, index),
            Change::Edited(index) => (abi::CHANGED_EDITED, index),
        };
        match self.instance.changed(kind, index as i32, self.budget) {
            Ok(rebuild) => Ok(rebuild),
            // Too dear for a worker to wait for; a new instance has all the time that it needs.
            Err(Fault::Budget) => Ok(true),
            Err(fault) => {
                self.is_broken = true;
                Err(fault)
            }
        }
    }

    /// Asks for a server. What went wrong is boxed, so that an answer fits into registers.
    #[inline]
    pub(super) fn ask(&mut self, arena: &Arena, request: &Request) -> Result<Advice, Box<Misdeed>> {
        let answer = self.refresh(arena, request).and_then(|()| self.instance.pick(&flow(request), self.budget));
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                self.is_broken = true;
                return Err(Box::new(Misdeed::Fault(fault)));
            }
        };
        if self.until_look == 0 {
            self.until_look = LOOK;
            self.worst_fuel = self.worst_fuel.max(self.instance.fuel_used());
        }
        self.until_look -= 1;
        match answer {
            abi::FALLBACK => Ok(Advice::Native),
            abi::NOBODY => self.nobody(),
            index => {
                let index = index as usize; // a negative one is far beyond any list
                let Some(&id) = self.members.get(index) else { return Err(Box::new(Misdeed::BadIndex)) };
                if self.seen[index].flags & abi::ROW_USABLE == 0 {
                    return Err(Box::new(Misdeed::Unusable));
                }
                self.stale = Some(index);
                Ok(Advice::Real(id))
            }
        }
    }

    #[cold]
    fn nobody(&self) -> Result<Advice, Box<Misdeed>> {
        let may = self.recipe.version.module.needs().has(Needs::DENY);
        let none = self.seen.iter().all(|seen| seen.flags & abi::ROW_USABLE == 0);
        if may || none { Ok(Advice::Nobody) } else { Err(Box::new(Misdeed::Denied)) }
    }

    /// Brings the rows up to date.
    #[inline]
    fn refresh(&mut self, arena: &Arena, request: &Request) -> Result<(), Fault> {
        let now = (request.breath, request.now_ms);
        if self.fresh != Some(now) {
            return self.refresh_all(arena, now);
        }
        match self.stale.take() {
            Some(index) if self.counts || self.seen[index].flags != flags(arena, self.members[index]) => {
                self.refresh_row(arena, index)
            }
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn refresh_all(&mut self, arena: &Arena, now: (u64, u64)) -> Result<(), Fault> {
        self.fresh = Some(now);
        self.instance.set_now(now.1);
        self.stale = None;
        self.instance.write_head();
        if let Some(&id) = self.members.get(self.heal) {
            let (row, seen) = row(arena, id);
            let before = std::mem::replace(&mut self.seen[self.heal], seen);
            self.instance.write_row(self.heal, &row);
            self.rewrite(self.heal, before, seen)?;
        }
        self.heal = if self.heal + 1 < self.members.len() { self.heal + 1 } else { 0 };
        for index in 0..self.members.len() {
            self.refresh_row(arena, index)?;
        }
        Ok(())
    }

    /// Looks at a row; most have not changed.
    #[inline(always)]
    fn refresh_row(&mut self, arena: &Arena, index: usize) -> Result<(), Fault> {
        let now = seen(arena, self.members[index]);
        if now == self.seen[index] {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.seen[index], now);
        self.rewrite(index, before, now)
    }

    /// Writes a row that changed, and tells of it.
    #[inline(never)]
    fn rewrite(&mut self, index: usize, before: Seen, now: Seen) -> Result<(), Fault> {
        self.instance.set_counts(index, now.active, now.total, now.flags, health(now.flags));
        if self.hears_health && now.flags != before.flags {
            self.instance.on_health(index as i32, self.budget)?;
        }
        if self.hears_conns && now.total != before.total {
            self.instance.on_conn(index as i32, now.total.wrapping_sub(before.total) as i32, self.budget)?;
        }
        Ok(())
    }

    /// Another one chose: that server's row is brought up to date before the next pick.
    pub(super) fn follows(&mut self, chosen: Option<RealId>) {
        let at = |id: RealId| self.members.iter().position(|&member| member == id);
        self.stale = chosen.and_then(at);
    }

    /// The servers that it knows, and the version of that list.
    pub(super) fn list(&self) -> (&[RealId], u64) {
        (&self.members, self.list_version)
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn worst_fuel(&self) -> u64 {
        self.worst_fuel
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.instance.memory_bytes()
    }

    /// What it wrote to its log since the last time.
    pub(super) fn take_log(&mut self) -> Vec<String> {
        self.instance.take_log()
    }
}

#[inline(always)]
fn seen(arena: &Arena, id: RealId) -> Seen {
    let counts = arena.get(id).counts();
    Seen { active: counts.active, total: counts.total, flags: flags(arena, id) }
}

#[inline(always)]
fn flags(arena: &Arena, id: RealId) -> u32 {
    let real = arena.get(id);
    match (real.weight() > 0, real.is_overloaded()) {
        (true, false) => abi::ROW_USABLE,
        (true, true) => abi::ROW_OVERLOADED,
        (false, false) => abi::ROW_QUIESCED,
        (false, true) => abi::ROW_OVERLOADED | abi::ROW_QUIESCED,
    }
}

fn health(flags: u32) -> u32 {
    if flags & abi::ROW_USABLE != 0 { 100 } else { 0 }
}

fn row(arena: &Arena, id: RealId) -> (abi::Row, Seen) {
    let (real, seen) = (arena.get(id), seen(arena, id));
    let endpoint = real.endpoint();
    let row = abi::Row {
        weight: real.weight(),
        active: seen.active,
        total: seen.total,
        flags: seen.flags,
        last_weight: real.last_weight(),
        health: health(seen.flags),
        id: xvs_sdk::identity(&endpoint.address.octets16(), endpoint.port),
    };
    (row, seen)
}

fn flow(request: &Request) -> abi::Flow {
    abi::Flow {
        client: request.client,
        virtual_address: request.virtual_address,
        hash: request.hash,
        service: request.service,
        mark: request.mark,
        client_port: request.client_port,
        virtual_port: request.virtual_port,
        protocol: request.protocol,
        flags: request.flags,
        family: request.family,
        reserved: 0,
        interface: request.interface,
        queue: request.queue,
    }
}
