//! `xvs tune` on a made-up machine: every verdict, and that changes can be put back whatever happens in between.

mod tuned;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use tuned::MadeUp;
use xvs::tune::TuneError;
use xvs::tune::device::{Counts, Pause, Sizes};

/// The entry of an item in what was told.
fn item<'v>(told: &'v Value, name: &str) -> &'v Value {
    let sections = told.as_array().expect("sections");
    let mut items = sections.iter().flat_map(|section| section["items"].as_array().expect("items"));
    items.find(|item| item["item"] == name).unwrap_or_else(|| panic!("no item {name}"))
}

/// Spoils everything that `--apply` can repair.
fn spoil(made: &MadeUp) {
    for name in ["e0", "e1"] {
        made.nic(name, |nic| {
            nic.channels.0 = Counts { combined: 16, ..Counts::default() };
            nic.table(16);
            nic.rings.0 = Sizes { receive: 512, transmit: 256 };
            nic.feature("rx-lro", true, true);
            nic.feature("rx-gro-hw", true, true);
            nic.pause = Pause { negotiated: true, receive: true, transmit: true };
            for mask in nic.hash.values_mut() {
                *mask = 1 << 4 | 1 << 5;
            }
        });
        made.file(&format!("/sys/class/net/{name}/queues/rx-1/rps_cpus"), "f");
        made.file(&format!("/sys/class/net/{name}/queues/tx-1/xps_cpus"), "0");
    }
    for irq in 41..=44 {
        made.file(&format!("/proc/irq/{irq}/smp_affinity_list"), "0-3");
    }
    made.file("/sys/class/net/e0/upper_e0.7/x", "");
    made.file("/sys/class/net/e0.7/uevent", "DEVTYPE=vlan\nINTERFACE=e0.7");
    made.file("/sys/devices/system/cpu/cpufreq/policy2/scaling_governor", "powersave");
}

/// Guards that a machine which is as it should be is told so, item by item, and left alone by --apply.
#[test]
fn nothing_to_say_about_a_good_machine() {
    let made = MadeUp::new();
    let before = made.snapshot();
    let (told, code) = made.told("e0 e1 --cpus 0-3");
    for section in told.as_array().expect("sections") {
        for item in section["items"].as_array().expect("items") {
            let verdict = item["verdict"].as_str().expect("a word");
            assert!(["good", "not-applicable"].contains(&verdict), "{item}");
        }
    }
    assert_eq!(code, 0);
    let outcome = made.tune("e0 e1 --apply --cpus 0-3").expect("applied");
    assert!(outcome.error.is_none() && outcome.text.contains("nothing to change"), "{}", outcome.text);
    assert_eq!(made.snapshot(), before);
    assert!(!made.state().exists(), "no state file of nothing");
}

