//! A plugin at work: one for each worker and service.
//!
//! Invariant: it is never asked after it failed; each call has fuel of its own; a pick allocates nothing as long as the
//! plugin behaves. Not here: whether an answer names a server that may be chosen, which the engine checks.

use wasmtime::{InstancePre, Store, Trap, TypedFunc, WasmParams, WasmResults};
use xvs_sdk::abi::{self, Facts, Flow, Row, TableHead, TextHead};

use crate::fault::Fault;
use crate::imports::{Beside, Growth};
use crate::layout::{Layout, Told};
use crate::limits::Limits;
use crate::memory::Window;
use crate::rejected::Rejected;

/// Bytes of a plugin's own sentence that are told.
const SENTENCE: usize = 400;
/// Fuel for telling a constant, such as an address.
const FUEL_ADDRESS: u64 = 100_000;

/// A plugin at work.
pub struct Instance {
    store: Store<Beside>,
    window: Window,
    layout: Layout,
    schedule: TypedFunc<(), i32>,
    changed: Option<TypedFunc<(i32, i32), i32>>,
    on_health: Option<TypedFunc<i32, ()>>,
    on_conn: Option<TypedFunc<(i32, i32), ()>>,
    configure: Option<TypedFunc<(), i32>>,
    save: Option<TypedFunc<(), i32>>,
    load: Option<TypedFunc<(), i32>>,
    count: u32,
    generation: u32,
    fuel: u64,
    fuel_setup: u64,
    fuel_most: u64,
    dead: Option<&'static str>,
}

/// An instance whose buffers are not known yet.
pub(crate) struct Beginning {
    store: Store<Beside>,
    instance: wasmtime::Instance,
    memory: wasmtime::Memory,
    window: Window,
}

pub(crate) fn has_export(module: &wasmtime::Module, name: &str) -> bool {
    module.get_export(name).is_some()
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Instance { count, generation, fuel, dead, .. } = self;
        f.debug_struct("Instance")
            .field("count", count)
            .field("generation", generation)
            .field("fuel", fuel)
            .field("dead", dead)
            .finish_non_exhaustive()
    }
}

/// What went wrong in a call.
fn fault(error: &wasmtime::Error) -> Fault {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::OutOfFuel => Fault::Budget,
            Trap::StackOverflow => Fault::Stack,
            Trap::UnreachableCodeReached => {
                Fault::Trap("it came to an `unreachable`, which is how a panic ends".into())
            }
            other => Fault::Trap(other.to_string()),
        };
    }
    match error.downcast_ref::<Growth>() {
        Some(Growth(why)) => Fault::Memory(why),
        None => Fault::Trap(format!("{error:#}")),
    }
}

impl Instance {
    pub(crate) fn begin(pre: &InstancePre<Beside>, limits: &Limits, seed: u64) -> Result<Beginning, Fault> {
        let mut store = Store::new(pre.module().engine(), Beside::new(seed, limits.memory_bytes));
        store.limiter(|beside| beside);
        let machine = |error: wasmtime::Error| match fault(&error) {
            Fault::Trap(text) if error.downcast_ref::<Trap>().is_none() => Fault::Machine(text),
            other => other,
        };
        // Segments of data and of functions are copied for fuel, too.
        let instance = store.set_fuel(limits.fuel_setup).and_then(|()| pre.instantiate(&mut store)).map_err(machine)?;
        let missing = || Fault::Layout("it has no memory".into());
        let memory = instance.get_memory(&mut store, "memory").ok_or_else(missing)?;
        store.data_mut().memory = Some(memory);
        let window = Window::new(&memory, &store).ok_or_else(missing)?;
        Ok(Beginning { store, instance, memory, window })
    }

