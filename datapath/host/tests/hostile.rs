//! Plugins that do harm: each fault has its name, each module that may not run its sentence, and all of it in time.

mod common;

use std::time::{Duration, Instant};

use common::{WLC, first_pick, host, instance, load, plugin, plugin_of};
use xvs_host::{Fault, Grants, Host, Limits};
use xvs_sdk::abi::Flow;

/// Why a text is not loaded.
fn rejection(host: &Host, text: &str) -> String {
    let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    host.load(&bytes, Grants::default()).expect_err("it is loaded").to_string()
}

/// Each way to fail in a pick is told by its name, and the instance is dead after it.
#[test]
fn every_fault_of_a_pick_has_its_name() {
    let host = host();
    let recursion = r#"(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))"#;
    // Work behind the calls: without guards it goes on for as long as the stack is deep.
    let back = format!(
        "(func $down (param i32) (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1))))) {})",
        "(i64.store (i32.const 8192) (i64.div_u (i64.load (i32.const 8192)) (i64.const 3)))".repeat(100)
    );
    for (reason, others, schedule) in [
        ("budget", "", "(loop $l (br $l)) i32.const 0"),
        ("budget", "", "(loop $l (memory.fill (i32.const 8192) (i32.const 0) (i32.const 100000)) (br $l)) i32.const 0"),
        ("budget", &back, "(call $down (i32.const 300)) i32.const 0"),
        ("trap", "", "unreachable"),
        ("trap", "", "(i32.load (i32.const 0x7fffffff))"),
        ("trap", "", "(i32.div_s (i32.const 1) (i32.load (i32.const 16)))"),
        ("trap", "", "(i32.trunc_f64_s (f64.div (f64.const 0) (f64.const 0)))"),
        ("trap", "(table 1 funcref)", "(call_indirect (result i32) (i32.const 0))"),
        ("trap", "(table 1 funcref)", "(call_indirect (result i32) (i32.const 7))"),
        ("stack", recursion, "(call $down (i32.const 1))"),
        ("memory", "", "(memory.grow (i32.const 1))"),
        ("memory", "", "(memory.grow (i32.const 65535))"),
    ] {
        // Deep recursions need more than the budget of four servers.
        let module = load(&host, &plugin(others, schedule), Grants::default()).unwrap();
        let mut instance = instance(&module, 4);
        let fault = instance.pick(&Flow::default(), host.limits().fuel_most).expect_err(schedule);
        assert_eq!(fault.reason(), reason, "{schedule}: {fault}");
        assert!(Fault::REASONS.contains(&reason) && fault.kills());
        assert_eq!(instance.pick(&Flow::default(), 1000), Err(Fault::Dead { reason }), "{schedule}");
        assert_eq!(instance.save(host.limits().fuel_most), Ok(None));
        assert_eq!(instance.dead(), Some(reason));
    }
}

/// Nonsense comes back as it is: the director judges it.
#[test]
fn nonsense_is_an_answer() {
    let host = host();
    for answer in [-3, i32::MIN, i32::MAX, 4, 4096] {
        assert_eq!(first_pick(&host, &plugin("", &format!("i32.const {answer}")), Grants::default()), Ok(answer));
    }
}

/// A plugin that writes all over its table misleads nobody but itself, and writing rows again heals it.
#[test]
fn a_spoiled_table_heals() {
    let host = host();
    let text = plugin(
        "",
        "(i32.load (i32.const 1036)) (i32.load (i32.const 1056)) i32.add
         (memory.fill (i32.const 1024) (i32.const 255) (i32.const 288))",
    );
    let module = load(&host, &text, Grants::default()).unwrap();
    let mut instance = instance(&module, 4);
    for _ in 0..3 {
        assert_eq!(instance.pick(&Flow::default(), 2600), Ok(5), "4 servers, and the first one's weight");
        common::fill(&mut instance, 4);
    }
}

