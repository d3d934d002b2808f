//! Reads a module before it is compiled: is it one that a director may run?
//!
//! Invariant: what comes out is valid WebAssembly without any extension that `features` does not name, within the
//! limits below, with guards in it (`guards`); custom sections are left out. Compiling it takes seconds at most: what
//! compilers take long for (functions, locals, long bodies) is bounded here, each with its own sentence.

use std::collections::BTreeMap;

use wasmparser::{
    ExternalKind, FuncType, FuncValidatorAllocations, Parser, Payload, TypeRef, ValType, ValidPayload, Validator,
    WasmFeatures,
};
use wasmtime::OperatorCost;

use crate::guards::{guarded, put_number};
use crate::imports::{KNOWN, MODULE, granted};
use crate::limits::{Grants, Limits};
use crate::rejected::Rejected;

/// Most functions, bytes of a function, locals of a function, bytes of all functions.
const FUNCTIONS: u32 = 1_000;
const BODY_BYTES: usize = 32 << 10;
const LOCALS: u32 = 400;
const CODE_BYTES: usize = 256 << 10;
/// Most entries of the other sections, each.
const ENTRIES: u32 = 1_000;
/// Most elements of the table.
const ELEMENTS: u64 = 4_096;
const PAGE: u64 = 64 << 10;

/// What a plugin exports: name, parameters, whether it must.
pub(crate) const EXPORTS: [(&str, usize, bool); 14] = [
    ("xvs_abi_version", 0, true),
    ("xvs_table", 0, true),
    ("xvs_io", 0, true),
    ("xvs_config", 0, true),
    ("xvs_schedule", 0, true),
    ("xvs_needs", 0, false),
    ("xvs_facts", 0, false),
    ("xvs_configure", 0, false),
    ("xvs_changed", 2, false),
    ("xvs_on_health", 1, false),
    ("xvs_on_conn", 2, false),
    ("xvs_state", 0, false),
    ("xvs_state_save", 0, false),
    ("xvs_state_load", 0, false),
];
/// Of these the result is nothing; all others return an `i32`.
const SILENT: [&str; 2] = ["xvs_on_health", "xvs_on_conn"];

/// A module that may be compiled.
#[derive(Debug)]
pub(crate) struct Screened {
    /// The module, with guards.
    pub(crate) bytes: Vec<u8>,
    /// Names of imports, all of them granted.
    pub(crate) imports: Vec<String>,
}

/// WebAssembly 1.0, and what today's compilers take for granted.
fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::BULK_MEMORY_OPT
        | WasmFeatures::CALL_INDIRECT_OVERLONG
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::FLOATS
}

/// Reads a module.
///
/// # Errors
/// It is none that may run: every reason that could be found.
pub(crate) fn screen(
    bytes: &[u8],
    limits: &Limits,
    grants: Grants,
    price: &OperatorCost,
) -> Result<Screened, Rejected> {
    if bytes.len() > limits.module_bytes {
        let most = limits.module_bytes;
        return Err(Rejected::because(format!("the file has {} bytes; a plugin has {most} at most", bytes.len())));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Rejected::because("the file is no WebAssembly module: it does not begin with \\0asm"));
    }
    let mut found = Found::default();
    if let Err(error) = found.read(bytes, limits, price) {
        let (message, at) = (error.message().to_owned(), error.offset());
        found.problems.push(format!("it is no WebAssembly that a director runs: {message} (at byte {at})"));
    } else {
        found.judge_imports(grants);
        found.judge_exports();
    }
    if found.problems.is_empty() {
        Ok(Screened { bytes: found.out, imports: found.imports.into_iter().map(|(_, name, _)| name).collect() })
    } else {
        Err(Rejected { problems: found.problems })
    }
}

/// What reading found.
#[derive(Default)]
struct Found {
    problems: Vec<String>,
    out: Vec<u8>,
    types: Vec<FuncType>,
    /// Type of each function, imported ones first.
    functions: Vec<u32>,
    /// Module, name, type of each import; none if it is no function.
    imports: Vec<(String, String, Option<u32>)>,
    exports: BTreeMap<String, (ExternalKind, u32)>,
    code: Vec<u8>,
    bodies: u32,
}

