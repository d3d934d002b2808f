//! Plugins of the services: which version a service gets, and what its plugin is told of servers.
//!
//! Invariant: a service named `wasm:NAME` has a version of NAME, from its making on; which one changes with `swap` and its
//! kin, and not with an edit. What is loaded is known by the registry alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xvs_engine::counters::Counters;
use xvs_engine::real::Arena;
use xvs_host::Version;

use super::{Book, Entry};
use crate::config::{plugins as rules_of, rules};
use crate::control::beside::{self, Event, EventKind, Ground};
use crate::control::protocol::schedulers::{PluginState, plugin};
use crate::control::protocol::{Options, Refusal, RefusalKind, ServiceId, ServiceSpec};
use crate::control::registry::Registry;
use crate::control::workshop::{Made, Order, Workshop};

/// What is loaded, and from where.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    pub(super) registry: Registry,
    pub(super) workshop: Workshop,
    /// Where `wasm:NAME` is looked for if it is not loaded.
    pub(super) directory: Option<PathBuf>,
    /// Files that were not taken, and why.
    pub(super) refused: BTreeMap<PathBuf, String>,
}

/// Have these the same plugin with the same options?
pub(super) fn is_same(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    plugin(&one.scheduler) == plugin(&other.scheduler) && one.options == other.options
}

/// Tells a service's plugins what is known of its servers, of one too that is about to come.
pub(super) fn announce(entry: &Entry, arena: &Arena, counters: &[Arc<Counters>]) {
    if entry.beside.is_busy() {
        entry.beside.set_facts(ground(entry, arena, counters), &entry.facts(counters));
    }
}

impl Book {
    /// Plugins that are not loaded are looked for here from now on, as `NAME.wasm`.
    pub fn look_for_plugins_in(&mut self, directory: Option<PathBuf>) {
        self.plugins.directory = directory;
    }

    /// Where plugins that are not loaded are looked for.
    pub fn plugin_directory(&self) -> Option<&Path> {
        self.plugins.directory.as_deref()
    }

    /// What is loaded and where files become modules, for what a configuration wants.
    pub fn plugin_store(&mut self) -> (&Registry, &mut Workshop) {
        (&self.plugins.registry, &mut self.plugins.workshop)
    }

    /// A file that was not taken is gone.
    pub fn forget_refused(&mut self, file: &Path) {
        self.plugins.refused.remove(file);
    }

    /// The plugins that are loaded.
    pub fn registry(&self) -> &Registry {
        &self.plugins.registry
    }

    /// Where files become modules.
    pub fn workshop(&mut self) -> &mut Workshop {
        &mut self.plugins.workshop
    }

    /// The file of a plugin that is not loaded, if there is one in the directory.
    pub fn plugin_file(&self, name: &str) -> Option<PathBuf> {
        let file = self.plugins.directory.as_ref()?.join(format!("{name}.wasm"));
        file.is_file().then_some(file)
    }

    /// The version that a new service gets; none if its scheduler is native. A plugin that is not loaded is, if its file
    /// is in the directory.
    pub(super) fn plugin_of(&mut self, spec: &ServiceSpec) -> Result<Option<Arc<Version>>, Refusal> {
        let Some(name) = plugin(&spec.scheduler) else { return Ok(None) };
        if let Some(version) = self.plugins.registry.current(name) {
            return Ok(Some(version));
        }
        let Some(file) = self.plugin_file(name) else {
            let id = rules::describe(&spec.id);
            let hint = match &self.plugins.directory {
                None => String::new(),
                Some(directory) => format!(", and there is no {}", directory.join(format!("{name}.wasm")).display()),
            };
            let message =
                format!("{id}: no scheduler wasm:{name} is loaded{hint}; `xvs scheduler load {name} FILE` loads it");
            return Err(Refusal::new(RefusalKind::NoSuchScheduler, message));
        };
        let made = self.plugins.workshop.get(Order { file, ..Order::default() })?;
        let (version, _) = self.keep(name, made)?;
        Ok(Some(version))
    }

    /// Keeps a module as a version of a name. Gives it, and whether it was the newest one already.
    pub(super) fn keep(&mut self, name: &str, made: Made) -> Result<(Arc<Version>, bool), Refusal> {
        let Book { plugins, entries, .. } = self;
        plugins.refused.remove(&made.file);
        let is_used = |version: &Arc<Version>| entries.values().any(|entry| entry.beside.uses(version));
        plugins.registry.add(name, made, is_used)
    }

    /// Remembers, for people, that a file was not taken.
    pub fn note_refused(&mut self, file: PathBuf, message: String) {
        self.plugins.refused.insert(file, message);
    }

