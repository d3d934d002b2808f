//! ipvsadm's grammar and output where no director is needed; whole sessions are judged in `judge.rs`.

#[path = "ipvsadm/binary.rs"]
mod binary;
#[path = "ipvsadm/mistakes.rs"]
mod mistakes;
#[path = "ipvsadm/model.rs"]
mod model;
#[path = "judges/names.rs"]
mod names;
#[path = "ipvsadm/properties.rs"]
mod properties;
#[path = "ipvsadm/recording.rs"]
mod recording;
#[path = "ipvsadm/traps.rs"]
mod traps;

use model::Model;
use recording::{printed, run};

/// Guards the answer of `-v` under both names.
#[test]
fn versions() {
    let mut model = Model::default();
    let version = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
    assert_eq!(run(&mut model, "/sbin/ipvsadm -v", "").stdout, version);
    assert_eq!(run(&mut model, "xvsadm -v", "").stdout, {
        format!("xvsadm v{} (ipvsadm 1.31 grammar, IPVS v1.2.1)\n", env!("CARGO_PKG_VERSION"))
    });
}

/// Guards names in saved rules: they come back as the addresses that they stand for.
#[test]
fn restore_with_names() {
    let mut model = Model::default();
    assert_eq!(run(&mut model, "ipvsadm -R", &printed("B-config-S")).exit, 0);
    assert_eq!(run(&mut model, "ipvsadm -Sn", "").stdout, printed("B-config-Sn"));
}

/// Guards the commands for sync daemons: none runs, so none is listed, started or stopped, and the words say why.
#[test]
fn daemons() {
    let mut model = Model::default();
    for line in ["-L --daemon", "-Ln --daemon"] {
        let listed = run(&mut model, &format!("ipvsadm {line}"), "");
        assert_eq!((listed.exit, listed.stdout.as_str(), listed.stderr.as_str()), (0, "", ""), "{line}");
    }
    for line in [
        "--start-daemon master --mcast-interface eth0 --syncid 1",
        "--start-daemon backup --sync-maxlen 600 --mcast-group ff02::88 --mcast-port 9999 --mcast-ttl 4",
        "--stop-daemon master",
        "--stop-daemon backup --syncid 3",
    ] {
        let outcome = run(&mut model, &format!("ipvsadm {line}"), "");
        assert_eq!((outcome.exit, outcome.stdout.as_str()), (255, ""), "{line}");
        assert!(outcome.stderr.contains("does not synchronise connections"), "{line}: {}", outcome.stderr);
    }
}
