//! Command lines, right and wrong, that the recordings do not have.

use crate::model::Model;
use crate::names::Recorded;
use crate::recording::{configured, run};
use xvs::control::protocol::{
    Action, Family, Mask, Method, Persistence, SchedFlags, ServerSpec, ServiceId, Timeouts, Tunnel, TunnelChecksum,
};
use xvs::ipvsadm::{Command, Dialect, parse};

fn understood(line: &str) -> Command {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&args, Dialect::Ipvsadm, &Recorded).unwrap_or_else(|usage| panic!("{line}: {usage:?}"))
}

fn server(line: &str) -> ServerSpec {
    match understood(line) {
        Command::Do(Action::AddServer { server, .. } | Action::EditServer { server, .. }) => server,
        other => panic!("{other:?}"),
    }
}

/// Guards the exit status of each kind of mistake, that nothing is printed but to standard error, and that a message
/// says something that the real program's does not need to: which words are wrong.
#[test]
fn usage() {
    // Status, command line, a word that the message has to contain.
    let table = [
        (255, "-t 192.0.2.1:80 -A", "command"),
        (255, "--nosuch", "--nosuch"),
        (255, "nonsense", "command"),
        (255, "-5", "-5"),
        (255, "-A -t 192.0.2.9:80 --nosuch", "--nosuch"),
        (255, "-A -t 192.0.2.9:80 -q", "-q"),
        (255, "-A -t", "value"),
        (255, "-A -t 192.0.2.9:80 -p -1", "-1"),
        (255, "-L --numeric=1", "no value"),
        (255, "--start-daemon", "value"),
        (255, "--set -1 0 0", "-1"),
        (255, "-L --json", "--json"),
        (255, "-L --tcp-serv 192.0.2.9:80", "--tcp-serv"),
        (2, "-A -L", "second command"),
        (2, "-L -h", "second command"),
        (2, "-L foo", "foo"),
        (2, "foo -L", "foo"),
        (2, "-L -- -n", "-n"),
        (2, "-L -n -n", "twice"),
        (2, "-A -t 192.0.2.9:80 -u 192.0.2.9:80", "twice"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -g -m", "twice"),
        (2, "-A -t 80", "not a host"),
        (2, "-A -t 3221225985 -p", "not a host"),
        (2, "-A -t [2001:db8::1]", "[ADDRESS]:PORT"),
        (2, "-A -t [2001:db8::1]80", "[ADDRESS]:PORT"),
        (2, "-A -t [2001:db8::1:80", "[ADDRESS]:PORT"),
        (2, "-A -t 2001:db8::1", "no port"),
        (2, "-A -t 192.0.2.9:", "port"),
        (2, "-A -t 192.0.2.9:65536", "65536"),
        (2, "-A -t 192.0.2.9:nosuch", "nosuch"),
        (2, "-A -u 192.0.2.9:http", "udp"),
        (2, "-A -t nosuch.example:80", "nosuch.example"),
        (2, "-A -t 192.0.2.9", "-p"),
        (2, "-A -t 192.0.2.9:0", "-p"),
        (2, "-A -t 192.0.2.9:80 -o", "UDP"),
        (2, "-A --sctp-service 192.0.2.9:80 -o", "UDP"),
        (2, "-A -f 0", "mark"),
        (2, "-A -f -1", "mark"),
        (2, "-A -f 0x10", "mark"),
        (2, "-A -f 4294967296", "mark"),
        (2, "-A -6 -f 1", "-f MARK -6"),
        (2, "-A -t 192.0.2.9:80 -6", "-f MARK -6"),
        (2, "-A -t 192.0.2.9:80 -p 0", "-p"),
        (2, "-A -t 192.0.2.9:80 -p 2678401", "2678400"),
        (2, "-A -t 192.0.2.9:80 -p 1 -M nosuch", "nosuch"),
        (2, "-A -t [2001:db8::1]:80 -p 1 -M 0", "128"),
        (2, "-A -t [2001:db8::1]:80 -p 1 -M ffff::", "128"),
        (2, "-A -t 192.0.2.9:80 -b sh-port", "-s sh"),
        (2, "-E -t 192.0.2.9:80 -s mh -b sh-port", "-s sh"),
        (2, "-A -t 192.0.2.9:80 -b flag-4", "flag-4"),
        (2, "-D", "service"),
        (2, "-D -t 192.0.2.9:80 -s rr", "-s"),
        (2, "-a -r 10.1.0.1", "service"),
        (2, "-d -t 192.0.2.9:80", "real server"),
        (2, "-d -t 192.0.2.9:80 -r 10.1.0.1 -m", "-m"),
        (2, "-a -t 192.0.2.9:80 -r nosuch.example", "nosuch.example"),
        (2, "-a -r 10.1.0.1:http -t 192.0.2.9:80", "before -r"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -w 2147483648", "2147483647"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -x -1", "-x"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -y 1k", "-y"),
        (2, "-a -t 192.0.2.9:80 -r [2001:db8::1]:80", "-i"),
        (2, "-a -t [2001:db8::9]:80 -r 10.1.0.1 -m", "-i"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 --tun-type gue", "add -i"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -m --tun-nocsum", "add -i"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-port 6080", "ipip"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-csum", "ipip"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-type gue", "--tun-port"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-type gue --tun-port 0", "--tun-port"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-type gue --tun-port 1 --tun-csum --tun-nocsum", "one of"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-type gre --tun-remcsum", "gre"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-type gre --tun-port 1", "gre"),
        (2, "-a -t 192.0.2.9:80 -r 10.1.0.1 -i --tun-type vxlan", "vxlan"),
        (2, "-L -c --timeout", "different listings"),
        (2, "-L --daemon --timeout", "different listings"),
        (2, "-L -t 192.0.2.9:80 --daemon", "different listings"),
        (2, "-L -c --stats", "--stats"),
        (2, "-L --timeout --rate", "--rate"),
        (2, "-L --daemon --persistent-conn", ""),
        (2, "-L --syncid 256", "255"),
        (2, "-L -s rr", "-A (add-service), -E (edit-service)"),
        (2, "-S -t 192.0.2.9:80", "-S"),
        (2, "-S --thresholds", "-L (list)"),
        (2, "-R -n", "-n"),
        (2, "-C -n", "-n"),
        (2, "-Z -n", "-n"),
        (2, "--set 1 2", "three"),
        (2, "--set 1 2 3 4", "4"),
        (2, "--set 1 2 2678401", "2678400"),
        (2, "--set 1 2 3 -n", "-n"),
        (2, "--start-daemon both", "master or backup"),
        (2, "--stop-daemon both", "master or backup"),
        (2, "--stop-daemon master --mcast-interface eth0", "--start-daemon"),
        (2, "--start-daemon master --mcast-group 192.0.2.1", "multicast"),
        (2, "--start-daemon master --mcast-port 0", "65535"),
        (2, "--start-daemon master --mcast-ttl 256", "255"),
        (2, "--start-daemon master --sync-maxlen 65508", "65507"),
    ];
    let mut model = configured();
    let before = model.services.clone();
    for (exit, line, word) in table {
        let outcome = run(&mut model, &format!("ipvsadm {line}"), "");
        assert_eq!((outcome.exit, outcome.stdout.as_str()), (exit, ""), "{line}");
        assert!(outcome.stderr.starts_with("ipvsadm: ") && outcome.stderr.contains(word), "{line}: {}", outcome.stderr);
        assert!(outcome.stderr.lines().count() <= 2, "{line}: {}", outcome.stderr);
    }
    assert_eq!(model.services, before, "mistakes change nothing");
}

/// Guards the ports and methods that a server gets without its owner's saying so.
#[test]
fn servers() {
    let text = |line| server(line).address.to_string();
    assert_eq!(text("-a -t 192.0.2.1:80 -r 10.1.0.1 -m"), "10.1.0.1:80", "the service's port is the default");
    assert_eq!(text("-a -t 192.0.2.1:80 -r 10.1.0.1:8080 -m"), "10.1.0.1:8080");
    assert_eq!(text("-a -t 192.0.2.1:80 -r 10.1.0.1:8080"), "10.1.0.1:80", "DR does not change ports");
    assert_eq!(text("-a -t 192.0.2.1:80 -r 10.1.0.1:8080 -i"), "10.1.0.1:80", "nor does TUN");
    assert_eq!(text("-a -f 1 -r 10.1.0.1:8080 -g"), "10.1.0.1:8080", "behind a mark they stay");
    assert_eq!(text("-a -f 1 -r 10.1.0.1 -g"), "10.1.0.1:0");
    assert_eq!(text("-a -r 10.1.0.1 -m -t 192.0.2.1:80"), "10.1.0.1:0", "before the service there is no port");
    assert_eq!(text("-a -r 10.1.0.1 -g -t 192.0.2.1:80"), "10.1.0.1:80");
    assert_eq!(text("-a -t vip-nat.example:http -r rs1.example:https -m"), "10.1.0.11:443");
    assert_eq!(text("-a -t 192.0.2.1:80 -r 10.1 -m"), "10.0.0.1:80");
    assert_eq!(text("-a -t 192.0.2.1:80 -r 167772161:80 -m"), "10.0.0.1:80", "only without a port it is refused");
    assert_eq!(text("-a -t [2001:db8::1]:80 -r 2001:db8::2 -m"), "[2001:db8::2]:80");
    assert_eq!(
        understood("-d -t 192.0.2.1:80 -r 10.1.0.1:8080"),
        Command::Do(Action::DeleteServer {
            service: understood_id("-D -t 192.0.2.1:80"),
            address: "10.1.0.1:8080".parse().expect("an address"),
        }),
        "a deletion takes the port as it is given"
    );
    let edit = server("-e -t 192.0.2.1:80 -r 10.1.0.1 -w 0");
    assert_eq!((edit.method, edit.weight, edit.upper, edit.lower), (Method::Dr, 0, 0, 0), "nothing is kept");
    let gue = server("-a -t 192.0.2.1:80 -r [2001:db8::2]:80 -i --tun-type gue --tun-port 6080 --tun-remcsum");
    assert_eq!(gue.method, Method::Tun(Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Remote }));
    assert_eq!(server("-a -t 192.0.2.1:80 -r 10.1.0.1 -i --tun-type gre").method, {
        Method::Tun(Tunnel::Gre { checksum: TunnelChecksum::None })
    });
}

fn understood_id(line: &str) -> ServiceId {
    match understood(line) {
        Command::Do(Action::DeleteService(id)) => id,
        other => panic!("{other:?}"),
    }
}

/// Guards the defaults of a service and the order in which mask, address and `-6` overwrite each other.
#[test]
fn services() {
    let spec = |line: &str| match understood(line) {
        Command::Do(Action::AddService(spec) | Action::EditService(spec)) => spec,
        other => panic!("{other:?}"),
    };
    let plain = spec("-E -t 192.0.2.1:80");
    assert_eq!((plain.scheduler.as_str(), plain.persistence, plain.flags), ("wlc", None, SchedFlags::default()));
    let persistence = |line| spec(line).persistence;
    let v4 = |timeout_s, mask: &str| Some(Persistence { timeout_s, mask: Mask::Dotted(mask.parse().expect("a mask")) });
    let v6 = |timeout_s, length| Some(Persistence { timeout_s, mask: Mask::Prefix(length) });
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p"), v4(360, "255.255.255.255"));
    assert_eq!(persistence("-A -t 192.0.2.1 -p 10 -M 255.255.0.0"), v4(10, "255.255.0.0"));
    assert_eq!(persistence("-A -M 255.255.0.0 -t 192.0.2.1 -p 10"), v4(10, "255.255.0.0"));
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p10 -M 0.0.0.0"), v4(10, "0.0.0.0"));
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p10 -M 255.0.255.0"), v4(10, "255.0.255.0"), "a mask may have holes");
    assert_eq!(persistence("-A -t 192.0.2.1:80 -p10 -M 24"), v4(10, "0.0.0.24"), "inet_aton's reading, as ipvsadm's");
    assert_eq!(persistence("-A -t 192.0.2.1:80 -M 255.0.255.0"), None, "a mask without -p means nothing");
    assert_eq!(persistence("-A -t [2001:db8::1]:80 -p -M 64"), v6(360, 64));
    assert_eq!(persistence("-A -M 64 -t [2001:db8::1]:80 -p"), v6(360, 128), "the address comes last and wins");
    assert_eq!(persistence("-A -f 1 -6 -M 64 -p"), v6(360, 64));
    assert_eq!(persistence("-A -f 1 -M 255.255.0.0 -6 -p"), v6(360, 128), "-6 comes last and wins");
    let flags = spec("-A -b sh-port,,flag-3 -u 192.0.2.1:53 -s sh --ops").flags;
    assert_eq!((flags.one, flags.two, flags.three), (false, true, true));
    assert_eq!(spec("-A -f +4294967295 -6").id, ServiceId::Mark { mark: u32::MAX, family: Family::Inet6 });
    let timeouts = Timeouts { tcp: 900, tcpfin: 0, udp: 2_678_400 };
    assert_eq!(understood("--set 900 0 2678400"), Command::Do(Action::SetTimeouts(timeouts)));
}

/// Guards how a restore goes on and where it ends: behind a refusal and an unknown option it goes on, at any other
/// mistake it ends; its status is that of the last line it carried out.
#[test]
fn restore() {
    let add = "-A -t 192.0.2.60:80 -s rr";
    for (text, exit, services) in [
        ("", 0, 0),
        ("\n \t\r\n", 0, 0),
        ("ipvsadm -A -t 192.0.2.60:80 -s rr", 0, 1),
        ("-A -t 192.0.2.60:80 -s rr\r\n", 0, 1),
        ("-A -t 192.0.2.60:80 -s nosuch\n-A -t 192.0.2.61:80\n", 0, 1),
        ("-A -t 192.0.2.61:80\n-A -t 192.0.2.60:80 -s nosuch\n", 255, 1),
        ("-A -t 192.0.2.60:80 --nosuch\n-A -t 192.0.2.61:80\n", 0, 1),
        ("-A -t 192.0.2.60:80 -w 1\n-A -t 192.0.2.61:80\n", 2, 0),
        ("# rules\n-A -t 192.0.2.61:80\n", 255, 0),
        ("-A -t 192.0.2.60:80 # web\n-A -t 192.0.2.61:80\n", 2, 0),
        ("-R\n-A -t 192.0.2.61:80\n", 255, 0),
        ("-L -t 192.0.2.9:80\n-A -t 192.0.2.61:80\n", 1, 0),
        ("-v\n-A -t 192.0.2.61:80\n", 0, 0),
    ] {
        let mut model = Model::default();
        let outcome = run(&mut model, "ipvsadm -R", text);
        assert_eq!((outcome.exit, model.services.services.len()), (exit, services), "{text:?}: {}", outcome.stderr);
    }
    let mut model = Model::default();
    let outcome = run(&mut model, "ipvsadm -R", &format!("{add}\n\n{add}\n"));
    assert!(outcome.stderr.starts_with("ipvsadm: line 3: "), "{}", outcome.stderr);
    let long = format!("{add}{}\n", " ".repeat(5000));
    assert_eq!(run(&mut model, "ipvsadm -R", &long).exit, 2, "a line has a limit");
    assert_eq!(run(&mut model, "ipvsadm-restore -n", "").exit, 2, "a typing mistake does not clear the table");
    assert_eq!(model.services.services.len(), 1);
}

/// Guards what we added: JSON, thresholds in saved rules; neither exists for what is called ipvsadm.
#[test]
fn ours() {
    let mut model = configured();
    let json = run(&mut model, "xvsadm -L --json", "").stdout;
    let answer: xvs::control::protocol::Answer = serde_json::from_str(&json).expect("the protocol's answer");
    assert_eq!(answer, xvs::control::protocol::Answer::Services(model.services.clone()));
    let saved = run(&mut model, "xvsadm-save -n --thresholds", "").stdout;
    assert!(saved.contains("-a -t 192.0.2.1:443 -r 10.1.0.12:443 -m -w 1 -x 200 -y 100\n"));
    assert_eq!(run(&mut model, "xvsadm -C", "").exit, 0);
    assert_eq!(run(&mut model, "xvsadm -R", &saved).exit, 0);
    assert_eq!(run(&mut model, "xvsadm-save -n --thresholds", "").stdout, saved);
    assert_eq!(run(&mut model, "xvsadm -L --daemon --json", "").stdout, "[]\n");
}

/// Guards listings that the recordings do not have: signed marks, cut names, persistence engines, marks as addresses.
#[test]
fn rare_listings() {
    let mut model = Model::default();
    let mut line = |line: &str| run(&mut model, line, "").stdout;
    line("ipvsadm -A -f 4294967295 -s rr -b flag-1,flag-3");
    line("ipvsadm -A -t [::192.0.2.1]:80 -s mh -b mh-fallback,flag-3");
    let listing = line("ipvsadm -Ln");
    assert!(listing.contains("FWM  -1 rr (flag-1,flag-3)\n"), "{listing}");
    assert!(listing.contains("TCP  [::192.0.2.1]:80 mh (mh-fallback,flag-3)\n"), "{listing}");
    assert!(line("ipvsadm -Sn").contains("-A -f 4294967295 -s rr -b flag-1,flag-3\n"), "a mark that can be restored");
    model.connections = vec![xvs::control::protocol::Connection {
        protocol: 0,
        state: "NONE".to_owned(),
        expires_s: 6001,
        client: "192.0.2.0:0".parse().expect("an address"),
        virtual_address: "0.0.0.1:0".parse().expect("an address"),
        server: "10.1.0.11:0".parse().expect("an address"),
        engine: Some(("sip".to_owned(), "call-1".to_owned())),
    }];
    let table = run(&mut model, "ipvsadm -Lnc", "").stdout;
    let row = "IP  100:01 NONE        192.0.2.0:0        0.0.0.1:0          10.1.0.11:0";
    assert_eq!(table.lines().nth(2), Some(row));
    let table = run(&mut model, "ipvsadm -Lnc --persistent-conn", "").stdout;
    assert_eq!(table.lines().nth(2), Some(format!("{row}      sip                call-1").as_str()));
}