    /// Looks after the plugins, often; what happened goes to the log.
    pub fn tend(&mut self, now_ms: u64) {
        self.begin_to_tend();
        while self.go_on_tending(now_ms, usize::MAX) {}
    }

    /// Begins to look after the plugins, which [`go_on_tending`](Book::go_on_tending) carries out.
    pub fn begin_to_tend(&mut self) {
        self.tending.begin();
    }

    /// Looks after the plugins of so many services. True if there is more to do.
    pub fn go_on_tending(&mut self, now_ms: u64, services: usize) -> bool {
        let Some(from) = self.tending.next() else { return false };
        let mut entries = self.entries.range(from..);
        for entry in entries.by_ref().take(services).map(|(_, entry)| entry) {
            for event in entry.beside.tick(ground(entry, &self.shared.arena, &self.counters), now_ms) {
                log(entry, &event);
            }
        }
        let next = entries.next().map(|(number, _)| *number);
        self.tending.stop(next)
    }

    /// A sentence for each service whose plugin is not asked.
    pub fn alarms(&self, now_ms: u64) -> Vec<String> {
        let alarm = |entry: &Entry| {
            let view = entry.beside.view(&entry.spec, now_ms)?;
            let live = view.live?;
            let state = match live.state {
                PluginState::Live => return None,
                PluginState::Quarantined { for_s } => format!("is in quarantine for {for_s} s more"),
                PluginState::Stopped => "is stopped".to_owned(),
            };
            let id = rules::describe(&entry.spec.id);
            let sha256 = live.sha256.get(..12).unwrap_or_default();
            let why = live.last_fault.map(|fault| format!(": {fault}")).unwrap_or_default();
            Some(format!(
                "service {id}: {} version {} (sha256 {sha256}) {state}{why}; {} chooses",
                view.scheduler, live.version, view.fallback
            ))
        };
        self.entries.values().filter_map(alarm).collect()
    }
}

/// Where exchanges at a service happen.
pub(super) fn ground<'a>(entry: &'a Entry, arena: &'a Arena, counters: &[Arc<Counters>]) -> Ground<'a> {
    Ground { service: &entry.service, arena, seats: counters.len() }
}

/// Gives a service its plugin; none for its native scheduler alone.
pub(super) fn give(
    entry: &mut Entry,
    arena: &Arena,
    counters: &[Arc<Counters>],
    version: Option<Arc<Version>>,
) -> Result<(), Refusal> {
    let facts = if version.is_some() { entry.facts(counters) } else { Vec::new() };
    let Entry { spec, service, beside, .. } = entry;
    let ground = Ground { service, arena, seats: counters.len() };
    let none = Options::new();
    let options = spec.options.as_ref().unwrap_or(&none);
    let outcome = beside.set_live(ground, &facts, version, options);
    outcome.map_err(|message| bad(&spec.id, &message))
}

/// Asks a version, among made-up servers and with a service's options, before real connections meet it. Takes 20 ms at
/// most.
///
/// # Errors
/// It fails, or does not take the options. Nothing has changed.
pub(super) fn prove(id: &ServiceId, version: &Version, servers: usize, options: &Options) -> Result<(), Refusal> {
    let smoke = xvs_host::check::smoke(&version.module, servers, &rules_of::text(options));
    smoke.map(drop).map_err(|rejected| bad(id, &format!("{}: {rejected}", beside::name(version))))
}

/// The same for a service that is about to have its plugin anew.
pub(super) fn prove_at(entry: &Entry, version: Option<&Arc<Version>>) -> Result<(), Refusal> {
    let none = Options::new();
    let options = entry.spec.options.as_ref().unwrap_or(&none);
    version.map_or(Ok(()), |version| prove(&entry.spec.id, version, entry.members.len(), options))
}

/// A plugin's refusal, at a service.
pub(super) fn bad(id: &ServiceId, message: &str) -> Refusal {
    Refusal::new(RefusalKind::BadPlugin, format!("service {}: {message}", rules::describe(id)))
}

/// What happened to a plugin, for the log.
fn log(entry: &Entry, event: &Event) {
    let service = rules::describe(&entry.spec.id);
    let plugin = entry.beside.told();
    let (kind, text) = (format!("{:?}", event.kind).to_lowercase(), &event.text);
    match event.kind {
        EventKind::Quarantined | EventKind::Stopped => {
            tracing::error!(service, plugin, kind, text, "a plugin is not asked; the fallback chooses");
        }
        EventKind::Fault => tracing::warn!(service, plugin, kind, text, "a plugin failed; the fallback chose"),
        EventKind::Released | EventKind::Said => tracing::info!(service, plugin, kind, text, "plugin"),
    }
}
