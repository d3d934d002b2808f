//! Traps of the reference that are the control side's: what its actions do to rules, connections and counts.
//! `docs/lvs-parity.md` has the whole list, with the test of each.
//!
//! Real engine, real connections, no root.

mod frames;
mod rules;

use xvs::control::protocol::{Action, Method, RefusalKind, ServerSpec, ServiceSpec, Timeouts};

use frames::{ACK, FIN, RST, SYN};
use rules::*;

const WEB: &str = "192.0.2.1:80";
const ONE: &str = "10.0.0.1:80";
const CLIENT: &str = "198.51.100.7:1000";

/// A service with one DR server.
fn web() -> Site {
    let mut site = Site::new(8);
    site.change(add_service(WEB));
    site.change(add(WEB, ONE, Method::Dr));
    site
}

/// The client sends a segment; gives the seconds that its connection is remembered for then.
fn remembered(site: &Site, flags: u8) -> u64 {
    let _ = site.forward(&frames::tcp(CLIENT, WEB, flags, b""));
    site.shared.table.iter().next().expect("a connection").expires_in(site.now).div_ceil(1000)
}

/// IPVS-REFERENCE 1.1 [T]: editing a service replaces all flags of its scheduler, those that are not named among them;
/// and the scheduler goes by the new ones at once.
#[test]
fn trap_an_edit_replaces_every_flag() {
    let mut site = web();
    let flags = |one, two| {
        let mut spec = ServiceSpec { scheduler: "sh".into(), ..service(WEB) };
        (spec.flags.one, spec.flags.two) = (one, two);
        Action::EditService(spec)
    };
    let in_force = |site: &Site| site.book.entry(&tcp(WEB)).expect("it").service.policy().flags;
    site.change(flags(true, false));
    assert_eq!(in_force(&site), 1);
    site.change(flags(false, true));
    assert_eq!(in_force(&site), 2, "not both");
    site.change(flags(false, false));
    assert_eq!(in_force(&site), 0);
}

/// IPVS-REFERENCE 3.4 [T]: the second number of `--set` is for FIN_WAIT alone, not for the other closing states; and a
/// connection takes a new value with its next packet.
#[test]
fn trap_tcpfin_is_for_fin_wait_alone() {
    let mut site = web();
    assert_eq!((remembered(&site, SYN), remembered(&site, ACK)), (60, 900));
    site.change(Action::SetTimeouts(Timeouts { tcp: 1800, tcpfin: 33, udp: 0 }));
    let conn = |site: &Site| site.shared.table.iter().next().expect("it").expires_in(site.now).div_ceil(1000);
    assert_eq!(conn(&site), 900, "nobody goes through the table");
    assert_eq!(remembered(&site, ACK), 1800);
    assert_eq!(remembered(&site, FIN | ACK), 33);
    assert_eq!(remembered(&site, RST), 10, "CLOSE");
    // SYN_RECV and a FIN are TIME_WAIT at once.
    assert_eq!((remembered(&site, SYN), remembered(&site, FIN)), (60, 120));
}

/// IPVS-REFERENCE 7.1 [T]: keepalived takes "it exists already" for success. So the refusal must change nothing: the
/// service stays as somebody else made it.
#[test]
fn trap_an_existing_service_is_left_as_it_is() {
    let mut site = web();
    let before = site.rules();
    let other = ServiceSpec { scheduler: "sh".into(), ..service(WEB) };
    assert_eq!(site.refused(Action::AddService(other)), RefusalKind::ServiceExists);
    let heavy = ServerSpec { weight: 9, ..server(ONE, Method::Nat) };
    assert_eq!(site.refused(Action::AddServer { service: tcp(WEB), server: heavy }), RefusalKind::ServerExists);
    assert_eq!(site.rules(), before);
}

/// IPVS-REFERENCE 1.5 [T]: the kernel's counters in listings are up to two seconds old. Cured: those here are of now, and
/// only the rates wait for the next sample.
#[test]
fn trap_counters_do_not_lag() {
    let mut site = web();
    let _ = site.connect(CLIENT, WEB);
    assert_eq!((site.stats(WEB).conns, site.stats(WEB).in_pps), (1, 0));
    site.book.sample();
    let _ = site.connect(CLIENT, WEB);
    assert_eq!(site.stats(WEB).in_packets, 2);
    assert_eq!(site.view(WEB).servers[0].stats.in_packets, 2);
}
