//! `judge traces DIR`, `judge golden DIR`: recordings of the kernel and of the real ipvsadm against this director, a line
//! a recording.

use std::path::Path;
use std::process::ExitCode;

#[path = "../tests/judges/mod.rs"]
mod judges;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verdicts = match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["traces", directory] => judges::traces::judge(Path::new(directory), &mut std::io::stdout().lock()),
        ["golden", directory] => judges::golden::judge(Path::new(directory), &mut std::io::stdout().lock()),
        _ => Err("say what to judge: traces DIR, or golden DIR".to_owned()),
    };
    match verdicts {
        Ok(verdicts) if verdicts.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("judge: {wrong}");
            ExitCode::FAILURE
        }
    }
}