/// What is called outside of picks has an end, too, and its faults have their names.
#[test]
fn spinning_elsewhere_ends() {
    let host = Host::new(Limits { fuel_setup: 1_000_000, ..Limits::default() }).unwrap();
    let spin = "(loop $l (br $l))";
    let text = plugin(
        &format!(
            r#"(func (export "xvs_configure") (result i32) {spin} i32.const 0)
               (func (export "xvs_changed") (param i32 i32) (result i32) {spin} i32.const 0)
               (func (export "xvs_on_health") (param i32) {spin})
               (func (export "xvs_on_conn") (param i32 i32) {spin})
               (func (export "xvs_state") (result i32) i32.const 4096)
               (func (export "xvs_state_save") (result i32) {spin} i32.const 0)
               (func (export "xvs_state_load") (result i32) {spin} i32.const 0)"#
        ),
        "i32.const 0",
    );
    let module = load(&host, &text, Grants::default()).unwrap();
    assert_eq!(instance(&module, 1).configure(""), Err(Fault::Budget));
    assert_eq!(instance(&module, 1).changed(0, 0, 5000), Err(Fault::Budget));
    assert_eq!(instance(&module, 1).on_health(0, 5000), Err(Fault::Budget));
    assert_eq!(instance(&module, 1).on_conn(0, 1, 5000), Err(Fault::Budget));
    assert_eq!(instance(&module, 1).save(host.limits().fuel_most), Err(Fault::Budget));
    assert_eq!(instance(&module, 1).restore(b"state"), Err(Fault::Budget));
    let lie = plugin(
        r#"(func (export "xvs_state") (result i32) i32.const 4096)
           (func (export "xvs_state_save") (result i32) i32.const 0x7fffffff)
           (func (export "xvs_state_load") (result i32) i32.const -1)"#,
        "i32.const 0",
    );
    let module = load(&host, &lie, Grants::default()).unwrap();
    assert_eq!(instance(&module, 1).save(host.limits().fuel_most).unwrap_err().reason(), "layout");
    assert_eq!(instance(&module, 1).restore(b"state"), Ok(false));
}

/// Memory may grow while the plugin is configured, up to the limit, and its pages are there then.
#[test]
fn memory_grows_in_time_only() {
    let host = host();
    let grow = |pages: u32| {
        plugin_of(
            r#"(memory (export "memory") 1)"#,
            &format!(
                r#"(func (export "xvs_configure") (result i32) (drop (memory.grow (i32.const {pages}))) i32.const 0)"#
            ),
            "(i32.store (i32.const 2097148) (i32.const 9)) (i32.load (i32.const 2097148))",
        )
    };
    let mut grown = instance(&load(&host, &grow(31), Grants::default()).unwrap(), 1);
    grown.configure("").unwrap();
    assert_eq!(grown.memory_bytes(), 2 << 20);
    assert_eq!(grown.pick(&Flow::default(), 2150), Ok(9));
    let mut greedy = instance(&load(&host, &grow(32), Grants::default()).unwrap(), 1);
    assert_eq!(greedy.configure("").unwrap_err().reason(), "memory");
}

