//! The plugins that a configuration wants: which files, and whether they are what it takes.
//!
//! Invariant: everything that is wrong is told at once, each with its place in the file. Nothing is loaded here; what a
//! plan makes of it is `config::plan`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xvs_host::Module;
use xvs_host::check::smoke;

use crate::config::plan::Found;
use crate::config::{Desired, plugins, rules};

use super::protocol::schedulers::{Grants, plugin};
use super::registry::Registry;
use super::workshop::{Order, Workshop};

/// A plugin that a configuration wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its place in the configuration.
    pub place: String,
    /// Name.
    pub name: String,
    /// File.
    pub file: PathBuf,
    /// What it may import.
    pub grants: Grants,
}

impl Wanted {
    /// The order for it.
    pub fn order(&self, registry: &Registry) -> Order {
        Order { file: self.file.clone(), grants: self.grants, known: registry.modules(&self.name) }
    }
}

/// What a configuration wants: its `[[scheduler]]`s, and from this directory those of services that nobody has loaded.
pub fn wanted(desired: &Desired, registry: &Registry, directory: Option<&Path>) -> Vec<Wanted> {
    let listed = desired.plugins().iter().enumerate().map(|(index, plugin)| Wanted {
        place: format!("scheduler[{index}].file"),
        name: plugin.name.clone(),
        file: plugin.file.clone(),
        grants: plugin.grants,
    });
    let mut all: Vec<Wanted> = listed.collect();
    for (index, service) in desired.services().iter().enumerate() {
        let Some(name) = plugin(&service.spec.scheduler) else { continue };
        if registry.has(name) || all.iter().any(|wanted| wanted.name == name) {
            continue;
        }
        if let Some(file) = directory.map(|directory| directory.join(format!("{name}.wasm"))) {
            let place = format!("service[{index}].scheduler");
            all.push(Wanted { place, name: name.to_owned(), file, grants: Grants::default() });
        }
    }
    all
}

/// The modules of what is wanted.
///
/// # Errors
/// All that is wrong: files that are no schedulers, and services whose plugin is nowhere. Sentences, each with its place.
pub fn find(
    desired: &Desired,
    wanted: &[Wanted],
    registry: &Registry,
    workshop: &mut Workshop,
) -> Result<Vec<(Found, Arc<Module>)>, Vec<String>> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for one in wanted {
        match workshop.get(one.order(registry)) {
            Ok(made) => {
                let Wanted { name, file, grants, .. } = one.clone();
                let sha256 = made.module.sha256().to_owned();
                found.push((Found { name, file, grants, sha256 }, made.module));
            }
            Err(refusal) => problems.push(format!("{}: {}", one.place, refusal.message)),
        }
    }
    for (index, service) in desired.services().iter().enumerate() {
        let Some(name) = plugin(&service.spec.scheduler) else { continue };
        if !registry.has(name) && !wanted.iter().any(|one| one.name == name) {
            problems.push(format!(
                "service[{index}].scheduler: no [[scheduler]] is called {name}, none of this name is loaded, and there is \
                 no scheduler_dir to look for {name}.wasm in"
            ));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// What is wrong between the services of a configuration and the modules that they name: options that are refused, more
/// servers than there is room for, choices that fail.
pub fn misfits(desired: &Desired, found: &[(Found, Arc<Module>)]) -> Vec<String> {
    let modules: BTreeMap<&str, &Arc<Module>> =
        found.iter().map(|(found, module)| (found.name.as_str(), module)).collect();
    let mut problems = Vec::new();
    for (index, service) in desired.services().iter().enumerate() {
        let Some(module) = plugin(&service.spec.scheduler).and_then(|name| modules.get(name)) else { continue };
        let options = service.spec.options.as_ref().map(plugins::text).unwrap_or_default();
        if let Err(rejected) = smoke(module, service.servers.len(), &options) {
            let id = rules::describe(&service.spec.id);
            problems.push(format!("service[{index}]: {} at service {id}: {rejected}", service.spec.scheduler));
        }
    }
    problems
}

/// Loads what a configuration wants, without a director, and tries it on its services. Gives the number of plugins.
///
/// # Errors
/// All that is wrong: sentences, each with its place.
pub fn check(desired: &Desired) -> Result<usize, Vec<String>> {
    let (registry, mut workshop) = (Registry::default(), Workshop::default());
    let wanted = wanted(desired, &registry, desired.director().scheduler_dir.as_deref());
    let found = find(desired, &wanted, &registry, &mut workshop)?;
    let problems = misfits(desired, &found);
    if problems.is_empty() { Ok(found.len()) } else { Err(problems) }
}
