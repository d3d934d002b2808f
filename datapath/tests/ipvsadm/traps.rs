//! Traps of ipvsadm: where the real program differs from its manual page or from what one expects, and what its users'
//! scripts have come to rely on (IPVS-REFERENCE 6). `docs/lvs-parity.md` has the whole list.

use crate::model::Model;
use crate::names::Recorded;
use crate::recording::run;
use xvs::control::protocol::{Service, Stats};
use xvs::ipvsadm::{Command, Dialect, parse};

fn model(commands: &[&str]) -> Model {
    let mut model = Model::default();
    for command in commands {
        let outcome = run(&mut model, command, "");
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (0, ""), "{command}");
    }
    model
}

fn only(model: &mut Model) -> &mut Service {
    model.services.services.first_mut().expect("a service")
}

/// The servers' addresses in the director's own order.
fn order(model: &mut Model) -> Vec<String> {
    only(model).servers.iter().map(|server| server.spec.address.to_string()).collect()
}

/// IPVS-REFERENCE 1.2 [T]: saved rules are sorted by address, so a restore adds in that order and leaves the highest
/// address as the newest: ties and hash tables are other ones after it.
#[test]
fn trap_a_restore_turns_the_order_of_servers() {
    let mut model = model(&[
        "ipvsadm -A -t 192.0.2.1:80 -s rr",
        "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.2 -m",
        "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.3 -m",
        "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -m",
    ]);
    assert_eq!(order(&mut model), ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.2:80"], "newest first");
    let saved = run(&mut model, "ipvsadm-save -n", "").stdout;
    assert_eq!(run(&mut model, "ipvsadm-restore", &saved).exit, 0);
    assert_eq!(order(&mut model), ["10.0.0.3:80", "10.0.0.2:80", "10.0.0.1:80"]);
    assert_eq!(run(&mut model, "ipvsadm-save -n", "").stdout, saved, "and nobody sees it in saved rules");
    let unsorted = run(&mut model, "ipvsadm -Ln --nosort", "").stdout;
    let at = |address| unsorted.find(address).expect("a server");
    assert!(at("10.0.0.3:80") < at("10.0.0.2:80") && at("10.0.0.2:80") < at("10.0.0.1:80"), "{unsorted}");
}

/// IPVS-REFERENCE 6.1 [T]: without `--syncid` it is 0, whatever ipvsadm's help says; and 0 takes from any master.
#[test]
fn trap_syncid_is_0_by_default() {
    for role in ["master", "backup"] {
        let args = ["--start-daemon", role].map(str::to_owned);
        match parse(&args, Dialect::Ipvsadm, &Recorded) {
            Ok(Command::StartDaemon(daemon)) => assert_eq!(daemon.sync_id, 0),
            other => panic!("{other:?}"),
        }
    }
}

/// IPVS-REFERENCE 6.4 [T]: the listing of one service has no line with the version; of one that is not there it has
/// nothing, complains, and exits with 1.
#[test]
fn trap_one_service_is_listed_without_the_version() {
    let mut model = model(&["ipvsadm -A -t 192.0.2.1:80 -s rr", "ipvsadm -A -u 192.0.2.1:53"]);
    let all = run(&mut model, "ipvsadm -Ln", "").stdout;
    assert!(all.starts_with("IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port"), "{all}");
    let one = run(&mut model, "ipvsadm -Ln -t 192.0.2.1:80", "").stdout;
    assert!(one.starts_with("Prot LocalAddress:Port") && !one.contains("UDP"), "{one}");
    let none = run(&mut model, "ipvsadm -Ln -t 192.0.2.9:80", "");
    assert_eq!((none.exit, none.stdout.as_str(), none.stderr.is_empty()), (1, "", false));
}

/// IPVS-REFERENCE 6.4 [T]: in `--rate` a server's connections and packets are never shortened to K or M, though the
/// service's above it are, and so are the bytes of both.
#[test]
fn trap_a_servers_rates_are_not_shortened() {
    let mut model = model(&["ipvsadm -A -t 192.0.2.1:80 -s rr", "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -m"]);
    let big = 123_456_789;
    let stats = Stats { cps: big, in_pps: big, out_pps: big, in_bps: big, out_bps: big, ..Stats::default() };
    let service = only(&mut model);
    (service.stats, service.servers[0].stats) = (stats, stats);
    let listing = run(&mut model, "ipvsadm -Ln --rate", "").stdout;
    let lines: Vec<&str> = listing.lines().skip(3).collect();
    assert_eq!(lines[0], format!("{:<33}{}", "TCP  192.0.2.1:80", "  123456K".repeat(5)));
    let server = format!("  -> {:<28} 123456789 123456789 123456789  123456K  123456K", "10.0.0.1:80");
    assert_eq!(lines[1], server);
}

/// IPVS-REFERENCE 6.4 [T]: ipvsadm's library reads a server's counters as 32 bits, and they begin again at 4 294 967 296.
/// Cured: they go on.
#[test]
fn trap_a_servers_counters_do_not_wrap() {
    let mut model = model(&["ipvsadm -A -t 192.0.2.1:80 -s rr", "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -m"]);
    let big = (1 << 32) + 5;
    let service = only(&mut model);
    service.servers[0].stats =
        Stats { conns: big, in_packets: big, out_packets: big, in_bytes: big, out_bytes: big, ..Stats::default() };
    let listing = run(&mut model, "ipvsadm -Ln --stats --exact", "").stdout;
    assert!(listing.trim_end().ends_with(&" 4294967301".repeat(5)), "{listing}");
}

/// IPVS-REFERENCE 6.4 [T]: addresses are compared as signed numbers, so 192.168.x stands before 10.x.
#[test]
fn trap_192_168_is_listed_before_10() {
    let mut model = model(&["ipvsadm -A -t 10.0.0.1:80", "ipvsadm -A -t 192.168.0.1:80", "ipvsadm -A -t 9.0.0.1:80"]);
    let listing = run(&mut model, "ipvsadm -Ln", "").stdout;
    let addresses: Vec<&str> = listing.lines().skip(3).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(addresses, ["192.168.0.1:80", "9.0.0.1:80", "10.0.0.1:80"]);
}

/// IPVS-REFERENCE 6.5 [T]: saved rules have neither thresholds nor timeouts. (`xvsadm-save --thresholds` is ours.)
#[test]
fn trap_saved_rules_lose_thresholds_and_timeouts() {
    let mut model = model(&[
        "ipvsadm -A -t 192.0.2.1:80 -s rr",
        "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -m -x 100 -y 50",
        "ipvsadm --set 1800 60 30",
    ]);
    let saved = run(&mut model, "ipvsadm-save -n", "").stdout;
    assert_eq!(saved, "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1\n");
    assert_eq!(run(&mut model, "ipvsadm-restore", &saved).exit, 0);
    let spec = &only(&mut model).servers[0].spec;
    assert_eq!((spec.upper, spec.lower), (0, 0));
}

/// IPVS-REFERENCE 6.5 [T]: a restore goes on behind what the director refuses, and its exit status is that of the last
/// line; a mistake of usage ends it at once. Nothing is taken back.
#[test]
fn trap_a_restore_is_not_atomic() {
    let mut model = model(&["ipvsadm -A -t 192.0.2.1:80"]);
    let refused = "-A -t 192.0.2.1:80\n-A -t 192.0.2.2:80\n";
    let outcome = run(&mut model, "ipvsadm -R", refused);
    assert_eq!((outcome.exit, outcome.stderr.is_empty(), model.services.services.len()), (0, false, 2));
    let outcome = run(&mut model, "ipvsadm -R", "-A -t 192.0.2.3:80\n-A -t 192.0.2.3:80\n");
    assert_eq!((outcome.exit, model.services.services.len()), (255, 3), "the same refusal, on the last line");
    let outcome = run(&mut model, "ipvsadm -R", "-A -t 192.0.2.4:80\n-A -t 80\n-A -t 192.0.2.5:80\n");
    assert_eq!((outcome.exit, model.services.services.len()), (2, 4), "what stood before the mistake stays");
}

/// IPVS-REFERENCE 6.2 [T]: `-e` and `-E` are no partial edits. The classic: quiescing a NAT server with `-e -w 0` makes
/// it a DR server, and editing a service's scheduler ends its persistence.
#[test]
fn trap_an_edit_resets_what_it_does_not_name() {
    let mut model = model(&[
        "ipvsadm -A -t 192.0.2.1:80 -s sh -b sh-port -p 600 -M 255.255.255.0",
        "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -i --tun-type gre --tun-csum -w 7 -x 100 -y 50",
    ]);
    assert_eq!(run(&mut model, "ipvsadm -e -t 192.0.2.1:80 -r 10.0.0.1 -x 9", "").exit, 0);
    assert_eq!(run(&mut model, "ipvsadm -E -t 192.0.2.1:80", "").exit, 0);
    let plain =
        self::model(&["ipvsadm -A -t 192.0.2.1:80 -s wlc", "ipvsadm -a -t 192.0.2.1:80 -r 10.0.0.1 -g -w 1 -x 9 -y 0"]);
    assert_eq!(model.services.services, plain.services.services);
}

/// IPVS-REFERENCE 6.1 [T]: `-p` alone means 360 seconds; the manual page says 300.
#[test]
fn trap_persistence_is_360_seconds_by_default() {
    let mut model = model(&["ipvsadm -A -t 192.0.2.1:80 -p"]);
    let listing = run(&mut model, "ipvsadm -Ln", "").stdout;
    assert!(listing.ends_with("TCP  192.0.2.1:80 wlc persistent 360\n"), "{listing}");
}
