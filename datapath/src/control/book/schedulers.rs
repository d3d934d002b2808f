//! What is done with plugins while services run: load, swap, roll back, try, promote.
//!
//! Invariant: what is refused has changed nothing. A swap concerns all services of a name or none: if one of them can not
//! have the version, those that had it already get theirs back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xvs_host::Version;

use super::plugins::{Plugins, bad, give, ground, prove, prove_at};
use super::{Book, Entry, no_such_server, no_such_service};
use crate::config::{Desired, plugins as rules_of, rules};
use crate::control::beside::{self, OnTrial};
use crate::control::protocol::schedulers::{
    Candidate, Loaded, ModuleView, PREFIX, PluginStatus, RefusedFile, SwapTo, TrialKind, plugin,
};
use crate::control::protocol::{Grants, Options, Refusal, RefusalKind, SchedulerAction, SchedulerAnswer, ServiceId};
use crate::control::registry::Versions;
use crate::control::wanted;
use crate::control::workshop::Order;

/// What a name was, and who had which version of it: the way back from an action of this file.
#[derive(Debug)]
pub struct Placement {
    name: String,
    versions: Option<Versions>,
    live: Vec<(ServiceId, Arc<Version>)>,
}

impl Book {
    /// Carries out what is asked about plugins. None where there is nothing to tell.
    ///
    /// # Errors
    /// It is refused, and nothing has changed.
    pub fn scheduler(&mut self, action: SchedulerAction, now_ms: u64) -> Result<Option<SchedulerAnswer>, Refusal> {
        let loaded = |loaded| Ok(Some(SchedulerAnswer::Loaded(loaded)));
        match action {
            SchedulerAction::Load { name, file, grants } => loaded(self.load(&name, file, grants)?),
            SchedulerAction::List => Ok(Some(SchedulerAnswer::Modules(self.modules()))),
            SchedulerAction::Status(id) => {
                self.plugin_status(id.as_ref(), now_ms).map(SchedulerAnswer::Status).map(Some)
            }
            SchedulerAction::Swap { name, to } => loaded(self.swap(&name, to)?),
            SchedulerAction::Rollback { name } => {
                let version = self.plugins.registry.before(&name)?;
                loaded(self.exchange(&version)?)
            }
            SchedulerAction::Unload { name, version } => self.unload(&name, version).map(|()| None),
            SchedulerAction::Options { service, set, unset, clear } => {
                self.set_options(&service, set, &unset, clear).map(SchedulerAnswer::Options).map(Some)
            }
            SchedulerAction::Metric { service, server, value } => {
                self.set_metric(&service, server, value).map(|()| None)
            }
            SchedulerAction::Retry(id) => {
                let entry = self.known(&id)?;
                if entry.beside.retry() {
                    Ok(None)
                } else {
                    Err(bad(&id, "its scheduler is native: there is no plugin to let back"))
                }
            }
            SchedulerAction::Try { service, candidate, kind, options } => {
                loaded(self.begin_trial(&service, candidate, kind, options)?)
            }
            SchedulerAction::EndTrial(id) => self.end_trial(&id).map(|()| None),
            SchedulerAction::Compare(id) => {
                let entry = self.known(&id)?;
                let (ground, facts) = (ground(entry, &self.shared.arena, &self.counters), entry.facts(&self.counters));
                let view = entry.beside.comparison(ground, &entry.spec, &facts, now_ms)?;
                Ok(Some(SchedulerAnswer::Comparison(Box::new(view))))
            }
            SchedulerAction::Promote(id) => loaded(self.promote(&id)?),
        }
    }

    /// Loads all plugins that a configuration names, into a book that has none.
    ///
    /// # Errors
    /// A file is no scheduler, or a service's plugin is nowhere. All of them are told, one a line.
    pub fn load_plugins(&mut self, desired: &Desired) -> Result<(), Refusal> {
        let Plugins { registry, workshop, .. } = &mut self.plugins;
        let all = wanted::wanted(desired, registry, desired.director().scheduler_dir.as_deref());
        let found = wanted::find(desired, &all, registry, workshop);
        let found = found.map_err(|problems| Refusal::new(RefusalKind::Document, problems.join("\n")))?;
        found.into_iter().try_for_each(|(one, _)| self.load(&one.name, one.file, one.grants).map(drop))
    }

