//! `faulty` does the wrongs that it says, so that a test of the director against it means something.

use wasmtime::Trap;
use xvs_sdk::abi::{Flow, ROW_QUIESCED, ROW_USABLE, Row};

use crate::plain::Plain;

/// More than the director ever gives.
const FUEL: u64 = 200_000;

/// An instance with three servers, of which the first is quiesced.
fn faulty(options: &str) -> Plain {
    let mut plain = Plain::new("faulty");
    plain.configure(options).unwrap();
    plain.set_count(3);
    plain.set_row(0, &Row { flags: ROW_QUIESCED, ..Row::default() });
    (1..3).for_each(|index| plain.set_row(index, &Row { weight: 1, flags: ROW_USABLE, ..Row::default() }));
    assert_eq!(plain.changed(0, 0), 0);
    plain
}

fn pick(plain: &mut Plain, client_port: u16) -> Result<i32, Trap> {
    let answer = plain.pick(&Flow { client_port, ..Flow::default() }, FUEL);
    answer.map_err(|error| error.downcast::<Trap>().unwrap())
}

/// Without a mode it serves, so that a test can put it in service first.
#[test]
fn it_can_behave() {
    assert_eq!(pick(&mut faulty(""), 4001), Ok(1));
    assert_eq!(pick(&mut faulty("mode=well"), 4001), Ok(1));
}

/// Each mode of a pick ends as its comment says.
#[test]
fn each_mode_does_its_wrong() {
    let expected: [(&str, Result<i32, Trap>); 16] = [
        ("spin", Err(Trap::OutOfFuel)),
        ("trap", Err(Trap::UnreachableCodeReached)),
        ("divide", Err(Trap::IntegerDivisionByZero)),
        ("overflow", Err(Trap::MemoryOutOfBounds)),
        ("outside", Err(Trap::MemoryOutOfBounds)),
        ("scribble", Err(Trap::MemoryOutOfBounds)),
        ("indirect", Err(Trap::TableOutOfBounds)),
        ("nonsense", Ok(1_000_000)),
        ("just-beyond", Ok(3)),
        ("negative", Ok(-77)),
        ("nobody", Ok(-1)),
        ("fallback", Ok(-2)),
        ("unusable", Ok(0)),
        ("corrupt-rows", Ok(2)),
        ("corrupt-head", Ok(0)),
        ("corrupt-flow", Ok(0)),
    ];
    for (mode, end) in expected {
        assert_eq!(pick(&mut faulty(&format!("mode={mode}")), 40_000), end, "{mode}");
    }
    let mut recursing = Plain::new("faulty");
    recursing.configure("mode=recurse").unwrap();
    let deep = recursing.pick(&Flow::default(), u64::MAX).unwrap_err().downcast::<Trap>().unwrap();
    assert_eq!(deep, Trap::StackOverflow);
}

/// Memory grows by a page a pick, or by all there is.
#[test]
fn memory_grows() {
    let mut growing = faulty("mode=grow");
    let before = growing.memory_bytes();
    (0..3).for_each(|_| assert_eq!(pick(&mut growing, 1), Ok(1)));
    assert_eq!(growing.memory_bytes(), before + 3 * 65_536);
}

/// It spends more and more, until a budget is not enough.
#[test]
fn it_slows_down() {
    let mut slow = faulty("mode=slow");
    assert_eq!(pick(&mut slow, 1), Ok(1));
    let first = FUEL - slow.fuel_left();
    assert_eq!(pick(&mut slow, 1), Ok(1));
    assert!(FUEL - slow.fuel_left() > first + 300);
    assert!((0..1000).any(|_| pick(&mut slow, 1) == Err(Trap::OutOfFuel)));
}

/// The moment of the wrong can be chosen: after so many picks, or by the flow's port.
#[test]
fn the_moment_can_be_chosen() {
    let mut later = faulty("after=2\nmode=trap");
    let ends: Vec<_> = (0..3).map(|_| pick(&mut later, 1)).collect();
    assert_eq!(ends, [Ok(1), Ok(1), Err(Trap::UnreachableCodeReached)]);
    let mut by_port = faulty("when=port");
    assert_eq!([4000, 4011, 4014, 50_000].map(|port| pick(&mut by_port, port)), [Ok(1), Ok(1_000_000), Ok(-1), Ok(1)]);
}

/// Options that it does not know, and the mode that refuses, leave a sentence.
#[test]
fn options_are_refused_with_a_sentence() {
    let refused = |options: &str| Plain::new("faulty").configure(options).unwrap_err();
    assert!(refused("mode=none").contains("none of those"));
    assert!(refused("mode=setup-refuse").contains("as it was told to"));
    assert!(refused("when=never").contains("`always` or `port`"));
    assert!(refused("after=x").contains("a number of picks"));
}

/// Setting up, changes, and state have their own wrongs.
#[test]
fn the_other_exports_misbehave() {
    let mut changing = Plain::new("faulty");
    changing.configure("mode=change-rebuild").unwrap();
    assert_eq!(changing.changed(0, 0), 1);
    let mut lying = faulty("mode=state-lie");
    assert!(lying.ask("xvs_state") > 0);
    assert_eq!(lying.ask("xvs_state_save"), 4097);
    assert!(faulty("mode=state-trap").try_ask("xvs_state_save").is_err());
    assert_eq!(faulty("").ask("xvs_state_save"), 4);
}

/// `faulty-time` picks by what it is lent, and floods the log.
#[test]
fn time_and_chance_decide() {
    let mut plain = Plain::new("faulty-time");
    plain.set_count(7);
    (plain.lent().now, plain.lent().random) = (20, 3);
    assert_eq!(plain.pick(&Flow::default(), FUEL).unwrap(), (20 ^ 3) % 7);
    assert_eq!(plain.lent().log, ["faulty-time was asked"]);
}
