//! One machinery for all plugins of a process.
//!
//! Invariant: compiling and checking happen on the caller's thread and never on a worker's. Signal handlers of wasmtime
//! are installed when the first host is made, and each thread gets its stack for them by [`warm_thread`].

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel, WasmFeatures};

use crate::limits::{Grants, Limits};
use crate::module::Module;
use crate::prices::prices;
use crate::rejected::{HostError, Rejected};
use crate::screen::screen;

/// Loads plugins.
#[derive(Debug)]
pub struct Host {
    engine: Engine,
    limits: Limits,
    price: OperatorCost,
}

/// Gives this thread what it needs when a plugin traps on it: a stack for signals. Without it the first call of a plugin
/// on the thread does so, which takes a call of the kernel.
pub fn warm_thread() {
    Engine::tls_eager_initialize();
}

impl Host {
    /// A host whose plugins have these limits.
    ///
    /// # Errors
    /// The machine forbids it: no memory may become code (`MemoryDenyWriteExecute=yes` of systemd), or an unknown
    /// processor.
    pub fn new(limits: Limits) -> Result<Host, HostError> {
        let price = prices();
        let engine = Engine::new(&config(&limits, price.clone())).map_err(|error| HostError(format!("{error:#}")))?;
        warm_thread();
        Ok(Host { engine, limits, price })
    }

    /// What plugins may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks and compiles a module, and makes an instance for a trial.
    ///
    /// # Errors
    /// It is none that may run: every reason that could be found.
    pub fn load(&self, bytes: &[u8], grants: Grants) -> Result<Arc<Module>, Rejected> {
        let screened = screen(bytes, &self.limits, grants, &self.price)?;
        let compiled = wasmtime::Module::from_binary(&self.engine, &screened.bytes)
            .map_err(|error| Rejected::because(format!("it can not be compiled: {error:#}")))?;
        let hash = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Module::new(&self.engine, &compiled, self.limits, grants, screened.imports, hash, bytes.len()).map(Arc::new)
    }
}

fn config(limits: &Limits, price: OperatorCost) -> Config {
    let mut config = Config::new();
    config.consume_fuel(true).operator_cost(price).max_wasm_stack(limits.stack_bytes);
    config.cranelift_opt_level(OptLevel::Speed);
    // A memory that does not move: its pointer is fetched once, by us and by the code of the plugin. 4 GiB of addresses
    // (no memory) and a guard behind them spare every check of bounds.
    config.memory_may_move(false).memory_reservation(4 << 30).memory_guard_size(32 << 20);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    // Where a plugin stood when it trapped is nothing that an operator can use, and to find out takes microseconds.
    config.wasm_backtrace_max_frames(None);
    // The table of functions is filled when the instance is made and not bit by bit during picks.
    config.table_lazy_init(false);
    // `screen` lets even less through; this is so that nothing depends on it alone.
    for feature in [
        WasmFeatures::SIMD,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::TAIL_CALL,
        WasmFeatures::MULTI_MEMORY,
        WasmFeatures::MEMORY64,
        WasmFeatures::FUNCTION_REFERENCES,
        WasmFeatures::GC,
    ] {
        config.wasm_features(feature, false);
    }
    config
}
