//! Names and versions of plugins: what `wasm:NAME` means now, and what it meant before.
//!
//! Invariant: a name has a current version, and it is one of those that are kept; a version in use is kept. Versions are
//! never changed: a new file is a new one. Not here: files and compilers ([`workshop`](super::workshop)), and who uses a
//! version (the book).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use xvs_host::{Module, Version};

use super::protocol::schedulers::{Grants, Loaded, ModuleView, VersionView};
use super::protocol::{Refusal, RefusalKind};
use super::workshop::Made;

/// Versions of a name that are kept, besides those in use, the current one and the one before it.
pub const VERSIONS_MAX: usize = 5;

/// Names. Each of them may keep some megabytes of compiled code.
pub const NAMES_MAX: usize = 64;

/// All that is loaded.
#[derive(Debug, Default)]
pub struct Registry {
    names: BTreeMap<String, Versions>,
}

/// The versions of a name.
#[derive(Debug, Clone)]
pub struct Versions {
    /// Oldest first; never empty.
    kept: Vec<Kept>,
    current: u32,
    before: Option<u32>,
    last_number: u32,
}

#[derive(Debug, Clone)]
struct Kept {
    version: Arc<Version>,
    file: PathBuf,
    grants: Grants,
    loaded_at_s: u64,
}

impl Versions {
    fn find(&self, number: u32) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.version.number == number)
    }
}

impl Registry {
    /// Is there a name like this?
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The version that services of this name get.
    pub fn current(&self, name: &str) -> Option<Arc<Version>> {
        let versions = self.names.get(name)?;
        versions.find(versions.current).map(|kept| kept.version.clone())
    }

    /// The version that was current before.
    ///
    /// # Errors
    /// There is no such name, or no version before.
    pub fn before(&self, name: &str) -> Result<Arc<Version>, Refusal> {
        let versions = self.names.get(name).ok_or_else(|| self.unknown(name))?;
        let kept = versions.before.and_then(|number| versions.find(number));
        kept.map(|kept| kept.version.clone()).ok_or_else(|| {
            let message = format!("scheduler wasm:{name} has no version before version {}", versions.current);
            Refusal::new(RefusalKind::NoSuchPlugin, message)
        })
    }

    /// The newest version.
    ///
    /// # Errors
    /// There is no such name.
    pub fn newest(&self, name: &str) -> Result<Arc<Version>, Refusal> {
        let newest = self.names.get(name).and_then(|versions| versions.kept.last());
        newest.map(|kept| kept.version.clone()).ok_or_else(|| self.unknown(name))
    }

    /// This version.
    ///
    /// # Errors
    /// There is no such name, or no such version.
    pub fn version(&self, name: &str, number: u32) -> Result<Arc<Version>, Refusal> {
        let versions = self.names.get(name).ok_or_else(|| self.unknown(name))?;
        versions.find(number).map(|kept| kept.version.clone()).ok_or_else(|| {
            let numbers: Vec<String> = versions.kept.iter().map(|kept| kept.version.number.to_string()).collect();
            let message = format!("scheduler wasm:{name} has no version {number}; there are: {}", numbers.join(", "));
            Refusal::new(RefusalKind::NoSuchPlugin, message)
        })
    }

    /// All versions of a name.
    ///
    /// # Errors
    /// There is no such name.
    pub fn versions(&self, name: &str) -> Result<Vec<Arc<Version>>, Refusal> {
        let versions = self.names.get(name).ok_or_else(|| self.unknown(name))?;
        Ok(versions.kept.iter().map(|kept| kept.version.clone()).collect())
    }

    /// What new versions of a name may import if nobody says it: what its current one may.
    pub fn grants(&self, name: &str) -> Grants {
        let versions = self.names.get(name);
        versions.and_then(|versions| versions.find(versions.current)).map_or_else(Grants::default, |kept| kept.grants)
    }

    /// The modules of a name, which need not be compiled again.
    pub fn modules(&self, name: &str) -> Vec<Arc<Module>> {
        let kept = self.names.get(name).into_iter().flat_map(|versions| &versions.kept);
        kept.map(|kept| kept.version.module.clone()).collect()
    }

