//! ipvsadm's grammar and output against recordings of the real program.

#[path = "ipvsadm/binary.rs"]
mod binary;
#[path = "ipvsadm/mistakes.rs"]
mod mistakes;
#[path = "ipvsadm/model.rs"]
mod model;
#[path = "ipvsadm/properties.rs"]
mod properties;
#[path = "ipvsadm/recording.rs"]
mod recording;

use model::Model;
use recording::{after, connections, play, printed, rows, run, traffic};

/// Guards every listing of an empty director, and `-v`.
#[test]
fn listings_of_nothing() {
    let mut model = Model::default();
    for row in rows("A-").iter().chain(&rows("Z-clear")) {
        play(&mut model, row, "");
    }
    let version = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
    assert_eq!(run(&mut model, "/sbin/ipvsadm -v", "").stdout, version);
    assert_eq!(run(&mut model, "xvsadm -v", "").stdout, {
        format!("xvsadm v{} (ipvsadm 1.31 grammar, IPVS v1.2.1)\n", env!("CARGO_PKG_VERSION"))
    });
}

/// Guards every listing of a large configuration: all modes, names, order, single services, save.
#[test]
fn listings_of_rules() {
    let mut model = after("configured");
    for row in rows("B-") {
        play(&mut model, &row, "");
    }
}

/// Guards listings with traffic: counters, rates, the connection table; then quiescing, deleting and re-adding a server
/// that has connections, then setting counters to zero.
#[test]
fn listings_of_traffic() {
    let mut model = after("traffic");
    traffic(&mut model);
    for row in rows("C") {
        // Seconds went by between the recordings.
        if row.command.contains("-Lnc") {
            model.connections = connections(&printed(&row.name));
        }
        play(&mut model, &row, "");
    }
}

/// Guards the exit status and the stream of every mistake that was recorded, and that mistakes change nothing.
#[test]
fn mistakes_as_recorded() {
    let mut model = after("configured");
    for row in rows("ERR-") {
        play(&mut model, &row, "");
    }
}

/// Guards save and restore: same rules again, a bad line ends a restore with everything before it in force.
#[test]
fn save_and_restore() {
    let mut model = after("configured");
    let rules = printed("B-config-Sn");
    run(&mut model, "ipvsadm -C", "");
    for row in rows("R-") {
        let stdin = match row.name.as_str() {
            "R-restore" => rules.clone(),
            "R-restore-bad" => "-A -t 192.0.2.60:80 -s rr\nnonsense here\n-A -t 192.0.2.61:80 -s rr\n".to_owned(),
            "R-ipvsadm-restore" => format!("# rules\n{rules}"),
            _ => String::new(),
        };
        play(&mut model, &row, &stdin);
    }
    assert_eq!(run(&mut model, "ipvsadm-save -n", "").stdout, rules, "the restore tool clears first");
}

/// Guards names in saved rules: they come back as the addresses that they stand for.
#[test]
fn restore_with_names() {
    let mut model = Model::default();
    assert_eq!(run(&mut model, "ipvsadm -R", &printed("B-config-S")).exit, 0);
    assert_eq!(run(&mut model, "ipvsadm -Sn", "").stdout, printed("B-config-Sn"));
}

/// Guards edits: what is not said becomes the default.
#[test]
fn edits() {
    let mut model = after("configured");
    for row in rows("edit-").iter().chain(&rows("delete-")).chain(&rows("set-")) {
        play(&mut model, row, "");
    }
}

/// Guards the commands for sync daemons: none runs, so none is listed, started or stopped.
#[test]
fn daemons() {
    let mut model = after("configured");
    for row in rows("D-") {
        play(&mut model, &row, "");
    }
    let stopped = run(&mut model, "ipvsadm --stop-daemon backup --syncid 3", "");
    assert_eq!((stopped.exit, stopped.stdout.as_str()), (255, ""));
}
