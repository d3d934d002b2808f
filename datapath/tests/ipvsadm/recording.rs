//! Commands played against the model, and what the real program printed.
//!
//! Invariant: every command goes through the real grammar and the real output; only the director is a model.

use std::io::Cursor;
use std::path::PathBuf;

use xvs::ipvsadm::run::{World, main};

use crate::model::Model;
use crate::names::Recorded;

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) exit: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command line (split at spaces) with this on its standard input.
pub(crate) fn run(model: &mut Model, command: &str, stdin: &str) -> Outcome {
    let args: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = main(
        &args,
        &mut World {
            stdin: &mut Cursor::new(stdin.as_bytes()),
            stdout: &mut stdout,
            stderr: &mut stderr,
            names: &Recorded,
            director: model,
        },
    );
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Outcome { exit, stdout: text(stdout), stderr: text(stderr) }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What the real program printed under this name.
pub(crate) fn printed(name: &str) -> String {
    std::fs::read_to_string(file(&format!("{name}.out"))).unwrap_or_default()
}

/// A model after the commands that made the large configuration.
pub(crate) fn configured() -> Model {
    let text = std::fs::read_to_string(file("setup-commands.txt")).expect("the commands");
    let lines = text.lines().skip_while(|line| !line.starts_with("### STATE B")).skip(1);
    let commands: Vec<&str> = lines.take_while(|line| !line.starts_with("###")).collect();
    assert!(!commands.is_empty(), "no state B");
    let mut model = Model::default();
    for command in commands {
        let outcome = run(&mut model, command, "");
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (0, ""), "{command}");
    }
    model
}