    /// Keeps a module as the newest version of a name, if it is not that already. `is_used` tells which ones must stay.
    ///
    /// # Errors
    /// There are too many names.
    pub fn add(
        &mut self,
        name: &str,
        made: Made,
        is_used: impl Fn(&Arc<Version>) -> bool,
    ) -> Result<(Arc<Version>, bool), Refusal> {
        if !self.has(name) && self.names.len() >= NAMES_MAX {
            let message = format!("{NAMES_MAX} schedulers are loaded already; unload one");
            return Err(Refusal::new(RefusalKind::Limit, message));
        }
        let newest = self.names.get(name).and_then(|versions| versions.kept.last());
        if let Some(newest) = newest
            && newest.version.module.sha256() == made.module.sha256()
            && newest.grants == made.grants
        {
            return Ok((newest.version.clone(), true));
        }
        let number = self.names.get(name).map_or(1, |versions| versions.last_number + 1);
        let version = Arc::new(Version { name: name.to_owned(), number, module: made.module });
        let Made { file, grants, read_at_s, .. } = made;
        let kept = Kept { version: version.clone(), file, grants, loaded_at_s: read_at_s };
        match self.names.get_mut(name) {
            None => {
                let versions = Versions { kept: vec![kept], current: number, before: None, last_number: number };
                self.names.insert(name.to_owned(), versions);
            }
            Some(versions) => {
                versions.kept.push(kept);
                versions.last_number = number;
                versions.thin(is_used);
            }
        }
        Ok((version, false))
    }

    /// Makes a version current; what was current is what [`before`](Registry::before) gives then.
    pub fn make_current(&mut self, name: &str, number: u32) {
        if let Some(versions) = self.names.get_mut(name).filter(|versions| versions.current != number) {
            versions.before = Some(versions.current);
            versions.current = number;
        }
    }

    /// Forgets a version, or all of a name. Nobody uses them.
    ///
    /// # Errors
    /// There is no such name or version, or it is the current one and not the only one.
    pub fn forget(&mut self, name: &str, number: Option<u32>) -> Result<(), Refusal> {
        let Some(number) = number else {
            return self.names.remove(name).map(drop).ok_or_else(|| self.unknown(name));
        };
        self.version(name, number)?;
        let Some(versions) = self.names.get_mut(name) else { return Ok(()) };
        if versions.kept.len() == 1 {
            self.names.remove(name);
        } else if versions.current == number {
            let message = format!(
                "version {number} of scheduler wasm:{name} is the current one: `xvs scheduler swap` or `rollback` first, \
                 or unload {name} with all its versions"
            );
            return Err(Refusal::new(RefusalKind::InUse, message));
        } else {
            versions.kept.retain(|kept| kept.version.number != number);
            versions.before = versions.before.filter(|before| *before != number);
        }
        Ok(())
    }

    /// A name as it is, to bring it back with [`restore`](Registry::restore).
    pub fn remember(&self, name: &str) -> Option<Versions> {
        self.names.get(name).cloned()
    }

    /// Makes a name what it was.
    pub fn restore(&mut self, name: &str, versions: Option<Versions>) {
        match versions {
            Some(versions) => drop(self.names.insert(name.to_owned(), versions)),
            None => drop(self.names.remove(name)),
        }
    }

    /// A version for a person.
    pub fn told(&self, version: &Version, known: bool) -> Loaded {
        Loaded {
            name: version.name.clone(),
            version: version.number,
            sha256: version.module.sha256().to_owned(),
            known,
            current: self.names.get(&version.name).is_some_and(|versions| versions.current == version.number),
            services: Vec::new(),
        }
    }

    /// All names and versions; who uses them is for the book to add.
    pub fn views(&self) -> Vec<ModuleView> {
        let version = |versions: &Versions, kept: &Kept| VersionView {
            version: kept.version.number,
            sha256: kept.version.module.sha256().to_owned(),
            size: kept.version.module.size() as u64,
            grants: kept.grants,
            file: kept.file.clone(),
            loaded_at_s: kept.loaded_at_s,
            capacity: kept.version.module.capacity() as u64,
            current: versions.current == kept.version.number,
            before: versions.before == Some(kept.version.number),
            live: Vec::new(),
            on_trial: Vec::new(),
        };
        let module = |(name, versions): (&String, &Versions)| ModuleView {
            name: name.clone(),
            versions: versions.kept.iter().map(|kept| version(versions, kept)).collect(),
        };
        self.names.iter().map(module).collect()
    }

    fn unknown(&self, name: &str) -> Refusal {
        let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        let there = if names.is_empty() { "none is".to_owned() } else { format!("there are: {}", names.join(", ")) };
        let message = format!("no scheduler wasm:{name} is loaded; {there}. `xvs scheduler load {name} FILE` loads it");
        Refusal::new(RefusalKind::NoSuchPlugin, message)
    }
}

impl Versions {
    /// Forgets the oldest ones that nobody needs.
    fn thin(&mut self, is_used: impl Fn(&Arc<Version>) -> bool) {
        let mut surplus = self.kept.len().saturating_sub(VERSIONS_MAX);
        let newest = self.last_number;
        self.kept.retain(|kept| {
            let number = kept.version.number;
            let needed = number == newest || number == self.current || Some(number) == self.before;
            let goes = surplus > 0 && !needed && !is_used(&kept.version);
            surplus -= usize::from(goes);
            !goes
        });
    }
}
