//! The plugin's side of ABI v1: the buffers that the director writes into, and what each export does with them.
//!
//! [`export_scheduler!`](crate::export_scheduler) makes a static [`Buffers`], a static [`Seat`], and the exports around them, on
//! `target_arch = "wasm32"` alone. Everything else here is plain code, so that it is tested natively.
//!
//! Invariant: the director writes while no export runs, and one export runs at a time; so whatever is borrowed from a
//! buffer within an export stays as it is until the export returns. An index beyond the list is a trap (a panic
//! natively); no number that the director writes makes this code read outside of its buffers.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::mem::{size_of, MaybeUninit};

use crate::abi::{self, Flow, Row, TextHead};
use crate::view::View;
use crate::{Change, Request, Scheduler};

/// Rows that there is room for unless the macro is told otherwise.
pub const ROWS: usize = 1024;

#[repr(C)]
struct Table<const ROWS: usize> {
    head: abi::TableHead,
    rows: [Row; ROWS],
}

#[repr(C)]
struct FactsTable<const FACTS: usize> {
    head: abi::FactsHead,
    facts: [abi::Facts; FACTS],
}

/// Options or a state. The state's is of no use to a plugin that hands none over: `BYTES` is 0 then.
#[repr(C)]
struct Text<const BYTES: usize> {
    head: TextHead,
    bytes: [u8; BYTES],
}

impl<const BYTES: usize> Text<BYTES> {
    const EMPTY: Text<BYTES> = Text { head: TextHead { capacity: 0, len: 0 }, bytes: [0; BYTES] };

    fn written(&self) -> &[u8] {
        &self.bytes[..BYTES.min(self.head.len as usize)]
    }
}

/// The buffers that a plugin shares with the director.
///
/// All of it is zero before the first call (heads are filled when their address is asked for), because a module's file
/// leaves out what is zero: 1024 rows of facts are 192 KiB. So the scheduler, which may not be zero, is not in here.
pub struct Buffers<const ROWS: usize, const FACTS: usize, const OPTIONS: usize, const STATE: usize> {
    table: UnsafeCell<Table<ROWS>>,
    facts: UnsafeCell<FactsTable<FACTS>>,
    flow: UnsafeCell<Flow>,
    options: UnsafeCell<Text<OPTIONS>>,
    state: UnsafeCell<Text<STATE>>,
}

// SAFETY: an instance of a module without threads (the director knows no others) has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl<const ROWS: usize, const FACTS: usize, const OPTIONS: usize, const STATE: usize> Sync
    for Buffers<ROWS, FACTS, OPTIONS, STATE>
{
}

/// A scheduler within a plugin.
pub struct Seat<S> {
    made: UnsafeCell<bool>,
    scheduler: UnsafeCell<MaybeUninit<S>>,
}

// SAFETY: an instance of a module without threads has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl<S> Sync for Seat<S> {}

