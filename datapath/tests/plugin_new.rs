//! `xvs plugin new` as its user meets it: the crate builds at once, natively and as a module, without a network; and
//! what exists is left alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// `xvs plugin new` in a directory.
fn new(name: &str, directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xvs"));
    command.args(["plugin", "new", name, "--dir"]).arg(directory).output().unwrap()
}

/// A compiler within the new crate, without what is meant for the director's own build.
fn run(command: &mut Command, root: &Path) {
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    let output = command.current_dir(root).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The promise: from nothing to a module with two commands, and its tests pass.
#[test]
fn the_crate_builds_at_once() {
    let directory = std::env::temp_dir().join(format!("xvs-plugin-new-{}", std::process::id()));
    let made = new("least-loaded", &directory);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let root = directory.join("least-loaded");
    assert!(String::from_utf8_lossy(&made.stdout).contains("cargo build --release --target wasm32-unknown-unknown"));

    run(Command::new(env!("CARGO")).args(["test", "--offline", "--locked"]), &root);
    let way = xvs_plugins::find(None).unwrap();
    let target = root.join("target");
    let built = xvs_plugins::command(&way, &root, &target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let module = fs::read(target.join("wasm32-unknown-unknown/release/least_loaded.wasm")).unwrap();
    assert!(module.starts_with(b"\0asm") && module.len() < 8192, "{} bytes", module.len());

    let again = new("least-loaded", &directory);
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(1) && told.contains("is there already"), "{told}");
    fs::remove_dir_all(directory).unwrap();
}

/// A wrong name is a wrong command line, and nothing is made.
#[test]
fn a_wrong_name_makes_nothing() {
    let directory = std::env::temp_dir().join(format!("xvs-plugin-wrong-{}", std::process::id()));
    let refused = new("Least Loaded", &directory);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{told}");
    assert_eq!(
        told,
        "xvs: \"Least Loaded\" can not be the name of a scheduler: it begins with a small letter, as in least-loaded\n"
    );
    assert!(!directory.exists());
}
