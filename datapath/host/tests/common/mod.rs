//! Modules that tests are made of.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;

use xvs_host::{Fault, Grants, Host, Instance, Limits, Module, Rejected};
use xvs_sdk::abi::{Flow, ROW_USABLE, Row};

/// `wlc` as a plugin.
pub(crate) const WLC: &str = include_str!("../modules/wlc.wat");

/// A host with the limits that a director has.
pub(crate) fn host() -> Host {
    Host::new(Limits::default()).unwrap()
}

/// A plugin with these functions, and what its `xvs_schedule` does. Its table has 8 rows.
pub(crate) fn plugin(others: &str, schedule: &str) -> String {
    plugin_of(r#"(memory (export "memory") 1 4)"#, others, schedule)
}

/// The same with another memory.
pub(crate) fn plugin_of(memory: &str, others: &str, schedule: &str) -> String {
    // Imports must stand before everything else.
    let (imports, others) = others.split_once(";; rest").unwrap_or(("", others));
    format!(
        r#"(module {imports} {memory}
          (data (i32.const 1024) "XVS1\01\00\00\00\00\00\00\00\00\00\00\00\08\00\00\00\20\00\00\00")
          (data (i32.const 2048) "\40\00\00\00")
          (data (i32.const 4096) "\40\00\00\00")
          (func (export "xvs_abi_version") (result i32) i32.const 1)
          (func (export "xvs_table") (result i32) i32.const 1024)
          (func (export "xvs_io") (result i32) i32.const 64)
          (func (export "xvs_config") (result i32) i32.const 2048)
          {others}
          (func (export "xvs_schedule") (result i32) {schedule}))"#
    )
}

/// Loads a module that is written as text.
pub(crate) fn load(host: &Host, text: &str, grants: Grants) -> Result<Arc<Module>, Rejected> {
    host.load(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")), grants)
}

/// An instance with usable servers.
pub(crate) fn instance(module: &Module, servers: usize) -> Instance {
    let mut instance = module.instantiate(1).unwrap();
    fill(&mut instance, servers);
    instance
}

/// Writes rows of usable servers.
pub(crate) fn fill(instance: &mut Instance, servers: usize) {
    instance.set_count(servers).unwrap();
    for index in 0..servers {
        let weight = 1 + index as i32 % 4;
        let total = (index as u32).wrapping_mul(2_654_435_761) % 1000;
        let row = Row {
            weight,
            active: total / 2,
            total,
            flags: ROW_USABLE,
            last_weight: weight,
            health: 100,
            id: index as u64 + 1,
        };
        instance.write_row(index, &row);
    }
}

/// What the first pick of a module gives, with the budget of its servers.
pub(crate) fn first_pick(host: &Host, text: &str, grants: Grants) -> Result<i32, Fault> {
    let module = load(host, text, grants).unwrap_or_else(|rejected| panic!("{rejected}\n{text}"));
    let mut instance = instance(&module, 4);
    let picked = instance.pick(&Flow::default(), module.budget(4));
    if let Err(fault) = &picked {
        let reason = fault.reason();
        assert_eq!(instance.pick(&Flow::default(), 1000), Err(Fault::Dead { reason }), "it lives on");
    }
    picked
}

/// A plugin of `sched-plugins`.
pub(crate) fn real_plugin(name: &str) -> Vec<u8> {
    std::fs::read(xvs_plugins::module(name).unwrap()).unwrap()
}