impl<S> Seat<S> {
    /// One whose scheduler is made when it is first needed.
    pub const fn unmade() -> Self {
        Seat { made: UnsafeCell::new(false), scheduler: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// One around a scheduler that the compiler made: it never stood on the stack. It must not be made again; that it
    /// is made stands nowhere, so that a scheduler that is all zero takes no room in the module's file.
    pub const fn new(scheduler: S) -> Self {
        Seat { made: UnsafeCell::new(false), scheduler: UnsafeCell::new(MaybeUninit::new(scheduler)) }
    }

    /// Makes the scheduler if there is none yet.
    ///
    /// # Safety
    /// Nothing refers to the scheduler.
    #[inline(always)]
    pub unsafe fn make(&self, make: impl FnOnce() -> S) {
        // SAFETY: nothing else refers to the two cells, as the caller promises.
        unsafe {
            if !*self.made.get() {
                (*self.scheduler.get()).write(make());
                *self.made.get() = true;
            }
        }
    }

    /// The scheduler.
    ///
    /// # Safety
    /// It was made, and nothing else refers to it while the reference lives.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    unsafe fn scheduler(&self) -> &mut S {
        // SAFETY: as the caller promises.
        unsafe { (*self.scheduler.get()).assume_init_mut() }
    }
}

impl<const ROWS: usize, const FACTS: usize, const OPTIONS: usize, const STATE: usize>
    Buffers<ROWS, FACTS, OPTIONS, STATE>
{
    /// Empty ones.
    pub const fn empty() -> Self {
        Buffers {
            table: UnsafeCell::new(Table { head: abi::NO_HEAD, rows: [abi::NO_ROW; ROWS] }),
            facts: UnsafeCell::new(FactsTable { head: abi::NO_FACTS_HEAD, facts: [abi::Facts::NONE; FACTS] }),
            flow: UnsafeCell::new(abi::NO_FLOW),
            options: UnsafeCell::new(Text::EMPTY),
            state: UnsafeCell::new(Text::EMPTY),
        }
    }

    /// The address of the table, with its head filled.
    ///
    /// # Safety
    /// No other method of it runs.
    pub unsafe fn table(&self) -> *mut u8 {
        let head = abi::TableHead {
            magic: abi::MAGIC,
            abi: abi::VERSION as u32,
            capacity: ROWS as u32,
            row_size: size_of::<Row>() as u32,
            ..abi::NO_HEAD
        };
        // SAFETY: as the caller promises, nothing refers to the table.
        unsafe { (*self.table.get()).head = head };
        self.table.get().cast()
    }

    /// The address of the facts, with their head filled; null if the scheduler needs none.
    ///
    /// # Safety
    /// No other method of it runs.
    pub unsafe fn facts(&self) -> *mut u8 {
        if FACTS == 0 {
            return core::ptr::null_mut();
        }
        let facts_size = size_of::<abi::Facts>() as u32;
        let head = abi::FactsHead { magic: abi::MAGIC, capacity: FACTS as u32, facts_size, reserved: 0 };
        // SAFETY: as the caller promises, nothing refers to the facts.
        unsafe { (*self.facts.get()).head = head };
        self.facts.get().cast()
    }

    /// The address of the flow.
    pub fn flow(&self) -> *mut u8 {
        self.flow.get().cast()
    }

    /// The address of the options; null if the scheduler takes none.
    ///
    /// # Safety
    /// No other method of it runs.
    pub unsafe fn options(&self) -> *mut u8 {
        // SAFETY: as the caller promises, nothing refers to the buffer.
        unsafe { offer(&self.options) }
    }

    /// The address of the state; null if the scheduler hands none over.
    ///
    /// # Safety
    /// No other method of it runs.
    pub unsafe fn state(&self) -> *mut u8 {
        // SAFETY: as the caller promises, nothing refers to the buffer.
        unsafe { offer(&self.state) }
    }

    /// The list as it is now.
    ///
    /// # Safety
    /// Nobody writes into table and facts while the view lives: as the director promises for the time of a call.
    #[inline(always)]
    unsafe fn view(&self) -> View<'_> {
        // SAFETY: rows and facts were initialised, any bytes are valid ones, and nobody writes into them meanwhile.
        let (table, facts) = unsafe { (&*self.table.get(), &*self.facts.get()) };
        let count = ROWS.min(table.head.count as usize);
        View { rows: &table.rows[..count], facts: &facts.facts[..FACTS.min(count)] }
    }

