//! The program itself, over a control socket, against the model.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use xvs::control::protocol::{Action, Outcome, Request, Response, SOCKET_ENV, VERSION};
use xvs::ipvsadm::run::Director;

use crate::model::Model;
use crate::recording::{configured, printed};

/// A directory of this test's own, gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("xvsadm-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(stream: UnixStream, model: &mut Model) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut writer = stream;
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        let request: Request = serde_json::from_str(&line).expect("a request");
        line.clear();
        let outcome = match model.call(request.action).expect("the model does not fail") {
            Ok(answer) => Outcome::Ok(answer),
            Err(refusal) => Outcome::Refused(refusal),
        };
        let response = Response { v: VERSION, outcome };
        writeln!(writer, "{}", serde_json::to_string(&response).expect("plain values")).expect("a listening tool");
    }
}

fn run(program: &Path, socket: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).env(SOCKET_ENV, socket).output().expect("the program runs")
}

/// Guards the way from a shell to the director and back: arguments, socket, streams, exit status, the program's name.
#[test]
fn over_a_socket() {
    let directory = Directory::new("socket");
    let socket = directory.0.join("xvs.sock");
    let xvsadm = Path::new(env!("CARGO_BIN_EXE_xvsadm"));
    let nobody = run(xvsadm, &socket, &["-Ln"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("xvs run"), "the cure is told");

    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || {
        let mut model = configured();
        for stream in listener.incoming() {
            serve(stream.expect("a tool"), &mut model);
        }
    });
    let listing = run(xvsadm, &socket, &["-Ln"]);
    assert_eq!((listing.status.code(), listing.stderr.len()), (Some(0), 0));
    assert_eq!(String::from_utf8_lossy(&listing.stdout), printed("B-config-Ln"));

    let ipvsadm = directory.0.join("ipvsadm");
    std::os::unix::fs::symlink(xvsadm, &ipvsadm).expect("a link");
    assert_eq!(run(&ipvsadm, &socket, &["-A", "-f", "7", "-s", "rr"]).status.code(), Some(0));
    let twice = run(&ipvsadm, &socket, &["-A", "-f", "7", "-s", "rr"]);
    assert_eq!((twice.status.code(), twice.stdout.len()), (Some(255), 0));
    assert!(twice.stderr.starts_with(b"ipvsadm: "));
    assert_eq!(run(&ipvsadm, &socket, &["-L", "--json"]).status.code(), Some(255));
    assert_eq!(run(&ipvsadm, &socket, &["-Ln", "-f", "8"]).status.code(), Some(1));
}

/// Guards a pipe that is written slowly: a rule is in force before the next one is written, and what went wrong with rules
/// that came together is told with the line of each.
#[test]
fn a_restore_waits_for_nobody() {
    let directory = Directory::new("restore");
    let socket = directory.0.join("xvs.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let (asked, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut model = Model::default();
        let (stream, _) = listener.accept().expect("a tool");
        for line in BufReader::new(stream.try_clone().expect("a second handle")).lines() {
            let request: Request = serde_json::from_str(&line.expect("a line")).expect("a request");
            asked.send(request.action.clone()).expect("the test waits");
            let outcome = model.call(request.action).expect("the model does not fail");
            let response = Response { v: VERSION, outcome: outcome.map_or_else(Outcome::Refused, Outcome::Ok) };
            writeln!(&stream, "{}", serde_json::to_string(&response).expect("plain values")).expect("a tool");
        }
    });
    let mut tool = Command::new(env!("CARGO_BIN_EXE_xvsadm"))
        .arg("-R")
        .env(SOCKET_ENV, &socket)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut pipe = tool.stdin.take().expect("a pipe");
    let patience = std::time::Duration::from_secs(20);
    pipe.write_all(b"-A -t 192.0.2.1:80 -s rr\n-A -t 192.0.2.1:").expect("a reader");
    assert!(matches!(seen.recv_timeout(patience), Ok(Action::Many(actions)) if actions.len() == 1));
    pipe.write_all(b"80 -s rr\n\n-a -t 192.0.2.1:80 -r 10.0.0.1\n-D -t 192.0.2.9:80").expect("a reader");
    drop(pipe);
    let output = tool.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = told.lines().map(|line| line.split(" refused").next().unwrap_or_default()).collect();
    assert_eq!(lines, ["xvsadm: line 2:", "xvsadm: line 5:"], "{told}");
    assert_eq!(output.status.code(), Some(255), "that of the last line");
}
