//! Timeouts by state, of the director and of services: what connections do with them, and the command that sets them.
//!
//! Real engine, real program over a real socket, no root.

mod frames;
mod rules;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};

use crossbeam_channel::unbounded;
use serde_json::Value;
use xvs::control::protocol::{Action, Answer, ByState, Method, Outcome, RefusalKind, ServiceId};
use xvs::control::socket::{Call, Listening, listen};

use rules::*;

const WEB: &str = "192.0.2.1:80";
const MAIL: &str = "192.0.2.1:25";
const ONE: &str = "10.0.0.1:80";

fn set(service: Option<ServiceId>, timeouts: &[(&str, u32)], replace: bool) -> Action {
    let timeouts = timeouts.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect();
    Action::SetStateTimeouts { service, timeouts, replace }
}

/// Two services with a server each.
fn site() -> Site {
    let mut site = Site::new(16);
    for (service, server) in [(WEB, ONE), (MAIL, "10.0.0.1:25")] {
        site.change(add_service(service));
        site.change(add(service, server, Method::Dr));
    }
    site
}

/// Seconds that the connection of this client's port is remembered.
fn remembered(site: &Site, client: &str) -> u64 {
    let client: std::net::SocketAddr = client.parse().expect("an address");
    let conn = site.shared.table.iter().find(|conn| std::net::SocketAddr::from(conn.client()) == client);
    conn.expect("its connection").expires_in(site.now).div_ceil(1000)
}

fn timeout(site: &Site, id: Option<&ServiceId>, state: &str) -> (u32, bool) {
    let sets = site.book.timeouts(id).expect("it is there");
    let timeout = sets[0].timeouts.iter().find(|timeout| timeout.state == state).expect("a state");
    (timeout.seconds, timeout.own)
}

/// Guards the point of it: a service's connections are remembered as long as it says, those of others as long as the
/// director says, from their next packet on.
#[test]
fn a_service_has_timeouts_of_its_own() {
    let mut site = site();
    site.change(set(Some(tcp(WEB)), &[("syn_recv", 7)], false));
    let _ = site.connect("198.51.100.7:1", WEB);
    let _ = site.connect("198.51.100.7:2", MAIL);
    assert_eq!((remembered(&site, "198.51.100.7:1"), remembered(&site, "198.51.100.7:2")), (7, 60));
    site.change(set(None, &[("syn_recv", 20)], false));
    let _ = site.connect("198.51.100.7:1", WEB);
    let _ = site.connect("198.51.100.7:2", MAIL);
    assert_eq!((remembered(&site, "198.51.100.7:1"), remembered(&site, "198.51.100.7:2")), (7, 20));
    site.change(set(Some(tcp(WEB)), &[("syn_recv", 0)], false));
    let _ = site.connect("198.51.100.7:1", WEB);
    let _ = site.connect("198.51.100.7:3", WEB);
    assert_eq!(remembered(&site, "198.51.100.7:1"), 20, "taken back: the director's, for old connections, too");
    assert_eq!(remembered(&site, "198.51.100.7:3"), 20);
}

/// Guards edits: ipvsadm's `-E` knows nothing of timeouts and leaves them; a service that is deleted and made anew begins
/// without.
#[test]
fn an_edit_keeps_them_and_a_new_service_has_none() {
    let mut site = site();
    let id = tcp(WEB);
    site.change(set(Some(id), &[("established", 60), ("udp", 5)], false));
    site.change(set(Some(id), &[("udp", 0), ("close", 1)], false));
    let own = ByState::from([("close".to_owned(), 1), ("established".to_owned(), 60)]);
    assert_eq!(site.view(WEB).timeouts, own, "by name, and 0 takes one back");
    site.change(Action::EditService(service(WEB)));
    let _ = site.connect("198.51.100.7:1", WEB);
    assert_eq!((timeout(&site, Some(&id), "established"), site.view(WEB).timeouts), ((60, true), own));
    site.change(set(Some(id), &[("tcpfin", 9)], true));
    assert_eq!(timeout(&site, Some(&id), "established"), (900, false));
    assert_eq!(timeout(&site, Some(&id), "fin_wait"), (9, true));
    site.change(delete_service(WEB));
    site.change(add_service(WEB));
    assert_eq!(timeout(&site, Some(&id), "fin_wait"), (120, false));
}