    /// `xvs_configure`.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    pub unsafe fn configure<S: Scheduler>(&self, seat: &Seat<S>) -> i32 {
        // SAFETY: as the caller promises, nothing else refers to scheduler and buffer.
        let (scheduler, text) = unsafe { (seat.scheduler(), &mut *self.options.get()) };
        match scheduler.configure(text.written()) {
            Ok(()) => 0,
            Err(sentence) => {
                let len = OPTIONS.min(sentence.len());
                text.bytes[..len].copy_from_slice(&sentence.as_bytes()[..len]);
                text.head.len = len as u32;
                -1
            }
        }
    }

    /// `xvs_changed`.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    pub unsafe fn changed<S: Scheduler>(&self, seat: &Seat<S>, kind: i32, index: i32) -> i32 {
        let index = index as usize;
        let change = match kind {
            abi::CHANGED_ADDED => Change::Added(index),
            abi::CHANGED_REMOVED => Change::Removed(index),
            abi::CHANGED_EDITED => Change::Edited(index),
            _ => Change::All,
        };
        // SAFETY: as the caller promises, nothing else refers to the scheduler, and nobody writes.
        unsafe { seat.scheduler().reals_changed(&self.view(), change) };
        abi::CHANGED_DONE
    }

    /// `xvs_on_health`.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    pub unsafe fn health<S: Scheduler>(&self, seat: &Seat<S>, index: i32) {
        // SAFETY: as the caller promises, nothing else refers to the scheduler, and nobody writes.
        unsafe { seat.scheduler().health_changed(&self.view(), index as usize) };
    }

    /// `xvs_on_conn`.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    pub unsafe fn connections<S: Scheduler>(&self, seat: &Seat<S>, index: i32, delta: i32) {
        // SAFETY: as the caller promises, nothing else refers to the scheduler, and nobody writes.
        unsafe { seat.scheduler().connections_changed(&self.view(), index as usize, delta) };
    }

    /// `xvs_schedule`; `grant` fills in what the director's imports tell.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    #[inline(always)]
    pub unsafe fn schedule<S: Scheduler>(&self, seat: &Seat<S>, grant: impl FnOnce(&mut Request)) -> i32 {
        // SAFETY: any bytes are a valid flow, and nobody writes into it meanwhile.
        let mut request = request(unsafe { &*self.flow.get() });
        grant(&mut request);
        // SAFETY: as the caller promises, nothing else refers to the scheduler, and nobody writes.
        let pick = unsafe { seat.scheduler().pick(&request, &self.view()) };
        match pick {
            // No list is so long: an index that is no i32 is nonsense, and this says so in the way that the ABI has.
            Some(index) if index > i32::MAX as usize => abi::FALLBACK,
            Some(index) => index as i32,
            None => abi::NOBODY,
        }
    }

    /// `xvs_state_save`.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    pub unsafe fn save<S: Scheduler>(&self, seat: &Seat<S>) -> i32 {
        // SAFETY: as the caller promises, nothing else refers to scheduler and buffer.
        let (scheduler, text) = unsafe { (seat.scheduler(), &mut *self.state.get()) };
        match scheduler.save(&mut text.bytes) {
            Some(len) if len <= STATE => {
                text.head.len = len as u32;
                len as i32
            }
            _ => -1,
        }
    }

    /// `xvs_state_load`.
    ///
    /// # Safety
    /// No other method of buffers and seat runs, and the scheduler was made.
    pub unsafe fn restore<S: Scheduler>(&self, seat: &Seat<S>) -> i32 {
        // SAFETY: as the caller promises, nothing else refers to scheduler and buffer, and nobody writes.
        let (scheduler, text, view) = unsafe { (seat.scheduler(), &*self.state.get(), self.view()) };
        if scheduler.restore(&view, text.written()) {
            0
        } else {
            -1
        }
    }
}

/// The address of a text buffer, with its capacity filled; null if it has none.
///
/// # Safety
/// Nothing refers to the buffer.
unsafe fn offer<const BYTES: usize>(text: &UnsafeCell<Text<BYTES>>) -> *mut u8 {
    if BYTES == 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: as the caller promises.
    unsafe { (*text.get()).head = TextHead { capacity: BYTES as u32, len: 0 } };
    text.get().cast()
}

#[inline(always)]
fn request(flow: &Flow) -> Request {
    Request {
        client: flow.client,
        virtual_address: flow.virtual_address,
        client_port: flow.client_port,
        virtual_port: flow.virtual_port,
        protocol: flow.protocol,
        flags: flow.flags,
        family: flow.family,
        hash: flow.hash,
        service: flow.service,
        mark: flow.mark,
        interface: flow.interface,
        queue: flow.queue,
        breath: 0,
        now_ms: 0,
        random: 0,
    }
}

/// What the director lends, if it grants it. A module that names one of these is refused where it is not granted.
#[cfg(target_arch = "wasm32")]
pub mod imports {
    #[link(wasm_import_module = "xvs")]
    extern "C" {
        fn log(address: *const u8, len: usize);
        fn now() -> i64;
        fn random() -> i64;
    }

    /// A line for the director's log.
    pub fn write_log(text: &str) {
        // SAFETY: the director reads so many bytes from there, which are the text's.
        unsafe { log(text.as_ptr(), text.len()) }
    }

    /// Milliseconds.
    #[inline(always)]
    pub fn now_ms() -> u64 {
        // SAFETY: it has no argument and touches no memory of the plugin.
        unsafe { now() as u64 }
    }

    /// A random number.
    #[inline(always)]
    pub fn random_number() -> u64 {
        // SAFETY: it has no argument and touches no memory of the plugin.
        unsafe { random() as u64 }
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
