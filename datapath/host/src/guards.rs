//! Places where a plugin is stopped when its fuel is used up, beside those of wasmtime.
//!
//! Wasmtime counts fuel everywhere, but asks whether any is left only at loops and at the beginning of functions. That
//! lets a module run on for milliseconds: by one very long function without a loop, or by a deep recursion whose work
//! stands behind the calls, on the way back. An empty loop is a place to ask, so it is put behind each call and into
//! every long run of code.
//!
//! Invariant: on no way through a function more than [`RUN`] units (and one operation) pass without a question. The
//! module does what it did: an empty loop computes nothing.

use std::ops::Range;

use wasmparser::{BlockType, FunctionBody, Operator, Result};
use wasmtime::OperatorCost;

/// Fuel that may be used between two questions.
pub(crate) const RUN: i64 = 1_000;

/// `loop end`, without parameters and results.
const GUARD: [u8; 3] = [0x03, 0x40, 0x0b];

/// A block that is open.
struct Open {
    /// Most fuel since the last question, of all ways that lead to its end by a branch.
    at_end: i64,
    /// The same at the beginning of an `if`'s `else`.
    at_else: Option<i64>,
    is_loop: bool,
}

/// The body of a function with guards, as it stands in the code section (without its size). `bytes` is the module.
pub(crate) fn guarded(bytes: &[u8], body: &FunctionBody<'_>, price: &OperatorCost) -> Result<Vec<u8>> {
    let range: Range<usize> = body.range();
    let mut out = Vec::with_capacity(range.len() + 16);
    let mut operators = body.get_operators_reader()?;
    let mut copied = range.start;
    let mut open = vec![Open { at_end: 0, at_else: None, is_loop: false }];
    let mut since = 0;
    let mut after_call = false;
    while !operators.eof() {
        let (operator, at) = operators.read_with_offset()?;
        let cost = price.cost(&operator);
        // Behind the last `end` nothing may stand; in front of `else` and `end` a guard counts for its own way alone.
        if since + cost > RUN || after_call {
            out.extend_from_slice(&bytes[copied..at]);
            out.extend_from_slice(&GUARD);
            copied = at;
            since = 0;
        }
        after_call = matches!(operator, Operator::Call { .. } | Operator::CallIndirect { .. });
        since += cost;
        let leads = |depth: u32, open: &mut Vec<Open>| {
            let count = open.len();
            if let Some(to) = usize::try_from(depth).ok().and_then(|depth| count.checked_sub(depth + 1)) {
                open[to].at_end = open[to].at_end.max(since);
            }
        };
        match operator {
            Operator::Block { .. } => open.push(Open { at_end: 0, at_else: None, is_loop: false }),
            Operator::Loop { blockty: BlockType::Empty | BlockType::Type(_) | BlockType::FuncType(_) } => {
                since = 0;
                open.push(Open { at_end: 0, at_else: None, is_loop: true });
            }
            Operator::If { .. } => open.push(Open { at_end: 0, at_else: Some(since), is_loop: false }),
            Operator::Else => {
                if let Some(block) = open.last_mut() {
                    block.at_end = block.at_end.max(since);
                    since = block.at_else.take().unwrap_or(since);
                }
            }
            Operator::End => {
                if let Some(block) = open.pop() {
                    // A branch to a loop leads to its head, where it is asked.
                    let by_branch = if block.is_loop { 0 } else { block.at_end };
                    since = since.max(by_branch).max(block.at_else.unwrap_or(0));
                }
            }
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => leads(relative_depth, &mut open),
            Operator::BrTable { ref targets } => {
                for depth in targets.targets() {
                    leads(depth?, &mut open);
                }
                leads(targets.default(), &mut open);
            }
            _ => {}
        }
    }
    out.extend_from_slice(&bytes[copied..range.end]);
    Ok(out)
}

/// Appends a number as WebAssembly writes lengths and counts.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