    fn known(&self, id: &ServiceId) -> Result<&Entry, Refusal> {
        self.entry(id).ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))
    }

    fn known_mut(&mut self, id: &ServiceId) -> Result<&mut Entry, Refusal> {
        let entry = self.numbers.get(id).and_then(|number| self.entries.get_mut(number));
        entry.ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))
    }

    fn load(&mut self, name: &str, file: PathBuf, grants: Grants) -> Result<Loaded, Refusal> {
        rules_of::check_name(name).map_err(|message| Refusal::new(RefusalKind::Invalid, message))?;
        let known = self.plugins.registry.modules(name);
        let made = self.plugins.workshop.get(Order { file, grants, known })?;
        let (version, known) = self.keep(name, made)?;
        Ok(self.plugins.registry.told(&version, known))
    }

    fn swap(&mut self, name: &str, to: SwapTo) -> Result<Loaded, Refusal> {
        let before = self.plugins.registry.remember(name);
        let (version, known) = match to {
            SwapTo::Newest => (self.plugins.registry.newest(name)?, true),
            SwapTo::Version(number) => (self.plugins.registry.version(name, number)?, true),
            SwapTo::File(file) => {
                // Who may be swapped is there, and says what the new one may import.
                self.plugins.registry.newest(name)?;
                let (grants, known) = (self.plugins.registry.grants(name), self.plugins.registry.modules(name));
                let made = self.plugins.workshop.get(Order { file, grants, known })?;
                self.keep(name, made)?
            }
        };
        let loaded = self.exchange(&version).inspect_err(|_| self.plugins.registry.restore(name, before))?;
        Ok(Loaded { known, ..loaded })
    }

    /// Gives all services of a name this version, and makes it current.
    fn exchange(&mut self, version: &Arc<Version>) -> Result<Loaded, Refusal> {
        let Book { entries, shared, counters, plugins, .. } = self;
        let has_name = |entry: &&mut Entry| plugin(&entry.spec.scheduler) == Some(version.name.as_str());
        // Once for all services with the same options, among as many servers as the largest of them has.
        let mut proofs: BTreeMap<Option<&Options>, &Entry> = BTreeMap::new();
        for entry in entries.values().filter(|entry| plugin(&entry.spec.scheduler) == Some(version.name.as_str())) {
            let largest = proofs.entry(entry.spec.options.as_ref()).or_insert(entry);
            if largest.members.len() < entry.members.len() {
                *largest = entry;
            }
        }
        proofs.into_values().try_for_each(|entry| prove_at(entry, Some(version)))?;
        let mut done: Vec<(&mut Entry, Option<Arc<Version>>)> = Vec::new();
        let mut failed = None;
        for entry in entries.values_mut().filter(has_name) {
            let old = entry.beside.live().cloned();
            // Also one that has it: it begins anew, and what was wrong with its instances is over.
            match give(entry, &shared.arena, counters, Some(version.clone())) {
                Ok(()) => done.push((entry, old)),
                Err(refusal) => {
                    failed = Some(refusal);
                    break;
                }
            }
        }
        if let Some(refusal) = failed {
            for (entry, old) in done {
                if let Err(refusal) = give(entry, &shared.arena, counters, old) {
                    tracing::error!(refusal = refusal.message, "a scheduler could not be brought back");
                }
            }
            return Err(refusal);
        }
        let services = done.iter().map(|(entry, _)| entry.spec.id).collect();
        plugins.registry.make_current(&version.name, version.number);
        Ok(Loaded { services, ..plugins.registry.told(version, false) })
    }

    fn unload(&mut self, name: &str, number: Option<u32>) -> Result<(), Refusal> {
        let versions = match number {
            Some(number) => vec![self.plugins.registry.version(name, number)?],
            None => self.plugins.registry.versions(name)?,
        };
        let user = self.entries().find(|entry| versions.iter().any(|version| entry.beside.uses(version)));
        if let Some(user) = user {
            let id = rules::describe(&user.spec.id);
            let message = format!("scheduler wasm:{name} is used by service {id}: change that first, or end its trial");
            return Err(Refusal::new(RefusalKind::InUse, message));
        }
        self.plugins.registry.forget(name, number)
    }

    fn set_options(&mut self, id: &ServiceId, set: Options, unset: &[String], clear: bool) -> Result<Options, Refusal> {
        let entry = self.known(id)?;
        let (mut spec, live) = (entry.spec.clone(), entry.beside.live().cloned());
        let mut options = spec.options.take().unwrap_or_default();
        if let Some(name) = unset.iter().find(|name| !options.contains_key(*name)) {
            return Err(Refusal::new(
                RefusalKind::Invalid,
                format!("service {} has no option {name:?}", rules::describe(id)),
            ));
        }
        options.retain(|name, _| !clear && !unset.contains(name));
        options.extend(set);
        rules_of::check_options(&options).map_err(|message| Refusal::new(RefusalKind::Invalid, message))?;
        spec.options = Some(options.clone());
        let Book { entries, numbers, shared, counters, .. } = self;
        if let Some(entry) = numbers.get(id).and_then(|number| entries.get_mut(number)) {
            let old = std::mem::replace(&mut entry.spec, spec.kept());
            if entry.spec != old
                && let Err(refusal) =
                    prove_at(entry, live.as_ref()).and_then(|()| give(entry, &shared.arena, counters, live))
            {
                entry.spec = old;
                return Err(refusal);
            }
        }
        Ok(options)
    }

    fn set_metric(&mut self, id: &ServiceId, server: SocketAddr, value: i64) -> Result<(), Refusal> {
        let entry = self.known_mut(id)?;
        let at = entry.find(server).ok_or_else(|| no_such_server(id, server))?;
        entry.members[at].metric = value;
        let entry = self.known(id)?;
        super::plugins::announce(entry, &self.shared.arena, &self.counters);
        Ok(())
    }

    fn begin_trial(
        &mut self,
        id: &ServiceId,
        candidate: Candidate,
        kind: TrialKind,
        options: Option<Options>,
    ) -> Result<Loaded, Refusal> {
        let entry = self.known(id)?;
        let options = options.or_else(|| entry.spec.options.clone()).unwrap_or_default();
        rules_of::check_options(&options).map_err(|message| Refusal::new(RefusalKind::Invalid, message))?;
        check_kind(kind)?;
        let (name, before, version) = match candidate {
            Candidate::Name(name) => {
                let version = self.plugins.registry.newest(&name)?;
                (name, None, version)
            }
            Candidate::File(file) => {
                let name = candidate_name(&file, plugin(&entry.spec.scheduler))?;
                let before = self.plugins.registry.remember(&name);
                let (grants, known) = (self.plugins.registry.grants(&name), self.plugins.registry.modules(&name));
                let made = self.plugins.workshop.get(Order { file, grants, known })?;
                let (version, _) = self.keep(&name, made)?;
                (name, Some(before), version)
            }
        };
        let Book { entries, numbers, shared, counters, plugins, .. } = self;
        if let Some(entry) = numbers.get(id).and_then(|number| entries.get_mut(number)) {
            let facts = entry.facts(counters);
            let proof = prove(id, &version, facts.len(), &options);
            let trial = OnTrial { version: version.clone(), kind, options };
            let Entry { service, beside, .. } = entry;
            let ground = beside::Ground { service, arena: &shared.arena, seats: counters.len() };
            let begun =
                proof.and_then(|()| beside.set_trial(ground, &facts, Some(trial)).map_err(|message| bad(id, &message)));
            if let Err(refusal) = begun {
                if let Some(before) = before {
                    plugins.registry.restore(&name, before);
                }
                return Err(refusal);
            }
        }
        Ok(Loaded { services: vec![*id], ..plugins.registry.told(&version, false) })
    }

    fn end_trial(&mut self, id: &ServiceId) -> Result<(), Refusal> {
        let Book { entries, numbers, shared, counters, .. } = self;
        let entry = numbers.get(id).and_then(|number| entries.get_mut(number));
        let entry = entry.ok_or_else(|| no_such_service(id, RefusalKind::NoSuchService))?;
        if entry.beside.trial().is_none() {
            return Err(bad(id, "it tries nothing"));
        }
        let Entry { service, beside, .. } = entry;
        let ground = beside::Ground { service, arena: &shared.arena, seats: counters.len() };
        beside.set_trial(ground, &[], None).map_err(|message| bad(id, &message))
    }

    fn promote(&mut self, id: &ServiceId) -> Result<Loaded, Refusal> {
        let entry = self.known_mut(id)?;
        let OnTrial { version, options, .. } = entry.beside.promote().map_err(|message| bad(id, &message))?;
        entry.spec.scheduler = format!("{PREFIX}{}", version.name);
        entry.spec.options = Some(options).filter(|options| !options.is_empty());
        let entry = self.known(id)?;
        // What was native until now is the fallback from now on.
        let scheduler = crate::control::keys::scheduler(&entry.spec)?;
        entry.service.edit(&self.shared.arena, scheduler, crate::control::keys::policy(&entry.spec, entry.class));
        self.plugins.registry.make_current(&version.name, version.number);
        Ok(Loaded { services: vec![*id], ..self.plugins.registry.told(&version, false) })
    }

    /// All names and versions, and who uses them.
    pub fn modules(&self) -> Vec<ModuleView> {
        let mut views = self.plugins.registry.views();
        let versions = views.iter_mut().flat_map(|view| {
            let name = view.name.clone();
            view.versions.iter_mut().map(move |version| (name.clone(), version))
        });
        for (name, view) in versions {
            let is = |version: &Arc<Version>| version.name == name && version.number == view.version;
            let ids = |uses: &dyn Fn(&Entry) -> bool| -> Vec<ServiceId> {
                self.entries().filter(|entry| uses(entry)).map(|entry| entry.spec.id).collect()
            };
            view.live = ids(&|entry| entry.beside.live().is_some_and(is));
            view.on_trial = ids(&|entry| entry.beside.trial().is_some_and(|trial| is(&trial.version)));
        }
        views
    }

    fn plugin_status(&self, id: Option<&ServiceId>, now_ms: u64) -> Result<PluginStatus, Refusal> {
        let view = |entry: &Entry| entry.beside.view(&entry.spec, now_ms);
        if let Some(id) = id {
            let none = || bad(id, "its scheduler is native, and it tries nothing");
            let service = view(self.known(id)?).ok_or_else(none)?;
            return Ok(PluginStatus { services: vec![service], refused: Vec::new() });
        }
        let refused =
            |(file, message): (&PathBuf, &String)| RefusedFile { file: file.clone(), message: message.clone() };
        Ok(PluginStatus {
            services: self.entries().filter_map(view).collect(),
            refused: self.plugins.refused.iter().map(refused).collect(),
        })
    }

    /// How a name is, and who has what of it, for [`put_back`](Book::put_back).
    pub fn placement(&self, name: &str) -> Placement {
        let has_name = |entry: &&Entry| plugin(&entry.spec.scheduler) == Some(name);
        let live = self.entries().filter(has_name);
        let live = live.filter_map(|entry| Some((entry.spec.id, entry.beside.live()?.clone()))).collect();
        Placement { name: name.to_owned(), versions: self.plugins.registry.remember(name), live }
    }

    /// Brings a name back to what it was.
    ///
    /// # Errors
    /// A version that a service had does not come to life again.
    pub fn put_back(&mut self, placement: Placement) -> Result<(), Refusal> {
        let Placement { name, versions, live } = placement;
        self.plugins.registry.restore(&name, versions);
        let Book { entries, numbers, shared, counters, .. } = self;
        for (id, version) in live {
            let entry = numbers.get(&id).and_then(|number| entries.get_mut(number));
            let has = |entry: &&mut Entry| entry.beside.live().is_some_and(|live| Arc::ptr_eq(live, &version));
            let Some(entry) = entry.filter(|entry| !has(entry)) else { continue };
            give(entry, &shared.arena, counters, Some(version))?;
        }
        Ok(())
    }
}

fn check_kind(kind: TrialKind) -> Result<(), Refusal> {
    let wrong = match kind {
        TrialKind::Shadow { one_in: 0 } => "a sample of 1/0 has no sense: 1/1 is every connection",
        TrialKind::Canary { per_mille: 0 | 1001.. } => "the share of a canary is 0.1% to 100%",
        _ => return Ok(()),
    };
    Err(Refusal::new(RefusalKind::Invalid, wrong))
}

/// The name of a candidate: its file's, or that of the live plugin if they differ in `-` and `_` alone.
///
/// # Errors
/// The file's name can not be that of a plugin.
pub fn candidate_name(file: &Path, live: Option<&str>) -> Result<String, Refusal> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let same = |name: &&str| name.replace('_', "-") == stem.replace('_', "-");
    let name = live.filter(same).unwrap_or(stem);
    let hint = |message| {
        let message = format!("{message}. `xvs scheduler load NAME {}` gives it another one", file.display());
        Refusal::new(RefusalKind::Invalid, message)
    };
    rules_of::check_name(name).map_err(hint)?;
    Ok(name.to_owned())
}