/// A case: what is spoilt, by whom it is noticed, the verdict, and a piece of the command that cures it.
type Case = (&'static str, fn(&MadeUp), &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    ("", |made| made.nic("e0", |nic| nic.driver = "8139too"), "driver", "unknown", ""),
    ("", |made| made.file("/sys/class/net/e0/mtu", "9000"), "mtu", "harmful", "ip link set dev e0 mtu 1770"),
    ("", |made| made.file("/sys/class/net/e0/mtu", "3000"), "mtu", "harmful", "size = 4096"),
    (
        "",
        |made| {
            made.nic("e0", |nic| nic.channels.0.combined = 16);
        },
        "queues",
        "could-be-better",
        "ethtool -L e0 combined 4",
    ),
    ("--queues 32", |_| {}, "queues", "harmful", "queues = 16"),
    ("--queues 2", |_| {}, "rss-spread", "harmful", "ethtool -X e0 equal 2"),
    ("--queues 2", |made| made.refuse("spread", libc::EOPNOTSUPP), "rss-spread", "harmful", "ethtool -L e0"),
    ("", |made| made.refuse("spread", libc::EOPNOTSUPP), "rss-spread", "not-applicable", ""),
    ("", |made| made.nic("e0", |nic| nic.spread.table.truncate(127)), "rss-spread", "good", ""),
    ("", |made| made.nic("e0", |nic| nic.spread.table[5..].fill(0)), "rss-spread", "could-be-better", "equal 4"),
    (
        "",
        |made| made.nic("e0", |nic| nic.hash.extend([("udp4".to_owned(), 0x30)])),
        "rss-fields",
        "could-be-better",
        "rx-flow-hash udp4 sdfn",
    ),
    ("", |made| made.refuse("hash fields", libc::EOPNOTSUPP), "rss-fields", "not-applicable", ""),
    ("--symmetric", |_| {}, "rss-symmetry", "could-be-better", "xfrm symmetric-xor"),
    ("--symmetric", |made| made.nic("e0", |nic| nic.spread.transform = 1), "rss-symmetry", "good", ""),
    ("--symmetric", |made| made.nic("e0", |nic| nic.spread.key = [0x6d, 0x5a].repeat(20)), "rss-symmetry", "good", ""),
    ("", |made| made.nic("e0", |nic| nic.rules = 3), "ntuple", "could-be-better", "ethtool -n e0"),
    (
        "",
        |made| {
            made.nic("e0", |nic| {
                nic.driver = "virtio_net";
                nic.feature("rx-gro-hw", true, false);
            });
        },
        "gro-hw",
        "harmful",
        "guest_tso4=off",
    ),
    ("--vlans", |_| {}, "rx-vlan", "harmful", "ethtool -K e0 rx-vlan-hw-parse off"),
    (
        "",
        |made| made.nic("e0", |nic| nic.rings.0.receive = 512),
        "rings",
        "could-be-better",
        "ethtool -G e0 rx 2048 tx 2048",
    ),
    ("", |made| made.refuse("rings", libc::EOPNOTSUPP), "rings", "not-applicable", ""),
    ("", |made| made.refuse("rings", libc::EIO), "rings", "unknown", ""),
    ("", |made| made.nic("e0", |nic| nic.feature("rx-lro", true, true)), "lro", "harmful", "ethtool -K e0 rx-lro off"),
    ("", |made| made.nic("e0", |nic| nic.feature("rx-lro", true, false)), "lro", "harmful", ""),
    ("", |made| made.nic("e0", |nic| nic.feature("rx-gro-hw", true, true)), "gro-hw", "harmful", "rx-gro-hw off"),
    ("", |made| made.nic("e0", |nic| nic.feature("rx-gro-list", true, true)), "gro", "good", ""),
    (
        "",
        |made| {
            made.file("/sys/class/net/e0/upper_v/x", "");
            made.file("/sys/class/net/v/uevent", "DEVTYPE=vlan");
        },
        "rx-vlan",
        "harmful",
        "ethtool -K e0 rx-vlan-hw-parse off",
    ),
    (
        "",
        |made| {
            made.file("/sys/class/net/e0/upper_br/x", "");
            made.file("/sys/class/net/br/uevent", "DEVTYPE=bridge");
        },
        "rx-vlan",
        "good",
        "",
    ),
    (
        "",
        |made| made.nic("e0", |nic| nic.pause.transmit = true),
        "pause",
        "could-be-better",
        "ethtool -A e0 autoneg on rx off tx off",
    ),
    (
        "",
        |made| made.file("/proc/irq/43/smp_affinity_list", "0-3"),
        "interrupts",
        "could-be-better",
        "echo 2 > /proc/irq/43/smp_affinity_list",
    ),
    (
        "",
        |made| made.file("/proc/irq/43/smp_affinity_list", "1"),
        "interrupts",
        "could-be-better",
        "echo 2 > /proc/irq/43/smp_affinity_list",
    ),
    ("--cpus 3,2,1,0", |_| {}, "interrupts", "could-be-better", "echo 3 > /proc/irq/41/smp_affinity_list"),
    (
        "",
        |made| fs::remove_dir_all(made.place("/sys/class/net/e0/device")).expect("there"),
        "interrupts",
        "not-applicable",
        "",
    ),
    (
        "",
        |made| made.file("/sys/class/net/e0/queues/tx-2/xps_cpus", "0"),
        "xps",
        "could-be-better",
        "echo 4 > /sys/class/net/e0/queues/tx-2/xps_cpus",
    ),
    (
        "",
        |made| made.file("/sys/class/net/e0/queues/rx-2/rps_cpus", "f"),
        "rps",
        "could-be-better",
        "echo 0 > /sys/class/net/e0/queues/rx-2/rps_cpus",
    ),
    ("--busy-poll", |_| {}, "busy-poll", "could-be-better", "echo 200000 > /sys/class/net/e0/gro_flush_timeout"),
    ("", |made| made.file("/sys/class/net/e0/napi_defer_hard_irqs", "2"), "busy-poll", "good", ""),
    ("", |made| made.file("/sys/devices/system/node/node1/cpulist", ""), "numa", "could-be-better", "cpus = "),
    ("--cpus 0-3", |made| made.file("/sys/devices/system/node/node1/cpulist", ""), "numa", "good", ""),
    (
        "--cpus 0,4",
        |made| {
            made.file("/sys/devices/system/cpu/online", "0-4");
            made.file("/sys/devices/system/node/node1/cpulist", "");
        },
        "numa",
        "could-be-better",
        "out of 0-3",
    ),
    ("", |made| made.file("/proc/sys/kernel/osrelease", "5.10.0-28-amd64"), "kernel", "could-be-better", ""),
    (
        "",
        |made| made.file("/proc/77/comm", "irqbalance"),
        "irqbalance",
        "could-be-better",
        "systemctl disable --now irqbalance",
    ),
    (
        "",
        |made| made.file("/proc/meminfo", "HugePages_Total: 20\nHugePages_Free: 3\nHugepagesize: 2048 kB"),
        "huge-pages",
        "good",
        "",
    ),
    (
        "",
        |made| {
            made.file("/proc/meminfo", "HugePages_Total: 5\nHugePages_Free: 3\nHugepagesize: 2048 kB");
            made.file("/proc/sys/vm/nr_hugepages", "5");
        },
        "huge-pages",
        "could-be-better",
        "echo 18 > /proc/sys/vm/nr_hugepages",
    ),
    (
        "",
        |made| made.file("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]"),
        "transparent-huge-pages",
        "could-be-better",
        "echo madvise >",
    ),
    (
        "",
        |made| made.file("/proc/self/limits", "Max locked memory  8388608  8388608 bytes"),
        "memlock",
        "could-be-better",
        "LimitMEMLOCK",
    ),
    (
        "",
        |made| made.file("/sys/devices/system/cpu/cpufreq/policy1/scaling_governor", "powersave"),
        "governor",
        "could-be-better",
        "echo performance > /sys/devices/system/cpu/cpufreq/policy1/",
    ),
    (
        "",
        |made| made.file("/sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "133"),
        "idle-states",
        "could-be-better",
        "cpupower idle-set -D 50",
    ),
    ("", |made| made.file("/sys/devices/system/cpu/smt/active", "1"), "smt", "could-be-better", "out of 0,2"),
];

/// Guards each verdict: what spoils an item is noticed by that item, with a command that cures it.
#[test]
fn each_item_notices_what_it_is_about() {
    for (number, (words, spoil, name, verdict, cure)) in CASES.iter().enumerate() {
        let made = MadeUp::new();
        spoil(&made);
        let before = made.snapshot();
        let (told, code) = made.told(&format!("e0 {words}"));
        let found = item(&told, name);
        assert_eq!(found["verdict"], *verdict, "case {number}, {name}: {found}");
        assert!(found["by_hand"].to_string().contains(cure), "case {number}, {name}: no {cure:?} in {found}");
        let harmful = told.to_string().contains(r#""verdict":"harmful""#);
        assert_eq!(code, u8::from(harmful), "case {number}: {told}");
        assert_eq!(made.snapshot(), before, "case {number}: a check changes nothing");
        assert!(made.nics.orders.borrow().is_empty() && !made.state().exists());
    }
}

/// Guards the round trip: what could be better is repaired, a second time there is nothing to do, and everything is put
/// back in the opposite order.
#[test]
fn applied_and_put_back() {
    let made = MadeUp::new();
    spoil(&made);
    let before = made.snapshot();
    let outcome = made.tune("e0 e1 --apply").expect("applied");
    assert!(outcome.error.is_none(), "{:?}\n{}", outcome.error, outcome.text);
    assert!(outcome.text.contains("changed: rings: rx 512 tx 256 -> rx 2048 tx 2048"), "{}", outcome.text);
    let (told, code) = made.told("e0 e1");
    assert_eq!(code, 0, "{told}");
    for name in ["queues", "rings", "lro", "gro-hw", "rss-fields", "pause", "interrupts", "xps", "rps", "governor"] {
        assert_eq!(item(&told, name)["verdict"], "good", "{name}");
    }
    let again = made.tune("e0 e1 --apply").expect("applied");
    assert!(again.text.contains("nothing to change"), "{}", again.text);

    let orders: Vec<String> = made.nics.orders.borrow_mut().drain(..).collect();
    let outcome = made.tune("--restore").expect("put back");
    assert!(outcome.error.is_none(), "{:?}\n{}", outcome.error, outcome.text);
    assert_eq!(made.snapshot(), before);
    let backwards: Vec<String> = made.nics.orders.borrow().iter().rev().cloned().collect();
    assert_eq!(backwards, orders, "the last change goes first");
    assert!(!made.state().exists(), "nothing is left to put back");
    let again = made.tune("--restore").expect("nothing to do");
    assert!(
        again.error.is_none() && again.text.starts_with("nothing to put back: no change is noted in /"),
        "{}",
        again.text
    );
}

/// Guards a crash before and after every single order: the state file tells enough to put everything back.
#[test]
fn put_back_after_a_crash_anywhere() {
    for life in 0.. {
        let made = MadeUp::new();
        spoil(&made);
        let before = made.snapshot();
        *made.nics.life.borrow_mut() = Some(life);
        let died = catch_unwind(AssertUnwindSafe(|| made.tune("e0 e1 --apply"))).is_err();
        *made.nics.life.borrow_mut() = None;
        let outcome = made.tune("--restore").expect("put back");
        assert!(outcome.error.is_none(), "after {life} orders: {:?}\n{}", outcome.error, outcome.text);
        assert_eq!(made.snapshot(), before, "after {life} orders");
        assert!(!made.state().exists());
        if !died {
            assert!(life > 15, "it died often enough to prove something");
            return;
        }
    }
}

/// Guards that the work of others is not undone: a value that changed meanwhile and a device of the same name are told,
/// left alone and forgotten.
#[test]
fn what_others_changed_is_left_alone() {
    let made = MadeUp::new();
    spoil(&made);
    made.tune("e0 e1 --apply --only rings,lro,pause").expect("applied");
    made.nic("e0", |nic| nic.rings.0.receive = 4096);
    made.nic("e1", |nic| nic.index = 99);
    let (told, code) = made.told("--restore");
    assert_eq!(code, 1);
    let fates: Vec<(String, String)> = told
        .as_array()
        .expect("changes")
        .iter()
        .map(|one| (one["item"].to_string() + &one["interface"].to_string(), one["fate"]["outcome"].to_string()))
        .collect();
    let expected = [
        (r#""pause""e1""#, r#""gone""#),
        (r#""lro""e1""#, r#""gone""#),
        (r#""rings""e1""#, r#""gone""#),
        (r#""pause""e0""#, r#""restored""#),
        (r#""lro""e0""#, r#""restored""#),
        (r#""rings""e0""#, r#""changed-meanwhile""#),
    ];
    assert_eq!(fates, expected.map(|(item, fate)| (item.to_owned(), fate.to_owned())));
    assert_eq!(made.nics.all.borrow()["e0"].rings.0.receive, 4096);
    assert_eq!(made.nics.all.borrow()["e1"].rings.0.receive, 2048);
    assert!(!made.state().exists());
}

/// Guards that a driver which refuses, or bends a value, is told and stops nothing else, and that bent values go back.
#[test]
fn drivers_that_refuse_or_round() {
    let made = MadeUp::new();
    spoil(&made);
    let before = made.snapshot();
    made.refuse("set pause", libc::EOPNOTSUPP);
    made.refuse("set feature", libc::EBUSY);
    made.nic("e0", |nic| nic.ring_step = 40);
    let outcome = made.tune("e0 --apply").expect("applied");
    let error = outcome.error.expect("not all could be changed");
    assert_eq!(error.exit_code(), 1);
    assert!(matches!(error, TuneError::NotApplied { failed: 4, harmful: 3, .. }), "{error}");
    for line in [
        "NOT CHANGED: pause: the driver does not support it",
        "NOT CHANGED: rx-lro: the device is busy",
        "changed: rings: rx 512 tx 256 -> rx 2040 tx 2040 (asked for rx 2048 tx 2048)",
        "changed: rx-flow-hash udp4: sd -> sdfn",
    ] {
        assert!(outcome.text.contains(line), "{line:?} is not in\n{}", outcome.text);
    }
    made.nic("e0", |nic| nic.ring_step = 1);
    let outcome = made.tune("--restore").expect("put back");
    assert!(outcome.error.is_none(), "{}", outcome.text);
    assert_eq!(made.snapshot(), before);
}

/// Guards a second try: what could not be put back is still there to be put back.
#[test]
fn a_failed_restore_can_be_repeated() {
    let made = MadeUp::new();
    spoil(&made);
    let before = made.snapshot();
    made.tune("e0 --apply --only rings,lro").expect("applied");
    made.refuse("set feature", libc::EPERM);
    let outcome = made.tune("--restore").expect("tried");
    assert_eq!(outcome.error.expect("one is left").exit_code(), 4);
    assert!(outcome.text.contains("NOT PUT BACK: not permitted"), "{}", outcome.text);
    made.nics.refused.borrow_mut().clear();
    assert!(made.tune("--restore").expect("put back").error.is_none());
    assert_eq!(made.snapshot(), before);
}

/// Guards that the machine's own settings stay while an interface still is as `--apply` left it.
#[test]
fn the_machine_goes_back_with_the_last_interface() {
    let made = MadeUp::new();
    spoil(&made);
    let before = made.snapshot();
    made.tune("e0 e1 --apply").expect("applied");
    let governor = "/sys/devices/system/cpu/cpufreq/policy2/scaling_governor";
    assert!(made.tune("--restore e0").expect("put back").error.is_none());
    assert_eq!((made.text(governor).as_str(), made.nics.all.borrow()["e1"].rings.0.receive), ("performance", 2048));
    assert_eq!(made.nics.all.borrow()["e0"], before.0["e0"]);
    assert!(made.tune("--restore e1").expect("put back").error.is_none());
    assert_eq!(made.snapshot(), before);
}

/// Guards that an interface which is not there is told, with its own exit code, and the others are looked at.
#[test]
fn an_interface_that_is_not_there() {
    let made = MadeUp::new();
    let outcome = made.tune("e0 nic7 e0 --only lro").expect("looked");
    assert_eq!(outcome.error.expect("one is missing").exit_code(), 5);
    assert!(outcome.text.contains(r#"there is no interface "nic7""#), "{}", outcome.text);
    assert_eq!(outcome.text.matches("lro").count(), 1, "once, though e0 was named twice:\n{}", outcome.text);
}

/// Guards the choice of items: what was not chosen is neither told nor changed.
#[test]
fn only_and_skip() {
    let made = MadeUp::new();
    spoil(&made);
    let (told, _) = made.told("e0 --apply --only lro,pause --skip pause");
    assert_eq!(told.as_array().map(Vec::len), Some(1), "no section without items: {told}");
    assert_eq!(told[0]["items"].as_array().map(Vec::len), Some(1), "{told}");
    let nics = made.nics.all.borrow();
    assert!(!nics["e0"].features["rx-lro"].active && nics["e0"].pause.receive);
}

/// Guards that interrupts are left alone while a daemon would move them again.
#[test]
fn irqbalance_is_not_fought() {
    let made = MadeUp::new();
    spoil(&made);
    made.file("/proc/77/comm", "irqbalance");
    let (told, _) = made.told("e0 --apply");
    assert!(item(&told, "interrupts")["by_hand"].to_string().contains("systemctl stop irqbalance"), "{told}");
    assert_eq!(made.text("/proc/irq/41/smp_affinity_list"), "0-3");
}

/// Guards that /sys of another network namespace is not taken for this one's: a file there is another device's.
#[test]
fn sysfs_of_another_namespace() {
    let made = MadeUp::new();
    spoil(&made);
    made.file("/sys/class/net/e0/ifindex", "1234");
    let (told, _) = made.told("e0 --apply");
    for name in ["interrupts", "xps", "rps", "mtu", "busy-poll"] {
        let item = item(&told, name);
        assert_eq!(item["verdict"], "unknown", "{item}");
        assert!(item["now"].to_string().contains("another network namespace"), "{item}");
    }
    assert_eq!(made.text("/sys/class/net/e0/queues/rx-1/rps_cpus"), "f");
}

/// Guards a configuration as the source of interfaces and wishes, and the command line's precedence.
#[test]
fn wishes_of_a_configuration() {
    let made = MadeUp::new();
    let file = made.root.join("site.toml");
    let text = "[director]\ncpus = [2, 3]\n[frames]\nsize = 4096\nbusy_poll = true\n\
                [[interface]]\nname = \"e0\"\nqueues = 2\n[[interface]]\nname = \"e1\"\nqueues = 2\n";
    fs::write(&file, text).expect("written");
    let (told, code) = made.told(&format!("--config {}", file.display()));
    assert_eq!((told[0]["interface"].as_str(), told[1]["interface"].as_str()), (Some("e0"), Some("e1")));
    assert_eq!(code, 1, "the table leads to queues that are not served");
    assert!(item(&told, "queues")["by_hand"].to_string().contains("combined 2"), "{told}");
    assert!(item(&told, "mtu")["right"].to_string().contains("3818"), "{told}");
    assert_eq!(item(&told, "busy-poll")["verdict"], "could-be-better");
    let (told, code) = made.told(&format!("e1 --queues 4 --config {}", file.display()));
    assert_eq!((told[0]["interface"].as_str(), code), (Some("e1"), 0));
    fs::write(&file, "[director]\ncpu = 1\n").expect("written");
    let error = made.tune(&format!("--config {}", file.display())).expect_err("an unknown key");
    assert_eq!(error.exit_code(), 2);
}

fn xvs(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xvs")).args(words).stdin(Stdio::null()).output().expect("the program runs")
}

/// Guards what a person sees who mistypes: one line that names what would be right, and an exit code.
#[test]
fn slips_at_the_keyboard() {
    let made = MadeUp::new();
    let other = made.root.join("other");
    fs::write(&other, "not ours\n").expect("written");
    let other = other.to_string_lossy();
    for (words, code, line) in [
        (&["tune"][..], 64, "IFACE"),
        (&["tune", "lo", "--only", "ringss"], 64, "rings"),
        (&["tune", "lo", "--apply", "--restore"], 64, "--restore"),
        (&["tune", "lo", "--check", "--apply"], 64, "--apply"),
        (&["tune", "lo", "--cpus", "3-1"], 64, "0-3,8"),
        (&["tune", "lo", "--cpus", "0,1023"], 2, "no CPU 1023 runs here"),
        (&["tune", "lo", "--queues", "0"], 64, "1..=1024"),
        (&["tune", "--config", "/nonexistent.toml"], 3, "/nonexistent.toml"),
        (&["tune", "a-name-that-is-too-long-for-linux", "--only", "lro"], 5, "ip -br link"),
        (&["tune", "lo", "--restore", "--state", &other], 11, "is no line of a state file"),
    ] {
        let output = xvs(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.starts_with("xvs: ") && said.contains(line) && said.lines().count() == 1, "{words:?}: {said}");
    }
}

/// Guards a user without rights: looking works, changing says what it needs. (As root only can one become nobody.)
#[test]
fn without_root() {
    if !nix::unistd::geteuid().is_root() {
        assert_ne!(std::env::var("XVS_CI").as_deref(), Ok("1"), "this test needs root");
        eprintln!("SKIPPED: becoming another user needs root.");
        return;
    }
    // The program's own directory may be closed to others.
    let copy = std::env::temp_dir().join(format!("xvs-tune-nobody-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_xvs"), &copy).expect("copied");
    let nobody = |words: &[&str]| {
        use std::os::unix::process::CommandExt;
        Command::new(&copy).args(words).uid(65534).gid(65534).output().expect("the program runs")
    };
    let looked = nobody(&["tune", "lo", "--only", "lro,gro,mtu,busy-poll"]);
    let changed = nobody(&["tune", "lo", "--apply", "--state", "/run/xvs-nobody/state"]);
    fs::remove_file(&copy).expect("there");
    assert_eq!(looked.status.code().map(|code| code > 1), Some(false), "{looked:?}");
    assert!(String::from_utf8_lossy(&looked.stdout).contains("busy-poll"), "{looked:?}");
    assert_eq!(changed.status.code(), Some(4), "{changed:?}");
}
