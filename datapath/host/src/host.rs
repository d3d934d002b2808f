//! One machinery for all plugins of a process.
//!
//! Invariant: compiling and checking happen on the caller's thread and never on a worker's. Signal handlers of wasmtime
//! are installed when the first host is made, and each thread gets its stack for them by [`Host::warm_thread`].

use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OperatorCost, OptLevel, Store, Trap, WasmFeatures};

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
    endless: wasmtime::Module,
}

/// A function that calls itself without end, exported as `f`.
const ENDLESS: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x05\x01\x01f\0\0\x0a\x06\x01\x04\0\x10\0\x0b";

impl Host {
    /// A host whose plugins have these limits.
    ///
    /// # Errors
    /// The machine forbids it: no memory may become code (`MemoryDenyWriteExecute=yes` of systemd), or an unknown
    /// processor.
    pub fn new(limits: Limits) -> Result<Host, HostError> {
        let price = prices();
        let engine = Engine::new(&config(&limits, price.clone())).map_err(|error| HostError(format!("{error:#}")))?;
        let endless =
            wasmtime::Module::from_binary(&engine, ENDLESS).map_err(|error| HostError(format!("{error:#}")))?;
        let host = Host { engine, limits, price, endless };
        host.warm_thread();
        Ok(host)
    }

    /// Makes this thread ready for plugins that fail: a stack for signals, pages of its own stack, and the code that
    /// takes a trap. Without it the first fault on a thread takes hundreds of microseconds. A worker does it once,
    /// before its first packet.
    pub fn warm_thread(&self) {
        Engine::tls_eager_initialize();
        let mut store = Store::new(&self.engine, ());
        let run = store.set_fuel(self.limits.fuel_setup).and_then(|()| {
            let instance = wasmtime::Instance::new(&mut store, &self.endless, &[])?;
            instance.get_typed_func::<(), ()>(&mut store, "f")?.call(&mut store, ())
        });
        debug_assert!(run.is_err_and(|error| error.is::<Trap>()), "it was to overflow its stack");
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
    // (which are no memory) and a guard behind them spare every check of bounds: a scan of 256 servers takes 0.39 us
    // so, and 0.57 us with the 2 MiB reserved that a memory can really have. There are addresses for 30 000 instances.
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
