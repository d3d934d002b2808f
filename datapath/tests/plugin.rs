//! `xvs plugin` as its author runs it: exit codes, reports, JSON.

use std::path::PathBuf;
use std::process::{Command, Output};

const WLC: &str = include_str!("../host/tests/modules/wlc.wat");

/// A module in a file of its own.
fn module(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("xvs-plugin-{}-{name}.wasm", std::process::id()));
    std::fs::write(&path, wat::parse_str(text).expect("text of a module")).expect("a file");
    path
}

fn xvs(words: &[&str], path: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
    command.arg("plugin").arg(words[0]).arg(path).args(&words[1..]).output().expect("the program runs")
}

/// A module that works is fit, in words and in JSON.
#[test]
fn a_fit_module_is_fit() {
    let path = module("wlc", WLC);
    let told = xvs(&["check"], &path);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(0), "{text}");
    assert!(
        text.contains("fit for a director") && text.contains("needs     counts") && text.contains("repeats   yes"),
        "{text}"
    );
    let told = xvs(&["check", "--json", "--servers", "100"], &path);
    let json: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!((json["fit"].as_bool(), json["sizes"]["capacity"].as_u64()), (Some(true), Some(1024)));
    assert!(json["costs"].as_array().is_some_and(|costs| costs.iter().any(|cost| cost["servers"] == 100)));
    std::fs::remove_file(path).expect("our file");
}

/// Each way to fail has its exit code, and says why on stderr.
#[test]
fn each_failure_has_its_code() {
    let spins = module("spins", &WLC.replace("(local.set $best (i32.const -1))", "(loop $spin (br $spin))"));
    let asks = module("asks", &WLC.replace("(module", "(module (import \"xvs\" \"now\" (func (result i64)))"));
    let missing = std::path::Path::new("/nonexistent/x.wasm");
    for (path, words, code, told) in [
        (&*spins, &["check"][..], 14, "not fit for a director"),
        (&*asks, &["check"], 13, "load it with --grant time"),
        (&*asks, &["check", "--grant", "time"], 0, ""),
        (&*asks, &["check", "--grant", "time", "--options", "a=1"], 14, "it takes none"),
        (missing, &["check"], 3, "can not read /nonexistent/x.wasm"),
        (missing, &["bench", "--beside", "wcl"], 64, "there is no built-in scheduler \"wcl\""),
        (&*spins, &["bench"], 14, "did not come to an end within its budget"),
    ] {
        let output = xvs(words, path);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
        assert!(error.contains(told), "{told:?} is not told: {error}");
    }
    std::fs::remove_file(spins).expect("our file");
    std::fs::remove_file(asks).expect("our file");
}