impl Found {
    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn read(&mut self, bytes: &[u8], limits: &Limits, price: &OperatorCost) -> wasmparser::Result<()> {
        let mut validator = Validator::new_with_features(features());
        let mut allocations = FuncValidatorAllocations::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            self.bound(&payload, limits);
            if !self.problems.is_empty() && matches!(payload, Payload::CodeSectionStart { .. }) {
                // What is wrong already may be what makes the rest long to read.
                return Ok(());
            }
            match validator.payload(&payload)? {
                ValidPayload::Func(function, body) => {
                    self.body(&body)?;
                    if self.problems.is_empty() {
                        let mut function = function.into_validator(allocations);
                        function.validate(&body)?;
                        allocations = function.into_allocations();
                        let guarded = guarded(bytes, &body, price)?;
                        put_number(&mut self.code, guarded.len());
                        self.code.extend_from_slice(&guarded);
                    } else {
                        return Ok(());
                    }
                }
                ValidPayload::Parser(_) => return Ok(()),
                ValidPayload::Ok | ValidPayload::End(_) => {}
            }
            self.take(&payload, bytes)?;
        }
        Ok(())
    }

    /// Bounds what a section holds.
    fn bound(&mut self, payload: &Payload<'_>, limits: &Limits) {
        let (what, count) = match payload {
            Payload::TypeSection(section) => ("types", section.count()),
            Payload::ImportSection(section) => ("imports", section.count()),
            Payload::GlobalSection(section) => ("globals", section.count()),
            Payload::ExportSection(section) => ("exports", section.count()),
            Payload::ElementSection(section) => ("element segments", section.count()),
            Payload::DataSection(section) => ("data segments", section.count()),
            Payload::FunctionSection(section) => {
                if section.count() > FUNCTIONS {
                    self.problem(format!("it has {} functions; a plugin has {FUNCTIONS} at most", section.count()));
                }
                return;
            }
            Payload::CodeSectionStart { range, .. } => {
                if range.len() > CODE_BYTES {
                    let bytes = range.len();
                    self.problem(format!(
                        "its functions have {bytes} bytes; a plugin's have {CODE_BYTES} at most, because they are \
                         compiled while the director works: build it optimized for size"
                    ));
                }
                return;
            }
            Payload::StartSection { .. } => {
                self.problem("it has a start function; a plugin does its first work in xvs_configure");
                return;
            }
            Payload::MemorySection(section) => return self.memory(section.clone(), limits),
            Payload::TableSection(section) => return self.table(section.clone()),
            Payload::Version { encoding: wasmparser::Encoding::Component, .. } => {
                self.problem("it is a component; a plugin is a core module (target wasm32-unknown-unknown)");
                return;
            }
            _ => return,
        };
        if count > ENTRIES {
            self.problem(format!("it has {count} {what}; a plugin has {ENTRIES} at most"));
        }
    }

    fn memory(&mut self, section: wasmparser::MemorySectionReader<'_>, limits: &Limits) {
        if section.count() > 1 {
            self.problem(format!("it has {} memories; a plugin has one", section.count()));
        }
        for memory in section.into_iter().flatten() {
            let bytes = memory.initial.saturating_mul(PAGE);
            let most = limits.memory_bytes;
            if memory.memory64 || memory.shared {
                self.problem("its memory is of 64 bits or shared; a plugin's is a plain one of 32 bits");
            } else if bytes > most as u64 {
                self.problem(format!(
                    "its memory begins with {bytes} bytes; a plugin has {most} at most: link it with \
                     -zstack-size=16384, or make its table smaller"
                ));
            }
        }
    }

    fn table(&mut self, section: wasmparser::TableSectionReader<'_>) {
        if section.count() > 1 {
            self.problem(format!("it has {} tables; a plugin has one at most", section.count()));
        }
        for table in section.into_iter().flatten() {
            if table.ty.initial > ELEMENTS {
                let count = table.ty.initial;
                self.problem(format!("its table of functions has {count} places; a plugin's has {ELEMENTS} at most"));
            }
        }
    }

    /// Bounds what a function holds.
    fn body(&mut self, body: &wasmparser::FunctionBody<'_>) -> wasmparser::Result<()> {
        let (number, bytes) = (self.bodies, body.range().len());
        self.bodies += 1;
        if bytes > BODY_BYTES {
            self.problem(format!("its function {number} has {bytes} bytes; one has {BODY_BYTES} at most: divide it"));
        }
        let mut locals: u32 = 0;
        for group in body.get_locals_reader()? {
            locals = locals.saturating_add(group?.0);
        }
        if locals > LOCALS {
            self.problem(format!("its function {number} has {locals} locals; one has {LOCALS} at most: divide it"));
        }
        Ok(())
    }

    /// Keeps what judging needs, and copies the section.
    fn take(&mut self, payload: &Payload<'_>, bytes: &[u8]) -> wasmparser::Result<()> {
        match payload {
            Payload::Version { range, .. } => self.out.extend_from_slice(&bytes[range.clone()]),
            Payload::TypeSection(section) => {
                for function in section.clone().into_iter_err_on_gc_types() {
                    self.types.push(function?);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let import = import?;
                    let kind = if let TypeRef::Func(kind) = import.ty { Some(kind) } else { None };
                    self.functions.extend(kind);
                    self.imports.push((import.module.to_owned(), import.name.to_owned(), kind));
                }
            }
            Payload::FunctionSection(section) => {
                for kind in section.clone() {
                    self.functions.push(kind?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    self.exports.insert(export.name.to_owned(), (export.kind, export.index));
                }
            }
            Payload::CodeSectionStart { .. } => return Ok(()),
            Payload::CodeSectionEntry(_) => {
                if self.functions.len() as u32 - self.imported() == self.bodies {
                    let mut count = Vec::new();
                    put_number(&mut count, self.bodies as usize);
                    self.out.push(10);
                    put_number(&mut self.out, count.len() + self.code.len());
                    self.out.append(&mut count);
                    self.out.append(&mut self.code);
                }
                return Ok(());
            }
            Payload::CustomSection(_) => return Ok(()),
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            self.out.push(id);
            put_number(&mut self.out, range.len());
            self.out.extend_from_slice(&bytes[range]);
        }
        Ok(())
    }

    fn imported(&self) -> u32 {
        self.imports.iter().filter(|(_, _, kind)| kind.is_some()).count() as u32
    }

    fn kind(&self, index: Option<u32>) -> Option<&FuncType> {
        self.types.get(index? as usize)
    }

    fn judge_imports(&mut self, grants: Grants) {
        let mut problems = Vec::new();
        for (module, name, kind) in &self.imports {
            let known = KNOWN.iter().find(|(known, _, _)| module == MODULE && known == name);
            let Some(&(_, signature, word)) = known else {
                problems.push(format!(
                    "it imports {module}.{name}, which a director does not offer; it offers xvs.now, xvs.random and \
                     xvs.log"
                ));
                continue;
            };
            let right = self.kind(*kind).is_some_and(|kind| match word {
                "log" => kind.params() == [ValType::I32; 2] && kind.results().is_empty(),
                _ => kind.params().is_empty() && kind.results() == [ValType::I64],
            });
            if !right {
                problems.push(format!("it imports xvs.{name} as something else than a function {signature}"));
            } else if !granted(grants, word) {
                problems.push(format!(
                    "it imports xvs.{name}, which is not granted: load it with --grant {word}, or grants = \
                     [\"{word}\"] in the configuration"
                ));
            }
        }
        self.problems.append(&mut problems);
    }

    fn judge_exports(&mut self) {
        let mut problems = Vec::new();
        match self.exports.get("memory") {
            Some((ExternalKind::Memory, _)) => {}
            _ => problems.push("it does not export its memory under the name `memory`".to_owned()),
        }
        for (name, parameters, required) in EXPORTS {
            let signature =
                format!("({}){}", ["i32"; 2][..parameters].join(", "), if is_silent(name) { "" } else { " -> i32" });
            match self.exports.get(name) {
                None if required => problems.push(format!("it does not export the function {name}{signature}")),
                None => {}
                Some((ExternalKind::Func, index)) => {
                    let kind = self.kind(self.functions.get(*index as usize).copied());
                    let results: &[ValType] = if is_silent(name) { &[] } else { &[ValType::I32] };
                    if !kind.is_some_and(|kind| {
                        kind.params() == &[ValType::I32; 2][..parameters] && kind.results() == results
                    }) {
                        problems.push(format!("its export {name} is of another type than {signature}"));
                    }
                }
                Some(_) => problems.push(format!("its export {name} is no function {signature}")),
            }
        }
        let has = |name: &str| self.exports.contains_key(name);
        let parts = ["xvs_state", "xvs_state_save", "xvs_state_load"];
        if parts.iter().any(|part| has(part)) && !parts.iter().all(|part| has(part)) {
            problems.push(
                "it exports some of xvs_state, xvs_state_save and xvs_state_load: all of them hand state over, or none"
                    .to_owned(),
            );
        }
        self.problems.append(&mut problems);
    }
}

fn is_silent(name: &str) -> bool {
    SILENT.contains(&name)
}