    pub(crate) fn make(
        pre: &InstancePre<Beside>,
        limits: &Limits,
        expected: &Layout,
        seed: u64,
    ) -> Result<Instance, Fault> {
        let mut beginning = Instance::begin(pre, limits, seed)?;
        let told = beginning.told().map_err(|rejected| Fault::Layout(rejected.to_string()))?;
        let layout = Layout::read(&beginning.window, told, limits.rows)
            .map_err(|problems| Fault::Layout(problems.join("; ")))?;
        if layout != *expected {
            return Err(Fault::Layout("it tells other buffers than when it was checked".into()));
        }
        let schedule = beginning.function("xvs_schedule");
        let schedule = schedule.ok_or_else(|| Fault::Layout("it does not export xvs_schedule".into()))?;
        let mut instance = Instance {
            schedule,
            changed: beginning.function("xvs_changed"),
            on_health: beginning.function("xvs_on_health"),
            on_conn: beginning.function("xvs_on_conn"),
            configure: beginning.function("xvs_configure"),
            save: beginning.function("xvs_state_save"),
            load: beginning.function("xvs_state_load"),
            store: beginning.store,
            window: beginning.window,
            layout,
            count: 0,
            generation: 0,
            fuel: 0,
            fuel_setup: limits.fuel_setup,
            fuel_most: limits.fuel_most,
            dead: None,
        };
        instance.store.data_mut().may_grow = false;
        instance.window.settle(0);
        instance.write_head();
        Ok(instance)
    }

