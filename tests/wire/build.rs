//! Compiles the three BPF programs and generates their skeletons. Needs what the director's own program needs.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

const SOURCES: &str = "src/bpf";
const PROGRAMS: [&str; 3] = ["generate", "plain", "sink"];

fn main() {
    println!("cargo:rerun-if-changed={SOURCES}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut arguments = vec!["-Wall".to_owned(), "-Wextra".to_owned(), "-Werror".to_owned()];
    // Debian keeps <asm/types.h> in a directory of the architecture, which a BPF target does not look at.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let headers = format!("/usr/include/{architecture}-linux-gnu");
    if Path::new(&headers).exists() {
        arguments.push(format!("-I{headers}"));
    }
    for program in PROGRAMS {
        let mut builder = SkeletonBuilder::new();
        builder.source(format!("{SOURCES}/{program}.bpf.c")).clang_args(&arguments);
        if let Some(clang) = env::var_os("CLANG") {
            builder.clang(clang);
        }
        builder
            .build_and_generate(out.join(format!("{program}.skel.rs")))
            .unwrap_or_else(|error| panic!("{program}.bpf.c does not compile: {error:?}"));
    }
}
