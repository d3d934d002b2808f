//! Plugins in a running director, from outside: commands, the watched directory, a configuration that is applied.
//!
//! Needs root; without it the test says so loudly and passes, unless `XVS_CI` is set.

mod frames;
mod namespace;
mod plugins;
#[allow(dead_code, reason = "nothing is measured here")]
mod running;
#[allow(dead_code, reason = "no packet is sent here")]
mod wires;

use std::io::Write;
use std::{env, fs, io};

use serde_json::Value;

use plugins::{Directory, text};
use running::Running;
use wires::{Wires, eventually};

const WEB: &str = "tcp:192.0.2.10:80";

/// The live version of the service, as the director tells it.
fn live(running: &Running) -> Value {
    running.xvs(&["scheduler", "status"])["scheduler"]["status"]["services"][0]["live"].clone()
}

/// Guards the whole way: loaded by command, named by xvsadm, followed in the watched directory where half a file harms
/// nothing, swapped by a file that is applied, and every change has its line in the log.
#[test]
fn a_running_director_follows_commands_files_and_a_directory() {
    if !nix::unistd::geteuid().is_root() {
        assert!(env::var_os("XVS_CI").is_none(), "XVS_CI is set, and this test needs root");
        writeln!(io::stdout(), "\nSKIPPED: this test needs root").expect("a terminal or a file");
        return;
    }
    let directory = Directory::new("running");
    let elsewhere = Directory::new("running-elsewhere");
    let director = format!("scheduler_dir = \"{}\"\nwatch_schedulers = true\n", directory.0.display());
    let wires = Wires::new(2);
    let running = Running::start_as(&wires, "human", &director, "");
    let version = |number: u32| text(8, "", &format!("i32.const 0 i32.const {number} drop"));

    let file = elsewhere.plugin("first", &version(1));
    let loaded = running.xvs(&["scheduler", "load", "mine", &file.to_string_lossy()]);
    assert_eq!(loaded["scheduler"]["loaded"]["version"], 1, "{loaded}");
    running.xvsadm("-E -t 192.0.2.10:80 -s wasm:mine");
    assert!(running.xvsadm("-Ln").contains("192.0.2.10:80 wasm:mine"));
    assert_eq!((&live(&running)["version"], &live(&running)["state"]), (&1.into(), &"live".into()));

    directory.plugin("mine", &version(2));
    eventually("the changed file in service", || live(&running)["version"] == 2);
    let whole = fs::read(directory.0.join("mine.wasm")).expect("the file");
    fs::write(directory.0.join("mine.wasm"), &whole[..whole.len() / 2]).expect("a file");
    eventually("word of the broken file", || {
        let refused = &running.xvs(&["scheduler", "status"])["scheduler"]["status"]["refused"][0];
        refused["message"].as_str().is_some_and(|message| message.contains("mine.wasm"))
    });
    assert_eq!(live(&running)["version"], 2, "what is live stays");

    elsewhere.plugin("third", &version(3));
    let site = elsewhere.0.join("site.toml");
    let rules = "[[scheduler]]\nname = \"mine\"\nfile = \"third.wasm\"\n[[service]]\naddress = \"192.0.2.10:80\"\n\
                 scheduler = \"wasm:mine\"\n[[service.server]]\naddress = \"10.0.0.1:80\"\ntags = { zone = \"a\" }\n";
    fs::write(&site, rules).expect("a file");
    let site = site.to_string_lossy();
    let plan = running.xvs(&["apply", &site]);
    let sentences: Vec<&str> = plan["plan"].as_array().expect("a plan").iter().filter_map(Value::as_str).collect();
    assert!(sentences.len() == 3 && sentences[0].starts_with("Load scheduler wasm:mine from "), "{sentences:?}");
    assert!(sentences[1].starts_with("Swap scheduler wasm:mine: sha256 "), "{sentences:?}");
    assert_eq!(sentences[2], "Change server 10.0.0.1:80 of tcp 192.0.2.10:80: tags none to zone=a.");
    assert_eq!(live(&running)["version"], 3);
    assert_eq!(running.xvs(&["apply", &site])["plan"], Value::Array(Vec::new()), "nothing is left to do");
    let set = running.xvs(&["scheduler", "options", WEB, "zone=a"]);
    assert_eq!(set["scheduler"]["options"]["zone"], "a");
    assert!(
        running.xvsadm("-Sn").contains("-A -t 192.0.2.10:80 -s wasm:mine\n"),
        "options and tags are in nobody's way"
    );
    assert_eq!(running.xvs(&["status"])["status"]["alarms"], Value::Array(Vec::new()));

    let (ended_well, log) = running.stop();
    assert!(ended_well, "{log}");
    let audit: Vec<&str> = log.lines().filter(|line| line.contains("audit: plugin scheduler")).collect();
    assert!(audit.len() >= 4 && audit.iter().all(|line| line.contains("sha256=")), "{log}");
    for who in ["uid 0, pid ", "watched directory"] {
        assert!(audit.iter().any(|line| line.contains(who)), "{who} in: {audit:#?}");
    }
    assert!(log.contains("WARN") && log.contains("a plugin's file is not taken"), "{log}");
}
