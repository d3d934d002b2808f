//! Measures what a runaway plugin costs: how long each kind of loop may go on with the most fuel that a pick gets, what
//! a trap costs, and what a call costs. `prices` and `Limits::fuel_most` are set by what this prints:
//!
//! ```text
//! cargo run --release -p xvs-host --example runaways
//! ```

use std::time::Instant;

use xvs_host::{Grants, Host, Instance, Limits, prices::NANOSECONDS};
use xvs_sdk::abi::{Flow, ROW_USABLE, Row};

/// A plugin with these functions.
fn plugin(imports: &str, memory: &str, others: &str, schedule: &str) -> String {
    format!(
        r#"(module {imports} {memory}
          (data (i32.const 1024) "XVS1\01\00\00\00\00\00\00\00\00\00\00\00\00\01\00\00\20\00\00\00")
          (func (export "xvs_abi_version") (result i32) i32.const 1)
          (func (export "xvs_table") (result i32) i32.const 1024)
          (func (export "xvs_io") (result i32) i32.const 64)
          (func (export "xvs_config") (result i32) i32.const 0)
          {others}
          (func (export "xvs_schedule") (result i32)
            (local $a i64) (local $b i64) (local $i i32) (local $j i32) (local $f f64) (local $g f32) (local $h f64)
            {schedule} i32.const 0))"#
    )
}

/// Repeats an operation so that the loop around it weighs little.
fn chain(operation: &str) -> String {
    format!("(loop $l {} (br $l))", operation.repeat(64))
}

const TWO: &str = r#"(memory (export "memory") 32 32)"#;
const IMPORTS: &str = r#"(import "xvs" "now" (func $now (result i64))) (import "xvs" "random" (func $random (result i64)))
    (import "xvs" "log" (func $log (param i32 i32)))"#;
/// Links a ring through 2 MiB from address 65536 on, one link in each 64 bytes, in an order that no processor guesses.
const RING: &str = r#"(func (export "xvs_changed") (param i32 i32) (result i32) (local $n i32) (local $k i32) (local $t i32)
    (loop $l
      (local.set $t (i32.and (i32.add (i32.mul (local.get $k) (i32.const 16645)) (i32.const 12345)) (i32.const 16383)))
      (i32.store (i32.add (i32.const 65536) (i32.shl (local.get $k) (i32.const 6)))
        (i32.add (i32.const 65536) (i32.shl (local.get $t) (i32.const 6))))
      (local.set $k (local.get $t))
      (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16384))))
    i32.const 0)"#;

