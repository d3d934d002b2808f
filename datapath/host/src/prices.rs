//! What each operation of WebAssembly costs, in fuel.
//!
//! A unit stands for at most 0.8 ns, so that a budget in fuel is a bound in time. Found with the example `runaways` on a
//! Xeon of 2.6 GHz (a virtual machine): of forty kinds of loops none took more than 0.5 ns a unit there (chains of loads
//! that miss the first cache, products of numbers next to zero). The most fuel of a pick, 45 000, is 23 us at that rate,
//! and then the worst trap (an `ud2` that a hypervisor looks at first, 28 us) still ends within 50 us. Divisions are
//! priced for processors that take 90 cycles for one, which this one does not.
//!
//! Invariant: no loop runs longer than its fuel times [`NANOSECONDS`], whatever it is made of. Where prices are asked
//! for: at each loop, each function, before each bulk operation (wasmtime's own checks), and where `guards` adds them.

use wasmtime::OperatorCost;

/// Nanoseconds that a unit of fuel may last at most.
pub const NANOSECONDS: f64 = 0.8;

/// A call of an import: leaving WebAssembly and coming back, besides the price of a call.
pub(crate) const IMPORT: u64 = 60;

/// The prices.
pub fn prices() -> OperatorCost {
    let mut price = OperatorCost::new();
    macro_rules! set {
        ($cost:literal: $($operator:ident)+) => { $(price.$operator = $cost;)+ };
    }
    // A loop's head asks for fuel.
    set!(1: Loop);
    // Calls: the frame, the check of the stack, storing and loading the fuel; through a table, a jump that the
    // processor guesses wrong.
    set!(8: Call);
    set!(16: CallIndirect);
    set!(10: BrTable);
    // Loads that depend on each other and miss the nearest caches.
    set!(10: I32Load I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U I64Load8S I64Load8U I64Load16S
        I64Load16U I64Load32S I64Load32U);
    set!(8: I32Store I64Store F32Store F64Store I32Store8 I32Store16 I64Store8 I64Store16 I64Store32);
    // Division on older processors.
    set!(16: I32DivS I32DivU I32RemS I32RemU);
    set!(50: I64DivS I64DivU I64RemS I64RemU);
    set!(3: I32Mul I64Mul I32Clz I32Ctz I32Popcnt I64Clz I64Ctz I64Popcnt GlobalGet GlobalSet MemorySize);
    // Floating point: some processors take far longer for numbers next to zero.
    set!(80: F32Mul F64Mul F32Div F64Div F32Sqrt F64Sqrt F32DemoteF64 F64PromoteF32);
    set!(8: F32Add F32Sub F64Add F64Sub F32Min F32Max F64Min F64Max F32Ceil F32Floor F32Trunc F32Nearest F64Ceil
        F64Floor F64Trunc F64Nearest I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U I64TruncF32S I64TruncF32U
        I64TruncF64S I64TruncF64U I32TruncSatF32S I32TruncSatF32U I32TruncSatF64S I32TruncSatF64U I64TruncSatF32S
        I64TruncSatF32U I64TruncSatF64S I64TruncSatF64U F32ConvertI32S F32ConvertI32U F32ConvertI64S F32ConvertI64U
        F64ConvertI32S F64ConvertI32U F64ConvertI64S F64ConvertI64U);
    set!(4: F32Eq F32Ne F32Lt F32Gt F32Le F32Ge F64Eq F64Ne F64Lt F64Gt F64Le F64Ge F32Copysign F64Copysign);
    // A call of the runtime each, and a unit for each byte.
    set!(80: MemoryCopy MemoryFill MemoryInit DataDrop);
    // Outside of picks only, and not often (see `imports`); else a call of the runtime.
    set!(80: MemoryGrow);
    price
}
