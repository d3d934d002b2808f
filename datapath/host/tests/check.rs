//! Checks tell a fit module from one that is not, and why.

mod common;

use std::time::{Duration, Instant};

use common::{WLC, host, load, plugin};
use xvs_host::Grants;
use xvs_host::check::{Report, smoke};

/// Why a smoke test rejects a pick like this one.
fn smoke_of(schedule: &str, servers: usize) -> String {
    let module = load(&host(), &plugin("", schedule), Grants::default()).unwrap();
    smoke(&module, servers, "").expect_err(schedule).to_string()
}

/// A module that works passes, within the time that a director has for it.
#[test]
fn a_fit_module_passes() {
    let module = load(&host(), WLC, Grants::default()).unwrap();
    let begin = Instant::now();
    let seen = smoke(&module, 256, "").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(seen.answers.picks > 0 && seen.answers.wrong() == 0, "{seen:?}");
    assert!(seen.worst_fuel > 5_000 && seen.worst_fuel < seen.budget, "{seen:?}");
    assert!(smoke(&module, 0, "").is_ok() && smoke(&module, 1024, "").is_err(), "an empty service, a full table");
    let report = Report::of(&module, "", Some(300)).unwrap();
    assert!(report.passes(), "{:?}", report.problems);
    assert_eq!(report.is_deterministic, Some(true));
    let sizes: Vec<usize> = report.costs.iter().map(|cost| cost.servers).collect();
    assert_eq!(sizes, [1, 4, 16, 64, 256, 300, 1024]);
    assert!(report.costs[..6].iter().all(|cost| cost.fits && cost.ns.is_some()));
    assert!(report.notes[0].contains("room for 1024 servers, and its fuel reaches for"), "{:?}", report.notes);
}

/// What a director would hold against a module is found before, and told.
#[test]
fn an_unfit_module_is_told_why() {
    for (schedule, told) in [
        ("i32.const 4", "it answers 4, nonsense: right are 0 to 3, -1 and -2"),
        ("i32.const -3", "it answers -3, nonsense"),
        ("i32.const 0", "a server that takes no new connection"),
        ("i32.const -1", "say NEEDS_DENY"),
        ("(loop $l (br $l)) i32.const 0", "with 2600 units of fuel, it did not come to an end within its budget"),
        ("unreachable", "it trapped"),
    ] {
        let sentence = smoke_of(schedule, 4);
        assert!(sentence.contains(told), "{told:?} is not told: {sentence}");
    }
    assert!(smoke_of("i32.const -2", 9).contains("its table has 8 rows"));
    let module = load(&host(), &plugin("", "i32.const 7"), Grants::default()).unwrap();
    let report = Report::of(&module, "", Some(9)).unwrap();
    assert!(!report.passes() && report.answers.out_of_range > 0);
    assert_eq!(report.problems.len(), 2, "{:?}", report.problems);
}

/// State that is handed over is tried, and a module that leaves all to the native scheduler is allowed.
#[test]
fn state_is_tried() {
    let others = |load: &str| {
        format!(
            r#"(func (export "xvs_state") (result i32) i32.const 4096)
               (func (export "xvs_state_save") (result i32) (i64.store (i32.const 4104) (i64.load (i32.const 8192))) i32.const 8)
               (func (export "xvs_state_load") (result i32) {load})"#
        )
    };
    // Every other pick is left to the native scheduler, the rest finds nobody.
    let counts = "(i32.store (i32.const 8192) (i32.add (i32.load (i32.const 8192)) (i32.const 1)))
        (select (i32.const -1) (i32.const -2) (i32.and (i32.load (i32.const 8192)) (i32.const 1)))";
    let deny = r#"(func (export "xvs_needs") (result i32) i32.const 8)"#;
    for (load_state, goes_on) in [
        ("(i64.store (i32.const 8192) (i64.load (i32.const 4104))) i32.const 0", true),
        ("(i64.store (i32.const 8192) (i64.const 7)) i32.const 0", false),
        ("i32.const -1", false),
    ] {
        let text = plugin(&format!("{deny} {}", others(load_state)), counts);
        let report = Report::of(&load(&host(), &text, Grants::default()).unwrap(), "", None).unwrap();
        assert!(report.passes(), "{:?}", report.problems);
        assert_eq!(report.state_goes_on, Some(goes_on), "{load_state}");
    }
}
