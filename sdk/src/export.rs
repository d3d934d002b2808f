//! `export_scheduler!`: a scheduler becomes a plugin.
//!
//! Invariant: on any target but wasm32 nothing is exported, so a plugin's crate is a library with tests like any other.

/// Makes the crate a plugin around a scheduler.
///
/// ```
/// # use xvs_sdk::{export_scheduler, Reals, Request, Scheduler};
/// #[derive(Default)]
/// struct First;
///
/// impl Scheduler for First {
///     fn pick<R: Reals + ?Sized>(&mut self, _request: &Request, reals: &R) -> Option<usize> {
///         (0..reals.len()).find(|&index| reals.is_usable(index))
///     }
/// }
///
/// export_scheduler!(First);
/// ```
///
/// What may follow the type, in this order, each only if it is needed:
///
/// - `capacity = 4096`: most servers of a service; 1024 otherwise. A row takes 32 bytes, and 192 more with
///   [`Needs::FACTS`](crate::Needs::FACTS).
/// - `new = First::new()`: a constant expression that makes the scheduler, instead of `Default`. For one with a large
///   table: a default is made on the stack, which has 16 KiB.
/// - `uses = [options, health, connections, state]`: which of [`configure`](crate::Scheduler::configure),
///   [`health_changed`](crate::Scheduler::health_changed),
///   [`connections_changed`](crate::Scheduler::connections_changed), and [`save`](crate::Scheduler::save) with
///   [`restore`](crate::Scheduler::restore) the scheduler has. **What is not named is never called**; options of a
///   service are refused then.
/// - `grants = [time, random]`: fills [`now_ms`](crate::Request::now_ms) and [`random`](crate::Request::random) of each
///   request. The operator must grant the same when the module is loaded.
/// - `panic = std`: the crate uses the standard library, which has its own panic handler. Otherwise the crate begins with
///   `#![cfg_attr(target_arch = "wasm32", no_std)]` and gets one here. Either way a panic is a trap.
#[macro_export]
macro_rules! export_scheduler {
    ($scheduler:ty
        $(, capacity = $capacity:expr)?
        $(, new = $new:expr)?
        $(, uses = [$($use:ident),* $(,)?])?
        $(, grants = [$($grant:ident),* $(,)?])?
        $(, panic = $panic:ident)?
        $(,)?
    ) => {
        // Elsewhere it only sees to it that the scheduler is one and can be made.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $scheduler = || {
            const _: $crate::Needs = <$scheduler as $crate::Scheduler>::NEEDS;
            $crate::__either!($($new)?; <$scheduler as ::core::default::Default>::default())
        };
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            const ROWS: usize = $crate::__either!($($capacity)?; $crate::guest::ROWS);
            const NEEDS: $crate::Needs = <$scheduler as $crate::Scheduler>::NEEDS;
            const FACTS: usize = if NEEDS.has($crate::Needs::FACTS) { ROWS } else { 0 };
            const USES: &[$crate::export::Use] = &[$($($crate::export::Use::$use),*)?];
            const OPTIONS: usize = $crate::export::bytes($crate::export::Use::options, USES);
            const STATE: usize = $crate::export::bytes($crate::export::Use::state, USES);
            static BUFFERS: $crate::guest::Buffers<ROWS, FACTS, OPTIONS, STATE> = $crate::guest::Buffers::empty();
            static SEAT: $crate::guest::Seat<$scheduler> =
                $crate::__either!($($crate::guest::Seat::new($new))?; $crate::guest::Seat::unmade());

            #[no_mangle]
            extern "C" fn xvs_abi_version() -> i32 {
                $crate::abi::VERSION
            }
            #[no_mangle]
            extern "C" fn xvs_needs() -> i32 {
                NEEDS.bits() as i32
            }
            #[no_mangle]
            extern "C" fn xvs_table() -> i32 {
                // SAFETY: the director calls one export at a time, here and in all that follow.
                unsafe { BUFFERS.table() as usize as i32 }
            }
            #[no_mangle]
            extern "C" fn xvs_facts() -> i32 {
                // SAFETY: one export at a time.
                unsafe { BUFFERS.facts() as usize as i32 }
            }
            #[no_mangle]
            extern "C" fn xvs_io() -> i32 {
                BUFFERS.flow() as usize as i32
            }
            #[no_mangle]
            extern "C" fn xvs_config() -> i32 {
                // SAFETY: one export at a time.
                unsafe { BUFFERS.options() as usize as i32 }
            }
            #[no_mangle]
            extern "C" fn xvs_changed(kind: i32, index: i32) -> i32 {
                // SAFETY: one export at a time, and the scheduler is made first.
                unsafe {
                    $crate::__make!(SEAT, $scheduler $(, $new)?);
                    BUFFERS.changed(&SEAT, kind, index)
                }
            }
            #[no_mangle]
            extern "C" fn xvs_schedule() -> i32 {
                // SAFETY: one export at a time, and the scheduler is made first.
                unsafe {
                    $crate::__make!(SEAT, $scheduler $(, $new)?);
                    BUFFERS.schedule(&SEAT, |_request| {
                        $($($crate::__grant!($grant, _request);)*)?
                    })
                }
            }
            $crate::__uses!(BUFFERS, SEAT, { $crate::__make!(SEAT, $scheduler $(, $new)?) } $($(, $use)*)?);
            $crate::__panic!($($panic)?);
        };
    };
    ($($wrong:tt)*) => {
        compile_error!(
            "`export_scheduler!` takes a type, and then, in this order, what is needed of: `capacity = 1024`, \
             `new = CONSTANT`, `uses = [options, health, connections, state]`, `grants = [time, random]`, `panic = std`"
        );
    };
}