fn runaways() -> Vec<(&'static str, String)> {
    let plain = |schedule: &str| plugin("", TWO, "", schedule);
    let tiny = "(local.set $f (f64.const 1e-310)) (local.set $h (f64.const 0.5)) (local.set $g (f32.const 1e-40))";
    let mix = "(local.set $a (i64.xor (local.get $a) (i64.shl (local.get $a) (i64.const 13))))
        (local.set $a (i64.xor (local.get $a) (i64.shr_u (local.get $a) (i64.const 7))))
        (local.set $a (i64.xor (local.get $a) (i64.shl (local.get $a) (i64.const 17))))";
    let big = "(local.set $a (i64.const -7)) (local.set $b (i64.const 3))";
    let places = "(local.set $i (i32.and (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.const 1013904223)) (i32.const 2031552)))";
    vec![
        ("an empty loop", plain("(loop $l (br $l))")),
        ("additions", plain(&chain("(local.set $a (i64.add (local.get $a) (i64.const 3)))"))),
        ("empty loops in a row", plain(&chain("(loop)"))),
        ("i64.mul", plain(&format!("{big} {}", chain("(local.set $a (i64.mul (local.get $a) (local.get $b)))")))),
        ("i64.div_s", plain(&format!("{big} {}", chain("(local.set $a (i64.or (i64.div_s (local.get $a) (local.get $b)) (i64.const -9223372036854775807)))")))),
        ("i64.rem_u", plain(&format!("{big} {}", chain("(local.set $a (i64.or (i64.rem_u (local.get $a) (local.get $b)) (i64.const -9223372036854775807)))")))),
        ("i32.div_s", plain(&format!("(local.set $j (i32.const 3)) {}", chain("(local.set $i (i32.or (i32.div_s (local.get $i) (local.get $j)) (i32.const 0x40000001)))")))),
        ("f64.sqrt", plain(&format!("(local.set $f (f64.const 1e300)) {}", chain("(local.set $f (f64.sqrt (f64.add (local.get $f) (f64.const 1e300))))")))),
        ("f64.mul next to zero", plain(&format!("{tiny} {}", chain("(local.set $f (f64.mul (f64.mul (local.get $f) (local.get $h)) (f64.const 2)))")))),
        ("f64.add next to zero", plain(&format!("{tiny} {}", chain("(local.set $f (f64.add (local.get $f) (f64.const 1e-310)))")))),
        ("f64.div next to zero", plain(&format!("{tiny} {}", chain("(local.set $f (f64.div (f64.div (local.get $f) (local.get $h)) (f64.const 2)))")))),
        ("f32 promoted and demoted", plain(&format!("{tiny} {}", chain("(local.set $g (f32.demote_f64 (f64.promote_f32 (local.get $g))))")))),
        ("i64.trunc_sat, convert", plain(&chain("(local.set $a (i64.trunc_sat_f64_u (f64.convert_i64_u (local.get $a))))"))),
        ("f64.nearest", plain(&chain("(local.set $f (f64.nearest (local.get $f)))"))),
        ("popcnt, clz, ctz", plain(&chain("(local.set $a (i64.popcnt (i64.clz (i64.ctz (local.get $a)))))"))),
        ("branches at random", plain(&format!("(local.set $a (i64.const 77)) (loop $l {mix} (if (i32.wrap_i64 (i64.and (local.get $a) (i64.const 1))) (then (local.set $b (i64.add (local.get $b) (i64.const 1))))) (br $l))"))),
        ("br_table at random", plain(&format!("(local.set $a (i64.const 77)) (loop $l {mix} (block $w (block $x (block $y (block $z (br_table $w $x $y $z (i32.wrap_i64 (i64.and (local.get $a) (i64.const 3))))) (local.set $i (i32.const 1))) (local.set $i (i32.const 2))) (local.set $j (i32.const 3))) (br $l))"))),
        ("a chase through 1 MiB", plugin("", TWO, RING, &format!("(local.set $i (i32.const 65536)) {}", chain("(local.set $i (i32.load (local.get $i)))")))),
        ("a chase through 1 MiB, cold", plugin("", TWO, RING, &format!("(local.set $i (i32.const 65536)) {}", chain("(local.set $i (i32.load (local.get $i)))")))),
        ("loads of one place", plain(&chain("(local.set $i (i32.load offset=65536 (local.get $i)))"))),
        ("stores at random", plain(&format!("(loop $l {} (br $l))", format!("{places} (i64.store offset=65536 (local.get $i) (local.get $a))").repeat(16)))),
        ("a narrow store, a wide load", plain(&chain("(i32.store8 offset=65543 (i32.const 0) (local.get $i)) (local.set $i (i32.load offset=65541 (i32.const 0)))"))),
        ("loads across pages", plain(&chain("(local.set $a (i64.load offset=69629 (i32.wrap_i64 (local.get $a))))"))),
        ("memory.fill of 1 MiB", plain("(loop $l (memory.fill (i32.const 65536) (i32.const 0) (i32.const 1048576)) (br $l))")),
        ("memory.fill of 40 KB", plain("(loop $l (memory.fill (i32.add (i32.const 65536) (i32.shl (local.tee $i (i32.and (i32.add (local.get $i) (i32.const 1)) (i32.const 15))) (i32.const 16))) (i32.const 1) (i32.const 40000)) (br $l))")),
        ("memory.copy of 1 byte", plain(&chain("(memory.copy (i32.const 65536) (i32.const 65540) (i32.add (local.get $i) (i32.const 1)))"))),
        ("memory.copy of 0 bytes", plain(&chain("(memory.copy (i32.const 65536) (i32.const 65540) (local.get $i))"))),
        ("memory.grow by 0", plain(&chain("(drop (memory.grow (local.get $i)))"))),
        ("memory.grow by 1", plugin("", r#"(memory (export "memory") 2)"#, "", &chain("(drop (memory.grow (i32.const 1)))"))),
        ("memory.size", plain(&chain("(drop (memory.size))"))),
        ("calls", plugin("", TWO, "(func $f)", &chain("(call $f)"))),
        ("calls through the table", plugin("", TWO, "(table 4 funcref) (elem (i32.const 0) $f $g $f $g) (func $f) (func $g)", &chain("(local.set $i (i32.and (i32.add (local.get $i) (i32.const 1)) (i32.const 3))) (call_indirect (local.get $i))"))),
        ("a recursion", plugin("", TWO, "(func $f (param i32) (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))))", "(loop $l (call $f (i32.const 200)) (br $l))")),
        ("a recursion without end", plugin("", TWO, "(func $f (call $f))", "(call $f)")),
        ("work behind a recursion", plugin("", TWO, &format!("(func $f (param i32) (local $a i64) (local.set $a (i64.const -7)) (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))) {} (i64.store (i32.const 65536) (local.get $a)))", "(local.set $a (i64.or (i64.div_s (local.get $a) (i64.load (i32.const 32))) (i64.const -9223372036854775807)))".repeat(300)), "(i64.store (i32.const 32) (i64.const 3)) (call $f (i32.const 1000))")),
        ("a long function", plain(&format!("{big} {}", "(local.set $a (i64.or (i64.div_s (local.get $a) (local.get $b)) (i64.const -9223372036854775807)))".repeat(1500)))),
        ("xvs.now", plugin(IMPORTS, TWO, "", &chain("(drop (call $now))"))),
        ("xvs.random", plugin(IMPORTS, TWO, "", &chain("(drop (call $random))"))),
        ("xvs.log", plugin(IMPORTS, TWO, "", &chain("(call $log (i32.const 65536) (i32.const 200))"))),
    ]
}

fn main() {
    let host = Host::new(Limits::default()).expect("this machine compiles WebAssembly");
    let most = host.limits().fuel_most;
    println!("a pick of {most} units; a unit may last {NANOSECONDS} ns\n");
    println!("{:<28} {:>9} {:>9} {:>9}  outcome", "runaway", "median us", "worst us", "ns/unit");
    for (name, text) in runaways() {
        let bytes = wat::parse_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let module = host.load(&bytes, Grants::ALL).unwrap_or_else(|rejected| panic!("{name}: {rejected}"));
        let (mut times, mut used, mut outcome) = (Vec::new(), 0, String::new());
        for _ in 0..60 {
            let mut instance = module.instantiate(1).expect("room");
            rows(&mut instance, 4);
            instance.changed(0, 0, host.limits().fuel_setup).expect("it takes the list in");
            let begin = Instant::now();
            let answer = instance.pick(&Flow::default(), most);
            times.push(begin.elapsed().as_secs_f64() * 1e6);
            used = instance.fuel_used();
            outcome = answer.map_or_else(|fault| fault.reason().to_owned(), |slot| slot.to_string());
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        println!(
            "{name:<28} {median:>9.1} {:>9.1} {:>9.2}  {outcome}, {used} units",
            times[times.len() - 1],
            median * 1e3 / used.max(1) as f64
        );
    }
    faults(&host);
    calls(&host);
}

fn rows(instance: &mut Instance, count: usize) {
    instance.set_count(count).expect("a table of 256");
    for index in 0..count {
        let load = (index as u32).wrapping_mul(2_654_435_761) % 1000;
        let row = Row { weight: 1, active: load, total: load, flags: ROW_USABLE, last_weight: 1, health: 100, id: 1 };
        instance.write_row(index, &row);
    }
}

/// What the first pick of a fresh instance costs when it fails.
fn faults(host: &Host) {
    println!("\n{:<28} {:>9}", "fault", "median us");
    for (name, schedule, fuel) in [
        ("none", "", 1_000),
        ("unreachable", "unreachable", 1_000),
        ("beyond memory", "(drop (i32.load (i32.const 0x7fffffff)))", 1_000),
        ("division by zero", "(drop (i32.div_s (i32.const 1) (local.get $i)))", 1_000),
        ("1000 units used up", "(loop $l (br $l))", 1_000),
        ("10000 units used up", "(loop $l (br $l))", 10_000),
        ("all units used up", "(loop $l (br $l))", host.limits().fuel_most),
    ] {
        let bytes = wat::parse_str(plugin("", TWO, "", schedule)).expect("text");
        let module = host.load(&bytes, Grants::default()).expect("a plugin");
        let mut times = Vec::new();
        for _ in 0..300 {
            let mut instance = module.instantiate(1).expect("room");
            let begin = Instant::now();
            let _ = std::hint::black_box(instance.pick(&Flow::default(), fuel));
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        println!("{name:<28} {:>9.2}", times[times.len() / 2]);
    }
}

/// What calls cost that do not fail, and instances.
fn calls(host: &Host) {
    println!("\n{:<28} {:>9}", "call", "median ns");
    let empty = wat::parse_str(plugin("", TWO, "", "")).expect("text");
    let wlc = wat::parse_str(include_str!("../tests/modules/wlc.wat")).expect("text");
    for (name, bytes, count) in
        [("nothing", &empty, 4), ("wlc of 4", &wlc, 4), ("wlc of 16", &wlc, 16), ("wlc of 256", &wlc, 256)]
    {
        let module = host.load(bytes, Grants::default()).expect("a plugin");
        let mut instance = module.instantiate(1).expect("room");
        rows(&mut instance, count);
        let mut times = Vec::new();
        for _ in 0..100 {
            let begin = Instant::now();
            for _ in 0..1000 {
                let _ = std::hint::black_box(instance.pick(&Flow::default(), 50_000));
            }
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        println!("{name:<28} {:>9.1}   {} units", times[times.len() / 2], instance.fuel_used());
    }
    for (name, bytes) in [("load of wlc", &wlc), ("load of nothing", &empty)] {
        let begin = Instant::now();
        let module = host.load(bytes, Grants::default()).expect("a plugin");
        println!("{name:<28} {:>9.0}", begin.elapsed().as_secs_f64() * 1e9);
        let begin = Instant::now();
        let instances: Vec<Instance> = (0..100).map(|seed| module.instantiate(seed).expect("room")).collect();
        println!("{:<28} {:>9.0}", "an instance of it", begin.elapsed().as_secs_f64() * 1e7);
        drop(instances);
    }
}
