//! A plugin that was checked and compiled.
//!
//! Invariant: one instance was made of it and told its buffers, so another one is made only of what is known to be
//! whole; its bytes are named by their hash.

use wasmtime::{Engine, InstancePre};
use xvs_sdk::Needs;
use xvs_sdk::abi;

use crate::fault::Fault;
use crate::imports::{Beside, linker};
use crate::instance::{Instance, has_export};
use crate::layout::Layout;
use crate::limits::{Grants, Limits};
use crate::rejected::Rejected;

/// Which optional functions a plugin offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Offers {
    /// It takes facts: `xvs_facts`.
    pub facts: bool,
    /// It looks at its options: `xvs_configure`.
    pub configure: bool,
    /// It takes changes of the list in: `xvs_changed`.
    pub changed: bool,
    /// It hears of health: `xvs_on_health`.
    pub on_health: bool,
    /// It hears of connections: `xvs_on_conn`.
    pub on_conn: bool,
    /// It hands its state over: `xvs_state`, `xvs_state_save`, `xvs_state_load`.
    pub state: bool,
    /// It has a buffer for options.
    pub config: bool,
}

/// A plugin, ready to be made instances of.
pub struct Module {
    pre: InstancePre<Beside>,
    limits: Limits,
    grants: Grants,
    imports: Vec<String>,
    hash: String,
    size: usize,
    needs: Needs,
    offers: Offers,
    layout: Layout,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("sha256", &self.hash).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Module {
    pub(crate) fn new(
        engine: &Engine,
        compiled: &wasmtime::Module,
        limits: Limits,
        grants: Grants,
        imports: Vec<String>,
        hash: String,
        size: usize,
    ) -> Result<Module, Rejected> {
        let pre = linker(engine, grants)
            .and_then(|linker| linker.instantiate_pre(compiled))
            .map_err(|error| Rejected::because(format!("it can not be linked: {error:#}")))?;
        let trial = Instance::begin(&pre, &limits, 0);
        let mut trial = trial.map_err(|fault| Rejected::because(format!("no instance of it can be made: {fault}")))?;
        let version = trial.ask("xvs_abi_version")?;
        if version != abi::VERSION {
            return Err(Rejected::because(format!(
                "it is built for ABI {version}; this director speaks {}: build it with the xvs-sdk of this version",
                abi::VERSION
            )));
        }
        let needs = if trial.has("xvs_needs") { trial.ask("xvs_needs")?.cast_unsigned() } else { abi::NEEDS_DEFAULT };
        let told = trial.told()?;
        let layout = Layout::read(trial.window(), told, limits.rows).map_err(|problems| Rejected { problems })?;
        let has = |name: &str| has_export(compiled, name);
        let offers = Offers {
            facts: layout.facts.is_some(),
            configure: has("xvs_configure"),
            changed: has("xvs_changed"),
            on_health: has("xvs_on_health"),
            on_conn: has("xvs_on_conn"),
            state: layout.state.is_some() && has("xvs_state_save"),
            config: layout.config.is_some(),
        };
        let needs = Needs::from_bits(needs);
        Ok(Module { pre, limits, grants, imports, hash, size, needs, offers, layout })
    }

    /// SHA-256 of its file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.hash
    }

    /// Bytes of its file.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What it asks of the director.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Servers that its table has room for.
    pub fn capacity(&self) -> usize {
        self.layout.capacity
    }

    /// What it was granted.
    pub fn grants(&self) -> Grants {
        self.grants
    }

    /// The optional functions that it has.
    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// Names of the imports that it uses.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Fuel of a pick among so many servers.
    pub fn budget(&self, rows: usize) -> u64 {
        self.limits.budget(rows)
    }

    /// A new instance; `seed` is of its random numbers. Takes tens of microseconds, more for a large memory: nothing for
    /// a worker.
    ///
    /// # Errors
    /// The machine has no room, or the plugin tells other buffers than when it was checked.
    pub fn instantiate(&self, seed: u64) -> Result<Instance, Fault> {
        Instance::make(&self.pre, &self.limits, &self.layout, seed)
    }
}
