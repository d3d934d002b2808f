//! Any bytes as a plugin: they are refused, or they live a whole life and fail by name; nothing panics or hangs.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xvs_host::{Fault, Grants, Host, Limits, Module};
use xvs_sdk::abi::Flow;

static HOST: LazyLock<Host> = LazyLock::new(|| {
    let limits = Limits { fuel_setup: 1_000_000, ..Limits::default() };
    Host::new(limits).expect("this machine compiles WebAssembly")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(module) = HOST.load(bytes, Grants::ALL)
        && let Err(fault) = live(&module)
    {
        assert!(Fault::REASONS.contains(&fault.reason()));
    }
});

fn live(module: &Module) -> Result<(), Fault> {
    let mut instance = module.instantiate(7)?;
    instance.configure("")?;
    let servers = module.capacity().min(4);
    instance.set_count(servers)?;
    instance.changed(0, 0, module.limits().fuel_setup)?;
    for _ in 0..3 {
        instance.on_health(0, module.budget(servers))?;
        instance.on_conn(0, 1, module.budget(servers))?;
        instance.pick(&Flow::default(), module.budget(servers))?;
    }
    if let Some(state) = instance.save(module.limits().fuel_most)? {
        instance.restore(&state)?;
    }
    Ok(())
}
