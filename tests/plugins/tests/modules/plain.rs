//! The plainest possible director: wasmtime, the specification's offsets, and nothing in between.
//!
//! It is written from `sdk/ABI.md` and shares no code with the real host, so that a mistake that host and SDK have in
//! common shows here. Invariant: it writes only where the specification says, between two calls.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, TypedFunc};
use xvs_sdk::abi::{Flow, Row};

/// A module, compiled once in this process: in a debug build that is what takes the time.
fn compiled(bytes: &[u8]) -> Module {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Config::new().consume_fuel(true)).unwrap());
    static MODULES: Mutex<BTreeMap<Vec<u8>, Module>> = Mutex::new(BTreeMap::new());
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    modules.entry(bytes.to_vec()).or_insert_with(|| Module::new(&ENGINE, bytes).unwrap()).clone()
}

/// What the imports tell, and what they were told.
#[derive(Default)]
pub(crate) struct Lent {
    /// What `now` says.
    pub(crate) now: i64,
    /// What `random` says.
    pub(crate) random: i64,
    /// What was logged.
    pub(crate) log: Vec<String>,
}

/// An instance of a plugin.
pub(crate) struct Plain {
    store: Store<Lent>,
    instance: Instance,
    memory: Memory,
    schedule: TypedFunc<(), i32>,
    table: usize,
    io: usize,
    /// Rows that it has room for.
    pub(crate) capacity: usize,
}

impl Plain {
    /// An instance of the module of this name.
    pub(crate) fn new(name: &str) -> Plain {
        let path = xvs_plugins::module(name).unwrap_or_else(|error| panic!("{error:#}"));
        Plain::of(&std::fs::read(path).unwrap())
    }

    /// An instance of a module.
    pub(crate) fn of(bytes: &[u8]) -> Plain {
        let module = compiled(bytes);
        let mut store = Store::new(module.engine(), Lent::default());
        store.set_fuel(10_000_000).unwrap();
        let mut linker = Linker::<Lent>::new(module.engine());
        linker.func_wrap("xvs", "now", |caller: wasmtime::Caller<'_, Lent>| caller.data().now).unwrap();
        linker.func_wrap("xvs", "random", |caller: wasmtime::Caller<'_, Lent>| caller.data().random).unwrap();
        let log = |mut caller: wasmtime::Caller<'_, Lent>, at: i32, len: i32| {
            let memory = caller.get_export("memory").unwrap().into_memory().unwrap();
            let text = memory.data(&caller)[at as usize..][..len as usize].to_vec();
            caller.data_mut().log.push(String::from_utf8(text).unwrap());
        };
        linker.func_wrap("xvs", "log", log).unwrap();
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let schedule = instance.get_typed_func(&mut store, "xvs_schedule").unwrap();
        let mut plain = Plain { store, instance, memory, schedule, table: 0, io: 0, capacity: 0 };
        assert_eq!(plain.ask("xvs_abi_version"), 1);
        plain.table = plain.ask("xvs_table") as usize;
        plain.io = plain.ask("xvs_io") as usize;
        assert_eq!(plain.word(plain.table), 0x3153_5658, "the magic word");
        assert_eq!((plain.word(plain.table + 4), plain.word(plain.table + 20)), (1, 32));
        plain.capacity = plain.word(plain.table + 16) as usize;
        plain
    }

    /// Calls an export that has no arguments.
    pub(crate) fn ask(&mut self, name: &str) -> i32 {
        self.try_ask(name).unwrap()
    }

    /// Calls an export that has no arguments and may fail.
    pub(crate) fn try_ask(&mut self, name: &str) -> wasmtime::Result<i32> {
        self.store.set_fuel(10_000_000).unwrap();
        self.instance.get_typed_func::<(), i32>(&mut self.store, name)?.call(&mut self.store, ())
    }

    /// What the imports tell.
    pub(crate) fn lent(&mut self) -> &mut Lent {
        self.store.data_mut()
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.memory.data(&self.store)[at..at + 4].try_into().unwrap())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.memory.write(&mut self.store, at, bytes).unwrap();
    }

    /// Sets the number of rows.
    pub(crate) fn set_count(&mut self, count: usize) {
        self.write(self.table + 12, &u32::try_from(count).unwrap().to_le_bytes());
    }

    /// Writes a row.
    pub(crate) fn set_row(&mut self, index: usize, row: &Row) {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(row.weight.to_le_bytes());
        [row.active, row.total, row.flags].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(row.last_weight.to_le_bytes());
        bytes.extend(row.health.to_le_bytes());
        bytes.extend(row.id.to_le_bytes());
        self.write(self.table + 32 + 32 * index, &bytes);
    }

    /// Tells of a change, if it wants to hear.
    pub(crate) fn changed(&mut self, kind: i32, index: usize) -> i32 {
        self.store.set_fuel(10_000_000).unwrap();
        let Some(changed) = self.instance.get_func(&mut self.store, "xvs_changed") else { return 0 };
        let changed = changed.typed::<(i32, i32), i32>(&self.store).unwrap();
        changed.call(&mut self.store, (kind, i32::try_from(index).unwrap())).unwrap()
    }

    /// Gives it options; the sentence if it refuses.
    pub(crate) fn configure(&mut self, options: &str) -> Result<(), String> {
        let config = self.ask("xvs_config") as usize;
        assert!(config != 0 && self.word(config) as usize >= options.len());
        self.write(config + 4, &u32::try_from(options.len()).unwrap().to_le_bytes());
        self.write(config + 8, options.as_bytes());
        if self.ask("xvs_configure") == 0 {
            return Ok(());
        }
        let len = self.word(config + 4) as usize;
        Err(String::from_utf8(self.memory.data(&self.store)[config + 8..][..len].to_vec()).unwrap())
    }

    /// Asks for a server, with so much fuel.
    pub(crate) fn pick(&mut self, flow: &Flow, fuel: u64) -> wasmtime::Result<i32> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(flow.client);
        bytes.extend(flow.virtual_address);
        bytes.extend(flow.hash.to_le_bytes());
        [flow.service, flow.mark].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        [flow.client_port, flow.virtual_port].iter().for_each(|port| bytes.extend(port.to_le_bytes()));
        bytes.extend([flow.protocol, flow.flags, flow.family, 0]);
        [flow.interface, flow.queue].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        self.write(self.io, &bytes);
        self.store.set_fuel(fuel)?;
        self.schedule.call(&mut self.store, ())
    }

    /// Fuel that is left of the last call's.
    pub(crate) fn fuel_left(&self) -> u64 {
        self.store.get_fuel().unwrap()
    }

    /// Bytes of its memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }
}
