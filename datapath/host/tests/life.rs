//! A plugin that behaves, from bytes to picks.

mod common;

use common::{WLC, first_pick, host, instance, load, plugin};
use xvs_host::{Fault, Grants};
use xvs_sdk::Needs;
use xvs_sdk::abi::{Flow, ROW_QUIESCED, ROW_USABLE};

/// A module tells what it is, and its picks are those of the rows that were written.
#[test]
fn wlc_picks_the_least_loaded() {
    let host = host();
    let module = load(&host, WLC, Grants::default()).unwrap();
    assert_eq!((module.needs(), module.capacity(), module.sha256().len()), (Needs::COUNTS, 1024, 64));
    assert!(module.imports().is_empty() && !module.offers().config && !module.offers().changed);
    let mut instance = instance(&module, 3);
    for (index, (active, total)) in [(10, 20), (4, 9), (7, 7)].into_iter().enumerate() {
        instance.set_counts(index, active, total, ROW_USABLE, 100);
    }
    let budget = module.budget(3);
    // Weights are 1, 2, 3.
    assert_eq!(instance.pick(&Flow::default(), budget), Ok(1));
    instance.set_counts(1, 4, 9, ROW_QUIESCED, 0);
    assert_eq!(instance.pick(&Flow::default(), budget), Ok(2));
    assert!(instance.fuel_used() > 50 && instance.fuel_used() < budget, "{}", instance.fuel_used());
    assert_eq!(instance.changed(0, 0, budget), Ok(false), "it does not export xvs_changed");
    assert_eq!(instance.set_count(1025), Err(Fault::Full { capacity: 1024 }));
}

/// A scan over 256 servers uses half of its budget at most.
#[test]
fn a_scan_fits() {
    let host = host();
    let module = load(&host, WLC, Grants::default()).unwrap();
    let mut instance = instance(&module, 256);
    instance.pick(&Flow::default(), module.budget(256)).unwrap();
    assert!(instance.fuel_used() < module.budget(256) / 2, "{} of {}", instance.fuel_used(), module.budget(256));
}

/// Options arrive; a refusal carries the plugin's sentence; without a buffer they are refused.
#[test]
fn options_are_taken_or_refused() {
    let host = host();
    // It refuses what does not begin with `a`, and says `no`.
    let text = plugin(
        r#"(func (export "xvs_configure") (result i32)
            (if (i32.eq (i32.load8_u (i32.const 2056)) (i32.const 97)) (then (return (i32.const 0))))
            (i32.store (i32.const 2052) (i32.const 2)) (i32.store16 (i32.const 2056) (i32.const 0x6f6e)) i32.const -1)"#,
        "(i32.load (i32.const 2052))",
    );
    let module = load(&host, &text, Grants::default()).unwrap();
    let mut first = instance(&module, 1);
    first.configure("a=1").unwrap();
    assert_eq!(first.pick(&Flow::default(), 1000), Ok(3), "the length of the options");
    let mut second = instance(&module, 1);
    assert_eq!(second.configure("b=1"), Err(Fault::Refused("no".into())));
    assert_eq!(second.pick(&Flow::default(), 1000), Ok(2), "a refusal does not kill");
    assert_eq!(second.configure(&"a".repeat(65)).unwrap_err().reason(), "refused");
    let mut wlc = instance(&load(&host, WLC, Grants::default()).unwrap(), 1);
    assert_eq!(wlc.configure("a=1"), Err(Fault::Refused("it takes none".into())));
    wlc.configure("").unwrap();
}

/// State goes from one instance to another.
#[test]
fn state_is_handed_over() {
    let host = host();
    let text = plugin(
        r#"(func (export "xvs_state") (result i32) i32.const 4096)
           (func (export "xvs_state_save") (result i32) (i64.store (i32.const 4104) (i64.load (i32.const 8192))) i32.const 8)
           (func (export "xvs_state_load") (result i32) (i64.store (i32.const 8192) (i64.load (i32.const 4104))) i32.const 0)"#,
        "(i32.store (i32.const 8192) (i32.add (i32.load (i32.const 8192)) (i32.const 1))) (i32.load (i32.const 8192))",
    );
    let module = load(&host, &text, Grants::default()).unwrap();
    let mut old = instance(&module, 1);
    for pick in 1..=5 {
        assert_eq!(old.pick(&Flow::default(), 1000), Ok(pick));
    }
    let state = old.save(50_000).unwrap().unwrap();
    let mut new = instance(&module, 1);
    assert_eq!(new.restore(&state), Ok(true));
    assert_eq!(new.pick(&Flow::default(), 1000), Ok(6));
    assert_eq!(new.restore(&[0; 100]), Ok(false), "more than there is room for");
}

/// Imports that are granted work: the time is what was set, random numbers repeat by seed, lines are kept and bounded.
#[test]
fn granted_imports_work() {
    let host = host();
    let imports = r#"(import "xvs" "now" (func $now (result i64))) (import "xvs" "random" (func $random (result i64)))
        (import "xvs" "log" (func $log (param i32 i32))) ;; rest "#;
    let text = plugin(
        imports,
        "(call $log (i32.const 1024) (i32.const 4)) (i32.wrap_i64 (i64.add (call $now) (i64.shl (call $random) (i64.const 32))))",
    );
    let module = load(&host, &text, Grants::ALL).unwrap();
    assert_eq!(module.imports(), ["now", "random", "log"]);
    let mut instance = instance(&module, 1);
    instance.set_now(77);
    for _ in 0..100 {
        assert_eq!(instance.pick(&Flow::default(), 2150), Ok(77));
    }
    let lines = instance.take_log();
    assert_eq!((lines.len(), lines[0].as_str(), lines[16].as_str()), (17, "XVS1", "(84 more lines were not kept)"));
    let random = plugin(imports, "(i32.wrap_i64 (call $random))");
    assert_eq!(first_pick(&host, &random, Grants::ALL), first_pick(&host, &random, Grants::ALL));
}