/// Guards the engine's sets: there are 127 to lend, the next service is refused with nothing changed, and a set that came
/// back is lent again, clean.
#[test]
fn sets_are_lent_and_come_back() {
    let mut site = Site::new(4);
    let name = |number: u16| format!("192.0.2.1:{number}");
    for number in 1..=128 {
        site.change(add_service(&name(number)));
    }
    for number in 1..=127 {
        site.change(set(Some(tcp(&name(number))), &[("established", number.into())], false));
    }
    let last = tcp(&name(128));
    assert_eq!(site.refused(set(Some(last), &[("close", 1)], false)), RefusalKind::Limit);
    assert_eq!(timeout(&site, Some(&last), "close"), (10, false));
    assert!((1..=127).all(|number| timeout(&site, Some(&tcp(&name(number))), "established") == (number.into(), true)));
    site.change(delete_service(&name(5)));
    site.change(set(Some(last), &[("close", 1)], false));
    assert_eq!(timeout(&site, Some(&last), "close"), (1, true));
    assert_eq!(timeout(&site, Some(&last), "established"), (900, false), "nothing is left of the one before");
    site.change(set(Some(tcp(&name(6))), &[], true));
    assert_eq!(site.book.timeouts(None).expect("all").len(), 1 + 126);
}

/// Guards all or nothing, for one action and for a plan.
#[test]
fn what_is_refused_changes_nothing() {
    let mut site = site();
    let id = tcp(WEB);
    let wrong = set(Some(id), &[("established", 1), ("estaplished", 1), ("udp", 2_678_401)], false);
    let refusal = site.try_change(wrong).expect_err("it is wrong");
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    assert!(
        refusal.message.contains("did you mean \"established\"?") && refusal.message.contains("2678401"),
        "{refusal:?}"
    );
    assert_eq!(site.refused(set(None, &[("tcp", 1), ("established", 2)], false)), RefusalKind::Invalid);
    assert_eq!(site.refused(set(Some(tcp("192.0.2.9:1")), &[("tcp", 1)], false)), RefusalKind::NoSuchService);
    site.change(set(None, &[("last_ack", 5)], false));
    site.change(set(Some(id), &[("close", 3)], false));
    let plan = vec![
        set(None, &[("established", 77), ("last_ack", 6)], false),
        set(Some(id), &[("established", 78)], true),
        add_service(WEB),
    ];
    assert_eq!(site.change_all(plan).expect_err("it is there already").kind, RefusalKind::ServiceExists);
    assert_eq!(timeout(&site, None, "established"), (900, false));
    assert_eq!(timeout(&site, None, "last_ack"), (5, true));
    assert_eq!(
        (timeout(&site, Some(&id), "established"), timeout(&site, Some(&id), "close")),
        ((900, false), (3, true))
    );
}

/// Guards `--set` of ipvsadm: it sets three of the states, and 0 keeps one.
#[test]
fn ipvsadm_sets_three_of_them() {
    let mut site = site();
    let timeouts = xvs::control::protocol::Timeouts { tcp: 100, tcpfin: 0, udp: 30 };
    site.change(Action::SetTimeouts(timeouts));
    let named = ["established", "fin_wait", "udp"].map(|state| timeout(&site, None, state));
    assert_eq!(named, [(100, true), (120, false), (30, true)]);
    site.change(set(None, &[("tcp", 0)], false));
    assert_eq!(timeout(&site, None, "established"), (900, false), "0 is IPVS's again");
}

/// Guards the director's timeouts: they are nobody's, and a service that is deleted does not take them with it.
#[test]
fn a_deleted_service_leaves_the_directors_alone() {
    let mut site = site();
    site.change(set(None, &[("udp", 1)], false));
    site.change(Action::DeleteService(tcp(MAIL)));
    assert_eq!(timeout(&site, None, "udp"), (1, true));
    site.change(set(Some(tcp(WEB)), &[("udp", 7)], false));
    site.change(Action::DeleteService(tcp(WEB)));
    assert_eq!(timeout(&site, None, "udp"), (1, true));
}

