//! `xvs` at a terminal: what it says when it is used wrongly or nobody answers, and that scripts can tell which.
//!
//! The real program, without a director and without root.

mod plugins;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A user without any rights.
const NOBODY: u32 = 65534;

/// A directory of one test's own, gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("xvs-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path.to_string_lossy().into_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn xvs(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
    command.args(words).env("XVS_SOCKET", "/nonexistent/xvs.sock").env_remove("RUST_LOG").stdin(Stdio::null());
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Runs it, demands a failure that says one line and nothing on stdout; gives code and line.
fn wrong(words: &[&str]) -> (i32, String) {
    let output = xvs(words);
    let (stderr, stdout) = (text(&output.stderr), text(&output.stdout));
    let code = output.status.code().unwrap_or_else(|| panic!("{words:?} was killed: {stderr}"));
    assert!(code != 0 && code != 101, "{words:?}: {code}, {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{words:?} says one line: {stderr}");
    assert!(stderr.starts_with("xvs: "), "{words:?}: {stderr}");
    assert_eq!(stdout, "", "{words:?}");
    (code, stderr)
}

const SERVICE: &str = "[[service]]\naddress = \"192.0.2.1:80\"\n";

/// Guards scripts and people: each kind of failure has its exit code, says one line, and names the cure.
#[test]
fn every_failure_has_a_code_and_a_cure() {
    let directory = Directory::new("failures");
    let good = directory.write("good.toml", SERVICE);
    let bad = directory.write("bad.toml", "[[service]]\naddress = \"nonsense\"\n");
    let bytes = directory.path("bytes.toml");
    fs::write(&bytes, [0xff, 0xfe]).expect("a file");
    let nowhere = directory.path("none.toml");
    let nothing = directory.write("nothing.toml", "");
    let strange = directory.write("strange.toml", "[[interface]]\nname = \"xvs-none0\"\n");
    let precious = directory.write("precious", "text");
    let socket = directory.path("xvs.sock");
    let run = |config: &str, control: &str| wrong(&["run", "--config", config, "--control", control]);
    let ask = |words: &[&str]| wrong(words);

    let mut kinds: BTreeMap<&str, Vec<(i32, String)>> = BTreeMap::new();
    let mut kind = |name, outcomes: Vec<(i32, String)>| kinds.insert(name, outcomes);
    kind(
        "nobody answers",
        vec![
            ask(&["status"]),
            ask(&["status", "--json"]),
            ask(&["status", "--workers"]),
            ask(&["status", "--workers", "--json", "--watch", "2"]),
            ask(&["drops"]),
            ask(&["sysctl", "list"]),
            ask(&["sysctl", "set", "drop_entry=1"]),
            ask(&["explain", "tcp", "198.51.100.7:1", "192.0.2.1:80"]),
            ask(&["apply", &good]),
            ask(&["mark", "list"]),
            ask(&["mark", "add", "1", "--to", "192.0.2.0/24", "--ports", "80,443", "--from", "10.0.0.0/8", "--first"]),
            ask(&["mark", "delete", "4294967295", "--to", "2001:db8::1", "--protocol", "sctp", "--json"]),
            ask(&["status", "--control", &socket]),
            ask(&["scheduler", "list"]),
            ask(&["scheduler", "load", "mine", &good, "--grant", "time,log"]),
            ask(&["scheduler", "swap", "mine", "3"]),
            ask(&["scheduler", "options", "tcp:192.0.2.1:80", "zone=a", "--unset", "limit", "--json"]),
            ask(&["scheduler", "metric", "tcp:192.0.2.1:80", "10.0.0.1", "-5"]),
            ask(&["scheduler", "shadow", "mark6:7", "mine", "--sample", "1/100", "--option", "a=b"]),
            ask(&["scheduler", "canary", "udp:[2001:db8::1]:53", "./mine.wasm", "--share", "0.5%"]),
            ask(&["scheduler", "canary", "192.0.2.1:80", "--off"]),
        ],
    );
    kind(
        "the document is wrong",
        vec![
            ask(&["check", &bad]),
            ask(&["apply", &bad]),
            run(&bad, &socket),
            run(&nothing, &socket),
            ask(&["replay", "--config", &bad, "--pcap-in", &good, "--pcap-out", &socket]),
        ],
    );
    kind(
        "a file can not be read",
        vec![
            ask(&["check", &nowhere]),
            ask(&["check", &bytes]),
            ask(&["apply", &nowhere]),
            run(&nowhere, &socket),
            ask(&["replay", "--config", &good, "--pcap-in", &nowhere, "--pcap-out", &socket]),
        ],
    );
    kind("no such interface", vec![run(&strange, &socket)]);
    kind("no capture", vec![ask(&["replay", "--config", &good, "--pcap-in", &good, "--pcap-out", &socket])]);
    kind("the socket's path is taken", vec![run(&strange, &precious)]);
    kind(
        "the command line is wrong",
        vec![
            ask(&[]),
            ask(&["dance"]),
            ask(&["stat"]),
            ask(&["status", "--colour"]),
            ask(&["status", "--workers", "--watch", "0"]),
            ask(&["status", "--watch", "soon"]),
            ask(&["check"]),
            ask(&["sysctl"]),
            ask(&["sysctl", "set", "drop_entry"]),
            ask(&["replay", "--config", &good]),
            ask(&["explain", "icmp", "198.51.100.7:1", "192.0.2.1:80"]),
            ask(&["explain", "tcp", "198.51.100.7", "192.0.2.1:80"]),
            ask(&["run", "--log", "loud"]),
            ask(&["mark", "add", "1"]),
            ask(&["mark", "add", "0", "--to", "192.0.2.0/24"]),
            ask(&["mark", "add", "1", "--to", "192.0.2.1/24"]),
            ask(&["mark", "add", "1", "--to", "192.0.2.0/24", "--ports", "http"]),
            ask(&["mark", "delete", "1", "--to", "192.0.2.0/24", "--protocol", "icmp"]),
            ask(&["scheduler"]),
            ask(&["scheduler", "load", "mine"]),
            ask(&["scheduler", "load", "mine", &good, "--grant", "disk"]),
            ask(&["scheduler", "status", "192.0.2.1"]),
            ask(&["scheduler", "options", "tcp:192.0.2.1:80", "a=1", "a=2"]),
            ask(&["scheduler", "metric", "tcp:192.0.2.1:80", "web1", "5"]),
            ask(&["scheduler", "shadow", "tcp:192.0.2.1:80"]),
            ask(&["scheduler", "shadow", "tcp:192.0.2.1:80", "mine", "--off"]),
            ask(&["scheduler", "canary", "tcp:192.0.2.1:80", "mine"]),
            ask(&["scheduler", "canary", "tcp:192.0.2.1:80", "mine", "--share", "200%"]),
        ],
    );
    let mut codes = BTreeMap::new();
    for (name, outcomes) in &kinds {
        for (code, line) in outcomes {
            assert_eq!(*code, outcomes[0].0, "{name}: {line}");
        }
        assert_eq!(codes.insert(outcomes[0].0, name), None, "{name} has the code of another kind: {kinds:#?}");
    }
    let cures = [
        ("nobody answers", "xvs run"),
        ("the socket's path is taken", "--control"),
        ("the command line is wrong", "--help"),
    ];
    for (name, cure) in cures {
        kinds[name].iter().for_each(|(_, line)| assert!(line.contains(cure), "{cure:?} in: {line}"));
    }
    let documents = &kinds["the document is wrong"];
    assert!(documents[0].1.contains("bad.toml:2:"), "the place: {}", documents[0].1);
    assert!(documents[3].1.contains("--interface"), "{}", documents[3].1);
    assert!(kinds["the command line is wrong"][2].1.contains("'status'"), "what was meant: {kinds:#?}");
    let usage = &kinds["the command line is wrong"];
    let said = |word: &str| usage.iter().any(|(_, line)| line.contains(word));
    for word in [
        "--to",
        "1..",
        "192.0.2.0/24 would be right",
        "80,443,8000-8100",
        "tcp, udp or sctp",
        "tcp:VIP:PORT",
        "as in 5%",
    ] {
        assert!(said(word), "{word:?} in: {usage:#?}");
    }
    assert_eq!(fs::read_to_string(&precious).expect("still there"), "text");
}