    /// Writes the options, and lets the plugin look at them.
    ///
    /// # Errors
    /// It refuses them, or has no buffer for that much ([`Fault::Refused`]); or it failed.
    pub fn configure(&mut self, options: &str) -> Result<(), Fault> {
        match self.layout.config {
            None if options.is_empty() => {}
            None => return Err(Fault::Refused("it takes none".into())),
            Some(text) if options.len() > text.capacity.min(abi::TEXT_MAX) => {
                let most = text.capacity.min(abi::TEXT_MAX);
                return Err(Fault::Refused(format!("they have {} bytes, and it takes {most} at most", options.len())));
            }
            Some(text) => self.write_text(text, options.as_bytes()),
        }
        let Some(configure) = self.configure.clone() else { return Ok(()) };
        if self.set_up(&configure, ())? >= 0 {
            return Ok(());
        }
        let said = self.layout.config.map(|text| self.read_text(text, SENTENCE)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let said: String = said.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let said = if said.trim().is_empty() { "it does not say why" } else { said.trim() };
        Err(Fault::Refused(said.to_owned()))
    }

    /// Says how many rows are in use, and that the list changed. What stands in a row that came into use is undefined
    /// until it is written.
    ///
    /// # Errors
    /// There is no room for so many ([`Fault::Full`]): nothing changed.
    pub fn set_count(&mut self, rows: usize) -> Result<(), Fault> {
        if rows > self.layout.capacity {
            return Err(Fault::Full { capacity: self.layout.capacity });
        }
        self.count = u32::try_from(rows).unwrap_or(u32::MAX);
        self.generation = self.generation.wrapping_add(1);
        self.write_head();
        Ok(())
    }

    /// Rows in use.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Writes the table's head again, as it should be: heals what the plugin spoiled.
    pub fn write_head(&mut self) {
        let head = TableHead {
            magic: abi::MAGIC,
            abi: abi::VERSION.cast_unsigned(),
            generation: self.generation,
            count: self.count,
            capacity: self.layout.capacity as u32,
            row_size: self.layout.row_size as u32,
            reserved: [0; 2],
        };
        self.window.write(self.layout.table, &head);
    }

    /// Address of a row, if there is room for it.
    #[inline]
    fn row(&self, index: usize) -> Option<usize> {
        (index < self.layout.capacity).then(|| self.layout.rows + index * self.layout.row_size)
    }

    /// Writes a row. Nothing happens beyond the table's capacity.
    #[inline]
    pub fn write_row(&mut self, index: usize, row: &Row) {
        debug_assert!(index < self.layout.capacity, "row {index} of {}", self.layout.capacity);
        if let Some(at) = self.row(index) {
            self.window.write(at, row);
        }
    }

    /// Writes what changes often of a row: its connections, flags ([`abi::ROW_USABLE`] and its kin) and health.
    #[inline]
    pub fn set_counts(&mut self, index: usize, active: u32, total: u32, flags: u32, health: u32) {
        debug_assert!(index < self.layout.capacity, "row {index} of {}", self.layout.capacity);
        if let Some(at) = self.row(index) {
            self.window.write(at + 4, &[active, total, flags]);
            self.window.write(at + 20, &[health]);
        }
    }

    /// Writes facts. Nothing happens if the plugin takes none, or beyond the capacity.
    pub fn write_facts(&mut self, index: usize, facts: &Facts) {
        if let Some((first, size)) = self.layout.facts
            && index < self.layout.capacity
        {
            self.window.write(first + index * size, facts);
        }
    }

    /// Tells of a change of the list (`abi::CHANGED_ALL` and its kin), after the rows were written. True if the plugin
    /// wants a new instance instead; false also if it does not care.
    ///
    /// # Errors
    /// It failed.
    pub fn changed(&mut self, kind: i32, index: i32, fuel: u64) -> Result<bool, Fault> {
        let Some(changed) = self.changed.clone() else { return Ok(false) };
        // With no more fuel than a pick has, a worker may wait for it: then no page is asked of the kernel either.
        self.store.data_mut().may_grow = fuel > self.fuel_most;
        let wants = self.call(&changed, (kind, index), fuel)?;
        self.grown();
        Ok(wants == abi::CHANGED_REBUILD)
    }

    /// Tells that a server's health changed.
    ///
    /// # Errors
    /// It failed.
    pub fn on_health(&mut self, index: i32, fuel: u64) -> Result<(), Fault> {
        let Some(on_health) = self.on_health.clone() else { return Ok(()) };
        self.call(&on_health, index, fuel)
    }

    /// Tells that a server has so many connections more, or fewer.
    ///
    /// # Errors
    /// It failed.
    pub fn on_conn(&mut self, index: i32, delta: i32, fuel: u64) -> Result<(), Fault> {
        let Some(on_conn) = self.on_conn.clone() else { return Ok(()) };
        self.call(&on_conn, (index, delta), fuel)
    }

    /// Asks for a server. The answer is the plugin's: it may be any number.
    ///
    /// # Errors
    /// It failed.
    #[inline]
    pub fn pick(&mut self, flow: &Flow, fuel: u64) -> Result<i32, Fault> {
        self.window.write(self.layout.io, flow);
        if let Some(reason) = self.dead {
            return Err(Fault::Dead { reason });
        }
        self.fuel = fuel;
        let answer = match self.store.set_fuel(fuel) {
            Ok(()) => self.schedule.call(&mut self.store, ()),
            Err(error) => Err(error),
        };
        answer.map_err(|error| self.die(&error))
    }

    /// What a later version needs to go on, if the plugin hands anything over. Its worker may wait meanwhile, so it has no
    /// more fuel than this.
    ///
    /// # Errors
    /// It failed.
    pub fn save(&mut self, fuel: u64) -> Result<Option<Vec<u8>>, Fault> {
        let (Some(save), Some(text)) = (self.save.clone(), self.layout.state) else { return Ok(None) };
        let bytes = self.call(&save, (), fuel)?;
        let Ok(bytes) = usize::try_from(bytes) else { return Ok(None) };
        let most = text.capacity.min(abi::TEXT_MAX);
        if bytes > most {
            let lie = format!("xvs_state_save tells {bytes} bytes, and there is room for {most}");
            return Err(self.dies(Fault::Layout(lie)));
        }
        Ok(self.window.read_bytes(text.at + size_of::<TextHead>(), bytes))
    }

    /// Hands over what an earlier version saved. False if the plugin can not read it, or takes none.
    ///
    /// # Errors
    /// It failed.
    pub fn restore(&mut self, state: &[u8]) -> Result<bool, Fault> {
        let (Some(load), Some(text)) = (self.load.clone(), self.layout.state) else { return Ok(false) };
        if state.len() > text.capacity.min(abi::TEXT_MAX) {
            return Ok(false);
        }
        self.write_text(text, state);
        Ok(self.set_up(&load, ())? >= 0)
    }

    /// The time that `now` tells, in milliseconds; the same for a whole breath.
    pub fn set_now(&mut self, now_ms: u64) {
        self.store.data_mut().now_ms = now_ms;
    }

    /// Fuel that the last call used.
    pub fn fuel_used(&self) -> u64 {
        self.fuel.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    /// Bytes of its memory.
    pub fn memory_bytes(&self) -> usize {
        self.window.len()
    }

    /// Lines that it logged since this was asked last.
    pub fn take_log(&mut self) -> Vec<String> {
        self.store.data_mut().take_lines()
    }

    /// The [reason](Fault::reason) of the fault that it died of.
    pub fn dead(&self) -> Option<&'static str> {
        self.dead
    }

    /// A call that is not on a worker's way: it may take long, and memory may grow.
    fn set_up<P: WasmParams>(&mut self, function: &TypedFunc<P, i32>, parameters: P) -> Result<i32, Fault> {
        self.store.data_mut().may_grow = true;
        let answer = self.call(function, parameters, self.fuel_setup)?;
        self.grown();
        Ok(answer)
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
        fuel: u64,
    ) -> Result<R, Fault> {
        if let Some(reason) = self.dead {
            return Err(Fault::Dead { reason });
        }
        self.fuel = fuel;
        let answer = self.store.set_fuel(fuel).and_then(|()| function.call(&mut self.store, parameters));
        answer.map_err(|error| self.die(&error))
    }

    /// After a call in which memory could grow.
    fn grown(&mut self) {
        let beside = self.store.data_mut();
        beside.may_grow = false;
        let Some(memory) = beside.memory else { return };
        let before = self.window.len();
        if memory.data_size(&self.store) != before
            && let Some(window) = Window::new(&memory, &self.store)
        {
            self.window = window;
            self.window.settle(before);
        }
    }

    #[cold]
    fn die(&mut self, error: &wasmtime::Error) -> Fault {
        self.dies(fault(error))
    }

    fn dies(&mut self, fault: Fault) -> Fault {
        self.dead = Some(fault.reason());
        fault
    }

    fn write_text(&mut self, text: crate::layout::Text, bytes: &[u8]) {
        let head = TextHead { capacity: text.capacity as u32, len: bytes.len() as u32 };
        self.window.write(text.at, &head);
        self.window.write_bytes(text.at + size_of::<TextHead>(), bytes);
    }

    fn read_text(&self, text: crate::layout::Text, most: usize) -> Vec<u8> {
        let head: Option<TextHead> = self.window.read(text.at);
        let len = head.map_or(0, |head| head.len as usize).min(text.capacity).min(most);
        self.window.read_bytes(text.at + size_of::<TextHead>(), len).unwrap_or_default()
    }
}

impl Beginning {
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    fn function<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Option<TypedFunc<P, R>> {
        self.instance.get_typed_func(&mut self.store, name).ok()
    }

    pub(crate) fn has(&mut self, name: &str) -> bool {
        self.instance.get_func(&mut self.store, name).is_some()
    }

    /// A number that an export tells.
    pub(crate) fn ask(&mut self, name: &str) -> Result<i32, Rejected> {
        let function = self.function::<(), i32>(name);
        let function = function.ok_or_else(|| Rejected::because(format!("it does not export {name}")))?;
        let answer = self.store.set_fuel(FUEL_ADDRESS).and_then(|()| function.call(&mut self.store, ()));
        // It may have grown: buffers are checked against what there is now.
        if let Some(window) = Window::new(&self.memory, &self.store) {
            self.window = window;
        }
        answer.map_err(|error| Rejected::because(format!("{name} gave no answer: {}", fault(&error))))
    }

    /// Where its buffers are.
    pub(crate) fn told(&mut self) -> Result<Told, Rejected> {
        Ok(Told {
            table: self.ask("xvs_table")?,
            io: self.ask("xvs_io")?,
            config: self.ask("xvs_config")?,
            facts: if self.has("xvs_facts") { Some(self.ask("xvs_facts")?) } else { None },
            state: if self.has("xvs_state") { Some(self.ask("xvs_state")?) } else { None },
        })
    }
}
