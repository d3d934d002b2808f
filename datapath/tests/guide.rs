//! `docs/writing-a-scheduler.md` as its reader types it, up to where a director is needed: the code of the guide is the
//! code that is built, and its commands are run as they stand.
//!
//! Not here: commands that install something, and those that need a director in network namespaces.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GUIDE: &str = include_str!("../../docs/writing-a-scheduler.md");

/// The bodies of the blocks of a kind in a text, in their order.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let begin = format!("\n```{kind}\n");
    text.split(&begin).skip(1).filter_map(|rest| rest.split_once("```").map(|(body, _)| body)).collect()
}

/// What stands between two headings.
fn between(first: &str, end: &str) -> &'static str {
    let (_, rest) = GUIDE.split_once(&format!("\n## {first}\n")).unwrap();
    rest.split_once(&format!("\n## {end}\n")).unwrap().0
}

/// Runs lines of the guide in a directory, with this build's `xvs` first in the path.
fn shell(lines: &str, directory: &Path) -> Output {
    let tools = Path::new(env!("CARGO_BIN_EXE_xvs")).parent().unwrap().to_owned();
    let cargo = Path::new(env!("CARGO")).parent().unwrap().to_owned();
    let old = env::var_os("PATH").unwrap();
    let path = env::join_paths([tools, cargo].into_iter().chain(env::split_paths(&old))).unwrap();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", lines]).current_dir(directory).env("PATH", path);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// Runs them, and demands that they succeed. What they printed.
fn run(lines: &str, directory: &Path) -> String {
    let output = shell(lines, directory);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{lines}\n{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// `cargo build` for WebAssembly, by whichever compiler this machine has for plugins.
fn build(root: &Path) {
    let way = xvs_plugins::find(None).unwrap();
    let built = xvs_plugins::command(&way, root, &root.join("target")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// A directory of the test's own, gone when it is over.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BUILD: &str = "cargo build --release --target wasm32-unknown-unknown\n";

/// The guide is true: its scheduler passes its tests, is fit for a director, and prefers its rack in the simulator; and
/// each edit that it makes later finds what it edits, and builds.
#[test]
fn the_guide_works() {
    let scratch = Scratch(env::temp_dir().join(format!("xvs-guide-{}", std::process::id())));
    fs::create_dir_all(&scratch.0).unwrap();
    let root = scratch.0.join("same-rack");

    // The template's own tests are `plugin_new`'s; here it is the command alone.
    let begin = blocks(between("Begin", "Write"), "sh").concat();
    assert_eq!(begin, "xvs plugin new same-rack\ncd same-rack\ncargo test\n");
    run("xvs plugin new same-rack", &scratch.0);
    fs::write(root.join("src/lib.rs"), blocks(GUIDE, "rust").join("\n")).unwrap();
    let tested = run(&blocks(between("Write", "Build and check"), "sh").concat(), &root);
    assert!(tested.contains("4 passed; 0 failed"), "{tested}");

    let commands = blocks(between("Build and check", "Simulate"), "sh").concat();
    assert!(commands.starts_with(BUILD), "{commands}");
    build(&root);
    let told = run(&commands.replace(BUILD, ""), &root);
    assert!(told.contains("fit for a director") && !told.contains("NOT fit"), "{told}");
    assert!(told.contains("repeats   yes") && told.contains("state     yes"), "{told}");

    run(&blocks(between("Simulate", "Into a director"), "sh").concat(), &root);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(root.join("report.json")).unwrap()).unwrap();
    let ratio = |scheduler: usize| json["schedulers"][scheduler]["balance"]["ratio_mean"].as_f64().unwrap();
    assert!(ratio(0) > 1.5 && ratio(1) < 1.2, "the rack comes first: {} {}", ratio(0), ratio(1));
    assert!(fs::read_to_string(root.join("report.html")).unwrap().contains("same"));

    // The same servers out of a configuration have the same tags.
    let site = blocks(GUIDE, "sh").concat();
    let (_, site) = site.split_once("cat > site.toml <<'END'\n").unwrap();
    fs::write(root.join("site.toml"), site.split_once("END\n").unwrap().0).unwrap();
    let words = "xvs simulate --config site.toml --scheduler ./same_rack.wasm --options same_rack:rack=7";
    run(&format!("{words} --synthetic rate=30,seconds=10 --json site.json"), &root);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(root.join("site.json")).unwrap()).unwrap();
    let begun = json["schedulers"][0]["by_server"].as_array().unwrap();
    assert!(begun[0].as_u64() > Some(99) && begun[2] == 0 && begun[3] == 0, "{begun:?}");

    let edits: Vec<&str> = GUIDE.lines().filter(|line| line.starts_with("sed -i")).collect();
    assert_eq!(edits.len(), 4);
    for edit in edits {
        let before = fs::read_to_string(root.join("src/lib.rs")).unwrap();
        run(edit, &root);
        assert_ne!(fs::read_to_string(root.join("src/lib.rs")).unwrap(), before, "{edit}");
    }
    build(&root);
}