/// What a module may not have is named, with what would be right.
#[test]
fn what_may_not_be_is_named() {
    let host = host();
    let import = |import: &str| plugin(&format!("{import} ;; rest"), "i32.const 0");
    for (text, told) in [
        (import(r#"(import "xvs" "now" (func (result i64)))"#), "load it with --grant time"),
        (import(r#"(import "xvs" "log" (func (param i32 i32)))"#), "load it with --grant log"),
        (import(r#"(import "xvs" "now" (func (result i32)))"#), "something else than a function () -> i64"),
        (import(r#"(import "env" "abort" (func))"#), "imports env.abort, which a director does not offer"),
        (import(r#"(import "xvs" "now" (global i64))"#), "something else than a function"),
        (plugin("(func $f) (start $f)", "i32.const 0"), "has a start function"),
        (plugin("(memory 1)", "i32.const 0"), "memories"),
        (plugin("(table 1 funcref) (table 1 funcref)", "i32.const 0"), "tables"),
        (plugin("(table 100000 funcref)", "i32.const 0"), "100000 places"),
        (plugin_of(r#"(memory (export "memory") 33)"#, "", "i32.const 0"), "begins with 2162688 bytes"),
        (
            plugin_of(r#"(memory (export "memory") i64 1)"#, "", "i32.const 0")
                .replace("(i32.const 1", "(i64.const 1")
                .replace("(i32.const 2", "(i64.const 2")
                .replace("(i32.const 4", "(i64.const 4"),
            "64 bits",
        ),
        (plugin_of(r#"(memory (export "memory") 1 4 shared)"#, "", "i32.const 0"), "shared"),
        (plugin_of(r#"(memory (export "store") 1)"#, "", "i32.const 0"), "under the name `memory`"),
        (plugin("(func (result v128) (v128.const i64x2 0 0))", "i32.const 0"), "SIMD"),
        (plugin("(tag $t)", "i32.const 0"), "exceptions"),
        (plugin("(func $f (return_call $f))", "i32.const 0"), "tail calls"),
        (plugin("(func (param externref))", "i32.const 0"), "reference types"),
        (plugin("(table 1 funcref) (func (drop (table.size 0)))", "i32.const 0"), "reference types"),
        (plugin(r#"(data (i32.const 65530) "0123456789")"#, "i32.const 0"), "no instance of it can be made"),
        (
            plugin("", "i32.const 0").replace("xvs_schedule", "schedule"),
            "does not export the function xvs_schedule() -> i32",
        ),
        (
            plugin("", "i32.const 0")
                .replace(r#""xvs_io") (result i32)"#, r#""xvs_io") (result i64) i64.const 0 return"#)
                .replace("return i32.const 64", "return"),
            "xvs_io",
        ),
        (
            plugin(r#"(func (export "xvs_on_health") (result i32) i32.const 0)"#, "i32.const 0"),
            "xvs_on_health is of another type than (i32)",
        ),
        (
            plugin(r#"(func (export "xvs_state") (result i32) i32.const 0)"#, "i32.const 0"),
            "all of them hand state over",
        ),
        (
            plugin("", "i32.const 0").replace(
                r#""xvs_abi_version") (result i32) i32.const 1"#,
                r#""xvs_abi_version") (result i32) i32.const 2"#,
            ),
            "built for ABI 2",
        ),
        (plugin("", "i32.const 0").replace("XVS1", "XVS2"), "begins with"),
        (plugin("", "i32.const 0").replace("i32.const 64)", "i32.const 60)"), "no multiple of 8"),
        (plugin("", "i32.const 0").replace("i32.const 64)", "i32.const 1040)"), "overlap"),
        (plugin("", "i32.const 0").replace("i32.const 64)", "i32.const 65480)"), "does not lie within its memory"),
        (plugin("", "i32.const 0").replace("i32.const 64)", "i32.const -8)"), "does not lie within its memory"),
        (plugin("", "i32.const 0").replace(r"\00\08\00\00\00\20", r"\00\00\00\00\00\20"), "room for 0 rows"),
        (
            plugin("", "i32.const 0").replace(r"\00\08\00\00\00\20", r"\00\08\00\00\00\1f"),
            "31 bytes from one to the next",
        ),
        (plugin("", "i32.const 0").replace(r"\00\08\00\00\00\20", r"\00\08\20\00\00\20"), "it must be 1 to 4096"),
        (
            plugin("", "i32.const 0")
                .replace(r#""xvs_table") (result i32)"#, r#""xvs_table") (result i32) (loop $l (br $l))"#),
            "xvs_table gave no answer: it did not come to an end",
        ),
        (
            plugin("", "i32.const 0")
                .replace(r#""xvs_table") (result i32)"#, r#""xvs_table") (result i32) unreachable"#),
            "xvs_table gave no answer: it trapped",
        ),
    ] {
        let sentence = rejection(&host, &text);
        assert!(sentence.contains(told), "{told:?} is not told: {sentence}");
    }
    for (bytes, told) in [
        (vec![], "no WebAssembly module"),
        (b"\x7fELF and more".to_vec(), "no WebAssembly module"),
        (vec![0; (1 << 20) + 1], "1048577 bytes"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "component"),
        (b"\0asm\x01\0\0\0\x0a\xff\xff\xff\xff\x0f".to_vec(), "at byte"),
    ] {
        let sentence = host.load(&bytes, Grants::default()).unwrap_err().to_string();
        assert!(sentence.contains(told), "{told:?} is not told: {sentence}");
    }
}

/// All problems are told at once.
#[test]
fn several_problems_are_told_at_once() {
    let host = host();
    let text = r#"(module (import "a" "b" (func)) (import "xvs" "random" (func (result i64))) (memory 1))"#;
    let rejected = host.load(&wat::parse_str(text).unwrap(), Grants::default()).unwrap_err();
    assert_eq!(rejected.problems.len(), 8, "{rejected:#?}");
}

/// What compilers take long for is refused, or compiled within seconds.
#[test]
fn bombs_are_bounded() {
    let host = host();
    let functions = |count: usize| plugin(&"(func)".repeat(count), "i32.const 0");
    let long = |count: usize| {
        plugin(
            &format!("(func (local $a i64) {})", "(local.set $a (i64.add (local.get $a) (i64.const 1)))".repeat(count)),
            "i32.const 0",
        )
    };
    let blocks =
        |count: usize| plugin(&format!("(func {} {})", "(block ".repeat(count), ")".repeat(count)), "i32.const 0");
    // Many locals that are alive across many branches.
    let alive = |locals: usize, branches: usize| {
        let declared: String = (0..locals).map(|local| format!("(local $l{local} i64)")).collect();
        let set: String = (0..branches)
            .map(|at| {
                let (a, b) = (at % locals, (at * 7 + 3) % locals);
                format!("(loop $b{at} (local.set $l{a} (i64.add (local.get $l{b}) (i64.const 1))) (br_if $b{at} (i32.wrap_i64 (local.get $l{a}))))")
            })
            .collect();
        plugin(&format!("(func {declared} {set})"), "i32.const 0")
    };
    let tables = |count: usize, targets: usize| {
        let table = format!("(block $b (br_table {} (i32.const 0)))", "$b ".repeat(targets));
        plugin(&format!("(func {})", table.repeat(count)), "i32.const 0")
    };
    for (name, text, rejected) in [
        ("functions", functions(3_000), true),
        ("functions that are let through", functions(900), false),
        ("a long function", long(8_000), true),
        ("a long function that is let through", long(4_000), false),
        ("blocks", blocks(4_000), false),
        ("locals", alive(500, 100), true),
        ("locals that are let through", alive(390, 1_000), false),
        ("branches", tables(15, 2_000), false),
        (
            "exports",
            plugin(&(0..1_500).map(|at| format!(r#"(func (export "f{at}"))"#)).collect::<String>(), "i32.const 0"),
            true,
        ),
        ("globals", plugin(&"(global i32 (i32.const 0))".repeat(1_500), "i32.const 0"), true),
        ("data segments", plugin(&r#"(data (i32.const 0) "")"#.repeat(1_500), "i32.const 0"), true),
        (
            "code",
            plugin(
                &format!("(func (local i64) {})", "(local.set 0 (i64.const 0x1234567812345678))".repeat(25))
                    .repeat(900),
                "i32.const 0",
            ),
            true,
        ),
    ] {
        let bytes = wat::parse_str(&text).unwrap();
        let begin = Instant::now();
        let loaded = host.load(&bytes, Grants::default());
        let took = begin.elapsed();
        println!("{name}: {} bytes, {took:?}", bytes.len());
        assert_eq!(loaded.is_err(), rejected, "{name}: {loaded:?}");
        // A build without optimization, on a machine that does other things: seconds are fine, minutes would not be.
        assert!(took < Duration::from_secs(60), "{name} took {took:?}");
    }
}

/// Modules with bytes turned over are refused or fail by name, and nothing panics or hangs.
#[test]
fn mutated_modules_do_no_harm() {
    let host = Host::new(Limits { fuel_setup: 200_000, ..Limits::default() }).unwrap();
    let state = r#"(func (export "xvs_changed") (param i32 i32) (result i32) i32.const 1)
        (func (export "xvs_state") (result i32) i32.const 4096)
        (func (export "xvs_state_save") (result i32) i32.const 4)
        (func (export "xvs_state_load") (result i32) i32.const 0)"#;
    let real = [WLC.to_owned(), plugin(state, "(i32.rem_u (i32.load (i32.const 96)) (i32.load (i32.const 1036)))")];
    let real = real.map(|text| wat::parse_str(text).unwrap());
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % below
    };
    let begin = Instant::now();
    let (mut rejected, mut faulted, mut fine) = (0, 0, 0);
    for turn in 0..20_000 {
        if begin.elapsed() > Duration::from_secs(8) {
            break;
        }
        let mut bytes = real[turn % 2].clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = next(256) as u8,
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, next(256) as u8),
            }
        }
        let Ok(module) = host.load(&bytes, Grants::ALL) else {
            rejected += 1;
            continue;
        };
        match live(&module) {
            Ok(()) => fine += 1,
            Err(fault) => {
                assert!(Fault::REASONS.contains(&fault.reason()));
                faulted += 1;
            }
        }
    }
    println!("{rejected} rejected, {faulted} faulted, {fine} fine");
    assert!(rejected > 100 && fine > 10, "{rejected} rejected, {faulted} faulted, {fine} fine");
}

/// A whole life.
fn live(module: &xvs_host::Module) -> Result<(), Fault> {
    let mut instance = module.instantiate(7)?;
    instance.configure("")?;
    instance.set_count(module.capacity().min(4))?;
    instance.changed(0, 0, 50_000)?;
    for _ in 0..3 {
        instance.pick(&Flow::default(), module.budget(4))?;
    }
    if let Some(state) = instance.save(module.limits().fuel_most)? {
        instance.restore(&state)?;
    }
    Ok(())
}

proptest::proptest! {
    /// Bytes that begin as a module does and go on at random are refused.
    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        thread_local!(static HOST: Host = host());
        HOST.with(|host| {
            let module = [b"\0asm\x01\0\0\0".as_slice(), &bytes].concat();
            assert!(!host.load(&module, Grants::ALL).unwrap_err().problems.is_empty());
        });
    }
}