/// Guards a user who may not speak to the director: told apart from a director that is not there.
#[test]
fn a_forbidden_socket_is_no_missing_director() {
    let directory = Directory::new("forbidden");
    let socket = directory.path("xvs.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).expect("our file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
    command.args(["status", "--control", &socket]);
    if nix::unistd::geteuid().is_root() {
        // Root may connect to everything.
        command.uid(NOBODY);
    }
    match command.output() {
        Ok(output) => {
            let line = text(&output.stderr);
            assert!(output.status.code() == Some(4) && line.contains("root") && line.lines().count() == 1, "{line}");
        }
        Err(error) => {
            writeln!(std::io::stdout(), "\nSKIPPED: another user can not run the program: {error}").expect("it")
        }
    }
}

/// Guards `check`: all problems at once, each with its place and one to a line, and as JSON for machines.
#[test]
fn check_tells_all_problems() {
    let directory = Directory::new("check");
    let file = directory.write(
        "site.toml",
        "[frames]\nsize = 1000\n[[service]]\naddress = \"nonsense\"\n[[service]]\naddress = \"192.0.2.1:80\"\n\
         scheduler = \"best\"\n[[service.server]]\naddress = \"10.0.0.1:80\"\nweight = -1\n",
    );
    let output = xvs(&["check", &file]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    for word in ["frames.size", "service[0].address", "service[1].scheduler", "service[1].server[0].weight"] {
        assert_eq!(stderr.lines().filter(|line| line.contains(word)).count(), 1, "{word} in: {stderr}");
    }
    assert_eq!(stderr.lines().count(), 4, "{stderr}");
    let output = xvs(&["check", &file, "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), told["right"].as_bool()), (Some(2), Some(false)));
    assert_eq!(told["problems"].as_array().map(Vec::len), Some(4));

    let good = directory.write("good.toml", SERVICE);
    let output = xvs(&["check", &good]);
    assert!(output.status.success() && text(&output.stdout).contains("1 services"));
    let told: Value = serde_json::from_slice(&xvs(&["check", &good, "--json"]).stdout).expect("JSON");
    assert_eq!((told["right"].as_bool(), told["services"].as_u64()), (Some(true), Some(1)));
}

/// Guards `check` of plugins: their files are loaded without a director, what is wrong with any is told with its place, and
/// so are options that a plugin refuses.
#[test]
fn check_loads_the_plugins() {
    let directory = Directory::new("plugins");
    let module = |name: &str, configure: &str| {
        let bytes = wat::parse_str(plugins::text(8, configure, "i32.const 0")).expect("a module");
        fs::write(directory.path(name), bytes).expect("a file");
    };
    module("mine.wasm", "");
    module("picky.wasm", r#"(func (export "xvs_configure") (result i32) i32.const -1)"#);
    directory.write("text.wasm", "no module");
    let site = |name: &str, file: &str| {
        let scheduler = format!("[[scheduler]]\nname = \"mine\"\nfile = \"{file}\"\n");
        directory.write(name, &format!("{scheduler}{SERVICE}scheduler = \"wasm:mine\"\noptions = {{ a = 1 }}\n"))
    };
    let good = site("good.toml", "mine.wasm");
    let output = xvs(&["check", &good]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 scheduler plugins"), "{}", text(&output.stdout));
    for (name, file, word) in [
        ("picky.toml", "picky.wasm", "refused its options"),
        ("text.toml", "text.wasm", "scheduler[0].file"),
        ("none.toml", "none.wasm", "can not read"),
    ] {
        let (code, line) = wrong(&["check", &site(name, file)]);
        assert!(code == 2 && line.contains(word), "{name}: {code}, {line}");
    }
    let nowhere = directory.write("nowhere.toml", &format!("{SERVICE}scheduler = \"wasm:other\"\n"));
    let (code, line) = wrong(&["check", &nowhere]);
    assert!(code == 2 && line.contains("scheduler_dir"), "{code}, {line}");
    let told: Value = serde_json::from_slice(&xvs(&["check", &good, "--json"]).stdout).expect("JSON");
    assert_eq!((told["right"].as_bool(), told["schedulers"].as_u64()), (Some(true), Some(1)));
}

/// Asks a command for help: every option must be explained.
fn explains(command: &[&str]) {
    let output = xvs(&[command, &["--help"]].concat());
    assert!(output.status.success(), "{command:?}");
    let help = text(&output.stdout);
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next() {
        let option = line.trim_start();
        if !(line.starts_with("  ") && (option.starts_with('-') || option.starts_with('<'))) {
            continue;
        }
        let words = option.split("  ").filter(|part| !part.trim().is_empty()).count();
        let below = lines.peek().is_some_and(|next| next.starts_with("          "));
        assert!(words > 1 || below, "{command:?} explains {option:?}: {help}");
    }
}

/// Guards the help: every command and every option explains itself, and asking for help is no failure.
#[test]
fn help_is_complete() {
    let top = xvs(&["--help"]);
    assert!(top.status.success() && top.stderr.is_empty());
    let top = text(&top.stdout);
    let commands =
        ["run", "status", "drops", "explain", "mark", "sysctl", "timeouts", "scheduler", "check", "apply", "replay"];
    for command in commands {
        let line = top
            .lines()
            .find(|line| line.trim_start().starts_with(command))
            .unwrap_or_else(|| panic!("{command}: {top}"));
        assert!(line.trim().len() > command.len() + 15, "{command} is explained: {line}");
        explains(&[command]);
    }
    for command in ["list", "add", "delete"] {
        explains(&["mark", command]);
    }
    let commands =
        ["load", "list", "status", "swap", "rollback", "unload", "options", "metric", "retry", "shadow", "canary"];
    for command in commands.into_iter().chain(["compare", "promote"]) {
        explains(&["scheduler", command]);
    }
    let version = xvs(&["--version"]);
    assert!(version.status.success() && text(&version.stdout).starts_with("xvs "));
}

/// Guards pipes: whoever has read enough hangs up, and that is no error to complain of.
#[test]
fn a_reader_that_hangs_up_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_xvs"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
}

/// Guards log files: no colours where nobody looks at a terminal, and one JSON object a line where that was asked for.
#[test]
fn logs_are_plain() {
    let directory = Directory::new("logs");
    let site = directory.write("site.toml", "[[interface]]\nname = \"lo\"\n");
    for form in ["human", "json"] {
        let output = Command::new(env!("CARGO_BIN_EXE_xvs"))
            .args(["run", "--config", &site, "--log", form, "--control", &directory.path("xvs.sock")])
            .env("RUST_LOG", "trace")
            .output()
            .expect("the program runs");
        assert!(!output.status.success(), "the loopback is no Ethernet");
        assert!(!output.stderr.contains(&0x1b), "{}", text(&output.stderr));
    }
}