/// A director without a datapath that knows timeouts.
struct Director {
    path: PathBuf,
    listening: Option<Listening>,
    thread: Option<JoinHandle<()>>,
}

impl Director {
    fn start() -> Director {
        let path = std::env::temp_dir().join(format!("xvs-timeouts-{}", std::process::id())).join("d/xvs.sock");
        let (calls, inlet) = unbounded::<Call>();
        let listening = Some(listen(&path, calls).expect("a socket"));
        let thread = thread::spawn(move || {
            let mut site = site();
            for Call { action, reply, .. } in inlet {
                let outcome = match action {
                    Action::StateTimeouts(id) => site.book.timeouts(id.as_ref()).map(Answer::StateTimeouts),
                    change => site.try_change(change).map(|()| Answer::Done),
                };
                let _ = reply.send(outcome.map_or_else(Outcome::Refused, Outcome::Ok));
            }
        });
        Director { path, listening, thread: Some(thread) }
    }

    /// Exit code, standard output, standard error.
    fn ask(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
        let output = command.arg("timeouts").args(words).env("XVS_SOCKET", &self.path).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code().expect("it ended"), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        drop(self.listening.take());
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = self.path.ancestors().nth(2).map(fs::remove_dir_all);
    }
}

/// Guards the command: the director's in whole, services with what is their own, one service in whole; what was set is
/// marked; mistakes are one line with the README's exit codes.
#[test]
fn the_command_tells_and_sets() {
    let director = Director::start();
    let (code, text, stderr) = director.ask(&["--set", "tcp=1800,close_wait=10", "--set", "udp=30"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(text.lines().next(), Some("director:"));
    for line in
        ["  established           1800 s  set", "  close_wait              10 s  set", "  syn_recv                60 s"]
    {
        assert_eq!(text.lines().filter(|told| *told == line).count(), 1, "{line:?} in\n{text}");
    }
    let (code, text, _) = director.ask(&["tcp", WEB, "--set", "established=60"]);
    assert_eq!((code, text.lines().next()), (0, Some("tcp 192.0.2.1:80:")));
    assert!(text.contains("\n  established             60 s  its own\n"), "{text}");
    assert!(text.contains("\n  close_wait              10 s\n"), "the director's are in force: {text}");
    let (_, text, _) = director.ask(&[]);
    assert!(text.ends_with("\ntcp 192.0.2.1:80:\n  established             60 s\n"), "{text}");
    let (_, json, _) = director.ask(&["--json", "tcp", WEB]);
    let told: Value = serde_json::from_str(&json).expect("JSON");
    let all = told["state_timeouts"][0]["timeouts"].as_array().expect("a list");
    let established = all.iter().find(|timeout| timeout["state"] == "established").expect("it");
    assert_eq!((&established["seconds"], &established["own"]), (&60.into(), &true.into()));

    for (words, code, told) in [
        (&["tcp", "192.0.2.9:1"][..], 1, "there is no service tcp 192.0.2.9:1"),
        (&["--set", "closing=1"], 1, "there is no timeout \"closing\""),
        (&["--set", "established"], 64, "NAME=SECONDS"),
        (&["--set", "established=-1"], 64, "NAME=SECONDS"),
        (&["tcp"], 64, "SERVICE"),
        (&["tcp", "web"], 64, "VIP:PORT"),
        (&["mark", "web"], 64, "number"),
        (&["-6", "tcp", WEB], 64, "mark"),
        (&["icmp", WEB], 64, "icmp"),
    ] {
        let (got, stdout, stderr) = director.ask(words);
        assert_eq!((got, stdout.as_str(), stderr.lines().count()), (code, "", 1), "{words:?}: {stderr}");
        assert!(stderr.starts_with("xvs: ") && stderr.contains(told), "{words:?}: {stderr}");
    }
    assert_eq!(
        director.ask(&["mark", "7", "-6"]).2,
        "xvs: there is no service mark 7 (inet6); `xvsadm -L -n` lists those that are\n"
    );
}