/// What a plugin may have besides `pick` and `reals_changed`. Named as in the macro.
#[doc(hidden)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `configure`
    options,
    /// `health_changed`
    health,
    /// `connections_changed`
    connections,
    /// `save` and `restore`
    state,
}

/// Bytes of a buffer that only some plugins have.
#[doc(hidden)]
pub const fn bytes(of: Use, uses: &[Use]) -> usize {
    let mut at = 0;
    while at < uses.len() {
        if uses[at] as u8 == of as u8 {
            return crate::abi::TEXT_MAX;
        }
        at += 1;
    }
    0
}

/// What is given, or else the other.
#[doc(hidden)]
#[macro_export]
macro_rules! __either {
    (; $other:expr) => {
        $other
    };
    ($given:expr; $other:expr) => {
        $given
    };
}

/// Makes the scheduler, unless the compiler did.
#[doc(hidden)]
#[macro_export]
macro_rules! __make {
    ($seat:ident, $scheduler:ty) => {
        $seat.make(<$scheduler as ::core::default::Default>::default)
    };
    ($seat:ident, $scheduler:ty, $new:expr) => {
        ()
    };
}

/// One thing that the director grants.
#[doc(hidden)]
#[macro_export]
macro_rules! __grant {
    (time, $request:ident) => {
        $request.now_ms = $crate::guest::imports::now_ms()
    };
    (random, $request:ident) => {
        $request.random = $crate::guest::imports::random_number()
    };
}

/// The exports that only some plugins have.
#[doc(hidden)]
#[macro_export]
macro_rules! __uses {
    ($buffers:ident, $seat:ident, $make:block) => {};
    ($buffers:ident, $seat:ident, $make:block, options $(, $rest:ident)*) => {
        #[no_mangle]
        extern "C" fn xvs_configure() -> i32 {
            // SAFETY: one export at a time, and the scheduler is made first.
            unsafe {
                $make;
                $buffers.configure(&$seat)
            }
        }
        $crate::__uses!($buffers, $seat, $make $(, $rest)*);
    };
    ($buffers:ident, $seat:ident, $make:block, health $(, $rest:ident)*) => {
        #[no_mangle]
        extern "C" fn xvs_on_health(index: i32) {
            // SAFETY: one export at a time, and the scheduler is made first.
            unsafe {
                $make;
                $buffers.health(&$seat, index)
            }
        }
        $crate::__uses!($buffers, $seat, $make $(, $rest)*);
    };
    ($buffers:ident, $seat:ident, $make:block, connections $(, $rest:ident)*) => {
        #[no_mangle]
        extern "C" fn xvs_on_conn(index: i32, delta: i32) {
            // SAFETY: one export at a time, and the scheduler is made first.
            unsafe {
                $make;
                $buffers.connections(&$seat, index, delta)
            }
        }
        $crate::__uses!($buffers, $seat, $make $(, $rest)*);
    };
    ($buffers:ident, $seat:ident, $make:block, state $(, $rest:ident)*) => {
        #[no_mangle]
        extern "C" fn xvs_state() -> i32 {
            // SAFETY: one export at a time.
            unsafe { $buffers.state() as usize as i32 }
        }
        #[no_mangle]
        extern "C" fn xvs_state_save() -> i32 {
            // SAFETY: one export at a time, and the scheduler is made first.
            unsafe {
                $make;
                $buffers.save(&$seat)
            }
        }
        #[no_mangle]
        extern "C" fn xvs_state_load() -> i32 {
            // SAFETY: one export at a time, and the scheduler is made first.
            unsafe {
                $make;
                $buffers.restore(&$seat)
            }
        }
        $crate::__uses!($buffers, $seat, $make $(, $rest)*);
    };
}

/// A panic is a trap.
#[doc(hidden)]
#[macro_export]
macro_rules! __panic {
    () => {
        #[panic_handler]
        fn panic(_: &::core::panic::PanicInfo<'_>) -> ! {
            ::core::arch::wasm32::unreachable()
        }
    };
    (std) => {};
}
