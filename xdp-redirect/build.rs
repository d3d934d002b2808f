//! Compiles the XDP program, generates its skeleton, and turns the list of outcomes into a Rust table.
//!
//! Needs clang with the BPF back end and the kernel's UAPI headers. libbpf's own headers come with libbpf-sys.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

const SOURCES: &str = "src/bpf";

fn main() {
    println!("cargo:rerun-if-changed={SOURCES}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    let mut arguments = vec!["-Wall".to_owned(), "-Wextra".to_owned(), "-Werror".to_owned()];
    if let Some(directory) = architecture_headers() {
        arguments.push(format!("-I{}", directory.display()));
    }
    let mut builder = SkeletonBuilder::new();
    builder.source(format!("{SOURCES}/redirect.bpf.c")).clang_args(arguments);
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    builder
        .build_and_generate(out.join("redirect.skel.rs"))
        .unwrap_or_else(|error| panic!("the XDP program does not compile: {error:?}"));

    let list = fs::read_to_string(format!("{SOURCES}/outcomes.h")).expect("outcomes.h is part of this package");
    fs::write(out.join("outcomes.rs"), outcomes(&list)).expect("OUT_DIR can be written");
}

/// Where `asm/types.h` lives. Debian and its kin keep it in a directory named after the architecture, which clang
/// does not search when it compiles for BPF; elsewhere it lies in /usr/include and nothing has to be added.
fn architecture_headers() -> Option<PathBuf> {
    let include = Path::new("/usr/include");
    if include.join("asm/types.h").exists() {
        return None;
    }
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = fs::read_dir(include)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("asm/types.h").exists())
        .collect();
    // Any of them would do, their integer types agree where BPF runs; the target's own comes first.
    candidates.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with(&architecture)
    });
    candidates.into_iter().next()
}

/// The lines `OUTCOME(name, "help")` as Rust: one constant per name, and the table in the same order.
fn outcomes(list: &str) -> String {
    let entries: Vec<(&str, &str)> = list
        .lines()
        .filter_map(|line| line.trim().strip_prefix("OUTCOME("))
        .map(|line| {
            let (name, rest) = line.split_once(", \"").expect("OUTCOME(name, \"help\")");
            let (help, _) = rest.split_once("\")").expect("OUTCOME(name, \"help\")");
            (name, help)
        })
        .collect();
    assert!(!entries.is_empty(), "outcomes.h lists nothing");

    let mut code = format!("pub(crate) const OUTCOMES: [(&str, &str); {}] = [\n", entries.len());
    for (name, help) in &entries {
        writeln!(code, "    ({name:?}, {help:?}),").expect("strings grow");
    }
    code.push_str("];\n");
    code
}
